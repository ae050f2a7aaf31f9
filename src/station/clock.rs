//! The media clock: how much sound should have left by now.
//!
//! Listeners are kept `ahead` frames in front of real time, so that a late step does not stop them.
//! If even that is used up, another clock begins where this one stopped: what could not be played
//! in time is played late, never skipped.

use std::time::Duration;

use tokio::time::Instant;

use crate::audio::OPUS_RATE;

/// Maps real time to frames (48 kHz) of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
    base: u64,
    ahead: u64,
}

impl Clock {
    /// A clock whose players start to play frame `position` now.
    pub(super) fn start(now: Instant, position: u64, ahead: u64) -> Self {
        Self { origin: now, base: position, ahead }
    }

    /// The frame that should have left by now.
    pub(super) fn due(&self, now: Instant) -> u64 {
        self.heard(now) + self.ahead
    }

    /// The frame that players are playing now.
    pub(super) fn heard(&self, now: Instant) -> u64 {
        let nanos = now.duration_since(self.origin).as_nanos();
        self.base + (nanos * u128::from(OPUS_RATE) / 1_000_000_000) as u64
    }

    /// When `frame` is due.
    pub(super) fn when_due(&self, frame: u64) -> Instant {
        self.when_heard(frame.saturating_sub(self.ahead))
    }

    /// When players will have reached `frame`.
    pub(super) fn when_heard(&self, frame: u64) -> Instant {
        let nanos = u128::from(frame.saturating_sub(self.base)) * 1_000_000_000;
        self.origin + Duration::from_nanos(nanos.div_ceil(u128::from(OPUS_RATE)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_due_exactly_when_the_clock_says_so() {
        let now = Instant::now();
        let clock = Clock::start(now, 7, 96_000);
        for frame in [96_007, 96_008, 1_000_001, 48_000 * 86_400 * 30] {
            let when = clock.when_due(frame);
            assert!(clock.due(when) >= frame && clock.due(when - Duration::from_nanos(1)) < frame || when == now);
        }
    }
}
