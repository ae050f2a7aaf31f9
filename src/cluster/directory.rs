//! Where every stream of the cluster plays, and who has which name.
//!
//! Each node writes down its own streams, under their ids, and takes their names before they begin;
//! what was written is only ever changed by its revision, so of two nodes that want the same one
//! gets it. Everybody reads all of it. What a node that is gone has left is removed by the others.

mod keeping;
mod names;
mod seam;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use self::names::{Claim, name_key};
use super::link::{Link, PATIENCE, UNHEARD};
use super::nodes::Nodes;
use super::{ClusterConfig, ClusterError};
use crate::station::Station;

/// How long a name that is being taken or given back is waited for.
const SETTLING: Duration = Duration::from_secs(1);

/// A stream and where it plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Identity.
    pub id: String,
    /// Name of a station.
    pub name: Option<String>,
    /// The node whose engine makes it.
    pub node: String,
    /// Tells processes of that name apart.
    process: String,
    /// Raised at every change of its owner.
    pub(super) generation: u64,
    /// It is expected to be there whatever becomes of its node.
    #[serde(default)]
    stays: bool,
    /// When it began, in milliseconds of Unix time.
    pub begun: u64,
}

struct Row {
    entry: Entry,
    revision: u64,
}

/// All of them.
pub(super) struct Directory {
    bucket: String,
    node: String,
    process: String,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    station: Weak<Station>,
    rows: Mutex<HashMap<String, Row>>,
    store: Mutex<Option<kv::Store>>,
    /// Held while this node's rows are written.
    writing: tokio::sync::Mutex<()>,
    /// All that is written has been read.
    is_current: AtomicBool,
    /// Something was read or written.
    changed: Notify,
    /// Under which generation this process makes its streams.
    own: Mutex<HashMap<String, u64>>,
    /// Nodes that have left something, and since when they are known to be gone.
    left: Mutex<HashMap<String, Instant>>,
}

fn id_key(id: &str) -> String {
    format!("id.{id}")
}

impl Directory {
    pub(super) fn new(config: &ClusterConfig, link: Arc<Link>, nodes: Arc<Nodes>, station: &Arc<Station>) -> Self {
        Self {
            bucket: format!("continuo-{}-streams", config.name),
            node: config.node.to_string(),
            process: nodes.process().to_owned(),
            link,
            nodes,
            station: Arc::downgrade(station),
            rows: Mutex::default(),
            store: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            is_current: AtomicBool::new(false),
            changed: Notify::new(),
            own: Mutex::default(),
            left: Mutex::default(),
        }
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is written, while it can be.
    fn store(&self) -> Result<kv::Store, ClusterError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.clone().filter(|_| self.link.is_up()).ok_or(ClusterError::Away)
    }

    /// What is known of a stream without asking anybody.
    pub(super) fn known(&self, id: &str) -> Option<Entry> {
        self.rows().get(id).map(|row| row.entry.clone())
    }

    /// The generation under which this node makes a stream.
    pub(super) fn generation(&self, id: &str) -> u64 {
        self.own().get(id).copied().unwrap_or(1)
    }

    fn own(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that is written has been read, and something can be written.
    pub(super) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    /// Whether a node is certainly not there.
    pub(super) fn is_gone(&self, node: &str) -> bool {
        self.nodes.is_gone(node)
    }

    /// Whether this process makes it.
    pub(super) fn is_own(&self, entry: &Entry) -> bool {
        entry.process == self.process
    }

    /// Whether another node goes on with a stream that this process made, under a later generation.
    fn is_succeeded(&self, entry: &Entry) -> bool {
        !self.is_own(entry) && self.own().get(&entry.id).is_some_and(|own| *own < entry.generation)
    }

    /// What is written of a stream, with its revision.
    pub(super) async fn written(&self, id: &str) -> Result<Option<(Entry, u64)>, ClusterError> {
        let written = self.read_entry(&id_key(id)).await?;
        Ok(written.and_then(|(value, revision)| Some((serde_json::from_slice(&value).ok()?, revision))))
    }

    /// Makes this process the one that makes a stream, unless somebody else was first.
    pub(super) async fn succeed(&self, entry: &Entry, revision: u64) -> Result<Option<(Entry, u64)>, ClusterError> {
        let _writing = self.writing.lock().await;
        let own = Entry {
            node: self.node.clone(),
            process: self.process.clone(),
            generation: entry.generation + 1,
            ..entry.clone()
        };
        let rewritten = self.link.answered(PATIENCE, || async { Ok(self.rewrite(&own, revision).await?) }).await?;
        let revision = match rewritten {
            Some(revision) => revision,
            // Somebody was first, which may have been this process, unheard.
            None => match self.written(&own.id).await? {
                Some((now, revision)) if now == own => revision,
                _ => return Ok(None),
            },
        };
        self.own().insert(own.id.clone(), own.generation);
        Ok(Some((own, revision)))
    }

    /// Another node may try to go on with it.
    pub(super) async fn hand_back(&self, own: &Entry, revision: u64, before: &Entry) {
        let _writing = self.writing.lock().await;
        self.own().remove(&own.id);
        let back = Entry { generation: own.generation, ..before.clone() };
        // What does not succeed is removed in the next round.
        let _ = self.link.answered(PATIENCE, || async { Ok(self.rewrite(&back, revision).await?) }).await;
    }

    /// It is over.
    pub(super) async fn give_up(&self, own: &Entry, revision: u64) {
        self.own().remove(&own.id);
        let _ = timeout(PATIENCE, self.take_away(own, revision)).await;
    }

    async fn rewrite(&self, entry: &Entry, revision: u64) -> Result<Option<u64>, ClusterError> {
        let store = self.store()?;
        let value = serde_json::to_vec(entry).map_err(|_| ClusterError::Away)?;
        let written = timeout(PATIENCE, store.update(id_key(&entry.id), value.into(), revision)).await;
        match written.map_err(|_| ClusterError::Away)? {
            Ok(revision) => {
                self.keep_row(entry.clone(), revision);
                Ok(Some(revision))
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(_) => Err(ClusterError::Away),
        }
    }

    /// Waits until this node knows who has followed an owner; not for long.
    pub(super) async fn heard_of_successor(&self, before: &Entry) -> bool {
        let is_known = || self.known(&before.id).is_none_or(|entry| entry.generation > before.generation);
        timeout(SETTLING, self.until(is_known)).await.is_ok()
    }

    /// Waits until something is so that follows from what is known here.
    pub(super) async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }

    fn keep_row(&self, entry: Entry, revision: u64) {
        self.rows().insert(entry.id.clone(), Row { entry, revision });
        self.changed.notify_waiters();
    }

    /// Streams of nodes that are gone that are expected to be there.
    pub(super) fn left_behind(&self) -> Vec<Entry> {
        if !self.is_current.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let staying: Vec<Entry> =
            self.rows().values().map(|row| &row.entry).filter(|entry| entry.stays).cloned().collect();
        let is_left = |entry: &Entry| entry.node != self.node && self.nodes.is_gone(&entry.node);
        staying.into_iter().filter(is_left).collect()
    }

    /// A stream that another node has.
    pub(super) async fn find(&self, id: &str) -> Result<Option<Entry>, ClusterError> {
        self.nodes.reach()?;
        if let Some(entry) = self.known(id) {
            return Ok(self.elsewhere(entry));
        }
        // It may have been written a moment ago. What cannot be a key is none.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Ok(None);
        }
        let written = self.read_entry(&id_key(id)).await?;
        Ok(written.and_then(|(value, _)| serde_json::from_slice(&value).ok()).and_then(|entry| self.elsewhere(entry)))
    }

    /// A station that another node has.
    pub(super) async fn find_named(&self, name: &str) -> Result<Option<Entry>, ClusterError> {
        self.nodes.reach()?;
        let known =
            self.rows().values().find(|row| row.entry.name.as_deref() == Some(name)).map(|row| row.entry.clone());
        if known.is_some() {
            return Ok(known.and_then(|entry| self.elsewhere(entry)));
        }
        let claim = self.read_entry(&name_key(name)).await?;
        match claim.and_then(|(value, _)| serde_json::from_slice::<Claim>(&value).ok()) {
            Some(claim) => self.find(&claim.id).await,
            None => Ok(None),
        }
    }

    fn elsewhere(&self, entry: Entry) -> Option<Entry> {
        (entry.node != self.node).then_some(entry)
    }

    async fn read_entry(&self, key: &str) -> Result<Option<(bytes::Bytes, u64)>, ClusterError> {
        let entry = self.link.answered(UNHEARD, || async { Ok(self.store()?.entry(key).await?) }).await?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.map(|entry| (entry.value, entry.revision)))
    }
}
