//! Where every stream of the cluster plays, and who has which name.
//!
//! Each node writes down its own streams, under their ids, and takes their names before they begin;
//! what was written is only ever changed by its revision, so of two nodes that want the same one
//! gets it. Everybody reads all of it. What a node that is gone has left is removed by the others.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, UpdateErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::link::{Link, PATIENCE, Trouble, UNHEARD};
use super::nodes::Nodes;
use super::{ClusterConfig, ClusterError};
use crate::station::{Directory as Seam, Station, StationError, Stream};

/// How often what is written is compared with what plays.
const ROUND: Duration = Duration::from_secs(1);
/// Pause before NATS is asked again after trouble.
const BREATH: Duration = Duration::from_secs(1);
/// What a node that is gone has left is kept so long: its listeners elsewhere have another node go
/// on with it.
const LEFT: Duration = Duration::from_secs(30);
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

/// Who has a name.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    id: String,
    node: String,
    process: String,
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

/// Names have any letters, keys have not.
fn name_key(name: &str) -> String {
    format!("name.{}", URL_SAFE_NO_PAD.encode(name))
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

    /// Reads and writes for as long as the process lives.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let connection = self.link.connected().await;
            let trouble = tokio::select! {
                trouble = self.converse() => trouble,
                () = self.link.lost(connection) => Ok(()),
            };
            *self.store.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.is_current.store(false, Ordering::Relaxed);
            if let Err(Trouble(reason)) = trouble {
                tracing::warn!("the directory of streams cannot be kept up with: {reason}; trying again");
                sleep(BREATH).await;
            }
        }
    }

    async fn converse(&self) -> Result<(), Trouble> {
        let bucket = self.link.bucket(kv::Config {
            bucket: self.bucket.clone(),
            description: "where the streams of a cluster of Continuo play".into(),
            ..kv::Config::default()
        });
        let bucket = bucket.await?;
        let words = bucket.watch_with_history("id.>").await?;
        let is_empty = bucket.status().await?.values() == 0;
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(bucket);
        if is_empty {
            // NATS has begun anew.
            self.rows().clear();
            self.is_current.store(true, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
        tokio::select! {
            trouble = self.read(words) => trouble,
            trouble = self.write() => trouble,
        }
    }

    async fn read(&self, mut words: kv::Watch) -> Result<(), Trouble> {
        // What is known from before counts until all that is written has been read.
        let mut unread: HashSet<String> = self.rows().keys().cloned().collect();
        while let Some(entry) = words.next().await {
            let entry = entry?;
            let is_last = entry.delta == 0;
            self.note(&mut unread, &entry);
            if is_last && !self.is_current.swap(true, Ordering::Relaxed) {
                let mut rows = self.rows();
                unread.drain().for_each(|id| drop(rows.remove(&id)));
            }
            self.changed.notify_waiters();
        }
        Err(Trouble("nothing more is told of the streams".into()))
    }

    fn note(&self, unread: &mut HashSet<String>, entry: &kv::Entry) {
        let Some(id) = entry.key.strip_prefix("id.") else { return };
        unread.remove(id);
        let is_current = self.is_current.load(Ordering::Relaxed);
        let mut rows = self.rows();
        match serde_json::from_slice(&entry.value) {
            // A row that was written again after this was sent stays.
            _ if is_current && rows.get(id).is_some_and(|row| row.revision > entry.revision) => {}
            Ok(said) if entry.operation == Operation::Put => {
                rows.insert(id.to_owned(), Row { entry: said, revision: entry.revision });
            }
            _ => drop(rows.remove(id)),
        }
    }

    async fn write(&self) -> Result<(), Trouble> {
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // Who does not know the others, or what is written, does not know who is gone.
            if self.nodes.reach().is_ok() && self.is_current.load(Ordering::Relaxed) {
                self.compare().await?;
            }
        }
    }

    /// Writes down what plays here and is not written, and takes away what does not play any more.
    async fn compare(&self) -> Result<(), Trouble> {
        let Some(station) = self.station.upgrade() else { return Ok(()) };
        for stream in station.live() {
            let written = self.known(stream.id());
            if let Some(entry) = written.as_ref().filter(|entry| self.is_succeeded(entry)) {
                tracing::info!(stream = entry.id, node = entry.node, "another node goes on with a stream");
                self.own().remove(&entry.id);
                station.let_go(&entry.id).await;
                continue;
            }
            if !written.is_some_and(|entry| self.is_own(&entry)) {
                let name = match stream.name() {
                    Some(name) if self.take(name, stream.id()).await.is_err() => {
                        tracing::warn!(station = name, "another node has a station of this name");
                        None
                    }
                    name => name,
                };
                self.write_down(&stream, name).await?;
            }
        }
        let forgotten = self.forgotten();
        // What has ended is known here for a while.
        let is_over = |entry: &Entry| match entry.node == self.node {
            // What is about to go on here is not there yet.
            true => station.get(&entry.id).is_err() && !self.own().contains_key(&entry.id),
            false => !entry.stays && forgotten.contains(&entry.node),
        };
        let over: Vec<(Entry, u64)> = {
            let rows = self.rows();
            let over = rows.values().filter(|row| is_over(&row.entry));
            over.map(|row| (row.entry.clone(), row.revision)).collect()
        };
        for (entry, revision) in over {
            self.take_away(&entry, revision).await?;
        }
        Ok(())
    }

    /// Nodes that have been gone for so long that nobody waits for what they have left.
    fn forgotten(&self) -> HashSet<String> {
        let nodes: HashSet<String> = self.rows().values().map(|row| row.entry.node.clone()).collect();
        let gone: HashSet<String> = nodes.into_iter().filter(|node| self.nodes.is_gone(node)).collect();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|node, _| gone.contains(node));
        for node in gone {
            left.entry(node).or_insert_with(Instant::now);
        }
        left.iter().filter(|(_, since)| since.elapsed() > LEFT).map(|(node, _)| node.clone()).collect()
    }

    async fn write_down(&self, stream: &Stream, name: Option<&str>) -> Result<(), Trouble> {
        let _writing = self.writing.lock().await;
        if stream.has_ended() || self.known(stream.id()).is_some_and(|entry| entry.process == self.process) {
            return Ok(());
        }
        let Ok(store) = self.store() else { return Ok(()) };
        let now = SystemTime::now().checked_sub(stream.age()).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let mut entry = Entry {
            id: stream.id().to_owned(),
            name: name.map(str::to_owned),
            node: self.node.clone(),
            process: self.process.clone(),
            generation: self.own().get(stream.id()).copied().unwrap_or(1),
            stays: stream.stays(),
            begun: now.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        };
        let key = id_key(stream.id());
        let revision = match store.create(&key, serde_json::to_vec(&entry)?.into()).await {
            Ok(revision) => revision,
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                // What an earlier process of this node left.
                let Some(written) = store.entry(&key).await? else { return Ok(()) };
                let before: Entry = serde_json::from_slice(&written.value)?;
                if self.is_succeeded(&before) {
                    // It is let go in the next round.
                    self.keep_row(before, written.revision);
                    return Ok(());
                }
                if before.process == self.process {
                    self.keep_row(before, written.revision);
                    return Ok(());
                }
                if before.node != self.node && !self.nodes.is_gone(&before.node) {
                    return Err(Trouble(format!("the stream {} plays on `{}` too", entry.id, before.node)));
                }
                entry.generation = before.generation + 1;
                store.update(&key, serde_json::to_vec(&entry)?.into(), written.revision).await?
            }
            Err(error) => return Err(error.into()),
        };
        self.own().insert(entry.id.clone(), entry.generation);
        self.keep_row(entry, revision);
        Ok(())
    }

    async fn take_away(&self, entry: &Entry, revision: u64) -> Result<(), Trouble> {
        let _writing = self.writing.lock().await;
        let Ok(store) = self.store() else { return Ok(()) };
        // Somebody else may have been first.
        let _ = store.delete_expect_revision(id_key(&entry.id), Some(revision)).await;
        if let Some(name) = &entry.name {
            self.give_back(name, &entry.id).await?;
        }
        let mut rows = self.rows();
        if rows.get(&entry.id).is_some_and(|row| row.revision == revision) {
            rows.remove(&entry.id);
        }
        drop(rows);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Leaves the row of a stream that has ended, without its name.
    async fn take_name(&self, mut entry: Entry, revision: u64) -> Result<(), Trouble> {
        let _writing = self.writing.lock().await;
        let (Ok(store), Some(name)) = (self.store(), entry.name.take()) else { return Ok(()) };
        let revision = store.update(id_key(&entry.id), serde_json::to_vec(&entry)?.into(), revision).await?;
        let id = entry.id.clone();
        self.keep_row(entry, revision);
        self.give_back(&name, &id).await
    }

    async fn give_back(&self, name: &str, id: &str) -> Result<(), Trouble> {
        let Ok(store) = self.store() else { return Ok(()) };
        let key = name_key(name);
        let claim = store.entry(&key).await?.filter(|entry| entry.operation == Operation::Put);
        let is_this = |value: &[u8]| serde_json::from_slice::<Claim>(value).is_ok_and(|claim| claim.id == id);
        if let Some(claim) = claim.filter(|claim| is_this(&claim.value)) {
            let _ = store.delete_expect_revision(&key, Some(claim.revision)).await;
        }
        Ok(())
    }

    /// Takes a name for a stream.
    async fn take(&self, name: &str, id: &str) -> Result<(), StationError> {
        // Without the others it is taken when they are there again.
        let Ok(store) = self.store() else { return Ok(()) };
        let taken = self.try_take(&store, name, id);
        match timeout(PATIENCE, taken).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(StationError::NameTaken(name.to_owned())),
            Ok(Err(Trouble(reason))) => {
                tracing::warn!(station = name, "the name cannot be taken now: {reason}");
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    async fn try_take(&self, store: &kv::Store, name: &str, id: &str) -> Result<bool, Trouble> {
        let (key, until) = (name_key(name), Instant::now() + SETTLING);
        let claim = Claim { id: id.to_owned(), node: self.node.clone(), process: self.process.clone() };
        let claim: bytes::Bytes = serde_json::to_vec(&claim)?.into();
        let mut claims = None;
        loop {
            match store.create(&key, claim.clone()).await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            let held = store.entry(&key).await?.filter(|entry| entry.operation == Operation::Put);
            let Some(held) = held else { continue };
            let holder: Claim = serde_json::from_slice(&held.value)?;
            if holder.id == id && holder.process == self.process {
                return Ok(true);
            }
            let is_left = match holder.node == self.node {
                true => holder.process != self.process || holder.id == id,
                false => holder.id == id || self.nodes.is_gone(&holder.node),
            };
            // What a node that is gone has left may go on at another one.
            if is_left && !self.is_elsewhere(&holder.id) {
                match store.update(&key, claim.clone(), held.revision).await {
                    Ok(_) => return Ok(true),
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            // Its stream plays, or is about to begin or has just ended.
            if self.known(&holder.id).is_some() || Instant::now() >= until {
                return Ok(false);
            }
            let claims = match &mut claims {
                Some(claims) => claims,
                // What changed before this is looked at once more.
                none => {
                    *none = Some(store.watch(&key).await?);
                    continue;
                }
            };
            tokio::select! {
                Some(_) = claims.next() => {}
                () = self.until(|| self.known(&holder.id).is_some()) => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Nothing plays here any more: whatever is written of it goes.
    pub(super) async fn leave(&self) {
        let own: Vec<(Entry, u64)> = {
            let rows = self.rows();
            let own = rows.values().filter(|row| row.entry.process == self.process);
            own.map(|row| (row.entry.clone(), row.revision)).collect()
        };
        for (entry, revision) in own {
            // What does not succeed is removed by the others.
            let _ = timeout(PATIENCE, self.take_away(&entry, revision)).await;
        }
    }
}

impl Seam for Directory {
    fn is_elsewhere(&self, id: &str) -> bool {
        self.known(id).is_some_and(|entry| entry.node != self.node && !self.nodes.is_gone(&entry.node))
    }

    fn claim<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, Result<(), StationError>> {
        self.take(name, id).boxed()
    }

    fn release<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, ()> {
        async move {
            let _ = timeout(PATIENCE, self.give_back(name, id)).await;
        }
        .boxed()
    }

    fn begun<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, ()> {
        async move {
            // What does not succeed is done in the next round.
            let written = async {
                let name = match stream.name() {
                    Some(name) => self.take(name, stream.id()).await.ok().map(|()| name),
                    None => None,
                };
                self.write_down(stream, name).await
            };
            let _ = timeout(PATIENCE, written).await;
        }
        .boxed()
    }

    fn ended<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, ()> {
        async move {
            let row = self.rows().get(stream.id()).map(|row| (row.entry.clone(), row.revision));
            if let Some((entry, revision)) = row.filter(|(entry, _)| entry.process == self.process) {
                self.own().remove(stream.id());
                // For a while it may be asked why it ended; nobody can ask for what was deleted.
                let is_known = self.station.upgrade().is_some_and(|station| station.get(stream.id()).is_ok());
                // What does not succeed is done in the next round.
                let _ = match is_known {
                    true => timeout(PATIENCE, self.take_name(entry, revision)).await,
                    false => timeout(PATIENCE, self.take_away(&entry, revision)).await,
                };
            }
        }
        .boxed()
    }
}
