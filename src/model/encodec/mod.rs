//! The EnCodec codec at 32 kHz (arXiv 2210.13438; `EncodecModel` of transformers and audiocraft's SEANet).
//!
//! The decoder streams exactly: state carries each layer's left context, its right context is held back, and the
//! mirror padding happens only at the true beginning and end, so any chunking gives the same sound at constant cost
//! per frame. Signals are `[batch, time, channels]`; a stereo model runs the mono codec once per channel.

mod conv;
mod decoder;
mod encoder;
mod quantizer;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

pub use conv::fused_weight;
pub use decoder::{CodecDecoder, StreamState};
pub use encoder::CodecEncoder;
pub use quantizer::Quantizer;

use super::{
    config::CodecConfig,
    error::Result,
    kernels::{Epilogue, Kernels, elu},
    weights::Weights,
};
use conv::{Conv, ConvState, Delayed, Shape};

/// A whole codec.
pub struct Codec {
    /// Sizes.
    pub config: CodecConfig,
    /// Waveform to latents.
    pub encoder: CodecEncoder,
    /// Latents to codes and back.
    pub quantizer: Quantizer,
    /// Latents to waveform.
    pub decoder: CodecDecoder,
}

impl Codec {
    /// Reads the weights below `encoder`, `quantizer` and `decoder`.
    ///
    /// # Errors
    /// [`ModelError::Weight`](super::ModelError::Weight).
    pub fn new(config: &CodecConfig, weights: &Weights<'_>) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            encoder: CodecEncoder::new(config, &weights.at("encoder"))?,
            quantizer: Quantizer::new(config, &weights.at("quantizer"))?,
            decoder: CodecDecoder::new(config, &weights.at("decoder"))?,
        })
    }

    /// A number that is equal for codecs whose codes mean the same sound.
    ///
    /// # Errors
    /// When the device fails.
    pub fn fingerprint(&self) -> Result<u64> {
        let mut hash = u64::from(self.config.sample_rate) << 32 | self.config.hop() as u64;
        for value in self.quantizer.values()? {
            // FNV-1a over the codebooks: what was trained together shares them, nothing else does.
            hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(hash)
    }

    /// Encodes whole waveforms `[batch, samples]` to codes `[batch, frames, books]`; the last frame is filled up.
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(&self, waves: &Tensor) -> Result<Tensor> {
        self.quantizer.encode(&self.encoder.forward(&waves.unsqueeze(2)?)?)
    }

    /// Decodes whole sequences of codes `[batch, frames, books]` to waveforms `[batch, samples]`.
    ///
    /// # Errors
    /// When a code is out of bounds or the device fails.
    pub fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        let wave = self.push(&mut self.decoder.start(), codes, true)?;
        Ok(wave.unwrap_or(Tensor::zeros((codes.dim(0)?, 0), candle_core::DType::F32, codes.device())?))
    }

    /// Decodes the next frames `[batch, frames, books]` of streams to waveforms `[batch, samples]`: whole frames, all
    /// that are final ([`CodecDecoder::lookahead`] frames less than were given so far, all of them after `last`).
    ///
    /// # Errors
    /// When a code is out of bounds or the device fails.
    pub fn push(&self, state: &mut StreamState, codes: &Tensor, last: bool) -> Result<Option<Tensor>> {
        let latents = if codes.dim(1)? == 0 { None } else { Some(self.quantizer.decode(codes)?) };
        let wave = self.decoder.push(state, latents.as_ref(), last, &mut |_, _| {})?;
        Ok(wave.map(|wave| wave.squeeze(2)).transpose()?)
    }
}

/// ELU, convolution, ELU, convolution, beside the identity or another convolution.
struct Residual {
    first: Conv,
    second: Conv,
    shortcut: Option<Conv>,
    kernels: Kernels,
}

#[derive(Debug, Clone)]
struct ResidualState {
    first: ConvState,
    second: ConvState,
    beside: Delayed,
}

impl ResidualState {
    fn new() -> Self {
        Self { first: ConvState::new(), second: ConvState::new(), beside: Delayed(None) }
    }
}

impl Residual {
    fn new(weights: &Weights<'_>, config: &CodecConfig, width: usize, index: usize) -> Result<Self> {
        let inner = width / config.compress;
        let dilation = config.dilation.pow(index as u32);
        let first = Shape { dilation, ..Shape::plain(width, inner, config.residual_kernel) };
        Ok(Self {
            first: Conv::new(&weights.at("block.1"), config, first)?,
            second: Conv::new(&weights.at("block.3"), config, Shape::plain(inner, width, 1))?,
            shortcut: match config.conv_shortcut {
                true => Some(Conv::new(&weights.at("shortcut"), config, Shape::plain(width, width, 1))?),
                false => None,
            },
            kernels: weights.target().kernels,
        })
    }

    fn beside(&self, x: &Tensor) -> Result<Tensor> {
        match &self.shortcut {
            Some(conv) => conv.padded(x, Epilogue::None),
            None => Ok(x.clone()),
        }
    }

    fn padded(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.first.padded(&elu(x, self.kernels)?, Epilogue::None)?;
        self.second.padded(&elu(&inner, self.kernels)?, Epilogue::Add(&self.beside(x)?))
    }

    fn push(&self, state: &mut ResidualState, x: Option<&Tensor>, last: bool) -> Result<Option<Tensor>> {
        let fresh = match x {
            Some(x) => {
                state.beside.push(&self.beside(x)?)?;
                Some(elu(x, self.kernels)?)
            }
            None => None,
        };
        let inner = self.first.push(&mut state.first, fresh.as_ref(), last, None)?;
        let inner = inner.map(|inner| elu(&inner, self.kernels)).transpose()?;
        self.second.push(&mut state.second, inner.as_ref(), last, Some(&mut state.beside))
    }
}
