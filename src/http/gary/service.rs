//! What gary answers about itself: health, models, cleaning up, warming up, and the door of its
//! former queue.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::super::client::owner;
use super::super::router::get;
use super::super::{App, HttpError, Routes, body};
use super::juce::{Failure, answer};
use super::models;
use super::payload::Payload;
use crate::studio::Owner;

/// Fine-tunes that the original warms up, besides the default model; here only when no download is
/// needed for it.
const WARM: [(&str, &str); 2] =
    [("thepatch/hoenn_lofi", "lofi fine-tune, large"), ("thepatch/bleeps-medium", "bleeps fine-tune, medium")];

fn may_name(app: &App, owner: &Owner, name: &str) -> bool {
    app.studio.as_ref().is_some_and(|studio| studio.permit(owner, name).is_ok())
}

/// All routes of this file.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_health, for_models, for_cleanup) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    let health = warp::path!("health").and(get()).map(move || health(&for_health));
    let models = warp::path!("api" / "models").and(get()).and(owner()).map(move |owner: Owner| {
        let here = for_models.offered.iter().cloned().chain((for_models.on_disk)());
        let models = models::grouped(&for_models.engine().models(), here, |name| may_name(&for_models, &owner, name));
        let updated_at = iso_time();
        warp::reply::json(&json!({ "success": true, "models": models, "updated_at": updated_at })).into_response()
    });
    let cleanup = warp::path!("api" / "cleanup_old_sessions").and(warp::post()).then(move || {
        let app = Arc::clone(&for_cleanup);
        async move { answer(cleanup(&app).await) }
    });
    health.or(models).unify().or(cleanup).unify().or(warmup(app)).unify().or(notification(app)).unify().boxed()
}

fn warmup(app: &Arc<App>) -> Routes {
    let (for_all, for_status) = (Arc::clone(app), Arc::clone(app));
    let all = warp::path!("api" / "warmup").and(warp::post()).then(move || {
        let app = Arc::clone(&for_all);
        async move { answer(warm_up(&app).await) }
    });
    let status = warp::path!("api" / "warmup" / "status").and(get()).map(move || {
        let models: Vec<String> = to_warm(&for_status).into_iter().map(|(model, _)| model).collect();
        warp::reply::json(&json!({ "available": true, "models": models })).into_response()
    });
    all.or(status).unify().boxed()
}

/// The queue is part of this server: what another one has to say is answered and changes nothing.
fn notification(app: &Arc<App>) -> Routes {
    warp::path!("task_notification")
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(body::bytes(app))
        .map(|headers: HeaderMap, body: Result<Bytes, HttpError>| match notified(&headers, body) {
            Ok(received) => warp::reply::json(&received).into_response(),
            Err(Failure(status, message)) => {
                with_status(warp::reply::json(&json!({ "status": "error", "message": message })), status)
                    .into_response()
            }
        })
        .boxed()
}

fn notified(headers: &HeaderMap, body: Result<Bytes, HttpError>) -> Result<Value, Failure> {
    let session = Payload::parse(&body?)?.session()?.ok_or_else(|| "session_id: Field required.".to_owned())?;
    let id = headers.get("x-notification-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let id = id.unwrap_or_else(|| format!("{session}_{}", unix_time()));
    let message = "This server has a queue of its own, which tells its clients itself.";
    Ok(json!({ "status": "received", "notification_id": id, "message": message }))
}

/// `live` when music can be made; what the original consists of is told as it would tell it.
fn health(app: &App) -> Response {
    let (status, state) = match app.engine().status().lost {
        None => (StatusCode::OK, "live".to_owned()),
        Some(reason) => (StatusCode::INTERNAL_SERVER_ERROR, format!("down: {reason}")),
    };
    let overall = if status == StatusCode::OK { "live" } else { "degraded" };
    let body = json!({ "status": overall, "mongodb": "live", "redis": "live", "pytorch": state });
    with_status(warp::reply::json(&body), status).into_response()
}

/// Names of models with what they are: the default, and those of the original that are here.
fn to_warm(app: &App) -> Vec<(String, &'static str)> {
    let default = app.engine().models().first().map(|model| (model.id.0.clone(), "the server's default model"));
    let here = (app.on_disk)();
    let tuned = WARM.into_iter().filter(|(name, _)| here.iter().any(|is| is == name));
    default.into_iter().chain(tuned.map(|(name, what)| (name.to_owned(), what))).collect()
}

/// Loads what is not loaded; a model makes its first steps while it is loaded, so that nobody waits
/// for them later.
async fn warm_up(app: &App) -> Result<Value, Failure> {
    let studio = app.studio()?;
    let mut results = Map::new();
    let mut success = true;
    for (model, description) in to_warm(app) {
        let result = match studio.warm_up(&model).await {
            Ok(()) => json!({ "status": "success", "message": "It is ready.", "description": description }),
            Err(error) => {
                success = false;
                json!({ "status": "error", "error": error.to_string(), "description": description })
            }
        };
        results.insert(model, result);
    }
    let message = if success { "All models are ready." } else { "Some models cannot be used." };
    Ok(json!({ "success": success, "message": message, "results": results }))
}

/// Removes what retention would remove; nobody can make it remove more.
async fn cleanup(app: &App) -> Result<Value, Failure> {
    let removed = app.studio()?.sweep().await?;
    Ok(json!({
        "status": "success",
        "message": format!("{removed} old sessions were removed."),
        "cleanup_stats": {
            "mongodb_sessions": removed, "gridfs_files": 0, "redis_keys": 0, "errors": [],
            "memory_before_gc": null, "memory_after_gc": null,
        },
    }))
}

pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// Now, as ISO 8601 in UTC.
fn iso_time() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
