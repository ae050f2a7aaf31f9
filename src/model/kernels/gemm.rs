//! y = x Wᵀ on CPU memory, with weights packed into panels.
//!
//! A panel holds the weights of a few outputs (four SIMD vectors), input by input, so that one pass
//! streams memory in order and every output is one chain of multiply-adds over the inputs. With
//! many rows the chain is cut into blocks of inputs, whose weights stay in the cache while the rows
//! pass; sums wait in memory in between. The order is the same for any number of rows, blocks and
//! threads: a row's result never depends on what else is in the batch.

use std::ops::Range;

use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    kernel_pool::{self, Columns},
    math,
    memory::fetch,
};

/// SIMD vectors in a panel's row.
const VECTORS: usize = 4;
/// Multiply-adds below which handing work to another thread costs more than it saves.
const PARALLEL_FROM: usize = 100_000;

/// Packed weights in memory.
#[derive(Clone, Copy)]
pub(super) enum Panels<'a> {
    /// Not packed at all: for at most [`FEW`] outputs.
    Unpacked(&'a [f32]),
    F32(&'a [f32]),
    /// Two bf16 in a word: vectors 0 and 1 of a row in the low and high halves of its first words,
    /// then 2 and 3.
    Bf16(&'a [u32]),
    /// Two whole numbers of 16 bits, and 32768, in a word, in the same order. What they are multiples
    /// of is for [`Finish::ScaleAdd`].
    Whole(&'a [u32]),
}

/// Outputs for which panels do not pay.
pub(super) const FEW: usize = 4;
/// Inputs whose weights are used for all rows before the next ones are: as many as the first cache
/// holds beside the rows.
const INPUTS: usize = 128;
/// Bytes between what is multiplied and what is fetched.
const AHEAD: usize = 8 << 10;
/// Rows whose sums wait together.
const ROWS: usize = 240;
/// Weights that stay in a core's cache while all rows of a thread pass.
const CACHED: usize = 1 << 18;
/// Rows of a thread that are worth fetching other weights once more.
const MANY: usize = 512;

/// Where the rows of x begin: `batches` times `per_batch` rows, `stride` apart, the batches
/// `batch_stride` apart. Overlapping rows make a convolution out of the product. A row's inputs lie
/// in `runs` of equal length, `run_stride` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowMap {
    pub batches: usize,
    pub per_batch: usize,
    pub batch_stride: usize,
    pub stride: usize,
    pub runs: usize,
    pub run_stride: usize,
}

impl RowMap {
    /// `count` rows, `stride` apart, each in one run.
    pub(super) fn plain(count: usize, stride: usize) -> Self {
        Self { batches: 1, per_batch: count, batch_stride: 0, stride, runs: 1, run_stride: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.batches * self.per_batch
    }

    pub(super) fn start(&self, row: usize) -> usize {
        (row / self.per_batch) * self.batch_stride + (row % self.per_batch) * self.stride
    }
}

/// What happens to a finished sum before it is stored.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    Store,
    /// Adds one value per output.
    Bias(&'a [f32]),
    /// Adds a tensor of the output's shape.
    Add(&'a [f32]),
    /// Adds one value per output, then a tensor of the output's shape.
    BiasAdd(&'a [f32], &'a [f32]),
    /// Multiplies by one value per output, then adds a tensor of the output's shape.
    ScaleAdd(&'a [f32], &'a [f32]),
    Gelu,
    /// Adds one value per output, then ELU.
    BiasElu(&'a [f32]),
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Outputs in a panel on this machine.
pub(super) fn panel() -> usize {
    VECTORS * Arch::new().dispatch(Lanes)
}

/// Packs `[outputs, inputs]` row-major weights; outputs are filled up to whole panels with zeros.
pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut packed = vec![0f32; packed_len(outputs, inputs)];
    pack_into(weight, outputs, inputs, &mut packed);
    packed
}

/// Floats that packed weights take.
pub(super) fn packed_len(outputs: usize, inputs: usize) -> usize {
    outputs.next_multiple_of(panel()) * inputs
}

/// [`pack`] into zeros.
pub(super) fn pack_into(weight: &[f32], outputs: usize, inputs: usize, packed: &mut [f32]) {
    let panel = panel();
    packed.par_chunks_mut(panel * inputs).enumerate().for_each(|(index, chunk)| {
        for lane in 0..panel.min(outputs - index * panel) {
            let row = &weight[(index * panel + lane) * inputs..][..inputs];
            for (i, value) in row.iter().enumerate() {
                chunk[i * panel + lane] = *value;
            }
        }
    });
}

/// Rounds packed weights to bf16, two in a word.
pub(super) fn narrow(packed: &[f32], words: &mut [u32]) {
    pair(packed, words, |value| u32::from(bf16::from_f32(value).to_bits()));
}

/// Rounds packed weights of at most 32767 to whole numbers, two in a word.
pub(super) fn round(packed: &[f32], words: &mut [u32]) {
    pair(packed, words, |value| (value.round() + WHOLE) as u32);
}

fn pair(packed: &[f32], words: &mut [u32], bits: impl Fn(f32) -> u32 + Sync) {
    let lanes = panel() / VECTORS;
    words.par_chunks_mut(lanes).zip(packed.par_chunks(2 * lanes)).for_each(|(words, pair)| {
        for (lane, word) in words.iter_mut().enumerate() {
            *word = bits(pair[lane]) | (bits(pair[lanes + lane]) << 16);
        }
    });
}

/// One input's weights of a panel as four vectors.
trait Format: Copy + Send + Sync {
    type Word: Copy + Send + Sync;
    /// Words per input and panel.
    fn words(panel: usize) -> usize;
    fn load<S: Simd>(simd: S, words: &[Self::Word]) -> [S::f32s; VECTORS];
}

#[derive(Clone, Copy)]
struct F32;

impl Format for F32 {
    type Word = f32;

    #[inline(always)]
    fn words(panel: usize) -> usize {
        panel
    }

    #[inline(always)]
    fn load<S: Simd>(_: S, words: &[f32]) -> [S::f32s; VECTORS] {
        let vectors = S::as_simd_f32s(words).0;
        [vectors[0], vectors[1], vectors[2], vectors[3]]
    }
}

#[derive(Clone, Copy)]
struct Bf16;

impl Format for Bf16 {
    type Word = u32;

    #[inline(always)]
    fn words(panel: usize) -> usize {
        panel / 2
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, words: &[u32]) -> [S::f32s; VECTORS] {
        let vectors = S::as_simd_u32s(words).0;
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let low = |word| simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(word, shift));
        let high = |word| simd.transmute_f32s_u32s(simd.and_u32s(word, mask));
        [low(vectors[0]), high(vectors[0]), low(vectors[1]), high(vectors[1])]
    }
}

#[derive(Clone, Copy)]
struct Whole;

/// What is added to whole numbers, so that they have no sign.
const WHOLE: f32 = 32_768.0;
/// 2 to the 23rd: the last bits of an f32 of this size count ones, so that a whole number put there is
/// added to it.
const ONES: f32 = 8_388_608.0;

impl Format for Whole {
    type Word = u32;

    #[inline(always)]
    fn words(panel: usize) -> usize {
        panel / 2
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, words: &[u32]) -> [S::f32s; VECTORS] {
        let vectors = S::as_simd_u32s(words).0;
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff));
        let (ones, less) = (simd.splat_u32s(ONES.to_bits()), simd.splat_f32s(ONES + WHOLE));
        let float = |bits| simd.sub_f32s(simd.transmute_f32s_u32s(simd.or_u32s(bits, ones)), less);
        let low = |word| float(simd.and_u32s(word, mask));
        let high = |word| float(simd.wrapping_dyn_shr_u32s(word, shift));
        [low(vectors[0]), high(vectors[0]), low(vectors[1]), high(vectors[1])]
    }
}

/// `R` rows against `V` vectors of one panel's block of inputs: adds to the sums of row `r`, which
/// begin at `r * width`, or begins them.
#[inline(always)]
fn micro<S: Simd, F: Format, const R: usize, const V: usize>(
    simd: S,
    x: [&[f32]; R],
    block: &[F::Word],
    tile: &mut [f32],
    fresh: bool,
) -> usize {
    let width = VECTORS * S::F32_LANES;
    let step = F::words(width);
    let inputs = block.len() / step;
    let x = x.map(|row| &row[..inputs]);
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    if !fresh {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (to, from) in sums.iter_mut().zip(S::as_simd_f32s(&tile[r * width..][..width]).0) {
                *to = *from;
            }
        }
    }
    for (i, words) in block.chunks_exact(step).enumerate().take(inputs) {
        if V == VECTORS {
            for line in words.chunks(64 / size_of::<F::Word>()) {
                fetch(line.as_ptr().wrapping_byte_add(AHEAD));
            }
        }
        let weights = F::load(simd, words);
        for r in 0..R {
            let value = simd.splat_f32s(x[r][i]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(value, weights[v], sums[r][v]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (to, from) in S::as_mut_simd_f32s(&mut tile[r * width..][..width]).0.iter_mut().zip(sums) {
            *to = from;
        }
    }
    R
}

/// A product to be made: the rows of `x` that `map` names with a weight of `[outputs, inputs]`.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub inputs: usize,
    pub outputs: usize,
    pub x: &'a [f32],
    pub map: RowMap,
    pub finish: Finish<'a>,
}

/// A rectangle of the product: rows `rows` and panels `panels`, into `out`, which begins with the
/// first of them.
struct Rectangle<'a, 'b, F: Format> {
    product: Product<'a>,
    words: &'a [F::Word],
    rows: Range<usize>,
    panels: Range<usize>,
    out: Columns<'b, f32>,
}

impl<F: Format> WithSimd for Rectangle<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, words, rows, panels, mut out } = self;
        let Product { inputs, outputs, x, map, finish } = product;
        let width = VECTORS * S::F32_LANES;
        let step = F::words(width);
        let first = panels.start * width;
        // Sums are held in registers: with sixteen of them fewer rows fit beside the weights.
        let most = if S::REGISTER_COUNT >= 32 { 6 } else { 2 };
        let run = inputs / map.runs;
        // A few rows pass each weight once: nothing is gained by blocks.
        let block = if rows.len() <= 2 * most { run } else { run.min(INPUTS) };
        let mut tile = vec![0f32; ROWS.min(rows.len()).next_multiple_of(8) * width];
        for chunk in (rows.start..rows.end).step_by(ROWS).map(|start| start..rows.end.min(start + ROWS)) {
            for index in panels.clone() {
                let panel = &words[index * step * inputs..][..step * inputs];
                let column = index * width;
                let valid = width.min(outputs - column);
                let vectors = valid.div_ceil(S::F32_LANES);
                // Half-empty panels leave registers for twice the rows.
                let most = if vectors > VECTORS / 2 { most } else { 2 * most };
                for begin in (0..map.runs).flat_map(|index| (0..run).step_by(block).map(move |at| (index, at))) {
                    let (index, at) = begin;
                    let offset = index * map.run_stride + at;
                    let count = block.min(run - at);
                    let words = &panel[(index * run + at) * step..][..count * step];
                    let fresh = index == 0 && at == 0;
                    let mut row = chunk.start;
                    while row < chunk.end {
                        let tile = &mut tile[(row - chunk.start) * width..];
                        let x = |r: usize| &x[map.start(row + r) + offset..][..count];
                        let left = most.min(chunk.end - row);
                        row += match (vectors > VECTORS / 2, left) {
                            (true, 6..) => {
                                micro::<S, F, 6, 4>(simd, [x(0), x(1), x(2), x(3), x(4), x(5)], words, tile, fresh)
                            }
                            (true, 4..) => micro::<S, F, 4, 4>(simd, [x(0), x(1), x(2), x(3)], words, tile, fresh),
                            (true, 3) => micro::<S, F, 3, 4>(simd, [x(0), x(1), x(2)], words, tile, fresh),
                            (true, 2) => micro::<S, F, 2, 4>(simd, [x(0), x(1)], words, tile, fresh),
                            (true, _) => micro::<S, F, 1, 4>(simd, [x(0)], words, tile, fresh),
                            (false, 8..) => {
                                let x = [x(0), x(1), x(2), x(3), x(4), x(5), x(6), x(7)];
                                micro::<S, F, 8, 2>(simd, x, words, tile, fresh)
                            }
                            (false, 4..) => micro::<S, F, 4, 2>(simd, [x(0), x(1), x(2), x(3)], words, tile, fresh),
                            (false, 2..) => micro::<S, F, 2, 2>(simd, [x(0), x(1)], words, tile, fresh),
                            (false, _) => micro::<S, F, 1, 2>(simd, [x(0)], words, tile, fresh),
                        };
                    }
                }
                for (row, sums) in chunk.clone().zip(tile.chunks_exact_mut(width)) {
                    let to = &mut out.row(row - rows.start)[column - first..][..valid];
                    store(finish, &sums[..valid], column, row * outputs + column, to);
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn store(finish: Finish<'_>, sums: &[f32], column: usize, at: usize, to: &mut [f32]) {
    match finish {
        Finish::Store => to.copy_from_slice(sums),
        Finish::Bias(bias) => {
            for ((to, sum), bias) in to.iter_mut().zip(sums).zip(&bias[column..]) {
                *to = sum + bias;
            }
        }
        Finish::Add(add) => {
            for ((to, sum), add) in to.iter_mut().zip(sums).zip(&add[at..]) {
                *to = sum + add;
            }
        }
        Finish::BiasAdd(bias, add) => {
            for (((to, sum), bias), add) in to.iter_mut().zip(sums).zip(&bias[column..]).zip(&add[at..]) {
                *to = sum + bias + add;
            }
        }
        Finish::ScaleAdd(scale, add) => {
            for (((to, sum), scale), add) in to.iter_mut().zip(sums).zip(&scale[column..]).zip(&add[at..]) {
                *to = sum * scale + add;
            }
        }
        Finish::Gelu => {
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = math::gelu(*sum);
            }
        }
        Finish::BiasElu(bias) => {
            for ((to, sum), bias) in to.iter_mut().zip(sums).zip(&bias[column..]) {
                *to = math::elu(sum + bias);
            }
        }
    }
}

/// Makes a product with packed weights: `[rows, outputs]`.
pub(super) fn multiply(panels: Panels<'_>, product: Product<'_>) -> Vec<f32> {
    match panels {
        Panels::Unpacked(weights) => few(weights, product),
        Panels::F32(words) => multiply_as::<F32>(words, product),
        Panels::Bf16(words) => multiply_as::<Bf16>(words, product),
        Panels::Whole(words) => multiply_as::<Whole>(words, product),
    }
}

/// [`multiply`] with f32 weights on the calling thread alone.
pub(super) fn alone(words: &[f32], product: Product<'_>) -> Vec<f32> {
    let Product { outputs, map, .. } = product;
    let mut out = vec![0f32; map.rows() * outputs];
    if !out.is_empty() {
        let (rows, panels) = (0..map.rows(), 0..outputs.div_ceil(panel()));
        let out = Columns::all(&mut out, outputs);
        Arch::new().dispatch(Rectangle::<F32> { product, words, rows, panels, out });
    }
    out
}

/// Makes a product with a few outputs and plain weights `[outputs, inputs]`, one dot product each:
/// panels would be all but empty.
fn few(weights: &[f32], product: Product<'_>) -> Vec<f32> {
    let Product { inputs, outputs, x, map, finish } = product;
    let run = inputs / map.runs;
    let share = (PARALLEL_FROM / (inputs * outputs).max(1)).max(1);
    kernel_pool::made(map.rows() * outputs, share * outputs, |index, out| {
        math::dispatch_simd(
            #[inline(always)]
            || {
                let mut sums = [0f32; FEW];
                for (row, out) in out.chunks_exact_mut(outputs).enumerate().map(|(row, out)| (index * share + row, out))
                {
                    for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(inputs)) {
                        let mut lanes = [0f32; 32];
                        for (at, weights) in weights.chunks_exact(run).enumerate() {
                            let x = &x[map.start(row) + at * map.run_stride..][..run];
                            let (xs, ws) = (x.chunks_exact(32), weights.chunks_exact(32));
                            for ((lane, x), w) in lanes.iter_mut().zip(xs.remainder()).zip(ws.remainder()) {
                                *lane += x * w;
                            }
                            for (x, w) in xs.zip(ws) {
                                for ((lane, x), w) in lanes.iter_mut().zip(x).zip(w) {
                                    *lane += x * w;
                                }
                            }
                        }
                        *sum = math::sum(&lanes, |lane| lane);
                    }
                    store(finish, &sums[..outputs], 0, row * outputs, out);
                }
            },
        );
    })
}

fn multiply_as<F: Format>(words: &[F::Word], product: Product<'_>) -> Vec<f32> {
    let arch = Arch::new();
    spread(product, panel(), |rows, panels, out| arch.dispatch(Rectangle::<F> { product, words, rows, panels, out }))
}

/// Makes a product of panels `width` outputs wide: `rectangle` fills rows and panels, on as many
/// threads as are worth it.
pub(super) fn spread(
    product: Product<'_>,
    width: usize,
    rectangle: impl Fn(Range<usize>, Range<usize>, Columns<'_, f32>) + Sync,
) -> Vec<f32> {
    let Product { inputs, outputs, map, .. } = product;
    let count = outputs.div_ceil(width);
    let rows = map.rows();
    let threads = kernel_pool::size();
    let work = rows * inputs * outputs;
    let many = if inputs * outputs <= CACHED { 32 } else { MANY };
    if threads > 1 && work >= PARALLEL_FROM && rows >= many * threads {
        let share = rows.div_ceil(4 * threads).next_multiple_of(12);
        return kernel_pool::made(rows * outputs, share * outputs, |index, out| {
            let rows = index * share..((index + 1) * share).min(rows);
            rectangle(rows, 0..count, Columns::all(out, outputs));
        });
    }
    let mut out = vec![0f32; rows * outputs];
    if out.is_empty() {
        return out;
    }
    if threads == 1 || work < PARALLEL_FROM {
        rectangle(0..rows, 0..count, Columns::all(&mut out, outputs));
    } else {
        let share = count.div_ceil(if work > 4 * PARALLEL_FROM { 8 * threads } else { threads });
        kernel_pool::columns(&mut out, outputs, share * width, |index, columns| {
            rectangle(0..rows, index * share..((index + 1) * share).min(count), columns);
        });
    }
    out
}
