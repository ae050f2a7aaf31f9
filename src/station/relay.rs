//! A stream that another node makes, for listeners of this one: its pages come once and go to all
//! of them.
//!
//! To listeners it is a stream as any other. It asks for what somebody here wants to hear, and ends
//! when nobody has listened for a while; the stream itself goes on.

mod owner;
mod pages;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures_util::future::BoxFuture;
use owner::Distant;
pub use owner::{Heard, Lost, Owner, Reached, Wish};
use pages::{Ahead, Progress};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::abroad::Facts;
use super::journal::Origin;
use super::stream::{Begin, Command, Stream};
use super::{Event, Journals, Listen, Station, StreamInfo, StreamState};

/// What is wanted is said again so often.
const RENEW: Duration = Duration::from_secs(1);
/// Without listeners it stays so long, for whoever comes next.
const LINGER: Duration = Duration::from_secs(10);
/// A listener that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing comes for so long: whoever makes it is asked whether it is there. Pages are sent three
/// at a time, of 0.2 s.
const LATE: Duration = Duration::from_millis(750);
/// The same where pages come one by one.
const LATE_SOON: Duration = Duration::from_millis(250);
/// And again after so long.
const AGAIN: Duration = Duration::from_millis(300);

struct Relay {
    stream: Arc<Stream>,
    owner: Arc<dyn Owner>,
    commands: mpsc::UnboundedReceiver<Command>,
    inbox: mpsc::Receiver<Heard>,
    generation: u64,
    /// How far each way to listen is.
    progress: HashMap<Listen, Progress>,
    /// What came behind pages that are missing.
    ahead: HashMap<Listen, Ahead>,
    /// Missing pages have not been asked for yet.
    misses: bool,
    /// What was asked for last.
    wanted: Vec<Wish>,
    wanted_at: Instant,
    asked_at: Instant,
    /// When the last page came.
    paged_at: Instant,
    silent_since: Option<Instant>,
    scratch: Vec<Waker>,
}

impl Station {
    /// The stream of this id that another node makes, if somebody here has heard it lately.
    pub fn relayed(&self, id: &str) -> Option<Arc<Stream>> {
        let found = self.relays().iter().find(|stream| stream.id() == id).cloned();
        // Who asks is about to listen.
        found.inspect(|stream| stream.nudge())
    }

    /// Plays a stream that another node makes. Must be called within a tokio runtime.
    pub fn relay(
        &self,
        (facts, generation): (Facts, u64),
        owner: Arc<dyn Owner>,
        inbox: mpsc::Receiver<Heard>,
    ) -> Arc<Stream> {
        let Facts { info, title, channels, rate, length } = facts;
        let (stream, commands) = Stream::new(Begin {
            id: info.id.clone(),
            name: info.name.clone(),
            model: info.model.clone(),
            channels,
            rate,
            prompts: info.prompts.clone(),
            sampling: info.sampling,
            burst: self.burst(),
            length,
            remote: Arc::new(Distant(Arc::clone(&owner))),
            engine: self.engine().clone(),
            journal: Journals::in_memory(0.0).begin(&info.id, nothing_of(&info), channels),
            joins: None,
            places: self.places(),
            kept: true,
            asked: Instant::now(),
            shared: false,
            relayed: true,
        });
        stream.mirror(info, title);
        let relay = Relay {
            stream: Arc::clone(&stream),
            owner,
            commands,
            inbox,
            generation,
            progress: HashMap::new(),
            ahead: HashMap::new(),
            misses: false,
            wanted: Vec::new(),
            wanted_at: Instant::now(),
            asked_at: Instant::now(),
            paged_at: Instant::now(),
            silent_since: None,
            scratch: Vec::new(),
        };
        self.relays().push(Arc::clone(&stream));
        tokio::spawn(relay.run());
        stream
    }
}

/// What is heard here is written down where it is made.
fn nothing_of(info: &StreamInfo) -> Origin {
    Origin { name: info.name.clone(), ..Origin::default() }
}

impl Relay {
    async fn run(mut self) {
        let reason = self.play().await;
        self.stream.variants().close();
        self.stream.set_ended(Some(reason));
    }

    /// Plays until there is a reason to end.
    async fn play(&mut self) -> String {
        let mut tick = interval(RENEW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asking: Option<BoxFuture<'static, Result<u64, Lost>>> = None;
        loop {
            if self.misses && asking.is_none() {
                asking = Some(self.ask());
            }
            let overdue = self.overdue().filter(|_| asking.is_none());
            let given_up = self.ahead.iter().map(|(listen, ahead)| ahead.until(*listen)).min();
            let answered = async {
                match &mut asking {
                    Some(asking) => asking.await,
                    None => std::future::pending().await,
                }
            };
            let late = at(overdue);
            let unfilled = at(given_up);
            tokio::select! {
                heard = self.inbox.recv() => match heard {
                    Some(Heard::Page(listen, generation, bytes)) => self.page(listen, generation, bytes),
                    Some(Heard::Event(generation, _)) if generation < self.generation => {}
                    Some(Heard::Event(_, event)) => if let Some(reason) = self.event(*event) {
                        self.last_pages().await;
                        return reason;
                    },
                    None => return "this node leaves its cluster".into(),
                },
                answer = answered => {
                    asking = None;
                    match answer {
                        Ok(generation) => {
                            self.silent_since = None;
                            self.follow(generation);
                        }
                        Err(Lost::Over(reason)) => {
                            self.last_pages().await;
                            return reason;
                        }
                        Err(Lost::Silent(patience)) => {
                            let since = *self.silent_since.get_or_insert_with(Instant::now);
                            if since.elapsed() > patience {
                                return "the node that made it does not answer".into();
                            }
                        }
                    }
                    if self.wishes() != self.wanted && self.silent_since.is_none() {
                        asking = Some(self.ask());
                    }
                },
                Some(command) = self.commands.recv() => match command {
                    Command::End(reason) => return reason,
                    command => self.obey(command),
                },
                () = self.stream.nudged() => {
                    self.wanted_at = Instant::now();
                    if asking.is_none() && self.wishes() != self.wanted {
                        asking = Some(self.ask());
                    }
                }
                () = late => asking = Some(self.ask()),
                () = unfilled => self.give_up_missing(),
                _ = tick.tick() => {
                    self.stream.variants().give_up_stuck(PATIENCE);
                    if self.stream.is_attended() {
                        self.wanted_at = Instant::now();
                    } else if self.wanted_at.elapsed() > LINGER {
                        return "nobody listens here any more".into();
                    }
                    if asking.is_none() {
                        asking = Some(self.ask());
                    }
                }
            }
        }
    }

    fn wishes(&self) -> Vec<Wish> {
        let heard = self.stream.variants().heard();
        heard
            .iter()
            .map(|variant| {
                let (listen, listeners) = (variant.listen, variant.ring.listening());
                Wish { listen, listeners, reached: None, misses: false }
            })
            .collect()
    }

    /// When it is asked again because nothing comes: an owner that has died is replaced before
    /// anybody hears it.
    fn overdue(&self) -> Option<Instant> {
        let again = self.asked_at + AGAIN;
        if self.silent_since.is_some() || !self.ahead.is_empty() {
            return Some(again);
        }
        let comes = matches!(self.stream.info().state, StreamState::Playing | StreamState::Paused);
        let late = if self.progress.keys().any(|listen| listen.low_latency) { LATE_SOON } else { LATE };
        (comes && !self.progress.is_empty()).then(|| again.max(self.paged_at + late))
    }

    fn ask(&mut self) -> BoxFuture<'static, Result<u64, Lost>> {
        self.asked_at = Instant::now();
        self.wanted = self.wishes();
        let wanted = &self.wanted;
        // Who comes back begins with what is played then.
        self.progress.retain(|listen, _| wanted.iter().any(|wish| wish.listen == *listen));
        self.ahead.retain(|listen, _| wanted.iter().any(|wish| wish.listen == *listen));
        self.misses = false;
        let now = Instant::now();
        let reached = |wish: &Wish| {
            let Progress { end, clock } = self.progress.get(&wish.listen)?;
            Some(Reached { end: *end, plays: clock.heard(now) })
        };
        let misses = |wish: &Wish| self.ahead.contains_key(&wish.listen);
        let wishes = self.wanted.iter().map(|wish| Wish { reached: reached(wish), misses: misses(wish), ..*wish });
        self.owner.want(wishes.collect())
    }

    /// Tells listeners; gives the reason of an end.
    fn event(&mut self, event: Event) -> Option<String> {
        match event {
            Event::End { reason } => Some(reason),
            Event::Status(info) => {
                self.stream.mirror(*info, self.stream.title());
                self.stream.send_status();
                None
            }
            Event::Title { title, at } => {
                self.stream.mirror(self.stream.info(), title.clone());
                self.stream.send(Event::Title { title, at });
                None
            }
            Event::Steer { at, epoch, prompts } => {
                let info = StreamInfo { prompts: prompts.clone(), ..self.stream.info() };
                self.stream.mirror(info, self.stream.title());
                self.stream.send(Event::Steer { at, epoch, prompts });
                None
            }
            event @ Event::Freeze { .. } => {
                self.stream.send(event);
                None
            }
        }
    }

    fn obey(&self, command: Command) {
        let owner = Arc::clone(&self.owner);
        // Sound goes on meanwhile. Who asked may have gone.
        match command {
            Command::Pause(reply) => drop(tokio::spawn(async move { tell(reply, owner.pause().await) })),
            Command::Resume(reply) => drop(tokio::spawn(async move { tell(reply, owner.resume().await) })),
            Command::Wake(reply) => drop(tokio::spawn(async move { tell(reply, owner.wake().await) })),
            Command::End(_) | Command::Stop(_) => {}
        }
    }
}

/// Waits for a time, or for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}
