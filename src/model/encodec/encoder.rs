//! Waveform to latents, whole or piece by piece.

use candle_core::Tensor;

use super::{
    super::{
        config::CodecConfig,
        error::{ModelError, Result},
        seanet::{LayerState, Stack, Tap},
        weights::Weights,
    },
    Builder, Shape,
};

/// The encoder half of a codec.
pub struct CodecEncoder {
    stack: Stack,
}

impl CodecEncoder {
    /// Reads `layers.{n}`, numbered as the checkpoint does (activations count).
    ///
    /// # Errors
    /// When a weight is absent or of another shape.
    pub fn new(config: &CodecConfig, weights: &Weights<'_>) -> Result<Self> {
        let mut build = Builder::new(config, weights);
        let mut width = config.filters;
        build.conv(Shape::plain(config.channels, width, config.kernel))?;
        for ratio in config.ratios.iter().rev() {
            build.residuals(width)?;
            build.active(width)?;
            build.conv(Shape { stride: *ratio, ..Shape::plain(width, 2 * width, 2 * ratio) })?;
            width *= 2;
        }
        build.lstm(width)?;
        build.active(width)?;
        build.conv(Shape::plain(width, config.encoder_dim(), config.last_kernel))?;
        Ok(Self { stack: build.finish() })
    }

    /// The states of signals that have not begun.
    pub fn start(&self) -> Vec<LayerState> {
        self.stack.start()
    }

    /// Takes the next samples `[batch, samples, channels]` of signals, or their end; gives the
    /// frames `[batch, frames, dim]` that became final. The last frame is filled up.
    ///
    /// # Errors
    /// When the device fails.
    pub fn push(
        &self,
        state: &mut [LayerState],
        wave: Option<&Tensor>,
        last: bool,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        self.stack.push(state, wave, last, tap)
    }

    /// `[batch, samples, channels]` to `[batch, frames, dim]`.
    ///
    /// # Errors
    /// When there is no sample or the device fails.
    pub fn forward(&self, wave: &Tensor) -> Result<Tensor> {
        let frames = self.push(&mut self.start(), Some(wave), true, None)?;
        frames.ok_or_else(|| ModelError::Input("There is no sound to encode.".into()))
    }
}
