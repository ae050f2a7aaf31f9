//! Attention over prepared prompts, and what it shares with that over the pool.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor};
use pulp::Arch;

use super::simd::{Query, Segment, keys_len, value_len, write_key, write_value};
use crate::model::kernels::{Kernels, Native, kernel_pool, with_floats};

/// Multiply-adds below which one thread does all heads.
pub(super) const PARALLEL_FROM: usize = 16_000;

/// Keys and values that one layer made of a prompt; a prompt is prepared once and shared.
#[derive(Debug)]
pub struct CrossKeys {
    heads: usize,
    dim: usize,
    len: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Keys and values, head by head, as the kernel wants them.
    Native(Vec<f32>, Vec<f32>),
    /// Keys and values, `[heads, length, dim]` each.
    Composed(Tensor, Tensor),
}

/// One prompt's part of a blend.
#[derive(Debug, Clone)]
pub struct CrossPart<'a> {
    /// The prompt's keys and values in this layer.
    pub keys: &'a Arc<CrossKeys>,
    /// Logarithm of its share, added to its scores.
    pub log_share: f32,
}

impl CrossKeys {
    /// From projected keys and values, each `[length, heads * dim]`.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn new(keys: &Tensor, values: &Tensor, heads: usize, kernels: Kernels) -> Result<Arc<Self>> {
        let (len, hidden) = keys.dims2()?;
        let dim = hidden / heads;
        let body = match kernels {
            Kernels::Composed => {
                let split = |x: &Tensor| x.reshape((len, heads, dim))?.transpose(0, 1)?.contiguous();
                Body::Composed(split(keys)?, split(values)?)
            }
            Kernels::Native => {
                let pack = |x: &Tensor, span: usize, write: fn(&mut [f32], usize, &[f32])| {
                    with_floats(&x.contiguous()?, |x| {
                        let mut packed = vec![0f32; heads * span];
                        for (position, x) in x.chunks_exact(hidden).enumerate() {
                            for (head, x) in x.chunks_exact(dim).enumerate() {
                                write(&mut packed[head * span..][..span], position, x);
                            }
                        }
                        Ok(packed)
                    })
                };
                let keys = pack(keys, keys_len::<f32>(len, dim), write_key)?;
                Body::Native(keys, pack(values, len * value_len::<f32>(dim), write_value)?)
            }
        };
        Ok(Arc::new(Self { heads, dim, len, body }))
    }

    /// One head's part.
    fn segment(&self, head: usize, log_share: f32) -> Option<Segment<'_, f32>> {
        let Body::Native(keys, values) = &self.body else { return None };
        let (key_span, value_span) = (keys_len::<f32>(self.len, self.dim), self.len * value_len::<f32>(self.dim));
        let (keys, values) = (&keys[head * key_span..][..key_span], &values[head * value_span..][..value_span]);
        Some(Segment { keys, values, len: self.len, bias: log_share })
    }

    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Positions.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `[heads, length, dim]`.
    pub(super) fn keys(&self) -> Result<&Tensor> {
        self.tensors().map(|(keys, _)| keys)
    }

    /// `[heads, length, dim]`.
    pub(super) fn values(&self) -> Result<&Tensor> {
        self.tensors().map(|(_, values)| values)
    }

    fn tensors(&self) -> Result<(&Tensor, &Tensor)> {
        match &self.body {
            Body::Composed(keys, values) => Ok((keys, values)),
            Body::Native(..) => candle_core::bail!("a prompt was prepared for another device"),
        }
    }
}

/// Lets each token attend to its own blend of prompts; a token without parts gets zeros.
///
/// `queries` is `[tokens, heads * dim]`, and so is the result. The softmax runs over the keys of
/// all parts together, each part's scores raised by the logarithm of its share.
///
/// # Errors
/// When shapes or devices do not fit.
pub(super) fn cross_attend(queries: &Tensor, blends: &[Vec<CrossPart<'_>>]) -> Result<Tensor> {
    let Some(first) = blends.iter().flatten().next() else {
        return queries.zeros_like();
    };
    let (heads, dim) = (first.keys.heads, first.keys.dim);
    queries.apply_op1_no_bwd(&Native("cross_attend", |queries: &[f32], shape: &Shape| {
        let segments = |token: usize, head: usize| -> Vec<Segment<'_, f32>> {
            blends[token].iter().filter_map(|part| part.keys.segment(head, part.log_share)).collect()
        };
        let work = 2 * heads * dim * blends.iter().flatten().map(|part| part.keys.len).sum::<usize>();
        Ok((each_head(queries, blends.len(), heads, dim, work, segments), shape.clone()))
    }))
}

/// Runs every (token, head) pair; queries and results lie `[tokens, heads * dim]`.
fn each_head<'a, T: AsRef<[Segment<'a, f32>]>>(
    queries: &[f32],
    tokens: usize,
    heads: usize,
    dim: usize,
    work: usize,
    segments: impl Fn(usize, usize) -> T + Sync,
) -> Vec<f32> {
    let arch = Arch::new();
    let scale = 1.0 / (dim as f32).sqrt();
    let mut out = vec![0f32; tokens * heads * dim];
    let pairs = tokens * heads;
    let share = if work < PARALLEL_FROM { pairs } else { pairs.div_ceil(8 * kernel_pool::size()) };
    kernel_pool::chunks(&mut out, share * dim, |index, out| {
        let mut scratch = Vec::new();
        for (at, out) in out.chunks_exact_mut(dim).enumerate() {
            let (token, head) = ((index * share + at) / heads, (index * share + at) % heads);
            let segments = segments(token, head);
            if !segments.as_ref().is_empty() {
                let query = &queries[(token * heads + head) * dim..][..dim];
                let segments = segments.as_ref();
                arch.dispatch(Query { query, scale, segments, next: None, scratch: &mut scratch, out });
            }
        }
    });
    out
}
