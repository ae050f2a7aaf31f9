//! Oobleck, the variational autoencoder of Stable Audio: convolutions and snakes, strided down and
//! up again. Reference: `stable_audio_tools/models/autoencoders.py`.

use candle_core::Tensor;

use super::{
    super::{
        config::PadMode,
        error::Result,
        seanet::{
            Activation, Layer, LayerState, Padding, Residual, Shape, Stack, StreamingConv1d, StreamingConvTranspose1d,
            Tap,
        },
        weights::Weights,
    },
    config::StableConfig,
};

/// Dilations of a level's residual units.
const DILATIONS: [usize; 3] = [1, 3, 9];

/// Both directions.
pub struct Oobleck {
    encoder: Stack,
    decoder: Stack,
    scale: f64,
    tanh: bool,
}

fn conv(weights: &Weights<'_>, shape: Shape, bias: bool) -> Result<StreamingConv1d> {
    let side = if shape.stride == 1 { (shape.extent() - 1) / 2 } else { shape.stride.div_ceil(2) };
    StreamingConv1d::new(
        weights,
        shape,
        Padding { left: side, right: side, mode: PadMode::Constant, fill: false },
        bias,
    )
}

fn snake(weights: &Weights<'_>, index: usize, width: usize) -> Result<Activation> {
    Activation::log_snake(&weights.at(format!("layers.{index}")), width)
}

fn residual(weights: &Weights<'_>, width: usize, dilation: usize) -> Result<Layer> {
    let at = |index: usize| weights.at(format!("layers.{index}"));
    Ok(Layer::Residual(Box::new(Residual {
        activations: [snake(weights, 0, width)?, snake(weights, 2, width)?],
        first: conv(&at(1), Shape { dilation, ..Shape::plain(width, width, 7) }, true)?,
        second: conv(&at(3), Shape::plain(width, width, 1), true)?,
        shortcut: None,
    })))
}

impl Oobleck {
    /// Reads the weights below `encoder` and `decoder`.
    ///
    /// # Errors
    /// When a weight is absent or of another shape.
    pub fn new(config: &StableConfig, weights: &Weights<'_>) -> Result<Self> {
        let vae = &config.vae;
        let count = vae.strides.len();
        let width = |level: usize| vae.channels * if level == 0 { 1 } else { vae.multiples[level - 1] };
        let (encoder, decoder) = (weights.at("encoder"), weights.at("decoder"));
        let kernels = weights.target().kernels;

        let mut down = vec![Layer::StreamingConv1d(conv(
            &encoder.at("layers.0"),
            Shape::plain(config.channels, width(0), 7),
            true,
        )?)];
        for (level, &stride) in vae.strides.iter().enumerate() {
            let here = encoder.at(format!("layers.{}", level + 1));
            let (inner, outer) = (width(level + 1), width(level));
            let mut layers = Vec::new();
            for (index, dilation) in DILATIONS.into_iter().enumerate() {
                layers.push(residual(&here.at(format!("layers.{index}")), outer, dilation)?);
            }
            layers.push(Layer::Activation(snake(&here, 3, outer)?));
            let shape = Shape { stride, ..Shape::plain(outer, inner, 2 * stride) };
            layers.push(Layer::StreamingConv1d(conv(&here.at("layers.4"), shape, true)?));
            down.push(Layer::Nested(layers));
        }
        down.push(Layer::Activation(snake(&encoder, count + 1, width(count))?));
        let last = Shape::plain(width(count), 2 * config.latents, 3);
        down.push(Layer::StreamingConv1d(conv(&encoder.at(format!("layers.{}", count + 2)), last, true)?));

        let first = Shape::plain(config.latents, width(count), 7);
        let mut up = vec![Layer::StreamingConv1d(conv(&decoder.at("layers.0"), first, true)?)];
        for (index, &stride) in vae.strides.iter().rev().enumerate() {
            let here = decoder.at(format!("layers.{}", index + 1));
            let (inner, outer) = (width(count - index), width(count - index - 1));
            let trim = stride.div_ceil(2);
            let mut layers = vec![
                Layer::Activation(snake(&here, 0, inner)?),
                Layer::StreamingConvTranspose1d(StreamingConvTranspose1d::new(
                    &here.at("layers.1"),
                    inner,
                    outer,
                    stride,
                    (trim, trim),
                )?),
            ];
            for (index, dilation) in DILATIONS.into_iter().enumerate() {
                layers.push(residual(&here.at(format!("layers.{}", index + 2)), outer, dilation)?);
            }
            up.push(Layer::Nested(layers));
        }
        up.push(Layer::Activation(snake(&decoder, count + 1, width(0))?));
        let last = Shape::plain(width(0), config.channels, 7);
        up.push(Layer::StreamingConv1d(conv(&decoder.at(format!("layers.{}", count + 2)), last, false)?));

        Ok(Self {
            encoder: Stack::new(down, kernels),
            decoder: Stack::new(up, kernels),
            scale: config.scale,
            tanh: vae.tanh,
        })
    }

    /// Encoder states of sounds that have not begun.
    pub fn start_encoder(&self) -> Vec<LayerState> {
        self.encoder.start()
    }

    /// Decoder states of latents that have not begun.
    pub fn start_decoder(&self) -> Vec<LayerState> {
        self.decoder.start()
    }

    /// The next samples `[batch, samples, channels]`, or their end; gives the frames `[batch,
    /// frames, 2 latents]` that became final.
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(
        &self,
        state: &mut [LayerState],
        sound: Option<&Tensor>,
        last: bool,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        self.encoder.push(state, sound, last, tap)
    }

    /// Latents as the transformer wants them, drawn from means and scales.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn draw(&self, mean: &Tensor, scale: &Tensor, noise: &Tensor) -> Result<Tensor> {
        Ok((super::super::vae::sample(mean, scale, noise)? / self.scale)?)
    }

    /// The next latents `[batch, frames, latents]`, or their end; gives the samples `[batch,
    /// samples, channels]` that became final.
    ///
    /// # Errors
    /// When the device fails.
    pub fn decode(
        &self,
        state: &mut [LayerState],
        latents: Option<&Tensor>,
        last: bool,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        let scaled = latents.map(|latents| latents * self.scale).transpose()?;
        let sound = self.decoder.push(state, scaled.as_ref(), last, tap)?;
        Ok(if self.tanh { sound.map(|sound| sound.tanh()).transpose()? } else { sound })
    }
}
