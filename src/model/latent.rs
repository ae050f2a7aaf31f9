//! An autoencoder at work: sound to latents and back, one bounded piece after another.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    error::{ModelError, Result},
    seanet::{LayerState, Tap},
};

/// An autoencoder with a variational bottleneck.
pub trait LatentCodec: Send + Sync {
    /// Where the decoder stands.
    type Decoder: Send;
    /// Latent frames that it takes at once: enough for its matrices, little enough for its memory.
    const PIECE: usize;
    /// What is said of a sound that makes no frame.
    const TOO_SHORT: &'static str;

    /// Samples of a latent frame.
    fn hop(&self) -> usize;

    /// Channels of a latent frame.
    fn latents(&self) -> usize;

    /// An encoder that has seen nothing.
    fn start_encoder(&self) -> Vec<LayerState>;

    /// A decoder that has seen nothing.
    fn start_decoder(&self) -> Self::Decoder;

    /// The next samples `[batch, samples, channels]`; gives the frames `[batch, frames, 2 latents]`
    /// that became final.
    ///
    /// # Errors
    /// When the device fails.
    fn encode(
        &self,
        state: &mut [LayerState],
        sound: &Tensor,
        last: bool,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>>;

    /// The next latents `[batch, frames, latents]`; gives the samples `[batch, samples, channels]`
    /// that became final.
    ///
    /// # Errors
    /// When the device fails.
    fn decode(
        &self,
        state: &mut Self::Decoder,
        latents: &Tensor,
        last: bool,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>>;
}

/// Sound on its way through the encoder.
pub struct Encoding<C: LatentCodec> {
    codec: Arc<C>,
    sound: Tensor,
    at: usize,
    state: Vec<LayerState>,
    parts: Vec<Tensor>,
}

impl<C: LatentCodec> Encoding<C> {
    /// Of sound `[samples, channels]`.
    pub(super) fn new(codec: &Arc<C>, sound: Tensor) -> Self {
        Self { state: codec.start_encoder(), codec: Arc::clone(codec), sound, at: 0, parts: Vec::new() }
    }

    /// Encodes the next piece; after the last, gives means and scales `[1, channels, frames]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sound that makes no frame.
    pub fn step(&mut self) -> Result<Option<(Tensor, Tensor)>> {
        self.step_shown(None, C::PIECE)
    }

    /// [`Encoding::step`] with pieces of another length, that shows what every layer makes.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sound that makes no frame.
    pub fn step_shown(&mut self, tap: Option<&mut Tap<'_>>, frames: usize) -> Result<Option<(Tensor, Tensor)>> {
        let samples = self.sound.dim(0)?;
        let count = frames.saturating_mul(self.codec.hop()).min(samples - self.at);
        let piece = self.sound.narrow(0, self.at, count)?.unsqueeze(0)?;
        self.at += count;
        let last = self.at == samples;
        self.parts.extend(self.codec.encode(&mut self.state, &piece, last, tap)?);
        if !last {
            return Ok(None);
        }
        if self.parts.is_empty() {
            return Err(ModelError::Input(C::TOO_SHORT.into()));
        }
        split(&Tensor::cat(&self.parts, 1)?, self.codec.latents()).map(Some)
    }
}

/// Splits what an encoder made, `[batch, frames, 2 latents]`, into means and scales `[batch,
/// latents, frames]`.
fn split(encoded: &Tensor, latents: usize) -> Result<(Tensor, Tensor)> {
    let both = encoded.transpose(1, 2)?;
    let part = |index: usize| both.narrow(1, index * latents, latents)?.contiguous();
    Ok((part(0)?, part(1)?))
}

/// Latents on their way through the decoder.
pub struct Decoding<C: LatentCodec> {
    codec: Arc<C>,
    latents: Tensor,
    at: usize,
    state: C::Decoder,
}

impl<C: LatentCodec> Decoding<C> {
    /// Of latents `[batch, channels, frames]`.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn new(codec: &Arc<C>, latents: &Tensor) -> Result<Self> {
        let latents = latents.transpose(1, 2)?.contiguous()?;
        Ok(Self { state: codec.start_decoder(), codec: Arc::clone(codec), latents, at: 0 })
    }

    /// Whether all was decoded.
    pub fn is_complete(&self) -> bool {
        self.at == self.latents.dims()[1]
    }

    /// The next piece of sound `[batch, samples, channels]` that is final.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self) -> Result<Option<Tensor>> {
        self.step_shown(None, C::PIECE)
    }

    /// [`Decoding::step`] with pieces of another length, that shows what every layer makes.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step_shown(&mut self, tap: Option<&mut Tap<'_>>, frames: usize) -> Result<Option<Tensor>> {
        let count = frames.min(self.latents.dim(1)? - self.at);
        let piece = self.latents.narrow(1, self.at, count)?.contiguous()?;
        self.at += count;
        let last = self.is_complete();
        self.codec.decode(&mut self.state, &piece, last, tap)
    }
}
