//! Attention of one query over segments of keys, on CPU memory.
//!
//! Keys are stored in blocks of sixteen positions, `[block][dim][16]`, so that sixteen scores grow side by side without
//! a horizontal sum; values are stored as `[position][dim]`, the dimension filled up with zeros to a multiple of
//! sixteen. The order of every sum is fixed, so a query's result depends on nothing but its own keys.

use pulp::{Simd, WithSimd};

use super::math;

/// Positions in a block of keys, and the multiple to which a value's dimension is filled up.
pub(super) const BLOCK: usize = 16;

/// Floats that the keys of `positions` positions take up.
pub(super) fn keys_len(positions: usize, dim: usize) -> usize {
    positions.next_multiple_of(BLOCK) * dim
}

/// Floats that one position's value takes up.
pub(super) fn value_len(dim: usize) -> usize {
    dim.next_multiple_of(BLOCK)
}

/// Stores one position's key of one head.
pub(super) fn write_key(keys: &mut [f32], position: usize, key: &[f32]) {
    let block = &mut keys[(position / BLOCK) * BLOCK * key.len()..];
    for (d, value) in key.iter().enumerate() {
        block[d * BLOCK + position % BLOCK] = *value;
    }
}

/// Stores one position's value of one head.
pub(super) fn write_value(values: &mut [f32], position: usize, value: &[f32]) {
    values[position * value_len(value.len())..][..value.len()].copy_from_slice(value);
}

/// A run of keys and values of one head.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    /// Positions attended to.
    pub len: usize,
    /// Added to every score.
    pub bias: f32,
}

/// One query against its segments, softmax over all of them together.
pub(super) struct Query<'a, 'b> {
    pub query: &'a [f32],
    pub scale: f32,
    pub segments: &'a [Segment<'a>],
    pub scratch: &'b mut Vec<f32>,
    pub out: &'b mut [f32],
}

impl WithSimd for Query<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, scale, segments, scratch, out } = self;
        let padded: usize = segments.iter().map(|segment| segment.len.next_multiple_of(BLOCK)).sum();
        let width = value_len(query.len());
        scratch.clear();
        scratch.resize(padded + width, 0.0);
        let (scores, sums) = scratch.split_at_mut(padded);

        let mut offset = 0;
        let mut top = [f32::NEG_INFINITY; BLOCK];
        for segment in segments {
            let scores = &mut scores[offset..][..segment.len.next_multiple_of(BLOCK)];
            score(simd, query, segment.keys, scores);
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
                1 => weigh::<S, 1>(simd, segments, scores, width, column, sums),
                2 => weigh::<S, 2>(simd, segments, scores, width, column, sums),
                3 => weigh::<S, 3>(simd, segments, scores, width, column, sums),
                _ => weigh::<S, 4>(simd, segments, scores, width, column, sums),
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.iter()) {
            *out = sum / total;
        }
    }
}

/// Dot products of the query with every key of whole blocks.
#[inline(always)]
fn score<S: Simd>(simd: S, query: &[f32], keys: &[f32], scores: &mut [f32]) {
    let size = BLOCK * query.len();
    let mut done = 0;
    while done < scores.len() {
        let keys = &keys[done * query.len()..];
        let scores = &mut scores[done..];
        // Four blocks side by side hide the latency of a multiply-add; each score's own order is the same.
        if scores.len() >= 4 * BLOCK {
            let blocks = [&keys[..size], &keys[size..2 * size], &keys[2 * size..3 * size], &keys[3 * size..4 * size]];
            score_blocks::<S, 4>(simd, query, blocks, &mut scores[..4 * BLOCK]);
            done += 4 * BLOCK;
        } else {
            score_blocks::<S, 1>(simd, query, [&keys[..size]], &mut scores[..BLOCK]);
            done += BLOCK;
        }
    }
}

#[inline(always)]
fn score_blocks<S: Simd, const N: usize>(simd: S, query: &[f32], blocks: [&[f32]; N], scores: &mut [f32]) {
    let vectors = BLOCK / S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); BLOCK]; N];
    for (d, q) in query.iter().enumerate() {
        let q = simd.splat_f32s(*q);
        for n in 0..N {
            let keys = S::as_simd_f32s(&blocks[n][d * BLOCK..][..BLOCK]).0;
            for v in 0..vectors {
                sums[n][v] = simd.mul_add_e_f32s(q, keys[v], sums[n][v]);
            }
        }
    }
    for (scores, sums) in scores.chunks_exact_mut(BLOCK).zip(sums) {
        for (to, from) in S::as_mut_simd_f32s(scores).0.iter_mut().zip(sums) {
            *to = from;
        }
    }
}

/// Sums of values weighed by scores for `N` blocks of columns.
#[inline(always)]
fn weigh<S: Simd, const N: usize>(
    simd: S,
    segments: &[Segment<'_>],
    weights: &[f32],
    width: usize,
    column: usize,
    out: &mut [f32],
) {
    let vectors = N * BLOCK / S::F32_LANES;
    let mut sums = [simd.splat_f32s(0.0); 4 * BLOCK];
    let mut offset = 0;
    for segment in segments {
        for (weight, value) in weights[offset..][..segment.len].iter().zip(segment.values.chunks_exact(width)) {
            let weight = simd.splat_f32s(*weight);
            let value = S::as_simd_f32s(&value[column..][..N * BLOCK]).0;
            for v in 0..vectors {
                sums[v] = simd.mul_add_e_f32s(weight, value[v], sums[v]);
            }
        }
        offset += segment.len.next_multiple_of(BLOCK);
    }
    for (to, from) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
        *to = from;
    }
}
