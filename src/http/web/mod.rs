//! gary4web: the web app's and the browser extension's routes (`concurrent_gary.py`), and the crop
//! server's (`express`).
//!
//! A task is a session whose id has 24 hexadecimal digits; its result is levelled to -14 LUFS when
//! it is fetched.

mod crop;
mod fetch;
mod tasks;

use std::sync::Arc;

use serde_json::json;
use warp::http::StatusCode;
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

pub(super) use crop::routes as crop_routes;
pub(super) use tasks::{claims, generate};

use super::router::{Paths, get};
use super::{App, Routes};

/// Paths of [`routes`].
pub(super) const PATHS: Paths = &[
    ("/generate", "POST"),
    ("/continue", "POST"),
    ("/tasks/{}", "GET, HEAD"),
    ("/fetch-result/{}", "GET, HEAD"),
    ("/progress/{}", "GET, HEAD"),
    ("/health", "GET, HEAD"),
];
/// Paths of [`crop_routes`].
pub(super) const CROP_PATHS: Paths = &[("/crop-audio", "POST"), ("/combine-audio", "POST"), ("/health", "GET, HEAD")];

/// All routes of gary4web. On the server's own port `POST /generate` is shared with others, which
/// ask [`claims`].
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let for_health = Arc::clone(app);
    let health = warp::path!("health").and(get()).map(move || health(&for_health));
    tasks::routes(app).or(health).unify().boxed()
}

/// Unlike gary's, a failure is 503 and told in one word.
fn health(app: &App) -> Response {
    let (status, state) = match app.engine().status().lost {
        None => (StatusCode::OK, "live"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
    };
    let body = json!({ "status": state, "mongodb": "live", "redis": "live", "pytorch": state });
    with_status(warp::reply::json(&body), status).into_response()
}
