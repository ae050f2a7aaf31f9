//! The Socket.IO end point: Engine.IO 4, and 3 for old clients; events in, rooms by session.
//!
//! A socket joins the room of every session that it names, before anything else happens, so that
//! nothing said about the session is lost to it. Answers go to the session's room, or to the sender
//! when no session is meant.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use serde::Serialize;
use serde_json::Value as JsonValue;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, SocketRef, State, TryData};
use socketioxide::handler::{ConnectHandler, FromMessageParts, Value};
use socketioxide::socket::{self, Sid};
use socketioxide::{ParserConfig, SocketIo};
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::Method;
use warp::http::header::UPGRADE;
use warp::http::request::Parts;
use warp::reply::Response;

use super::super::connection::Connection;
use super::super::{App, HttpError, body, json as text};
use super::asker::{Asker, Said};
use super::chunks::Chunks;
use super::events;
use super::far::Bridge;
use super::members::{Members, client_of};
use super::payload::Parsed;
use super::push::Push;
use crate::budget::Exhausted;
use crate::studio::{ClipId, Owner, SessionId, Studio, StudioError};

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
    /// Without it what is asked is asked of other nodes.
    studio: Option<Arc<Studio>>,
    pub(super) push: Arc<Push>,
    pub(super) chunks: Arc<Chunks>,
    pub(super) members: Arc<Members>,
    pub(super) bridge: Arc<Bridge>,
    /// All sockets of this node, until they are closed: they hold their handlers, which hold this.
    io: Arc<Mutex<Option<SocketIo>>>,
    pub(super) stopping: CancellationToken,
}

impl Gary {
    /// # Errors
    /// [`StudioError::Absent`] at a node without a model.
    pub(super) fn studio(&self) -> Result<&Arc<Studio>, StudioError> {
        self.studio.as_ref().ok_or(StudioError::Absent("This node has no model."))
    }

    fn io(&self) -> Option<SocketIo> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends all sockets.
    pub(super) async fn close(&self) {
        let io = self.io.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(io) = io {
            io.close().await;
        }
    }

    fn in_room(&self, session: &SessionId) -> Vec<SocketRef> {
        self.io().map_or_else(Vec::new, |io| io.to(session.to_string()).sockets())
    }

    /// Whether a socket of this node is in a session's room.
    pub(super) fn is_in_a_room(&self, session: &SessionId) -> bool {
        !self.in_room(session).is_empty()
    }

    /// To everybody of this node in a session's room.
    pub(super) async fn emit(&self, session: &SessionId, event: &str, data: &JsonValue) {
        let Some(io) = self.io() else { return };
        if let Err(error) = io.to(session.to_string()).emit(event, data).await {
            tracing::debug!(%error, event, "some sockets were not told");
        }
    }

    /// A sound to everybody of this node in a session's room.
    ///
    /// # Errors
    /// [`Exhausted`] when there is no memory for it.
    pub(super) async fn send(
        &self,
        session: &SessionId,
        event: &str,
        message: (&impl Serialize, u64),
    ) -> Result<(), Exhausted> {
        match self.io() {
            Some(io) => self.members.send(&io, session, event, message).await,
            None => Ok(()),
        }
    }

    /// To everybody in a session's room: whoever asked, other sockets of this node, and those of
    /// others.
    pub(super) async fn tell(&self, asker: Option<&Asker<'_>>, session: &SessionId, event: &str, data: &JsonValue) {
        self.emit(session, event, data).await;
        self.tell_far(asker, session, (event, None), || data.clone());
    }

    /// To the sockets of other nodes in a session's room; of a clip's end their nodes have to say
    /// that somebody knows it.
    pub(super) fn tell_far(
        &self,
        asker: Option<&Asker<'_>>,
        session: &SessionId,
        (event, ends): (&str, Option<ClipId>),
        data: impl Fn() -> JsonValue,
    ) {
        let said = || {
            let (session, event) = (session.to_string(), event.to_owned());
            match ends {
                Some(clip) => Said::End(clip.to_string(), session, event, data()),
                None => Said::Room(session, event, data()),
            }
        };
        let far = asker.and_then(Asker::far);
        if let Some(far) = far {
            far.say(said());
        }
        self.bridge.tell(session, far, said);
    }

    /// Whether anybody but whoever asks is in a session's room at this node.
    pub(super) fn has_others_here(&self, asker: &Asker<'_>, session: &SessionId) -> bool {
        self.in_room(session).iter().any(|socket| Some(socket.id) != asker.id())
    }

    /// The same at all nodes: those that follow the session are asked, since they may not have said
    /// yet that everybody has left.
    pub(super) async fn has_others(&self, asker: &Asker<'_>, session: &SessionId) -> bool {
        self.has_others_here(asker, session) || self.bridge.is_heard_far(session, asker.far()).await
    }

    /// Whether anybody is in a session's room.
    pub(super) fn is_heard(&self, session: &SessionId) -> bool {
        self.is_in_a_room(session) || self.bridge.is_followed(session, None)
    }
}

/// In a socket's extensions when its events may have to be passed on.
#[derive(Clone)]
struct Shared;

type Answer = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response> + Send + Sync;

/// The service behind `/socket.io/`; clones share it.
#[derive(Clone)]
pub(crate) struct Sockets {
    answer: Arc<Answer>,
    gary: Gary,
}

impl Sockets {
    /// Sockets that speak to the studio, or to other nodes, until the app stops. Must be called
    /// within a tokio runtime.
    pub(crate) fn new(app: &App) -> Self {
        let (push, inbox) = Push::new();
        let gary = Gary {
            studio: app.studio.clone(),
            push: Arc::new(push),
            chunks: Arc::new(Chunks::new(app.budget.clone())),
            members: Arc::new(Members::new(app.budget.clone())),
            bridge: Arc::new(Bridge::new(app.cluster.clone())),
            io: Arc::default(),
            stopping: app.stopping.clone(),
        };
        let is_shared = app.cluster.is_some();
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
        // What a client sends as soon as it is told that it has joined must find who listens, so
        // they are there before it is told.
        let join = async |socket: SocketRef, State(gary): State<Gary>| {
            listen(&socket, &gary);
            Ok::<_, Infallible>(())
        };
        let welcome = async |socket: SocketRef, State(gary): State<Gary>| gary.members.welcome(socket.id);
        io.ns("/", welcome.with(join));
        *gary.io.lock().unwrap_or_else(PoisonError::into_inner) = Some(io);
        tokio::spawn(super::push::run(gary.clone(), inbox));
        let answer: Arc<Answer> = Arc::new(move |mut request| {
            if is_shared {
                request.extensions_mut().insert(Shared);
            }
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
        });
        Self { answer, gary }
    }

    /// Whether this is its path.
    pub(crate) fn serves(path: &str) -> bool {
        path == "/socket.io" || path.starts_with("/socket.io/")
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response {
        (self.answer)(request).await
    }

    /// Answers another node, which asks about one of its sockets.
    pub(crate) async fn answer_node(
        &self,
        asked: Parts,
        owner: Owner,
        session: Option<SessionId>,
        body: Bytes,
    ) -> Response {
        super::far::answer(&self.gary, asked, owner, session, body).await
    }
}

/// What came with an event, if it is JSON as this server reads it anywhere; and as it came, if
/// another node may have to answer it.
struct Sent(Option<Parsed>, Bytes);

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
        let text = match message {
            Value::Str(text, _) if socket.req_parts().extensions.get::<Shared>().is_some() => {
                Bytes::copy_from_slice(text.as_bytes())
            }
            _ => Bytes::new(),
        };
        let TryData(parsed) = TryData::from_message_parts(socket, message, ack)?;
        Ok(Self(parsed.ok(), text))
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
            move |socket: SocketRef, Sent(data, text): Sent, State(gary): State<Gary>, ack: AckSender| async move {
                let Some(_turn) = gary.members.turn(socket.id).await else {
                    gary.members.cut(socket);
                    return;
                };
                events::answer(&gary, &Asker::Here(&socket), event, data, text).await;
                // Only sent if it was asked for.
                let _ = ack.send(&());
            },
        );
    }
}
