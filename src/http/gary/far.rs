//! Sockets of one node and sessions of another.
//!
//! An event about a session that lives elsewhere is handed to its home, which answers with what the
//! socket is to be told. From then on this node follows the session for all of its sockets that are
//! in the room: its home sends what the room hears, and when that is gone, whoever goes on with the
//! session does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use socketioxide::extract::SocketRef;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::{Instant, sleep, timeout};
use warp::Reply;
use warp::http::StatusCode;
use warp::http::request::Parts;
use warp::reply::{Response, with_status};

use super::super::HttpError;
use super::super::forward::{Asked, home, is_done, is_full};
use super::asker::{Asker, Far, Said};
use super::events::{self, Refusal};
use super::payload::Parsed;
use super::push;
use super::socket::Gary;
use crate::budget::Share;
use crate::cluster::{Call, Cluster, ClusterError, Home};
use crate::studio::{Owner, SessionId};

/// Where nodes ask each other of sockets; no client can.
pub(in crate::http) const PATH: &str = "/node/gary/";
/// The event by which a session is followed.
const FOLLOW: &str = "follow";
/// The event by which a follower says that somebody knows how a clip ended.
const TAKE: &str = "take";
/// The event by which a follower is asked whether somebody is in the room.
const IS_HEARD: &str = "is_heard";
/// How long it may take to say so.
const SOON: Duration = Duration::from_secs(2);
/// What a follower may be behind before it has to begin again.
const BEHIND: usize = 256;
/// A follower that is not there any more is noticed by what it does not take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a node that is expected to follow a session may take.
const EXPECTED: Duration = Duration::from_secs(30);
/// How often it is looked whether somebody is still in a room, and whether a session can be
/// followed again.
const LOOK: Duration = Duration::from_millis(500);
/// A home that has just died is waited for until another node goes on with what it had.
const MOVING: Duration = Duration::from_secs(15);
/// Bytes of a message from which on it is sent like a sound.
const LARGE: usize = 64 << 10;

/// What this node's sockets and other nodes have to do with each other.
pub(super) struct Bridge {
    cluster: Option<Arc<Cluster>>,
    /// Nodes that follow sessions of this one.
    followers: Mutex<HashMap<SessionId, Vec<Follower>>>,
    /// What was said to nodes that are about to follow a session.
    expected: Mutex<HashMap<(SessionId, String), Kept>>,
    /// Sessions of other nodes that are followed here.
    following: Mutex<HashSet<SessionId>>,
    /// What is told of a session waits for the answers to what was asked about it.
    gates: Mutex<HashMap<SessionId, Weak<RwLock<()>>>>,
}

/// Since when, and what was said.
type Kept = (Instant, Receiver<Bytes>);

struct Follower {
    node: String,
    lines: Sender<Bytes>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bridge {
    pub(super) fn new(cluster: Option<Arc<Cluster>>) -> Self {
        Self {
            cluster,
            followers: Mutex::default(),
            expected: Mutex::default(),
            following: Mutex::default(),
            gates: Mutex::default(),
        }
    }

    /// The node that has a session, or those that can make a new one, the best first; none is this
    /// one.
    pub(super) async fn places(&self, session: Option<&SessionId>) -> Result<Vec<String>, HttpError> {
        let Some(cluster) = &self.cluster else { return Ok(Vec::new()) };
        let home = match session {
            Some(session) => home(cluster, session).await?,
            None => None,
        };
        match home {
            Some(Home::Here) => Ok(Vec::new()),
            Some(Home::At(node)) => Ok(vec![node]),
            _ if !cluster.is_edge() => Ok(Vec::new()),
            _ => Ok(cluster.makers().await?.into_iter().map(|node| node.name).collect()),
        }
    }

    fn gate(&self, session: &SessionId) -> Arc<RwLock<()>> {
        let mut gates = lock(&self.gates);
        gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = gates.get(session).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::default();
        gates.insert(session.clone(), Arc::downgrade(&gate));
        gate
    }

    async fn answering(&self, session: Option<&SessionId>) -> Option<OwnedRwLockReadGuard<()>> {
        Some(self.gate(session?).read_owned().await)
    }

    /// A node follows a session from now on; what is said to it is kept until it says so itself.
    pub(super) fn expect(&self, session: &SessionId, node: &str) {
        let mut expected = lock(&self.expected);
        expected.retain(|_, (since, _)| since.elapsed() < EXPECTED);
        let follows = |all: &Vec<Follower>| all.iter().any(|one| one.node == node && !one.lines.is_closed());
        if !lock(&self.followers).get(session).is_some_and(follows) {
            let heard = self.enter(session, node);
            expected.insert((session.clone(), node.to_owned()), (Instant::now(), heard));
        }
    }

    fn enter(&self, session: &SessionId, node: &str) -> Receiver<Bytes> {
        let (lines, heard) = channel(BEHIND);
        let mut followers = lock(&self.followers);
        let all = followers.entry(session.clone()).or_default();
        all.retain(|one| one.node != node);
        all.push(Follower { node: node.to_owned(), lines });
        heard
    }

    /// Whether other nodes hear of a session.
    pub(super) fn is_followed(&self, session: &SessionId, but: Option<&Far>) -> bool {
        !self.following(session, but).is_empty()
    }

    /// The other nodes that hear of a session, but for the one that is being answered.
    fn following(&self, session: &SessionId, but: Option<&Far>) -> Vec<String> {
        let followers = lock(&self.followers);
        let all = followers.get(session).into_iter().flatten();
        let others = all.filter(|one| !one.lines.is_closed() && but.is_none_or(|far| far.node != one.node));
        others.map(|one| one.node.clone()).collect()
    }

    /// Whether somebody at another node is in a session's room, but for the one that is being
    /// answered.
    pub(super) async fn is_heard_far(&self, session: &SessionId, but: Option<&Far>) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        // It is about sockets of the node that is asked, wherever the session lives.
        let body = Bytes::copy_from_slice(session.as_str().as_bytes());
        let call = Call { head: Asked::ours(&address(IS_HEARD, cluster)).write(), body };
        let asked = self.following(session, but).into_iter().map(|node| {
            let call = &call;
            async move {
                timeout(SOON, cluster.ask(&node, call))
                    .await
                    .is_ok_and(|answer| answer.is_ok_and(|told| is_done(&told.head)))
            }
        });
        join_all(asked).await.into_iter().any(|is_heard| is_heard)
    }

    /// Tells the nodes that follow a session, but not the one that is being answered.
    pub(super) fn tell(&self, session: &SessionId, but: Option<&Far>, said: impl FnOnce() -> Said) {
        if !self.is_followed(session, but) {
            return;
        }
        let line = Bytes::from(said().line());
        let mut followers = lock(&self.followers);
        let Some(all) = followers.get_mut(session) else { return };
        all.retain(|one| but.is_some_and(|far| far.node == one.node) || one.lines.try_send(line.clone()).is_ok());
        if all.is_empty() {
            followers.remove(session);
        }
    }
}

/// Has another node answer an event of a socket.
pub(super) async fn ask(
    gary: &Gary,
    socket: &SocketRef,
    event: &str,
    sent: Bytes,
    session: Option<&SessionId>,
) -> Result<(), Refusal> {
    let Some(cluster) = &gary.bridge.cluster else { return Ok(()) };
    let _answering = gary.bridge.answering(session).await;
    let until = Instant::now() + MOVING;
    let answer = 'moving: loop {
        let places = gary.bridge.places(session).await.map_err(|error| error.to_string())?;
        let Some(last) = places.last() else {
            return Err("The session has moved just now; ask again.".to_owned().into());
        };
        let asked = Asked::of(socket.req_parts()).to(&address(event, cluster)).about(session);
        for node in &places {
            match cluster.ask(node, &Call { head: asked.write(), body: sent.clone() }).await {
                Ok(answer) if is_done(&answer.head) => break 'moving answer,
                // Another one may have a place for it.
                Ok(answer) if is_full(&answer.head) && node != last => {}
                Ok(answer) if is_full(&answer.head) => break 'moving answer,
                Ok(_) | Err(ClusterError::Gone(_)) if Instant::now() < until => {}
                Ok(_) => return Err("The session moves from node to node; ask again.".to_owned().into()),
                Err(error) => return Err(error.to_string().into()),
            }
        }
        sleep(LOOK).await;
    };
    let mut lines = Lines::of(answer.body);
    let mut joined: Vec<SessionId> = session.cloned().into_iter().collect();
    while let Some(line) = lines.next(gary).await {
        if let Said::Join(session) = &line.0 {
            joined.extend(SessionId::parse(session).ok());
        }
        heard(gary, Some(socket), line).await;
    }
    // What is told from now on comes after the answer.
    joined.into_iter().for_each(|session| follow(gary, session));
    Ok(())
}

fn address(event: &str, cluster: &Cluster) -> String {
    format!("{PATH}{event}?{}", cluster.node())
}

/// Does what another node says.
async fn heard(gary: &Gary, socket: Option<&SocketRef>, (line, bytes): (Said, usize)) {
    let parsed = |session: &str| SessionId::parse(session).ok();
    match (line, socket) {
        (Said::Join(session), Some(socket)) => {
            if let Some(session) = parsed(&session) {
                gary.members.join(socket, &session);
            }
        }
        (Said::Leave(session), Some(socket)) => socket.leave(session),
        (Said::One(event, data), Some(socket)) => push::to_one(socket, &event, &data),
        (Said::Room(session, event, data), _) => {
            if let Some(session) = parsed(&session) {
                told(gary, &session, &event, (&data, bytes)).await;
            }
        }
        _ => {}
    }
}

/// Tells a room what another node says to it, and whether anybody was told.
async fn told(gary: &Gary, session: &SessionId, event: &str, (data, bytes): (&Value, usize)) -> bool {
    let is_heard = gary.is_in_a_room(session);
    if bytes < LARGE {
        gary.emit(session, event, data).await;
        return is_heard;
    }
    match gary.send(session, event, (data, bytes as u64)).await {
        Ok(()) => is_heard,
        Err(error) => {
            // It is handed over when the session is asked for again.
            let error = json!({ "message": error.to_string(), "session_id": session });
            gary.emit(session, "error", &error).await;
            false
        }
    }
}

/// Follows a session of another node for as long as one of this node's sockets is in its room.
pub(super) fn follow(gary: &Gary, session: SessionId) {
    if gary.bridge.cluster.is_none() || !lock(&gary.bridge.following).insert(session.clone()) {
        return;
    }
    let gary = gary.clone();
    tokio::spawn(async move {
        while gary.is_in_a_room(&session) && !gary.stopping.is_cancelled() {
            match gary.bridge.places(Some(&session)).await.map(|places| places.into_iter().next()) {
                Ok(None) => {
                    // It goes on here.
                    push::catch_up(&gary, &session).await;
                    break;
                }
                Ok(Some(node)) => follow_at(&gary, &node, &session).await,
                Err(error) => tracing::debug!(%error, "a session cannot be followed now"),
            }
            sleep(LOOK).await;
        }
        lock(&gary.bridge.following).remove(&session);
    });
}

async fn follow_at(gary: &Gary, node: &str, session: &SessionId) {
    let Some(cluster) = &gary.bridge.cluster else { return };
    let asked = Asked::ours(&address(FOLLOW, cluster)).about(Some(session));
    let Ok(answer) = cluster.ask(node, &Call { head: asked.write(), body: Bytes::new() }).await else { return };
    if !is_done(&answer.head) {
        return;
    }
    let mut lines = Lines::of(answer.body);
    while gary.is_in_a_room(session) {
        match timeout(LOOK, lines.next(gary)).await {
            Ok(Some(line)) => {
                let gate = gary.bridge.gate(session);
                let _alone = gate.write().await;
                match line {
                    (Said::End(clip, _, event, data), bytes) => {
                        if told(gary, session, &event, (&data, bytes)).await {
                            take(gary, node, session, clip).await;
                        }
                    }
                    line => heard(gary, None, line).await,
                }
            }
            Ok(None) => return,
            Err(_) => {}
        }
    }
}

/// Says that somebody here knows how a clip ended. What nobody takes is kept for whoever comes
/// back.
async fn take(gary: &Gary, node: &str, session: &SessionId, clip: String) {
    let Some(cluster) = &gary.bridge.cluster else { return };
    let asked = Asked::ours(&address(TAKE, cluster)).about(Some(session));
    if let Err(error) = cluster.ask(node, &Call { head: asked.write(), body: clip.into() }).await {
        tracing::debug!(%error, "a result may be told twice");
    }
}

/// What another node says, line by line.
struct Lines {
    body: BoxStream<'static, Result<Bytes, ClusterError>>,
    text: Vec<u8>,
    /// Where no end of a line was found before.
    from: usize,
    share: Option<Share>,
}

impl Lines {
    fn of(body: BoxStream<'static, Result<Bytes, ClusterError>>) -> Self {
        Self { body, text: Vec::new(), from: 0, share: None }
    }

    /// The next line and its length. Nothing is lost when it is not waited for.
    async fn next(&mut self, gary: &Gary) -> Option<(Said, usize)> {
        loop {
            if let Some(end) = self.text[self.from..].iter().position(|&byte| byte == b'\n') {
                let rest = self.text.split_off(self.from + end + 1);
                let line = std::mem::replace(&mut self.text, rest);
                self.from = 0;
                // Others keep the connection alive.
                if let Ok(said) = serde_json::from_slice(&line) {
                    return Some((said, line.len()));
                }
                continue;
            }
            self.from = self.text.len();
            let piece = self.body.next().await?.ok()?;
            // It is in memory already; whoever had to wait would only hold it longer.
            self.share = None;
            self.share = Some(gary.members.budget.try_take((self.text.len() + piece.len()) as u64).ok()?);
            self.text.extend_from_slice(&piece);
        }
    }
}

/// Answers what another node asks about one of its sockets, or follows a session for it.
pub(super) async fn answer(
    gary: &Gary,
    asked: Parts,
    owner: Owner,
    session: Option<SessionId>,
    body: Bytes,
) -> Response {
    let (event, node) = asked.uri.path_and_query().map_or(("", ""), |target| {
        (target.path().rsplit('/').next().unwrap_or_default(), target.query().unwrap_or_default())
    });
    if event == FOLLOW {
        return match session {
            Some(session) => followed(gary, node.to_owned(), session).await,
            None => String::new().into_response(),
        };
    }
    if event == IS_HEARD {
        let session = std::str::from_utf8(&body).ok().and_then(|id| SessionId::parse(id).ok());
        let is_heard = session.is_some_and(|session| gary.is_in_a_room(&session));
        return if is_heard { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response();
    }
    if event == TAKE {
        let clip = std::str::from_utf8(&body).ok().and_then(|id| id.parse().ok());
        if let (Some(clip), Ok(studio)) = (clip, gary.studio()) {
            push::handed_over(studio, clip).await;
        }
        return String::new().into_response();
    }
    let asker = Asker::Far(Far::new(node.to_owned(), owner));
    if events::EVENTS.contains(&event) || event == events::PIECES {
        let sent = serde_json::from_slice::<(IgnoredAny, Parsed)>(&body);
        events::answer(gary, &asker, event, sent.ok().map(|(_, data)| data), Bytes::new()).await;
    }
    match asker {
        Asker::Far(far) if far.is_refused() => with_status(far.lines(), StatusCode::TOO_MANY_REQUESTS).into_response(),
        Asker::Far(far) => far.lines().into_response(),
        Asker::Here(_) => String::new().into_response(),
    }
}

async fn followed(gary: &Gary, node: String, session: SessionId) -> Response {
    let expected = lock(&gary.bridge.expected).remove(&(session.clone(), node.clone()));
    let heard = match expected {
        Some((_, heard)) => heard,
        None => {
            let heard = gary.bridge.enter(&session, &node);
            push::catch_up(gary, &session).await;
            heard
        }
    };
    let stopping = gary.stopping.clone();
    let told = stream::unfold(heard, |mut heard: Receiver<Bytes>| async move {
        match timeout(KEEP_ALIVE, heard.recv()).await {
            Ok(line) => Some((Ok::<_, std::convert::Infallible>(line?), heard)),
            Err(_) => Some((Ok(Bytes::from_static(b"\n")), heard)),
        }
    });
    warp::reply::stream(told.take_until(stopping.cancelled_owned())).into_response()
}
