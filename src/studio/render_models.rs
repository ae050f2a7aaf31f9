//! The models of transforms and loops: loaded when first wanted, given back when nobody wants them for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Riffs, StudioError, Variations};
use crate::engine::{LoopInfo, LoopModel, TransformModel};

/// Loads a model; blocks. The error is one sentence.
pub type LoadRender<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// Bytes of memory that a model will take, more or less; 0 when that cannot be said. May block.
pub type WeighRender = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Time without a wish after which a model is given back.
const IDLE: Duration = Duration::from_secs(600);

const NO_TRANSFORM: &str = "This server has no transform model. Its weights are not part of Continuo: start the server with \
     --transform-model facebook/melodyflow-t24-30secs to let it download them once, or name a folder that holds them.";
const NO_LOOP: &str = "This server has no loop model. Its weights are not part of Continuo: accept their licence on \
     huggingface.co, log in with `hf auth login` and start the server with --loop-model \
     stabilityai/stable-audio-open-small, or name a folder that holds them.";

/// A model that several may use at the same time.
pub(super) trait Shared: Clone + Send + Sync + 'static {
    /// How many do.
    fn users(&self) -> usize;
}

impl<M: Send + Sync + 'static> Shared for Arc<M> {
    fn users(&self) -> usize {
        Arc::strong_count(self)
    }
}

/// A model that is there when it is wanted.
pub(super) struct Shelf<T> {
    load: Option<LoadRender<T>>,
    absent: &'static str,
    weigh: OnceLock<WeighRender>,
    /// Bytes, once they were asked for.
    bytes: AtomicU64,
    held: tokio::sync::Mutex<Option<T>>,
    used: Mutex<Instant>,
}

impl<T: Shared> Shelf<T> {
    fn new(load: Option<LoadRender<T>>, absent: &'static str) -> Arc<Self> {
        let used = Mutex::new(Instant::now());
        Arc::new(Self {
            load,
            absent,
            weigh: OnceLock::new(),
            bytes: AtomicU64::new(0),
            held: tokio::sync::Mutex::default(),
            used,
        })
    }

    /// Bytes of memory that it takes, or will take, more or less. May block.
    pub(super) fn weight(&self) -> u64 {
        let bytes = self.weigh.get().map_or(0, |weigh| weigh());
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Bytes of memory that it takes now.
    fn bytes(&self) -> u64 {
        if self.is_held() { self.bytes.load(Ordering::Relaxed) } else { 0 }
    }

    /// When it was last wanted, if it is loaded and nobody uses it.
    fn idle_since(&self) -> Option<Instant> {
        let held = self.held.try_lock().ok()?;
        held.as_ref().filter(|model| model.users() == 1).map(|_| *lock(&self.used))
    }

    /// Gives it back; jobs that work keep theirs until they are done.
    fn release(&self) -> bool {
        self.held.try_lock().is_ok_and(|mut held| held.take().is_some())
    }

    /// The way to load it.
    ///
    /// # Errors
    /// [`StudioError::Absent`] when there is none.
    pub(super) fn loader(&self) -> Result<&LoadRender<T>, StudioError> {
        self.load.as_ref().ok_or(StudioError::Absent(self.absent))
    }

    /// Whether it is loaded.
    pub(super) fn is_held(&self) -> bool {
        // Whoever holds the lock is loading it.
        self.held.try_lock().is_ok_and(|held| held.is_some())
    }

    /// The model, loaded if need be. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Model`].
    pub(super) async fn take(self: &Arc<Self>) -> Result<T, StudioError> {
        let load = Arc::clone(self.loader()?);
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

/// Weights of the loop model that somebody has trained further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FineTune {
    /// Their Hugging Face repository.
    pub repo: String,
    /// The file in it.
    pub checkpoint: String,
}

/// Where fine-tunes come from; all of it blocks, and errors are one sentence.
pub trait FineTunes: Send + Sync {
    /// Loads one.
    ///
    /// # Errors
    /// What is missing or wrong.
    fn load(&self, which: &FineTune) -> Result<LoopModel, String>;

    /// Names of the checkpoints in a repository.
    ///
    /// # Errors
    /// Why the repository cannot be looked into.
    fn checkpoints(&self, repo: &str) -> Result<Vec<String>, String>;

    /// Prompts that a repository proposes, in its own words.
    fn prompts(&self, repo: &str) -> Option<serde_json::Value>;
}

/// The loop models that may be loaded; `None` is the one that the server was started with.
type Loops = Vec<(Option<FineTune>, Arc<Shelf<LoopModel>>)>;

/// The flow models of a server, the presets of transforms and the riffs of loops; clones share them.
#[derive(Clone)]
pub struct RenderModels {
    variations: Arc<Variations>,
    pub(super) transform: Arc<Shelf<TransformModel>>,
    /// The latest used last.
    loops: Arc<Mutex<Loops>>,
    tuned: Option<Arc<dyn FineTunes>>,
    source: Arc<str>,
    riffs: Riffs,
}

impl RenderModels {
    /// With the ways to load each model, if there are any.
    pub fn new(
        variations: Variations,
        transform: Option<LoadRender<TransformModel>>,
        looper: Option<LoadRender<LoopModel>>,
    ) -> Self {
        Self {
            variations: Arc::new(variations),
            transform: Shelf::new(transform, NO_TRANSFORM),
            loops: Arc::new(Mutex::new(vec![(None, Shelf::new(looper, NO_LOOP))])),
            tuned: None,
            source: "".into(),
            riffs: Riffs::default(),
        }
    }

    /// With the loop model's name, and a way to its fine-tunes.
    #[must_use]
    pub fn with_fine_tunes(self, source: &str, tuned: Arc<dyn FineTunes>) -> Self {
        Self { source: source.into(), tuned: Some(tuned), ..self }
    }

    /// With a folder of riffs.
    #[must_use]
    pub fn with_riffs(self, riffs: Riffs) -> Self {
        Self { riffs, ..self }
    }

    /// With the ways to know what memory the models will take; a fine-tune takes what the loop model does.
    #[must_use]
    pub fn weighed(self, transform: WeighRender, looper: WeighRender) -> Self {
        // Both are set once, before anything is loaded.
        let _ = self.transform.weigh.set(transform);
        for (_, shelf) in lock(&self.loops).iter() {
            let _ = shelf.weigh.set(Arc::clone(&looper));
        }
        self
    }

    /// Bytes of what is loaded.
    pub(super) fn bytes(&self) -> u64 {
        self.transform.bytes() + lock(&self.loops).iter().map(|(_, shelf)| shelf.bytes()).sum::<u64>()
    }

    /// Gives back the model that nobody uses and that was not wanted for longest; says whether there was one.
    pub(super) fn release_idle(&self) -> bool {
        let loops = lock(&self.loops);
        let transform = self.transform.idle_since().map(|since| (since, None));
        let idle = loops.iter().enumerate().filter_map(|(index, (_, shelf))| Some((shelf.idle_since()?, Some(index))));
        match transform.into_iter().chain(idle).min() {
            None => false,
            Some((_, None)) => self.transform.release(),
            Some((_, Some(index))) => loops[index].1.release(),
        }
    }

    /// The presets of transforms.
    pub fn variations(&self) -> &Variations {
        &self.variations
    }

    /// The user's riffs.
    pub fn riffs(&self) -> &Riffs {
        &self.riffs
    }

    /// Where fine-tunes come from, if from anywhere.
    ///
    /// # Errors
    /// [`StudioError::Absent`] without a loop model, [`StudioError::Invalid`] on a server that cannot load any.
    pub fn fine_tunes(&self) -> Result<Arc<dyn FineTunes>, StudioError> {
        self.held_loops()?;
        self.tuned.clone().ok_or_else(|| StudioError::Invalid("This server loads no fine-tunes.".into()))
    }

    /// The name that the loop model was given.
    pub fn loop_source(&self) -> &str {
        &self.source
    }

    /// Whether the transform model is loaded.
    ///
    /// # Errors
    /// [`StudioError::Absent`] when this server has none.
    pub fn transform_is_held(&self) -> Result<bool, StudioError> {
        self.transform.loader()?;
        Ok(self.transform.is_held())
    }

    /// Where a loop model is, or will be.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Invalid`].
    pub(super) fn loop_shelf(&self, which: Option<&FineTune>) -> Result<Arc<Shelf<LoopModel>>, StudioError> {
        let mut loops = lock(&self.loops);
        let standard = loops.iter().find(|(known, _)| known.is_none()).map(|(_, shelf)| Arc::clone(shelf));
        standard.ok_or(StudioError::Absent(NO_LOOP))?.loader()?;
        if let Some(index) = loops.iter().position(|(known, _)| known.as_ref() == which) {
            let used = loops.remove(index);
            let shelf = Arc::clone(&used.1);
            loops.push(used);
            return Ok(shelf);
        }
        let (Some(which), Some(tuned)) = (which.cloned(), self.tuned.clone()) else {
            return Err(StudioError::Invalid("This server loads no fine-tunes.".into()));
        };
        if loops.len() >= MOST_LOOPS
            && let Some(oldest) = loops.iter().position(|(known, _)| known.is_some())
        {
            loops.remove(oldest);
        }
        let load: LoadRender<LoopModel> = {
            let which = which.clone();
            Arc::new(move || tuned.load(&which))
        };
        let shelf = Shelf::new(Some(load), NO_LOOP);
        let weigh = loops.iter().find_map(|(_, shelf)| shelf.weigh.get().cloned());
        if let Some(weigh) = weigh {
            // It is new: nobody has set it yet.
            let _ = shelf.weigh.set(weigh);
        }
        loops.push((Some(which), Arc::clone(&shelf)));
        Ok(shelf)
    }

    /// The loop models that are loaded, the latest used last.
    ///
    /// # Errors
    /// [`StudioError::Absent`].
    pub fn held_loops(&self) -> Result<Vec<(Option<FineTune>, LoopInfo)>, StudioError> {
        let loops = lock(&self.loops);
        if let Some((_, standard)) = loops.iter().find(|(known, _)| known.is_none()) {
            standard.loader()?;
        }
        let held = |(which, shelf): &(Option<FineTune>, Arc<Shelf<LoopModel>>)| {
            let info = LoopInfo::of(shelf.held.try_lock().ok()?.as_ref()?);
            Some((which.clone(), info))
        };
        Ok(loops.iter().filter_map(held).collect())
    }

    /// Gives back every loop model that is loaded; jobs that work keep theirs until they are done.
    pub async fn clear_loops(&self) {
        let shelves: Vec<_> = lock(&self.loops).iter().map(|(_, shelf)| Arc::clone(shelf)).collect();
        for shelf in shelves {
            *shelf.held.lock().await = None;
        }
    }
}

/// Loop models that may be loaded at the same time.
pub const MOST_LOOPS: usize = 3;

impl std::fmt::Debug for RenderModels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenderModels").field("transform", &self.transform.load.is_some()).finish_non_exhaustive()
    }
}

impl Default for RenderModels {
    /// The built-in presets and no models.
    fn default() -> Self {
        Self::new(Variations::default(), None, None)
    }
}
