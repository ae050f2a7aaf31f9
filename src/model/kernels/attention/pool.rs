//! The pool of keys and values of a decoder layer.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use pulp::Arch;

use super::{
    CrossPart,
    batched::{self, Texts},
    cross::{self, PARALLEL_FROM},
    fused::{self, TextSlots},
    simd::{self, Cell, Query, Segment, keys_len, value_len, write_key, write_value},
};
use crate::model::kernels::{Fused, Kernels, WeightFormat, kernel_pool, memory::HugePageBuf, with_floats};

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
/// Memory is reserved at once but, on the CPU, only touched (and thus used) as far as rows are
/// filled.
#[derive(Debug)]
pub struct KvLayer {
    body: Body,
}

#[derive(Debug)]
enum Body {
    F32(Pool<f32>),
    Bf16(Pool<u32>),
    /// Keys, then values, `[2, rows, heads, window + 1, dim]`: what nobody needs is written behind
    /// the window.
    Composed {
        pool: Tensor,
        texts: Option<Texts>,
        /// The texts of passes on custom kernels.
        memory: Option<Tensor>,
    },
}

/// Row by row, in it head by head a line: keys, then values.
#[derive(Debug)]
struct Pool<C> {
    heads: usize,
    dim: usize,
    /// Cells of a line's keys.
    keys: usize,
    /// Cells of a line.
    line: usize,
    cells: HugePageBuf<C>,
}

impl KvLayer {
    /// An empty pool of `rows` rows with `window` positions; in bf16 unless the weights are f32.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(
        (rows, window): (usize, usize),
        (heads, dim): (usize, usize),
        format: WeightFormat,
        kernels: Kernels,
        device: &Device,
    ) -> Result<Self> {
        let body = match kernels {
            Kernels::Composed => {
                let pool = Tensor::zeros((2, rows, heads, window + 1, dim), format.dtype(device), device)?;
                Body::Composed { pool, texts: None, memory: None }
            }
            Kernels::Native if narrow(dim, format) => Body::Bf16(Pool::new(rows, window, heads, dim)?),
            Kernels::Native => Body::F32(Pool::new(rows, window, heads, dim)?),
        };
        Ok(Self { body })
    }

    /// Bytes that one position of a row takes in a layer of `heads` heads of `dim` numbers.
    pub fn bytes(heads: usize, dim: usize, format: WeightFormat, kernels: Kernels) -> usize {
        let narrow = if kernels == Kernels::Native { narrow(dim, format) } else { format != WeightFormat::F32 };
        let size = if narrow { 2 } else { 4 };
        2 * size * heads * dim
    }

    /// Stores the keys and values in `qkv` (`[tokens, 3 * heads * dim]`), then lets each token
    /// attend to its own row up to its own position. Returns `[tokens, heads * dim]` in the same
    /// type: what the pass's [`Stream`](super::Stream) multiplies in.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn attend(&mut self, qkv: &Tensor, pass: &Pass) -> Result<Tensor> {
        match (&mut self.body, &pass.0) {
            (Body::F32(pool), Plan::Native(at)) => pool.attend(qkv, at),
            (Body::Bf16(pool), Plan::Native(at)) => pool.attend(qkv, at),
            (Body::Composed { pool, .. }, Plan::Composed(plan)) => {
                batched::attend_pool(&pool.get(0)?, &pool.get(1)?, qkv, plan)
            }
            (Body::Composed { pool, .. }, Plan::Fused(plan)) => fused::attend_pool(pool, qkv, plan),
            _ => candle_core::bail!("a pass was planned for another device"),
        }
    }

    /// What a row holds is not needed any more. On the CPU its memory goes.
    pub fn forget(&mut self, row: usize) {
        match &mut self.body {
            Body::F32(pool) => pool.forget(row),
            Body::Bf16(pool) => pool.forget(row),
            Body::Composed { .. } => {}
        }
    }

    /// Says that keys and values are needed after the operation that comes now, so that memory is
    /// not idle until then.
    pub fn prefetch(&self, pass: &Pass) {
        match (&self.body, &pass.0) {
            (Body::F32(pool), Plan::Native(at)) => pool.prefetch(at),
            (Body::Bf16(pool), Plan::Native(at)) => pool.prefetch(at),
            _ => {}
        }
    }

    /// Lets each token attend to its own blend of prompts; a token without parts gets zeros. The
    /// tokens of one row have the same blend.
    ///
    /// `queries` is `[tokens, heads * dim]`, and so is the result. The softmax runs over the keys
    /// of all parts together, each part's scores raised by the logarithm of its share.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn cross_attend(&mut self, queries: &Tensor, blends: &[Vec<CrossPart<'_>>], pass: &Pass) -> Result<Tensor> {
        match (&mut self.body, &pass.0) {
            (Body::Composed { pool, texts, .. }, Plan::Composed(plan)) => {
                batched::attend_texts(texts, queries, blends, plan, pool)
            }
            (Body::Composed { pool, memory, .. }, Plan::Fused(plan)) => {
                fused::attend_texts(memory, queries, blends, plan, pool.dtype())
            }
            _ => cross::cross_attend(queries, blends),
        }
    }
}

/// What the layers share of a pass.
#[derive(Debug)]
pub struct Pass(Plan);

#[derive(Debug)]
enum Plan {
    Native(Vec<AttendRow>),
    Composed(batched::Plan),
    Fused(fused::Plan),
}

impl Pass {
    /// A pass of tokens at `at` over pools of `window` positions.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(at: Vec<AttendRow>, window: usize, kernels: Kernels, device: &Device) -> Result<Self> {
        Ok(Self(match kernels {
            Kernels::Native => Plan::Native(at),
            Kernels::Composed => Plan::Composed(batched::Plan::new(&at, window, device)?),
        }))
    }

    /// A pass on custom kernels over composed pools; `blends` are its tokens' texts in any one
    /// layer. Every layer of the pools that `texts` belongs to must make the pass.
    ///
    /// # Errors
    /// When the device fails.
    pub fn with_fused(
        fused: &Fused,
        at: &[AttendRow],
        blends: &[Vec<CrossPart<'_>>],
        texts: &mut TextSlots,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self(Plan::Fused(fused::Plan::new(fused, at, blends, texts, device)?)))
    }

    /// The custom kernels that it is on, if it is.
    pub(in crate::model::kernels) fn fused(&self) -> Option<&Fused> {
        match &self.0 {
            Plan::Fused(plan) => Some(&plan.fused),
            Plan::Native(_) | Plan::Composed(_) => None,
        }
    }

    /// Whose operations the rest of it uses.
    pub(in crate::model::kernels) fn kernels(&self) -> Kernels {
        match self.0 {
            Plan::Native(_) => Kernels::Native,
            Plan::Composed(_) | Plan::Fused(_) => Kernels::Composed,
        }
    }
}

/// Whether keys and values of heads of `dim` numbers are kept in bf16.
fn narrow(dim: usize, format: WeightFormat) -> bool {
    format != WeightFormat::F32 && simd::fits::<u32>(dim)
}

/// One head of one row, and those tokens of a pass that live there.
struct Task<'a, C> {
    line: &'a mut [C],
    head: usize,
    tokens: &'a [usize],
    /// `[tokens, dim]`.
    out: &'a mut [f32],
}

impl<C: Cell> Pool<C> {
    fn new(rows: usize, window: usize, heads: usize, dim: usize) -> Result<Self> {
        let keys = keys_len::<C>(window, dim);
        let line = keys + window * value_len::<C>(dim);
        Ok(Self { heads, dim, keys, line, cells: HugePageBuf::zeroed(rows * heads * line, heads * line)? })
    }

    fn forget(&mut self, row: usize) {
        let length = self.heads * self.line;
        self.cells.forget(row * length..(row + 1) * length);
    }

    /// As if rows lay side by side and were of the same length.
    fn prefetch(&self, at: &[AttendRow]) {
        let rows = || at.iter().map(|at| at.row);
        if let (Some(first), Some(last)) = (rows().min(), rows().max()) {
            let position = at.iter().map(|at| at.position).max().unwrap_or(0);
            let lines = (last + 1 - first) * self.heads / kernel_pool::size();
            let (apart, keys) = (lines * self.line, keys_len::<C>(position + 1, self.dim));
            let size = size_of::<C>();
            kernel_pool::prefetch_next_at(
                &raw const self.cells[first * self.heads * self.line],
                apart * size,
                keys * size,
            );
        }
    }

    fn attend(&mut self, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
        let (heads, dim, line) = (self.heads, self.dim, self.line);
        let hidden = heads * dim;
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (token, at) in at.iter().enumerate() {
            rows.entry(at.row).or_default().push(token);
        }
        // Every task owns its line, so it writes its keys and values itself, just before it reads
        // them.
        let mut tasks = Vec::with_capacity(rows.len() * heads);
        let mut sums = vec![0f32; at.len() * hidden];
        let (mut rest, mut begin, mut sums_left) = (&mut self.cells[..], 0, &mut sums[..]);
        for (row, tokens) in &rows {
            let (own, behind) = rest.split_at_mut((row + 1 - begin) * heads * line);
            let lines = own[(row - begin) * heads * line..].chunks_exact_mut(line).enumerate();
            let (out, others) = sums_left.split_at_mut(tokens.len() * hidden);
            let lines = lines.zip(out.chunks_exact_mut(tokens.len() * dim));
            tasks.extend(lines.map(|((head, line), out)| Task { line, head, tokens, out }));
            (rest, begin, sums_left) = (behind, row + 1, others);
        }
        let work: usize = at.iter().map(|at| 2 * (at.position + 1) * hidden).sum();
        let share = if work < PARALLEL_FROM { tasks.len() } else { tasks.len().div_ceil(16 * kernel_pool::size()) };
        let keys = self.keys;
        with_floats(qkv, |qkv| {
            kernel_pool::chunks(&mut tasks, share, |_, tasks| {
                let mut scratch = Vec::new();
                tasks.iter_mut().for_each(|task| task.run(qkv, at, keys, (heads, dim), &mut scratch));
            });
            Ok(())
        })?;
        let mut out = vec![0f32; at.len() * hidden];
        for task in &tasks {
            for (token, from) in task.tokens.iter().zip(task.out.chunks_exact(dim)) {
                out[token * hidden + task.head * dim..][..dim].copy_from_slice(from);
            }
        }
        Tensor::from_vec(out, (at.len(), hidden), &Device::Cpu)
    }
}

impl<C: Cell> Task<'_, C> {
    /// Stores the tokens' keys and values, then lets each attend.
    fn run(
        &mut self,
        qkv: &[f32],
        at: &[AttendRow],
        keys: usize,
        (heads, dim): (usize, usize),
        scratch: &mut Vec<f32>,
    ) {
        let hidden = heads * dim;
        let part = |token: usize, part: usize| &qkv[token * 3 * hidden + part * hidden + self.head * dim..][..dim];
        let next = Some(self.line.as_ptr().wrapping_add(self.line.len()));
        let (keys, values) = self.line.split_at_mut(keys);
        for token in self.tokens {
            write_key(keys, at[*token].position, part(*token, 1));
            write_value(values, at[*token].position, part(*token, 2));
        }
        let scale = 1.0 / (dim as f32).sqrt();
        for (token, out) in self.tokens.iter().zip(self.out.chunks_exact_mut(dim)) {
            let segments = &[Segment { keys: &*keys, values: &*values, len: at[*token].position + 1, bias: 0.0 }];
            Arch::new().dispatch(Query { query: part(*token, 0), scale, segments, next, scratch, out });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::DType;

    use super::{super::cross::CrossKeys, *};

    const HEADS: usize = 2;
    const DIM: usize = 32;
    const WINDOW: usize = 100;

    fn random(shape: (usize, usize), seed: u64) -> Tensor {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        let data: Vec<f32> = std::iter::repeat_with(next).take(shape.0 * shape.1).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// Passes of several rows, lengths and gaps, and after each what the texts say; all results in
    /// order.
    fn results(kernels: Kernels, format: WeightFormat) -> Vec<f32> {
        results_on(kernels, format, None)
    }

    fn results_on(kernels: Kernels, format: WeightFormat, fused: Option<&Fused>) -> Vec<f32> {
        let mut slots = TextSlots::default();
        let mut layer = KvLayer::new((6, WINDOW), (HEADS, DIM), format, kernels, &Device::Cpu).unwrap();
        let width = HEADS * DIM;
        let text = |len: usize, seed: u64| {
            CrossKeys::new(&random((len, width), seed), &random((len, width), seed + 1), HEADS, kernels).unwrap()
        };
        let (long, short) = (text(9, 50), text(3, 60));
        let passes: [&[(usize, usize)]; 6] = [
            &[(1, 0), (1, 1), (1, 2), (4, 0)],
            &[(4, 1), (1, 3)],
            &[(1, 4)],
            &[(0, 0), (1, 5), (4, 2), (4, 3), (5, 0)],
            &[(4, 1), (1, 2)],
            &[(1, 3), (4, 2)],
        ];
        let long_pass: Vec<(usize, usize)> = (3..WINDOW).map(|position| (4, position)).collect();
        let mut all = Vec::new();
        for (index, at) in passes.into_iter().chain([&long_pass[..]]).enumerate() {
            let at: Vec<AttendRow> = at.iter().map(|&(row, position)| AttendRow { row, position }).collect();
            let tokens = at.len();
            // Row 1 has a blend, row 4 a text from the third pass on, the others none.
            let blends: Vec<Vec<CrossPart<'_>>> = at
                .iter()
                .map(|at| match at.row {
                    1 => vec![
                        CrossPart { keys: &long, log_share: 0.3f32.ln() },
                        CrossPart { keys: &short, log_share: 0.7f32.ln() },
                    ],
                    4 if index > 2 => vec![CrossPart { keys: &short, log_share: 0.0 }],
                    _ => vec![],
                })
                .collect();
            let pass = match fused {
                Some(fused) => Pass::with_fused(fused, &at, &blends, &mut slots, &Device::Cpu).unwrap(),
                None => Pass::new(at, WINDOW, kernels, &Device::Cpu).unwrap(),
            };
            // Custom kernels take the weights' type and give it.
            let dtype = if fused.is_some() { format.dtype(&Device::Cpu) } else { DType::F32 };
            let given = |width, seed| random((tokens, width), seed + index as u64).to_dtype(dtype).unwrap();
            let own = layer.attend(&given(3 * width, 100), &pass).unwrap();
            let texts = layer.cross_attend(&given(width, 200), &blends, &pass).unwrap();
            for result in [own, texts] {
                assert_eq!((result.dims2().unwrap(), result.dtype()), ((tokens, width), dtype));
                all.extend(result.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap());
            }
        }
        all
    }

    #[test]
    fn both_bodies_and_both_formats_agree() {
        let exact = results(Kernels::Native, WeightFormat::F32);
        let worst = |kernels, format| {
            let found = results(kernels, format);
            exact.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
        };
        assert!(worst(Kernels::Composed, WeightFormat::F32) < 1e-5);
        // Half an ulp of bf16 at 1, and what the softmax makes of it.
        assert!(worst(Kernels::Native, WeightFormat::Bf16) < 0.01);
        assert!(worst(Kernels::Composed, WeightFormat::Bf16) < 0.002);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_pass_on_kernels_of_our_own_is_laid_out_as_they_read_it() {
        let exact = results(Kernels::Native, WeightFormat::F32);
        let worst = |format| {
            let found = results_on(Kernels::Composed, format, Some(&Fused::plain(format)));
            exact.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
        };
        assert!(worst(WeightFormat::F32) < 1e-5);
        assert!(worst(WeightFormat::Bf16) < 0.002);
    }
}
