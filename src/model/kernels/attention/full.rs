//! Attention of all positions over all keys of their row, and rotary positions.

use candle_core::{D, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::model::kernels::{
    Kernels, Native,
    gemm::{self, Finish, Product, RowMap},
    math, with_floats,
};

/// Queries that one thread handles together: their scores stay in its cache.
const QUERIES: usize = 64;

/// Layout of an attention.
#[derive(Debug, Clone, Copy)]
pub struct FullAttention {
    /// Query heads.
    pub heads: usize,
    /// Key heads; each serves `heads / key_heads` consecutive query heads.
    pub key_heads: usize,
    /// Whether an all-zero key with an all-zero value stands beside the others.
    pub zero_key: bool,
}

impl FullAttention {
    /// Lets the positions of row `b` of `queries` `[batch, time, heads * dim]` attend to `rows[b]`:
    /// keys and values `[length, key_heads * dim]` each, or to nothing, which gives zeros. Scores
    /// are divided by √dim.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn attend(&self, queries: &Tensor, rows: &[Option<(Tensor, Tensor)>], kernels: Kernels) -> Result<Tensor> {
        let (batch, time, width) = queries.dims3()?;
        if rows.len() != batch || !width.is_multiple_of(self.heads) || !self.heads.is_multiple_of(self.key_heads) {
            candle_core::bail!("attention of {} heads over {} rows was given {:?}", self.heads, rows.len(), queries)
        }
        let each = rows.iter().enumerate().map(|(row, keys)| {
            let queries = queries.get(row)?.contiguous()?;
            match keys {
                None => queries.zeros_like(),
                Some((keys, values)) if kernels == Kernels::Native => with_floats(&keys.contiguous()?, |keys| {
                    with_floats(&values.contiguous()?, |values| {
                        queries.apply_op1_no_bwd(&Native("full_attention", |queries: &[f32], shape: &Shape| {
                            Ok((self.native(queries, keys, values, time, width), shape.clone()))
                        }))
                    })
                }),
                Some((keys, values)) => self.composed(&queries, keys, values),
            }
        });
        Tensor::stack(&each.collect::<Result<Vec<_>>>()?, 0)
    }

    fn composed(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let (time, width) = queries.dims2()?;
        let dim = width / self.heads;
        let length = keys.dim(0)?;
        let split = |x: &Tensor| {
            let x = x.reshape((length, self.key_heads, 1, dim))?;
            let x = x.broadcast_as((length, self.key_heads, self.heads / self.key_heads, dim))?;
            x.reshape((length, self.heads, dim))?.transpose(0, 1)?.contiguous()
        };
        let queries = queries.reshape((time, self.heads, dim))?.transpose(0, 1)?.contiguous()?;
        let mut scores = (queries.matmul(&split(keys)?.t()?.contiguous()?)? / (dim as f64).sqrt())?;
        if self.zero_key {
            scores = scores.pad_with_zeros(D::Minus1, 0, 1)?;
        }
        let mut weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        if self.zero_key {
            weights = weights.narrow(D::Minus1, 0, length)?.contiguous()?;
        }
        weights.matmul(&split(values)?)?.transpose(0, 1)?.reshape((time, width))
    }

    fn native(&self, queries: &[f32], keys: &[f32], values: &[f32], time: usize, width: usize) -> Vec<f32> {
        let dim = width / self.heads;
        let key_width = self.key_heads * dim;
        let length = keys.len() / key_width;
        let scale = 1.0 / (dim as f32).sqrt();
        // Keys are the weights of one product, values those of another.
        let packed: Vec<(Vec<f32>, Vec<f32>)> = (0..self.key_heads)
            .into_par_iter()
            .map(|head| {
                let rows = |x: &[f32]| -> Vec<f32> {
                    x.chunks_exact(key_width).flat_map(|row| row[head * dim..][..dim].iter().copied()).collect()
                };
                let mut columns = vec![0f32; dim * length];
                for (position, row) in rows(values).chunks_exact(dim).enumerate() {
                    for (d, value) in row.iter().enumerate() {
                        columns[d * length + position] = *value;
                    }
                }
                (gemm::pack(&rows(keys), length, dim), gemm::pack(&columns, dim, length))
            })
            .collect();
        let blocks = time.div_ceil(QUERIES);
        let parts: Vec<Vec<f32>> = (0..self.heads * blocks)
            .into_par_iter()
            .map(|index| {
                let (head, first) = (index / blocks, index % blocks * QUERIES);
                let (keys, values) = &packed[head * self.key_heads / self.heads];
                let count = QUERIES.min(time - first);
                let x = &queries[first * width + head * dim..];
                let map = RowMap::plain(count, width);
                let product = Product { inputs: dim, outputs: length, x, map, finish: Finish::Store };
                let mut scores = gemm::alone(keys, product);
                let mut totals = vec![0f32; count];
                math::dispatch_simd(
                    #[inline(always)]
                    || {
                        for (scores, total) in scores.chunks_exact_mut(length).zip(&mut totals) {
                            *total = soften(scores, scale, self.zero_key);
                        }
                    },
                );
                let map = RowMap::plain(count, length);
                let product = Product { inputs: length, outputs: dim, x: &scores, map, finish: Finish::Store };
                let mut mixed = gemm::alone(values, product);
                for (mixed, total) in mixed.chunks_exact_mut(dim).zip(totals) {
                    mixed.iter_mut().for_each(|value| *value /= total);
                }
                mixed
            })
            .collect();
        let mut out = vec![0f32; time * width];
        for (index, part) in parts.iter().enumerate() {
            let (head, first) = (index / blocks, index % blocks * QUERIES);
            for (row, part) in part.chunks_exact(dim).enumerate() {
                out[(first + row) * width + head * dim..][..dim].copy_from_slice(part);
            }
        }
        out
    }
}

/// Turns scores into weights that are not yet divided by their sum, which is returned.
#[inline(always)]
fn soften(scores: &mut [f32], scale: f32, zero_key: bool) -> f32 {
    let mut tops = [if zero_key { 0.0 } else { f32::NEG_INFINITY }; 16];
    for block in scores.chunks_mut(16) {
        for (score, top) in block.iter_mut().zip(&mut tops) {
            *score *= scale;
            *top = if *score > *top { *score } else { *top };
        }
    }
    let top = tops.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = math::exp(*score - top);
    }
    math::sum(scores, |value| value) + if zero_key { math::exp(-top) } else { 0.0 }
}

/// How the two values that a rotation mixes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Neighbours: 0 and 1, 2 and 3, ..
    Neighbours,
    /// The first half with the second.
    Halves,
}

/// Cosines and sines of positions, for rotary embeddings.
#[derive(Debug, Clone)]
pub struct Rotary {
    pairing: Pairing,
    /// `[positions, pairs]`.
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For positions `0..positions`, turned by `position * frequency` in every pair.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(frequencies: &[f32], positions: usize, pairing: Pairing, device: &candle_core::Device) -> Result<Self> {
        let angles: Vec<f32> =
            (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f)).collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle)).collect();
            Tensor::from_vec(values, (positions, frequencies.len()), device)
        };
        Ok(Self { pairing, cos: table(f32::cos)?, sin: table(f32::sin)? })
    }

    /// Turns `[batch, positions, heads * dim]`: the first pairs of every head, the rest stays.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn turn(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (batch, time, width) = x.dims3()?;
        let (dim, pairs) = (width / heads, self.cos.dim(1)?);
        if x.device().is_cpu() {
            let pairing = self.pairing;
            return with_floats(&self.cos, |cos| {
                with_floats(&self.sin, |sin| {
                    x.contiguous()?.apply_op1_no_bwd(&Native("turn", |x: &[f32], shape: &Shape| {
                        let mut out = x.to_vec();
                        out.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
                            let at = row % time * pairs;
                            let (cos, sin) = (&cos[at..at + pairs], &sin[at..at + pairs]);
                            out.chunks_exact_mut(dim).for_each(|head| turn(head, cos, sin, pairing));
                        });
                        Ok((out, shape.clone()))
                    }))
                })
            });
        }
        let x = x.reshape((batch, time, heads, dim))?;
        let part = x.narrow(D::Minus1, 0, 2 * pairs)?;
        let (a, b) = match self.pairing {
            Pairing::Halves => (part.narrow(D::Minus1, 0, pairs)?, part.narrow(D::Minus1, pairs, pairs)?),
            Pairing::Neighbours => {
                let part = part.reshape((batch, time, heads, pairs, 2))?;
                (part.narrow(4, 0, 1)?.squeeze(4)?, part.narrow(4, 1, 1)?.squeeze(4)?)
            }
        };
        let table = |x: &Tensor| x.narrow(0, 0, time)?.reshape((1, time, 1, pairs));
        let (cos, sin) = (table(&self.cos)?, table(&self.sin)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let turned = match self.pairing {
            Pairing::Halves => Tensor::cat(&[first, second], D::Minus1)?,
            Pairing::Neighbours => Tensor::stack(&[first, second], 4)?.reshape((batch, time, heads, 2 * pairs))?,
        };
        let turned = if 2 * pairs == dim {
            turned
        } else {
            Tensor::cat(&[turned, x.narrow(D::Minus1, 2 * pairs, dim - 2 * pairs)?], D::Minus1)?
        };
        turned.reshape((batch, time, width))
    }
}

/// Turns one head's first pairs.
fn turn(head: &mut [f32], cos: &[f32], sin: &[f32], pairing: Pairing) {
    match pairing {
        Pairing::Halves => {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
        Pairing::Neighbours => {
            for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn native_and_composed_agree() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        for (heads, key_heads, dim, time, length, zero_key) in
            [(2, 2, 16, 150, 150, true), (4, 2, 34, 13, 7, false), (3, 1, 5, 1, 90, true), (1, 1, 64, 65, 1, false)]
        {
            let attention = FullAttention { heads, key_heads, zero_key };
            let queries = random(&[2, time, heads * dim]);
            let rows = [Some((random(&[length, key_heads * dim]), random(&[length, key_heads * dim]))), None];
            let native = attention.attend(&queries, &rows, Kernels::Native).unwrap();
            let composed = attention.attend(&queries, &rows, Kernels::Composed).unwrap();
            let worst = (native - composed).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(worst.to_scalar::<f32>().unwrap() < 5e-6, "{heads} heads of {dim}, {length} keys");
        }
    }

    #[test]
    fn a_turn_keeps_lengths_and_leaves_the_rest() {
        let x = Tensor::randn(0f32, 1.0, (1, 5, 2 * 6), &Device::Cpu).unwrap();
        for pairing in [Pairing::Neighbours, Pairing::Halves] {
            let rotary = Rotary::new(&[1.0, 0.3], 5, pairing, &Device::Cpu).unwrap();
            let turned = rotary.turn(&x, 2).unwrap();
            let (a, b) = (x.to_vec3::<f32>().unwrap(), turned.to_vec3::<f32>().unwrap());
            for (a, b) in a[0].iter().zip(&b[0]) {
                let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
                assert!((length(a) - length(b)).abs() < 1e-5);
                assert_eq!((a[4..6].to_vec(), a[10..].to_vec()), (b[4..6].to_vec(), b[10..].to_vec()));
            }
            assert_eq!(a[0][0], b[0][0]);
        }
    }
}
