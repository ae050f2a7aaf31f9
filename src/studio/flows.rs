//! Transforms and loops for whoever asks: models loaded when first wanted and given back when nobody wants them for a
//! while, work handed to the engine, results kept in memory for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::{StudioError, Variations};
use crate::audio::Sound;
use crate::engine::{
    Engine, FlowSettings, LoopModel, LoopSettings, LoopSpec, MakeLoop, Rendered, Solving, Transform, TransformModel,
};
use crate::units::SampleRate;

/// Loads a model; blocks. The error is one sentence.
pub type LoadFlow<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// Time without a wish after which a model is given back.
const IDLE: Duration = Duration::from_secs(600);
/// Time for which a result can be fetched.
const KEEP: Duration = Duration::from_secs(900);
/// Pieces of work at most, done or not.
const MOST: usize = 32;

const NO_TRANSFORM: &str = "This server has no transform model. Its weights are not part of Continuo: start the server with \
     --transform-model facebook/melodyflow-t24-30secs to let it download them once, or name a folder that holds them.";
const NO_LOOP: &str = "This server has no loop model. Its weights are not part of Continuo: accept their licence on \
     huggingface.co, log in with `hf auth login` and start the server with --loop-model \
     stabilityai/stable-audio-open-small, or name a folder that holds them.";

/// A model that is there when it is wanted.
struct Shelf<T> {
    load: Option<LoadFlow<T>>,
    absent: &'static str,
    held: tokio::sync::Mutex<Option<T>>,
    used: Mutex<Instant>,
}

impl<T: Clone + Send + Sync + 'static> Shelf<T> {
    fn new(load: Option<LoadFlow<T>>, absent: &'static str) -> Arc<Self> {
        let used = Mutex::new(Instant::now());
        Arc::new(Self { load, absent, held: tokio::sync::Mutex::default(), used })
    }

    async fn take(self: &Arc<Self>) -> Result<T, StudioError> {
        let load = self.load.clone().ok_or_else(|| StudioError::Model(self.absent.into()))?;
        let mut held = self.held.lock().await;
        *lock(&self.used) = Instant::now();
        if let Some(model) = &*held {
            return Ok(model.clone());
        }
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        let model = loaded.map_err(|error| StudioError::Model(error.to_string()))?.map_err(StudioError::Model)?;
        *held = Some(model.clone());
        let shelf = Arc::downgrade(self);
        tokio::spawn(async move {
            // Jobs that still work hold the model themselves.
            while let Some(shelf) = shelf.upgrade() {
                let free = *lock(&shelf.used) + IDLE;
                if free <= Instant::now() {
                    *shelf.held.lock().await = None;
                    return;
                }
                drop(shelf);
                tokio::time::sleep_until(free).await;
            }
        });
        Ok(model)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of a piece of work.
#[derive(Debug, Clone)]
pub enum FlowState {
    /// Parts done and to be done; `(0, 0)` while it waits.
    Working(usize, usize),
    /// Its sound.
    Done(Arc<Rendered>),
    /// Why there is none.
    Failed(String),
}

struct Entry {
    state: Arc<Mutex<FlowState>>,
    progress: watch::Receiver<(usize, usize)>,
    task: tokio::task::AbortHandle,
    since: Instant,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The flow models of a server.
pub struct Flows {
    engine: Engine,
    variations: Variations,
    transform: Arc<Shelf<TransformModel>>,
    looper: Arc<Shelf<LoopModel>>,
    work: Mutex<HashMap<Uuid, Entry>>,
}

impl Flows {
    /// With the ways to load each model, if there are any.
    pub fn new(
        engine: Engine,
        variations: Variations,
        transform: Option<LoadFlow<TransformModel>>,
        looper: Option<LoadFlow<LoopModel>>,
    ) -> Self {
        Self {
            engine,
            variations,
            transform: Shelf::new(transform, NO_TRANSFORM),
            looper: Shelf::new(looper, NO_LOOP),
            work: Mutex::default(),
        }
    }

    /// The presets of transforms.
    pub fn variations(&self) -> &Variations {
        &self.variations
    }

    /// Turns a sound into what `text` says; the answer is its id.
    ///
    /// # Errors
    /// [`StudioError::Model`] without the model, [`StudioError::Invalid`] for settings out of bounds.
    pub async fn transform(
        &self,
        sound: Sound,
        text: &str,
        settings: FlowSettings,
        seed: u64,
    ) -> Result<Uuid, StudioError> {
        settings.check().map_err(|error| StudioError::Invalid(error.to_string()))?;
        self.make_room()?;
        let model = self.transform.take().await?;
        let rate = SampleRate(model.config.codec.sample_rate);
        let sound = tokio::task::spawn_blocking(move || sound.stereo().at(rate)).await;
        let sound = sound.map_err(|error| StudioError::Audio(error.to_string()))?;
        let sound = sound.map_err(|error| StudioError::Audio(error.to_string()))?;
        let job = Transform::new(&model, &sound.pcm, text, settings, seed);
        let job = job.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
        Ok(self.begin(self.engine.solve(job)))
    }

    /// Makes a loop; the answer is its id.
    ///
    /// # Errors
    /// [`StudioError::Model`] without the model, [`StudioError::Invalid`] for a loop that does not fit.
    pub async fn make_loop(&self, spec: LoopSpec, settings: LoopSettings) -> Result<Uuid, StudioError> {
        self.make_room()?;
        let model = self.looper.take().await?;
        let job = MakeLoop::new(&model, spec, settings.on(&model), None);
        let job = job.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
        Ok(self.begin(self.engine.solve(job)))
    }

    /// What became of it; `None` for an id that is not known, or no longer.
    pub fn state(&self, id: Uuid) -> Option<FlowState> {
        let work = lock(&self.work);
        let entry = work.get(&id)?;
        let state = lock(&entry.state).clone();
        Some(match state {
            FlowState::Working(..) => {
                let (done, of) = *entry.progress.borrow();
                FlowState::Working(done, of)
            }
            other => other,
        })
    }

    /// Forgets it, and ends it if it is not done; says whether it was known.
    pub fn forget(&self, id: Uuid) -> bool {
        lock(&self.work).remove(&id).is_some()
    }

    fn make_room(&self) -> Result<(), StudioError> {
        let mut work = lock(&self.work);
        let working = |entry: &Entry| matches!(*lock(&entry.state), FlowState::Working(..));
        work.retain(|_, entry| working(entry) || entry.since.elapsed() < KEEP);
        if work.len() < MOST {
            return Ok(());
        }
        let done = work.iter().filter(|(_, entry)| !working(entry)).min_by_key(|(_, entry)| entry.since);
        match done.map(|(id, _)| *id) {
            Some(oldest) => {
                work.remove(&oldest);
                Ok(())
            }
            None => Err(StudioError::Invalid(format!("{MOST} transforms and loops wait already; try again later."))),
        }
    }

    fn begin(&self, solving: Solving<Rendered>) -> Uuid {
        let (id, progress) = (Uuid::new_v4(), solving.watch());
        let state = Arc::new(Mutex::new(FlowState::Working(0, 0)));
        let result = state.clone();
        let task = tokio::spawn(async move {
            let end = match solving.finish().await {
                Ok(rendered) => FlowState::Done(Arc::new(rendered)),
                Err(error) => FlowState::Failed(error.to_string()),
            };
            *lock(&result) = end;
        });
        let entry = Entry { state, progress, task: task.abort_handle(), since: Instant::now() };
        lock(&self.work).insert(id, entry);
        id
    }
}
