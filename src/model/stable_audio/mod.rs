//! Stable Audio Open Small and its fine-tunes: a diffusion transformer over the latents of a 44.1
//! kHz stereo autoencoder (arXiv 2404.10301, 2505.08175; `stable_audio_tools`). It always fills a
//! window of some twelve seconds.
//!
//! [`StableAudio`] holds the weights; [`DenoiseTask`] makes one window in steps of one transformer
//! block or one piece of sound.

mod conditions;
mod config;
mod dit;
pub mod loops;
mod oobleck;
mod piece;
mod sampler;
mod tuned;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

pub use super::seanet::fused_weight;
pub use conditions::{Conditioner, Conditions};
pub use config::{DitConfig, NumberConfig, Objective, OobleckConfig, StableConfig};
pub use dit::{Context, Dit, Pass, Row, Tap};
pub use oobleck::Oobleck;
pub use piece::{DenoiseTask, Init, PieceSettings};
pub use sampler::{Diffusion, Guidance, LatentGuidance, Sampler, schedule};

use super::{
    Files,
    error::Result,
    kernels::WeightFormat,
    latent::{Decoding, Encoding, LatentCodec},
    seanet::{LayerState, Tap as WaveTap},
    text::TextEncoder,
    weights::{RandomSource, Target, TensorSource, Weights},
};

/// The configuration's file.
pub const CONFIG: &str = "model_config.json";

/// A Stable Audio with its weights.
pub struct StableAudio {
    /// Everything but the weights.
    pub config: StableConfig,
    /// Texts and numbers to conditions.
    pub conditioner: Conditioner,
    /// Noisy latents to velocities.
    pub dit: Dit,
    /// Sound to latents and back.
    pub vae: Oobleck,
    target: Target,
}

impl StableAudio {
    /// Loads `model_config.json` and `model.safetensors`. `companion` finds the published text
    /// encoder by its id.
    ///
    /// # Errors
    /// A [`super::ModelError`] that names the file.
    pub fn load(files: &Files, companion: &dyn Fn(&str) -> Result<Files>, target: &Target) -> Result<Arc<Self>> {
        let config = StableConfig::parse(&files.json(CONFIG)?).map_err(|reason| files.wrong(CONFIG, reason))?;
        let weights = files.weights(DType::F32, &Device::Cpu)?;
        let text = TextEncoder::load(&companion(&config.text)?, target)?;
        Self::build(config, &weights, Some(text), target)
    }

    /// Loads the checkpoint of a training over the model that it began with, whose files these are.
    /// `config` is the training's own, if it has one.
    ///
    /// # Errors
    /// A [`super::ModelError`] that names the file.
    pub fn load_tuned(
        files: &Files,
        (checkpoint, config): (&Path, Option<&serde_json::Value>),
        companion: &dyn Fn(&str) -> Result<Files>,
        target: &Target,
    ) -> Result<Arc<Self>> {
        let own = match config {
            Some(config) => config.clone(),
            None => files.json(CONFIG)?,
        };
        let config = StableConfig::parse(&own).map_err(|reason| files.wrong(CONFIG, reason))?;
        let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
        let tuned = tuned::open(checkpoint).map_err(|error| files.wrong(&name, error))?;
        let base = files.weights(DType::F32, &Device::Cpu)?;
        let text = TextEncoder::load(&companion(&config.text)?, target)?;
        let weights = tuned::Tuned { tuned: &tuned, base: &base };
        Self::build(config, &weights, Some(text), target)
    }

    /// A model of random weights at any size, without a text encoder: for benchmarks and tests.
    ///
    /// # Errors
    /// [`super::ModelError::Tensor`] when memory is short.
    pub fn random(config: StableConfig, seed: u64, target: &Target) -> Result<Arc<Self>> {
        Self::build(config, &RandomSource(seed), None, target)
    }

    fn build(
        config: StableConfig,
        source: &dyn TensorSource,
        text: Option<TextEncoder>,
        target: &Target,
    ) -> Result<Arc<Self>> {
        let exact = Target { format: WeightFormat::F32, ..target.clone() };
        let weights = Weights::new(source, &exact);
        Ok(Arc::new(Self {
            conditioner: Conditioner::new(&config, &weights.at("conditioner.conditioners"), text)?,
            dit: Dit::new(&config, &Weights::new(source, target).at("model.model"))?,
            vae: Oobleck::new(&config, &weights.at("pretransform.model"))?,
            target: target.clone(),
            config,
        }))
    }

    /// Where the weights are.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Conditions, ready for every block.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prepare(&self, conditions: &Conditions) -> Result<Row> {
        self.dit.prepare(&conditions.tokens, &conditions.global, &mut |_, _| {})
    }

    /// Encodes sound `[samples, channels]` piece by piece.
    pub fn encoding(self: &Arc<Self>, sound: Tensor) -> Encoding<Self> {
        Encoding::new(self, sound)
    }

    /// Decodes latents `[batch, channels, frames]` piece by piece.
    ///
    /// # Errors
    /// When the device fails.
    pub fn decoding(self: &Arc<Self>, latents: &Tensor) -> Result<Decoding<Self>> {
        Decoding::new(self, latents)
    }
}

impl LatentCodec for StableAudio {
    type Decoder = Vec<LayerState>;
    /// The outermost level makes two thousand steps of each.
    const PIECE: usize = 4;
    const TOO_SHORT: &'static str = "The sound is too short to be encoded.";

    fn hop(&self) -> usize {
        self.config.hop()
    }

    fn latents(&self) -> usize {
        self.config.latents
    }

    fn start_encoder(&self) -> Vec<LayerState> {
        self.vae.start_encoder()
    }

    fn start_decoder(&self) -> Vec<LayerState> {
        self.vae.start_decoder()
    }

    fn encode(
        &self,
        state: &mut [LayerState],
        sound: &Tensor,
        last: bool,
        tap: Option<&mut WaveTap<'_>>,
    ) -> Result<Option<Tensor>> {
        self.vae.encode(state, Some(sound), last, tap)
    }

    fn decode(
        &self,
        state: &mut Vec<LayerState>,
        latents: &Tensor,
        last: bool,
        tap: Option<&mut WaveTap<'_>>,
    ) -> Result<Option<Tensor>> {
        self.vae.decode(state, Some(latents), last, tap)
    }
}
