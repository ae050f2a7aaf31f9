//! The nodes that are there: each writes down every second how it is, under its name, and reads
//! what the others write.
//!
//! A name belongs to the process that took it: what it writes has to follow its own last revision.
//! A node that dies is forgotten when its last word has grown old.

mod clips;
mod keeping;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_nats::jetstream::kv;
use metrics::gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::link::{BLINK, Link};
use super::{ClusterConfig, ClusterError, Role};
use crate::station::Station;
use crate::studio::Studio;
use crate::telemetry::CLUSTER_NODES;

/// A node that said nothing for so long while this one was heard is gone.
const FRESH: Duration = Duration::from_secs(5);
/// This node's own word may be away for so long: servers of NATS that lose one of them take up to
/// ten seconds to agree again, and the next one may die meanwhile. What needs no words goes on.
const PATIENT: Duration = Duration::from_secs(30);
/// After such a pause of its own word the others have as long as a newcomer to be heard.
const PAUSE: Duration = Duration::from_secs(3);
/// Pause before a node is asked again for which nobody answered.
const AGAIN: Duration = Duration::from_millis(50);

/// A node, as it said a moment ago.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// No other node of the cluster has it.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Of Continuo.
    pub version: String,
    /// Streams that it has room for, beside those that play there.
    pub room: usize,
    /// Streams that have not ended.
    pub streams: usize,
    /// Listeners that are connected to it.
    pub listeners: usize,
    /// Clips that wait or are being made there.
    #[serde(default)]
    pub clips: usize,
    /// Streams of other nodes that went on there since it began.
    #[serde(default)]
    pub takeovers: u64,
    /// How long the last of them took, in seconds.
    #[serde(default)]
    pub takeover_seconds: Option<f64>,
}

/// What a node writes down.
#[derive(Serialize, Deserialize)]
struct Word {
    /// Tells processes of the same name apart.
    process: String,
    /// Whose clips are being made there, lane by lane.
    #[serde(default)]
    making: Vec<Vec<String>>,
    #[serde(flatten)]
    node: Node,
}

/// All nodes, and this one among them.
pub(super) struct Nodes {
    name: String,
    role: Role,
    process: String,
    bucket: String,
    link: Arc<Link>,
    station: Arc<Station>,
    /// Where clips are made, once it is known.
    studio: OnceLock<Weak<Studio>>,
    /// Other nodes are answered: until then there is no room for what they ask for.
    answers: AtomicBool,
    seen: Mutex<BTreeMap<String, Seen>>,
    /// Since when this node hears itself without a pause.
    joined: Mutex<Option<Instant>>,
    /// It has heard itself.
    heard: Notify,
    /// Where this node's word is, with its revision, once its name is its own.
    written: Mutex<Option<(kv::Store, u64)>>,
    /// How many streams of others went on here, and how long the last one took.
    takeovers: Mutex<(u64, Option<f64>)>,
}

struct Seen {
    node: Node,
    making: Vec<Vec<String>>,
    process: String,
    is_this: bool,
    at: Instant,
}

impl Nodes {
    pub(super) fn new(config: &ClusterConfig, link: Arc<Link>, station: Arc<Station>) -> Self {
        Self {
            name: config.node.to_string(),
            role: config.role,
            process: uuid::Uuid::new_v4().simple().to_string(),
            bucket: format!("continuo-{}-nodes", config.name),
            link,
            station,
            studio: OnceLock::new(),
            answers: AtomicBool::new(false),
            seen: Mutex::default(),
            joined: Mutex::default(),
            heard: Notify::new(),
            written: Mutex::default(),
            takeovers: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, Option<(kv::Store, u64)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are there. A node reaches the others while it hears its own word.
    pub(super) fn list(&self) -> Result<Vec<Node>, ClusterError> {
        let mut seen = self.seen();
        let own = seen.get(&self.name).map(|seen| (seen.is_this, seen.at));
        match own {
            _ if self.link.is_down() => return Err(ClusterError::Away),
            Some((false, _)) => return Err(ClusterError::NameTaken(self.name.clone())),
            Some((true, at)) if at.elapsed() < PATIENT => {
                // Before that nobody can be said to have been heard for long.
                if self.is_settled() {
                    seen.retain(|_, seen| seen.at + FRESH >= at);
                }
            }
            _ => return Err(ClusterError::Away),
        }
        gauge!(CLUSTER_NODES).set(seen.len() as f64);
        Ok(seen.values().map(|seen| seen.node.clone()).collect())
    }

    /// Whether this node has heard itself for so long that it must have heard everybody.
    fn is_settled(&self) -> bool {
        let joined = *self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        joined.is_some_and(|since| since.elapsed() > FRESH)
    }

    /// Waits until this node reaches the others.
    pub(super) async fn heard_itself(&self) {
        loop {
            let mut heard = pin!(self.heard.notified());
            heard.as_mut().enable();
            if self.reach().is_ok() {
                return;
            }
            heard.await;
        }
    }

    /// This node has heard its own word, the last time at `before`.
    fn heard_own(&self, before: Option<Instant>) {
        if before.is_none_or(|at| at.elapsed() > PAUSE) {
            *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Whether this node reaches the others.
    pub(super) fn reach(&self) -> Result<(), ClusterError> {
        self.list().map(drop)
    }

    /// Whether a node is certainly not there: it would have been heard by now.
    pub(super) fn is_gone(&self, name: &str) -> bool {
        self.list().is_ok_and(|nodes| self.is_settled() && nodes.iter().all(|node| node.name != name))
    }

    /// Asks a node, and again where nobody answers for it: a connection that it makes again within
    /// a moment was never lost. Of that nobody is told, so it is asked now and then.
    pub(super) async fn unless_gone<T, F: Future<Output = Result<T, ClusterError>>>(
        &self,
        name: &str,
        ask: impl Fn() -> F,
    ) -> Result<T, ClusterError> {
        let until = Instant::now() + BLINK;
        loop {
            let answer = ask().await;
            let may_be_back = || Instant::now() < until && !self.is_gone(name);
            if !matches!(answer, Err(ClusterError::Gone(_))) || !may_be_back() {
                return answer;
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether a process is certainly not there.
    pub(super) fn has_ended(&self, process: &str) -> bool {
        self.list().is_ok() && self.is_settled() && self.seen().values().all(|seen| seen.process != process)
    }

    /// From now on other nodes are answered.
    pub(super) fn answers(&self) {
        self.answers.store(true, Ordering::Relaxed);
    }

    /// Tells this process from others of its node's name.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// A stream of another node goes on here.
    pub(super) fn took_over(&self, seconds: f64) {
        let mut takeovers = self.takeovers.lock().unwrap_or_else(PoisonError::into_inner);
        *takeovers = (takeovers.0 + 1, Some(seconds));
    }

    /// This node takes nothing more.
    pub(super) fn closes(&self) {
        self.answers.store(false, Ordering::Relaxed);
    }

    fn node(&self) -> Node {
        let (takeovers, takeover_seconds) = *self.takeovers.lock().unwrap_or_else(PoisonError::into_inner);
        Node {
            takeovers,
            takeover_seconds,
            name: self.name.clone(),
            role: self.role,
            version: env!("CARGO_PKG_VERSION").into(),
            room: if self.answers.load(Ordering::Relaxed) { self.station.room() } else { 0 },
            streams: self.station.live().len(),
            listeners: self.station.listeners(),
            clips: self.clips(),
        }
    }
}
