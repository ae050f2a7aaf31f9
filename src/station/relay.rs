//! A stream that another node makes, for listeners of this one: its pages come once and go to all
//! of them.
//!
//! To listeners it is a stream as any other. It asks for what somebody here wants to hear, and ends
//! when nobody has listened for a while; the stream itself goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::abroad::{self, Facts};
use super::clock::Clock;
use super::journal::Origin;
use super::page_ring::Page;
use super::source::Remote;
use super::stream::{Begin, Command, Stream};
use super::{Event, Journals, Listen, Station, StationError, StreamInfo, StreamState};
use crate::audio::Span;
use crate::engine::{Ack, EngineError, InLine, Steer};
use crate::telemetry::CLUSTER_PAGES_MISSED;
use crate::units::ModelId;

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
/// Pages that are missing are waited for so long while listeners play what they have in store.
const FILLED: Duration = Duration::from_secs(1);
/// The same where they have less.
const FILLED_SOON: Duration = Duration::from_millis(150);
/// Pages that wait behind those that are missing.
const AHEAD: usize = 64;
/// The last pages may come behind the word that the stream is over.
const LAST_PAGES: Duration = Duration::from_secs(2);

/// How one listens here, and how many do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// How.
    pub listen: Listen,
    /// How many.
    pub listeners: usize,
    /// How far they are, if they have heard something.
    pub reached: Option<Reached>,
    /// Pages that were sent behind that have not come: a line was cut.
    pub misses: bool,
}

/// How far listeners are, in media time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Where what they were sent ends.
    pub end: u64,
    /// The frame that they play now.
    pub plays: u64,
}

/// What comes of a stream that another node makes.
#[derive(Debug)]
pub enum Heard {
    /// A page of one way to listen, under this generation of the stream's owners.
    Page(Listen, u64, Bytes),
    /// Something happened, under this generation.
    Event(u64, Box<Event>),
}

/// The node that makes a stream.
pub trait Owner: Send + Sync + 'static {
    /// Asks for what is to be heard here, from now on until it is asked for something else or not
    /// at all any more. Tells under which generation of owners it comes.
    ///
    /// # Errors
    /// [`Lost`].
    fn want(&self, wishes: Vec<Wish>) -> BoxFuture<'static, Result<u64, Lost>>;
    /// Somebody is about to listen, see [`Stream::join`].
    fn wake(&self) -> BoxFuture<'static, Result<(), StationError>>;
    /// See [`Stream::steer`].
    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>>;
    /// See [`Stream::reset`].
    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>>;
    /// See [`Stream::set_model`].
    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>>;
    /// See [`Stream::pause`].
    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>>;
    /// See [`Stream::resume`].
    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>>;
}

/// Why nothing more is to be heard of a stream.
#[derive(Debug, Clone)]
pub enum Lost {
    /// It is over, for this reason.
    Over(String),
    /// Its node does not answer: it may come back for so long.
    Silent(Duration),
}

/// An owner as a stream knows the source of its sound.
struct Distant(Arc<dyn Owner>);

impl Remote for Distant {
    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.0.steer(steer)
    }

    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.0.reset()
    }

    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>> {
        self.0.set_model(model)
    }

    fn resume_when_free(&self) -> Result<InLine, EngineError> {
        Err(EngineError::Gone("another node makes it".into()))
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.pause()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.resume()
    }

    fn realtime_factor(&self) -> f64 {
        0.0
    }
}

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

/// How far the listeners of one way to listen are.
#[derive(Debug)]
struct Progress {
    /// Where the last page ended.
    end: u64,
    /// What they play. Pages may come late and never come early, so the one that came soonest tells:
    /// by what the last one tells, listeners would lose of their store at every change of owners.
    clock: Clock,
}

impl Progress {
    fn begin(now: Instant, end: u64, ahead: u64) -> Self {
        // Players are kept so far behind what they are sent.
        Self { end, clock: Clock::start(now, end.saturating_sub(ahead), ahead) }
    }

    fn page(&mut self, now: Instant, page: &Span, ahead: u64) {
        if self.clock.due(now) < page.end {
            *self = Self::begin(now, page.end, ahead);
        } else if self.clock.heard(now) > self.end {
            // They had nothing left, and have waited for it.
            self.clock = Clock::start(now, page.start, ahead);
        }
        self.end = page.end;
    }
}

/// Pages that wait for those before them, by where they begin.
struct Ahead {
    since: Instant,
    pages: BTreeMap<u64, Bytes>,
}

impl Ahead {
    /// When they are heard in spite of what is missing.
    fn until(&self, listen: Listen) -> Instant {
        self.since + if listen.low_latency { FILLED_SOON } else { FILLED }
    }
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

    /// What owners have sent whom this one has followed does not count any more.
    fn follow(&mut self, generation: u64) {
        if generation > self.generation {
            self.generation = generation;
            self.ahead.clear();
        }
    }

    fn page(&mut self, listen: Listen, generation: u64, bytes: Bytes) {
        if generation < self.generation {
            return;
        }
        self.follow(generation);
        let end = self.progress.get(&listen).map(|progress| progress.end);
        // A newcomer is sent what others have already, and another owner begins before the place.
        let Some(page) = abroad::read(listen.format, bytes.clone(), end.unwrap_or(0)) else { return };
        // What is missing for longer than listeners have in store is silence that they have heard.
        let store = self.stream.variants().burst(listen.low_latency);
        if end.is_some_and(|end| page.at.start > end && page.at.start - end <= store) {
            let ahead = self.ahead.entry(listen).or_insert_with(|| {
                self.misses = true;
                Ahead { since: Instant::now(), pages: BTreeMap::new() }
            });
            ahead.pages.insert(page.at.start, bytes);
            if ahead.pages.len() > AHEAD {
                self.hear_ahead(listen, true);
            }
            return;
        }
        self.publish(listen, page);
        self.hear_ahead(listen, false);
    }

    /// Nothing is missing any more, or it is too late for what is.
    fn hear_ahead(&mut self, listen: Listen, mut in_spite: bool) {
        let Some(mut ahead) = self.ahead.remove(&listen) else { return };
        while let Some(first) = ahead.pages.first_entry() {
            let end = self.progress.get(&listen).map_or(0, |progress| progress.end);
            if *first.key() > end && !std::mem::take(&mut in_spite) {
                // Somewhere else something is missing too.
                self.misses = true;
                ahead.since = Instant::now();
                self.ahead.insert(listen, ahead);
                return;
            }
            if let Some(page) = abroad::read(listen.format, first.remove(), end) {
                self.publish(listen, page);
            }
        }
    }

    /// Listeners do not wait any longer for what has not come.
    fn give_up_missing(&mut self) {
        let now = Instant::now();
        let late = self.ahead.iter().filter(|(listen, ahead)| ahead.until(**listen) <= now).map(|(listen, _)| *listen);
        for listen in late.collect::<Vec<_>>() {
            self.hear_ahead(listen, true);
        }
    }

    fn publish(&mut self, listen: Listen, page: Page) {
        let variants = self.stream.variants().heard();
        let Some(variant) = variants.iter().find(|variant| variant.listen == listen) else { return };
        let now = Instant::now();
        self.paged_at = now;
        let ahead = self.stream.variants().burst(listen.low_latency);
        let progress = self.progress.entry(listen).or_insert_with(|| Progress::begin(now, page.at.end, ahead));
        if page.at.start > progress.end {
            counter!(CLUSTER_PAGES_MISSED).increment(1);
        }
        progress.page(now, &page.at, ahead);
        variant.ring.publish(page, &mut self.scratch);
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

    /// Takes the pages that are under way.
    async fn last_pages(&mut self) {
        let rest = async {
            while !self.stream.variants().is_over()
                && let Some(heard) = self.inbox.recv().await
            {
                if let Heard::Page(listen, generation, bytes) = heard {
                    self.page(listen, generation, bytes);
                }
            }
        };
        let _ = timeout(LAST_PAGES, rest).await;
        while let Some(listen) = self.ahead.keys().next().copied() {
            self.hear_ahead(listen, true);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_listeners_play_is_told_by_the_page_that_came_soonest() {
        const SECOND: u64 = crate::audio::OPUS_RATE as u64;
        let page = |n: u64| Span { start: (n - 1) * SECOND, end: n * SECOND, last: false };
        let (begin, ahead) = (Instant::now(), 2 * SECOND);
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut progress = Progress::begin(at(0), 2 * SECOND, ahead);
        // Late by 100, 20 and 60 ms.
        for (n, millis) in [(3, 1100), (4, 2020), (5, 3060)] {
            progress.page(at(millis), &page(n), ahead);
            assert_eq!((progress.end, progress.clock.heard(at(4000))), (n * SECOND, 4 * SECOND));
        }
        // The first one was late itself.
        progress.page(at(3950), &page(6), ahead);
        assert_eq!(progress.clock.heard(at(3950)), 4 * SECOND);
        // Nothing came until they had to wait, for a moment and for longer.
        for (n, millis) in [(7, 6000), (8, 9000)] {
            progress.page(at(millis), &page(n), ahead);
            assert_eq!((progress.end, progress.clock.heard(at(millis))), (n * SECOND, (n - 1) * SECOND));
        }
    }
}
