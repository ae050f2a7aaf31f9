//! `/v1/clips`: ask for a piece, watch it being made, hear it meanwhile, fetch it, give it up, turn
//! it into a stream.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, LOCATION};
use warp::reply::{Response, with_header, with_status};
use warp::sse::Event as Sse;
use warp::{Filter, Reply};

use super::client::owner;
use super::error::reply;
use super::file::{self, Wanted, wanted};
use super::input::checked_name;
use super::links::{self, Links};
use super::query::{Query, raw};
use super::router::get;
use super::sound_paths::Sounds;
use super::upload::{self, Fields, Upload};
use super::views::{ClipList, ClipView};
use super::{App, HttpError, Routes, body, events, live};
use crate::audio::Format;
use crate::station::{Idle, StreamSpec};
use crate::studio::{Accepted, ClipId, Owner, SessionId, Studio, StudioError};
use crate::units::ModelId;

/// Clips that a list shows.
const LISTED: usize = 100;

/// Everything under `/v1/clips`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    collection(app).or(one(app)).unify().or(parts(app)).unify().or(to_stream(app)).unify().boxed()
}

fn collection(app: &Arc<App>) -> Routes {
    let (for_list, for_create) = (Arc::clone(app), Arc::clone(app));
    let list = get().and(raw()).and(links::of_request()).then(move |query: String, links| {
        let app = Arc::clone(&for_list);
        async move { reply(list(&app, &query, &links).await) }
    });
    let upload = upload::of_request(app).and(owner()).and(links::of_request());
    let create = warp::post().and(upload).then(move |upload, owner, links| {
        let app = Arc::clone(&for_create);
        async move { reply(create(&app, upload, owner, &links).await) }
    });
    warp::path!("v1" / "clips").and(list.or(create).unify()).boxed()
}

fn one(app: &Arc<App>) -> Routes {
    let (for_show, for_cancel) = (Arc::clone(app), Arc::clone(app));
    let id = warp::path!("v1" / "clips" / String);
    let show = id.and(get()).and(links::of_request()).then(move |id: String, links| {
        let app = Arc::clone(&for_show);
        async move { reply(show(&app, &id, &links).await) }
    });
    let cancel = id.and(warp::delete()).and(links::of_request()).then(move |id: String, links| {
        let app = Arc::clone(&for_cancel);
        async move { reply(cancel(&app, &id, &links).await) }
    });
    show.or(cancel).unify().boxed()
}

fn parts(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "clips" / String / String)
        .and_then(|id, part: String| async move {
            match part.as_str() {
                "events" => Ok((id, Part::Events)),
                "peaks" => Ok((id, Part::Peaks)),
                _ => match (Sounds::Files.format(&part), Sounds::Previews.format(&part)) {
                    (Some(format), _) => Ok((id, Part::File(format))),
                    (_, Some(format)) => Ok((id, Part::Live(format))),
                    _ => Err(warp::reject::not_found()),
                },
            }
        })
        .and(get())
        .and(links::of_request())
        .and(events::has_seen_the_end())
        .and(wanted())
        .then(move |(id, part): (String, Part), links, has_seen_the_end, wanted| {
            let app = Arc::clone(&app);
            async move { reply(self::part(&app, &id, part, (links, has_seen_the_end), &wanted).await) }
        })
        .boxed()
}

fn to_stream(app: &Arc<App>) -> Routes {
    let for_stream = Arc::clone(app);
    warp::path!("v1" / "clips" / String / "stream")
        .and(warp::post())
        .and(body::bytes(app))
        .and(owner())
        .and(super::query::raw())
        .and(links::of_request())
        .then(move |id: String, body, owner, query: String, links| {
            let app = Arc::clone(&for_stream);
            async move { reply(stream_from(&app, &id, (&query, body), (&owner, &links)).await) }
        })
        .boxed()
}

/// What there is of a clip.
#[derive(Clone, Copy)]
enum Part {
    Events,
    Peaks,
    File(Format),
    Live(Format),
}

pub(super) fn clip_id(text: &str) -> Result<ClipId, HttpError> {
    text.parse().map_err(|_| StudioError::NoClip(text.chars().take(80).collect()).into())
}

async fn list(app: &App, query: &str, links: &Links) -> Result<Response, HttpError> {
    let session = Query::parse(query, &[&["session"]])?.one("session")?.map(SessionId::parse).transpose()?;
    let clips = app.studio()?.history(session.as_ref(), LISTED).await?;
    let clips = clips.iter().map(|clip| ClipView::new(clip, links)).collect();
    Ok(no_store(warp::reply::json(&ClipList { clips })))
}

async fn create(
    app: &App,
    upload: Result<Upload, HttpError>,
    owner: Owner,
    links: &Links,
) -> Result<Response, HttpError> {
    let upload = upload?;
    let request = upload.clip_request();
    let Upload { fields, audio, .. } = upload;
    if audio.is_none() && fields == Fields::default() {
        return Err(HttpError::Unprocessable(
            "Say what to make: send a prompt, a sound to go on from, or at least how many seconds.".into(),
        ));
    }
    let studio = app.studio()?;
    let session = fields.session.as_deref().map(SessionId::parse).transpose()?;
    let has_sound = audio.is_some() || session.is_some();
    let verb = fields.verb.as_deref().unwrap_or(if has_sound { "continue" } else { "generate" });
    let accepted = match (verb, audio, session) {
        ("generate", None, session) => studio.generate_in(session, owner, request).await?,
        ("generate", ..) => {
            return Err(HttpError::Unprocessable(
                "`generate` makes a piece from text alone; leave the sound out, or send verb=continue.".into(),
            ));
        }
        ("bang", Some(audio), None) => studio.bang(owner, None, request, audio).await?,
        ("bang", ..) => {
            return Err(HttpError::Unprocessable(
                "`bang` begins a session from a sound; send the sound, and no session.".into(),
            ));
        }
        ("continue", audio, session) => studio.extend(owner, session, request, audio).await?,
        (other, ..) => {
            return Err(HttpError::Unprocessable(format!(
                "`{}` is no verb; send generate, bang or continue.",
                other.chars().take(40).collect::<String>()
            )));
        }
    };
    accepted_reply(studio, &accepted, links).await
}

/// 202 with the clip that was taken on.
pub(super) async fn accepted_reply(studio: &Studio, accepted: &Accepted, links: &Links) -> Result<Response, HttpError> {
    let view = ClipView::new(&studio.clip(accepted.clip).await?, links);
    let taken = with_status(warp::reply::json(&view), StatusCode::ACCEPTED);
    Ok(with_header(taken, LOCATION, links.to(&format!("/v1/clips/{}", accepted.clip))).into_response())
}

async fn show(app: &App, id: &str, links: &Links) -> Result<Response, HttpError> {
    let snapshot = app.studio()?.clip(clip_id(id)?).await?;
    Ok(no_store(warp::reply::json(&ClipView::new(&snapshot, links))))
}

async fn cancel(app: &App, id: &str, links: &Links) -> Result<Response, HttpError> {
    let (studio, id) = (app.studio()?, clip_id(id)?);
    studio.cancel(id).await?;
    Ok(no_store(warp::reply::json(&ClipView::new(&studio.clip(id).await?, links))))
}

async fn part(
    app: &App,
    id: &str,
    part: Part,
    (links, has_seen_the_end): (Links, bool),
    wanted: &Wanted,
) -> Result<Response, HttpError> {
    let (studio, id) = (app.studio()?, clip_id(id)?);
    match part {
        Part::Events => events(studio, id, links, has_seen_the_end, app.stopping.clone()).await,
        Part::Peaks => file::peaks(studio, studio.output(id).await?, wanted).await,
        Part::Live(format) => live::response(studio, id, format, wanted, app.stopping.clone()).await,
        Part::File(format) => file::sound(studio, studio.output(id).await?, format, &id.to_string(), wanted).await,
    }
}

/// `status` events, the last of which is final. Who has seen it is told not to come again.
async fn events(
    studio: &Arc<Studio>,
    id: ClipId,
    links: Links,
    has_seen_the_end: bool,
    stopping: CancellationToken,
) -> Result<Response, HttpError> {
    let snapshot = studio.clip(id).await?;
    if has_seen_the_end && snapshot.status.is_final() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = studio.task(id).map(|task| task.status());
    let rest = stream::unfold(Some((snapshot, watch, links)), |state| async move {
        let (mut snapshot, mut watch, links) = state?;
        if let Some(watch) = &mut watch {
            snapshot.status = watch.borrow_and_update().clone();
        }
        let event = Sse::default().event("status").json_data(ClipView::new(&snapshot, &links));
        // A view is always JSON.
        let mut event = event.unwrap_or_default();
        if snapshot.status.is_final() {
            event = event.id(events::END);
        }
        let next = match watch {
            Some(mut watch) if !snapshot.status.is_final() => {
                let changed = watch.changed().await.is_ok();
                changed.then_some((snapshot, Some(watch), links))
            }
            _ => None,
        };
        Some((Ok::<_, std::convert::Infallible>(event), next))
    });
    let kept_alive = warp::sse::keep_alive().stream(rest.take_until(stopping.cancelled_owned()));
    Ok(warp::sse::reply(kept_alive).into_response())
}

/// A stream that goes on from a clip; what is left out is as the clip has it.
#[derive(Deserialize, Default, ToSchema)]
#[schema(as = ClipStreamRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Onward {
    #[schema(max_length = 1000)]
    prompt: Option<String>,
    #[schema(min_length = 1, max_length = 80)]
    name: Option<String>,
    model: Option<String>,
}

async fn stream_from(
    app: &App,
    id: &str,
    (query, body): (&str, Result<Bytes, HttpError>),
    (owner, links): (&Owner, &Links),
) -> Result<Response, HttpError> {
    let wait = Query::parse(query, &[&["wait"]])?.wait()?;
    let (studio, id, body) = (app.studio()?, clip_id(id)?, body?);
    let onward: Onward = if body.is_empty() { Onward::default() } else { body::json(&body)? };
    let name = checked_name(onward.name)?;
    let record = studio.clip(id).await?.record;
    let params = &record.params;
    let model = onward.model.or_else(|| params.model_name());
    let mut sampling = params.sampling();
    sampling.seed = None;
    let prefix = studio.prefix(owner, id, model.as_deref()).await?;
    let spec = StreamSpec {
        name,
        model: model.map(ModelId),
        prompts: vec![onward.prompt.as_deref().unwrap_or(params.text()).into()],
        sampling,
        seconds: None,
        max_still: None,
        wait,
        keep: false,
        idle: Idle::Pause,
    };
    let info = app.station.create_from(spec, Some(prefix)).await?.info();
    Ok(super::streams::created(app, info, links))
}

pub(super) fn no_store(reply: impl Reply) -> Response {
    with_header(reply, CACHE_CONTROL, "no-store").into_response()
}
