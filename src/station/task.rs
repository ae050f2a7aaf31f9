//! The task of one stream: reads its voice at the pace of real time, hands finished sound to the
//! encoders, and pauses or ends the stream when nobody hears it.

mod pump;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::pump::Pumped;
use self::queue::{Moved, Queue};
use super::clock::Clock;
use super::fanout::Fanout;
use super::feed::{BLOCK, Feed, Over};
use super::journal::{Scribe, Seam};
use super::overload::{Place, Report};
use super::packetizer::PAGE;
use super::source::Source;
use super::store::Store;
use super::stream::{Command, Stream};
use super::upkeep::Upkeep;
use super::variants::Audience;
use super::{Idle, StationError, StreamState};
use crate::audio::{AudioError, OPUS_RATE};
use crate::engine::EngineError;
use crate::telemetry::{BUFFERED_SECONDS, LISTENERS_GIVEN_UP, STREAMS};

/// A stream of its own request ends so soon after its last listener left: long enough for a page
/// reload, if short.
const LEFT: Duration = Duration::from_millis(500);
/// And so long after it was made if nobody came.
const NEVER_CAME: Duration = Duration::from_secs(5);
/// A stream without a name that nobody heard for so long ends: whoever made it has forgotten it.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// A listener that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Status events, and the search for stuck listeners.
const ROUND: Duration = Duration::from_secs(1);
/// A look at a store that fills.
const FILLING: Duration = Duration::from_millis(40);
/// Share of the lead with which a stream is well off.
const WHOLE: f64 = 0.9;
/// Pause before a voice is asked again that said it was ready and was not.
const BREATH: Duration = Duration::from_millis(5);

/// How a stream behaves.
pub(super) struct Plan {
    pub(super) idle: Idle,
    /// Nothing is generated before the first listener.
    pub(super) asleep: bool,
    /// It does not end because nobody listens.
    pub(super) keep: bool,
    pub(super) grace: Duration,
    /// Length in frames of voice time.
    pub(super) length: Option<u64>,
    /// Frames that players are kept ahead of real time.
    pub(super) burst: u64,
    /// Seconds that the voice makes ahead when all is well.
    pub(super) lead: f64,
    pub(super) place: Place,
    /// How long it may wait for room before it is heard.
    pub(super) patience: Option<Duration>,
    pub(super) upkeep: Arc<Upkeep>,
    /// Where the voice goes on from another node's.
    pub(super) joins: Option<Joins>,
}

/// A voice that goes on from another node's, for those who heard that one.
pub(super) struct Joins {
    pub(super) seam: Seam,
    /// The clock by which they play, if that is known.
    pub(super) clock: Option<Clock>,
}

pub(super) struct Task<S> {
    stream: Arc<Stream>,
    commands: mpsc::UnboundedReceiver<Command>,
    plan: Plan,
    feed: Feed<S>,
    fanout: Fanout,
    /// `None` while nothing plays: before the first sound, while the store fills, and while parked.
    clock: Option<Clock>,
    store: Store,
    /// What the voice was last told to make ahead, in seconds.
    lead: f64,
    /// Seconds that the store is to hold, while it fills.
    filling: Option<f64>,
    /// Paused by request.
    paused: bool,
    /// Paused because nobody hears it.
    parked: bool,
    /// What the engine was last told.
    engine_paused: bool,
    /// While it waits for room.
    queue: Option<Queue>,
    /// A packet was made.
    first_sound: bool,
    heard_at: Instant,
    was_heard: bool,
    round_at: Instant,
    /// Sound before this media time is made again.
    again_until: Option<u64>,
    /// Until when those are awaited who heard another node make it, and the clock by which they
    /// play.
    joined_until: Option<Instant>,
    joined: Option<Clock>,
    /// Another node is about to go on with it.
    stopped: bool,
}

impl<S: Source> Task<S> {
    pub(super) fn new(
        stream: Arc<Stream>,
        source: S,
        commands: mpsc::UnboundedReceiver<Command>,
        mut plan: Plan,
    ) -> Result<Self, AudioError> {
        let (channels, now) = (stream.channels(), Instant::now());
        let journal = Arc::clone(stream.journal());
        let (feed, joined, until) = match plan.joins.take() {
            Some(Joins { seam, clock }) => {
                (Feed::joining(source, (journal, &seam), channels, plan.length)?, clock, Some(seam.at))
            }
            None => (Feed::new(source, Scribe::new(journal), channels, plan.length)?, None, None),
        };
        let fanout = Fanout::new(stream.variants().clone(), channels, feed.position());
        let (asleep, queue) = (plan.asleep, plan.patience.map(Queue::new));
        if !asleep && queue.is_none() {
            plan.place.plays();
        }
        Ok(Self {
            feed,
            stream,
            commands,
            fanout,
            clock: None,
            store: Store::default(),
            lead: plan.lead,
            filling: None,
            paused: false,
            parked: asleep,
            engine_paused: asleep || queue.is_some(),
            again_until: until,
            joined_until: None,
            joined,
            stopped: false,
            queue,
            first_sound: false,
            heard_at: now,
            was_heard: false,
            round_at: now,
            plan,
        })
    }

    /// Runs until the stream is over.
    pub(super) async fn run(mut self) {
        let mut end = End::of(self.stream.clone());
        let over = match self.play().await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        end.reason = match over {
            Over::Finished => None,
            Over::Asked(reason) => {
                self.fade_out();
                Some(reason)
            }
            Over::Failed(reason) => {
                tracing::warn!(%reason, "the stream ended");
                Some(reason)
            }
        };
        self.fanout.finish();
        self.feed.rests();
        self.publish_state();
    }

    async fn play(&mut self) -> Result<std::convert::Infallible, Over> {
        let mut pumped = Pumped::Still;
        if let Some(until) = self.again_until.take() {
            self.make_again(until).await?;
        }
        loop {
            let now = Instant::now();
            let audience = self.stream.variants().audience();
            self.queue_up(now)?;
            self.attend(audience, now)?;
            self.follow_engine(now).await;
            self.fanout.follow_audience().await?;
            let before = pumped;
            self.feed.write_soon(self.stream.variants().is_sent());
            pumped = if self.stopped { Pumped::Still } else { self.pump(audience).await? };
            if now >= self.round_at {
                self.round(audience, now);
            }
            self.show_state(pumped);
            self.publish_state();
            if pumped == (Pumped::Short { progress: false }) && before == pumped {
                tokio::time::sleep(BREATH).await;
            }
            self.wait(audience, pumped).await?;
        }
    }

    /// Starts and stops with the audience.
    fn attend(&mut self, audience: Audience, now: Instant) -> Result<(), Over> {
        if audience.listeners > 0 {
            (self.heard_at, self.was_heard) = (now, true);
            self.parked = false;
            return Ok(());
        }
        if now < self.lonely_until() || self.queue.is_some() {
            return Ok(());
        }
        match self.plan.idle {
            Idle::End => Err(Over::Asked("nobody listens any more".into())),
            _ if self.forgotten_at().is_some_and(|at| now >= at) => {
                Err(Over::Asked("nobody listened for an hour".into()))
            }
            Idle::Pause | Idle::Wait => {
                self.parked = true;
                self.feed.rests();
                self.clock = None;
                self.filling = None;
                self.fanout.forget();
                Ok(())
            }
        }
    }

    /// When a stream without listeners pauses or ends.
    fn lonely_until(&self) -> Instant {
        let grace = match self.plan.idle {
            Idle::Pause | Idle::Wait => self.plan.grace,
            Idle::End if self.was_heard => LEFT,
            Idle::End => NEVER_CAME,
        };
        self.heard_at + grace
    }

    /// When a stream without listeners ends, if it does: a name means that it is expected to be
    /// there.
    fn forgotten_at(&self) -> Option<Instant> {
        let forgotten = self.plan.idle == Idle::Pause && self.stream.name().is_none() && !self.plan.keep;
        forgotten.then(|| self.heard_at + FORGOTTEN)
    }

    /// Pauses and resumes the voice as the stream and its place among the others have it. What the
    /// engine has no room for waits; if the voice is gone, reading it says why.
    async fn follow_engine(&mut self, now: Instant) {
        if let Err(error) = self.tell_engine(now).await {
            tracing::debug!(%error, "the voice stays as it is");
            if self.engine_paused && !self.paused && !self.parked {
                self.plan.place.waits(now);
            }
        }
    }

    async fn tell_engine(&mut self, now: Instant) -> Result<(), EngineError> {
        if self.queue.is_some() {
            return Ok(());
        }
        let wanted = !self.paused && !self.parked;
        let pause = !wanted || (self.plan.place.waiting(now).is_some() && !self.plan.place.may_go(now));
        if pause != self.engine_paused && !self.feed.voice_is_over() {
            let remote = self.stream.remote().clone();
            if pause { remote.pause().await } else { remote.resume().await }?;
            self.engine_paused = pause;
        }
        if !wanted {
            self.plan.place.leaves();
        } else if !pause {
            self.plan.place.plays();
        }
        Ok(())
    }

    /// Somebody is about to listen: makes sure that there will be something to hear.
    async fn wake(&mut self) -> Result<(), StationError> {
        let now = Instant::now();
        if let Some(waiting) = self.plan.place.waiting(now) {
            return Err(StationError::Waiting { retry_after: waiting.retry_after });
        }
        if self.parked {
            if let Some(retry_after) = self.plan.place.queue(now).filter(|_| !self.paused) {
                return Err(StationError::Waiting { retry_after });
            }
            (self.parked, self.heard_at) = (false, now);
            let told = self.tell_engine(now).await;
            self.parked = told.is_err();
            told?;
        }
        Ok(())
    }

    /// Once a second: stuck listeners, status, how the machine does.
    fn round(&mut self, audience: Audience, now: Instant) {
        self.round_at = now + ROUND;
        let given_up = self.stream.variants().give_up_stuck(PATIENCE);
        if given_up > 0 {
            tracing::info!(given_up, "listeners took nothing for too long");
            counter!(LISTENERS_GIVEN_UP).increment(given_up as u64);
        }
        if self.joined_until.take_if(|until| now >= *until).is_some() {
            self.fanout.keep(0);
            self.joined = None;
        }
        let buffered = self.feed.buffered();
        if self.clock.is_some() {
            histogram!(BUFFERED_SECONDS).record(buffered);
            if self.store.whole(buffered >= WHOLE * self.lead, now) {
                self.keep_ahead(self.plan.lead);
            }
        }
        let plays = self.clock.is_some() || (audience.listeners > 0 && !self.parked);
        let report = Report { made: self.feed.made(), buffered, lead: self.plan.lead, plays };
        self.plan.place.report(now, &report);
        self.publish_state();
        self.stream.send_status();
    }

    /// Tells the world what the stream does, if that is something else than before.
    fn show_state(&mut self, pumped: Pumped) {
        let queued = self.queue.as_ref().map(Queue::waiting);
        let waits_for_room = queued.is_some();
        let waiting = queued.or_else(|| self.plan.place.waiting(Instant::now()));
        let changed = {
            let info = &mut self.stream.state().info;
            info.buffer_target = self.filling.filter(|_| pumped == Pumped::Filling);
            let changed = info.waiting.is_some() != waiting.is_some();
            info.waiting = waiting;
            changed
        };
        let state = match (self.paused, self.parked) {
            _ if waits_for_room => StreamState::Queued,
            (true, _) => StreamState::Paused,
            (false, true) => StreamState::Idle,
            (false, false) if pumped == Pumped::Filling => StreamState::Buffering,
            (false, false) => StreamState::Playing,
        };
        if !self.stream.set_state(state) && changed {
            self.stream.send_status();
        }
    }

    fn publish_state(&self) {
        {
            let mut state = self.stream.state();
            state.silence = self.feed.silence();
            state.info.playhead = self.feed.position() as f64 / f64::from(OPUS_RATE);
            state.info.buffered = self.feed.buffered();
            state.info.realtime_factor = self.stream.remote().realtime_factor();
        }
        self.feed.freezes().into_iter().for_each(|freeze| self.stream.froze(freeze));
        self.stream.passed(self.feed.position() - self.feed.silence());
    }

    /// Sleeps until something is due, somebody comes or goes, or the voice has sound again.
    async fn wait(&mut self, audience: Audience, pumped: Pumped) -> Result<(), Over> {
        let tick = if audience.low_latency { BLOCK } else { PAGE };
        let mut until = self.round_at;
        match (pumped, &self.clock) {
            (Pumped::Full, Some(clock)) => until = until.min(clock.when_due(self.feed.position() + tick)),
            (Pumped::Late, _) => until = until.min(Instant::now() + frames(tick)),
            (Pumped::Filling, _) => until = until.min(Instant::now() + FILLING),
            // One look when players run dry.
            (Pumped::Short { .. }, Some(clock)) => until = until.min(clock.when_heard(self.sent() + 1)),
            _ => {}
        }
        if audience.listeners == 0 && !self.parked {
            until = until.min(self.lonely_until());
        }
        // A parked stream has no rounds: it sleeps until somebody comes, or until it is forgotten.
        let until = if self.parked { self.forgotten_at() } else { Some(until) };
        let now_and_then = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let moved = async {
            match &mut self.queue {
                Some(queue) => queue.moved().await,
                None => std::future::pending::<Moved>().await,
            }
        };
        let command = tokio::select! {
            command = self.commands.recv() => command,
            moved = moved => return self.queue_moved(moved),
            () = self.stream.nudged() => None,
            () = self.feed.ready(), if matches!(pumped, Pumped::Short { .. }) => None,
            () = now_and_then => None,
        };
        match command {
            None => Ok(()),
            Some(Command::Pause(reply)) => {
                self.paused = true;
                let told = self.tell_engine(Instant::now()).await;
                self.show_state(Pumped::Still);
                answer(reply, told);
                Ok(())
            }
            Some(Command::Resume(reply)) => {
                self.paused = false;
                let told = self.tell_engine(Instant::now()).await;
                self.paused = told.is_err();
                self.show_state(Pumped::Still);
                answer(reply, told);
                Ok(())
            }
            Some(Command::Wake(reply)) => {
                if let Some(reply) = self.wait_for_room(reply) {
                    answer(reply, self.wake().await);
                }
                Ok(())
            }
            Some(Command::Stop(reply)) => {
                self.stopped = true;
                self.feed.rests();
                self.fanout.announce();
                self.publish_state();
                answer(reply, self.clock.map(|clock| clock.heard(Instant::now())));
                Ok(())
            }
            Some(Command::End(reason)) => Err(Over::Asked(reason)),
        }
    }
}

/// Whatever happens to the task, its listeners must not wait for ever, and the world is told.
struct End {
    stream: Arc<Stream>,
    reason: Option<String>,
}

impl End {
    fn of(stream: Arc<Stream>) -> Self {
        gauge!(STREAMS).increment(1.0);
        Self { stream, reason: Some("the server gave it up".into()) }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stream.variants().close();
        gauge!(STREAMS).decrement(1.0);
        self.stream.set_ended(self.reason.take());
    }
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Who asked may have gone.
    let _ = reply.send(value);
}

/// How long `count` frames last.
fn frames(count: u64) -> Duration {
    Duration::from_micros(count * 1_000_000 / u64::from(OPUS_RATE))
}
