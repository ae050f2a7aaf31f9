//! Stations on the air: each is sent to Icecast servers as a source client does it.
//!
//! To a station its server is a listener like any other. Whatever breaks is begun again, after
//! pauses that grow; nobody else notices.

mod connection;
mod target;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use metrics::{counter, gauge};
use tokio::time::{Instant, sleep};

use self::connection::{Source, tell_title};
pub use self::target::Push;
use crate::audio::LiveFormat;
use crate::station::{Event, Listener, Station, StationError, Stream};
use crate::telemetry::{PUSH_FAILURES, PUSHES};

/// Pauses between attempts grow from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a station is not on the air.
#[derive(Debug, thiserror::Error)]
enum PushError {
    /// There is no such station now, or no room for it.
    #[error(transparent)]
    Station(#[from] StationError),
    /// The network, or whoever is at the other end of it.
    #[error("{0}")]
    Connection(#[from] std::io::Error),
    /// The server does not want it.
    #[error("the server answers {0}; look at the password, the mount and its limits")]
    Refused(String),
    #[error("the server hung up")]
    HungUp,
    #[error("the server takes nothing any more")]
    Stuck,
    #[error("the station ended")]
    Over,
}

/// Keeps a station on the air at one server, for ever.
pub async fn keep_on_air(station: Arc<Station>, push: Push) -> Infallible {
    let mut pauses = Pauses(FIRST_PAUSE);
    loop {
        let began = Instant::now();
        let error = match send(&station, &push).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        counter!(PUSH_FAILURES).increment(1);
        let pause = pauses.after(began.elapsed());
        let (why, seconds) = (error.to_string(), pause.as_secs());
        tracing::warn!("{push} is off the air ({}); again in {seconds} s", why.trim_end_matches('.'));
        sleep(pause).await;
    }
}

async fn send(station: &Station, push: &Push) -> Result<Infallible, PushError> {
    let stream = station.named(&push.station)?;
    let mut source = Source::open(push).await?;
    let mut sound = stream.join(push.listen).await?;
    tracing::info!("{push} is on the air");
    gauge!(PUSHES).increment(1.0);
    let end = tokio::select! {
        end = pump(&mut sound, &mut source) => end,
        never = titles(&stream, push) => match never {},
    };
    gauge!(PUSHES).decrement(1.0);
    Err(end)
}

/// Sends sound until that is over or nobody takes it.
async fn pump(sound: &mut Listener, source: &mut Source) -> PushError {
    loop {
        let bytes = tokio::select! {
            bytes = sound.next() => bytes,
            end = source.hung_up() => return end,
        };
        let Some(bytes) = bytes else { return PushError::Over };
        if let Err(error) = source.send(&bytes).await {
            return error;
        }
    }
}

/// Tells the server what plays, each time that this is another.
async fn titles(stream: &Stream, push: &Push) -> Infallible {
    let tells = push.listen.format.live().is_some_and(LiveFormat::carries_titles);
    let (mut events, mut untold) = (stream.events(), None);
    while let Some(event) = events.recv().await {
        if let Event::Title { title, .. } = event {
            untold = Some(title).filter(|_| tells);
        }
        // The state of the stream is told once a second: then it is tried again.
        if let Some(title) = &untold {
            match tell_title(push, title).await {
                Ok(()) => untold = None,
                Err(error) => tracing::debug!("{push} is not told the title: {error}"),
            }
        }
    }
    // Its last bytes are still to be sent.
    std::future::pending().await
}

/// The next pause.
struct Pauses(Duration);

impl Pauses {
    /// After an attempt that lasted so long. One that held for a while begins anew.
    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted > LONGEST_PAUSE {
            self.0 = FIRST_PAUSE;
        }
        let pause = self.0;
        self.0 = (2 * pause).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_connection_has_held() {
        let mut pauses = Pauses(FIRST_PAUSE);
        let failed: Vec<u64> = (0..8).map(|_| pauses.after(Duration::from_secs(3)).as_secs()).collect();
        assert_eq!(failed, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.after(Duration::from_secs(3600)), FIRST_PAUSE);
        assert_eq!(pauses.after(Duration::ZERO).as_secs(), 2);
    }
}
