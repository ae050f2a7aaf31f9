//! What this node hears of the streams of others: one subscription per stream and way to listen, whoever listens here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Request, Subscriber};
use bytes::Buf;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::ClusterError;
use super::directory::{Directory, Entry};
use super::link::{Link, PATIENCE, Trouble};
use super::sending::Subjects;
use super::verbs::{Ask, Done, Refusal, Reply, Wanted, What};
use crate::engine::{Ack, EngineError, Steer};
use crate::station::{Heard, Listen, Lost, Owner, Station, StationError, Stream, StreamSpec, Wish};
use crate::units::ModelId;

/// Pages and events that wait to be taken.
const WAITING: usize = 256;
/// How long an owner may be silent that is dead for all that NATS knows, and how long NATS may be away.
const DEAD: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(60);

/// The streams of others that are heard here.
pub(super) struct Hearing {
    subjects: Subjects,
    node: String,
    link: Arc<Link>,
    directory: Arc<Directory>,
    station: Arc<Station>,
    /// Held while one is begun.
    beginning: tokio::sync::Mutex<()>,
}

impl Hearing {
    pub(super) fn new(
        (subjects, node): (Subjects, &str),
        link: Arc<Link>,
        directory: Arc<Directory>,
        station: &Arc<Station>,
    ) -> Self {
        let beginning = tokio::sync::Mutex::default();
        Self { subjects, node: node.to_owned(), link, directory, station: Arc::clone(station), beginning }
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
            directory: Arc::clone(&self.directory),
            entry: entry.clone(),
            heard,
            subscriptions: Mutex::default(),
        };
        let distant = Arc::new(distant);
        // Nothing is missed of what happens behind the facts.
        distant.follow_events().await.map_err(|_| ClusterError::Away)?;
        let want = What::Want { node: self.node.clone(), wishes: Vec::new() };
        let facts = match distant.ask(want).await? {
            Ok(Done::Facts { facts, .. }) => facts,
            Ok(_) => return Err(ClusterError::Silent(entry.node)),
            Err(refusal) => return Err(refusal.of_station(id).into()),
        };
        Ok(self.station.relay(*facts, Arc::new(Away(distant)), inbox))
    }
}

impl Hearing {
    /// A new stream of another node, to be heard here.
    pub(super) async fn begin(&self, node: &str, spec: &StreamSpec) -> Result<Arc<Stream>, ClusterError> {
        let what = What::Begin(Box::new(spec.clone()));
        match ask(&self.link, node, &self.subjects, Ask { id: String::new(), what }).await? {
            Ok(Done::Begun { id }) => self.hear(&id).await,
            Ok(_) => Err(ClusterError::Silent(node.to_owned())),
            Err(refusal) => Err(refusal.of_station("").into()),
        }
    }
}

/// Asks a node about its streams.
async fn ask(link: &Link, node: &str, subjects: &Subjects, ask: Ask) -> Result<Reply, ClusterError> {
    let client = link.client_soon().await?;
    let silent = || ClusterError::Silent(node.to_owned());
    let ask = serde_json::to_vec(&ask).map_err(|_| silent())?;
    let request = Request::new().payload(ask.into()).timeout(Some(PATIENCE));
    match client.send_request(subjects.node(node), request).await {
        Ok(message) => serde_json::from_slice(&message.payload).map_err(|_| silent()),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(silent()),
        Err(_) if link.is_up() => Err(silent()),
        Err(_) => Err(ClusterError::Away),
    }
}

/// The node that makes a stream, seen from here.
struct Distant {
    subjects: Subjects,
    node: String,
    id: String,
    link: Arc<Link>,
    directory: Arc<Directory>,
    /// As it was first known.
    entry: Entry,
    heard: mpsc::Sender<Heard>,
    subscriptions: Mutex<Subscriptions>,
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
        ask(&self.link, &self.owner(), &self.subjects, Ask { id: self.id.clone(), what }).await
    }

    async fn follow_events(&self) -> Result<(), Trouble> {
        let client = self.link.client_soon().await.map_err(|error| Trouble(error.to_string()))?;
        let mut events = client.subscribe(self.subjects.events(&self.id)).await?;
        let heard = self.heard.clone();
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).tasks.spawn(async move {
            while let Some(message) = events.next().await {
                // What a newer version tells is passed over.
                let Ok(event) = serde_json::from_slice(&message.payload) else { continue };
                if heard.send(Heard::Event(Box::new(event))).await.is_err() {
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

    async fn ack(&self, what: What) -> Result<Ack, EngineError> {
        match self.done(what).await? {
            Done::Ack(ack) => Ok(ack),
            _ => Err(EngineError::Failed("The nodes of the cluster do not understand each other".into())),
        }
    }

    async fn done(&self, what: What) -> Result<Done, EngineError> {
        let failed = |error: ClusterError| EngineError::Failed(error.to_string().trim_end_matches('.').into());
        self.ask(what).await.map_err(failed)?.map_err(Refusal::of_engine)
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
    fn want(&self, wishes: Vec<Wish>) -> BoxFuture<'static, Result<(), Lost>> {
        let distant = Arc::clone(&self.0);
        async move {
            let wanted = distant.listen(&wishes).await.map_err(|_| Lost::Silent(AWAY))?;
            let want = What::Want { node: distant.node.clone(), wishes: wanted };
            match distant.ask(want).await {
                Ok(Ok(_)) => {
                    distant.asked_for(&wishes);
                    Ok(())
                }
                Ok(Err(Refusal::Ended(reason))) => Err(Lost::Over(reason)),
                Ok(Err(Refusal::NotFound)) => Err(Lost::Over("it was deleted".into())),
                Ok(Err(_)) => Ok(()),
                Err(ClusterError::Silent(_)) => Err(Lost::Silent(DEAD)),
                Err(_) => Err(Lost::Silent(AWAY)),
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
