//! Models that are loaded when they are wanted: voices', transforms', loops', in one place and
//! within one budget.
//!
//! Whoever works with a model holds a lease of it. When there is no memory for one more, that goes
//! which nobody holds and which was not wanted for longest; a lease's end wakes whoever waits for
//! memory. One model is loaded at a time, whoever wants it: two at once could need twice the
//! memory.

mod lease;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use lease::Hold;
pub use lease::{RenderLease, VoiceLease};
use shelf::{Evicted, Key, Shelf};

use super::{Engine, RenderInfo, RenderKey, RenderModel};
use crate::units::{ModelId, WeightFormat};

/// Time without a wish after which a model that renders is given back.
const IDLE: Duration = Duration::from_secs(600);

/// A wish for a model that voices play on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRequest {
    /// A Hugging Face id, a folder, or `bundled`.
    pub model: String,
    /// How its weights are kept; `None` is the loader's choice, or what is there already.
    pub format: Option<WeightFormat>,
}

/// A question about a model. The error is one sentence.
pub type AskModel<T> = Arc<dyn Fn(ModelRequest) -> BoxFuture<'static, Result<T, String>> + Send + Sync>;

/// How voices' models come in: in two steps, so that room is made between them.
#[derive(Clone)]
pub struct VoiceLoader {
    /// Bytes of memory that it will take, more or less.
    pub weigh: AskModel<u64>,
    /// Loads it, fetching its files if need be, and adds it to the engine.
    pub load: AskModel<ModelId>,
}

/// How a model that renders comes in. Both block.
#[derive(Clone)]
pub struct RenderLoader {
    weigh: Arc<dyn Fn() -> u64 + Send + Sync>,
    load: Arc<dyn Fn() -> Result<RenderModel, String> + Send + Sync>,
}

impl RenderLoader {
    /// Loads by `load`, whose error is one sentence; nobody knows how much memory it takes.
    pub fn new(load: impl Fn() -> Result<RenderModel, String> + Send + Sync + 'static) -> Self {
        Self { weigh: Arc::new(|| 0), load: Arc::new(load) }
    }

    /// With a way to know its bytes of memory, more or less; 0 when that cannot be said.
    #[must_use]
    pub fn weighed(self, weigh: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { weigh: Arc::new(weigh), ..self }
    }

    /// Another model that takes as much memory.
    #[must_use]
    pub fn of_same_weight(&self, load: impl Fn() -> Result<RenderModel, String> + Send + Sync + 'static) -> Self {
        Self { weigh: Arc::clone(&self.weigh), load: Arc::new(load) }
    }
}

/// Why a model is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResidentError {
    /// It is not loaded, and there is no way to load it.
    #[error("The model `{0}` is not loaded.")]
    NoLoader(String),
    /// It cannot be loaded, or would never fit; a sentence says why.
    #[error("{0}")]
    Failed(String),
}

/// The models of a server beside its first; clones share them.
#[derive(Clone)]
pub struct ResidentModels(Arc<Inner>);

struct Inner {
    engine: Engine,
    voices: Option<VoiceLoader>,
    /// Bytes for all models, the engine's first included.
    budget: u64,
    loading: tokio::sync::Mutex<()>,
    /// Models that were loaded for a lease; others are the operator's and stay.
    shelf: Shelf,
    /// A lease has ended.
    returned: Notify,
}

impl ResidentModels {
    /// None yet, for `budget` bytes of them.
    pub fn new(engine: Engine, voices: Option<VoiceLoader>, budget: u64) -> Self {
        let (loading, shelf, returned) = (tokio::sync::Mutex::default(), Shelf::default(), Notify::new());
        Self(Arc::new(Inner { engine, voices, budget, loading, shelf, returned }))
    }

    /// Makes sure that a voices' model is loaded; `None` is the engine's default. Waits for others
    /// to be done with theirs when there is no memory for one more.
    ///
    /// # Errors
    /// [`ResidentError`].
    pub async fn lease_voices(&self, name: Option<&str>) -> Result<VoiceLease, ResidentError> {
        if let Some(lease) = self.present(name) {
            return Ok(lease);
        }
        let name = name.ok_or_else(|| ResidentError::Failed("The engine has no model.".into()))?;
        let loader = self.voice_loader(name)?;
        let _one_at_a_time = self.0.loading.lock().await;
        self.forget_the_gone();
        if let Some(lease) = self.present(Some(name)) {
            return Ok(lease);
        }
        let id = self.bring_in(loader, ModelRequest { model: name.to_owned(), format: None }).await?;
        let key = Key::Voices(id.clone());
        self.0.shelf.add(key.clone(), None, 0);
        Ok(VoiceLease { id, _hold: self.hold(key) })
    }

    /// Loads a voices' model for its operator: it stays until he removes it. Does nothing when it
    /// is loaded in the wanted format.
    ///
    /// # Errors
    /// [`ResidentError`].
    pub async fn load_voices(&self, request: ModelRequest) -> Result<ModelId, ResidentError> {
        let _one_at_a_time = self.0.loading.lock().await;
        self.forget_the_gone();
        let loaded = self.0.engine.models().into_iter().find(|info| info.id.0 == request.model);
        if let Some(info) = loaded
            && request.format.is_none_or(|format| format == info.format)
            && let Some(lease) = self.present(Some(&request.model))
        {
            self.0.shelf.hand_over(&Key::Voices(lease.id.clone()));
            return Ok(lease.id.clone());
        }
        let id = self.bring_in(self.voice_loader(&request.model)?, request).await?;
        self.0.shelf.hand_over(&Key::Voices(id.clone()));
        Ok(id)
    }

    /// A model that renders, loaded if need be. Waits as [`ResidentModels::lease_voices`] does.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ResidentError::Failed`].
    pub async fn lease_render(&self, key: &RenderKey, loader: &RenderLoader) -> Result<RenderLease, ResidentError> {
        if let Some(lease) = self.held_render(key) {
            return Ok(lease);
        }
        let _one_at_a_time = self.0.loading.lock().await;
        self.forget_the_gone();
        if let Some(lease) = self.held_render(key) {
            return Ok(lease);
        }
        let RenderLoader { weigh, load } = loader.clone();
        let failed = |error: tokio::task::JoinError| ResidentError::Failed(error.to_string());
        let bytes = tokio::task::spawn_blocking(move || weigh()).await.map_err(failed)?;
        self.make_room("The model of transforms or loops", bytes).await?;
        let loaded = tokio::task::spawn_blocking(move || load()).await.map_err(failed)?;
        let model = loaded.map_err(ResidentError::Failed)?;
        let shelved = Key::Render(key.clone());
        self.0.shelf.add(shelved.clone(), Some(Arc::clone(&model)), bytes);
        self.retire_when_idle(shelved.clone());
        Ok(RenderLease { model, hold: self.hold(shelved) })
    }

    /// The loaded models that render, the latest wanted last.
    pub fn renders(&self) -> Vec<(RenderKey, RenderInfo)> {
        self.0.shelf.renders()
    }

    /// Gives a model that renders back; work that is being done keeps it until its end.
    pub fn release(&self, key: &RenderKey) {
        self.0.shelf.release(&Key::Render(key.clone()));
    }

    fn voice_loader(&self, name: &str) -> Result<&VoiceLoader, ResidentError> {
        self.0.voices.as_ref().ok_or_else(|| ResidentError::NoLoader(name.to_owned()))
    }

    /// Under the lock of loading.
    async fn bring_in(&self, loader: &VoiceLoader, request: ModelRequest) -> Result<ModelId, ResidentError> {
        let need = (loader.weigh)(request.clone()).await.map_err(ResidentError::Failed)?;
        self.make_room(&format!("`{}`", request.model), need).await?;
        (loader.load)(request).await.map_err(ResidentError::Failed)
    }

    fn hold(&self, key: Key) -> Hold {
        Hold { key, models: Arc::clone(&self.0) }
    }

    /// A voices' model that is loaded and not about to leave.
    fn present(&self, name: Option<&str>) -> Option<VoiceLease> {
        let loaded = self.0.engine.models();
        let found = match name {
            None => loaded.first(),
            Some(name) => loaded.iter().find(|model| model.id.0 == name),
        };
        let id = found?.id.clone();
        let key = Key::Voices(id.clone());
        self.0.shelf.hold_voices(&key).then(|| VoiceLease { id, _hold: self.hold(key) })
    }

    fn held_render(&self, key: &RenderKey) -> Option<RenderLease> {
        let key = Key::Render(key.clone());
        let model = self.0.shelf.hold_render(&key)?;
        Some(RenderLease { model, hold: self.hold(key) })
    }

    /// Whoever wanted to unload a model has done so, or was cancelled.
    fn forget_the_gone(&self) {
        self.0.shelf.keep_loaded(&self.0.engine.models());
    }

    /// Unloads what was not wanted for longest, until `need` bytes are free. Under the lock of
    /// loading.
    async fn make_room(&self, name: &str, need: u64) -> Result<(), ResidentError> {
        let Inner { engine, shelf, budget, returned, .. } = &*self.0;
        // Streams play on these: they cannot go.
        let mut playing: HashSet<ModelId> = HashSet::new();
        loop {
            let voices: u64 = engine.models().iter().map(|model| model.bytes).sum();
            if voices + shelf.render_bytes() + need <= *budget {
                return Ok(());
            }
            let fixed = shelf.fixed(&engine.models(), &playing);
            if fixed + need > *budget {
                return Err(too_large(name, need, *budget, fixed));
            }
            match shelf.evict(&playing) {
                None => returned.notified().await,
                Some(Evicted::Render(key)) => tracing::info!(?key, "unloaded: it was not used for longest"),
                Some(Evicted::Voices(id)) => match engine.remove_model(&id).await {
                    Ok(()) => tracing::info!(model = %id, "unloaded: it was not used for longest"),
                    Err(error) => {
                        tracing::debug!(%error, "a model was not unloaded");
                        playing.insert(id);
                    }
                },
            }
            self.forget_the_gone();
        }
    }

    /// Gives a model back once nobody has wanted it for a while.
    fn retire_when_idle(&self, key: Key) {
        let models = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(wanted) = models.upgrade().and_then(|models| models.shelf.wanted(&key)) {
                let idle = wanted + IDLE;
                if idle > Instant::now() {
                    tokio::time::sleep_until(idle).await;
                    continue;
                }
                if let Some(models) = models.upgrade() {
                    models.shelf.release(&key);
                }
                // Somebody may still work with it, and want it again.
                tokio::time::sleep(IDLE).await;
            }
        });
    }
}

fn too_large(name: &str, need: u64, budget: u64, fixed: u64) -> ResidentError {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    ResidentError::Failed(format!(
        "{name} needs about {:.1} GB, but models may take {:.1} GB on this server, {:.1} GB of which cannot be freed \
         now; start it with a larger --model-memory, or use a smaller model.",
        gigabytes(need),
        gigabytes(budget),
        gigabytes(fixed)
    ))
}
