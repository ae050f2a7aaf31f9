//! Requests about what another node of the cluster has: they are passed on to it, and its answer is
//! the answer.
//!
//! Who asks and what it may do was found out here; the other node takes our word for it and answers
//! with its own routes, which pass nothing on, so a request goes one way at most.

mod names;
mod past;
mod sessions;
mod wire;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyDataStream, Full, StreamBody};
use hyper::Request;
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::header::CACHE_CONTROL;
use warp::http::request::Parts;
use warp::http::{HeaderName, HeaderValue, Method, StatusCode};
use warp::reply::Response;

pub(super) use self::past::{Past, past};
pub(super) use self::sessions::{bring, home};
pub(super) use self::wire::Asked;
use self::wire::Told;
use super::body::Whole;
use super::client::Client;
use super::connection::Connection;
use super::exchange::Exchange;
use super::gary::{FAR, Sockets};
use super::places::Places;
use super::query::{SHIFT, pairs, segment};
use super::{App, HttpError, Routes, SURFACES, Surface, body, front, stats};
use crate::cluster::{Answer, Call, Cluster, ClusterError, Home, Received, Respond, whole};
use crate::studio::{ClipRequest, Owner, StudioError};

/// Where a request is answered.
enum Whereabouts {
    Here,
    At(String),
    /// Where there is most room.
    Anywhere,
    /// By all nodes together.
    Everywhere,
}

/// The routes of the server's own port, and of each original alone.
#[derive(Clone)]
pub(super) struct Tables {
    pub all: Routes,
    /// As in [`SURFACES`].
    pub alone: Arc<[Routes]>,
    pub sockets: Option<Sockets>,
}

impl Tables {
    /// The routes of a surface; `None` is the server's own port.
    pub fn of(&self, surface: Option<&Surface>) -> Routes {
        let index = SURFACES.iter().position(|one| surface.is_some_and(|surface| std::ptr::eq(one, surface)));
        index.map_or_else(|| self.all.clone(), |index| self.alone[index].clone())
    }
}

/// How long the node that makes a stream may take to be there again: a NATS server that died takes
/// its connections with it.
const BACK: Duration = Duration::from_secs(5);
/// Where a node brings another a sound for one of its sessions; no client can.
const SOUND: &str = "/node/sound";
/// Bytes of such a sound at most: more than the longest part of a stream has.
const LONGEST_SOUND: usize = 128 << 20;

/// Says of an answer to another node that what is asked for lives at a third one by now.
const ELSEWHERE: HeaderName = HeaderName::from_static("continuo-elsewhere");

/// Has other nodes' requests answered by these routes.
pub(super) fn answer(app: &Arc<App>, tables: &Tables) {
    let Some(cluster) = &app.cluster else { return };
    let (tables, app) = (tables.clone(), Arc::downgrade(app));
    let respond: Respond = Arc::new(move |received| {
        let (tables, app) = (tables.clone(), app.upgrade());
        Box::pin(async move { respond(&tables, app.as_deref(), received).await })
    });
    cluster.answer(respond);
}

async fn respond(tables: &Tables, app: Option<&App>, Received { head, body }: Received) -> Answer {
    let response = match Asked::read(&head) {
        Ok(asked) => {
            let is_head = asked.method() == Method::HEAD;
            let mut response = responded(tables, app, &asked, body).await.unwrap_or_else(Reply::into_response);
            if is_head {
                front::cut_body(&mut response);
            }
            response
        }
        Err(error) => error.into_response(),
    };
    let (parts, body) = response.into_parts();
    let broken = |_| ClusterError::Silent("another".into());
    Answer {
        head: Told::of(&parts).write(),
        body: BodyDataStream::new(body).map(move |part| part.map_err(broken)).boxed(),
    }
}

async fn responded(
    tables: &Tables,
    app: Option<&App>,
    asked: &Asked,
    body: BoxStream<'static, Result<Bytes, ClusterError>>,
) -> Result<Response, HttpError> {
    if let (Some(cluster), Some(session)) = (app.and_then(|app| app.cluster.as_deref()), asked.session())
        && let Some(Home::At(_)) = sessions::home(cluster, &session).await?
    {
        let mut response = HttpError::from(StudioError::Elsewhere).into_response();
        response.headers_mut().insert(ELSEWHERE, HeaderValue::from_static("1"));
        return Ok(response);
    }
    if asked.path().starts_with(FAR) {
        let Some(sockets) = &tables.sockets else { return Err(HttpError::NoRoute(FAR.into())) };
        // The other node has taken it in.
        let (body, session) = (whole(body).await?, asked.session());
        let parts = asked.parts();
        let owner = owner(&parts);
        return Ok(sockets.answer_node(parts, owner, session, body).await);
    }
    if let (SOUND, Some(app), Some(session)) = (asked.path(), app, asked.session()) {
        let body = body::of_node(OneReader(Mutex::new(body)), LONGEST_SOUND, &app.budget).await?;
        let owner = owner(&asked.parts());
        app.studio()?.upload(owner, Some(session), ClipRequest::default(), body).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let surface = SURFACES.iter().find(|surface| asked.surface() == Some(surface.name));
    let body = StreamBody::new(OneReader(Mutex::new(body)).map(|piece| piece.map(Frame::data)));
    Ok(front::run(tables.of(surface), asked.request(connection(asked), body)).await)
}

fn owner(parts: &Parts) -> Owner {
    parts.extensions.get::<Client>().map_or_else(|| Owner(String::new()), Client::owner)
}

/// Whether another node did what it was asked, by the head of its answer.
pub(super) fn is_done(head: &[u8]) -> bool {
    Told::read(head).is_ok_and(|told| told.status() == StatusCode::OK)
}

/// Whether another node has no place for what it was asked.
pub(super) fn is_full(head: &[u8]) -> bool {
    Told::read(head).is_ok_and(|told| told.status() == StatusCode::TOO_MANY_REQUESTS)
}

/// Whether another node says that what is asked for lives at a third one.
fn elsewhere(response: &Response) -> bool {
    response.headers().contains_key(ELSEWHERE)
}

/// What stands for the connection of a request that came another way.
fn connection(asked: &Asked) -> Connection {
    let (address, exchange, close) = (asked.address(), Arc::<Exchange>::default(), CancellationToken::new());
    let place = Places::new(1).enter(address, Arc::clone(&exchange), close.clone());
    Connection::new(((address, 0).into(), None), None, place, exchange, close)
}

/// Answers a request that another node can answer; gives back what is answered here.
pub(super) async fn passed_on(
    app: &App,
    tables: &Tables,
    surface: Option<&'static Surface>,
    request: Request<Incoming>,
) -> Result<Response, Request<Incoming>> {
    let Some(cluster) = &app.cluster else { return Err(request) };
    let uri = request.uri();
    if let Some(wants) = sessions::wants(surface, request.method(), uri.path(), uri.query().unwrap_or_default()) {
        return sessions::answered((app, cluster, tables), surface, wants, request).await;
    }
    if surface.is_some() {
        return Err(request);
    }
    let answered = match whereabouts(app, cluster, &request).await {
        Ok(Whereabouts::Here) => return Err(request),
        Ok(Whereabouts::At(node)) => match taken_in(app, request, app.limits.body).await {
            Ok((parts, body)) => by_owner((app, cluster, tables), node, parts, body).await,
            Err(error) => Err(error),
        },
        Ok(Whereabouts::Anywhere) => match taken_in(app, request, app.limits.body).await {
            Ok((parts, body)) => anywhere(cluster, &tables.all, parts, body).await,
            Err(error) => Err(error),
        },
        Ok(Whereabouts::Everywhere) => Ok(everywhere(cluster, tables, request).await),
        Err(error) => Err(error),
    };
    Ok(answered.unwrap_or_else(Reply::into_response))
}

async fn whereabouts<B>(app: &App, cluster: &Cluster, request: &Request<B>) -> Result<Whereabouts, HttpError> {
    let (method, path) = (request.method(), request.uri().path());
    let reads = [Method::GET, Method::HEAD].contains(method);
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["v1", "streams"] if reads || method == Method::POST => match cluster.reach() {
            Ok(()) => Ok(if reads { Whereabouts::Everywhere } else { Whereabouts::Anywhere }),
            Err(error) if cluster.is_edge() => Err(error.into()),
            Err(_) => Ok(Whereabouts::Here),
        },
        ["status-json.xsl"] if reads && cluster.reach().is_ok() => Ok(Whereabouts::Everywhere),
        ["v1", "models"] if reads && cluster.is_edge() => Ok(cluster
            .engines_soon()
            .await?
            .into_iter()
            .next()
            .map_or(Whereabouts::Here, |node| Whereabouts::At(node.name))),
        ["v1", "streams", id, ref rest @ ..] if app.station.presented(id).is_err() => match cluster.find(id).await? {
            // All who listen here share its pages; in its past each is alone. Sockets are of this
            // node, whatever they hear.
            Some(_) if is_endless(rest) && (*rest == ["ws"] || !is_of_past(request)) => Ok(Whereabouts::Here),
            Some(entry) => Ok(Whereabouts::At(entry.node)),
            None => Ok(Whereabouts::Here),
        },
        ["hls", name, "master.m3u8"] if app.station.named(&segment(name)).is_err() => {
            let found = cluster.find_named(&segment(name)).await?;
            Ok(found.map_or(Whereabouts::Here, |entry| Whereabouts::At(entry.node)))
        }
        ["generate"] if reads => {
            let asked = pairs(request.uri().query().unwrap_or_default());
            let name = asked.into_iter().find(|(name, _)| name == "station").map(|(_, name)| name);
            let Some(name) = name.filter(|name| app.station.named(name).is_err()) else {
                return Ok(Whereabouts::Here);
            };
            match cluster.find_named(&name).await? {
                Some(entry) if is_of_past(request) => Ok(Whereabouts::At(entry.node)),
                _ => Ok(Whereabouts::Here),
            }
        }
        _ => Ok(Whereabouts::Here),
    }
}

/// Whether what is answered below a stream goes on for as long as it plays.
fn is_endless(below: &[&str]) -> bool {
    matches!(below, ["events" | "ws"]) || matches!(below, [file] if file.starts_with("audio."))
}

/// Whether it is about what was heard before.
fn is_of_past<B>(request: &Request<B>) -> bool {
    pairs(request.uri().query().unwrap_or_default()).iter().any(|(name, _)| SHIFT.contains(&name.as_str()))
}

async fn taken_in(app: &App, request: Request<Incoming>, limit: usize) -> Result<(Parts, Bytes), HttpError> {
    let (parts, body) = request.into_parts();
    let _uploads = parts.extensions.get::<Connection>().map(|connection| connection.exchange.uploads());
    let body = body::collect(&parts.headers, body, limit, &app.budget).await?;
    Ok((parts, body))
}

/// A body that only its one reader touches, as the type says it.
struct OneReader(Mutex<BoxStream<'static, Result<Bytes, ClusterError>>>);

impl Stream for OneReader {
    type Item = Result<Bytes, ClusterError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    }
}

async fn at(cluster: &Cluster, node: &str, asked: Asked, body: Bytes) -> Result<Response, HttpError> {
    let call = Call { head: asked.write(), body };
    let Answer { head, body } = cluster.ask(node, &call).await?;
    let mut response = warp::reply::stream(OneReader(Mutex::new(body))).into_response();
    if [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&Told::read(&head)?.describe(&mut response)) {
        *response.body_mut() = Default::default();
    }
    Ok(response)
}

/// Asks the node that makes a stream, and whoever has followed it if it has died.
async fn by_owner(
    (app, cluster, tables): (&App, &Cluster, &Tables),
    mut node: String,
    parts: Parts,
    body: Bytes,
) -> Result<Response, HttpError> {
    let until = Instant::now() + BACK;
    loop {
        let answered = at(cluster, &node, Asked::of(&parts), body.clone()).await;
        let Err(HttpError::Cluster(ClusterError::Gone(_))) = answered else { return answered };
        let mut request = Request::from_parts(parts.clone(), Full::<Bytes>::default());
        match whereabouts(app, cluster, &request).await? {
            Whereabouts::At(next) if next != node => node = next,
            Whereabouts::Here => {
                request.extensions_mut().insert(Whole(body));
                return Ok(front::run(tables.all.clone(), request).await);
            }
            // Nobody else makes it: its connection may be made again.
            _ if Instant::now() < until && !cluster.is_gone(&node) => {}
            _ => return answered,
        }
    }
}

/// A new stream plays where there is most room; a node that refuses it leaves it to the next one.
async fn anywhere(cluster: &Cluster, routes: &Routes, parts: Parts, body: Bytes) -> Result<Response, HttpError> {
    let nodes = cluster.engines_soon().await?;
    let is_here = |name: &str| name == cluster.node();
    // Who has no room may still let it wait.
    let with_room = nodes.iter().filter(|node| node.room > 0).count().max(1);
    let mut refused = Err(ClusterError::NoEngine.into());
    for node in nodes.iter().take(with_room) {
        let answered = if is_here(&node.name) {
            let request = Request::from_parts(parts.clone(), Full::new(body.clone()));
            Ok(front::run(routes.clone(), request).await)
        } else {
            at(cluster, &node.name, Asked::of(&parts), body.clone()).await
        };
        match answered {
            Ok(response) if !is_refusal(response.status()) => return Ok(response),
            refusal => refused = refusal,
        }
    }
    refused
}

/// Whether another node might do it.
fn is_refusal(status: StatusCode) -> bool {
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status)
}

/// The streams of all nodes as one list, oldest first, or their stations as one Icecast's.
async fn everywhere(cluster: &Cluster, tables: &Tables, request: Request<Incoming>) -> Response {
    let (parts, _) = request.into_parts();
    let all = if parts.uri.path().starts_with("/v1/") {
        let mut streams = lists(cluster, tables, &parts, "streams").await;
        let entry = |stream: &Value| stream["id"].as_str().and_then(|id| cluster.known(id));
        streams.sort_by_key(|stream| entry(stream).map_or(u64::MAX, |entry| entry.begun));
        serde_json::json!({ "streams": streams })
    } else {
        stats::joined(answers(cluster, tables, &parts).await, &parts)
    };
    warp::reply::with_header(warp::reply::json(&all), CACHE_CONTROL, "no-store").into_response()
}

/// What all nodes have under a name.
async fn lists(cluster: &Cluster, tables: &Tables, parts: &Parts, name: &str) -> Vec<Value> {
    let answers = answers(cluster, tables, parts).await;
    let listed = |mut answer: Value| match answer[name].take() {
        Value::Array(listed) => listed,
        _ => Vec::new(),
    };
    answers.into_iter().flat_map(listed).collect()
}

/// What all nodes say to a question, this one first. One that does not answer has just died.
async fn answers(cluster: &Cluster, tables: &Tables, parts: &Parts) -> Vec<Value> {
    let others = cluster.nodes().unwrap_or_default().into_iter().filter(|node| node.name != cluster.node());
    let parts = {
        let mut parts = parts.clone();
        // Of a question for the head alone as well.
        parts.method = Method::GET;
        parts
    };
    let theirs = others.map(|node| {
        let call = Call { head: Asked::of(&parts).write(), body: Bytes::new() };
        async move {
            let answer = cluster.ask(&node.name, &call).await.ok()?;
            serde_json::from_slice(&whole(answer.body).await.ok()?).ok()
        }
    });
    let here = front::run(tables.all.clone(), Request::from_parts(parts.clone(), Full::<Bytes>::default()));
    let (theirs, here) = join(join_all(theirs), here).await;
    let here = BodyDataStream::new(here.into_body()).next().await;
    let here = here.and_then(|body| serde_json::from_slice(&body.ok()?).ok());
    here.into_iter().chain(theirs.into_iter().flatten()).collect()
}
