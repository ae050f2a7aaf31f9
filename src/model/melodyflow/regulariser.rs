//! Keeps the velocities of an inversion looking like those of real noise.
//!
//! The loss compares means and variances of blocks of 4 channels by 4 frames with those of a
//! reference velocity; its gradient is written out, so that no graph has to be kept. Channels and
//! frames beyond the last whole block are left as they are.

use candle_core::Tensor;

use super::super::error::Result;

/// Channels and frames of a block.
const SIDE: usize = 4;
const COUNT: f64 = (SIDE * SIDE) as f64;
const EPS: f64 = 1e-6;
/// Gradient steps of one call.
const ROUNDS: usize = 4;
/// Gradients are cut to this size.
const CLIP: f64 = 100.0;

/// `velocity` after gradient steps of size `lambda` towards the statistics of `reference`; both
/// `[batch, channels, frames]`.
///
/// # Errors
/// When shapes do not fit.
pub fn regularise(velocity: &Tensor, reference: &Tensor, lambda: f64) -> Result<Tensor> {
    regularise_rounds(velocity, reference, lambda, ROUNDS)
}

/// [`regularise`] with another number of gradient steps.
///
/// # Errors
/// When shapes do not fit.
pub fn regularise_rounds(velocity: &Tensor, reference: &Tensor, lambda: f64, rounds: usize) -> Result<Tensor> {
    let shape = velocity.dims3()?;
    let mut values = doubles(velocity)?;
    let reference = doubles(reference)?;
    for _ in 0..rounds {
        let (_, gradient) = descent(&values, &reference, shape);
        for (value, gradient) in values.iter_mut().zip(&gradient) {
            *value -= lambda * gradient.clamp(-CLIP, CLIP);
        }
    }
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    Ok(Tensor::from_vec(values, shape, velocity.device())?)
}

/// The loss and its gradient `[batch, channels, frames]`, not cut.
///
/// # Errors
/// When shapes do not fit.
pub fn loss(velocity: &Tensor, reference: &Tensor) -> Result<(f64, Tensor)> {
    let shape = velocity.dims3()?;
    let (loss, gradient) = descent(&doubles(velocity)?, &doubles(reference)?, shape);
    let gradient: Vec<f32> = gradient.into_iter().map(|value| value as f32).collect();
    Ok((loss, Tensor::from_vec(gradient, shape, velocity.device())?))
}

fn doubles(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

fn descent(values: &[f64], reference: &[f64], (batch, channels, frames): (usize, usize, usize)) -> (f64, Vec<f64>) {
    let mut gradient = vec![0f64; values.len()];
    let mut total = 0.0;
    for row in 0..batch * (channels / SIDE) {
        let (batch, block) = (row / (channels / SIDE), row % (channels / SIDE));
        for first in (0..frames / SIDE * SIDE).step_by(SIDE) {
            let at = |i: usize| (batch * channels + block * SIDE + i / SIDE) * frames + first + i % SIDE;
            let (mean, variance) = statistics(values, at);
            let (wanted, spread) = statistics(reference, at);
            let distance =
                ((spread + EPS) / (variance + EPS)).ln() + (variance + (mean - wanted).powi(2)) / (spread + EPS) - 1.0;
            total += distance.abs();
            let sign = if distance == 0.0 { 0.0 } else { distance.signum() };
            let slope = 2.0 / (COUNT - 1.0) * (1.0 / (spread + EPS) - 1.0 / (variance + EPS));
            let shift = 2.0 / COUNT * (mean - wanted) / (spread + EPS);
            for i in 0..SIDE * SIDE {
                gradient[at(i)] = sign * ((values[at(i)] - mean) * slope + shift);
            }
        }
    }
    (total, gradient)
}

/// Mean and variance (divisor 15) of a block.
fn statistics(values: &[f64], at: impl Fn(usize) -> usize) -> (f64, f64) {
    let block = || (0..SIDE * SIDE).map(|i| values[at(i)]);
    let mean = block().sum::<f64>() / COUNT;
    (mean, block().map(|value| (value - mean).powi(2)).sum::<f64>() / (COUNT - 1.0))
}
