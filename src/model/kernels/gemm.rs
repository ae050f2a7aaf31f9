//! y = x Wᵀ on CPU memory, with weights packed into panels.
//!
//! A panel holds the weights of a few outputs (four SIMD vectors), input by input, so that one pass streams memory in
//! order and every output is one chain of multiply-adds over the inputs. That order is the same for any number of rows
//! and threads: a row's result never depends on what else is in the batch.

use std::ops::Range;

use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::math;

/// SIMD vectors in a panel's row.
const VECTORS: usize = 4;
/// The widest panel, with sixteen lanes in a vector.
const MAX_PANEL: usize = 64;
/// Multiply-adds below which handing work to another thread costs more than it saves.
const PARALLEL_FROM: usize = 200_000;

/// Packed weights in memory.
#[derive(Clone, Copy)]
pub(super) enum Panels<'a> {
    F32(&'a [f32]),
    /// Two bf16 in a word: vectors 0 and 1 of a row in the low and high halves of its first words, then 2 and 3.
    Bf16(&'a [u32]),
}

/// Where the rows of x begin: `batches` runs of `per_batch` rows, `stride` apart, the runs `batch_stride` apart.
/// Overlapping rows make a convolution out of the product.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowMap {
    pub batches: usize,
    pub per_batch: usize,
    pub batch_stride: usize,
    pub stride: usize,
}

impl RowMap {
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
    Gelu,
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
    let panel = panel();
    let mut packed = vec![0f32; outputs.div_ceil(panel) * panel * inputs];
    packed.par_chunks_mut(panel * inputs).enumerate().for_each(|(index, chunk)| {
        for lane in 0..panel.min(outputs - index * panel) {
            let row = &weight[(index * panel + lane) * inputs..][..inputs];
            for (i, value) in row.iter().enumerate() {
                chunk[i * panel + lane] = *value;
            }
        }
    });
    packed
}

/// Rounds packed weights to bf16, two in a word.
pub(super) fn narrow(packed: &[f32]) -> Vec<u32> {
    let lanes = panel() / VECTORS;
    let bits = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    packed
        .chunks_exact(2 * lanes)
        .flat_map(|pair| (0..lanes).map(move |lane| bits(pair[lane]) | (bits(pair[lanes + lane]) << 16)))
        .collect()
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

/// `R` rows against one panel: the sums of output `lane` and row `r` go to `tile[r][lane]`.
#[inline(always)]
fn micro<S: Simd, F: Format, const R: usize>(
    simd: S,
    x: [&[f32]; R],
    panel: &[F::Word],
    tile: &mut [[f32; MAX_PANEL]],
) {
    let width = VECTORS * S::F32_LANES;
    let step = F::words(width);
    let inputs = panel.len() / step;
    let x = x.map(|row| &row[..inputs]);
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; R];
    for (i, words) in panel.chunks_exact(step).enumerate().take(inputs) {
        let weights = F::load(simd, words);
        for r in 0..R {
            let value = simd.splat_f32s(x[r][i]);
            for v in 0..VECTORS {
                sums[r][v] = simd.mul_add_e_f32s(value, weights[v], sums[r][v]);
            }
        }
    }
    for r in 0..R {
        for (to, from) in S::as_mut_simd_f32s(&mut tile[r][..width]).0.iter_mut().zip(sums[r]) {
            *to = from;
        }
    }
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

/// A rectangle of the product: rows `rows` and panels `panels`, into `out` of `[rows, columns]`.
struct Rectangle<'a, 'b, F: Format> {
    product: Product<'a>,
    words: &'a [F::Word],
    rows: Range<usize>,
    panels: Range<usize>,
    out: &'b mut [f32],
}

impl<F: Format> WithSimd for Rectangle<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, words, rows, panels, out } = self;
        let Product { inputs, outputs, x, map, finish } = product;
        let width = VECTORS * S::F32_LANES;
        let size = F::words(width) * inputs;
        let first = panels.start * width;
        let columns = (panels.end * width).min(outputs) - first;
        // Sums are held in registers: with sixteen of them only two rows fit beside the weights.
        let most = if S::REGISTER_COUNT >= 32 { 4 } else { 2 };
        let mut tile = [[0f32; MAX_PANEL]; 4];
        for index in panels {
            let panel = &words[index * size..][..size];
            let column = index * width;
            let valid = width.min(outputs - column);
            let mut row = rows.start;
            while row < rows.end {
                let count = most.min(rows.end - row);
                let x = |r: usize| &x[map.start(row + r)..][..inputs];
                match count {
                    4 => micro::<S, F, 4>(simd, [x(0), x(1), x(2), x(3)], panel, &mut tile),
                    3 => micro::<S, F, 3>(simd, [x(0), x(1), x(2)], panel, &mut tile),
                    2 => micro::<S, F, 2>(simd, [x(0), x(1)], panel, &mut tile),
                    _ => micro::<S, F, 1>(simd, [x(0)], panel, &mut tile),
                }
                for (r, sums) in tile.iter_mut().enumerate().take(count) {
                    let to = &mut out[(row + r - rows.start) * columns + column - first..][..valid];
                    store(finish, &sums[..valid], column, (row + r) * outputs + column, to);
                }
                row += count;
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
        Finish::Gelu => {
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = math::gelu(*sum);
            }
        }
    }
}

/// Makes a product with packed weights: `[rows, outputs]`.
pub(super) fn multiply(panels: Panels<'_>, product: Product<'_>) -> Vec<f32> {
    match panels {
        Panels::F32(words) => multiply_as::<F32>(words, product),
        Panels::Bf16(words) => multiply_as::<Bf16>(words, product),
    }
}

fn multiply_as<F: Format>(words: &[F::Word], product: Product<'_>) -> Vec<f32> {
    let arch = Arch::new();
    spread(product, panel(), |rows, panels, out| arch.dispatch(Rectangle::<F> { product, words, rows, panels, out }))
}

/// Makes a product of panels `width` outputs wide: `rectangle` fills `[rows, outputs of the panels]`, on as many threads
/// as are worth it.
pub(super) fn spread(
    product: Product<'_>,
    width: usize,
    rectangle: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let Product { inputs, outputs, map, .. } = product;
    let count = outputs.div_ceil(width);
    let rows = map.rows();
    let mut out = vec![0f32; rows * outputs];
    if out.is_empty() {
        return out;
    }
    let threads = rayon::current_num_threads();
    let work = rows * inputs * outputs;
    if threads == 1 || work < PARALLEL_FROM {
        rectangle(0..rows, 0..count, &mut out);
    } else if rows >= 32 * threads {
        let share = rows.div_ceil(4 * threads).next_multiple_of(4);
        out.par_chunks_mut(share * outputs).enumerate().for_each(|(index, out)| {
            rectangle(index * share..((index + 1) * share).min(rows), 0..count, out);
        });
    } else {
        let share = count.div_ceil(if work > 8 * PARALLEL_FROM { 4 * threads } else { threads });
        let parts: Vec<Vec<f32>> = (0..count.div_ceil(share))
            .into_par_iter()
            .map(|index| {
                let panels = index * share..((index + 1) * share).min(count);
                let columns = (panels.end * width).min(outputs) - panels.start * width;
                let mut part = vec![0f32; rows * columns];
                rectangle(0..rows, panels, &mut part);
                part
            })
            .collect();
        for (index, part) in parts.iter().enumerate() {
            let columns = part.len() / rows;
            for (row, from) in part.chunks_exact(columns).enumerate() {
                out[row * outputs + index * share * width..][..columns].copy_from_slice(from);
            }
        }
    }
    out
}
