//! A loaded model as clients see it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::ModelInfo;

/// The models that are loaded, the default first.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ModelList {
    pub models: Vec<ModelView>,
    /// Names that are offered or need no download, and are not loaded: a clip that asks for one
    /// loads it.
    pub more: Vec<String>,
}

/// A model that streams can play on.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub(in crate::http) struct ModelView {
    id: String,
    description: String,
    /// Streams that name no model play on it.
    default: bool,
    /// Hz.
    sample_rate: u32,
    channels: usize,
    /// Codec frames per second.
    frame_rate: f64,
    codebooks: usize,
    /// Seconds of sound that it makes per second for all its streams together, over the last
    /// seconds of work.
    realtime_factor: Option<f64>,
    /// Seconds of its own music that it remembers.
    window_seconds: f64,
    /// What a stream has that says nothing of it.
    sampling: ModelSampling,
}

/// Sampling values of a model.
#[derive(Serialize, ToSchema)]
struct ModelSampling {
    temperature: f32,
    top_k: u32,
    guidance: f32,
}

impl ModelView {
    pub fn new(info: &ModelInfo, realtime_factor: Option<f64>, default: bool) -> Self {
        let sampling = info.sampling;
        Self {
            id: info.id.to_string(),
            description: info.description.clone(),
            default,
            sample_rate: info.sample_rate.0,
            channels: info.channels,
            frame_rate: info.frame_rate(),
            codebooks: info.codebooks,
            realtime_factor,
            window_seconds: info.window as f64 / info.frame_rate(),
            sampling: ModelSampling {
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                guidance: sampling.guidance,
            },
        }
    }
}
