//! `/v1/transforms` and `/v1/loops`: ask for one, see how far it is, fetch it, give it up.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;
use warp::http::StatusCode;
use warp::http::header::LOCATION;
use warp::reply::{Response, with_header, with_status};
use warp::{Filter, Reply};

use super::client::owner;
use super::clips::no_store;
use super::error::reply;
use super::file::{self, Wanted, wanted};
use super::links::{self, Links};
use super::query::{Query, raw};
use super::router::get;
use super::seed::Seed;
use super::sound_paths::Sounds;
use super::views::{AcceptedRender, PresetList, PresetView, RenderView};
use super::{App, HttpError, Routes, body};
use crate::audio::Format;
use crate::engine::{LoopSettings, LoopSpec, Shape};
use crate::studio::{
    Accepted, ClipSnapshot, Kind, LoopParams, Owner, SessionId, Status, Studio, StudioError, TransformRequest,
    random_seed,
};

/// What may be said of a transform in the query; its body is the recording, unless a session has
/// one.
const FIELDS: [&str; 7] = ["preset", "prompt", "flowstep", "solver", "steps", "seed", "session"];

/// Everything under `/v1/transforms` and `/v1/loops`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_presets, for_transform, for_loop) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    let presets = get().then(move || {
        let app = Arc::clone(&for_presets);
        async move { reply(presets(&app)) }
    });
    let recording = raw().and(body::upload(app)).and(owner()).and(links::of_request());
    let transform = warp::post().and(recording).then(move |query: String, body, owner, links| {
        let app = Arc::clone(&for_transform);
        async move { reply(transform(&app, &query, body, owner, &links).await) }
    });
    let request = body::bytes(app).and(owner()).and(links::of_request());
    let make_loop = warp::post().and(request).then(move |body, owner, links| {
        let app = Arc::clone(&for_loop);
        async move { reply(make_loop(&app, body, owner, &links).await) }
    });
    let transforms = warp::path!("v1" / "transforms").and(presets.or(transform).unify());
    let loops = warp::path!("v1" / "loops").and(make_loop);
    transforms.or(loops).unify().or(one(app)).unify().or(file(app)).unify().boxed()
}

/// Both kinds are found the same way; a kind in the path that is neither is somebody else's.
fn kind() -> impl Filter<Extract = (String,), Error = warp::Rejection> + Copy {
    warp::path("v1").and(warp::path::param()).and_then(|kind: String| async move {
        match kind.as_str() {
            "transforms" | "loops" => Ok(kind),
            _ => Err(warp::reject::not_found()),
        }
    })
}

fn one(app: &Arc<App>) -> Routes {
    let (for_show, for_drop) = (Arc::clone(app), Arc::clone(app));
    let path = kind().and(warp::path::param()).and(warp::path::end());
    let show = path.and(get()).and(links::of_request()).then(move |kind: String, id: String, links| {
        let app = Arc::clone(&for_show);
        async move { reply(show(&app, &kind, &id, &links).await) }
    });
    let end = path.and(warp::delete()).then(move |kind: String, id: String| {
        let app = Arc::clone(&for_drop);
        async move { reply(forget(&app, &kind, &id).await) }
    });
    show.or(end).unify().boxed()
}

fn file(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    let path = kind().and(warp::path::param()).and(warp::path::param()).and(warp::path::end());
    path.and_then(|kind, id, file: String| async move {
        Sounds::Files.format(&file).map(|format| (kind, id, format)).ok_or_else(warp::reject::not_found)
    })
    .and(get())
    .and(wanted())
    .then(move |(kind, id, format): (String, String, Format), wanted| {
        let app = Arc::clone(&app);
        async move { reply(audio(&app, &kind, &id, format, &wanted).await) }
    })
    .boxed()
}

fn presets(app: &App) -> Result<Response, HttpError> {
    let presets = app.studio()?.renders().presets().iter().map(|(name, variation)| PresetView {
        name: name.to_owned(),
        prompt: variation.prompt.clone(),
        flowstep: variation.rounded_flowstep(),
        steps: variation.steps,
    });
    Ok(warp::reply::json(&PresetList { presets: presets.collect() }).into_response())
}

async fn transform(
    app: &App,
    query: &str,
    body: Result<Bytes, HttpError>,
    owner: Owner,
    links: &Links,
) -> Result<Response, HttpError> {
    let studio = app.studio()?;
    let query = Query::parse(query, &[&FIELDS])?;
    let text = |name| query.one(name).map(|text| text.map(str::to_owned));
    let session = query.one("session")?.map(SessionId::parse).transpose()?;
    let request = TransformRequest {
        variation: text("preset")?,
        prompt: text("prompt")?,
        flowstep: number(&query, "flowstep")?,
        solver: text("solver")?,
        steps: number(&query, "steps")?,
        seed: query.seed()?.exact(),
        keeps_rate: false,
    };
    let body = Some(body?).filter(|body| !body.is_empty());
    if body.is_none() && session.is_none() {
        return Err(bad("Send the recording as the body, for example with curl --data-binary @in.wav.".into()));
    }
    accepted(studio, "transforms", &studio.transform(owner, session, request, body).await?, links).await
}

fn number<T: FromStr>(query: &Query, name: &str) -> Result<Option<T>, HttpError> {
    let Some(text) = query.one(name)? else { return Ok(None) };
    let number = text.parse().map_err(|_| bad(format!("`{name}` is `{text}` but must be a number that fits.")))?;
    Ok(Some(number))
}

/// A loop of whole bars.
#[derive(Deserialize, ToSchema)]
#[schema(as = LoopRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct LoopBody {
    #[schema(max_length = 1000)]
    prompt: String,
    bpm: f64,
    #[serde(default = "four")]
    #[schema(default = 4)]
    bars: u32,
    /// As in `A minor`.
    key: Option<String>,
    /// What it is to keep away from, in words.
    #[serde(default)]
    avoid: String,
    #[schema(minimum = 0, maximum = 20, default = 6)]
    guidance: Option<f64>,
    /// The model's own number without.
    steps: Option<usize>,
    #[serde(default)]
    seed: Seed,
    /// The session that it goes into; a new one without.
    session: Option<String>,
}

fn four() -> u32 {
    4
}

async fn make_loop(
    app: &App,
    body: Result<Bytes, HttpError>,
    owner: Owner,
    links: &Links,
) -> Result<Response, HttpError> {
    let request: LoopBody = body::json(&body?)?;
    let studio = app.studio()?;
    if request.prompt.trim().is_empty() {
        return Err(bad("`prompt` is empty; say what the loop is to play.".into()));
    }
    let guidance = request.guidance.unwrap_or(6.0);
    if !(0.0..=20.0).contains(&guidance) {
        return Err(bad(format!("`guidance` is {guidance} but must lie between 0 and 20.")));
    }
    let text = match &request.key {
        Some(key) => format!("{} in {key}", request.prompt),
        None => request.prompt,
    };
    let spec = LoopSpec {
        text,
        avoid: request.avoid,
        shape: Shape::Loop { bpm: request.bpm, bars: request.bars },
        seconds: None,
        given: None,
        seed: request.seed.exact().unwrap_or_else(random_seed),
    };
    let settings = LoopSettings { steps: request.steps, guidance: Some(guidance), sampler: None };
    let params = LoopParams { model: None, spec, settings };
    let session = request.session.as_deref().map(SessionId::parse).transpose()?;
    accepted(studio, "loops", &studio.make_loop(owner, session, params, None).await?, links).await
}

fn bad(sentence: String) -> HttpError {
    HttpError::BadRequest(sentence)
}

async fn accepted(studio: &Studio, kind: &str, taken: &Accepted, links: &Links) -> Result<Response, HttpError> {
    let record = studio.clip(taken.clip).await?.record;
    let view = AcceptedRender::new(kind, taken, &record, links);
    let body = with_header(warp::reply::json(&view), LOCATION, view.href);
    Ok(with_status(body, StatusCode::ACCEPTED).into_response())
}

async fn find(studio: &Studio, kind: &str, id: &str) -> Result<ClipSnapshot, HttpError> {
    let gone = || HttpError::NoRender(kind.to_owned(), id.chars().take(80).collect());
    let clip = match studio.clip(id.parse().map_err(|_| gone())?).await {
        Err(StudioError::NoClip(_)) => return Err(gone()),
        clip => clip?,
    };
    let wanted = if kind == "loops" { Kind::Loop } else { Kind::Transform };
    if clip.record.kind == wanted { Ok(clip) } else { Err(gone()) }
}

async fn show(app: &App, kind: &str, id: &str, links: &Links) -> Result<Response, HttpError> {
    let studio = app.studio()?;
    let clip = find(studio, kind, id).await?;
    let shape = match clip.status {
        Status::Completed => Some(studio.shape_of_clip(clip.record.id).await?),
        _ => None,
    };
    let view = RenderView::new(kind, clip, shape, links);
    Ok(no_store(warp::reply::json(&view)))
}

/// Ends it; what was made for it alone goes with it.
async fn forget(app: &App, kind: &str, id: &str) -> Result<Response, HttpError> {
    let studio = app.studio()?;
    let record = find(studio, kind, id).await?.record;
    studio.cancel(record.id).await?;
    let session = studio.session(&record.session).await?;
    let alone = studio.store().clips(Some(&record.session), 2).await?.len() == 1;
    if alone && ["transform", "loop"].contains(&session.origin.as_str()) {
        studio.remove_session(&record.session).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn audio(app: &App, kind: &str, id: &str, format: Format, wanted: &Wanted) -> Result<Response, HttpError> {
    let studio = app.studio()?;
    let record = find(studio, kind, id).await?.record;
    file::sound(studio, studio.output(record.id).await?, format, &record.id.to_string(), wanted).await
}
