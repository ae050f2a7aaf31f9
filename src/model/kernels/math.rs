//! Elementary functions in f32, written so that loops over them become SIMD code.
//!
//! Every function is a fixed sequence of IEEE operations, so an element's result does not depend on
//! its neighbours. Errors against f64 are a few units in the last place (tested below).

use pulp::Arch;

/// Calls `f`, a closure that is `#[inline(always)]`, compiled for the widest vectors of this
/// processor. Passed to pulp itself it may get a shim around it that is compiled for the narrowest
/// ones.
#[inline(always)]
pub(super) fn dispatch_simd<R>(f: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(f)
}

/// 2ⁿ and the remainder r of x = n ln 2 + r, for |x| ≤ 87; NaN stays NaN in r.
#[inline(always)]
fn split_exponent(x: f32) -> (f32, f32) {
    // Adding 1.5·2²³ rounds to an integer that then sits in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, as in Cephes' expf.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (scale, r)
}

/// eʳ - 1 for |r| ≤ ln 2 / 2 (Cephes' polynomial).
#[inline(always)]
fn expm1_small(r: f32) -> f32 {
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p * r * r + r
}

#[inline(always)]
fn clamped(x: f32) -> f32 {
    // Comparisons, not `clamp`: NaN must come through.
    let x = if x < -87.0 { -87.0 } else { x };
    if x > 87.0 { 87.0 } else { x }
}

/// eˣ, with x cut to ±87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let (scale, r) = split_exponent(clamped(x));
    scale * (expm1_small(r) + 1.0)
}

/// x above 0, eˣ - 1 below.
#[inline(always)]
pub(super) fn elu(x: f32) -> f32 {
    let (scale, r) = split_exponent(clamped(if x > 0.0 { 0.0 } else { x }));
    let below = scale * expm1_small(r) + (scale - 1.0);
    if x > 0.0 { x } else { below }
}

/// The error function: an odd rational approximation on ±4 (the one that Eigen and XLA use).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = if x < -4.0 { -4.0 } else { x };
    let x = if x > 4.0 { 4.0 } else { x };
    let s = x * x;
    let mut p = -2.726_142_3e-10;
    p = p * s + 2.770_681_4e-8;
    p = p * s - 2.101_024e-6;
    p = p * s - 5.692_506_4e-5;
    p = p * s - 7.349_906_4e-4;
    p = p * s - 2.954_6e-3;
    p = p * s - 1.609_603_3e-2;
    let mut q = -1.456_607_2e-5;
    q = q * s - 2.133_740_6e-4;
    q = q * s - 1.682_827e-3;
    q = q * s - 7.373_329e-3;
    q = q * s - 1.426_473_9e-2;
    x * p / q
}

/// x Φ(x), the exact form of GELU.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Logistic function.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let (scale, r) = split_exponent(clamped(2.0 * x));
    let grown = scale * expm1_small(r) + (scale - 1.0);
    grown / (grown + 2.0)
}

/// sin² x, for |x| up to some ten thousands.
#[inline(always)]
pub(super) fn sin_squared(x: f32) -> f32 {
    // The period is π: x less its multiple, in three parts.
    const MAGIC: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::FRAC_1_PI + MAGIC) - MAGIC;
    let r = x - n * 3.140_625 - n * 9.675_026e-4 - n * 1.509_958e-7;
    let s = r * r;
    let mut p = -2.388_985_9e-8;
    p = p * s + 2.752_556_2e-6;
    p = p * s - 1.984_087_4e-4;
    p = p * s + 8.333_331e-3;
    p = p * s - 1.666_666_7e-1;
    let sine = p * s * r + r;
    sine * sine
}

/// A sum in a fixed order: sixteen running sums, then their sum.
#[inline(always)]
pub(super) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(*value);
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest difference to `exact`, relative to the larger of |exact| and `floor`.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, low: f32, high: f32, floor: f64) -> f64 {
        (0..=200_000)
            .map(|i| low + (high - low) * i as f32 / 200_000.0)
            .map(|x| {
                let right = exact(f64::from(x));
                (f64::from(f(x)) - right).abs() / right.abs().max(floor)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_agree_with_f64() {
        let erf64 = candle_core::cpu::erf::erf_f64;
        let errors = [
            ("exp", worst(exp, f64::exp, -80.0, 80.0, 0.0)),
            ("elu", worst(elu, f64::exp_m1, -20.0, 0.0, 1e-30)),
            ("erf", worst(erf, erf64, -6.0, 6.0, 1e-6)),
            ("gelu", worst(gelu, |x| 0.5 * x * (1.0 + erf64(x / 2f64.sqrt())), -8.0, 8.0, 1.0)),
            ("sigmoid", worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -40.0, 40.0, 0.0)),
            ("sin²", worst(sin_squared, |x| x.sin() * x.sin(), -200.0, 200.0, 1.0)),
            ("tanh", worst(tanh, f64::tanh, -30.0, 30.0, 1e-30)),
        ];
        for (name, error) in errors {
            assert!(error < 2e-6, "{name} is off by {error:e}");
        }
    }

    #[test]
    fn a_bad_number_is_not_hidden() {
        for f in [exp, elu, erf, gelu, sigmoid, tanh, sin_squared] {
            assert!(f(f32::NAN).is_nan());
        }
        assert!(exp(-1000.0) < 1e-37 && exp(1000.0) > 1e37);
        assert_eq!((elu(3.5), tanh(1000.0)), (3.5, 1.0));
    }
}
