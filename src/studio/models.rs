//! Models that clips ask for: loaded when first wanted, a few stay, the one unused for longest goes.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::StudioError;
use crate::engine::{Engine, EngineError};
use crate::units::ModelId;

/// Loads a model by name and adds it to the engine. The error is one sentence.
pub type LoadModel = Arc<dyn Fn(String) -> BoxFuture<'static, Result<ModelId, String>> + Send + Sync>;

pub(super) struct Models {
    engine: Engine,
    loader: Option<LoadModel>,
    resident: usize,
    /// One model is loaded at a time: two at once could need twice the memory.
    loading: tokio::sync::Mutex<()>,
    /// Those that were loaded here, the latest used last.
    shelf: Arc<Mutex<Vec<Entry>>>,
}

struct Entry {
    id: ModelId,
    users: usize,
}

/// A model in use; it is not unloaded before this is dropped.
pub(super) struct Lease {
    pub(super) id: ModelId,
    shelf: Arc<Mutex<Vec<Entry>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shelf.iter_mut().find(|entry| entry.id == self.id) {
            entry.users -= 1;
        }
    }
}

impl Models {
    pub(super) fn new(engine: Engine, loader: Option<LoadModel>, resident: usize) -> Self {
        Self {
            engine,
            loader,
            resident: resident.max(1),
            loading: tokio::sync::Mutex::default(),
            shelf: Arc::default(),
        }
    }

    /// Makes sure that a model is loaded; `None` is the engine's default.
    ///
    /// # Errors
    /// [`StudioError::Model`] when it cannot be loaded.
    pub(super) async fn lease(&self, name: Option<&str>) -> Result<Lease, StudioError> {
        let _one_at_a_time = self.loading.lock().await;
        let loaded = self.engine.models();
        let found = match name {
            None => loaded.first(),
            Some(name) => loaded.iter().find(|model| model.id.0 == name),
        };
        let id = match (found, name) {
            (Some(model), _) => model.id.clone(),
            (None, None) => return Err(StudioError::Model("The engine has no model.".into())),
            (None, Some(name)) => {
                let Some(loader) = &self.loader else {
                    return Err(EngineError::UnknownModel(ModelId(name.to_owned())).into());
                };
                self.make_room().await;
                let id = loader(name.to_owned()).await.map_err(StudioError::Model)?;
                self.shelf().push(Entry { id: id.clone(), users: 0 });
                id
            }
        };
        let mut shelf = self.shelf();
        if let Some(index) = shelf.iter().position(|entry| entry.id == id) {
            let mut entry = shelf.remove(index);
            entry.users += 1;
            shelf.push(entry);
        }
        Ok(Lease { id, shelf: self.shelf.clone() })
    }

    /// Unloads what was not used for longest, until one more fits.
    async fn make_room(&self) {
        loop {
            let oldest = {
                let mut shelf = self.shelf();
                if shelf.len() < self.resident {
                    return;
                }
                let Some(index) = shelf.iter().position(|entry| entry.users == 0) else { return };
                shelf.remove(index).id
            };
            tracing::info!(model = %oldest, "unloaded: it was not used for longest");
            if let Err(error) = self.engine.remove_model(&oldest).await {
                // It was made the default meanwhile, or removed: then it is not ours any more.
                tracing::debug!(%error, "a model was not unloaded");
            }
        }
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
