//! The node that makes a stream, seen from one where it is heard.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Buf;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::super::ClusterError;
use super::super::directory::{Directory, Entry};
use super::super::link::{Link, PATIENCE, Trouble};
use super::super::nodes::Nodes;
use super::super::sending::Subjects;
use super::super::succession::{Plays, Succession};
use super::super::verbs::{Ask, Done, Refusal, Reply, Wanted, What};
use super::{Hearing, ask, ask_within};
use crate::engine::{Ack, EngineError, Steer};
use crate::station::{Heard, Listen, Lost, Owner, StationError, Wish};
use crate::units::ModelId;

/// How long an owner may be silent that is dead for all that NATS knows, and how long NATS may be
/// away.
const DEAD: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(60);
/// An owner that does not answer now and does not answer after so long is gone, once this node's
/// own connection is so old.
const CERTAIN: Duration = Duration::from_millis(200);
const SETTLED: Duration = Duration::from_secs(3);
/// An owner that was heard answers within so long: one that died between question and answer is
/// asked again before its listeners have nothing left to play. Each time in a row it is given twice
/// as long.
const SOON: Duration = Duration::from_millis(400);

/// The node that makes a stream, seen from here.
pub(super) struct Distant {
    subjects: Subjects,
    node: String,
    id: String,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    directory: Arc<Directory>,
    succession: Arc<Succession>,
    /// As it was first known.
    entry: Entry,
    heard: mpsc::Sender<Heard>,
    subscriptions: Mutex<Subscriptions>,
    /// Whom it was last asked of, under which generation.
    asked: Mutex<Option<(String, u64)>>,
    /// How often in a row it has not answered what was wanted.
    silences: AtomicU32,
}

#[derive(Default)]
struct Subscriptions {
    /// They end with this.
    tasks: JoinSet<()>,
    pages: HashMap<Listen, Subscription>,
}

struct Subscription {
    task: AbortHandle,
    /// Its owner has not been asked for it yet.
    is_new: bool,
}

impl Distant {
    /// Seen from where `hearing` is. What comes of it goes to `heard`.
    pub(super) fn new(hearing: &Hearing, entry: Entry, heard: mpsc::Sender<Heard>) -> Self {
        Self {
            subjects: hearing.subjects.clone(),
            node: hearing.node.clone(),
            id: entry.id.clone(),
            link: Arc::clone(&hearing.link),
            nodes: Arc::clone(&hearing.nodes),
            directory: Arc::clone(&hearing.directory),
            succession: Arc::clone(&hearing.succession),
            entry,
            heard,
            subscriptions: Mutex::default(),
            asked: Mutex::default(),
            silences: AtomicU32::new(0),
        }
    }

    fn owner(&self) -> String {
        self.directory.known(&self.id).map_or_else(|| self.entry.node.clone(), |entry| entry.node)
    }

    pub(super) async fn ask(&self, what: What) -> Result<Reply, ClusterError> {
        ask(&self.link, &self.owner(), &self.subjects, Ask::new(&self.id, what)).await
    }

    /// Has another node go on with it, if its own is certainly gone. Tells whether one does.
    pub(super) async fn replace(&self, plays: Option<Plays>) -> bool {
        // While connections are made again somebody may only seem to be gone.
        if self.link.up_for() < SETTLED {
            return false;
        }
        if !self.directory.is_gone(&self.owner()) {
            sleep(CERTAIN).await;
            let hello = self.ask(What::Hello).await;
            if !matches!(hello, Err(ClusterError::Gone(_))) {
                return hello.is_ok();
            }
        }
        let Some(entry) = self.directory.known(&self.id) else { return false };
        self.succession.replace(&entry, plays, false).await && self.directory.heard_of_successor(&entry).await
    }

    /// From another owner everything is wanted anew.
    fn follow_owner(&self) {
        let now = self.directory.known(&self.id).map(|entry| (entry.node, entry.generation));
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if *asked != now {
            *asked = now;
            let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            subscriptions.pages.values_mut().for_each(|subscription| subscription.is_new = true);
        }
    }

    pub(super) async fn follow_events(&self) -> Result<(), Trouble> {
        let client = self.link.client_soon().await.map_err(|error| Trouble(error.to_string()))?;
        let mut events = client.subscribe(self.subjects.events(&self.id)).await?;
        let heard = self.heard.clone();
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).tasks.spawn(async move {
            while let Some(message) = events.next().await {
                // What a newer version tells is passed over.
                let mut payload = message.payload;
                let Ok(generation) = payload.try_get_u64() else { continue };
                let Ok(event) = serde_json::from_slice(&payload) else { continue };
                if heard.send(Heard::Event(generation, Box::new(event))).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Listens to what is wanted and to nothing else; gives it as its owner is to be asked for it.
    async fn listen(&self, wishes: &[Wish]) -> Result<Vec<Wanted>, Trouble> {
        let client = self.link.client_soon().await.map_err(|error| Trouble(error.to_string()))?;
        let missing: Vec<Listen> = {
            let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            let Subscriptions { tasks, pages } = &mut *subscriptions;
            pages.retain(|listen, subscription| {
                let is_wanted = wishes.iter().any(|wish| wish.listen == *listen);
                if !is_wanted {
                    subscription.task.abort();
                }
                is_wanted
            });
            while tasks.try_join_next().is_some() {}
            wishes.iter().map(|wish| wish.listen).filter(|listen| !pages.contains_key(listen)).collect()
        };
        for listen in missing {
            let subject = self.subjects.pages(&self.id, listen);
            // What is sent to all who listen, and what a newcomer has to be sent first.
            let own = client.subscribe(format!("{subject}.{}", self.node)).await?;
            let all = client.subscribe(subject).await?;
            let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            let Subscriptions { tasks, pages } = &mut *subscriptions;
            let task = tasks.spawn(pass_on(own, all, listen, self.heard.clone()));
            pages.insert(listen, Subscription { task, is_new: true });
        }
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |wish: &Wish| subscriptions.pages.get(&wish.listen).is_none_or(|page| page.is_new);
        Ok(wishes.iter().map(|wish| Wanted::of(wish, is_new(wish))).collect())
    }

    fn asked_for(&self, wishes: &[Wish]) {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        for Wish { listen, .. } in wishes {
            if let Some(subscription) = subscriptions.pages.get_mut(listen) {
                subscription.is_new = false;
            }
        }
    }

    /// Asks its owner for what is wanted.
    async fn want(&self, wishes: &[Wish]) -> Result<Result<Reply, ClusterError>, Lost> {
        self.follow_owner();
        let is_heard = wishes.iter().any(|wish| wish.reached.is_some());
        let wishes = self.listen(wishes).await.map_err(|_| Lost::Silent(AWAY))?;
        let doublings = self.silences.load(Ordering::Relaxed).min(8);
        let patience = if is_heard { PATIENCE.min(SOON * 2u32.pow(doublings)) } else { PATIENCE };
        let ask = Ask::new(&self.id, What::Want { node: self.node.clone(), wishes });
        let answer = ask_within(patience, &self.link, &self.owner(), &self.subjects, ask).await;
        match answer {
            Err(ClusterError::Silent(_)) => drop(self.silences.fetch_add(1, Ordering::Relaxed)),
            _ => self.silences.store(0, Ordering::Relaxed),
        }
        Ok(answer)
    }

    /// Whether the node that was just asked is not the one that makes it, or makes it soon. What is
    /// known here may be older than its answer: it counts what is written.
    async fn is_moving(&self) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.directory.written(&self.id).await {
            Ok(written) => written.is_some_and(|(entry, _)| {
                let generation = entry.generation;
                generation > 1 || Some((entry.node, generation)) != asked
            }),
            // It cannot be known now.
            Err(_) => true,
        }
    }

    async fn ack(&self, what: What) -> Result<Ack, EngineError> {
        match self.done(what).await? {
            Done::Ack(ack) => Ok(ack),
            _ => Err(EngineError::Failed("The nodes of the cluster do not understand each other".into())),
        }
    }

    async fn done(&self, what: What) -> Result<Done, EngineError> {
        let failed = |error: ClusterError| EngineError::Failed(error.to_string().trim_end_matches('.').into());
        let answer = self.nodes.unless_gone(&self.owner(), || self.ask(what.clone())).await;
        answer.map_err(failed)?.map_err(Refusal::of_engine)
    }
}

/// Hands over what comes, as long as it is taken.
async fn pass_on(own: Subscriber, all: Subscriber, listen: Listen, heard: mpsc::Sender<Heard>) {
    let mut pages = stream::select(own, all);
    while let Some(message) = pages.next().await {
        let mut bytes = message.payload;
        let Ok(generation) = bytes.try_get_u64() else { continue };
        if heard.send(Heard::Page(listen, generation, bytes)).await.is_err() {
            return;
        }
    }
}

/// An owner as the station knows it.
pub(super) struct Away(pub(super) Arc<Distant>);

impl Owner for Away {
    fn want(&self, wishes: Vec<Wish>) -> BoxFuture<'static, Result<u64, Lost>> {
        let distant = Arc::clone(&self.0);
        let plays = wishes.iter().filter_map(|wish| wish.reached).map(|reached| reached.plays).max().map(Plays::now);
        async move {
            let mut answer = distant.want(&wishes).await?;
            let is_gone = match &answer {
                Err(ClusterError::Gone(_)) => true,
                // It may be cut off without anybody's having noticed.
                Err(ClusterError::Silent(node)) => distant.directory.is_gone(node),
                _ => false,
            };
            if is_gone && distant.replace(plays).await {
                answer = distant.want(&wishes).await?;
            }
            let answer = match answer {
                Ok(answer) => answer,
                Err(ClusterError::Silent(_) | ClusterError::Gone(_)) => return Err(Lost::Silent(DEAD)),
                Err(_) => return Err(Lost::Silent(AWAY)),
            };
            match answer {
                Ok(Done::Facts { generation, .. }) => {
                    distant.asked_for(&wishes);
                    Ok(generation)
                }
                Err(Refusal::Ended(reason)) => Err(Lost::Over(reason)),
                Err(Refusal::NotFound) if distant.is_moving().await => Err(Lost::Silent(DEAD)),
                Err(Refusal::NotFound) => Err(Lost::Over("it was deleted".into())),
                _ => Ok(0),
            }
        }
        .boxed()
    }

    fn wake(&self) -> BoxFuture<'static, Result<(), StationError>> {
        let distant = Arc::clone(&self.0);
        async move {
            let failed = |error: ClusterError| EngineError::Failed(error.to_string().trim_end_matches('.').into());
            let answer = distant.ask(What::Wake).await.map_err(failed)?;
            answer.map(drop).map_err(|refusal| refusal.of_station(&distant.id))
        }
        .boxed()
    }

    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.0.ack(What::Steer(steer)).boxed()
    }

    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.0.ack(What::Reset).boxed()
    }

    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>> {
        self.0.ack(What::Model(model.clone())).boxed()
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.done(What::Pause).map(|done| done.map(drop)).boxed()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.done(What::Resume).map(|done| done.map(drop)).boxed()
    }
}
