//! Attention of one query over segments of keys, on CPU memory.
//!
//! Keys are stored in blocks of sixteen positions, `[block][dim][16]`, so that sixteen scores grow
//! side by side without a horizontal sum; values are stored as `[position][dim]`, the dimension
//! filled up with zeros to a multiple of sixteen. In bf16 two numbers share a word: those of
//! dimensions 2i and 2i + 1 of a key, those sixteen apart of a value. The order of every sum is
//! fixed, so a query's result depends on nothing but its own keys.

use half::bf16;
use pulp::{Simd, WithSimd};

use crate::model::kernels::{
    math,
    memory::{Plain, fetch},
};

/// Positions in a block of keys, and the multiple to which a value's dimension is filled up.
pub(super) const BLOCK: usize = 16;
/// Blocks between what is read and what is fetched. Keys end long before the values of the same
/// head begin, so the processor cannot guess where reading goes on.
const AHEAD: usize = 4;

/// How keys and values are kept.
pub(super) trait Cell: Plain {
    /// Numbers in a cell.
    const NUMBERS: usize;
    /// Numbers side by side, as cells; both slices are as long as the parts of a key or a value.
    fn pack(numbers: [f32; 2]) -> Self;
    /// The numbers of a vector's worth of cells.
    fn load<S: Simd>(simd: S, cells: &[Self], vector: usize) -> [S::f32s; 2];
}

impl Cell for f32 {
    const NUMBERS: usize = 1;

    fn pack(numbers: [f32; 2]) -> Self {
        numbers[0]
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, cells: &[f32], vector: usize) -> [S::f32s; 2] {
        [S::as_simd_f32s(cells).0[vector], simd.splat_f32s(0.0)]
    }
}

/// Two bf16, the first in the low half.
impl Cell for u32 {
    const NUMBERS: usize = 2;

    fn pack(numbers: [f32; 2]) -> Self {
        let bits = numbers.map(|number| u32::from(bf16::from_f32(number).to_bits()));
        bits[0] | (bits[1] << 16)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, cells: &[u32], vector: usize) -> [S::f32s; 2] {
        let word = S::as_simd_u32s(cells).0[vector];
        let low = simd.wrapping_dyn_shl_u32s(word, simd.splat_u32s(16));
        let high = simd.and_u32s(word, simd.splat_u32s(0xffff_0000));
        [simd.transmute_f32s_u32s(low), simd.transmute_f32s_u32s(high)]
    }
}

/// Whether heads of `dim` numbers can be kept in cells of this kind.
pub(super) fn fits<C: Cell>(dim: usize) -> bool {
    C::NUMBERS == 1 || dim.is_multiple_of(2 * BLOCK)
}

/// Cells that the keys of `positions` positions take up.
pub(super) fn keys_len<C: Cell>(positions: usize, dim: usize) -> usize {
    positions.next_multiple_of(BLOCK) * dim / C::NUMBERS
}

/// Cells that one position's value takes up.
pub(super) fn value_len<C: Cell>(dim: usize) -> usize {
    dim.next_multiple_of(BLOCK) / C::NUMBERS
}

/// Stores one position's key of one head.
pub(super) fn write_key<C: Cell>(keys: &mut [C], position: usize, key: &[f32]) {
    let block = &mut keys[(position / BLOCK) * BLOCK * key.len() / C::NUMBERS..];
    for (at, numbers) in key.chunks_exact(C::NUMBERS).enumerate() {
        block[at * BLOCK + position % BLOCK] = C::pack([numbers[0], numbers[C::NUMBERS - 1]]);
    }
}

/// Stores one position's value of one head.
pub(super) fn write_value<C: Cell>(values: &mut [C], position: usize, value: &[f32]) {
    let cells = &mut values[position * value_len::<C>(value.len())..][..value.len() / C::NUMBERS];
    for (at, cell) in cells.iter_mut().enumerate() {
        let first = at / BLOCK * BLOCK * C::NUMBERS + at % BLOCK;
        *cell = C::pack([value[first], value[first + (C::NUMBERS - 1) * BLOCK]]);
    }
}

/// A run of keys and values of one head.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a, C> {
    pub keys: &'a [C],
    pub values: &'a [C],
    /// Positions attended to.
    pub len: usize,
    /// Added to every score.
    pub bias: f32,
}

/// One query against its segments, softmax over all of them together.
pub(super) struct Query<'a, 'b, C> {
    pub query: &'a [f32],
    pub scale: f32,
    pub segments: &'a [Segment<'a, C>],
    /// Where the keys lie that are read after this query, if anybody knows.
    pub next: Option<*const C>,
    pub scratch: &'b mut Vec<f32>,
    pub out: &'b mut [f32],
}

impl<C: Cell> WithSimd for Query<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, scale, segments, next, scratch, out } = self;
        let padded: usize = segments.iter().map(|segment| segment.len.next_multiple_of(BLOCK)).sum();
        let width = value_len::<f32>(query.len());
        scratch.clear();
        scratch.resize(padded + width, 0.0);
        let (scores, sums) = scratch.split_at_mut(padded);

        let mut offset = 0;
        let mut top = [f32::NEG_INFINITY; BLOCK];
        for segment in segments {
            let scores = &mut scores[offset..][..segment.len.next_multiple_of(BLOCK)];
            score(simd, query, segment, scores);
            for score in &mut scores[..segment.len] {
                *score = *score * scale + segment.bias;
            }
            scores[segment.len..].fill(f32::NEG_INFINITY);
            for block in scores.chunks_exact(BLOCK) {
                for (top, score) in top.iter_mut().zip(block) {
                    *top = if *score > *top { *score } else { *top };
                }
            }
            offset += scores.len();
        }
        let top = top.iter().copied().fold(f32::NEG_INFINITY, f32::max);

        let mut offset = 0;
        for segment in segments {
            let scores = &mut scores[offset..][..segment.len.next_multiple_of(BLOCK)];
            for score in scores.iter_mut() {
                *score = math::exp(*score - top);
            }
            scores[segment.len..].fill(0.0);
            offset += scores.len();
        }
        let total = math::sum(scores, |value| value);

        for (index, sums) in sums.chunks_mut(4 * BLOCK).enumerate() {
            let column = index * 4 * BLOCK;
            match sums.len() / BLOCK {
                1 => weigh::<S, C, 1>(simd, segments, next, scores, (width, column), sums),
                2 => weigh::<S, C, 2>(simd, segments, next, scores, (width, column), sums),
                3 => weigh::<S, C, 3>(simd, segments, next, scores, (width, column), sums),
                _ => weigh::<S, C, 4>(simd, segments, next, scores, (width, column), sums),
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.iter()) {
            *out = sum / total;
        }
    }
}

/// Dot products of the query with every key of whole blocks, in the order in which they lie in
/// memory.
#[inline(always)]
fn score<S: Simd, C: Cell>(simd: S, query: &[f32], segment: &Segment<'_, C>, scores: &mut [f32]) {
    let size = BLOCK * query.len() / C::NUMBERS;
    let count = scores.len() / BLOCK;
    let vectors = BLOCK / S::F32_LANES;
    for (index, scores) in scores.chunks_exact_mut(BLOCK).enumerate() {
        // Behind the last block of keys come the values, which are as large.
        let ahead = match index + AHEAD {
            later if later < count => segment.keys.as_ptr().wrapping_add(later * size),
            later => segment.values.as_ptr().wrapping_add((later - count) * size),
        };
        // Two sums of each score, where two numbers share a cell, hide the latency of a
        // multiply-add.
        let (mut sums, mut others) = ([simd.splat_f32s(0.0); BLOCK], [simd.splat_f32s(0.0); BLOCK]);
        let cells = segment.keys[index * size..][..size].chunks_exact(BLOCK);
        for (at, (q, cells)) in query.chunks_exact(C::NUMBERS).zip(cells).enumerate() {
            fetch(ahead.wrapping_add(at * BLOCK));
            for v in 0..vectors {
                let [keys, more] = C::load(simd, cells, v);
                sums[v] = simd.mul_add_e_f32s(simd.splat_f32s(q[0]), keys, sums[v]);
                if C::NUMBERS == 2 {
                    others[v] = simd.mul_add_e_f32s(simd.splat_f32s(q[1]), more, others[v]);
                }
            }
        }
        for (to, (a, b)) in S::as_mut_simd_f32s(scores).0.iter_mut().zip(sums.into_iter().zip(others)) {
            *to = simd.add_f32s(a, b);
        }
    }
}

/// Sums of values weighed by scores for `N` blocks of columns from `column`, of `width` in all.
#[inline(always)]
fn weigh<S: Simd, C: Cell, const N: usize>(
    simd: S,
    segments: &[Segment<'_, C>],
    next: Option<*const C>,
    weights: &[f32],
    (width, column): (usize, usize),
    out: &mut [f32],
) {
    // Vectors of cells in a block, and of sums in all.
    let vectors = BLOCK / S::F32_LANES;
    let mut sums = [simd.splat_f32s(0.0); 4 * BLOCK];
    let mut offset = 0;
    for segment in segments {
        let (size, behind) = (width / C::NUMBERS, next.unwrap_or(segment.values.as_ptr()));
        let values = segment.values.chunks_exact(size);
        for (position, (weight, value)) in weights[offset..][..segment.len].iter().zip(values).enumerate() {
            let weight = simd.splat_f32s(*weight);
            let cells = &value[column / C::NUMBERS..][..N * BLOCK / C::NUMBERS];
            let ahead = match position + AHEAD * BLOCK {
                later if later < segment.len => cells.as_ptr().wrapping_add(AHEAD * BLOCK * size),
                later => behind.wrapping_add((later - segment.len) * size + column / C::NUMBERS),
            };
            for block in 0..N / C::NUMBERS {
                fetch(ahead.wrapping_add(block * BLOCK));
                for v in 0..vectors {
                    let numbers = C::load(simd, cells, block * vectors + v);
                    for number in 0..C::NUMBERS {
                        let sum = &mut sums[(block * C::NUMBERS + number) * vectors + v];
                        *sum = simd.mul_add_e_f32s(weight, numbers[number], *sum);
                    }
                }
            }
        }
        offset += segment.len.next_multiple_of(BLOCK);
    }
    for (to, from) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
        *to = from;
    }
}
