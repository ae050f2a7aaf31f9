//! `/v1/streams/{id}/ws`: sound and control on one socket.
//!
//! The query is that of the audio routes (`format`, `kbps`, `latency`, `from` or `at`), and
//! `format=none` asks for control alone.
//!
//! **Server to client.** Binary messages are sound: put one after the other they are the bytes of
//! `audio.ogg` (or mp3, wav). A message is never part of an Ogg page: the first holds the two
//! header pages, each further one whole pages. Text messages are JSON objects with a `type`: the
//! stream's events (`title`, `steer`, `freeze`, `status`, `end`), and replies:
//! `{"type":"ack","id":..,"at":12.34,"epoch":3}` or
//! `{"type":"error","id":..,"status":422,"detail":".."}`. `at` is the media time in seconds of the
//! first sample that the change affects (`pause` and `resume` have none).
//!
//! **Client to server.** Text messages, one command each: `{"type":"steer", ..}` with the fields of
//! `PATCH /v1/streams/{id}`, `{"type":"pause"}`, `{"type":"resume"}`, `{"type":"reset"}`, and
//! `{"type":"seek","at":81.5}`: the sound goes on from there, as a new sound with headers of its
//! own (`at` as the query has it; without it, at the live edge). Its `ack` has the media time at
//! which it goes on, and comes before the first binary message of the new sound. An `id` of any
//! JSON type is echoed in the reply. Commands are carried out in order; one that cannot be gets an
//! `error` and the socket stays.
//!
//! The server pings every 15 s and hangs up on a client that says nothing for 45 s (unless it has
//! closed its sending half and listens) or takes nothing for 30 s. It closes with 1000 when the
//! stream is over, 1001 at shutdown, 1008 or 1009 when the client breaks these rules, 1013 when the
//! client is too slow for the stream, or at once, behind an `error` with `retry_after`, when the
//! machine has no room for a stream that was idle.

mod command;
mod session;
mod sound;

use std::sync::Arc;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use warp::Filter;
use warp::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use warp::http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

use self::command::Heard;
use self::session::{converse, refuse};
use self::sound::Sound;
use super::auth::{self, Grant};
use super::client::{self, Client};
use super::connection::Connection;
use super::error::reply;
use super::query::{LISTEN, Query, SHIFT, raw};
use super::{App, HttpError, Routes, connection};
use crate::station::StationError;

/// Bytes of a command at most: eight prompts of 1000 characters fit several times.
const MAX_COMMAND: usize = 64 << 10;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// `GET /v1/streams/{id}/ws`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "ws")
        .and(warp::get())
        .and(raw())
        .and(warp::header::headers_cloned())
        .and(connection::of_request())
        .and(auth::of_request())
        .and(client::of_request())
        .and(warp::ext::optional::<OnUpgrade>())
        .then(move |id: String, query: String, headers, connection, grant, client, upgrade| {
            let app = Arc::clone(&app);
            async move { reply(accept(&app, (&id, &query), &headers, connection, (client, grant), upgrade).await) }
        })
        .boxed()
}

async fn accept(
    app: &Arc<App>,
    (id, query): (&str, &str),
    headers: &HeaderMap,
    connection: Connection,
    (client, grant): (Client, Grant),
    upgrade: Option<OnUpgrade>,
) -> Result<Response, HttpError> {
    let stream = app.hear(id).await?;
    let has = |name, value: &str| {
        let found = headers.get(name).and_then(|found: &HeaderValue| found.to_str().ok());
        found.is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| has(UPGRADE, "websocket") && has(SEC_WEBSOCKET_VERSION, "13"));
    let (Some(upgrade), Some(key)) = (upgrade, key) else { return Err(HttpError::UpgradeRequired) };
    let query = Query::parse(query, &[&LISTEN, &SHIFT])?;
    let listen = if query.one("format")? == Some("none") { None } else { Some(query.listen(None)?) };
    let place = query.place()?;
    let heard = Heard { app: Arc::clone(app), client, grant, stream, listen };
    let sound = match (listen, place) {
        (None, _) => {
            // A place that is none is told although nothing sounds there.
            query.shift(&heard.stream)?;
            Ok(None)
        }
        (Some(listen), Some(place)) => Ok(Some(Sound::of_past(&heard, listen, place).await?.0)),
        (Some(listen), None) => match heard.stream.join(listen).await {
            // A browser's script sees how a socket closes, and nothing of a refused handshake.
            Err(error @ (StationError::Waiting { .. } | StationError::NoRoom { .. } | StationError::Engine(_))) => {
                Err(HttpError::from(error))
            }
            joined => Ok(Some(Sound::Here(joined?))),
        },
    };
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        out.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let stopping = app.stopping.clone();
    // The task keeps the connection's place until the socket closes.
    let close = connection.close.clone();
    app.tasks.spawn(async move {
        let Ok(io) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_COMMAND))
            .max_frame_size(Some(MAX_COMMAND));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await;
        let served = async {
            match sound {
                Ok(sound) => converse(socket, &connection.exchange, &heard, sound, || stopping.is_cancelled()).await,
                Err(error) => refuse(socket, &error).await,
            }
        };
        tokio::select! {
            () = served => {}
            () = close.cancelled() => {}
        }
    });
    Ok(response)
}
