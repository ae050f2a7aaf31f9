//! A model in use: it is not unloaded before its lease ends.

use std::sync::Arc;

use super::super::{Job, RenderInfo, RenderJob, RenderModel, RenderSpec, Step};
use super::Inner;
use super::shelf::Key;
use crate::pcm::Pcm;
use crate::units::ModelId;

/// One user of a model.
pub(super) struct Hold {
    pub(super) key: Key,
    pub(super) models: Arc<Inner>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.models.shelf.let_go(&self.key);
        self.models.returned.notify_one();
    }
}

/// A voices' model in use.
pub struct VoiceLease {
    /// Its name in the engine.
    pub id: ModelId,
    pub(super) _hold: Hold,
}

/// A model that renders in use.
pub struct RenderLease {
    // Before the hold: memory is free when the hold says so.
    pub(super) model: RenderModel,
    pub(super) hold: Hold,
}

impl RenderLease {
    /// Fixed facts of the model.
    pub fn info(&self) -> RenderInfo {
        self.model.info()
    }

    /// See [`super::super::RenderBackend::check`].
    ///
    /// # Errors
    /// A sentence without its full stop.
    pub fn check(&self, spec: &RenderSpec) -> Result<(), String> {
        self.model.check(spec)
    }

    /// See [`super::super::RenderBackend::begin`]. The work takes the lease along: the model stays
    /// for as long as the engine's thread works with it, whether or not somebody still waits for
    /// the sound.
    ///
    /// # Errors
    /// As there.
    pub fn begin(self, spec: RenderSpec, given: Option<Vec<f32>>) -> Result<RenderJob, String> {
        let Self { model, hold } = self;
        Ok(Box::new(Leased { job: model.begin(spec, given)?, _hold: hold }))
    }
}

struct Leased {
    job: RenderJob,
    _hold: Hold,
}

impl Job for Leased {
    type Output = Pcm;

    fn step(&mut self) -> Result<Step<Pcm>, String> {
        self.job.step()
    }
}
