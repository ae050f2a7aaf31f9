//! Where every session lives, and what another node needs to go on with it.
//!
//! A session's row in a bucket says which process has it and under which generation, and holds what
//! the studio's table has of it; its sounds are objects beside it. A row is only ever changed by
//! its revision: of two processes that want a session one gets it, and one that was replaced finds
//! out as soon as it writes. Each process also keeps a list of its sessions with clips that are
//! still to be made, so that others need not search for them when it is gone.

mod copying;
mod rows;
mod taking;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_nats::jetstream::kv::{self, Operation};
use async_nats::jetstream::object_store::{self, ObjectStore};
use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::rows::clip_key;
use super::link::{Link, Trouble, UNHEARD};
use super::nodes::Nodes;
use super::{ClusterConfig, ClusterError};
use crate::studio::{AudioId, ClipId, Copies, SessionId, Studio, StudioError};

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

    /// Where a session lives; nothing if nobody has it.
    pub(super) async fn find(&self, session: &SessionId) -> Result<Option<Home>, ClusterError> {
        if let Some(studio) = self.studio()
            && studio.session(session).await.is_ok()
            && self.is_own(&studio, session).await
        {
            return Ok(Some(Home::Here));
        }
        self.nodes.reach()?;
        let found = self.link.answered(UNHEARD, || async { self.written(&self.stores()?, session).await }).await?;
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
        let found = self.link.answered(UNHEARD, || async { self.read(&self.stores()?, &clip_key(clip)).await }).await?;
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
}
