//! How much sound a stream has in store before it plays: none where the machine is fast, seconds
//! where it is only just fast enough, and more after every stop.
//!
//! A machine at `speed` times real time that begins with `s` seconds in store plays for `s / (1 -
//! speed)` seconds. So below real time a larger store means fewer stops for the same sound that is
//! missing, and near it a store bridges what other work on the machine takes.

use std::time::Duration;

use tokio::time::Instant;

/// From this speed on nothing has to be in store: before a player has half a second the next is
/// there.
const FAST: f64 = 3.0;
/// Seconds in store at the start when the machine makes just as much as is played.
const AT_REAL_TIME: f64 = 6.0;
/// At most at the start.
const MOST_AT_START: f64 = 10.0;
/// At least after a stop, on a fast machine: whatever held it up may come again.
const LEAST_AFTER_STOP: f64 = 0.7;
/// What a stop adds.
const GROWTH: f64 = 1.5;
/// At most, whatever happens: a listener has stopped waiting by then.
pub(super) const MOST: f64 = 24.0;
/// With all of its lead ahead for so long a stream has one stop less to its name.
const FORGIVEN: Duration = Duration::from_secs(60);

/// What a stream has learnt of the machine that it plays on.
#[derive(Debug, Default)]
pub(super) struct Store {
    stops: i32,
    whole_since: Option<Instant>,
}

impl Store {
    /// Seconds of sound to have before playing (on), when the machine makes `speed` seconds per
    /// second.
    pub(super) fn wanted(&self, speed: f64) -> f64 {
        let start = if speed >= FAST { 0.0 } else { (AT_REAL_TIME / speed.powi(3)).min(MOST_AT_START) };
        match self.stops {
            0 => start,
            stops => (start.max(LEAST_AFTER_STOP) * GROWTH.powi(stops)).min(MOST),
        }
    }

    /// The players have nothing more to play.
    pub(super) fn ran_dry(&mut self) {
        self.stops = (self.stops + 1).min(10);
        self.whole_since = None;
    }

    /// All of the lead is there, or not. Says whether that made the store smaller.
    pub(super) fn whole(&mut self, whole: bool, now: Instant) -> bool {
        let since = *self.whole_since.get_or_insert(now);
        if !whole {
            self.whole_since = None;
        } else if self.stops > 0 && now.duration_since(since) >= FORGIVEN {
            self.whole_since = None;
            self.stops -= 1;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_machine_begins_at_once_and_a_slow_one_with_seconds() {
        let store = Store::default();
        assert_eq!(store.wanted(3.0), 0.0);
        assert_eq!(store.wanted(f64::INFINITY), 0.0);
        assert!((0.5..1.0).contains(&store.wanted(2.0)));
        assert!((1.5..2.0).contains(&store.wanted(1.5)));
        assert!((4.0..5.0).contains(&store.wanted(1.1)));
        assert_eq!(store.wanted(0.5), MOST_AT_START);
        assert_eq!(store.wanted(0.0), MOST_AT_START);
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_grows_from_stop_to_stop_and_shrinks_in_calm() {
        let mut store = Store::default();
        let mut before = store.wanted(1.0);
        for _ in 0..3 {
            store.ran_dry();
            assert!(store.wanted(1.0) > before);
            before = store.wanted(1.0);
        }
        store.ran_dry();
        assert_eq!(store.wanted(0.84), MOST);
        assert!(store.wanted(50.0) > 0.0, "a stop on a fast machine is a reason too");
        let now = Instant::now();
        assert!(!store.whole(true, now) && !store.whole(false, now + FORGIVEN));
        assert!(!store.whole(true, now + FORGIVEN), "the minute begins anew");
        assert!(store.whole(true, now + 2 * FORGIVEN));
        assert!(store.wanted(1.0) <= before);
    }
}
