//! Flow models of random weights, small enough that a transform takes a moment: for tests.

use candle_core::Device;

use super::{LoopModel, TransformModel};
use crate::model::melodyflow::{FlowConfig, MelodyFlow};
use crate::model::stable_audio::{DitConfig, OobleckConfig, StableAudio, StableConfig};
use crate::model::weights::Target;

/// Samples per second of [`transformer`].
pub const TRANSFORM_RATE: u32 = 1920 * 4;

/// A window of three seconds.
///
/// # Errors
/// When memory is short.
pub fn transformer() -> Result<TransformModel, String> {
    let published = FlowConfig::published();
    let mut codec = published.codec.clone();
    (codec.dim, codec.filters, codec.sample_rate) = (4, 2, TRANSFORM_RATE);
    let config = FlowConfig { width: 16, heads: 2, layers: 4, ffn: 32, latents: 4, seconds: 3.0, codec, ..published };
    MelodyFlow::random(config, 3, &Target::new(&Device::Cpu)).map_err(|error| error.to_string())
}

/// A window of 8.192 seconds at so many samples per second.
///
/// # Errors
/// When memory is short.
pub fn looper(sample_rate: u32) -> Result<LoopModel, String> {
    let dit = DitConfig {
        width: 64,
        depth: 1,
        heads: 2,
        cond_width: 8,
        global_width: 8,
        project_cond: true,
        head_norm: true,
    };
    let vae = OobleckConfig { channels: 2, multiples: vec![1, 2], strides: vec![2, 4], tanh: false };
    let published = StableConfig::published();
    let window = sample_rate as usize * 8192 / 1000;
    let config = StableConfig { sample_rate, window, latents: 4, cond_width: 8, tokens: 4, dit, vae, ..published };
    StableAudio::random(config, 3, &Target::new(&Device::Cpu)).map_err(|error| error.to_string())
}
