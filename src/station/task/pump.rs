//! The sound of a stream's task: filling the store, sending what is due, and running dry.

use std::time::{Duration, Instant as Timer};

use metrics::{counter, histogram};
use tokio::time::Instant;

use super::super::clock::Clock;
use super::super::feed::{BLOCK, Over};
use super::super::source::Source;
use super::super::store::MOST;
use super::super::variants::{Audience, LOW_LATENCY_BURST};
use super::Task;
use crate::audio::OPUS_RATE;
use crate::telemetry::{TIME_TO_FIRST_AUDIO, UNDERRUNS};

/// Blocks after which other tasks of the thread get a turn while there is much to encode.
const TURN: u32 = 5;
/// Players that have less than this in store get every page as soon as it is full.
const SCARCE: u64 = OPUS_RATE as u64 / 2;
/// Frames that are kept for listeners of a node that is gone, who come within so long.
const KEPT: u64 = 10 * OPUS_RATE as u64;
const AWAITED: Duration = Duration::from_secs(30);
/// Seconds that the filters of the program hold back.
const WITHIN: f64 = 0.1;
/// Seconds that the voice makes beyond a store, so that it is filled for certain.
const BEYOND: f64 = 1.0;

/// How far a pump got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Everything that is due has left.
    Full,
    /// The voice has nothing yet, and players will soon need it; `progress` if some left.
    Short { progress: bool },
    /// The voice has nothing yet, but players have enough for a while.
    Late,
    /// Listeners wait: the store is not full enough to go on for long.
    Filling,
    /// Nobody listens: nothing is read.
    Still,
}

impl<S: Source> Task<S> {
    /// Frames that have left in full pages.
    pub(super) fn sent(&self) -> u64 {
        self.feed.position() - self.fanout.held()
    }

    /// Sends what is due.
    pub(super) async fn pump(&mut self, audience: Audience) -> Result<Pumped, Over> {
        let now = Instant::now();
        if self.parked || (self.clock.is_none() && audience.listeners == 0) {
            return Ok(Pumped::Still);
        }
        if self.clock.is_none() {
            // They go on as if nothing had happened, if they still have something to play.
            self.clock = self.joined.take().filter(|clock| clock.heard(now) < self.feed.position());
        }
        if self.clock.is_some_and(|clock| clock.heard(now) > self.feed.position()) {
            self.run_dry(now);
        }
        if self.clock.is_none() && !self.is_stocked(now) {
            return Ok(Pumped::Filling);
        }
        let ahead = if audience.full_burst { self.plan.burst } else { self.plan.burst.min(LOW_LATENCY_BURST) };
        let due = self.clock.map_or(self.feed.position() + ahead, |clock| clock.due(now));
        let (mut progress, mut turn) = (false, 0);
        let mut work = Duration::ZERO;
        let from = self.feed.position();
        let pumped = loop {
            if self.feed.position() + BLOCK > due {
                break Pumped::Full;
            }
            let timer = Timer::now();
            let before = self.sent();
            let Some(block) = self.feed.next(self.paused)? else { break self.without_sound(progress) };
            self.stream.variants().set_still(false);
            self.emit(block)?;
            work += timer.elapsed();
            progress = true;
            if self.clock.is_none() && self.sent() > before {
                // Players have their first page, and play it from now on.
                self.clock = Some(Clock::start(now, before, ahead));
                self.feed.plays(before);
                self.stream.presentation().plays(before);
            }
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        };
        if progress {
            let sound = (self.feed.position() - from) as f64 / f64::from(OPUS_RATE);
            self.plan.upkeep.note(work, sound);
        }
        Ok(pumped)
    }

    /// Makes the sound before a media time again, for encoders to begin with: it was sent by
    /// another node.
    pub(super) async fn make_again(&mut self, until: u64) -> Result<(), Over> {
        self.fanout.keep(KEPT);
        let mut turn = 0;
        while self.feed.position() < until {
            match self.feed.next(false)? {
                Some(block) => self.emit(block)?,
                None => self.feed.ready().await,
            }
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.joined_until = Some(Instant::now() + AWAITED);
        Ok(())
    }

    /// The voice has nothing: what players still have decides how urgent that is.
    fn without_sound(&mut self, progress: bool) -> Pumped {
        self.fanout.announce();
        let now = Instant::now();
        match self.clock {
            Some(clock) if self.sent() <= clock.heard(now) => {
                self.run_dry(now);
                Pumped::Filling
            }
            Some(clock) if self.feed.position() > clock.heard(now) + SCARCE => Pumped::Late,
            _ => Pumped::Short { progress },
        }
    }

    /// Players have nothing more to play: they go on from here once there is enough again.
    fn run_dry(&mut self, now: Instant) {
        self.clock = None;
        self.store.ran_dry();
        self.fanout.forget();
        self.stream.variants().set_still(true);
        counter!(UNDERRUNS).increment(1);
        self.stream.state().info.underruns += 1;
        self.plan.place.ran_dry(now);
    }

    /// Whether there is enough in store to play, and to go on playing. Has the voice make as much
    /// as it takes.
    fn is_stocked(&mut self, now: Instant) -> bool {
        let wanted = self.store.wanted(self.stream.remote().realtime_factor());
        let wanted = self.feed.left().map_or(wanted, |left| wanted.min(left - WITHIN));
        let waits = self.plan.place.waiting(now).is_some();
        if self.paused || self.feed.is_over() || (self.feed.buffered() >= wanted && !waits) {
            self.filling = None;
            return true;
        }
        self.filling = Some(wanted);
        self.keep_ahead(self.plan.lead.max(wanted + BEYOND));
        false
    }

    /// Changes what the voice makes ahead.
    pub(super) fn keep_ahead(&mut self, lead: f64) {
        if self.lead != lead {
            self.lead = lead;
            self.feed.keep_ahead(Duration::from_secs_f64(lead.min(MOST + BEYOND).max(self.plan.lead)));
        }
    }

    /// Hands a block to the encoders.
    fn emit(&mut self, block: Vec<f32>) -> Result<(), Over> {
        // What is told with the sound is known before it is encoded.
        self.stream.passed(self.feed.position() - self.feed.silence());
        if self.fanout.push(block)? && !std::mem::replace(&mut self.first_sound, true) {
            let asked = self.stream.state().waiting_since;
            histogram!(TIME_TO_FIRST_AUDIO).record(asked.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// The last sound of a stream that is asked to end. If it cannot be had, the sound stops
    /// without it.
    pub(super) fn fade_out(&mut self) {
        if self.clock.is_some()
            && let Ok(Some(block)) = self.feed.fade_out()
            && let Err(Over::Failed(error)) = self.emit(block)
        {
            tracing::warn!(error, "the end could not be encoded");
        }
    }
}
