//! The bottleneck of variational autoencoders, and where random numbers come from.

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::error::Result;

/// Gives the next tensor of standard normal draws of a shape. What it gives is fixed by whoever
/// makes it, so that the same draws give the same sound.
pub type NoiseSource = Box<dyn FnMut(&[usize]) -> Result<Tensor> + Send>;

/// Standard normal draws of a seed, on a device.
pub fn seeded(seed: u64, device: &Device) -> NoiseSource {
    let mut generator = ChaCha12Rng::seed_from_u64(seed);
    let device = device.clone();
    Box::new(move |shape| {
        let count: usize = shape.iter().product();
        let mut uniform = || (f64::from(generator.next_u32()) + 0.5) / 4_294_967_296.0;
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            // Box and Muller: two uniform numbers make two normal ones.
            let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
            values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
        }
        values.truncate(count);
        Ok(Tensor::from_vec(values, shape, &device)?)
    })
}

/// The standard deviation that an encoder's `scale` means: softplus(scale) + 1e-4.
///
/// # Errors
/// When the device fails.
pub fn deviation(scale: &Tensor) -> Result<Tensor> {
    // ln(1 + eˣ) = max(x, 0) + ln(1 + e⁻|x|): the same in f32 without an overflow.
    let small = (scale.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((scale.relu()? + small)? + 1e-4)?)
}

/// A latent drawn from an encoder's mean and scale.
///
/// # Errors
/// When shapes do not fit.
pub fn sample(mean: &Tensor, scale: &Tensor, noise: &Tensor) -> Result<Tensor> {
    Ok(((noise * deviation(scale)?)? + mean)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn draws_are_normal_and_fixed_by_the_seed() {
        let floats = |x: Tensor| -> Vec<f32> { x.flatten_all().unwrap().to_vec1().unwrap() };
        let mut draws = seeded(7, &Device::Cpu);
        let (a, b) = (floats(draws(&[3, 33_333]).unwrap()), floats(draws(&[3]).unwrap()));
        let moment = |power: i32| a.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / a.len() as f64;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.2);
        let mut again = seeded(7, &Device::Cpu);
        assert_eq!((floats(again(&[3, 33_333]).unwrap()), floats(again(&[3]).unwrap())), (a.clone(), b));
        assert_ne!(floats(seeded(8, &Device::Cpu)(&[3, 33_333]).unwrap()), a);
    }

    #[test]
    fn deviations_stay_finite_for_large_scales() {
        let scale = Tensor::new(&[-200f32, 0.0, 30.0, 200.0], &Device::Cpu).unwrap();
        let found: Vec<f32> = deviation(&scale).unwrap().to_vec1().unwrap();
        let expected = [1e-4, 2f32.ln() + 1e-4, 30.0001, 200.0001];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }
}
