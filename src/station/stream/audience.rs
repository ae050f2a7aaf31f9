//! Who listens to a stream: places, joining and waking it.

use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::hls::{Presentation, Seat};
use super::super::{Listen, Listener, Session, SessionsInfo, StationError, StreamState};
use super::{Command, Stream};
use crate::audio::hls::Rendition;

impl Stream {
    /// Joins as [`Stream::listen`] does, once the machine has room for a stream that was idle or
    /// has not begun.
    ///
    /// # Errors
    /// [`StationError::Waiting`], [`StationError::NoRoom`], [`StationError::Engine`] when it has
    /// none, and those of [`Stream::listen`].
    pub async fn join(self: &Arc<Self>, listen: Listen) -> Result<Listener, StationError> {
        self.wake().await?;
        self.listen(listen)
    }

    /// Somebody is about to join, maybe at another node: makes sure that there will be something to
    /// hear.
    ///
    /// # Errors
    /// Those of [`Stream::join`].
    pub async fn wake(&self) -> Result<(), StationError> {
        let sleeps = {
            let state = self.state();
            matches!(state.info.state, StreamState::Idle | StreamState::Queued) || state.info.waiting.is_some()
        };
        if sleeps {
            let (reply, answer) = oneshot::channel();
            self.command(Command::Wake(reply))?;
            answer.await.map_err(|_| self.ended_error())??;
        }
        Ok(())
    }

    /// Joins at the live edge: headers, a burst of what was just played, then packets as they are
    /// made.
    ///
    /// # Errors
    /// [`StationError::Limit`], [`StationError::Ended`], [`StationError::NotSent`].
    pub fn listen(self: &Arc<Self>, listen: Listen) -> Result<Listener, StationError> {
        let (listen, place) = self.place_for(listen)?;
        let given_up = CancellationToken::new();
        let seat = self.variants.join(listen, given_up.clone()).ok_or_else(|| self.ended_error())?;
        self.heard();
        let session = self.begin_session(listen.format.extension());
        Ok(Listener::new(self.clone(), seat, given_up, place, session))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, StationError> {
        let (places, limit) = &self.places;
        places.clone().try_acquire_owned().map_err(|_| StationError::Limit {
            what: "listeners",
            limit: *limit,
            retry_after: 10,
            option: "--max-listeners",
        })
    }

    /// Somebody has come.
    pub(in crate::station) fn heard(&self) {
        if self.silent.swap(false, Ordering::Relaxed) {
            let mut state = self.state();
            // A request that made the stream listens at once; a station may wait an hour for its
            // first listener.
            let now = Instant::now();
            if now.duration_since(state.waiting_since).as_secs() >= 1 {
                state.waiting_since = now;
            }
        }
        self.nudge();
    }

    /// Notes that somebody begins to listen who is sent this format, until the answer is dropped. A
    /// [`Listener`] does it by itself.
    pub fn begin_session(&self, format: &'static str) -> Session {
        self.sessions.begin(format)
    }

    /// Who listens and has listened.
    pub fn sessions(&self) -> SessionsInfo {
        self.sessions.info()
    }

    /// How long ago it was made.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// What players of HLS fetch.
    pub fn presentation(&self) -> &Presentation {
        self.variants.presentation()
    }

    /// A player of HLS came for a playlist, as it does all the while that it listens. `player` is
    /// its name.
    ///
    /// # Errors
    /// Those of [`Stream::join`], but for a stream that has ended: its playlists say so.
    pub async fn follow(&self, player: &str, rendition: Rendition) -> Result<(), StationError> {
        if self.has_ended() {
            return Ok(());
        }
        let sessions = self.presentation().sessions();
        if !sessions.knows(player) {
            self.wake().await?;
        }
        if sessions.came(player, rendition, || self.place().map(|place| Seat::new(place, self.begin_session("hls"))))? {
            self.heard();
        }
        Ok(())
    }

    /// A place for one more listener, and how it is served.
    pub(in crate::station) fn place_for(&self, listen: Listen) -> Result<(Listen, OwnedSemaphorePermit), StationError> {
        let Listen { format, .. } = listen;
        if format.live().is_none() || format.missing_feature().is_some() {
            return Err(StationError::NotSent(format));
        }
        Ok((listen.normal(), self.place()?))
    }
}
