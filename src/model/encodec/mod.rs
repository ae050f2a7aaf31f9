//! The EnCodec codec at 32 kHz (arXiv 2210.13438; `EncodecModel` of transformers and audiocraft's
//! SEANet).
//!
//! The decoder streams exactly: state carries each layer's left context, its right context is held
//! back, and the mirror padding happens only at the true beginning and end, so any chunking gives
//! the same sound at constant cost per frame. Signals are `[batch, time, channels]`; for a decoder
//! with two streams of codes a mono codec runs once per channel.

mod decoder;
mod encoder;
mod quantizer;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

pub use decoder::{CodecDecoder, StreamState};
pub use encoder::CodecEncoder;
pub use quantizer::Quantizer;

pub use super::seanet::fused_weight;
use super::{
    config::{CodecActivation, CodecConfig},
    error::Result,
    kernels::LstmLayer,
    seanet::{Activation, Layer, Padding, Residual, Shape, Stack, StreamingConv1d, StreamingConvTranspose1d},
    weights::Weights,
};

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

    /// Encodes whole waveforms `[batch, samples, channels]` to codes `[batch, frames, books]`; the
    /// last frame is filled up.
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(&self, waves: &Tensor) -> Result<Tensor> {
        self.quantizer.encode(&self.encoder.forward(waves)?)
    }

    /// Decodes whole sequences of codes `[batch, frames, books]` to waveforms `[batch, samples,
    /// channels]`.
    ///
    /// # Errors
    /// When a code is out of bounds or the device fails.
    pub fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        let wave = self.push(&mut self.decoder.start(), codes, true)?;
        let silence = (codes.dim(0)?, 0, self.config.channels);
        Ok(wave.unwrap_or(Tensor::zeros(silence, candle_core::DType::F32, codes.device())?))
    }

    /// Decodes the next frames `[batch, frames, books]` of streams to waveforms `[batch, samples,
    /// channels]`: whole frames, all that are final ([`CodecDecoder::lookahead`] frames less than
    /// were given so far, all of them after `last`).
    ///
    /// # Errors
    /// When a code is out of bounds or the device fails.
    pub fn push(&self, state: &mut StreamState, codes: &Tensor, last: bool) -> Result<Option<Tensor>> {
        let latents = if codes.dim(1)? == 0 { None } else { Some(self.quantizer.decode(codes)?) };
        self.decoder.push(state, latents.as_ref(), last, None)
    }
}

/// The checkpoint's layers in order, numbered as it does (activations count).
struct Builder<'a, 'b> {
    config: &'a CodecConfig,
    weights: &'a Weights<'b>,
    layers: Vec<Layer>,
}

impl<'a, 'b> Builder<'a, 'b> {
    fn new(config: &'a CodecConfig, weights: &'a Weights<'b>) -> Self {
        Self { config, weights, layers: Vec::new() }
    }

    fn here(&self) -> Weights<'b> {
        self.weights.at(format!("layers.{}", self.layers.len()))
    }

    fn activation(&self, weights: &Weights<'_>, width: usize) -> Result<Activation> {
        match self.config.activation {
            CodecActivation::Elu => Ok(Activation::Elu),
            CodecActivation::Snake => Activation::snake(weights, width),
        }
    }

    fn conv(&mut self, shape: Shape) -> Result<()> {
        let conv = StreamingConv1d::new(&self.here().at("conv"), shape, padding(self.config, shape), true)?;
        self.layers.push(Layer::StreamingConv1d(conv));
        Ok(())
    }

    fn active(&mut self, width: usize) -> Result<()> {
        let activation = self.activation(&self.here(), width)?;
        self.layers.push(Layer::Activation(activation));
        Ok(())
    }

    fn lstm(&mut self, width: usize) -> Result<()> {
        if self.config.lstm_layers == 0 {
            return Ok(());
        }
        let lstm = self.here().at("lstm");
        let layer = |index: usize| {
            let get = |name: &str, shape: &[usize]| lstm.get(&format!("{name}_l{index}"), shape);
            let (ih, hh) = (get("weight_ih", &[4 * width, width])?, get("weight_hh", &[4 * width, width])?);
            let (bias_ih, bias_hh) = (get("bias_ih", &[4 * width])?, get("bias_hh", &[4 * width])?);
            Ok(LstmLayer::new([&ih, &hh, &bias_ih, &bias_hh], lstm.target().kernels)?)
        };
        let layers = (0..self.config.lstm_layers).map(layer).collect::<Result<_>>()?;
        self.layers.push(Layer::Lstm(layers));
        Ok(())
    }

    fn residuals(&mut self, width: usize) -> Result<()> {
        let config = self.config;
        for index in 0..config.residual_layers {
            let (here, inner) = (self.here(), width / config.compress);
            let dilation = config.dilation.pow(index as u32);
            let first = Shape { dilation, ..Shape::plain(width, inner, config.residual_kernel) };
            let second = Shape::plain(inner, width, 1);
            let beside = Shape::plain(width, width, 1);
            let conv = |name: &str, shape| StreamingConv1d::new(&here.at(name), shape, padding(config, shape), true);
            self.layers.push(Layer::Residual(Box::new(Residual {
                activations: [
                    self.activation(&here.at("block.0"), width)?,
                    self.activation(&here.at("block.2"), inner)?,
                ],
                first: conv("block.1.conv", first)?,
                second: conv("block.3.conv", second)?,
                shortcut: if config.conv_shortcut { Some(conv("shortcut.conv", beside)?) } else { None },
            })));
        }
        Ok(())
    }

    fn upsample(&mut self, inputs: usize, ratio: usize) -> Result<()> {
        let up = StreamingConvTranspose1d::new(
            &self.here().at("conv"),
            inputs,
            inputs / 2,
            ratio,
            trim(self.config, ratio),
        )?;
        self.layers.push(Layer::StreamingConvTranspose1d(up));
        Ok(())
    }

    fn finish(self) -> Stack {
        Stack::new(self.layers, self.weights.target().kernels)
    }
}

fn padding(config: &CodecConfig, shape: Shape) -> Padding {
    let total = shape.extent().saturating_sub(shape.stride);
    let right = if config.causal { 0 } else { total / 2 };
    Padding { left: total - right, right, mode: config.pad_mode, fill: true }
}

/// Outputs that a transposed convolution of kernel `2 ratio` loses on the left and right.
fn trim(config: &CodecConfig, ratio: usize) -> (usize, usize) {
    let total = ratio;
    let right = if config.causal { (total as f64 * config.trim_right_ratio).ceil() as usize } else { total / 2 };
    (total - right, right)
}
