//! Listeners in the past: a stream played from its journal at the pace of real time, for each of
//! them apart.
//!
//! They hear what was heard, in any format, and count as listeners of the stream: it goes on, so
//! that they never reach the end of what there is while it plays.

use std::sync::Arc;
use std::time::Duration;

use metrics::histogram;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::fanout::Fanout;
use super::feed::BLOCK;
use super::hls::Presentation;
use super::packetizer::PAGE;
use super::variants::{Guest, Variants};
use super::{Listen, Listener, Replay, StationError, Stream};
use crate::telemetry::SEEK_TO_SOUND;

/// A look at whether somebody still listens, and takes what there is.
const ROUND: Duration = Duration::from_secs(1);
/// A listener that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays for one listener.
struct Shift {
    stream: Arc<Stream>,
    replay: Replay,
    variants: Arc<Variants>,
    fanout: Fanout,
    /// Frames that leave at once.
    tick: usize,
    /// Frames that the player is kept ahead.
    ahead: u64,
    round_at: Instant,
    _guest: Guest,
}

impl Stream {
    /// Joins at a place in the past, in frames of 48 kHz of media time, and goes on from there at
    /// the pace of real time.
    ///
    /// # Errors
    /// [`StationError::NotKept`] when that place is not in the journal; [`StationError::Limit`],
    /// [`StationError::NotSent`].
    pub fn listen_from(self: &Arc<Self>, listen: Listen, from: u64) -> Result<Listener, StationError> {
        let (listen, place) = self.place_for(listen)?;
        let replay = Replay::follow(self, from)?;
        let ahead = self.variants().burst(listen.low_latency);
        let presentation = Presentation::new(Arc::clone(self.journal()), self.title());
        let (variants, given_up) = (Arc::new(Variants::new(ahead, presentation, false)), CancellationToken::new());
        let seat = variants.join(listen, given_up.clone()).ok_or_else(|| self.ended_error())?;
        let shift = Shift {
            fanout: Fanout::new(Arc::clone(&variants), self.channels(), replay.at()),
            variants,
            replay,
            tick: if listen.low_latency { BLOCK } else { PAGE } as usize,
            ahead,
            round_at: Instant::now(),
            _guest: self.variants().guest(),
            stream: Arc::clone(self),
        };
        self.nudge();
        tokio::spawn(shift.run(Instant::now()));
        let session = self.begin_session(listen.format.extension());
        Ok(Listener::new(Arc::clone(self), seat, given_up, place, session).shifted())
    }
}

impl Shift {
    async fn run(mut self, asked: Instant) {
        match self.play(asked).await {
            // The stream was heard to its end, unless the listener has left.
            Ok(()) => self.fanout.finish(),
            Err(error) => {
                tracing::info!(stream = self.stream.id(), %error, "a listener in the past cannot hear more");
            }
        }
        self.variants.close();
        self.stream.nudge();
    }

    async fn play(&mut self, asked: Instant) -> Result<(), StationError> {
        self.fanout.follow_audience().await?;
        let (mut clock, mut asked): (Option<Clock>, _) = (None, Some(asked));
        while let Some(block) = self.next().await? {
            let mut position = self.replay.at() - (block.len() / self.stream.channels()) as u64;
            for part in block.chunks(self.tick * self.stream.channels()) {
                let (now, end) = (Instant::now(), position + (part.len() / self.stream.channels()) as u64);
                let clock = match &mut clock {
                    // What came too late is played late, never skipped.
                    Some(clock) if clock.heard(now) <= position => clock,
                    other => other.insert(Clock::start(now, position, self.ahead)),
                };
                sleep_until(clock.when_due(end)).await;
                if !self.is_heard() {
                    return Ok(());
                }
                if self.fanout.push(part.to_vec())?
                    && let Some(asked) = asked.take()
                {
                    histogram!(SEEK_TO_SOUND).record(asked.elapsed().as_secs_f64());
                }
                position = end;
            }
        }
        Ok(())
    }

    /// The next block; `None` also when nobody listens any more.
    async fn next(&mut self) -> Result<Option<Vec<f32>>, StationError> {
        let Self { replay, variants, .. } = self;
        let next = replay.next();
        tokio::pin!(next);
        loop {
            tokio::select! {
                block = &mut next => return block,
                () = sleep(ROUND) => {
                    variants.give_up_stuck(PATIENCE);
                    if variants.audience().listeners == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether somebody listens; gives up who takes nothing.
    fn is_heard(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.round_at {
            self.round_at = now + ROUND;
            self.variants.give_up_stuck(PATIENCE);
        }
        self.variants.audience().listeners > 0
    }
}
