//! gary over plain HTTP, as the DAW plug-in uses it: `/api/juce/*`,
//! `/api/latest_generated_audio/*`. Every failure is `{success: false, error}`; the plug-in looks
//! at nothing else.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use warp::http::StatusCode;
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::super::client::owner;
use super::super::error::sentence;
use super::super::router::get;
use super::super::sounding::Told;
use super::super::{App, HttpError, Routes, body};
use super::payload::Payload;
use super::service::unix_time;
use super::texts;
use crate::studio::{ClipId, ClipSnapshot, Lane, Owner, SessionId, Status, Studio, StudioError};

/// All routes of this file.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    verbs(app).or(poll(app)).unify().or(latest(app)).unify().boxed()
}

fn verbs(app: &Arc<App>) -> Routes {
    let for_verbs = Arc::clone(app);
    warp::path!("api" / "juce" / String)
        .and_then(|verb: String| async move {
            let known = [
                "process_audio",
                "continue_music",
                "retry_music",
                "transform_audio",
                "undo_transform",
                "update_cropped_audio",
            ];
            known.into_iter().find(|name| *name == verb).ok_or_else(warp::reject::not_found)
        })
        .and(warp::post())
        .and(body::upload(app))
        .and(owner())
        .then(move |verb: &'static str, body: Result<Bytes, HttpError>, owner: Owner| {
            let app = Arc::clone(&for_verbs);
            async move { answer(perform(&app, verb, body, owner).await) }
        })
        .boxed()
}

fn poll(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("api" / "juce" / "poll_status" / String)
        .and(get())
        .then(move |id: String| {
            let app = Arc::clone(&app);
            async move { answer(poll_status(&app, &id).await) }
        })
        .boxed()
}

fn latest(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("api" / "latest_generated_audio" / String)
        .and(get())
        .then(move |id: String| {
            let app = Arc::clone(&app);
            async move {
                let (status, body) = match latest_audio(&app, &id).await {
                    Ok(found) => found,
                    Err(Failure(status, message)) => (status, json!({ "status": "error", "message": message }).into()),
                };
                with_status(body, status).into_response()
            }
        })
        .boxed()
}

/// A status and a sentence.
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence)
    }
}

impl From<StudioError> for Failure {
    fn from(error: StudioError) -> Self {
        match error {
            StudioError::NoSession(_) => Self(StatusCode::NOT_FOUND, "Session not found".into()),
            StudioError::Store(_) | StudioError::Broken(_) | StudioError::Engine(_) => {
                Self(StatusCode::INTERNAL_SERVER_ERROR, texts::said(&error))
            }
            StudioError::QueueFull { .. } | StudioError::TooManyOfYours { .. } => {
                Self(StatusCode::TOO_MANY_REQUESTS, texts::said(&error))
            }
            error => Self(StatusCode::BAD_REQUEST, texts::said(&error)),
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self(error.status(), error.to_string())
    }
}

pub(super) fn answer(result: Result<impl Into<Told>, Failure>) -> Response {
    match result {
        Ok(body) => body.into().into_response(),
        Err(Failure(status, error)) => {
            let body = json!({ "success": false, "error": sentence(&error) });
            with_status(warp::reply::json(&body), status).into_response()
        }
    }
}

async fn perform(app: &App, verb: &str, body: Result<Bytes, HttpError>, owner: Owner) -> Result<Told, Failure> {
    let studio = app.studio()?;
    let payload = Payload::read(body?, &app.budget).await?;
    let session = payload.session()?;
    let required = || session.clone().ok_or_else(|| Failure::from("Session ID required".to_owned()));
    let audio =
        || -> Result<Bytes, Failure> { payload.audio()?.ok_or_else(|| Failure::from("Missing audio_data".to_owned())) };
    let accepted = match verb {
        "process_audio" => {
            payload.require(&["audio_data", "model_name", "prompt_duration"])?;
            studio.bang(owner, None, payload.clip_request()?, audio()?).await?
        }
        "continue_music" => {
            let sound = payload.audio()?;
            if session.is_none() && sound.is_none() {
                return Err("Session ID required".to_owned().into());
            }
            studio.extend(owner, session, payload.clip_request()?, sound).await?
        }
        "retry_music" => studio.retry(owner, &required()?, payload.clip_request()?).await?,
        "transform_audio" => {
            let taken = studio.transform(owner, session, payload.transform()?, payload.audio()?).await;
            taken.map_err(|error| match error {
                StudioError::NoSession(_) | StudioError::NoAudio => Failure::from("No audio data available".to_owned()),
                StudioError::Absent(_) => Failure(StatusCode::SERVICE_UNAVAILABLE, texts::no_transform(&error)),
                error => error.into(),
            })?
        }
        "undo_transform" => {
            let session = required()?;
            let undone = studio.undo(&session).await?;
            let sound = studio.store().sound(undone).await?;
            let told = json!({ "success": true, "session_id": session, "message": "Undone." });
            return Ok(Told::from(told).with("audio_data", Some(sound)));
        }
        _ => {
            let (session, auto_created) = studio.crop(session.clone(), audio()?).await?;
            return Ok(json!({
                "success": true, "session_id": session, "message": "The cropped audio is kept.",
                "auto_created": auto_created,
            })
            .into());
        }
    };
    Ok(json!({
        "success": true,
        "session_id": accepted.session,
        "message": "Taken on.",
        "note": "Ask /api/juce/poll_status for how far it is.",
        "info": "The result is the session's sound once its status is `completed`.",
    })
    .into())
}

/// The clip that a session waits for, else its latest; and whether a piece and whether a transform
/// is being made.
async fn state(studio: &Studio, id: &SessionId) -> Result<(Option<ClipSnapshot>, [bool; 2]), StudioError> {
    // Read first, and once: a clip that ends in between is then told as running once more, never as
    // missing.
    let tasks = [Lane::Pieces, Lane::Transforms].map(|lane| {
        let task = studio.task_in(id, lane)?;
        let status = task.status().borrow().clone();
        Some(ClipSnapshot { record: Arc::clone(task.record()), status })
    });
    let busy = [0, 1].map(|lane: usize| tasks[lane].as_ref().is_some_and(|clip| !clip.status.is_final()));
    match tasks.into_iter().flatten().next() {
        Some(clip) => Ok((Some(clip), busy)),
        None => Ok((studio.latest(id).await?, busy)),
    }
}

async fn poll_status(app: &App, id: &str) -> Result<Told, Failure> {
    let studio = app.studio()?;
    let not_found = || Failure(StatusCode::NOT_FOUND, "Session not found".into());
    let id = SessionId::parse(id).map_err(|_| not_found())?;
    let (clip, [generating, transforming]) = state(studio, &id).await?;
    let session = studio.session(&id).await?;
    let busy = generating || transforming;
    let (status, error) = match clip.as_ref().map(|clip| (&clip.record, &clip.status)) {
        None => ("unknown", None),
        Some((_, Status::Queued { .. })) => ("queued", None),
        Some((_, Status::Starting | Status::Loading)) => ("warming", None),
        Some((_, Status::Running { .. })) => ("processing", None),
        Some((_, Status::Completed)) => ("completed", None),
        Some((record, Status::Failed(reason))) => ("failed", Some(texts::failure(record.kind, reason))),
        Some((_, Status::Cancelled)) => ("failed", Some("The clip was cancelled.".to_owned())),
    };
    let sound = match session.current {
        Some(current) if !busy => Some(studio.store().sound(current).await?),
        _ => None,
    };
    let (clip_id, state, lane) = match &clip {
        Some(clip) => (clip.record.id, clip.status.clone(), clip.record.kind.lane()),
        None => (ClipId::random(), Status::Completed, Lane::Pieces),
    };
    let mut queue = texts::queue_status(&id, clip_id, &state, studio.load(lane));
    queue["timestamp"] = json!(unix_time());
    queue["from_worker"] = json!(false);
    let told = json!({
        "success": true,
        "session_id": id,
        "generation_in_progress": generating,
        "transform_in_progress": transforming,
        "progress": state.percent() * u64::from(clip.is_some()),
        "status": status,
        "error": error,
        "queue_status": queue,
        "session_data": {
            "model_name": session.params.model,
            "prompt_duration": session.params.prompt_seconds,
            "parameters": {
                "top_k": session.params.top_k,
                "temperature": session.params.temperature,
                "cfg_coef": session.params.guidance,
            },
            "description": session.params.description,
        },
    });
    Ok(Told::from(told).with("audio_data", sound))
}

/// For clients that slept while their music was made.
async fn latest_audio(app: &App, id: &str) -> Result<(StatusCode, Told), Failure> {
    let studio = app.studio()?;
    let not_found = || Ok((StatusCode::NOT_FOUND, json!({ "status": "not_found" }).into()));
    let Ok(id) = SessionId::parse(id) else { return not_found() };
    if studio.task_of(&id).is_some() {
        let message = "The music is still being made.";
        return Ok((StatusCode::ACCEPTED, json!({ "status": "in_progress", "message": message }).into()));
    }
    let session = match studio.session(&id).await {
        Ok(session) => session,
        Err(StudioError::NoSession(_)) => return not_found(),
        Err(error) => return Err(error.into()),
    };
    let Some(current) = session.current else {
        return Ok((StatusCode::NOT_FOUND, json!({ "status": "no_audio" }).into()));
    };
    let sound = studio.store().sound(current).await?;
    if let Some(clip) = studio.undelivered(&id).await? {
        studio.delivered(clip.id).await?;
    }
    let told = json!({
        "status": "success",
        "model_name": session.params.model,
        "prompt_duration": session.params.prompt_seconds,
        "session_id": id,
    });
    Ok((StatusCode::OK, Told::from(told).with("audio_data", Some(sound))))
}
