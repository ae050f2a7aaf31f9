//! `/v1/streams/{id}/events`: what happens to a stream, as server-sent events.
//!
//! Each has a name (`title`, `steer`, `status`, `end`: use `addEventListener`) and the same JSON object as data that
//! the WebSocket sends, its `type` included. It begins with the present title and status and is over after `end`; a
//! comment every 15 s keeps proxies from hanging up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use warp::http::header::CACHE_CONTROL;
use warp::reply::{Response, with_header};
use warp::sse::Event as Sse;
use warp::{Filter, Reply};

use super::error::reply;
use super::router::get;
use super::{App, HttpError, Routes};
use crate::station::{Event, Events};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// `GET /v1/streams/{id}/events`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "events")
        .and(get())
        .map(move |id: String| reply(app.station.get(&id).map(|it| events(it.events())).map_err(HttpError::from)))
        .boxed()
}

fn events(events: Events) -> Response {
    let first = stream::once(async { Ok(Sse::default().retry(RETRY)) });
    let rest = stream::unfold(events, |mut events| async move {
        let event = events.recv().await?;
        Some((sse(&event), events))
    });
    let kept_alive = warp::sse::keep_alive().interval(KEEP_ALIVE).stream(first.chain(rest));
    let response = with_header(warp::sse::reply(kept_alive), CACHE_CONTROL, "no-store");
    with_header(response, "x-accel-buffering", "no").into_response()
}

fn sse(event: &Event) -> Result<Sse, serde_json::Error> {
    let data = serde_json::to_value(event)?;
    let name = data.get("type").and_then(Value::as_str).unwrap_or("message").to_owned();
    Ok(Sse::default().event(name).data(data.to_string()))
}
