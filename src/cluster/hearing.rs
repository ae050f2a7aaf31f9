//! What this node hears of the streams of others: one subscription per stream and way to listen,
//! whoever listens here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Request, Subscriber};
use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::ClusterError;
use super::directory::{Directory, Entry};
use super::link::{Link, PATIENCE, Trouble, UNHEARD};
use super::nodes::Nodes;
use super::sending::Subjects;
use super::succession::{Plays, Succession};
use super::verbs::{Ask, Done, Refusal, Reply, Wanted, What};
use crate::engine::{Ack, EngineError, Steer};
use crate::station::{Heard, Listen, Lost, Owner, Station, StationError, Stream, StreamSpec, Wish};
use crate::units::ModelId;

/// Pages and events that wait to be taken.
const WAITING: usize = 256;
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

/// The streams of others that are heard here.
pub(super) struct Hearing {
    subjects: Subjects,
    node: String,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    directory: Arc<Directory>,
    succession: Arc<Succession>,
    station: Arc<Station>,
    /// Held while one is begun.
    beginning: tokio::sync::Mutex<()>,
}

impl Hearing {
    pub(super) fn new(
        (subjects, node): (Subjects, &str),
        (link, nodes): (Arc<Link>, Arc<Nodes>),
        directory: Arc<Directory>,
        succession: Arc<Succession>,
        station: &Arc<Station>,
    ) -> Self {
        let beginning = tokio::sync::Mutex::default();
        let station = Arc::clone(station);
        Self { subjects, node: node.to_owned(), link, nodes, directory, succession, station, beginning }
    }

    /// A stream of another node, to be heard here.
    pub(super) async fn hear(&self, id: &str) -> Result<Arc<Stream>, ClusterError> {
        let _beginning = self.beginning.lock().await;
        if let Some(stream) = self.station.relayed(id) {
            return Ok(stream);
        }
        let Some(entry) = self.directory.find(id).await? else {
            return Err(StationError::NotFound(id.to_owned()).into());
        };
        let (heard, inbox) = mpsc::channel(WAITING);
        let distant = Distant {
            subjects: self.subjects.clone(),
            node: self.node.clone(),
            id: id.to_owned(),
            link: Arc::clone(&self.link),
            nodes: Arc::clone(&self.nodes),
            directory: Arc::clone(&self.directory),
            succession: Arc::clone(&self.succession),
            entry: entry.clone(),
            heard,
            subscriptions: Mutex::default(),
            asked: Mutex::default(),
            silences: AtomicU32::new(0),
        };
        let distant = Arc::new(distant);
        // Nothing is missed of what happens behind the facts.
        distant.follow_events().await.map_err(|_| ClusterError::Away)?;
        let want = || What::Want { node: self.node.clone(), wishes: Vec::new() };
        let mut answer = distant.ask(want()).await;
        if matches!(answer, Err(ClusterError::Gone(_))) && distant.replace(None).await {
            answer = distant.ask(want()).await;
        }
        let facts = match answer? {
            Ok(Done::Facts { facts, generation }) => (*facts, generation),
            Ok(_) => return Err(ClusterError::Silent(entry.node)),
            Err(refusal) => return Err(refusal.of_station(id).into()),
        };
        Ok(self.station.relay(facts, Arc::new(Away(distant)), inbox))
    }
}

impl Hearing {
    /// A new stream of another node, to be heard here.
    pub(super) async fn begin(&self, node: &str, spec: &StreamSpec) -> Result<Arc<Stream>, ClusterError> {
        let asked = || {
            let what = What::Begin(Box::new(spec.clone()));
            ask(&self.link, node, &self.subjects, Ask::new("", what))
        };
        match self.nodes.unless_gone(node, asked).await? {
            Ok(Done::Begun { id }) => self.hear(&id).await,
            Ok(_) => Err(ClusterError::Silent(node.to_owned())),
            Err(refusal) => Err(refusal.of_station("").into()),
        }
    }
}

/// Asks a node about its streams; once more when nothing is heard.
pub(super) async fn ask(link: &Link, node: &str, subjects: &Subjects, ask: Ask) -> Result<Reply, ClusterError> {
    ask_within(PATIENCE, link, node, subjects, ask).await
}

async fn ask_within(
    patience: Duration,
    link: &Link,
    node: &str,
    subjects: &Subjects,
    ask: Ask,
) -> Result<Reply, ClusterError> {
    let client = link.client_soon().await?;
    let silent = || ClusterError::Silent(node.to_owned());
    let ask = Bytes::from(serde_json::to_vec(&ask).map_err(|_| silent())?);
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let request = Request::new().payload(ask.clone()).timeout(Some(left.min(UNHEARD)));
        let answer = client.send_request(subjects.node(node), request).await;
        match answer.map_err(|error| error.kind()) {
            Ok(message) => return serde_json::from_slice(&message.payload).map_err(|_| silent()),
            Err(RequestErrorKind::NoResponders) => return Err(ClusterError::Gone(node.to_owned())),
            Err(RequestErrorKind::TimedOut) if left > UNHEARD => {}
            Err(_) if link.is_up() => return Err(silent()),
            Err(_) => return Err(ClusterError::Away),
        }
    }
}

/// The node that makes a stream, seen from here.
struct Distant {
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
    fn owner(&self) -> String {
        self.directory.known(&self.id).map_or_else(|| self.entry.node.clone(), |entry| entry.node)
    }

    async fn ask(&self, what: What) -> Result<Reply, ClusterError> {
        ask(&self.link, &self.owner(), &self.subjects, Ask::new(&self.id, what)).await
    }

    /// Has another node go on with it, if its own is certainly gone. Tells whether one does.
    async fn replace(&self, plays: Option<Plays>) -> bool {
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

    async fn follow_events(&self) -> Result<(), Trouble> {
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
struct Away(Arc<Distant>);

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
