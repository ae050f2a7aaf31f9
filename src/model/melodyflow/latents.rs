//! Between the codec's latents and the transformer's.

use candle_core::Tensor;

use super::super::{error::Result, weights::Weights};

/// Statistics of the codec's latents: the transformer works on normalised ones.
pub struct LatentStatistics {
    mean: Tensor,
    spread: Tensor,
}

impl LatentStatistics {
    /// Reads `latent_mean` and `latent_std`.
    ///
    /// # Errors
    /// When they are absent or of another shape.
    pub fn new(channels: usize, weights: &Weights<'_>) -> Result<Self> {
        let shape = [1, channels, 1];
        let spread = (weights.get("latent_std", &shape)? + 1e-5)?;
        Ok(Self { mean: weights.get("latent_mean", &shape)?, spread })
    }

    /// From the codec's to the transformer's, `[batch, channels, frames]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn normalise(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(latents.broadcast_sub(&self.mean)?.broadcast_div(&self.spread)?)
    }

    /// The way back.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn denormalise(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(latents.broadcast_mul(&self.spread)?.broadcast_add(&self.mean)?)
    }
}
