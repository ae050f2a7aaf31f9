//! What this node sends of its streams to others: pages and events, each once, while somebody asks
//! for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::Message;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval};

use super::directory::Directory;
use super::link::Link;
use super::once::Once;
use super::succession::{Plays, Succession};
use super::verbs::{Ask, Done, Refusal, Reply, Wanted, What, variant};
use crate::station::{Directory as _, Listen, Station, Stream};

/// A node that said nothing for so long wants nothing any more.
const FORGOTTEN: Duration = Duration::from_secs(6);
const ROUND: Duration = Duration::from_secs(1);
/// Whoever has asked gives up sooner.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Another node goes on with it: who asks is to ask again.
const MOVED: Refusal = Refusal::Waiting { retry_after: 1 };

/// Subjects of a cluster.
#[derive(Clone)]
pub(super) struct Subjects(pub(super) String);

impl Subjects {
    /// Where a node is asked about its streams.
    pub(super) fn node(&self, node: &str) -> String {
        format!("continuo.{}.node.{node}.stream", self.0)
    }

    /// Where a stream's pages are sent.
    pub(super) fn pages(&self, id: &str, listen: Listen) -> String {
        format!("continuo.{}.page.{id}.{}", self.0, variant(listen))
    }

    /// Where journals are copied to.
    pub(super) fn journal(&self) -> String {
        format!("continuo.{}.journal", self.0)
    }

    /// What keeps them.
    pub(super) fn journals(&self) -> String {
        format!("continuo-{}-journal", self.0)
    }

    /// Where it is told what happens to a stream.
    pub(super) fn events(&self, id: &str) -> String {
        format!("continuo.{}.event.{id}", self.0)
    }
}

/// A page, or something that happened, and under which generation it was made.
pub(super) fn page(generation: u64, page: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + page.len());
    bytes.put_u64(generation);
    bytes.extend_from_slice(page);
    bytes.freeze()
}

/// All that is sent.
pub(super) struct Sending {
    subjects: Subjects,
    node: String,
    link: Arc<Link>,
    directory: Arc<Directory>,
    succession: Arc<Succession>,
    station: Weak<Station>,
    streams: Mutex<HashMap<String, Sent>>,
    done: Once<Bytes>,
}

/// Of one stream.
struct Sent {
    stream: Arc<Stream>,
    /// What each node wants, and since when it said nothing.
    wishes: HashMap<String, (Instant, Vec<(Listen, usize)>)>,
    /// They end with this.
    tasks: JoinSet<()>,
    pages: HashMap<Listen, AbortHandle>,
}

impl Sending {
    pub(super) fn new(
        (subjects, node): (Subjects, &str),
        link: Arc<Link>,
        directory: Arc<Directory>,
        succession: Arc<Succession>,
        station: &Arc<Station>,
    ) -> Self {
        let station = Arc::downgrade(station);
        let (node, streams, done) = (node.to_owned(), Mutex::default(), Once::default());
        Self { subjects, node, link, directory, succession, station, streams, done }
    }

    /// Sends nothing more of a stream.
    pub(super) fn drop_stream(&self, id: &str) {
        self.streams().remove(id);
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, Sent>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers other nodes for as long as the process lives.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut tick = interval(ROUND);
        loop {
            self.link.connected().await;
            let Ok(client) = self.link.client() else { continue };
            let Ok(mut asked) = client.subscribe(self.subjects.node(&self.node)).await else { continue };
            loop {
                tokio::select! {
                    message = asked.next() => match message {
                        Some(message) => drop(tokio::spawn(Arc::clone(&self).answer(message))),
                        None => break,
                    },
                    _ = tick.tick() => self.tidy(),
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, message: Message) {
        let Some(reply) = message.reply else { return };
        let Ok(Ask { id, what, call }) = serde_json::from_slice(&message.payload) else { return };
        let this = Arc::clone(&self);
        let carry_out = || async move {
            let answer: Reply = this.carry_out(&id, what).await;
            serde_json::to_vec(&answer).map(Bytes::from).unwrap_or_default()
        };
        let answer = match call {
            Some(call) => self.done.answer(call, REMEMBERED, carry_out).await,
            None => carry_out().await,
        };
        if let Ok(client) = self.link.client() {
            // Who asked will ask again.
            let _ = client.publish(reply, answer).await;
        }
    }

    async fn carry_out(&self, id: &str, what: What) -> Reply {
        let station = self.station.upgrade().ok_or(Refusal::NotFound)?;
        if let What::Begin(spec) = what {
            return Ok(Done::Begun { id: station.create(*spec).await?.id().to_owned() });
        }
        if let What::TakeOver { generation, plays, hands_over } = what {
            self.succession.take_over(id, generation, plays.map(Plays::now), hands_over).await?;
            return Ok(Done::Nothing);
        }
        let stream = match station.get(id) {
            // Who listens may not know yet that another node goes on with it.
            Err(_) if matches!(what, What::Want { .. }) && self.directory.is_elsewhere(id) => return Err(MOVED),
            stream => stream?,
        };
        let engine = |error| Refusal::Engine(error);
        Ok(match what {
            What::Want { node, wishes } => self.want(&stream, node, wishes).await?,
            What::Wake => {
                stream.wake().await?;
                Done::Nothing
            }
            What::Steer(steer) => {
                steer.validate().map_err(engine)?;
                Done::Ack(stream.steer(steer).await?)
            }
            What::Reset => Done::Ack(stream.reset().await?),
            What::Model(model) => Done::Ack(stream.set_model(&model).await?),
            What::Pause => {
                stream.pause().await?;
                Done::Nothing
            }
            What::Resume => {
                stream.resume().await?;
                Done::Nothing
            }
            What::Begin(_) | What::Hello | What::TakeOver { .. } => Done::Nothing,
        })
    }

    async fn want(&self, stream: &Arc<Stream>, node: String, wishes: Vec<Wanted>) -> Result<Done, Refusal> {
        let generation = self.directory.generation(stream.id());
        let facts = Box::new(stream.facts());
        if stream.is_handed_over() {
            return Err(MOVED);
        }
        if stream.has_ended() {
            return Err(Refusal::Ended(facts.info.reason.unwrap_or_else(|| "finished".into())));
        }
        let mut recent = Vec::new();
        {
            let mut streams = self.streams();
            // It was made here before, was elsewhere, and has come back.
            if streams.get(stream.id()).is_some_and(|sent| !Arc::ptr_eq(&sent.stream, stream)) {
                streams.remove(stream.id());
            }
            let sent = streams.entry(stream.id().to_owned()).or_insert_with(|| self.begin(stream, generation));
            let known = wishes.iter().filter_map(|wish| Some((wish.listen()?, wish)));
            for (listen, wish) in known.clone() {
                let is_sent = sent.pages.get(&listen).is_some_and(|task| !task.is_finished());
                if !is_sent && let Some(task) = self.send(sent, (listen, wish.from), generation) {
                    sent.pages.insert(listen, task);
                }
                if wish.is_new {
                    recent.push((listen, wish.from));
                }
            }
            let wanted = known.map(|(listen, wish)| (listen, wish.listeners)).collect();
            sent.wishes.insert(node.clone(), (Instant::now(), wanted));
            sent.follow();
        }
        for (listen, from) in recent {
            let to = format!("{}.{node}", self.subjects.pages(stream.id(), listen));
            for bytes in stream.recent(listen, from) {
                self.publish(&to, page(generation, &bytes)).await;
            }
        }
        Ok(Done::Facts { facts, generation })
    }

    fn begin(&self, stream: &Arc<Stream>, generation: u64) -> Sent {
        let mut tasks = JoinSet::new();
        let (mut events, link, subject) = (stream.events(), Arc::clone(&self.link), self.subjects.events(stream.id()));
        let made = Arc::clone(stream);
        tasks.spawn(async move {
            while let Some(event) = made.next_event_abroad(&mut events).await {
                if let (Ok(client), Ok(event)) = (link.client(), serde_json::to_vec(&event)) {
                    let _ = client.publish(subject.clone(), page(generation, &event)).await;
                }
            }
        });
        Sent { stream: Arc::clone(stream), wishes: HashMap::new(), tasks, pages: HashMap::new() }
    }

    fn send(&self, sent: &mut Sent, (listen, from): (Listen, Option<u64>), generation: u64) -> Option<AbortHandle> {
        let mut pages = sent.stream.send_abroad(listen, from)?;
        let (link, subject) = (Arc::clone(&self.link), self.subjects.pages(sent.stream.id(), listen));
        Some(sent.tasks.spawn(async move {
            while let Some(bytes) = pages.next().await {
                // What nobody can be sent now is too late afterwards.
                if let Ok(client) = link.client() {
                    let _ = client.publish(subject.clone(), page(generation, &bytes)).await;
                }
            }
        }))
    }

    async fn publish(&self, to: &str, bytes: Bytes) {
        if let Ok(client) = self.link.client() {
            let _ = client.publish(to.to_owned(), bytes).await;
        }
    }

    /// Forgets nodes that want nothing any more, and what nobody wants.
    fn tidy(&self) {
        self.streams().retain(|_, sent| {
            sent.wishes.retain(|_, (at, _)| at.elapsed() < FORGOTTEN);
            sent.follow();
            !sent.wishes.is_empty()
        });
    }
}

impl Sent {
    /// Ends what nobody wants, and counts those who listen elsewhere.
    fn follow(&mut self) {
        let wishes = || self.wishes.values().flat_map(|(_, wishes)| wishes);
        let is_wanted = |listen: &Listen| wishes().any(|(wanted, _)| wanted == listen);
        let unwanted: Vec<Listen> = self.pages.keys().filter(|listen| !is_wanted(listen)).copied().collect();
        let listeners = wishes().map(|(_, listeners)| listeners).sum();
        for listen in unwanted {
            if let Some(task) = self.pages.remove(&listen) {
                task.abort();
            }
        }
        self.stream.set_listeners_abroad(listeners);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.stream.set_listeners_abroad(0);
    }
}
