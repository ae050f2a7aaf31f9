//! The pool of keys and values of a decoder layer.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor};
use pulp::Arch;

use super::{
    Kernels, WeightFormat,
    attend::PARALLEL_FROM,
    attention::{self, Cell, Query, Segment, keys_len, value_len, write_key, write_value},
    memory::Block,
    team, with_floats,
};

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
    body: Body,
}

#[derive(Debug)]
enum Body {
    F32(Pool<f32>),
    Bf16(Pool<u32>),
    /// Keys and values, `[rows, heads, window, dim]` each.
    Composed(Tensor, Tensor),
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
    cells: Block<C>,
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
                let zeros = || Tensor::zeros((rows, heads, window, dim), DType::F32, device);
                Body::Composed(zeros()?, zeros()?)
            }
            Kernels::Native if narrow(dim, format) => Body::Bf16(Pool::new(rows, window, heads, dim)?),
            Kernels::Native => Body::F32(Pool::new(rows, window, heads, dim)?),
        };
        Ok(Self { body })
    }

    /// Bytes that one position of a row takes in a layer of `heads` heads of `dim` numbers.
    pub fn bytes(heads: usize, dim: usize, format: WeightFormat, kernels: Kernels) -> usize {
        let size = if kernels == Kernels::Native && narrow(dim, format) { 2 } else { 4 };
        2 * size * heads * dim
    }

    /// Stores the keys and values in `qkv` (`[tokens, 3 * heads * dim]`), then lets each token attend to its own row up
    /// to its own position. Returns `[tokens, heads * dim]`.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn attend(&mut self, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
        match &mut self.body {
            Body::F32(pool) => pool.attend(qkv, at),
            Body::Bf16(pool) => pool.attend(qkv, at),
            Body::Composed(keys, values) => composed(keys, values, qkv, at),
        }
    }
}

/// Whether keys and values of heads of `dim` numbers are kept in bf16.
fn narrow(dim: usize, format: WeightFormat) -> bool {
    format != WeightFormat::F32 && attention::fits::<u32>(dim)
}

/// One head of one row, and those tokens of a pass that live there.
struct Task<'a, C> {
    line: &'a mut [C],
    head: usize,
    tokens: &'a [usize],
    /// `[tokens, dim]`.
    out: Vec<f32>,
}

impl<C: Cell> Pool<C> {
    fn new(rows: usize, window: usize, heads: usize, dim: usize) -> Result<Self> {
        let keys = keys_len::<C>(window, dim);
        let line = keys + window * value_len::<C>(dim);
        Ok(Self { heads, dim, keys, line, cells: Block::zeroed(rows * heads * line, heads * line)? })
    }

    fn attend(&mut self, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
        let (heads, dim, line) = (self.heads, self.dim, self.line);
        let hidden = heads * dim;
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (token, at) in at.iter().enumerate() {
            rows.entry(at.row).or_default().push(token);
        }
        // Every task owns its line, so it writes its keys and values itself, just before it reads them.
        let mut tasks = Vec::with_capacity(rows.len() * heads);
        let (mut rest, mut begin) = (&mut self.cells[..], 0);
        for (row, tokens) in &rows {
            let (own, behind) = rest.split_at_mut((row + 1 - begin) * heads * line);
            let lines = own[(row - begin) * heads * line..].chunks_exact_mut(line).enumerate();
            tasks.extend(lines.map(|(head, line)| Task { line, head, tokens, out: vec![0.0; tokens.len() * dim] }));
            (rest, begin) = (behind, row + 1);
        }
        let work: usize = at.iter().map(|at| 2 * (at.position + 1) * hidden).sum();
        let share = if work < PARALLEL_FROM { tasks.len() } else { tasks.len().div_ceil(8 * team::size()) };
        let keys = self.keys;
        with_floats(qkv, |qkv| {
            team::chunks(&mut tasks, share, |_, tasks| {
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
        let (keys, values) = self.line.split_at_mut(keys);
        for token in self.tokens {
            write_key(keys, at[*token].position, part(*token, 1));
            write_value(values, at[*token].position, part(*token, 2));
        }
        let scale = 1.0 / (dim as f32).sqrt();
        for (token, out) in self.tokens.iter().zip(self.out.chunks_exact_mut(dim)) {
            let segments = &[Segment { keys: &*keys, values: &*values, len: at[*token].position + 1, bias: 0.0 }];
            Arch::new().dispatch(Query { query: part(*token, 0), scale, segments, scratch, out });
        }
    }
}

fn composed(keys: &Tensor, values: &Tensor, qkv: &Tensor, at: &[AttendRow]) -> Result<Tensor> {
    let (_, heads, _, dim) = keys.dims4()?;
    let qkv = qkv.reshape((at.len(), 3, heads, dim))?;
    let part = |token: usize, part: usize| qkv.get(token)?.get(part)?.unsqueeze(1)?.contiguous();
    for (token, at) in at.iter().enumerate() {
        keys.get(at.row)?.slice_set(&part(token, 1)?, 1, at.position)?;
        values.get(at.row)?.slice_set(&part(token, 2)?, 1, at.position)?;
    }
    let scale = 1.0 / (dim as f64).sqrt();
    let rows = at.iter().enumerate().map(|(token, at)| {
        let keys = keys.get(at.row)?.narrow(1, 0, at.position + 1)?;
        let values = values.get(at.row)?.narrow(1, 0, at.position + 1)?;
        let scores = (part(token, 0)?.matmul(&keys.transpose(1, 2)?.contiguous()?)? * scale)?;
        candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values.contiguous()?)?.reshape(heads * dim)
    });
    Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)
}
