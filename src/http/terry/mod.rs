//! terry: the transform server behind gary (betweentwomidnights/melodyflow,
//! `flask_melodyflow_2.py`).
//!
//! A transform is a clip of the session that the request names, so its steps are told to the
//! session's room as gary's are; the request itself is answered when the sound is there. What the
//! original does to lengths and rates is not repeated: the result is as long as the recording, at
//! its rate.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, json};
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::client::owner;
use super::error::sentence;
use super::gary::Payload;
use super::router::{Paths, get};
use super::sounding::Told;
use super::{App, HttpError, Routes, body, file, form};
use crate::engine::RenderKey;
use crate::studio::{Owner, SessionId, StudioError};

/// Names of a form's file.
const FILES: [&str; 3] = ["audio", "audio_file", "file"];

/// Paths of [`routes`].
pub(super) const PATHS: Paths = &[("/transform", "POST"), ("/variations", "GET, HEAD"), ("/health", "GET, HEAD")];

/// All routes of terry.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_transform, for_variations, for_health) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    let transform = warp::path!("transform")
        .and(warp::post())
        .and(body::upload(app))
        .and(warp::header::headers_cloned())
        .and(owner())
        .then(move |body, headers: HeaderMap, owner| {
            let app = Arc::clone(&for_transform);
            async move { answer(transform(&app, body, &headers, owner).await) }
        });
    let variations =
        warp::path!("variations").and(get()).map(move || answer(variations(&for_variations).map_err(Failure::from)));
    let health = warp::path!("health").and(get()).map(move || health(&for_health));
    transform.or(variations).unify().or(health).unify().boxed()
}

/// A status and a sentence.
struct Failure(StatusCode, String);

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self(error.status(), error.to_string())
    }
}

impl From<StudioError> for Failure {
    fn from(error: StudioError) -> Self {
        match error {
            StudioError::Audio(_) => error.to_string().into(),
            StudioError::Invalid(reason) => format!("Failed to process audio: {reason}").into(),
            StudioError::Failed(_) | StudioError::Broken(_) | StudioError::Store(_) | StudioError::Model(_) => {
                Self(StatusCode::INTERNAL_SERVER_ERROR, format!("Unexpected error: {error}"))
            }
            error => HttpError::from(error).into(),
        }
    }
}

fn answer(result: Result<Response, Failure>) -> Response {
    result.unwrap_or_else(|Failure(status, error)| {
        with_status(warp::reply::json(&json!({ "error": sentence(&error) })), status).into_response()
    })
}

/// A request, whichever way it came.
struct Request {
    payload: Payload,
    audio: Option<Bytes>,
    /// A form is answered with the file itself, JSON with JSON.
    is_form: bool,
}

async fn read(app: &App, body: Bytes, headers: &HeaderMap) -> Result<Request, Failure> {
    if !form::is_multipart(headers) {
        let payload = Payload::read(body, &app.budget).await?;
        let audio = payload.sound("audio").map_err(|error| format!("Failed to load audio: {error}"))?;
        return Ok(Request { payload, audio, is_form: false });
    }
    let (mut fields, mut audio) = (Vec::new(), None);
    for part in form::parts(body, headers, &app.budget).await? {
        if part.is_file || FILES.contains(&part.name.as_str()) {
            audio = Some(part.content).filter(|content| !content.is_empty());
        } else {
            let text = part.text()?.to_owned();
            fields.push((part.name, text));
        }
    }
    Ok(Request { payload: Payload::of_form(fields), audio, is_form: true })
}

async fn transform(
    app: &App,
    body: Result<Bytes, HttpError>,
    headers: &HeaderMap,
    owner: Owner,
) -> Result<Response, Failure> {
    let studio = app.studio()?;
    let Request { payload, audio, is_form } = read(app, body?, headers).await?;
    let session = payload.session()?;
    let variation = payload.text("variation")?;
    if variation.is_none() || (session.is_none() && !is_form) {
        return Err("Missing required data: send `variation` and `session_id`.".to_owned().into());
    }
    let Some(audio) = audio else {
        let sentence = "No audio data or file path provided: send `audio`; no file of this server is read for you.";
        return Err(sentence.to_owned().into());
    };
    let request = payload.transform()?;
    let known = studio.renders().presets().names();
    if let (Some(name), None) = (variation, &request.prompt)
        && name != "custom"
        && !known.contains(&name)
    {
        let (name, known) = (name.chars().take(80).collect::<String>(), known.join(", "));
        return Err(format!("Failed to process audio: Unknown variation: {name}. Take one of {known}.").into());
    }
    let session = session.unwrap_or_else(SessionId::random);
    let taken = studio.transform(owner, Some(session), request, Some(audio)).await?;
    let sound = studio.store().sound(studio.outcome(taken.clip).await?).await?;
    if is_form {
        let mut response = file::whole(sound)?;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("audio/wav"));
        return Ok(response);
    }
    Ok(Told::from(json!({ "message": "Audio transformed." })).with("audio", Some(sound)).into_response())
}

/// Every preset, with what it asks for.
fn variations(app: &App) -> Result<Response, HttpError> {
    let presets = app.studio()?.renders().presets().iter().map(|(name, variation)| {
        let asks =
            json!({ "prompt": variation.prompt, "flowstep": variation.rounded_flowstep(), "steps": variation.steps });
        (name.to_owned(), asks)
    });
    Ok(warp::reply::json(&json!({ "variations": presets.collect::<Map<_, _>>() })).into_response())
}

/// `healthy` when transforms can be made.
fn health(app: &App) -> Response {
    let held = app.studio().map(|studio| studio.holds(&RenderKey::Transform));
    let device = app.engine().status().lost;
    let (healthy, held, reason) = match (device, held) {
        (Some(reason), _) => (false, false, Some(reason)),
        (None, Ok(Ok(held))) => (true, held, None),
        (None, Ok(Err(error))) => (false, false, Some(error.to_string())),
        (None, Err(error)) => (false, false, Some(error.to_string())),
    };
    let body = json!({
        "status": if healthy { "healthy" } else { "degraded" },
        "gpu_available": app.has_gpu(),
        "model_loaded": held,
        "uptime": app.started.elapsed().as_secs(),
        "error": reason,
    });
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_status(warp::reply::json(&body), status).into_response()
}
