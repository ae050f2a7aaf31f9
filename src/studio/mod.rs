//! Clips for producers: bang, continue, retry, crop, restore, undo, as verbs that know no protocol.
//!
//! A *session* is a producer's chain of clips; a *clip* is one piece of work with a result. The
//! studio accepts work only when it is on disk, makes it in a fair order with what live streams
//! leave of the engine, says how far it is, and keeps results for a while. A process that dies at
//! any moment loses nothing that was accepted. How requests and answers look is left to `http`.

mod clip;
mod commands;
mod copies;
mod decoded;
mod edits;
mod error;
mod files;
mod given;
mod history;
mod loops;
mod naming;
mod params;
mod peaks;
mod presets;
mod preview;
mod queries;
mod queue;
mod render;
mod render_models;
mod render_params;
mod request;
mod riffs;
mod run;
mod splice;
mod store;
#[cfg(test)]
mod tests;
mod transforms;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use clip::{ClipSnapshot, ClipTask, Event, Status};
pub use commands::Accepted;
pub use copies::Copies;
pub use decoded::{Decoded, decode_within};
pub use error::StudioError;
pub use files::Shape;
pub use given::GivenSound;
pub use naming::Naming;
pub use params::{
    AudioId, ClipId, Kind, Lane, MAX_PIECE_SECONDS, Owner, PIECE_SECONDS, PROMPT_SECONDS, Params, SessionId,
};
pub use peaks::Drawing;
pub use presets::{Preset, Presets};
pub use preview::Preview;
pub use render_models::{FineTunes, MOST_LOOPS, RenderModels};
pub use render_params::{LoopParams, Render, TransformParams, TransformRequest, random_seed};
pub use request::ClipRequest;
pub use riffs::{Riff, Riffs};
pub use store::{
    ClipRecord, ClipState, Draft, LEVELLED, PEAKS, Retention, SessionCopy, SessionRecord, SoundFile, Store, tag,
};

use crate::budget::Budget;
use crate::engine::{Engine, ResidentModels, VoiceLoader};
use crate::sandbox::Sandbox;
use given::GivenSounds;
use queue::Lanes;

/// Events that a slow subscriber may be behind before it misses some.
const EVENTS: usize = 4096;
/// Servers that a clip may take with it before it is given up.
const MAX_ATTEMPTS: u32 = 2;

/// How a studio is run.
#[derive(Debug, Clone)]
pub struct StudioConfig {
    /// Clips made at the same time; they share decoder steps.
    pub workers: usize,
    /// Bytes that loaded models may take, the default one included.
    pub model_memory: u64,
    /// What is kept.
    pub retention: Retention,
    /// The models of transforms and loops.
    pub renders: RenderModels,
    /// Time after the start in which no clip is made that was being made when a server ended
    /// without being asked to.
    pub probation: Duration,
    /// Where given sounds are decoded.
    pub sandbox: Sandbox,
    /// Which models clients may name.
    pub naming: Naming,
    /// Memory for decoded sound.
    pub budget: Budget,
}

impl StudioConfig {
    /// Clips of a lane that are made at the same time. Jobs take turns on one device: two at once
    /// would both be late.
    fn places(&self, lane: Lane) -> usize {
        match lane {
            Lane::Pieces => self.workers,
            Lane::Transforms | Lane::Loops => 1,
        }
    }
}

impl Default for StudioConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            model_memory: 8 << 30,
            retention: Retention::default(),
            renders: RenderModels::default(),
            probation: Duration::from_secs(3),
            sandbox: Sandbox::default(),
            naming: Naming::default(),
            budget: Budget::default(),
        }
    }
}

/// Sessions, clips and who is next.
pub struct Studio {
    engine: Engine,
    store: Store,
    /// Where else sessions are kept.
    copies: Option<Arc<dyn Copies>>,
    given: GivenSounds,
    models: ResidentModels,
    config: StudioConfig,
    queue: Mutex<QueueState>,
    /// Held while a session is read, changed and written.
    edits: tokio::sync::Mutex<()>,
    events: broadcast::Sender<Event>,
    changes: broadcast::Sender<SessionId>,
    wake: Notify,
    /// Told when a place in the queue is free again.
    room: Notify,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// What is being made, or waits to be.
#[derive(Default)]
struct QueueState {
    lanes: Lanes,
    tasks: HashMap<ClipId, Arc<ClipTask>>,
    /// Sessions with a clip that waits or runs: one per lane.
    busy: HashSet<(SessionId, Lane)>,
    /// The clip beside which nothing else is made.
    alone: Option<ClipId>,
    /// How clips ended that the table could not be told of yet.
    unwritten: HashMap<ClipId, Status>,
}

impl QueueState {
    /// Takes the next clip to make. One that an earlier server ended over comes when nothing else
    /// is to be done, from the time on that it `may`, and alone: if the server ends again, it is
    /// known over which.
    fn next(&mut self, config: &StudioConfig, may: bool) -> Option<Arc<ClipTask>> {
        if self.alone.is_some() {
            return None;
        }
        let mut next = Lane::ALL.into_iter().find_map(|lane| self.lanes.of_mut(lane).next(config.places(lane)));
        if next.is_none() && may && Lane::ALL.into_iter().all(|lane| self.lanes.of(lane).running() == 0) {
            next = Lane::ALL.into_iter().find_map(|lane| self.lanes.of_mut(lane).next_suspect());
            self.alone = next;
        }
        self.tasks.get(&next?).cloned()
    }
}

impl Studio {
    /// Opens for work: what was accepted before a restart waits again. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn start(
        engine: Engine,
        store: Store,
        loader: Option<VoiceLoader>,
        config: StudioConfig,
    ) -> Result<Arc<Self>, StudioError> {
        Self::start_with(engine, store, loader, config, None).await
    }

    /// The same, with copies of all sessions where other processes find them.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn start_with(
        engine: Engine,
        store: Store,
        loader: Option<VoiceLoader>,
        config: StudioConfig,
        copies: Option<Arc<dyn Copies>>,
    ) -> Result<Arc<Self>, StudioError> {
        let studio = Arc::new(Self {
            models: ResidentModels::new(engine.clone(), loader, config.model_memory),
            engine,
            store,
            copies,
            given: GivenSounds::within(&config.budget),
            config,
            queue: Mutex::default(),
            edits: tokio::sync::Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            changes: broadcast::channel(EVENTS).0,
            wake: Notify::new(),
            room: Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        studio.store.keep_at_most(studio.config.retention.bytes);
        studio.resume(studio.store.unfinished().await?.into_iter()).await?;
        let trusted = Instant::now() + studio.config.probation;
        studio.tasks.spawn(Arc::clone(&studio).dispatch(trusted));
        studio.tasks.spawn(Arc::clone(&studio).tidy());
        Ok(studio)
    }

    /// Stops making; what is not complete waits for the next start.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.rest().await;
    }

    /// Everything that happens from now on, to every clip.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What outlives the process.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where sounds are decoded.
    pub fn sandbox(&self) -> &Sandbox {
        &self.config.sandbox
    }

    /// The models that are loaded, and the way to more.
    pub fn models(&self) -> &ResidentModels {
        &self.models
    }

    /// The models of transforms and loops.
    pub fn renders(&self) -> &RenderModels {
        &self.config.renders
    }

    /// Does what must not stop half way when whoever asked for it leaves.
    async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        step: impl Future<Output = Result<T, StudioError>> + Send + 'static,
    ) -> Result<T, StudioError> {
        let done = self.tasks.spawn(step).await;
        done.map_err(|error| StudioError::Broken(format!("the server stumbled over it ({error})")))?
    }

    /// Clips of a lane that wait, and those that are being made.
    pub fn load(&self, lane: Lane) -> (usize, usize) {
        let queue = self.queue();
        let queue = queue.lanes.of(lane);
        (queue.waiting(), queue.running())
    }

    /// Whose clips of a lane are being made.
    pub fn owners(&self, lane: Lane) -> Vec<Owner> {
        self.queue().lanes.of(lane).owners()
    }

    /// Whose clips of a lane other processes make that are one server with this one, and how many:
    /// owners have had these turns.
    pub fn made_elsewhere(&self, lane: Lane, owners: HashMap<Owner, u64>) {
        let has_changed = self.queue().lanes.of_mut(lane).made_elsewhere(owners);
        if has_changed {
            self.tell_places();
        }
    }

    /// Whether one more clip of a lane would have to wait.
    pub fn is_busy(&self, lane: Lane) -> bool {
        let (waiting, running) = self.load(lane);
        waiting > 0 || running >= self.config.places(lane)
    }

    fn queue(&self) -> MutexGuard<'_, QueueState> {
        // The queue holds plain values; a panicking holder leaves at worst a clip that is told as
        // waiting.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
