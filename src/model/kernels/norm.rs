//! Layer norm and what is done element by element.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::{Kernels, Native, kernel_pool, math, with_floats};

/// Values that a thread takes at once.
const SHARE: usize = 1 << 14;

/// Layer norm over the last dimension, with weight and bias.
///
/// # Errors
/// When shapes or devices do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32, kernels: Kernels) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if kernels == Kernels::Composed {
        return candle_nn::ops::layer_norm(&x.contiguous()?, weight, bias, eps);
    }
    with_floats(weight, |weight| {
        with_floats(bias, |bias| {
            x.apply_op1_no_bwd(&Native("layer_norm", |x: &[f32], shape: &candle_core::Shape| {
                let mut out = vec![0f32; x.len()];
                let rows = |(out, x): (&mut [f32], &[f32])| {
                    math::dispatch_simd(
                        #[inline(always)]
                        || {
                            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                                let mean = math::sum(x, |value| value) / width as f32;
                                let variance = math::sum(x, |value| (value - mean) * (value - mean)) / width as f32;
                                let scale = 1.0 / (variance + eps).sqrt();
                                for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                                    *out = (x - mean) * scale * weight + bias;
                                }
                            }
                        },
                    )
                };
                let share = (1usize << 16).div_ceil(width) * width;
                if x.len() <= share {
                    rows((&mut out, x));
                } else {
                    out.par_chunks_mut(share).zip(x.par_chunks(share)).for_each(rows);
                }
                Ok((out, shape.clone()))
            }))
        })
    })
}

/// ELU with slope 1.
///
/// # Errors
/// When the device fails.
pub fn elu(x: &Tensor, kernels: Kernels) -> Result<Tensor> {
    if kernels == Kernels::Composed {
        return x.elu(1.0);
    }
    x.contiguous()?.apply_op1_no_bwd(&Native("elu", |x: &[f32], shape: &candle_core::Shape| {
        let out = kernel_pool::made(x.len(), SHARE, |index, out| elus(&x[index * SHARE..][..out.len()], out));
        Ok((out, shape.clone()))
    }))
}

fn elus(x: &[f32], out: &mut [f32]) {
    math::dispatch_simd(
        #[inline(always)]
        || {
            for (out, x) in out.iter_mut().zip(x) {
                *out = math::elu(*x);
            }
        },
    );
}

/// The piece `x` of a signal `[batch, time, channels]` behind what came `before` it; `x` through
/// ELU if it is `active`.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn join(before: Option<&Tensor>, x: &Tensor, active: bool, kernels: Kernels) -> Result<Tensor> {
    if kernels == Kernels::Composed {
        let x = if active { x.elu(1.0)? } else { x.clone() };
        return before.map_or_else(|| Ok(x.clone()), |before| Tensor::cat(&[before, &x], 1));
    }
    let Some(before) = before else { return if active { elu(x, kernels) } else { Ok(x.clone()) } };
    let ((batch, kept, channels), time) = (before.dims3()?, x.dim(1)?);
    if x.dims() != [batch, time, channels] {
        candle_core::bail!("a signal of shape {:?} does not go on with {:?}", before.shape(), x.shape())
    }
    with_floats(&before.contiguous()?, |before| {
        x.contiguous()?.apply_op1_no_bwd(&Native("join", |x: &[f32], _: &candle_core::Shape| {
            let (kept, fresh) = (kept * channels, time * channels);
            let out = kernel_pool::made(batch * (kept + fresh), SHARE, |index, mut out| {
                let mut at = index * SHARE;
                while !out.is_empty() {
                    let (row, column) = (at / (kept + fresh), at % (kept + fresh));
                    let end = if column < kept { kept } else { kept + fresh };
                    let (part, rest) = out.split_at_mut((end - column).min(out.len()));
                    let (length, begin) = (part.len(), column.saturating_sub(kept));
                    match column < kept {
                        true => part.copy_from_slice(&before[row * kept + column..][..length]),
                        false if active => elus(&x[row * fresh + begin..][..length], part),
                        false => part.copy_from_slice(&x[row * fresh + begin..][..length]),
                    }
                    at += length;
                    out = rest;
                }
            });
            Ok((out, (batch, (kept + fresh) / channels.max(1), channels).into()))
        }))
    })
}

/// x + sin²(alpha x) gain, with one `alpha` and one `gain` per channel of the last dimension.
///
/// # Errors
/// When shapes or devices do not fit.
pub fn snake(x: &Tensor, alpha: &Tensor, gain: &Tensor, kernels: Kernels) -> Result<Tensor> {
    if kernels == Kernels::Composed {
        return x + x.broadcast_mul(alpha)?.sin()?.sqr()?.broadcast_mul(gain)?;
    }
    let channels = x.dim(D::Minus1)?;
    with_floats(alpha, |alpha| {
        with_floats(gain, |gain| {
            x.contiguous()?.apply_op1_no_bwd(&Native("snake", |x: &[f32], shape: &candle_core::Shape| {
                let mut out = vec![0f32; x.len()];
                let piece = ((1 << 16) / channels).max(1) * channels;
                out.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(out, x)| {
                    math::dispatch_simd(
                        #[inline(always)]
                        || {
                            for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                                for (((out, x), alpha), gain) in out.iter_mut().zip(x).zip(alpha).zip(gain) {
                                    *out = x + math::sin_squared(alpha * x) * gain;
                                }
                            }
                        },
                    );
                });
                Ok((out, shape.clone()))
            }))
        })
    })
}

/// The first half of the last dimension times the SiLU of the second: `[.., 2 n]` to `[.., n]`.
///
/// # Errors
/// When shapes or devices do not fit.
pub fn gate(x: &Tensor, kernels: Kernels) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    if kernels == Kernels::Composed {
        return x.narrow(D::Minus1, 0, half)? * x.narrow(D::Minus1, half, half)?.silu()?;
    }
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = half;
    }
    x.contiguous()?.apply_op1_no_bwd(&Native("gate", |x: &[f32], _: &candle_core::Shape| {
        let mut out = vec![0f32; x.len() / 2];
        out.par_chunks_mut(half).zip(x.par_chunks(2 * half)).for_each(|(out, x)| {
            math::dispatch_simd(
                #[inline(always)]
                || {
                    let (value, gate) = x.split_at(half);
                    for ((out, value), gate) in out.iter_mut().zip(value).zip(gate) {
                        *out = value * (gate * math::sigmoid(*gate));
                    }
                },
            );
        });
        Ok((out, candle_core::Shape::from(shape.clone())))
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn native_and_composed_agree() {
        let x = Tensor::randn(0.5f32, 3.0, (5, 3, 67), &Device::Cpu).unwrap();
        let (w, b) =
            (Tensor::randn(0f32, 1.0, 67, &Device::Cpu).unwrap(), Tensor::randn(0f32, 1.0, 67, &Device::Cpu).unwrap());
        let close = |a: Tensor, b: Tensor| {
            let worst = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            // Values are random and up to some dozens; a rounding of an angle of that size is 2e-6
            // already.
            assert!(worst.to_scalar::<f32>().unwrap() < 2e-5);
        };
        close(
            layer_norm(&x, &w, &b, 1e-5, Kernels::Native).unwrap(),
            layer_norm(&x, &w, &b, 1e-5, Kernels::Composed).unwrap(),
        );
        let even = x.narrow(2, 0, 66).unwrap();
        close(gate(&even, Kernels::Native).unwrap(), gate(&even, Kernels::Composed).unwrap());
        close(snake(&x, &w, &b, Kernels::Native).unwrap(), snake(&x, &w, &b, Kernels::Composed).unwrap());
        close(elu(&x, Kernels::Native).unwrap(), elu(&x, Kernels::Composed).unwrap());
    }

    #[test]
    fn pieces_are_joined_wherever_threads_divide_them() {
        for (kept, time, channels) in [(1, 1, 1), (3, 400, 40), (700, 5, 40), (0, 2, 7)] {
            let piece = |time| Tensor::randn(0f32, 2.0, (2, time, channels), &Device::Cpu).unwrap();
            let (before, x) = (piece(kept), piece(time));
            for active in [false, true] {
                let all = join(Some(&before), &x, active, Kernels::Native).unwrap();
                let x = if active { elu(&x, Kernels::Native).unwrap() } else { x.clone() };
                let expected = Tensor::cat(&[&before, &x], 1).unwrap();
                let floats = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(all.dims(), expected.dims());
                assert!(floats(all) == floats(expected), "{kept} {time} {channels} {active}");
            }
        }
    }
}
