//! What lies between convolutions.

use candle_core::Tensor;

use super::super::{
    error::Result,
    kernels::{Kernels, elu, snake},
    weights::Weights,
};

/// An element-wise function of a signal `[.., channels]`.
pub enum Activation {
    /// ELU with slope 1.
    Elu,
    /// x + sin²(a x) g, with a factor and a gain per channel (arXiv 2006.08195).
    Snake {
        /// `[channels]`.
        alpha: Tensor,
        /// `[channels]`.
        gain: Tensor,
    },
}

impl Activation {
    /// Snake with one stored factor per channel, used as it is: `alpha` `[1, channels, 1]`.
    ///
    /// # Errors
    /// When it is absent or of another shape.
    pub fn snake(weights: &Weights<'_>, channels: usize) -> Result<Self> {
        let alpha = weights.get("alpha", &[1, channels, 1])?.flatten_all()?;
        let gain = (&alpha + 1e-9)?.recip()?;
        Ok(Self::Snake { alpha, gain })
    }

    /// Snake with the logarithms of factor and divisor: `alpha` and `beta` `[channels]`.
    ///
    /// # Errors
    /// When they are absent or of another shape.
    pub fn log_snake(weights: &Weights<'_>, channels: usize) -> Result<Self> {
        let alpha = weights.get("alpha", &[channels])?.exp()?;
        let gain = (weights.get("beta", &[channels])?.exp()? + 1e-9)?.recip()?;
        Ok(Self::Snake { alpha, gain })
    }

    /// Applies it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn apply(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        Ok(match self {
            Self::Elu => elu(x, kernels)?,
            Self::Snake { alpha, gain } => snake(x, alpha, gain, kernels)?,
        })
    }
}
