//! Where a stream's PCM comes from: an engine's voice, or a test's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::engine::{Ack, EngineError, Freeze, InLine, ModelInfo, Read, Steer, Voice, VoiceControl};
use crate::units::{ModelId, Samples, VoiceId};

/// What the station needs of a [`Voice`].
pub(super) trait Source: Send + 'static {
    /// By which name the engine's log knows it.
    fn voice(&self) -> Option<VoiceId> {
        None
    }
    /// See [`Voice::model`].
    fn model(&self) -> Arc<ModelInfo>;
    /// See [`Voice::read`].
    fn read(&mut self, max: Samples) -> Read;
    /// See [`Voice::ready`].
    fn ready(&self) -> BoxFuture<'static, ()>;
    /// See [`Voice::buffered`].
    fn buffered(&self) -> f64;
    /// See [`Voice::keep_ahead`].
    fn keep_ahead(&self, lead: Duration);
    /// See [`Voice::is_over`].
    fn is_over(&self) -> bool;
    /// See [`Voice::freezes`].
    fn freezes(&self) -> Vec<Freeze> {
        Vec::new()
    }
    /// See [`Voice::control`].
    fn remote(&self) -> Arc<dyn Remote>;
}

/// What the station needs of a [`VoiceControl`].
pub(super) trait Remote: Send + Sync {
    /// See [`VoiceControl::steer`].
    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>>;
    /// See [`VoiceControl::reset`].
    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>>;
    /// See [`VoiceControl::set_model`].
    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>>;
    /// See [`VoiceControl::resume_when_free`].
    fn resume_when_free(&self) -> Result<InLine, EngineError>;
    /// See [`VoiceControl::pause`].
    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>>;
    /// See [`VoiceControl::resume`].
    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>>;
    /// See [`VoiceControl::realtime_factor`].
    fn realtime_factor(&self) -> f64;
}

impl Source for Voice {
    fn voice(&self) -> Option<VoiceId> {
        Some(self.id())
    }

    fn model(&self) -> Arc<ModelInfo> {
        Arc::clone(self.model())
    }

    fn read(&mut self, max: Samples) -> Read {
        self.read(max)
    }

    fn ready(&self) -> BoxFuture<'static, ()> {
        self.ready().boxed()
    }

    fn buffered(&self) -> f64 {
        self.buffered()
    }

    fn keep_ahead(&self, lead: Duration) {
        self.keep_ahead(lead);
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn freezes(&self) -> Vec<Freeze> {
        self.freezes()
    }

    fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(self.control())
    }
}

impl Remote for VoiceControl {
    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.steer(steer).boxed()
    }

    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.reset().boxed()
    }

    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>> {
        self.set_model(model).boxed()
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.pause().boxed()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.resume().boxed()
    }

    fn resume_when_free(&self) -> Result<InLine, EngineError> {
        self.resume_when_free()
    }

    fn realtime_factor(&self) -> f64 {
        f64::from(self.realtime_factor())
    }
}
