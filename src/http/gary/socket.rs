//! The Socket.IO end point: Engine.IO 4, and 3 for old clients; events in, rooms by session.
//!
//! A socket joins the room of every session that it names, before anything else happens, so that nothing said about the
//! session is lost to it. Answers go to the session's room, or to the sender when no session is meant.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, SocketRef, State, TryData};
use socketioxide::{ParserConfig, SocketIo};
use warp::reply::Response;

use super::super::App;
use super::super::error::sentence;
use super::events;
use super::push::Push;
use crate::studio::Studio;

/// As the original announces them.
const PING_INTERVAL: Duration = Duration::from_secs(120);
const PING_TIMEOUT: Duration = Duration::from_secs(240);
/// Bytes of one message: more than the original's 64 MiB, which its own clients exceed by a little.
const MESSAGE: usize = 100 << 20;
/// Packets that may wait for one socket.
const PACKETS: usize = 1024;

/// What handlers need.
#[derive(Clone)]
pub(super) struct Gary {
    pub(super) studio: Arc<Studio>,
    pub(super) push: Arc<Push>,
    pub(super) chunks: Arc<super::chunks::Chunks>,
}

type Answer = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response> + Send + Sync;

/// The service behind `/socket.io/`; clones share it.
#[derive(Clone)]
pub(crate) struct Sockets(Arc<Answer>);

impl Sockets {
    /// Sockets that speak to the studio until the app stops. Must be called within a tokio runtime.
    pub(crate) fn new(app: &App, studio: &Arc<Studio>) -> Self {
        let (push, inbox) = Push::new();
        let gary = Gary { studio: Arc::clone(studio), push: Arc::new(push), chunks: Arc::default() };
        let (service, io) = SocketIo::builder()
            .ping_interval(PING_INTERVAL)
            .ping_timeout(PING_TIMEOUT)
            .max_payload(MESSAGE as u64)
            .ws_max_message_size(MESSAGE)
            .ws_max_frame_size(MESSAGE)
            .ws_read_buffer_size(64 << 10)
            .max_buffer_size(PACKETS)
            .with_parser(ParserConfig::common().max_incoming_binary_buf_size(MESSAGE))
            .with_state(gary.clone())
            .build_svc();
        io.ns("/", async |socket: SocketRef| listen(&socket));
        tokio::spawn(super::push::run(io, gary, inbox, app.stopping.clone()));
        Self(Arc::new(move |request| {
            let answer = service.call(request);
            Box::pin(async move {
                let response = match answer.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let (parts, body) = response.into_parts();
                // Polls and hand-shakes; sound goes through them in events, which are bounded.
                let body = match body.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(never) => match never {},
                };
                Response::from_parts(parts, body.into())
            })
        }))
    }

    /// Whether this is its path.
    pub(crate) fn serves(path: &str) -> bool {
        path == "/socket.io" || path.starts_with("/socket.io/")
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response {
        (self.0)(request).await
    }
}

fn listen(socket: &SocketRef) {
    for &event in events::EVENTS {
        socket.on(
            event,
            move |socket: SocketRef, TryData(data): TryData<Value>, State(gary): State<Gary>, ack: AckSender| async move {
                if let Err(refusal) = events::handle(&gary, &socket, event, data.unwrap_or_default()).await {
                    let mut error = json!({ "message": sentence(&refusal.message) });
                    if let Some(code) = refusal.code {
                        error["code"] = code.into();
                    }
                    match refusal.session {
                        Some(session) => {
                            error["session_id"] = json!(session);
                            super::push::to_room(&socket, &session, "error", &error).await;
                        }
                        None => super::push::to_one(&socket, "error", &error),
                    }
                }
                // Only sent if it was asked for.
                let _ = ack.send(&());
            },
        );
    }
}
