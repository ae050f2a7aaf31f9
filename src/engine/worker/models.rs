//! The models that the thread owns.

use std::sync::Arc;

use super::Worker;
use crate::engine::loaded_model::LoadedModel;
use crate::engine::{EngineError, ModelInfo};
use crate::units::ModelId;

impl Worker {
    pub(super) fn model(&self, id: &ModelId) -> Result<usize, EngineError> {
        self.models
            .iter()
            .position(|model| model.info.id == *id && !model.retired)
            .ok_or_else(|| EngineError::UnknownModel(id.clone()))
    }

    pub(super) fn model_of(&self, info: &Arc<ModelInfo>) -> usize {
        // A model is removed only after its last voice.
        self.models.iter().position(|model| Arc::ptr_eq(&model.info, info)).unwrap_or(0)
    }

    pub(super) fn add_model(&mut self, model: LoadedModel) -> Result<(), EngineError> {
        if let Some(reason) = &self.lost {
            return Err(EngineError::DeviceLost(reason.clone()));
        }
        for old in self.models.iter_mut().filter(|old| old.info.id == model.info.id) {
            old.retired = true;
        }
        self.models.push(model);
        self.drop_retired();
        self.shared.set_models(self.models.iter().filter(|model| !model.retired).map(LoadedModel::listed).collect());
        Ok(())
    }

    pub(super) fn remove_model(&mut self, id: &ModelId) -> Result<(), EngineError> {
        let model = self.model(id)?;
        if self.shared.default_model() == *id {
            return Err(EngineError::Invalid(format!("`{id}` is the default model; choose another one first.")));
        }
        let info = &self.models[model].info;
        if self.voices.iter().any(|voice| Arc::ptr_eq(&voice.info, info)) {
            return Err(EngineError::Invalid(format!("`{id}` is playing; it can be removed when nobody uses it.")));
        }
        self.models[model].retired = true;
        self.drop_retired();
        self.shared.set_models(self.models.iter().filter(|model| !model.retired).map(LoadedModel::listed).collect());
        Ok(())
    }

    pub(super) fn drop_retired(&mut self) {
        let voices = &self.voices;
        self.models.retain(|model| !model.retired || voices.iter().any(|voice| Arc::ptr_eq(&voice.info, &model.info)));
    }
}
