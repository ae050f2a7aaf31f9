//! Models that clips ask for: loaded when first wanted, kept while there is memory, the one unused for longest goes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::render_models::{Shared, Shelf as RenderShelf};
use super::{RenderModels, StudioError};
use crate::engine::{Engine, EngineError};
use crate::units::ModelId;

/// How long to wait for memory before looking again.
const AGAIN: Duration = Duration::from_millis(200);

/// A question about a model, by its name. The error is one sentence.
pub type AskModel<T> = Arc<dyn Fn(String) -> BoxFuture<'static, Result<T, String>> + Send + Sync>;

/// How models come in: in two steps, so that room is made between them.
#[derive(Clone)]
pub struct LoadModel {
    /// Bytes of memory that it will take, more or less; fetches its files if need be.
    pub weigh: AskModel<u64>,
    /// Loads it and adds it to the engine.
    pub load: AskModel<ModelId>,
}

pub(super) struct Models {
    engine: Engine,
    /// Models of transforms and loops share the memory.
    renders: RenderModels,
    loader: Option<LoadModel>,
    /// Bytes for all models of the engine.
    budget: u64,
    /// One model is loaded at a time: two at once could need twice the memory.
    loading: tokio::sync::Mutex<()>,
    shelf: Arc<Shelf>,
}

/// Models that were loaded here; others are the operator's and stay.
#[derive(Default)]
struct Shelf {
    /// The latest used last.
    entries: Mutex<Vec<Entry>>,
    /// A lease has ended.
    returned: Notify,
}

struct Entry {
    id: ModelId,
    users: usize,
    /// It is being unloaded.
    leaving: bool,
}

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model in use; it is not unloaded before this is dropped.
pub(super) struct Lease {
    pub(super) id: ModelId,
    shelf: Arc<Shelf>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(entry) = self.shelf.entries().iter_mut().find(|entry| entry.id == self.id) {
            entry.users = entry.users.saturating_sub(1);
        }
        self.shelf.returned.notify_one();
    }
}

impl Models {
    pub(super) fn new(engine: Engine, renders: RenderModels, loader: Option<LoadModel>, budget: u64) -> Self {
        Self { engine, renders, loader, budget, loading: tokio::sync::Mutex::default(), shelf: Arc::default() }
    }

    /// Makes sure that a model is loaded; `None` is the engine's default. Waits for others to be done with theirs when
    /// there is no memory for one more.
    ///
    /// # Errors
    /// [`StudioError::Model`] when it cannot be loaded, or would never fit.
    pub(super) async fn lease(&self, name: Option<&str>) -> Result<Lease, StudioError> {
        if let Some(lease) = self.present(name) {
            return Ok(lease);
        }
        let name = name.ok_or_else(|| StudioError::Model("The engine has no model.".into()))?;
        let Some(loader) = &self.loader else {
            return Err(EngineError::UnknownModel(ModelId(name.to_owned())).into());
        };
        let _one_at_a_time = self.loading.lock().await;
        // Whoever wanted to unload one has done so, or was cancelled.
        self.forget_the_gone();
        if let Some(lease) = self.present(Some(name)) {
            return Ok(lease);
        }
        let need = (loader.weigh)(name.to_owned()).await.map_err(StudioError::Model)?;
        self.make_room(&format!("`{name}`"), need).await?;
        let id = (loader.load)(name.to_owned()).await.map_err(StudioError::Model)?;
        self.shelf.entries().push(Entry { id: id.clone(), users: 1, leaving: false });
        Ok(Lease { id, shelf: Arc::clone(&self.shelf) })
    }

    /// Loads a model for its operator: it stays until he removes it.
    ///
    /// # Errors
    /// As [`Models::lease`].
    pub(super) async fn load_with(
        &self,
        name: &str,
        again: bool,
        load: impl Future<Output = Result<ModelId, String>>,
    ) -> Result<ModelId, StudioError> {
        let _one_at_a_time = self.loading.lock().await;
        self.forget_the_gone();
        if let Some(lease) = self.present(Some(name)).filter(|_| !again) {
            return Ok(lease.id.clone());
        }
        if let Some(loader) = &self.loader {
            let need = (loader.weigh)(name.to_owned()).await.map_err(StudioError::Model)?;
            self.make_room(&format!("`{name}`"), need).await?;
        }
        load.await.map_err(StudioError::Model)
    }

    /// A model of transforms or loops, loaded if need be.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Model`] when it cannot be loaded, or would never fit.
    pub(super) async fn lease_render<T: Shared>(&self, shelf: &Arc<RenderShelf<T>>) -> Result<T, StudioError> {
        shelf.loader()?;
        if shelf.is_held() {
            return shelf.take().await;
        }
        let _one_at_a_time = self.loading.lock().await;
        if !shelf.is_held() {
            self.forget_the_gone();
            let weighed = Arc::clone(shelf);
            let need = tokio::task::spawn_blocking(move || weighed.weight()).await;
            let need = need.map_err(|error| StudioError::Model(error.to_string()))?;
            self.make_room("The model of transforms or loops", need).await?;
        }
        shelf.take().await
    }

    /// A model that is loaded and stays.
    fn present(&self, name: Option<&str>) -> Option<Lease> {
        let mut entries = self.shelf.entries();
        let loaded = self.engine.models();
        let found = match name {
            None => loaded.first(),
            Some(name) => loaded.iter().find(|model| model.id.0 == name),
        };
        let id = found?.id.clone();
        if let Some(index) = entries.iter().position(|entry| entry.id == id) {
            if entries[index].leaving {
                return None;
            }
            let mut entry = entries.remove(index);
            entry.users += 1;
            entries.push(entry);
        }
        Some(Lease { id, shelf: Arc::clone(&self.shelf) })
    }

    fn forget_the_gone(&self) {
        let mut entries = self.shelf.entries();
        let loaded = self.engine.models();
        entries.retain(|entry| entry.users > 0 || loaded.iter().any(|model| model.id == entry.id));
        entries.iter_mut().for_each(|entry| entry.leaving = false);
    }

    /// Unloads what was not used for longest, until `need` bytes are free.
    async fn make_room(&self, name: &str, need: u64) -> Result<(), StudioError> {
        // Streams play on these: they cannot go.
        let mut playing: HashSet<ModelId> = HashSet::new();
        loop {
            let held: u64 = self.engine.models().iter().map(|model| model.bytes).sum();
            if held + self.renders.bytes() + need <= self.budget {
                return Ok(());
            }
            if self.fixed(&playing) + need > self.budget {
                return Err(self.too_large(name, need, self.fixed(&playing)));
            }
            if self.renders.release_idle() {
                tracing::info!("a model of transforms or loops was unloaded: nobody used it");
                continue;
            }
            let oldest = {
                let mut entries = self.shelf.entries();
                let free = entries.iter_mut().find(|entry| entry.users == 0 && !playing.contains(&entry.id));
                free.map(|entry| {
                    entry.leaving = true;
                    entry.id.clone()
                })
            };
            let Some(oldest) = oldest else {
                // A lease ends and says so, or a job is done with its model and does not.
                tokio::select! {
                    () = self.shelf.returned.notified() => {}
                    () = tokio::time::sleep(AGAIN) => {}
                }
                continue;
            };
            match self.engine.remove_model(&oldest).await {
                Ok(()) => tracing::info!(model = %oldest, "unloaded: it was not used for longest"),
                Err(error) => {
                    tracing::debug!(%error, "a model was not unloaded");
                    playing.insert(oldest);
                }
            }
            self.forget_the_gone();
        }
    }

    /// Bytes of models that are not for us to unload.
    fn fixed(&self, playing: &HashSet<ModelId>) -> u64 {
        let entries = self.shelf.entries();
        let ours = |id: &ModelId| entries.iter().any(|entry| entry.id == *id) && !playing.contains(id);
        self.engine.models().iter().filter(|model| !ours(&model.id)).map(|model| model.bytes).sum()
    }

    fn too_large(&self, name: &str, need: u64, fixed: u64) -> StudioError {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        StudioError::Model(format!(
            "{name} needs about {:.1} GB, but models may take {:.1} GB on this server, {:.1} GB of which cannot be \
             freed now; start it with a larger --model-memory, or use a smaller model.",
            gigabytes(need),
            gigabytes(self.budget),
            gigabytes(fixed)
        ))
    }
}
