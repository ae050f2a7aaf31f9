//! How fast sound is made now: seconds of it per second of wanting it, lately.

use std::time::{Duration, Instant};

/// Seconds of wanting before a figure is worth telling, and between two figures.
const ENOUGH: f64 = 0.5;

/// A mean that forgets: what happened `memory` seconds of wanting ago counts for a third.
///
/// Time counts from one turn of the engine to the next, so that whatever else the thread did in
/// between is in it.
pub(super) struct Rate {
    memory: f64,
    wanted: f64,
    made: f64,
    untold: f64,
    since: Option<Instant>,
}

impl Rate {
    pub(super) fn new(memory: Duration) -> Self {
        Self { memory: memory.as_secs_f64(), wanted: 0.0, made: 0.0, untold: 0.0, since: None }
    }

    /// So much sound came out.
    pub(super) fn made(&mut self, seconds: f64) {
        self.made += seconds;
    }

    /// So much of it was taken back: nobody hears it.
    pub(super) fn unmade(&mut self, seconds: f64) {
        self.made = (self.made - seconds).max(0.0);
    }

    /// Sound was wanted during a turn from `begun` to `now`, and since the turn before if that one
    /// is not long ago by [`Rate::rests`]. Gives the figure once in a while.
    pub(super) fn wants(&mut self, begun: Instant, now: Instant) -> Option<f64> {
        let seconds = now.duration_since(self.since.replace(now).unwrap_or(begun)).as_secs_f64();
        let kept = (-seconds / self.memory).exp();
        self.wanted = self.wanted * kept + seconds;
        self.made *= kept;
        self.untold += seconds;
        if self.untold < ENOUGH {
            return None;
        }
        self.untold = 0.0;
        Some(self.made / self.wanted)
    }

    /// Nothing is wanted: the time until it is does not count.
    pub(super) fn rests(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Wants sound for `seconds` in turns of 50 ms that make it at `speed`, and gives the last
    /// figure.
    fn work(rate: &mut Rate, clock: &mut Instant, seconds: f64, speed: f64) -> f64 {
        let mut told = None;
        for _ in 0..(seconds / 0.05) as usize {
            let begun = *clock;
            *clock += Duration::from_millis(50);
            rate.made(0.05 * speed);
            told = rate.wants(begun, *clock).or(told);
        }
        told.unwrap()
    }

    #[test]
    fn the_speed_that_is_told_is_the_one_of_the_last_seconds() {
        let (mut rate, mut clock) = (Rate::new(Duration::from_secs(8)), Instant::now());
        assert!((work(&mut rate, &mut clock, 1.0, 1.2) - 1.2).abs() < 0.1);
        work(&mut rate, &mut clock, 60.0, 1.2);
        let slower = work(&mut rate, &mut clock, 20.0, 0.84);
        assert!((0.84..0.9).contains(&slower), "{slower}");
    }

    #[test]
    fn rest_does_not_count_and_other_work_does() {
        let (mut rate, mut clock) = (Rate::new(Duration::from_secs(8)), Instant::now());
        work(&mut rate, &mut clock, 20.0, 2.0);
        rate.rests();
        clock += Duration::from_secs(60);
        assert!((work(&mut rate, &mut clock, 1.0, 2.0) - 2.0).abs() < 0.1);
        // The device was busy with something else while sound was wanted.
        clock += Duration::from_secs(8);
        assert!(work(&mut rate, &mut clock, 1.0, 2.0) < 1.4);
    }
}
