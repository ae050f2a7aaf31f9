//! What the engine thread tells everybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::loaded_model::ListedModel;
use super::{EngineError, EngineStatus};
use crate::units::ModelId;

/// What the engine thread tells everybody.
pub(super) struct EngineShared {
    /// Loaded models, the default first.
    pub(super) models: Mutex<Vec<ListedModel>>,
    pub(super) status: Mutex<EngineStatus>,
    /// Makes the seeds of voices that asked for none differ.
    pub(super) seeds: AtomicU64,
    /// See [`Engine::set_upkeep`], as `f64` bits.
    pub(super) upkeep: AtomicU64,
}

/// A lock that a panicking holder cannot poison for others: the boards hold plain values that are
/// replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EngineShared {
    pub(super) fn default_model(&self) -> ModelId {
        lock(&self.models).first().map_or_else(|| ModelId(String::new()), |model| model.info.id.clone())
    }

    /// A loaded model, or the default one.
    pub(super) fn model(&self, id: Option<&ModelId>) -> Result<ListedModel, EngineError> {
        let models = lock(&self.models);
        let found = match id {
            Some(id) => models.iter().find(|model| model.info.id == *id),
            None => models.first(),
        };
        let unknown = || EngineError::UnknownModel(id.cloned().unwrap_or_else(|| ModelId("default".into())));
        found.cloned().ok_or_else(unknown)
    }

    pub(super) fn set_models(&self, mut models: Vec<ListedModel>) {
        let mut shared = lock(&self.models);
        let default = shared.first().map(|model| model.info.id.clone());
        models.sort_by_key(|model| Some(&model.info.id) != default.as_ref());
        *shared = models;
    }

    pub(super) fn upkeep(&self) -> f64 {
        f64::from_bits(self.upkeep.load(Ordering::Relaxed))
    }

    pub(super) fn set_status(&self, status: EngineStatus) {
        *lock(&self.status) = status;
    }
}
