//! Waveform to latents, whole signals only: audio prompts are finite.

use candle_core::Tensor;

use super::{
    super::{
        config::CodecConfig,
        error::Result,
        kernels::{Epilogue, Kernels, LstmLayer, elu},
        weights::Weights,
    },
    Conv, Residual, Shape,
    decoder::lstm_layers,
};

/// The encoder half of a codec.
pub struct CodecEncoder {
    first: Conv,
    levels: Vec<(Vec<Residual>, Conv)>,
    lstm: Vec<LstmLayer>,
    last: Conv,
    kernels: Kernels,
}

impl CodecEncoder {
    /// Reads `layers.{n}`, numbered as the checkpoint does (activations count).
    ///
    /// # Errors
    /// When a weight is absent or of another shape.
    pub fn new(config: &CodecConfig, weights: &Weights<'_>) -> Result<Self> {
        let layer = |index: usize| weights.at(format!("layers.{index}"));
        let mut width = config.filters;
        let first = Conv::new(&layer(0), config, Shape::plain(config.channels, width, config.kernel))?;
        let mut next = 1;
        let mut levels = Vec::new();
        for ratio in config.ratios.iter().rev() {
            let mut residuals = Vec::new();
            for index in 0..config.residual_layers {
                residuals.push(Residual::new(&layer(next), config, width, index)?);
                next += 1;
            }
            let down = Shape { stride: *ratio, ..Shape::plain(width, 2 * width, 2 * ratio) };
            levels.push((residuals, Conv::new(&layer(next + 1), config, down)?));
            next += 2;
            width *= 2;
        }
        let lstm = lstm_layers(config, &layer(next), width)?;
        let last = if config.lstm_layers > 0 { next + 2 } else { next + 1 };
        let last = Conv::new(&layer(last), config, Shape::plain(width, config.dim, config.last_kernel))?;
        Ok(Self { first, levels, lstm, last, kernels: weights.target().kernels })
    }

    /// `[batch, samples, channels]` to `[batch, frames, dim]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, wave: &Tensor) -> Result<Tensor> {
        let mut x = self.first.padded(wave, Epilogue::None)?;
        for (residuals, down) in &self.levels {
            for residual in residuals {
                x = residual.padded(&x)?;
            }
            x = down.padded(&elu(&x, self.kernels)?, Epilogue::None)?;
        }
        if !self.lstm.is_empty() {
            let mut y = x.clone();
            for layer in &self.lstm {
                y = layer.forward(&y, &mut layer.start(x.dim(0)?, &x)?)?;
            }
            x = (x + y)?;
        }
        self.last.padded(&elu(&x, self.kernels)?, Epilogue::None)
    }
}
