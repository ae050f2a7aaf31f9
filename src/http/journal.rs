//! What was heard of a stream: its history, recordings, streams that go on from a moment of it, and
//! parts of it as sessions of the studio.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use warp::http::StatusCode;
use warp::http::header::LOCATION;
use warp::reply::{Response, with_header, with_status};
use warp::{Filter, Reply};

use super::auth::{self, Grant, Scope};
use super::client::{self, Client};
use super::clips::no_store;
use super::error::reply;
use super::file::{self, Wanted, wanted};
use super::input::{Prompt, blend, checked_name};
use super::links::{self, Links};
use super::query::{Query, raw};
use super::recording::LONGEST;
use super::router::get;
use super::seed::Seed;
use super::sound_paths::Sounds;
use super::{App, HttpError, Routes, body, forward, when};
use crate::audio::{Format, LongEnd, OPUS_RATE, list};
use crate::engine::SamplingPatch;
use crate::station::{Fork, Journal, Replay, StationError, Stream, rfc3339};
use crate::studio::{ClipRequest, SessionId};

/// The longest part that becomes a session, in frames: ten minutes.
const LONGEST_CLIP: u64 = 600 * OPUS_RATE as u64;

/// `history`, `recording`, `fork` and `clip` under `/v1/streams/{id}`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    history(app).or(recording(app)).unify().or(fork(app)).unify().or(clip(app)).unify().boxed()
}

fn history(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "history")
        .and(get())
        .map(move |id: String| {
            let found = app.station.get(&id).map_err(HttpError::from);
            reply(found.map(|stream| no_store(warp::reply::json(&stream.journal().history()))))
        })
        .boxed()
}

fn recording(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "recording")
        .and(get())
        .and(raw())
        .and(wanted())
        .then(move |id: String, query: String, wanted: Wanted| {
            let app = Arc::clone(&app);
            async move { reply(record(&app, &id, &query, &wanted).await) }
        })
        .boxed()
}

fn fork(app: &Arc<App>) -> Routes {
    let for_fork = Arc::clone(app);
    let asked = warp::post().and(raw()).and(body::bytes(app)).and(links::of_request()).and(auth::of_request());
    warp::path!("v1" / "streams" / String / "fork")
        .and(asked)
        .then(move |id: String, query: String, body, links, grant| {
            let app = Arc::clone(&for_fork);
            async move { reply(go_on(&app, &id, (&query, body), &links, &grant).await) }
        })
        .boxed()
}

fn clip(app: &Arc<App>) -> Routes {
    let for_clip = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "clip")
        .and(warp::post())
        .and(body::bytes(app))
        .and(client::of_request())
        .and(links::of_request())
        .and(auth::of_request())
        .then(move |id: String, body, client: Client, links, grant: Grant| {
            let app = Arc::clone(&for_clip);
            async move {
                let cut = async {
                    // Sessions belong to no station.
                    grant.check(Scope::Produce, None)?;
                    cut_out(&app, &id, body, (&client, &links)).await
                };
                reply(cut.await)
            }
        })
        .boxed()
}

/// The part of a journal between two moments; what is not said is where it begins or ends.
fn span(journal: &Journal, from: Option<&str>, to: Option<&str>, longest: u64) -> Result<Range<u64>, HttpError> {
    let kept = journal.kept();
    let from = from.map_or(Ok(kept.start), |text| when::frame(journal, "from", text))?;
    let to = to.map_or(Ok(kept.end), |text| when::frame(journal, "to", text))?;
    if from >= to {
        return Err(HttpError::Unprocessable("`to` must lie behind `from`; nothing is left between them.".into()));
    }
    if to - from > longest {
        let (most, seconds) = (longest / u64::from(OPUS_RATE), (to - from) / u64::from(OPUS_RATE));
        return Err(HttpError::Unprocessable(format!("{seconds} s were asked for; ask for at most {most} s at once.")));
    }
    Ok(from..to)
}

async fn record(app: &App, id: &str, query: &str, wanted: &Wanted) -> Result<Response, HttpError> {
    let query = Query::parse(query, &[&["from", "to", "format"]])?;
    let name = query.one("format")?.unwrap_or(Format::WAV.extension());
    let format = Format::named(name).filter(|format| format.missing_feature().is_none()).ok_or_else(|| {
        let known = Sounds::Files.formats().filter(|format| format.missing_feature().is_none());
        HttpError::BadRequest(format!("`format` is none that recordings are made in; send {}.", list(known, "")))
    })?;
    let stream = app.station.get(id)?;
    let span = span(stream.journal(), query.one("from")?, query.one("to")?, LONGEST)?;
    let tag = format!("{id}-{}-{}.{format}", span.start, span.end);
    let name = file_name(&stream, span.start);
    let (at_hand, made) =
        (async { Ok(app.recordings.at_hand(&tag)) }, app.recordings.file(&stream, span, format, &tag));
    let mut response = file::kept(&tag, format.media_type(), wanted, (at_hand, made)).await?;
    file::entitle(&mut response, format, &name, "attachment");
    Ok(response)
}

/// The stream's name and when it played, of letters that every system takes.
fn file_name(stream: &Stream, from: u64) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = stream.name().unwrap_or(stream.id()).chars().map(plain).collect();
    let time = stream.journal().wall_of(from).map(|time| rfc3339(time).chars().take(19).map(plain).collect::<String>());
    time.map_or_else(|| name.clone(), |time| format!("{name}-{time}"))
}

/// A stream that goes on from a moment of another one; what is left out is as it was at that
/// moment.
#[derive(Deserialize, Default, ToSchema)]
#[schema(as = StreamForkRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Onward {
    /// Seconds before now (-300), seconds of media time (81.5) or a time (2026-11-28T20:15:00Z);
    /// now without.
    from: Option<Value>,
    #[schema(min_items = 1, max_items = 8)]
    prompts: Option<Vec<Prompt>>,
    #[schema(min_length = 1, max_length = 80)]
    name: Option<String>,
    #[schema(minimum = 0, maximum = 4)]
    temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 65536)]
    top_k: Option<u32>,
    #[schema(minimum = 0, maximum = 20)]
    guidance: Option<f32>,
    #[serde(default)]
    seed: Seed,
}

/// A moment in a body: a number or a text.
fn moment(value: Option<&Value>) -> Option<String> {
    value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

async fn go_on(
    app: &App,
    id: &str,
    (query, body): (&str, Result<Bytes, HttpError>),
    links: &Links,
    grant: &Grant,
) -> Result<Response, HttpError> {
    let wait = Query::parse(query, &[&["wait"]])?.wait()?;
    let (stream, body) = (app.station.get(id)?, body?);
    let onward: Onward = if body.is_empty() { Onward::default() } else { body::json(&body)? };
    grant.check(Scope::Produce, onward.name.as_deref())?;
    let journal = stream.journal();
    let from = moment(onward.from.as_ref());
    let at = from.map_or(Ok(journal.kept().end), |text| when::frame(journal, "from", &text))?;
    let fork = Fork {
        name: checked_name(onward.name)?,
        prompts: onward.prompts.map(blend),
        sampling: SamplingPatch {
            temperature: onward.temperature,
            top_k: onward.top_k,
            guidance: onward.guidance,
            seed: onward.seed.exact(),
        },
        wait,
    };
    let info = app.station.fork(&stream, at, fork).await?.info();
    Ok(super::streams::created(app, info, links))
}

/// A part of a stream, between two moments: seconds before now (-300), seconds of media time (81.5)
/// or times (2026-11-28T20:15:00Z).
#[derive(Deserialize, ToSchema)]
#[schema(as = StreamClipRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    from: Value,
    to: Value,
    /// The session that it goes into; a new one without.
    session: Option<String>,
}

/// A part of a stream that has become a session.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamClip)]
pub(super) struct ClipOfStream {
    /// Id of the session.
    session: String,
    /// Media time in seconds.
    from: f64,
    /// Media time in seconds.
    to: f64,
    /// Its length.
    seconds: f64,
    /// What played where it begins.
    title: Option<String>,
    /// Where the session is.
    url: String,
}

async fn cut_out(
    app: &App,
    id: &str,
    body: Result<Bytes, HttpError>,
    (client, links): (&Client, &Links),
) -> Result<Response, HttpError> {
    let Part { from, to, session } = body::json(&body?)?;
    let session = session.as_deref().map(SessionId::parse).transpose()?;
    let (stream, studio) = (app.station.get(id)?, app.studio()?);
    let is_named = session.is_some();
    let session = session.unwrap_or_else(SessionId::random);
    let (from, to) = (moment(Some(&from)), moment(Some(&to)));
    let span = span(stream.journal(), from.as_deref(), to.as_deref(), LONGEST_CLIP)?;
    // Producers have rooms of their own.
    let mut replay = Replay::dry(&stream, span.clone())?;
    // 16 bits of every sample, and as much while the studio reads it.
    let _share = app.budget.take(4 * (span.end - span.start) * replay.channels() as u64).await?;
    let mut long = Format::WAV.long(replay.channels()).map_err(StationError::from)?;
    let mut file = Vec::new();
    while let Some(block) = replay.next().await? {
        file.append(&mut long.push(&block).map_err(StationError::from)?);
    }
    let LongEnd { head, .. } = long.finish().map_err(StationError::from)?;
    file[..head.len()].copy_from_slice(&head);
    let file = Bytes::from(file);
    // The session may live at another node.
    let taken = match &app.cluster {
        Some(cluster) if is_named => forward::bring(cluster, &session, client, &file).await?,
        _ => None,
    };
    match taken {
        Some(refused) if !refused.status().is_success() => return Ok(refused),
        Some(_) => {}
        None => drop(studio.upload(client.owner(), Some(session.clone()), ClipRequest::default(), file).await?),
    }
    let seconds = |frames: u64| frames as f64 / f64::from(OPUS_RATE);
    let place = links.to(&format!("/v1/sessions/{session}"));
    let view = ClipOfStream {
        session: session.to_string(),
        from: seconds(span.start),
        to: seconds(span.end),
        seconds: seconds(span.end - span.start),
        title: stream.journal().title_at(span.start),
        url: place.clone(),
    };
    let created = with_status(no_store(warp::reply::json(&view)), StatusCode::CREATED);
    Ok(with_header(created, LOCATION, place).into_response())
}
