//! Where every session lives, and what another node needs to go on with it.
//!
//! A session's row in a bucket says which process has it and under which generation, and holds what
//! the studio's table has of it; its sounds are objects beside it. A row is only ever changed by
//! its revision: of two processes that want a session one gets it, and one that was replaced finds
//! out as soon as it writes. Each process also keeps a list of its sessions with clips that are
//! still to be made, so that others need not search for them when it is gone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, UpdateErrorKind};
use async_nats::jetstream::object_store::{self, ObjectStore};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::link::{Link, PATIENCE, Trouble};
use super::nodes::Nodes;
use super::{ClusterConfig, ClusterError};
use crate::studio::{AudioId, ClipId, Copies, SessionCopy, SessionId, Store, Studio, StudioError};
use crate::telemetry::CLUSTER_SESSIONS_TAKEN;

/// How often it is looked for what is to be made up for, and for what was left behind.
const ROUND: Duration = Duration::from_millis(500);
/// Rounds between two looks for sessions that are not kept any more.
const ROUNDS: u32 = 20;
/// Pause before NATS is asked again after trouble.
const BREATH: Duration = Duration::from_secs(1);
/// How long a sound may take on its way.
const SOUND: Duration = Duration::from_secs(60);
/// Copies that nobody changed for so long go.
const AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is written of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    node: String,
    /// Tells processes of that name apart.
    process: String,
    /// Raised at every change of the process that has it.
    generation: u64,
    is_unfinished: bool,
    sounds: Vec<String>,
    clips: Vec<String>,
    /// What the studio's table has of it.
    rows: String,
}

impl Row {
    fn sounds(&self) -> HashSet<AudioId> {
        self.sounds.iter().filter_map(|id| id.parse().ok()).collect()
    }

    fn clips(&self) -> HashSet<ClipId> {
        self.clips.iter().filter_map(|id| id.parse().ok()).collect()
    }
}

/// What this process knows of the row of one of its sessions.
#[derive(Default)]
struct Place {
    /// It is this process's own, as of the connection of this number.
    revision: Option<(u64, u64)>,
    generation: u64,
    sounds: HashSet<AudioId>,
    clips: HashSet<ClipId>,
    /// The session has been in this process's store.
    was_here: bool,
}

#[derive(Clone)]
struct Stores {
    rows: kv::Store,
    sounds: ObjectStore,
}

/// Sessions with clips that are still to be made here, and which of them the others know of.
#[derive(Default)]
struct Due {
    wanted: BTreeSet<String>,
    written: BTreeSet<String>,
}

/// What became of an attempt to write.
enum Written {
    Done,
    /// Another process has gone on with it.
    Superseded,
}

/// Where a session lives.
#[derive(Debug, Clone, PartialEq)]
pub enum Home {
    /// At this node.
    Here,
    /// At another one that is there.
    At(String),
    /// At one that is gone: any other may go on with it.
    Gone,
}

/// All of them.
pub(super) struct Homes {
    cluster: String,
    node: String,
    process: String,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    studio: OnceLock<Weak<Studio>>,
    stores: Mutex<Option<Stores>>,
    /// Counts connections: what was known before the last one may have changed.
    epoch: AtomicU64,
    places: Mutex<HashMap<SessionId, Arc<tokio::sync::Mutex<Place>>>>,
    /// Sessions whose copies are not as they should be.
    late: Mutex<HashSet<SessionId>>,
    due: Mutex<Due>,
    /// Held while the list of them is written.
    listing: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ids of sessions may have dots, keys have a meaning for them.
fn session_key(session: &SessionId) -> String {
    format!("session.{}", URL_SAFE_NO_PAD.encode(session.as_str()))
}

fn clip_key(clip: ClipId) -> String {
    format!("clip.{clip}")
}

fn trouble(error: StudioError) -> Trouble {
    Trouble(error.to_string())
}

impl Homes {
    pub(super) fn new(config: &ClusterConfig, link: Arc<Link>, nodes: Arc<Nodes>) -> Self {
        Self {
            cluster: config.name.to_string(),
            node: config.node.to_string(),
            process: nodes.process().to_owned(),
            link,
            nodes,
            studio: OnceLock::new(),
            stores: Mutex::default(),
            epoch: AtomicU64::new(0),
            places: Mutex::default(),
            late: Mutex::default(),
            due: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    /// The sessions of this node are those of this studio.
    pub(super) fn serve(&self, studio: &Arc<Studio>) {
        let _ = self.studio.set(Arc::downgrade(studio));
    }

    fn studio(&self) -> Option<Arc<Studio>> {
        self.studio.get().and_then(Weak::upgrade)
    }

    fn stores(&self) -> Result<Stores, ClusterError> {
        lock(&self.stores).clone().filter(|_| self.link.is_up()).ok_or(ClusterError::Away)
    }

    fn place(&self, session: &SessionId) -> Arc<tokio::sync::Mutex<Place>> {
        Arc::clone(lock(&self.places).entry(session.clone()).or_default())
    }

    /// A revision that is certainly that of this process's last word.
    fn revision(&self, place: &Place) -> Option<u64> {
        let (epoch, revision) = place.revision?;
        (epoch == self.epoch.load(Ordering::SeqCst)).then_some(revision)
    }

    fn own(&self, revision: u64) -> Option<(u64, u64)> {
        Some((self.epoch.load(Ordering::SeqCst), revision))
    }

    async fn read(&self, stores: &Stores, key: &str) -> Result<Option<(Bytes, u64)>, Trouble> {
        let entry = timeout(PATIENCE, stores.rows.entry(key)).await??;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.map(|entry| (entry.value, entry.revision)))
    }

    async fn written(&self, stores: &Stores, session: &SessionId) -> Result<Option<(Row, u64)>, Trouble> {
        let Some((value, revision)) = self.read(stores, &session_key(session)).await? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&value)?, revision)))
    }

    /// Writes a session's row; gives its revision, or nothing if the row is another one by now.
    async fn write(
        &self,
        stores: &Stores,
        session: &SessionId,
        row: &Row,
        revision: Option<u64>,
    ) -> Result<Option<u64>, Trouble> {
        let (key, value) = (session_key(session), Bytes::from(serde_json::to_vec(row)?));
        match revision {
            Some(revision) => match timeout(PATIENCE, stores.rows.update(&key, value, revision)).await? {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(error) => Err(error.into()),
            },
            None => match timeout(PATIENCE, stores.rows.create(&key, value)).await? {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Where a session lives; nothing if nobody has it.
    pub(super) async fn find(&self, session: &SessionId) -> Result<Option<Home>, ClusterError> {
        if let Some(studio) = self.studio()
            && studio.session(session).await.is_ok()
            && self.is_own(&studio, session).await
        {
            return Ok(Some(Home::Here));
        }
        self.nodes.reach()?;
        let stores = self.stores()?;
        let found = self.written(&stores, session).await.map_err(|Trouble(reason)| away(&reason))?;
        Ok(found.map(|(row, _)| match self.nodes.has_ended(&row.process) {
            // Taken a moment ago, or not taken in yet.
            _ if row.process == self.process => Home::Gone,
            true => Home::Gone,
            false => Home::At(row.node),
        }))
    }

    /// The session of a clip.
    pub(super) async fn session_of(&self, clip: ClipId) -> Result<Option<SessionId>, ClusterError> {
        if let Some(studio) = self.studio()
            && let Ok(clip) = studio.clip(clip).await
        {
            return Ok(Some(clip.record.session.clone()));
        }
        self.nodes.reach()?;
        let stores = self.stores()?;
        let found = self.read(&stores, &clip_key(clip)).await.map_err(|Trouble(reason)| away(&reason))?;
        Ok(found.and_then(|(text, _)| SessionId::parse(std::str::from_utf8(&text).ok()?).ok()))
    }

    /// Whether a session of this process's store is still its own, as far as that can be found out
    /// now.
    async fn is_own(&self, studio: &Studio, session: &SessionId) -> bool {
        let is_known = async || self.revision(&*self.place(session).lock().await).is_some();
        // While there is nobody to ask it is taken for that.
        is_known().await
            || (self.keep(studio.store(), session).await.is_ok() && (self.stores().is_err() || is_known().await))
    }

    /// Writes a session down as it is in the store.
    async fn copy(
        &self,
        stores: &Stores,
        store: &Store,
        session: &SessionId,
        place: &mut Place,
    ) -> Result<Written, Trouble> {
        let Some(copy) = store.export(session).await.map_err(trouble)? else {
            return self.take_away(stores, session, place).await.map(|()| Written::Done);
        };
        place.was_here = true;
        loop {
            let mut revision = self.revision(place);
            if revision.is_none() {
                match self.written(stores, session).await? {
                    Some((row, at)) => {
                        place.generation = match row.process == self.process {
                            true => row.generation,
                            // An earlier process with the same folder.
                            false if row.generation == copy.generation => row.generation + 1,
                            false => return Ok(Written::Superseded),
                        };
                        (place.sounds, place.clips) = (row.sounds(), row.clips());
                        revision = Some(at);
                    }
                    None => {
                        place.generation = copy.generation.max(1);
                        (place.sounds, place.clips) = Default::default();
                    }
                }
            }
            self.copy_parts(stores, store, &copy, place).await?;
            let row = Row {
                node: self.node.clone(),
                process: self.process.clone(),
                generation: place.generation,
                is_unfinished: copy.is_unfinished,
                sounds: copy.sounds.iter().map(ToString::to_string).collect(),
                clips: copy.clips.iter().map(ToString::to_string).collect(),
                rows: copy.rows.clone(),
            };
            let Some(written) = self.write(stores, session, &row, revision).await? else {
                // It may have been this process, whose last word was not answered.
                place.revision = None;
                continue;
            };
            place.revision = self.own(written);
            if copy.generation != place.generation {
                store.set_generation(session, place.generation).await.map_err(trouble)?;
            }
            self.drop_unused(stores, &copy, place).await;
            return Ok(Written::Done);
        }
    }

    /// What has to be there before a row names it.
    async fn copy_parts(
        &self,
        stores: &Stores,
        store: &Store,
        copy: &SessionCopy,
        place: &mut Place,
    ) -> Result<(), Trouble> {
        for id in &copy.sounds {
            if !place.sounds.contains(id) {
                let bytes = store.read(*id).await.map_err(trouble)?;
                timeout(SOUND, stores.sounds.put(id.to_string().as_str(), &mut &bytes[..])).await??;
                place.sounds.insert(*id);
            }
        }
        for clip in &copy.clips {
            if !place.clips.contains(clip) {
                let session = Bytes::copy_from_slice(copy.session.as_str().as_bytes());
                timeout(PATIENCE, stores.rows.put(clip_key(*clip), session)).await??;
                place.clips.insert(*clip);
            }
        }
        if copy.is_unfinished {
            lock(&self.due).wanted.insert(copy.session.to_string());
            if !lock(&self.due).written.contains(copy.session.as_str()) {
                self.list_due(stores).await?;
            }
        }
        Ok(())
    }

    async fn drop_unused(&self, stores: &Stores, copy: &SessionCopy, place: &mut Place) {
        if !copy.is_unfinished {
            lock(&self.due).wanted.remove(copy.session.as_str());
        }
        let unused: Vec<AudioId> = place.sounds.iter().filter(|id| !copy.sounds.contains(id)).copied().collect();
        for id in unused {
            place.sounds.remove(&id);
            // What does not succeed grows old.
            let _ = timeout(PATIENCE, stores.sounds.delete(id.to_string())).await;
        }
    }

    /// Removes what is written of a session that is not kept any more.
    async fn take_away(&self, stores: &Stores, session: &SessionId, place: &mut Place) -> Result<(), Trouble> {
        lock(&self.due).wanted.remove(session.as_str());
        if place.was_here
            && let Some((row, revision)) = self.written(stores, session).await?
            && row.process == self.process
        {
            let deleted = stores.rows.delete_expect_revision(session_key(session), Some(revision));
            timeout(PATIENCE, deleted).await??;
            for id in row.sounds() {
                let _ = timeout(PATIENCE, stores.sounds.delete(id.to_string())).await;
            }
            for clip in row.clips() {
                let _ = timeout(PATIENCE, stores.rows.delete(clip_key(clip))).await;
            }
        }
        lock(&self.places).remove(session);
        Ok(())
    }

    /// Tells the others which sessions have clips that are still to be made.
    async fn list_due(&self, stores: &Stores) -> Result<(), Trouble> {
        let _listing = self.listing.lock().await;
        let wanted = {
            let due = lock(&self.due);
            if due.wanted == due.written {
                return Ok(());
            }
            due.wanted.clone()
        };
        let list = Bytes::from(serde_json::to_vec(&wanted)?);
        timeout(PATIENCE, stores.rows.put(self.due_key(&self.process), list)).await??;
        lock(&self.due).written = wanted;
        Ok(())
    }

    fn due_key(&self, process: &str) -> String {
        format!("due.{process}")
    }

    /// Goes on with a session whose process is gone; with `is_unfinished` only if there is
    /// something to be made. Says whether it is here.
    pub(super) async fn take(&self, session: &SessionId, is_unfinished: bool) -> Result<bool, Trouble> {
        let Some(studio) = self.studio() else { return Ok(false) };
        let stores = self.stores().map_err(|error| Trouble(error.to_string()))?;
        let place = self.place(session);
        let mut place = place.lock().await;
        if studio.session(session).await.is_ok() {
            return Ok(true);
        }
        let Some((row, revision)) = self.written(&stores, session).await? else { return Ok(false) };
        let is_left = row.process == self.process || self.nodes.has_ended(&row.process);
        if !is_left || (is_unfinished && !row.is_unfinished) {
            return Ok(false);
        }
        if row.is_unfinished {
            // Whoever finds it here without an end looks for it where this process lists it.
            lock(&self.due).wanted.insert(session.to_string());
            self.list_due(&stores).await?;
        }
        let generation = row.generation + 1;
        let own = Row { node: self.node.clone(), process: self.process.clone(), generation, ..row.clone() };
        let Some(revision) = self.write(&stores, session, &own, Some(revision)).await? else { return Ok(false) };
        let mut drafts = Vec::new();
        for id in row.sounds() {
            let bytes = timeout(SOUND, fetch(&stores.sounds, id)).await??;
            drafts.push(studio.store().keep_as(id, bytes, session).await.map_err(trouble)?);
        }
        let copy = SessionCopy {
            session: session.clone(),
            rows: row.rows.clone(),
            clips: row.clips().into_iter().collect(),
            sounds: row.sounds().into_iter().collect(),
            is_unfinished: row.is_unfinished,
            generation,
        };
        studio.store().import(copy, drafts).await.map_err(trouble)?;
        *place = Place {
            revision: self.own(revision),
            generation,
            sounds: row.sounds(),
            clips: row.clips(),
            was_here: true,
        };
        drop(place);
        counter!(CLUSTER_SESSIONS_TAKEN).increment(1);
        tracing::info!(session = session.as_str(), from = row.node, "a session of another node goes on here");
        studio.take_up(session).await.map_err(trouble)?;
        Ok(true)
    }

    /// Reads and writes for as long as the process lives.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let connection = self.link.connected().await;
            let trouble = tokio::select! {
                trouble = self.converse() => trouble,
                () = self.link.lost(connection) => Ok(()),
            };
            *lock(&self.stores) = None;
            self.epoch.fetch_add(1, Ordering::SeqCst);
            lock(&self.due).written.clear();
            if let Err(Trouble(reason)) = trouble {
                tracing::warn!("sessions cannot be copied to the cluster: {reason}; trying again");
                sleep(BREATH).await;
            }
        }
    }

    async fn converse(&self) -> Result<(), Trouble> {
        let rows = self.link.bucket(kv::Config {
            bucket: format!("continuo-{}-sessions", self.cluster),
            description: "the sessions of a cluster of Continuo".into(),
            max_age: AGE,
            ..kv::Config::default()
        });
        let rows = rows.await?;
        let sounds = self.link.objects(object_store::Config {
            bucket: format!("continuo-{}-sounds", self.cluster),
            description: Some("the sounds of a cluster of Continuo".into()),
            max_age: AGE,
            ..object_store::Config::default()
        });
        let stores = Stores { rows, sounds: sounds.await? };
        let mut lists = stores.rows.watch_with_history("due.>").await?;
        *lock(&self.stores) = Some(stores.clone());
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut left, mut round) = (HashMap::<String, Vec<SessionId>>::new(), 0);
        loop {
            tokio::select! {
                entry = lists.next() => {
                    let entry = entry.ok_or_else(|| Trouble("nothing more is told of the sessions".into()))??;
                    let Some(process) = entry.key.strip_prefix("due.") else { continue };
                    match serde_json::from_slice::<Vec<String>>(&entry.value) {
                        Ok(ids) if entry.operation == Operation::Put => {
                            let ids = ids.iter().filter_map(|id| SessionId::parse(id).ok());
                            left.insert(process.to_owned(), ids.collect());
                        }
                        _ => drop(left.remove(process)),
                    }
                }
                _ = tick.tick() => {
                    let Some(studio) = self.studio() else { continue };
                    // Who does not know the others does not know who is gone.
                    if self.nodes.reach().is_err() {
                        continue;
                    }
                    self.make_up(&studio, &stores, round).await?;
                    round = (round + 1) % ROUNDS;
                    self.take_left(&stores, &left).await;
                }
            }
        }
    }

    /// Brings copies up to date that are not.
    async fn make_up(&self, studio: &Studio, stores: &Stores, round: u32) -> Result<(), Trouble> {
        let mut sessions: HashSet<SessionId> = lock(&self.late).clone();
        if round == 0 {
            let here: HashSet<SessionId> = studio.store().session_ids().await.map_err(trouble)?.into_iter().collect();
            let known: HashSet<SessionId> = lock(&self.places).keys().cloned().collect();
            sessions.extend(known.difference(&here).cloned());
            for session in here {
                let place = self.place(&session);
                if self.revision(&*place.lock().await).is_none() {
                    sessions.insert(session);
                }
            }
        }
        for session in sessions {
            // Whoever has gone on with it has it.
            let _ = self.keep(studio.store(), &session).await;
        }
        self.list_due(stores).await
    }

    /// Goes on with what gone processes have left unfinished.
    async fn take_left(&self, stores: &Stores, left: &HashMap<String, Vec<SessionId>>) {
        for (process, sessions) in left.iter().filter(|(process, _)| self.nodes.has_ended(process)) {
            // The others do the same: each begins elsewhere.
            let from = usize::from(self.process.bytes().last().unwrap_or_default()) % sessions.len().max(1);
            let mut is_done = true;
            for session in sessions[from..].iter().chain(&sessions[..from]) {
                if let Err(Trouble(reason)) = self.take(session, true).await {
                    tracing::warn!(session = session.as_str(), "a session cannot go on here yet: {reason}");
                    is_done = false;
                }
            }
            if is_done {
                // Whoever is next finds nothing to do.
                let _ = timeout(PATIENCE, stores.rows.delete(self.due_key(process))).await;
            }
        }
    }

    /// Nothing is made here any more.
    pub(super) async fn leave(&self) {
        let is_empty = lock(&self.due).wanted.is_empty();
        if let Ok(stores) = self.stores()
            && is_empty
        {
            let _ = timeout(PATIENCE, stores.rows.delete(self.due_key(&self.process))).await;
        }
    }

    fn let_go(&self, session: &SessionId) {
        let Some(studio) = self.studio() else { return };
        let session = session.clone();
        tokio::spawn(async move {
            tracing::info!(session = session.as_str(), "another node goes on with a session");
            if let Err(error) = studio.let_go(&session).await {
                tracing::warn!(%error, session = session.as_str(), "a session that goes on elsewhere is still here");
            }
        });
    }
}

async fn fetch(sounds: &ObjectStore, id: AudioId) -> Result<Bytes, Trouble> {
    let mut object = sounds.get(id.to_string()).await?;
    let mut bytes = Vec::with_capacity(object.info().size);
    object.read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

fn away(reason: &str) -> ClusterError {
    tracing::debug!(reason, "a session could not be looked for");
    ClusterError::Away
}

impl Copies for Homes {
    fn keep<'a>(&'a self, store: &'a Store, session: &'a SessionId) -> BoxFuture<'a, Result<(), StudioError>> {
        async move {
            let place = self.place(session);
            let mut place = place.lock().await;
            let copied = match self.stores() {
                Ok(stores) => self.copy(&stores, store, session, &mut place).await,
                Err(error) => Err(Trouble(error.to_string())),
            };
            match copied {
                Ok(Written::Done) => {
                    lock(&self.late).remove(session);
                    Ok(())
                }
                Ok(Written::Superseded) => {
                    lock(&self.late).remove(session);
                    lock(&self.due).wanted.remove(session.as_str());
                    lock(&self.places).remove(session);
                    self.let_go(session);
                    Err(StudioError::Elsewhere)
                }
                Err(Trouble(reason)) => {
                    tracing::debug!(reason, session = session.as_str(), "a session is copied later");
                    place.revision = None;
                    lock(&self.late).insert(session.clone());
                    Ok(())
                }
            }
        }
        .boxed()
    }
}
