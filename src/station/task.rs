//! The task of one stream: reads its voice at the pace of real time, hands finished sound to the encoders, and pauses
//! or ends the stream when nobody hears it.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::fanout::{Fanout, PAGE};
use super::feed::{BLOCK, Feed, Over};
use super::hub::{Audience, LOW_LATENCY_BURST};
use super::source::Source;
use super::stream::{Command, Stream};
use super::{Idle, StreamState};
use crate::audio::{AudioError, OPUS_RATE};
use crate::engine::EngineError;
use crate::telemetry::{BUFFERED_SECONDS, LISTENERS_GIVEN_UP, STREAMS, TIME_TO_FIRST_AUDIO, UNDERRUNS};

/// Blocks after which other tasks of the thread get a turn while there is much to encode.
const TURN: u32 = 5;
/// A stream of its own request ends so soon after its last listener left: long enough for a page reload, if short.
const LEFT: Duration = Duration::from_millis(500);
/// And so long after it was made if nobody came.
const NEVER_CAME: Duration = Duration::from_secs(5);
/// A stream without a name that nobody heard for so long ends: whoever made it has forgotten it.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// A listener that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Status events, and the search for stuck listeners.
const ROUND: Duration = Duration::from_secs(1);
/// Players that have less than this in store get sound in pages that are not full.
const SCARCE: u64 = OPUS_RATE as u64 / 2;
/// Pause before a voice is asked again that said it was ready and was not.
const BREATH: Duration = Duration::from_millis(5);

/// How a stream behaves.
pub(super) struct Plan {
    pub(super) idle: Idle,
    pub(super) grace: Duration,
    /// Length in frames of voice time.
    pub(super) length: Option<u64>,
    /// Frames that players are kept ahead of real time.
    pub(super) burst: u64,
}

/// How far a pump got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pumped {
    /// Everything that is due has left.
    Full,
    /// The voice has nothing yet, and players will soon need it; `progress` if some left.
    Short { progress: bool },
    /// The voice has nothing yet, but players have enough for a while.
    Late,
    /// Nobody listens: nothing is read.
    Still,
}

pub(super) struct Task<S> {
    stream: Arc<Stream>,
    commands: mpsc::UnboundedReceiver<Command>,
    plan: Plan,
    feed: Feed<S>,
    fanout: Fanout,
    /// `None` while nothing plays: before the first listener, and while parked.
    clock: Option<Clock>,
    /// Paused by request.
    paused: bool,
    /// Paused because nobody hears it.
    parked: bool,
    /// What the engine was last told.
    engine_paused: bool,
    /// Nothing to play, already counted.
    starving: bool,
    /// A packet was made.
    first_sound: bool,
    heard_at: Instant,
    was_heard: bool,
    round_at: Instant,
}

impl<S: Source> Task<S> {
    pub(super) fn new(
        stream: Arc<Stream>,
        source: S,
        commands: mpsc::UnboundedReceiver<Command>,
        plan: Plan,
    ) -> Result<Self, AudioError> {
        let (channels, now) = (stream.channels(), Instant::now());
        let fanout = Fanout::new(stream.hub().clone(), channels);
        let asleep = plan.idle == Idle::Wait;
        Ok(Self {
            feed: Feed::new(source, channels, plan.length)?,
            stream,
            commands,
            plan,
            fanout,
            clock: None,
            paused: false,
            parked: asleep,
            engine_paused: asleep,
            starving: false,
            first_sound: false,
            heard_at: now,
            was_heard: false,
            round_at: now,
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
                tracing::warn!(stream = self.stream.id(), %reason, "the stream ended");
                Some(reason)
            }
        };
        self.fanout.finish();
        self.publish_state();
    }

    async fn play(&mut self) -> Result<std::convert::Infallible, Over> {
        let mut pumped = Pumped::Still;
        loop {
            let now = Instant::now();
            let audience = self.stream.hub().audience();
            self.attend(audience, now)?;
            if let Err(error) = self.tell_engine().await {
                // The engine is full: what is buffered plays, and the next round asks again. If the voice is gone,
                // reading it says why.
                tracing::debug!(stream = self.stream.id(), %error, "the voice stays as it is");
            }
            self.fanout.follow_audience().await?;
            let before = pumped;
            pumped = self.pump(audience).await?;
            if now >= self.round_at {
                self.round(now);
            }
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
        if now < self.lonely_until() {
            return Ok(());
        }
        match self.plan.idle {
            Idle::End => Err(Over::Asked("nobody listens any more".into())),
            _ if self.forgotten_at().is_some_and(|at| now >= at) => {
                Err(Over::Asked("nobody listened for an hour".into()))
            }
            Idle::Pause | Idle::Wait => {
                self.parked = true;
                self.clock = None;
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

    /// When a stream without listeners ends, if it does: a name means that it is expected to be there.
    fn forgotten_at(&self) -> Option<Instant> {
        (self.plan.idle == Idle::Pause && self.stream.name().is_none()).then(|| self.heard_at + FORGOTTEN)
    }

    /// Pauses and resumes the voice when that changed, and tells the world.
    async fn tell_engine(&mut self) -> Result<(), EngineError> {
        let pause = self.paused || self.parked;
        if pause != self.engine_paused && !self.feed.voice_is_over() {
            let remote = self.stream.remote().clone();
            if pause { remote.pause().await } else { remote.resume().await }?;
            self.engine_paused = pause;
        }
        self.stream.set_state(match (self.paused, self.parked) {
            (true, _) => StreamState::Paused,
            (false, true) => StreamState::Idle,
            (false, false) => StreamState::Playing,
        });
        Ok(())
    }

    /// Sends what is due.
    async fn pump(&mut self, audience: Audience) -> Result<Pumped, Over> {
        let now = Instant::now();
        if self.parked || (self.clock.is_none() && audience.listeners == 0) {
            return Ok(Pumped::Still);
        }
        let ahead = if audience.full_burst { self.plan.burst } else { self.plan.burst.min(LOW_LATENCY_BURST) };
        if let Some(clock) = &mut self.clock
            && clock.heard(now) > self.feed.position()
        {
            clock.slip(now, self.feed.position());
            if !std::mem::replace(&mut self.starving, true) {
                counter!(UNDERRUNS).increment(1);
                self.stream.state().info.underruns += 1;
            }
        }
        let due = self.clock.map_or(self.feed.position() + ahead, |clock| clock.due(now));
        let (mut progress, mut turn) = (false, 0);
        while self.feed.position() + BLOCK <= due {
            let position = self.feed.position();
            let Some(block) = self.feed.next(self.paused)? else {
                if self.clock.is_some_and(|clock| position > clock.heard(now) + SCARCE) {
                    self.fanout.announce();
                    return Ok(Pumped::Late);
                }
                self.fanout.flush();
                return Ok(Pumped::Short { progress });
            };
            self.clock.get_or_insert_with(|| Clock::start(now, position, ahead));
            self.emit(block)?;
            (progress, self.starving) = (true, false);
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(Pumped::Full)
    }

    /// Hands a block to the encoders.
    fn emit(&mut self, block: Vec<f32>) -> Result<(), Over> {
        if self.fanout.push(block)? && !std::mem::replace(&mut self.first_sound, true) {
            let asked = self.stream.state().waiting_since;
            histogram!(TIME_TO_FIRST_AUDIO).record(asked.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// The last sound of a stream that is asked to end. If it cannot be had, the sound stops without it.
    fn fade_out(&mut self) {
        if self.clock.is_some()
            && let Ok(Some(block)) = self.feed.fade_out()
            && let Err(Over::Failed(error)) = self.emit(block)
        {
            tracing::warn!(stream = self.stream.id(), error, "the end could not be encoded");
        }
    }

    /// Once a second: stuck listeners, status.
    fn round(&mut self, now: Instant) {
        self.round_at = now + ROUND;
        let given_up = self.stream.hub().give_up_stuck(PATIENCE);
        if given_up > 0 {
            tracing::info!(stream = self.stream.id(), given_up, "listeners took nothing for too long");
            counter!(LISTENERS_GIVEN_UP).increment(given_up as u64);
        }
        if self.clock.is_some() {
            histogram!(BUFFERED_SECONDS).record(self.feed.buffered());
        }
        self.publish_state();
        self.stream.send_status();
    }

    fn publish_state(&self) {
        {
            let mut state = self.stream.state();
            state.silence = self.feed.silence();
            state.info.playhead = self.feed.position() as f64 / f64::from(OPUS_RATE);
            state.info.buffered = self.feed.buffered();
            state.info.realtime_factor = self.stream.remote().realtime_factor();
        }
        self.stream.passed(self.feed.position() - self.feed.silence());
    }

    /// Sleeps until something is due, somebody comes or goes, or the voice has sound again.
    async fn wait(&mut self, audience: Audience, pumped: Pumped) -> Result<(), Over> {
        let tick = if audience.low_latency { BLOCK } else { PAGE };
        let mut until = self.round_at;
        match (pumped, &self.clock) {
            (Pumped::Full, Some(clock)) => until = until.min(clock.when_due(self.feed.position() + tick)),
            (Pumped::Late, _) => until = until.min(Instant::now() + frames(tick)),
            // One look when players run dry, to count it; while they are dry only the voice matters.
            (Pumped::Short { .. }, Some(clock)) if !self.starving => {
                until = until.min(clock.when_heard(self.feed.position() + 1));
            }
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
        let command = tokio::select! {
            command = self.commands.recv() => command,
            () = self.stream.nudged() => None,
            () = self.feed.ready(), if matches!(pumped, Pumped::Short { .. }) => None,
            () = now_and_then => None,
        };
        match command {
            None => Ok(()),
            Some(Command::Pause(reply)) => {
                self.paused = true;
                answer(reply, self.tell_engine().await);
                Ok(())
            }
            Some(Command::Resume(reply)) => {
                self.paused = false;
                let told = self.tell_engine().await;
                self.paused = told.is_err();
                answer(reply, told);
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
        self.stream.hub().close();
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
