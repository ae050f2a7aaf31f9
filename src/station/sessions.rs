//! Who listens to a stream, whatever carries the sound: sessions from coming to going.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::histogram;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::telemetry::SESSION_SECONDS;

/// The sessions of a stream.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// In order of their coming.
    open: BTreeMap<u64, Open>,
    begun: u64,
    peak: usize,
    /// By format.
    formats: BTreeMap<&'static str, Count>,
    /// Of those that are over.
    listened: Duration,
}

#[derive(Clone, Copy)]
struct Open {
    format: &'static str,
    since: Instant,
}

/// Listeners of one format.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Count {
    /// Now.
    pub listeners: usize,
    /// At once at most, so far.
    pub peak: usize,
}

/// Somebody listens, until this is dropped.
pub struct Session {
    sessions: Arc<Sessions>,
    number: u64,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody comes, who is sent this format.
    pub(super) fn begin(self: &Arc<Self>, format: &'static str) -> Session {
        let mut inner = self.lock();
        inner.begun += 1;
        let number = inner.begun;
        inner.open.insert(number, Open { format, since: Instant::now() });
        inner.peak = inner.peak.max(inner.open.len());
        let count = inner.formats.entry(format).or_default();
        count.listeners += 1;
        count.peak = count.peak.max(count.listeners);
        Session { sessions: Arc::clone(self), number }
    }

    /// What is known of them.
    pub(super) fn info(&self) -> SessionsInfo {
        let (inner, now) = (self.lock(), Instant::now());
        let seconds = |since: Instant| now.duration_since(since).as_secs_f64();
        let open = inner.open.values().map(|open| SessionInfo { format: open.format, seconds: seconds(open.since) });
        let open: Vec<SessionInfo> = open.collect();
        let heard = inner.listened.as_secs_f64() + open.iter().map(|session| session.seconds).sum::<f64>();
        SessionsInfo {
            peak: inner.peak,
            begun: inner.begun,
            listened_seconds: heard,
            formats: inner.formats.clone(),
            open,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.sessions.lock();
        if let Some(Open { format, since }) = inner.open.remove(&self.number) {
            let lasted = since.elapsed();
            inner.listened += lasted;
            if let Some(count) = inner.formats.get_mut(format) {
                count.listeners -= 1;
            }
            histogram!(SESSION_SECONDS, "format" => format).record(lasted.as_secs_f64());
        }
    }
}

/// The sessions of a stream as the world sees them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SessionsInfo {
    /// Listeners at once at most, so far.
    pub peak: usize,
    /// Sessions so far.
    pub begun: u64,
    /// Seconds that all of them have listened.
    pub listened_seconds: f64,
    /// Listeners by format.
    pub formats: BTreeMap<&'static str, Count>,
    /// Those that go on, oldest first.
    pub open: Vec<SessionInfo>,
}

/// Somebody who listens.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SessionInfo {
    /// The format.
    pub format: &'static str,
    /// Since so many seconds.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_last_from_coming_to_going() {
        let sessions = Arc::<Sessions>::default();
        let first = sessions.begin("mp3");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let second = sessions.begin("ogg");
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(first);
        let _third = sessions.begin("hls");
        let info = sessions.info();
        let open: Vec<_> = info.open.iter().map(|session| (session.format, session.seconds)).collect();
        assert_eq!(open, [("ogg", 5.0), ("hls", 0.0)]);
        assert_eq!((info.peak, info.begun, info.listened_seconds), (2, 3, 70.0));
        assert_eq!(info.formats["mp3"], Count { listeners: 0, peak: 1 });
        drop(second);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((sessions.info().open.len(), sessions.info().listened_seconds), (1, 71.0));
    }
}
