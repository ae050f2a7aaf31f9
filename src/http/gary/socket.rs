//! The Socket.IO end point: Engine.IO 4, and 3 for old clients; events in, rooms by session.
//!
//! A socket joins the room of every session that it names, before anything else happens, so that nothing said about the
//! session is lost to it. Answers go to the session's room, or to the sender when no session is meant.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use serde_json::json;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, SocketRef, State, TryData};
use socketioxide::handler::{ConnectHandler, FromMessageParts, Value};
use socketioxide::socket::{self, Sid};
use socketioxide::{ParserConfig, SocketIo};
use warp::Reply;
use warp::http::Method;
use warp::http::header::UPGRADE;
use warp::reply::Response;

use super::super::connection::Connection;
use super::super::error::sentence;
use super::super::{App, HttpError, body, json as text};
use super::chunks::Chunks;
use super::events;
use super::members::{Members, client_of};
use super::payload::Parsed;
use super::push::Push;
use crate::budget::Exhausted;
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
    pub(super) chunks: Arc<Chunks>,
    pub(super) members: Arc<Members>,
}

type Answer = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response> + Send + Sync;

/// The service behind `/socket.io/`; clones share it.
#[derive(Clone)]
pub(crate) struct Sockets(Arc<Answer>);

impl Sockets {
    /// Sockets that speak to the studio until the app stops. Must be called within a tokio runtime.
    pub(crate) fn new(app: &App, studio: &Arc<Studio>) -> Self {
        let (push, inbox) = Push::new();
        let gary = Gary {
            studio: Arc::clone(studio),
            push: Arc::new(push),
            chunks: Arc::new(Chunks::new(app.budget.clone())),
            members: Arc::new(Members::new(app.budget.clone())),
        };
        let members = Arc::clone(&gary.members);
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
        // What a client sends as soon as it is told that it has joined must find who listens, so they are there before it is told.
        let join = async |socket: SocketRef, State(gary): State<Gary>| {
            listen(&socket, &gary);
            Ok::<_, Infallible>(())
        };
        let welcome = async |socket: SocketRef, State(gary): State<Gary>| gary.members.welcome(socket.id);
        io.ns("/", welcome.with(join));
        tokio::spawn(super::push::run(io, gary, inbox, app.stopping.clone()));
        Self(Arc::new(move |request| {
            let (members, polls) = (Arc::clone(&members), request.method() == Method::GET);
            let socket = socket_of(request.uri().query().unwrap_or_default());
            let client = client_of(request.extensions());
            match (socket, request.extensions().get::<Connection>()) {
                (socket, Some(connection)) if request.headers().contains_key(UPGRADE) => {
                    connection.meter.watch(&members.budget);
                    if let Some(socket) = socket {
                        members.carried_by(socket, connection);
                    } else if !members.admits(client) {
                        return full();
                    }
                }
                (None, _) if !members.admits(client) => return full(),
                _ => {}
            }
            let service = service.clone();
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let body = match parts.method {
                    Method::POST => match body::collect(&parts.headers, body, MESSAGE, &members.budget).await {
                        Ok(body) => body,
                        Err(error) => return error.into_response(),
                    },
                    _ => Bytes::new(),
                };
                let request = Request::from_parts(parts, Full::new(body));
                let response = match service.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let (parts, body) = response.into_parts();
                // Polls and hand-shakes; sound goes through them in events, which are bounded.
                let body = match body.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(never) => match never {},
                };
                let Some(socket) = socket.filter(|_| polls) else { return Response::from_parts(parts, body.into()) };
                members.polled(socket, body.len() as u64);
                // What was fetched leaves the queue and is here until it is read.
                let body = match members.budget.take(body.len() as u64).await {
                    Ok(share) => share.hold(body),
                    Err(_) => body,
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

/// What came with an event, if it is JSON as this server reads it anywhere.
struct Sent(Option<Parsed>);

impl<A: Adapter> FromMessageParts<A> for Sent {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<socket::Socket<A>>,
        message: &mut Value,
        ack: &Option<i64>,
    ) -> Result<Self, Infallible> {
        if let Value::Str(given, _) = message
            && let Cow::Owned(clean) = text::clean(given.as_bytes())
            && let Ok(clean) = String::from_utf8(clean)
        {
            *given = clean.into();
        }
        let TryData(parsed) = TryData::from_message_parts(socket, message, ack)?;
        Ok(Self(parsed.ok()))
    }
}

fn full() -> BoxFuture<'static, Response> {
    Box::pin(std::future::ready(HttpError::Exhausted(Exhausted).into_response()))
}

/// The socket that a request names.
fn socket_of(query: &str) -> Option<Sid> {
    query.split('&').find_map(|pair| pair.strip_prefix("sid=")?.parse().ok())
}

fn listen(socket: &SocketRef, gary: &Gary) {
    gary.members.enter(socket);
    socket.on_fallback(async |socket: SocketRef, State(gary): State<Gary>| gary.members.used(socket.id));
    socket.on_disconnect(async |socket: SocketRef, State(gary): State<Gary>| {
        gary.chunks.forget_socket(socket.id);
        gary.members.leave(socket.id);
    });
    for &event in events::EVENTS {
        socket.on(
            event,
            move |socket: SocketRef, Sent(data): Sent, State(gary): State<Gary>, ack: AckSender| async move {
                let Some(_turn) = gary.members.turn(socket.id).await else {
                    gary.members.cut(socket);
                    return;
                };
                if let Err(refusal) = events::handle(&gary, &socket, event, data).await {
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
