//! Weights of eight or four bits, multiplied as whole numbers.
//!
//! A row of x is rounded to eight or sixteen bits per block of [`BLOCK`] inputs, products of a
//! block are summed exactly as integers, and the blocks' sums, times their scales, are added up in
//! f32 in order. So a row's result depends on nothing but the row, and all bodies of the kernel
//! (AVX-512 VNNI, AVX2, NEON, plain loops) give the same bits.
//!
//! Weights lie in panels of [`PANEL`] outputs, block by block: first an f16 scale per output; then
//! for Q8 the bytes `[input / 4][output][4]`, where 128 stands for zero; for Q4 `[input /
//! 8][output][4]` bytes with the inputs 0 to 3 in the low halves and 4 to 7 in the high ones, where
//! 8 stands for zero.

mod fastest;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;
use std::sync::LazyLock;

use half::f16;
use rayon::prelude::*;

use super::{
    gemm::{self, Product},
    kernel_pool::Columns,
    math,
    memory::{self, HugePageBuf},
};

/// Outputs in a panel: four vectors of sixteen.
pub(super) const PANEL: usize = 64;
/// Inputs that share a scale.
pub(super) const BLOCK: usize = 32;
/// Rows that are multiplied with a panel at once.
pub(super) const ROWS: usize = 4;
/// Bytes of one block of a Q8 panel: scales, then weights.
pub(super) const Q8_BLOCK: usize = 2 * PANEL + BLOCK * PANEL;
/// Bytes of one block of a Q4 panel: scales, then halves of bytes.
pub(super) const Q4_BLOCK: usize = 2 * PANEL + BLOCK * PANEL / 2;

/// A cache line, so that no load of a kernel touches two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct CacheLine([u8; 64]);

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    Four,
    Eight,
}

/// A quantised weight `[outputs, inputs]`.
#[derive(Debug)]
pub(super) struct Quantised {
    bits: Bits,
    inputs: usize,
    lines: HugePageBuf<CacheLine>,
    body: Body,
}

impl Quantised {
    /// Rounds row-major weights.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub(super) fn new(weight: &[f32], outputs: usize, inputs: usize, bits: Bits) -> std::io::Result<Self> {
        let panels = outputs.div_ceil(PANEL);
        let per_panel = Self::lines_of(bits, inputs);
        let row = |output: usize| if output < outputs { &weight[output * inputs..][..inputs] } else { &[] };
        let lines = HugePageBuf::new(panels * per_panel, |lines: &mut [CacheLine]| {
            lines.par_chunks_mut(per_panel).enumerate().for_each(|(panel, lines)| {
                for lane in 0..PANEL {
                    pack(bits, row(panel * PANEL + lane), lane, lines);
                }
            });
        })?;
        Ok(Self { bits, inputs, lines, body: fastest::fastest(bits) })
    }

    /// Lines of a panel.
    fn lines_of(bits: Bits, inputs: usize) -> usize {
        inputs.div_ceil(BLOCK) * block_bytes(bits) / 64
    }

    /// All panels.
    pub(super) fn lines(&self) -> &[CacheLine] {
        &self.lines
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * 64
    }

    fn panel(&self, index: usize) -> &[CacheLine] {
        let size = Self::lines_of(self.bits, self.inputs);
        &self.lines[index * size..][..size]
    }

    /// Makes the product: `[rows, outputs]`.
    pub(super) fn multiply(&self, product: Product<'_>) -> Vec<f32> {
        let Product { inputs, x, map, .. } = product;
        let run = inputs / map.runs;
        let round = |row: usize| match map.runs {
            1 => QuantizedRow::new(&x[map.start(row)..][..inputs], self.bits),
            runs => {
                let part = |index: usize| &x[map.start(row) + index * map.run_stride..][..run];
                QuantizedRow::new(&(0..runs).map(part).collect::<Vec<_>>().concat(), self.bits)
            }
        };
        let rows = map.rows();
        let rounded: Vec<QuantizedRow> =
            if rows < FEW { (0..rows).map(round).collect() } else { (0..rows).into_par_iter().map(round).collect() };
        gemm::spread(product, PANEL, |rows, panels, out| self.rectangle(product, &rounded, rows, panels, out))
    }

    fn rectangle(
        &self,
        product: Product<'_>,
        x: &[QuantizedRow],
        rows: Range<usize>,
        panels: Range<usize>,
        mut out: Columns<'_, f32>,
    ) {
        let outputs = product.outputs;
        let first = panels.start * PANEL;
        let mut tile = [[0f32; PANEL]; ROWS];
        for index in panels {
            let column = index * PANEL;
            let valid = PANEL.min(outputs - column);
            for row in rows.clone().step_by(ROWS) {
                let count = ROWS.min(rows.end - row);
                let some: [&QuantizedRow; ROWS] = std::array::from_fn(|r| &x[row + r.min(count - 1)]);
                (self.body)(self.bits, &some[..count], self.panel(index), &mut tile);
                math::dispatch_simd(
                    #[inline(always)]
                    || {
                        for (r, sums) in tile[..count].iter().enumerate() {
                            let to = &mut out.row(row + r - rows.start)[column - first..][..valid];
                            gemm::store(product.finish, &sums[..valid], column, (row + r) * outputs + column, to);
                        }
                    },
                );
            }
        }
    }
}

/// Sums of some rows with a panel.
pub(super) type Tile = [[f32; PANEL]; ROWS];

fn block_bytes(bits: Bits) -> usize {
    match bits {
        Bits::Four => Q4_BLOCK,
        Bits::Eight => Q8_BLOCK,
    }
}

/// Rounds one output, block by block, to 255 or sixteen steps. An empty row (a filled-up panel)
/// becomes zeros.
fn pack(bits: Bits, row: &[f32], lane: usize, lines: &mut [CacheLine]) {
    let size = block_bytes(bits);
    for block in 0..lines.len() * 64 / size {
        let from = (block * BLOCK).min(row.len());
        let values = &row[from..(from + BLOCK).min(row.len())];
        let scale = match bits {
            Bits::Eight => f16::from_f32(values.iter().fold(0f32, |top, value| top.max(value.abs())) / 127.0),
            Bits::Four => best_scale(values),
        };
        let base = block * size;
        let mut put = |at: usize, byte: u8| lines[at / 64].0[at % 64] |= byte;
        for (i, byte) in scale.to_le_bytes().into_iter().enumerate() {
            put(base + 2 * lane + i, byte);
        }
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        let weights = base + 2 * PANEL + lane * 4;
        for input in 0..BLOCK {
            let step = nearest(values.get(input).copied().unwrap_or(0.0) * inverse);
            match bits {
                Bits::Eight => put(weights + input / 4 * 4 * PANEL + input % 4, (step.clamp(-127, 127) + 128) as u8),
                Bits::Four => {
                    let half = 4 * (input / 4 % 2);
                    put(weights + input / 8 * 4 * PANEL + input % 4, ((step + 8).clamp(0, 15) as u8) << half);
                }
            }
        }
    }
}

/// The scale of a block with the least squared error among a few: steps go from -8 to 7, so its
/// sign matters.
fn best_scale(values: &[f32]) -> f16 {
    let extreme = values.iter().fold(0f32, |top, value| if value.abs() > top.abs() { *value } else { top });
    let error = |scale: f16| {
        let (scale, inverse) = (scale.to_f32(), 1.0 / scale.to_f32());
        let off = |value: &f32| value - nearest(value * inverse).clamp(-8, 7) as f32 * scale;
        values.iter().map(|value| off(value).powi(2)).sum::<f32>()
    };
    // The extreme becomes the lowest step or nearly so, or the highest or a little more.
    let steps = [-8.0, -7.6, -7.2, 6.6, 7.0, 7.4, 7.8, 8.2];
    let candidates = steps.map(|steps| f16::from_f32(extreme / steps));
    let usable = candidates.into_iter().filter(|scale| scale.to_f32().recip().is_finite());
    let best = usable.map(|scale| (error(scale), scale)).min_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map_or(f16::ZERO, |(_, scale)| scale)
}

/// A block of x, four values in a word.
pub(super) type Words = [i32; BLOCK / 4];

/// Rows that one thread rounds faster than two could.
const FEW: usize = 64;

/// A row of x, rounded block by block, filled up with zeros.
pub(super) struct QuantizedRow {
    blocks: Vec<RoundedBlock>,
}

/// [`BLOCK`] values of x: whole numbers, and the size of one. With weights of four bits they have
/// eight bits, with weights of eight bits sixteen: there x would otherwise be the coarser half of
/// the product.
#[derive(Clone, Default, Debug, PartialEq)]
pub(super) struct RoundedBlock {
    pub values: [i16; BLOCK],
    /// The low bytes, as numbers with a sign, four in a word.
    pub low: Words,
    /// What is left, in units of 256.
    pub high: Words,
    pub scale: f32,
    /// Of all values.
    pub sum: i32,
}

impl QuantizedRow {
    pub(super) fn new(row: &[f32], bits: Bits) -> Self {
        let mut blocks = vec![RoundedBlock::default(); row.len().div_ceil(BLOCK)];
        let steps = if bits == Bits::Four { 127.0 } else { 127.0 * 256.0 };
        static ROUNDER: LazyLock<Rounder> = LazyLock::new(|| rounders()[0]);
        let (whole, rest) = row.as_chunks();
        ROUNDER(whole, steps, &mut blocks);
        if let Some(last) = blocks.get_mut(whole.len()) {
            let mut filled = [0f32; BLOCK];
            filled[..rest.len()].copy_from_slice(rest);
            ROUNDER(&[filled], steps, std::slice::from_mut(last));
        }
        Self { blocks }
    }

    #[inline(always)]
    pub(super) fn block(&self, index: usize) -> &RoundedBlock {
        &self.blocks[index]
    }
}

/// The nearest whole number to a value of small magnitude, without a call into the C library: 1.5 *
/// 2²³ leaves no bits for a fraction.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32
}

/// Rounds blocks so that their largest magnitudes become a number of steps.
pub(super) type Rounder = fn(&[[f32; BLOCK]], f32, &mut [RoundedBlock]);

/// Every rounder that this machine runs, the fastest first.
fn rounders() -> Vec<Rounder> {
    #[cfg(target_arch = "x86_64")]
    let mut rounders = x86::rounders();
    #[cfg(not(target_arch = "x86_64"))]
    let mut rounders: Vec<Rounder> = Vec::new();
    rounders.push(|x, steps, blocks| {
        math::dispatch_simd(
            #[inline(always)]
            || {
                for (x, block) in x.iter().zip(blocks) {
                    round(x, steps, block);
                }
            },
        );
    });
    rounders
}

/// Rounds a block so that its largest magnitude becomes `steps`. NaN poisons the scale, so that the
/// fault shows in the product.
#[inline(always)]
pub(super) fn round(x: &[f32; BLOCK], steps: f32, block: &mut RoundedBlock) {
    let larger = |top: f32, value: f32| if value > top || value.is_nan() { value } else { top };
    let (mut tops, rest) = ([0f32; 16], &x[16..]);
    for ((top, a), b) in tops.iter_mut().zip(x).zip(rest) {
        *top = larger(a.abs(), b.abs());
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            tops[lane] = larger(tops[lane], tops[lane + half]);
        }
    }
    let inverse = if tops[0] > 0.0 { steps / tops[0] } else { 0.0 };
    let (mut low, mut high) = ([0u8; BLOCK], [0u8; BLOCK]);
    for (lane, value) in x.iter().enumerate() {
        let value = nearest(value * inverse) as i16;
        block.values[lane] = value;
        low[lane] = value as u8;
        high[lane] = ((i32::from(value) - i32::from(value as i8)) >> 8) as u8;
    }
    block.sum = block.values.iter().map(|value| i32::from(*value)).sum();
    for (words, bytes) in [(&mut block.low, &low), (&mut block.high, &high)] {
        for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = i32::from_le_bytes(*four);
        }
    }
    block.scale = tops[0] / steps;
}

/// A kernel: the sums of up to [`ROWS`] rows with a panel.
pub(super) type Body = fn(Bits, &[&QuantizedRow], &[CacheLine], &mut Tile);

/// Every body that this machine runs, the fastest first.
fn bodies() -> Vec<Body> {
    #[cfg(target_arch = "x86_64")]
    let mut bodies = x86::bodies();
    #[cfg(target_arch = "aarch64")]
    let mut bodies = neon::bodies();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let mut bodies: Vec<Body> = Vec::new();
    bodies.push(plain);
    bodies
}

/// The kernel in plain loops: the twin that the others are compared with.
pub(super) fn plain(bits: Bits, rows: &[&QuantizedRow], lines: &[CacheLine], tile: &mut Tile) {
    let per_block = block_bytes(bits) / 64;
    for (row, sums) in rows.iter().zip(tile) {
        sums.fill(0.0);
        for (block, lines) in lines.chunks_exact(per_block).enumerate() {
            let x = row.block(block);
            let byte = |at: usize| lines[at / 64].0[at % 64];
            for (lane, sum) in sums.iter_mut().enumerate() {
                let mut whole = 0i32;
                for (input, x) in x.values.iter().enumerate() {
                    let weights = 2 * PANEL + lane * 4 + input % 4;
                    let weight = match bits {
                        Bits::Eight => i32::from(byte(weights + input / 4 * 4 * PANEL)) - 128,
                        Bits::Four => {
                            i32::from((byte(weights + input / 8 * 4 * PANEL) >> (4 * (input / 4 % 2))) & 15) - 8
                        }
                    };
                    whole += weight * i32::from(*x);
                }
                let scale = f16::from_le_bytes([byte(2 * lane), byte(2 * lane + 1)]).to_f32() * x.scale;
                *sum = (whole as f32).mul_add(scale, *sum);
            }
        }
    }
}

impl CacheLine {
    #[inline(always)]
    pub(super) fn bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Fetches what is multiplied after this line: one block of Q8 or nearly six of Q4. Rows of
    /// sixteen bits take more arithmetic for a byte, and memory is only kept busy meanwhile by
    /// asking for it a second time, long before: eight blocks fit the smallest of nearest caches.
    /// Other generations of processors may do better with one of the other ways `AHEAD`: asked once
    /// and from further away, or a second time into the second cache.
    #[inline(always)]
    pub(super) fn fetch_ahead<const AHEAD: u8>(&self, bits: Bits) {
        let line = &raw const *self;
        match (bits, AHEAD) {
            (Bits::Four, 0) => memory::fetch(line.wrapping_add(102)),
            (Bits::Eight, 0) => {
                memory::fetch(line.wrapping_add(34));
                memory::fetch_once(line.wrapping_add(272));
            }
            (Bits::Four, 1) => memory::fetch(line.wrapping_add(204)),
            (Bits::Eight, 1) => memory::fetch(line.wrapping_add(136)),
            (Bits::Four, _) => {
                memory::fetch(line.wrapping_add(54));
                memory::fetch_far(line.wrapping_add(216));
            }
            (Bits::Eight, _) => {
                memory::fetch(line.wrapping_add(34));
                memory::fetch_far(line.wrapping_add(136));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn every_body_gives_the_bits_of_the_plain_one() {
        let (outputs, inputs) = (130, 100);
        let (weight, x) = (random(outputs * inputs, 1), random(ROWS * inputs, 2));
        for bits in [Bits::Four, Bits::Eight] {
            let rounded: Vec<QuantizedRow> = x.chunks(inputs).map(|row| QuantizedRow::new(row, bits)).collect();
            let rows: Vec<&QuantizedRow> = rounded.iter().collect();
            let quantised = Quantised::new(&weight, outputs, inputs, bits).unwrap();
            for (panel, count) in (0..outputs.div_ceil(PANEL)).flat_map(|panel| (1..=ROWS).map(move |n| (panel, n))) {
                let mut expected = [[0f32; PANEL]; ROWS];
                plain(bits, &rows[..count], quantised.panel(panel), &mut expected);
                for body in bodies() {
                    let mut found = [[0f32; PANEL]; ROWS];
                    body(bits, &rows[..count], quantised.panel(panel), &mut found);
                    assert!(found[..count] == expected[..count], "{bits:?}, panel {panel}, {count} rows");
                }
            }
        }
    }

    #[test]
    fn every_rounder_gives_the_bits_of_the_plain_one() {
        let mut x = random(6 * BLOCK, 3);
        x[..BLOCK].fill(0.0);
        // Halves are rounded to even steps.
        x[BLOCK..2 * BLOCK].iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 - 16.0) / 2.0 * 127.0 / 16.0);
        x[2 * BLOCK + 5] = f32::INFINITY;
        x[3 * BLOCK] = 1e-42;
        let (x, _) = x.as_chunks();
        for steps in [127.0, 127.0 * 256.0] {
            let rounded = rounders().into_iter().map(|rounder| {
                let mut blocks = vec![RoundedBlock::default(); x.len()];
                rounder(x, steps, &mut blocks);
                blocks
            });
            let rounded: Vec<_> = rounded.collect();
            rounded.iter().for_each(|blocks| assert!(blocks == rounded.last().unwrap()));
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut x = random(40, 1);
        x[35] = f32::NAN;
        let quantised = Quantised::new(&random(40, 2), 1, 40, Bits::Eight).unwrap();
        let mut tile = [[0f32; PANEL]; ROWS];
        (quantised.body)(Bits::Eight, &[&QuantizedRow::new(&x, Bits::Eight)], quantised.panel(0), &mut tile);
        assert!(tile[0][0].is_nan());
    }
}
