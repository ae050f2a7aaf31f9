//! Attention over the KV pool and over prepared prompts.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Shape, Tensor};
use pulp::Arch;
use rayon::prelude::*;

use super::{
    Kernels, Native, NativeWrite,
    attention::{Query, Segment, keys_len, value_len, write_key, write_value},
    with_floats,
};

/// Multiply-adds below which one thread does all heads.
const PARALLEL_FROM: usize = 100_000;

/// Where a token lives: its row in the pool and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttendRow {
    /// Row of the pool.
    pub row: usize,
    /// Position in the row; the token sees positions `0..=position`.
    pub position: usize,
}

/// Keys and values of one decoder layer for every row of the pool.
///
/// Memory is reserved at once but, on the CPU, only touched (and thus used) as far as rows are filled.
#[derive(Debug)]
pub struct KvLayer {
    kernels: Kernels,
    heads: usize,
    dim: usize,
    window: usize,
    keys: Tensor,
    values: Tensor,
}

impl KvLayer {
    /// An empty pool of `rows` rows with `window` positions.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(
        rows: usize,
        window: usize,
        heads: usize,
        dim: usize,
        kernels: Kernels,
        device: &Device,
    ) -> Result<Self> {
        let (keys, values) = match kernels {
            Kernels::Native => (
                Tensor::zeros((rows, heads, keys_len(window, dim)), DType::F32, device)?,
                Tensor::zeros((rows, heads, window * value_len(dim)), DType::F32, device)?,
            ),
            Kernels::Composed => (
                Tensor::zeros((rows, heads, window, dim), DType::F32, device)?,
                Tensor::zeros((rows, heads, window, dim), DType::F32, device)?,
            ),
        };
        Ok(Self { kernels, heads, dim, window, keys, values })
    }

    /// Stores the keys and values in `qkv` (`[tokens, 3 * heads * dim]`), then lets each token attend to its own row up
    /// to its own position. Returns `[tokens, heads * dim]`.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn attend(&mut self, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
        match self.kernels {
            Kernels::Native => self.native(qkv, at),
            Kernels::Composed => self.composed(qkv, at),
        }
    }

    fn native(&mut self, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
        let (heads, dim, hidden) = (self.heads, self.dim, self.heads * self.dim);
        let (key_span, value_span) = (keys_len(self.window, dim), self.window * value_len(dim));
        // `part` 1 are the keys, 2 the values of every token.
        let store = |pool: &mut [f32], qkv: &[f32], part: usize, span: usize, write: fn(&mut [f32], usize, &[f32])| {
            for (token, at) in qkv.chunks_exact(3 * hidden).zip(at) {
                for (head, value) in token[part * hidden..][..hidden].chunks_exact(dim).enumerate() {
                    write(&mut pool[(at.row * heads + head) * span..][..span], at.position, value);
                }
            }
        };
        self.keys.inplace_op2(
            qkv,
            &NativeWrite("write_keys", |pool: &mut [f32], qkv: &[f32]| store(pool, qkv, 1, key_span, write_key)),
        )?;
        self.values.inplace_op2(
            qkv,
            &NativeWrite("write_values", |pool: &mut [f32], qkv: &[f32]| store(pool, qkv, 2, value_span, write_value)),
        )?;
        with_floats(&self.keys, |keys| {
            with_floats(&self.values, |values| {
                qkv.apply_op1_no_bwd(&Native("attend", |qkv: &[f32], _: &Shape| {
                    let segments = |token: usize, head: usize| {
                        let AttendRow { row, position } = at[token];
                        [Segment {
                            keys: &keys[(row * heads + head) * key_span..][..key_span],
                            values: &values[(row * heads + head) * value_span..][..value_span],
                            len: position + 1,
                            bias: 0.0,
                        }]
                    };
                    let work = at.iter().map(|at| 2 * (at.position + 1) * hidden).sum();
                    let out = each_head(qkv, 3 * hidden, at.len(), heads, dim, work, segments);
                    Ok((out, Shape::from((at.len(), hidden))))
                }))
            })
        })
    }

    fn composed(&mut self, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
        let (heads, dim) = (self.heads, self.dim);
        let qkv = qkv.reshape((at.len(), 3, heads, dim))?;
        let part = |token: usize, part: usize| qkv.get(token)?.get(part)?.unsqueeze(1)?.contiguous();
        for (token, at) in at.iter().enumerate() {
            self.keys.get(at.row)?.slice_set(&part(token, 1)?, 1, at.position)?;
            self.values.get(at.row)?.slice_set(&part(token, 2)?, 1, at.position)?;
        }
        let scale = 1.0 / (dim as f64).sqrt();
        let rows = at.iter().enumerate().map(|(token, at)| {
            let keys = self.keys.get(at.row)?.narrow(1, 0, at.position + 1)?;
            let values = self.values.get(at.row)?.narrow(1, 0, at.position + 1)?;
            let scores = (part(token, 0)?.matmul(&keys.transpose(1, 2)?.contiguous()?)? * scale)?;
            candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values.contiguous()?)?.reshape(heads * dim)
        });
        Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)
    }
}

/// Keys and values that one layer made of a prompt; a prompt is prepared once and shared.
#[derive(Debug)]
pub struct CrossKeys {
    kernels: Kernels,
    heads: usize,
    dim: usize,
    len: usize,
    keys: Tensor,
    values: Tensor,
}

/// One prompt's part of a blend.
#[derive(Debug, Clone)]
pub struct CrossPart<'a> {
    /// The prompt's keys and values in this layer.
    pub keys: &'a CrossKeys,
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
        let (keys, values) = match kernels {
            Kernels::Composed => {
                let split = |x: &Tensor| x.reshape((len, heads, dim))?.transpose(0, 1)?.contiguous();
                (split(keys)?, split(values)?)
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
                        Tensor::from_vec(packed, heads * span, &Device::Cpu)
                    })
                };
                (pack(keys, keys_len(len, dim), write_key)?, pack(values, len * value_len(dim), write_value)?)
            }
        };
        Ok(Arc::new(Self { kernels, heads, dim, len, keys, values }))
    }
}

/// Lets each token attend to its own blend of prompts; a token without parts gets zeros.
///
/// `queries` is `[tokens, heads * dim]`, and so is the result. The softmax runs over the keys of all parts together,
/// each part's scores raised by the logarithm of its share.
///
/// # Errors
/// When shapes or devices do not fit.
pub fn cross_attend(queries: &Tensor, blends: &[Vec<CrossPart<'_>>]) -> Result<Tensor> {
    let Some(first) = blends.iter().flatten().next() else {
        return queries.zeros_like();
    };
    let (heads, dim) = (first.keys.heads, first.keys.dim);
    if first.keys.kernels == Kernels::Composed {
        return cross_composed(queries, blends, heads, dim);
    }
    // Guards for every part's memory, in the order of the tokens.
    let guards: Vec<_> = blends
        .iter()
        .flatten()
        .map(|part| (part.keys.keys.storage_and_layout().0, part.keys.values.storage_and_layout().0))
        .collect();
    let mut floats = Vec::with_capacity(guards.len());
    for (keys, values) in &guards {
        match (&**keys, &**values) {
            (
                candle_core::Storage::Cpu(candle_core::CpuStorage::F32(keys)),
                candle_core::Storage::Cpu(candle_core::CpuStorage::F32(values)),
            ) => floats.push((keys.as_slice(), values.as_slice())),
            _ => candle_core::bail!("a native operation was given a tensor of another device"),
        }
    }
    let mut offsets = Vec::with_capacity(blends.len());
    let mut offset = 0;
    for blend in blends {
        offsets.push(offset);
        offset += blend.len();
    }
    let hidden = heads * dim;
    queries.apply_op1_no_bwd(&Native("cross_attend", |queries: &[f32], shape: &Shape| {
        let segments = |token: usize, head: usize| -> Vec<Segment<'_>> {
            let parts = blends[token].iter().zip(&floats[offsets[token]..]);
            parts
                .map(|(part, (keys, values))| {
                    let (key_span, value_span) = (keys_len(part.keys.len, dim), part.keys.len * value_len(dim));
                    Segment {
                        keys: &keys[head * key_span..][..key_span],
                        values: &values[head * value_span..][..value_span],
                        len: part.keys.len,
                        bias: part.log_share,
                    }
                })
                .collect()
        };
        let work = 2 * hidden * blends.iter().flatten().map(|part| part.keys.len).sum::<usize>();
        Ok((each_head(queries, hidden, blends.len(), heads, dim, work, segments), shape.clone()))
    }))
}

fn cross_composed(queries: &Tensor, blends: &[Vec<CrossPart<'_>>], heads: usize, dim: usize) -> Result<Tensor> {
    let scale = 1.0 / (dim as f64).sqrt();
    let rows = blends.iter().enumerate().map(|(token, blend)| {
        let query = queries.get(token)?;
        if blend.is_empty() {
            return query.zeros_like();
        }
        let query = query.reshape((heads, 1, dim))?.contiguous()?;
        let score = |part: &CrossPart<'_>| {
            (query.matmul(&part.keys.keys.transpose(1, 2)?.contiguous()?)? * scale)? + f64::from(part.log_share)
        };
        let scores = Tensor::cat(&blend.iter().map(score).collect::<Result<Vec<_>>>()?, D::Minus1)?;
        let values = Tensor::cat(&blend.iter().map(|part| part.keys.values.clone()).collect::<Vec<_>>(), 1)?;
        candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values.contiguous()?)?.reshape(heads * dim)
    });
    Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)
}

/// Runs every (token, head) pair: queries begin every `stride` floats, results lie `[tokens, heads * dim]`.
fn each_head<'a, T: AsRef<[Segment<'a>]>>(
    queries: &[f32],
    stride: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
    work: usize,
    segments: impl Fn(usize, usize) -> T + Sync,
) -> Vec<f32> {
    let arch = Arch::new();
    let scale = 1.0 / (dim as f32).sqrt();
    let mut out = vec![0f32; tokens * heads * dim];
    let run = |scratch: &mut Vec<f32>, (index, out): (usize, &mut [f32])| {
        let (token, head) = (index / heads, index % heads);
        let segments = segments(token, head);
        if !segments.as_ref().is_empty() {
            let query = &queries[token * stride + head * dim..][..dim];
            arch.dispatch(Query { query, scale, segments: segments.as_ref(), scratch, out });
        }
    };
    if work < PARALLEL_FROM || rayon::current_num_threads() == 1 {
        let mut scratch = Vec::new();
        out.chunks_exact_mut(dim).enumerate().for_each(|item| run(&mut scratch, item));
    } else {
        out.par_chunks_exact_mut(dim).enumerate().for_each_init(Vec::new, run);
    }
    out
}
