//! Who listens by HLS: players have no connection that stays, so each has a name in the address of
//! its playlists and is there for as long as it comes for them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::audio::hls::Rendition;
use crate::telemetry::LISTENERS;

/// A player that did not come for so long has left: three segments.
const GONE: Duration = Duration::from_secs(9);

/// The players of a stream, by their names.
pub(in crate::station) struct Sessions(Mutex<Option<HashMap<String, Session>>>);

struct Session {
    /// When it last came for each rendition.
    came: [Option<Instant>; Rendition::ALL.len()],
    _seat: Seat,
}

/// A listener's place among all of the station, and its session among those of the stream.
pub(in crate::station) struct Seat(
    #[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit,
    #[allow(dead_code, reason = "held, not read")] crate::station::Session,
);

impl Seat {
    pub(in crate::station) fn new(place: OwnedSemaphorePermit, session: crate::station::Session) -> Self {
        gauge!(LISTENERS).increment(1.0);
        Self(place, session)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        gauge!(LISTENERS).decrement(1.0);
    }
}

impl Session {
    fn follows(&self, rendition: Rendition, now: Instant) -> bool {
        self.came[rendition as usize].is_some_and(|came| now.duration_since(came) < GONE)
    }

    fn is_here(&self, now: Instant) -> bool {
        Rendition::ALL.into_iter().any(|rendition| self.follows(rendition, now))
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<String, Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a player has come lately.
    pub(in crate::station) fn knows(&self, name: &str) -> bool {
        let now = Instant::now();
        self.lock().iter().any(|players| players.get(name).is_some_and(|player| player.is_here(now)))
    }

    /// A player came for a playlist. One that did not come for it before, or has left since, is
    /// new, and takes a seat if it has none.
    pub(in crate::station) fn came<E>(
        &self,
        name: &str,
        rendition: Rendition,
        seat: impl FnOnce() -> Result<Seat, E>,
    ) -> Result<bool, E> {
        let now = Instant::now();
        let mut sessions = self.lock();
        let Some(sessions) = sessions.as_mut() else { return Ok(false) };
        sessions.retain(|_, session| session.is_here(now));
        if !sessions.contains_key(name) {
            sessions.insert(name.to_owned(), Session { came: Default::default(), _seat: seat()? });
        }
        let Some(session) = sessions.get_mut(name) else { return Ok(false) };
        let is_new = !session.follows(rendition, now);
        session.came[rendition as usize] = Some(now);
        Ok(is_new)
    }

    /// Players that are here. Those that have left are forgotten.
    pub(in crate::station) fn count(&self, now: Instant) -> usize {
        let mut sessions = self.lock();
        let Some(sessions) = sessions.as_mut() else { return 0 };
        sessions.retain(|_, session| session.is_here(now));
        sessions.len()
    }

    /// The renditions that somebody comes for.
    pub(in crate::station) fn followed(&self, now: Instant) -> Vec<Rendition> {
        let sessions = self.lock();
        let followed = |rendition: &Rendition| {
            sessions.iter().flat_map(HashMap::values).any(|session| session.follows(*rendition, now))
        };
        Rendition::ALL.into_iter().filter(followed).collect()
    }

    /// Everybody leaves, and nobody is let in any more.
    pub(in crate::station) fn close(&self) {
        self.lock().take();
    }
}
