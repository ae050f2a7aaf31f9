//! MelodyFlow (arXiv 2407.03648): a flow-matching transformer over the latents of a 48 kHz stereo
//! autoencoder, here for editing recordings by text.
//!
//! [`MelodyFlow`] holds the weights; [`EditTask`] and [`OdeSolver`] do the work in steps of one
//! transformer layer or one piece of sound, so that whoever drives them can do something else in
//! between. The codec is EnCodec's with another activation and a variational bottleneck instead of
//! codebooks.

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
pub use edit::EditTask;
pub use latents::LatentStatistics;
pub use solver::{EditSettings, Method, OdeSolver, Progress, Regularise};
pub use transformer::{Pass, Prompt, Row, Tap, Transformer};

use super::{
    Files,
    encodec::{CodecDecoder, CodecEncoder, StreamState},
    error::Result,
    kernels::{Linear, WeightFormat},
    latent::{Decoding, Encoding, LatentCodec},
    seanet::{LayerState, Tap as WaveTap},
    text::TextEncoder,
    weights::{RandomSource, Target, TensorSource, Weights},
};

/// Tokens of a text that is made up for lack of an encoder.
const MADE_UP: usize = 16;

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
    /// A [`super::ModelError`] that names the file.
    pub fn load(files: &Files, companion: &dyn Fn(&str) -> Result<Files>, target: &Target) -> Result<Arc<Self>> {
        let checkpoint = checkpoint::open(files)?;
        let text = TextEncoder::load(&companion(&checkpoint.config.text)?, target)?;
        let width = text.width();
        Self::build(checkpoint.config, &checkpoint.flow, &checkpoint.codec, Some(text), width, target)
    }

    /// A model of random weights at any size, without a text encoder: for benchmarks and tests.
    ///
    /// # Errors
    /// [`super::ModelError::Tensor`] when memory is short.
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
    /// [`super::ModelError::Input`] when it cannot be encoded.
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

    /// Encodes sound `[samples, channels]` piece by piece.
    pub fn encoding(self: &Arc<Self>, sound: Tensor) -> Encoding<Self> {
        Encoding::new(self, sound)
    }

    /// Decodes latents of the codec's space `[batch, channels, frames]` piece by piece.
    ///
    /// # Errors
    /// When the device fails.
    pub fn decoding(self: &Arc<Self>, latents: &Tensor) -> Result<Decoding<Self>> {
        Decoding::new(self, latents)
    }
}

impl LatentCodec for MelodyFlow {
    type Decoder = StreamState;
    const PIECE: usize = 10;
    const TOO_SHORT: &'static str = "There is no sound to encode.";

    fn hop(&self) -> usize {
        self.config.codec.hop()
    }

    fn latents(&self) -> usize {
        self.config.latents
    }

    fn start_encoder(&self) -> Vec<LayerState> {
        self.encoder.start()
    }

    fn start_decoder(&self) -> StreamState {
        self.decoder.start()
    }

    fn encode(
        &self,
        state: &mut [LayerState],
        sound: &Tensor,
        last: bool,
        tap: Option<&mut WaveTap<'_>>,
    ) -> Result<Option<Tensor>> {
        self.encoder.push(state, Some(sound), last, tap)
    }

    fn decode(
        &self,
        state: &mut StreamState,
        latents: &Tensor,
        last: bool,
        tap: Option<&mut WaveTap<'_>>,
    ) -> Result<Option<Tensor>> {
        self.decoder.push(state, Some(latents), last, tap)
    }
}
