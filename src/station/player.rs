//! A plain player, as an ear for tests and benchmarks: it plays once it has a little in store,
//! stops when it has nothing, and goes on when the store is there again.

/// What such a player hears of a stream.
#[derive(Debug, Clone)]
pub struct Player {
    /// Seconds that it wants before it plays.
    store: f64,
    now: f64,
    arrived: f64,
    played: f64,
    playing: bool,
    /// Seconds from asking to the first sound.
    pub started: Option<f64>,
    /// Times that the sound stopped.
    pub stops: u32,
    /// Seconds without sound since the start.
    pub missing: f64,
}

impl Player {
    /// A player that asks for sound now.
    pub fn new(store: f64) -> Self {
        Self { store, now: 0.0, arrived: 0.0, played: 0.0, playing: false, started: None, stops: 0, missing: 0.0 }
    }

    /// It is `now` seconds since it asked, and `arrived` seconds of sound have come in all.
    pub fn hears(&mut self, now: f64, arrived: f64) {
        let passed = now - std::mem::replace(&mut self.now, now);
        if self.playing {
            let plays = passed.min(self.arrived - self.played);
            self.played += plays;
            self.missing += passed - plays;
            if plays < passed {
                self.playing = false;
                self.stops += 1;
            }
        } else if self.started.is_some() {
            self.missing += passed;
        }
        self.arrived = arrived;
        if !self.playing && arrived - self.played >= self.store {
            self.playing = true;
            self.started.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_lasts_until_the_store_is_there_again() {
        let mut player = Player::new(0.5);
        player.hears(1.0, 0.4);
        assert_eq!(player.started, None);
        player.hears(2.0, 1.0);
        player.hears(3.5, 1.2);
        assert_eq!((player.started, player.stops, player.missing), (Some(2.0), 1, 0.5));
        player.hears(4.0, 1.5);
        player.hears(4.5, 2.0);
        assert_eq!((player.stops, player.missing), (1, 1.0));
    }
}
