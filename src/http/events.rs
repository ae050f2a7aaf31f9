//! `/v1/streams/{id}/events`: what happens to a stream, as server-sent events.
//!
//! Each has a name (`title`, `steer`, `freeze`, `status`, `end`: use `addEventListener`) and the
//! same JSON object as data that the WebSocket sends, its `type` included. It begins with the
//! present title and status and is over after `end`; a comment every 15 s keeps proxies from
//! hanging up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;
use warp::sse::Event as Sse;
use warp::{Filter, Reply};

use super::error::reply;
use super::router::get;
use super::{App, Routes};
use crate::station::{Event, Events};

/// The id of the last event, and of no other: a browser names it when it comes again, which it does
/// until it gets 204.
pub(super) const END: &str = "end";
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// `GET /v1/streams/{id}/events`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "events")
        .and(get())
        .and(has_seen_the_end())
        .then(move |id: String, has_seen_the_end| {
            let app = Arc::clone(&app);
            async move {
                let found = app.hear(&id).await;
                reply(found.map(|stream| match has_seen_the_end && stream.has_ended() {
                    true => StatusCode::NO_CONTENT.into_response(),
                    false => events(stream.events()),
                }))
            }
        })
        .boxed()
}

/// Whether the client, by its own word, had the last event before.
pub(super) fn has_seen_the_end() -> impl Filter<Extract = (bool,), Error = std::convert::Infallible> + Copy {
    warp::header::headers_cloned().map(|headers: HeaderMap| headers.contains_key("last-event-id"))
}

fn events(events: Events) -> Response {
    let first = stream::once(async { Ok(Sse::default().retry(RETRY)) });
    let rest = stream::unfold(events, |mut events| async move {
        let event = events.recv().await?;
        Some((sse(&event), events))
    });
    let kept_alive = warp::sse::keep_alive().interval(KEEP_ALIVE).stream(first.chain(rest));
    warp::sse::reply(kept_alive).into_response()
}

fn sse(event: &Event) -> Result<Sse, serde_json::Error> {
    let data = serde_json::to_value(event)?;
    let name = data.get("type").and_then(Value::as_str).unwrap_or("message").to_owned();
    let sse = Sse::default().data(data.to_string());
    let sse = if matches!(event, Event::End { .. }) { sse.id(END) } else { sse };
    Ok(sse.event(name))
}
