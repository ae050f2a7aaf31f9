//! All streams of the process: finding and ending them, and the limits that they share.

mod begin;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub(super) use begin::Left;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::names::Names;
use super::overload::Overload;
use super::stream::Stream;
use super::upkeep::Upkeep;
use super::{Directory, StationConfig, StationError, StreamInfo};
use crate::audio::OPUS_RATE;
use crate::engine::Engine;
use crate::units::SampleRate;

/// An ended stream can still be asked why for so long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// A stream ends within one step of its task; more means that the machine is stuck.
const END: Duration = Duration::from_secs(2);
/// Players need two pages in store, whatever the configuration says: one plays while the next
/// comes. In seconds.
const MIN_BURST: f64 = 0.4;
/// How long listeners may take for their last bytes at shutdown.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// How the machine keeps up with its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// How long players have run dry again and again; zero when none did lately.
    pub behind: Duration,
    /// Streams that wait until others are whole.
    pub waiting: usize,
}

/// All streams of this process.
pub struct Station {
    engine: Engine,
    pub(super) config: StationConfig,
    /// In order of their birth.
    streams: Mutex<Vec<Arc<Stream>>>,
    /// Those that were deleted within the last minute: players of HLS have yet to read of their
    /// end.
    deleted: Mutex<Vec<Arc<Stream>>>,
    names: Names,
    /// Places for listeners; a [`super::Listener`] holds one.
    places: Arc<Semaphore>,
    overload: Arc<Overload>,
    upkeep: Arc<Upkeep>,
    closing: AtomicBool,
    /// Where other nodes find its streams, if there are any.
    directory: OnceLock<Arc<dyn Directory>>,
    /// Streams that they make and somebody here hears.
    relays: Mutex<Vec<Arc<Stream>>>,
}

impl Station {
    /// A station on an engine. Must be called within a tokio runtime.
    pub fn new(engine: Engine, config: StationConfig) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(config.max_listeners));
        Arc::new(Self {
            upkeep: Arc::new(Upkeep::new(engine.clone(), config.room)),
            engine,
            config,
            streams: Mutex::default(),
            deleted: Mutex::default(),
            names: Names::default(),
            places,
            overload: Arc::default(),
            closing: AtomicBool::new(false),
            directory: OnceLock::new(),
            relays: Mutex::default(),
        })
    }

    /// From now on other nodes find its streams in this directory, and names are theirs too. The
    /// first one counts.
    pub fn share(&self, directory: Arc<dyn Directory>) {
        let _ = self.directory.set(directory);
    }

    /// How the machine keeps up.
    pub fn load(&self) -> Load {
        let (behind, waiting) = self.overload.standing(Instant::now());
        Load { behind, waiting }
    }

    /// Streams that would begin at once beside those that play.
    pub fn room(&self) -> usize {
        let full = self.closing.load(Ordering::Acquire) || self.overload.queue(Instant::now()).is_some();
        if full { 0 } else { self.engine.status().room }
    }

    /// Listeners over all streams.
    pub fn listeners(&self) -> usize {
        self.config.max_listeners.saturating_sub(self.places.available_permits())
    }

    /// Frames that a new listener gets at once.
    pub(super) fn burst(&self) -> u64 {
        SampleRate(OPUS_RATE).samples(self.config.burst.max(MIN_BURST)).0
    }

    /// Places for listeners, and how many there are.
    pub(super) fn places(&self) -> (Arc<Semaphore>, usize) {
        (Arc::clone(&self.places), self.config.max_listeners)
    }

    /// Streams of other nodes that somebody here hears.
    pub(super) fn relays(&self) -> MutexGuard<'_, Vec<Arc<Stream>>> {
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        relays.retain(|stream| !stream.has_ended());
        relays
    }

    /// Everything that is heard here: its own streams, oldest first, and those of other nodes.
    pub fn heard(&self) -> Vec<Arc<Stream>> {
        let relays = self.relays().clone();
        self.live().into_iter().chain(relays).collect()
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The list without those that ended long ago.
    fn streams(&self) -> MutexGuard<'_, Vec<Arc<Stream>>> {
        drop(remembered(&self.deleted));
        remembered(&self.streams)
    }

    /// A stream by its id, also for a minute after its end.
    ///
    /// # Errors
    /// [`StationError::NotFound`].
    pub fn get(&self, id: &str) -> Result<Arc<Stream>, StationError> {
        let found = self.streams().iter().find(|stream| stream.id() == id).cloned();
        found.ok_or_else(|| StationError::NotFound(id.into()))
    }

    /// A stream by its id, as long as players of HLS may ask for it: also after it was deleted.
    ///
    /// # Errors
    /// [`StationError::NotFound`].
    pub fn presented(&self, id: &str) -> Result<Arc<Stream>, StationError> {
        self.get(id)
            .or_else(|error| remembered(&self.deleted).iter().find(|stream| stream.id() == id).cloned().ok_or(error))
    }

    /// A stream by its name (stations).
    ///
    /// # Errors
    /// [`StationError::NotFound`].
    pub fn named(&self, name: &str) -> Result<Arc<Stream>, StationError> {
        let mut live = self.live().into_iter();
        live.find(|stream| stream.name() == Some(name)).ok_or_else(|| StationError::NotFound(name.into()))
    }

    /// What may be shown of every stream that has not ended, oldest first.
    pub fn list(&self) -> Vec<StreamInfo> {
        self.live().iter().map(|stream| stream.info()).collect()
    }

    /// Every stream that has not ended, oldest first.
    pub fn live(&self) -> Vec<Arc<Stream>> {
        self.streams().iter().filter(|stream| !stream.has_ended()).cloned().collect()
    }

    /// Ends a stream: its listeners get a proper last page.
    ///
    /// # Errors
    /// [`StationError::NotFound`].
    pub async fn delete(&self, id: &str) -> Result<(), StationError> {
        let stream = self.get(id)?;
        if timeout(END, stream.end("it was deleted")).await.is_err() {
            tracing::warn!(stream = id, "the stream does not end");
        }
        self.streams().retain(|other| !Arc::ptr_eq(other, &stream));
        if let Some(directory) = self.directory.get() {
            directory.ended(&stream).await;
        }
        stream.journal().discard();
        if stream.has_ended() {
            remembered(&self.deleted).push(stream);
        }
        Ok(())
    }

    /// Lets a stream go that another node goes on with: it ends here, and nobody is told but those
    /// who hear it here.
    pub async fn let_go(&self, id: &str) {
        let Ok(stream) = self.get(id) else { return };
        // Those who hear it at other nodes hear it go on: none of them may be told of this end.
        stream.hand_over();
        stream.journal().leave();
        self.streams().retain(|other| !Arc::ptr_eq(other, &stream));
        if timeout(END, stream.end("it goes on at another node")).await.is_err() {
            tracing::warn!(stream = id, "the stream does not end");
        }
        stream.journal().leave();
    }

    /// Ends every stream with a proper last page and waits, for some seconds at most, until the
    /// listeners have been given it. No stream can be made afterwards.
    pub async fn shutdown(&self) {
        self.closing.store(true, Ordering::Release);
        let streams = self.heard();
        let ends = join_all(streams.iter().map(|stream| stream.end("the server is stopping")));
        let left = async {
            ends.await;
            // Every place is free again when the last listener has left.
            let all = u32::try_from(self.config.max_listeners).unwrap_or(u32::MAX);
            let _ = self.places.acquire_many(all).await;
        };
        if timeout(LAST_BYTES, left).await.is_err() {
            tracing::warn!("some listeners did not take their last bytes in time");
        }
    }
}

/// Streams without those that ended long ago.
fn remembered(streams: &Mutex<Vec<Arc<Stream>>>) -> MutexGuard<'_, Vec<Arc<Stream>>> {
    let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
    streams.retain(|stream| {
        let known = stream.ended_at().is_none_or(|at| at.elapsed() < REMEMBERED);
        // A stream that is expected to be there comes back with the next server.
        if !known && !stream.journal().origin().stays() {
            stream.journal().discard();
        }
        known
    });
    streams
}
