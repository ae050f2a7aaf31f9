//! The models of transforms and loops: loaded when first wanted, given back when nobody wants them for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{StudioError, Variations};
use crate::engine::{LoopModel, TransformModel};

/// Loads a model; blocks. The error is one sentence.
pub type LoadFlow<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// Time without a wish after which a model is given back.
const IDLE: Duration = Duration::from_secs(600);

const NO_TRANSFORM: &str = "This server has no transform model. Its weights are not part of Continuo: start the server with \
     --transform-model facebook/melodyflow-t24-30secs to let it download them once, or name a folder that holds them.";
const NO_LOOP: &str = "This server has no loop model. Its weights are not part of Continuo: accept their licence on \
     huggingface.co, log in with `hf auth login` and start the server with --loop-model \
     stabilityai/stable-audio-open-small, or name a folder that holds them.";

/// A model that is there when it is wanted.
pub(super) struct Shelf<T> {
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

    /// The way to load it.
    ///
    /// # Errors
    /// [`StudioError::Absent`] when there is none.
    pub(super) fn loader(&self) -> Result<&LoadFlow<T>, StudioError> {
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

/// The flow models of a server, and the presets of transforms; clones share them.
#[derive(Clone)]
pub struct Flows {
    variations: Arc<Variations>,
    pub(super) transform: Arc<Shelf<TransformModel>>,
    pub(super) looper: Arc<Shelf<LoopModel>>,
}

impl Flows {
    /// With the ways to load each model, if there are any.
    pub fn new(
        variations: Variations,
        transform: Option<LoadFlow<TransformModel>>,
        looper: Option<LoadFlow<LoopModel>>,
    ) -> Self {
        Self {
            variations: Arc::new(variations),
            transform: Shelf::new(transform, NO_TRANSFORM),
            looper: Shelf::new(looper, NO_LOOP),
        }
    }

    /// The presets of transforms.
    pub fn variations(&self) -> &Variations {
        &self.variations
    }

    /// Whether the transform model is loaded.
    ///
    /// # Errors
    /// [`StudioError::Absent`] when this server has none.
    pub fn transform_is_held(&self) -> Result<bool, StudioError> {
        self.transform.loader()?;
        Ok(self.transform.is_held())
    }
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let there = (self.transform.load.is_some(), self.looper.load.is_some());
        f.debug_struct("Flows").field("transform", &there.0).field("looper", &there.1).finish_non_exhaustive()
    }
}

impl Default for Flows {
    /// The built-in presets and no models.
    fn default() -> Self {
        Self::new(Variations::default(), None, None)
    }
}
