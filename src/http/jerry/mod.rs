//! jerry: loops and short pieces in a moment (betweentwomidnights/stable-audio-api, `api.py`).
//!
//! Every route is there with and without `/audio` before it. Pieces are clips like any other, so
//! they wait in the queue of transforms and loops and are given up when the client leaves. A
//! failure is always `{success: false, error}`.

mod ask;
mod models;
mod pieces;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::client::owner;
use super::error::sentence;
use super::router::{Paths, get};
use super::{App, HttpError, Routes, body, json};
use crate::studio::{Owner, StudioError};
use ask::Ask;

/// Paths of [`routes`].
pub(super) const PATHS: Paths = &[
    ("/generate", "POST"),
    ("/generate/loop", "POST"),
    ("/generate/style-transfer", "POST"),
    ("/generate/loop-guided", "POST"),
    ("/generate/loop-with-riff", "POST"),
    ("/riffs/available", "GET, HEAD"),
    ("/models/status", "GET, HEAD"),
    ("/models/prompts", "GET, HEAD"),
    ("/models/checkpoints", "POST"),
    ("/models/switch", "POST"),
    ("/models/clear-cache", "POST"),
    ("/model/info", "GET, HEAD"),
    ("/cleanup", "POST"),
    ("/health", "GET, HEAD"),
];
/// The same, as the author's proxy has them.
pub(super) const AUDIO_PATHS: Paths = &[
    ("/audio/generate", "POST"),
    ("/audio/generate/loop", "POST"),
    ("/audio/generate/style-transfer", "POST"),
    ("/audio/generate/loop-guided", "POST"),
    ("/audio/generate/loop-with-riff", "POST"),
    ("/audio/riffs/available", "GET, HEAD"),
    ("/audio/models/status", "GET, HEAD"),
    ("/audio/models/prompts", "GET, HEAD"),
    ("/audio/models/checkpoints", "POST"),
    ("/audio/models/switch", "POST"),
    ("/audio/models/clear-cache", "POST"),
    ("/audio/model/info", "GET, HEAD"),
    ("/audio/cleanup", "POST"),
    ("/audio/health", "GET, HEAD"),
];

/// All routes of jerry. On the server's own port `POST /generate` is shared with others, which ask
/// [`claims`].
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let behind = warp::path("audio").and(all(app));
    behind.or(all(app)).unify().boxed()
}

fn all(app: &Arc<App>) -> Routes {
    let asked = ["loop", "style-transfer", "loop-guided", "loop-with-riff"];
    let one = warp::path!("generate").map(|| "generate").boxed();
    let more = warp::path!("generate" / String).and_then(move |what: String| async move {
        asked.into_iter().find(|name| *name == what).ok_or_else(warp::reject::not_found)
    });
    let what: BoxedFilter<(&'static str,)> = one.or(more).unify().boxed();
    let for_pieces = Arc::clone(app);
    let pieces = what.and(warp::post()).and(body::upload(app)).and(warp::header::headers_cloned()).and(owner()).then(
        move |what, body, headers: HeaderMap, owner| {
            let app = Arc::clone(&for_pieces);
            async move { piece(&app, what, body, &headers, owner).await }
        },
    );
    pieces.or(models::routes(app)).unify().boxed()
}

/// Whether a `POST /generate` is meant for this surface: it has one prompt, and neither an address
/// nor prompts.
pub(super) fn claims(body: &[u8]) -> bool {
    match json::parse::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(fields)) => {
            fields.contains_key("prompt") && !fields.contains_key("prompts") && !fields.contains_key("url")
        }
        _ => false,
    }
}

/// `POST /generate` and what is below it.
pub(super) async fn piece(
    app: &App,
    what: &str,
    body: Result<Bytes, HttpError>,
    headers: &HeaderMap,
    owner: Owner,
) -> Response {
    let made = async {
        let ask = Ask::read(app, body?, headers).await?;
        match what {
            "loop" => pieces::make_loop(app, ask, owner).await,
            "style-transfer" => pieces::style_transfer(app, ask, owner).await,
            "loop-guided" => pieces::guided(app, ask, owner).await,
            "loop-with-riff" => pieces::with_riff(app, ask, owner).await,
            _ => pieces::generate(app, ask, owner).await,
        }
    };
    answer(made.await)
}

/// A status, a sentence, and what else is told.
struct Failure(StatusCode, String, Option<(&'static str, serde_json::Value)>);

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence, None)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        // Values that cannot be are plain mistakes to this surface's clients.
        match error.status() {
            StatusCode::UNPROCESSABLE_ENTITY => error.to_string().into(),
            status => Self(status, error.to_string(), None),
        }
    }
}

impl From<StudioError> for Failure {
    fn from(error: StudioError) -> Self {
        match error {
            StudioError::Model(reason) => Self(StatusCode::SERVICE_UNAVAILABLE, reason, None),
            error => HttpError::from(error).into(),
        }
    }
}

fn answer(result: Result<Response, Failure>) -> Response {
    result.unwrap_or_else(|Failure(status, error, more)| {
        let mut body = json!({ "success": false, "error": sentence(&error) });
        if let Some((name, value)) = more {
            body[name] = value;
        }
        with_status(warp::reply::json(&body), status).into_response()
    })
}

/// `GET`s whose answer needs a moment.
fn shown<F>(
    app: &Arc<App>,
    path: BoxedFilter<()>,
    show: impl Fn(Arc<App>) -> F + Clone + Send + Sync + 'static,
) -> Routes
where
    F: Future<Output = Result<Response, Failure>> + Send + 'static,
{
    let app = Arc::clone(app);
    path.and(get())
        .then(move || {
            let shown = show(Arc::clone(&app));
            async move { answer(shown.await) }
        })
        .boxed()
}
