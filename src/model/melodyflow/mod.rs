//! MelodyFlow (arXiv 2407.03648): a flow-matching transformer over the latents of a 48 kHz stereo autoencoder, here for
//! editing recordings by text.
//!
//! [`MelodyFlow`] holds the weights; [`Edit`] and [`Walk`] do the work in steps of one transformer layer or one piece of
//! sound, so that whoever drives them can do something else in between. The codec is EnCodec's with another activation and
//! a variational bottleneck instead of codebooks.

mod checkpoint;
mod config;
mod edit;
mod latents;
pub mod regulariser;
pub mod schedule;
mod solver;
mod transformer;

use std::sync::Arc;

use candle_core::Tensor;

pub(super) use checkpoint::is_in;
pub use config::FlowConfig;
pub use edit::Edit;
pub use latents::LatentStatistics;
pub use solver::{EditSettings, Method, Progress, Regularise, Walk};
pub use transformer::{Pass, Prompt, Row, Tap, Transformer};

use super::{
    Files,
    encodec::{CodecDecoder, CodecEncoder},
    error::{ModelError, Result},
    kernels::{Linear, WeightFormat},
    text::TextEncoder,
    wave::{LayerState, Tap as WaveTap},
    weights::{RandomSource, Target, TensorSource, Weights},
};

/// Tokens of a text that is made up for lack of an encoder.
const MADE_UP: usize = 16;
/// Latent frames that the codec takes at once: enough for its matrices, little enough for its memory.
const PIECE: usize = 10;

/// A MelodyFlow with its weights.
pub struct MelodyFlow {
    /// Everything but the weights.
    pub config: FlowConfig,
    /// Texts to states; absent in a model of random weights.
    pub text: Option<TextEncoder>,
    /// Noisy latents to velocities.
    pub transformer: Transformer,
    /// Sound to means and scales of latents.
    pub encoder: CodecEncoder,
    /// Latents to sound.
    pub decoder: CodecDecoder,
    /// Between the codec's latents and the transformer's.
    pub statistics: LatentStatistics,
    /// From the text encoder's width to the transformer's.
    project: Linear,
    text_width: usize,
    target: Target,
}

impl MelodyFlow {
    /// Loads audiocraft's pair of files. `companion` finds the published text encoder by its id.
    ///
    /// # Errors
    /// A [`ModelError`] that names the file.
    pub fn load(files: &Files, companion: &dyn Fn(&str) -> Result<Files>, target: &Target) -> Result<Arc<Self>> {
        let checkpoint = checkpoint::open(files)?;
        let text = TextEncoder::load(&companion(&checkpoint.config.text)?, target)?;
        let width = text.width();
        Self::build(checkpoint.config, &checkpoint.flow, &checkpoint.codec, Some(text), width, target)
    }

    /// A model of random weights at any size, without a text encoder: for benchmarks and tests.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn random(config: FlowConfig, seed: u64, target: &Target) -> Result<Arc<Self>> {
        Self::build(config, &RandomSource(seed), &RandomSource(seed + 1), None, 768, target)
    }

    fn build(
        config: FlowConfig,
        flow: &dyn TensorSource,
        codec: &dyn TensorSource,
        text: Option<TextEncoder>,
        text_width: usize,
        target: &Target,
    ) -> Result<Arc<Self>> {
        let exact = Target { format: WeightFormat::F32, ..target.clone() };
        let weights = Weights::new(flow, &exact);
        let codec = Weights::new(codec, &exact);
        let project = weights.at("condition_provider.conditioners.description");
        Ok(Arc::new(Self {
            transformer: Transformer::new(&config, &Weights::new(flow, target))?,
            encoder: CodecEncoder::new(&config.codec, &codec.at("encoder"))?,
            decoder: CodecDecoder::new(&config.codec, &codec.at("decoder"))?,
            statistics: LatentStatistics::new(config.latents, &weights)?,
            project: project.linear("output_proj", config.width, text_width, true)?,
            text,
            text_width,
            target: target.clone(),
            config,
        }))
    }

    /// Where the weights are.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A text, ready for every layer; the empty text is no row at all.
    ///
    /// # Errors
    /// [`ModelError::Input`] when it cannot be encoded.
    pub fn prepare(&self, text: &str) -> Result<Row> {
        if text.is_empty() {
            return Ok(None);
        }
        let states = match &self.text {
            Some(encoder) => encoder.encode(text)?,
            // Random weights: zeros do as well as anything.
            None => Tensor::zeros((MADE_UP, self.text_width), candle_core::DType::F32, &self.target.device)?,
        };
        Ok(Some(self.transformer.prepare(&self.project(&states)?)?))
    }

    /// The text encoder's states `[.., text width]` at the transformer's width.
    ///
    /// # Errors
    /// When the device fails.
    pub fn project(&self, states: &Tensor) -> Result<Tensor> {
        Ok(states.apply(&self.project)?)
    }

    /// Splits what the encoder made, `[batch, frames, 2 channels]`, into means and scales `[batch, channels, frames]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn split(&self, encoded: &Tensor) -> Result<(Tensor, Tensor)> {
        let both = encoded.transpose(1, 2)?;
        let part = |index: usize| both.narrow(1, index * self.config.latents, self.config.latents)?.contiguous();
        Ok((part(0)?, part(1)?))
    }

    /// Encodes sound `[samples, channels]` piece by piece.
    pub fn encoding(self: &Arc<Self>, sound: Tensor) -> Encoding {
        Encoding { state: self.encoder.start(), model: self.clone(), sound, at: 0, parts: Vec::new() }
    }

    /// Decodes latents of the codec's space `[batch, channels, frames]` piece by piece.
    pub fn decoding(self: &Arc<Self>, latents: &Tensor) -> Result<Decoding> {
        let latents = latents.transpose(1, 2)?.contiguous()?;
        Ok(Decoding { state: self.decoder.start(), model: self.clone(), latents, at: 0 })
    }
}

/// Sound on its way through the encoder.
pub struct Encoding {
    model: Arc<MelodyFlow>,
    sound: Tensor,
    at: usize,
    state: Vec<LayerState>,
    parts: Vec<Tensor>,
}

impl Encoding {
    /// Encodes the next piece; after the last, gives means and scales `[1, channels, frames]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sound without samples.
    pub fn step(&mut self) -> Result<Option<(Tensor, Tensor)>> {
        self.step_shown(&mut |_, _| {}, PIECE)
    }

    /// [`Encoding::step`] with pieces of another length, that shows what every layer makes.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sound without samples.
    pub fn step_shown(&mut self, tap: &mut WaveTap<'_>, frames: usize) -> Result<Option<(Tensor, Tensor)>> {
        let samples = self.sound.dim(0)?;
        let count = frames.saturating_mul(self.model.config.codec.hop()).min(samples - self.at);
        let piece = self.sound.narrow(0, self.at, count)?.unsqueeze(0)?;
        self.at += count;
        let last = self.at == samples;
        self.parts.extend(self.model.encoder.push(&mut self.state, Some(&piece), last, tap)?);
        if !last {
            return Ok(None);
        }
        if self.parts.is_empty() {
            return Err(ModelError::Input("There is no sound to encode.".into()));
        }
        self.model.split(&Tensor::cat(&self.parts, 1)?).map(Some)
    }
}

/// Latents on their way through the decoder.
pub struct Decoding {
    model: Arc<MelodyFlow>,
    latents: Tensor,
    at: usize,
    state: super::encodec::StreamState,
}

impl Decoding {
    /// Whether all was decoded.
    pub fn is_complete(&self) -> bool {
        self.at == self.latents.dims()[1]
    }

    /// The next piece of sound `[batch, samples, channels]` that is final.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self) -> Result<Option<Tensor>> {
        self.step_shown(&mut |_, _| {}, PIECE)
    }

    /// [`Decoding::step`] with pieces of another length, that shows what every layer makes.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step_shown(&mut self, tap: &mut WaveTap<'_>, frames: usize) -> Result<Option<Tensor>> {
        let count = frames.min(self.latents.dim(1)? - self.at);
        let piece = self.latents.narrow(1, self.at, count)?.contiguous()?;
        self.at += count;
        let last = self.is_complete();
        self.model.decoder.push(&mut self.state, Some(&piece), last, tap)
    }
}
