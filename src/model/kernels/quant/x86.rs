//! The kernel of `quant.rs` with the vectors of x86-64 processors.
//!
//! The only unsafe things here are loads from a whole cache line that a reference proves to be
//! there, and calls of functions for which the processor was asked first. Tests compare every body
//! with the plain one, bit for bit.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{BLOCK, Bits, Body, CacheLine, PANEL, Q4_BLOCK, Q8_BLOCK, QuantizedRow, ROWS, RoundedBlock, Rounder, Tile};

/// Vectors of sixteen outputs in a panel.
const VECTORS: usize = PANEL / 16;

/// Every body that this processor has, the fastest first.
pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = vnni_bodies::<0>();
    bodies.extend([vnni_bodies::<1>(), vnni_bodies::<2>()].concat());
    bodies.extend([avx2_bodies::<0>(), avx2_bodies::<1>(), avx2_bodies::<2>()].concat());
    bodies
}

fn vnni_bodies<const AHEAD: u8>() -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        bodies.push(|bits, rows, lines, tile| {
            // SAFETY: the processor was asked above; a body is only given out where it has these
            // instructions.
            unsafe { vnni::<AHEAD>(bits, rows, lines, tile) }
        });
    }
    bodies
}

fn avx2_bodies<const AHEAD: u8>() -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        bodies.push(|bits, rows, lines, tile| {
            // SAFETY: as above.
            unsafe { avx2::<AHEAD>(bits, rows, lines, tile) }
        });
    }
    bodies
}

/// Every rounder that this processor has, the fastest first.
pub(super) fn rounders() -> Vec<Rounder> {
    let mut rounders: Vec<Rounder> = Vec::new();
    if is_x86_feature_detected!("avx512f") {
        rounders.push(|x, steps, blocks| {
            // SAFETY: the processor was asked above.
            unsafe { round512(x, steps, blocks) }
        });
    }
    rounders
}

#[target_feature(enable = "avx512f")]
fn round512(x: &[[f32; BLOCK]], steps: f32, blocks: &mut [RoundedBlock]) {
    for (x, block) in x.iter().zip(blocks) {
        // SAFETY: each half has sixteen floats.
        let halves = [0, 16].map(|at| unsafe { _mm512_loadu_ps(x[at..at + 16].as_ptr()) });
        let top = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(halves[0]), _mm512_abs_ps(halves[1])));
        let none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(halves[0], halves[1]);
        if none != 0 || !top.is_finite() {
            super::round(x, steps, block);
            continue;
        }
        let inverse = _mm512_set1_ps(if top > 0.0 { steps / top } else { 0.0 });
        let values = halves.map(|half| _mm512_cvtps_epi32(_mm512_mul_ps(half, inverse)));
        for (half, values) in values.into_iter().enumerate() {
            let low = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(values));
            let high = _mm512_srai_epi32::<8>(_mm512_sub_epi32(values, low));
            let (words, sixteen) = (4 * half..4 * half + 4, 16 * half..16 * half + 16);
            // SAFETY: both ranges are sixteen bytes long.
            unsafe {
                _mm_storeu_si128(block.low[words.clone()].as_mut_ptr().cast(), _mm512_cvtepi32_epi8(low));
                _mm_storeu_si128(block.high[words].as_mut_ptr().cast(), _mm512_cvtepi32_epi8(high));
            }
            // SAFETY: the range is 32 bytes long.
            unsafe { _mm256_storeu_si256(block.values[sixteen].as_mut_ptr().cast(), _mm512_cvtepi32_epi16(values)) }
        }
        block.sum = _mm512_reduce_add_epi32(_mm512_add_epi32(values[0], values[1]));
        block.scale = top / steps;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni<const AHEAD: u8>(bits: Bits, rows: &[&QuantizedRow], lines: &[CacheLine], tile: &mut Tile) {
    match (bits, rows) {
        (Bits::Eight, [a]) => vnni8::<AHEAD, _>([a], lines, tile),
        (Bits::Eight, [a, b]) => vnni8::<AHEAD, _>([a, b], lines, tile),
        // Two sums a row and output: those of two rows fill the registers.
        (Bits::Eight, [a, b, c]) => {
            vnni8::<AHEAD, _>([a, b], lines, &mut tile[..2]);
            vnni8::<AHEAD, _>([c], lines, &mut tile[2..]);
        }
        (Bits::Eight, [a, b, c, d, ..]) => {
            vnni8::<AHEAD, _>([a, b], lines, &mut tile[..2]);
            vnni8::<AHEAD, _>([c, d], lines, &mut tile[2..]);
        }
        (Bits::Four, [a]) => vnni4::<AHEAD, _>([a], lines, tile),
        (Bits::Four, [a, b]) => vnni4::<AHEAD, _>([a, b], lines, tile),
        (Bits::Four, [a, b, c]) => vnni4::<AHEAD, _>([a, b, c], lines, tile),
        (Bits::Four, [a, b, c, d, ..]) => vnni4::<AHEAD, _>([a, b, c, d], lines, tile),
        (_, []) => {}
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load512<const AHEAD: u8>(bits: Bits, line: &CacheLine) -> __m512i {
    line.fetch_ahead::<AHEAD>(bits);
    // SAFETY: the reference is to 64 readable bytes.
    unsafe { _mm512_loadu_si512(line.bytes().as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store512(sums: &[[__m512; VECTORS]], tile: &mut [[f32; PANEL]]) {
    for (sums, tile) in sums.iter().zip(tile) {
        for (sum, to) in sums.iter().zip(tile.chunks_exact_mut(16)) {
            // SAFETY: the chunk has sixteen floats.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *sum) }
        }
    }
}

/// The scales of the sixteen outputs of each vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn scales512<const AHEAD: u8>(bits: Bits, lines: &[CacheLine]) -> [__m512; VECTORS] {
    let both = [load512::<AHEAD>(bits, &lines[0]), load512::<AHEAD>(bits, &lines[1])];
    std::array::from_fn(|v| {
        let half = both[v / 2];
        _mm512_cvtph_ps(if v % 2 == 0 { _mm512_castsi512_si256(half) } else { _mm512_extracti64x4_epi64(half, 1) })
    })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni8<const AHEAD: u8, const R: usize>(rows: [&QuantizedRow; R], lines: &[CacheLine], tile: &mut [[f32; PANEL]]) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (block, lines) in lines.chunks_exact(Q8_BLOCK / 64).enumerate() {
        let (scales, lines) = lines.split_at(2 * PANEL / 64);
        let x = rows.map(|row| row.block(block));
        let mut low: [_; R] = std::array::from_fn(|r| [_mm512_set1_epi32(-128 * x[r].sum); VECTORS]);
        let mut high = [[_mm512_setzero_si512(); VECTORS]; R];
        for (four, lines) in lines.chunks_exact(VECTORS).enumerate() {
            let weights: [__m512i; VECTORS] = std::array::from_fn(|v| load512::<AHEAD>(Bits::Eight, &lines[v]));
            for r in 0..R {
                let (x_low, x_high) = (_mm512_set1_epi32(x[r].low[four]), _mm512_set1_epi32(x[r].high[four]));
                for v in 0..VECTORS {
                    low[r][v] = _mm512_dpbusd_epi32(low[r][v], weights[v], x_low);
                    high[r][v] = _mm512_dpbusd_epi32(high[r][v], weights[v], x_high);
                }
            }
        }
        for (v, weights) in scales512::<AHEAD>(Bits::Eight, scales).into_iter().enumerate() {
            for r in 0..R {
                let whole = _mm512_add_epi32(_mm512_slli_epi32(high[r][v], 8), low[r][v]);
                let scale = _mm512_mul_ps(weights, _mm512_set1_ps(x[r].scale));
                sums[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, sums[r][v]);
            }
        }
    }
    store512(&sums, tile);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni4<const AHEAD: u8, const R: usize>(rows: [&QuantizedRow; R], lines: &[CacheLine], tile: &mut [[f32; PANEL]]) {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (block, lines) in lines.chunks_exact(Q4_BLOCK / 64).enumerate() {
        let (scales, lines) = lines.split_at(2 * PANEL / 64);
        let x = rows.map(|row| row.block(block));
        let mut whole: [_; R] = std::array::from_fn(|r| [_mm512_set1_epi32(-8 * x[r].sum); VECTORS]);
        for (eight, lines) in lines.chunks_exact(VECTORS).enumerate() {
            for v in 0..VECTORS {
                let both = load512::<AHEAD>(Bits::Four, &lines[v]);
                let low = _mm512_and_si512(both, mask);
                let high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
                for r in 0..R {
                    whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], low, _mm512_set1_epi32(x[r].low[2 * eight]));
                    whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], high, _mm512_set1_epi32(x[r].low[2 * eight + 1]));
                }
            }
        }
        for (v, weights) in scales512::<AHEAD>(Bits::Four, scales).into_iter().enumerate() {
            for r in 0..R {
                let scale = _mm512_mul_ps(weights, _mm512_set1_ps(x[r].scale));
                sums[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][v]), scale, sums[r][v]);
            }
        }
    }
    store512(&sums, tile);
}

/// Eight outputs of a line as pairs of sums, half of a line's part each: products of four bytes
/// with four of x.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(weights: __m128i, x: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_cvtepu8_epi16(weights), x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load128(bytes: &[u8]) -> __m128i {
    let sixteen = &bytes[..16];
    // SAFETY: the slice has sixteen bytes.
    unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) }
}

/// The sums of a block of Q8 for the sixteen outputs of every [`VECTORS`]th line, eight and eight.
#[inline]
#[target_feature(enable = "avx2")]
fn eight256(x: &RoundedBlock, lines: &[CacheLine]) -> [__m256i; 2] {
    // Four quarters of a line, each with the pairs of four outputs.
    let mut quarters = [_mm256_setzero_si256(); 4];
    for four in 0..BLOCK / 4 {
        let (values, line) = (&x.values[4 * four..4 * four + 4], &lines[four * VECTORS]);
        let word = values.iter().rev().fold(0, |word, value| (word << 16) | i64::from(*value as u16));
        for (quarter, bytes) in quarters.iter_mut().zip(line.bytes().chunks_exact(16)) {
            *quarter = _mm256_add_epi32(*quarter, pairs(load128(bytes), _mm256_set1_epi64x(word)));
        }
    }
    let zero = _mm256_set1_epi32(-128 * x.sum);
    [0, 2].map(|half| {
        let mixed = _mm256_hadd_epi32(quarters[half], quarters[half + 1]);
        _mm256_add_epi32(_mm256_permute4x64_epi64(mixed, 0b11_01_10_00), zero)
    })
}

/// The same of a block of Q4.
#[inline]
#[target_feature(enable = "avx2")]
fn four256(x: &RoundedBlock, lines: &[CacheLine]) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    // Two sums of pairs for every output: sixteen products each, none above 15 * 127, stay within
    // sixteen bits.
    let mut sums = [_mm256_setzero_si256(); 2];
    for eight in 0..BLOCK / 8 {
        let (words, line) = (&x.low[2 * eight..2 * eight + 2], &lines[eight * VECTORS]);
        for (sum, bytes) in sums.iter_mut().zip(line.bytes().as_chunks::<32>().0) {
            // SAFETY: there are 32 bytes.
            let both = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            let halves = [both, _mm256_srli_epi16(both, 4)].map(|half| _mm256_and_si256(half, mask));
            for (half, word) in halves.into_iter().zip(words) {
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(half, _mm256_set1_epi32(*word)));
            }
        }
    }
    let zero = _mm256_set1_epi32(-8 * x.sum);
    sums.map(|sum| _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), zero))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<const AHEAD: u8>(bits: Bits, rows: &[&QuantizedRow], lines: &[CacheLine], tile: &mut Tile) {
    let per_block = match bits {
        Bits::Eight => Q8_BLOCK / 64,
        Bits::Four => Q4_BLOCK / 64,
    };
    let rows = &rows[..rows.len().min(ROWS)];
    tile[..rows.len()].as_flattened_mut().fill(0.0);
    for (block, lines) in lines.chunks_exact(per_block).enumerate() {
        lines.iter().for_each(|line| line.fetch_ahead::<AHEAD>(bits));
        let (scales, lines) = lines.split_at(2 * PANEL / 64);
        for (row, tile) in rows.iter().zip(tile.iter_mut()) {
            let x_block = row.block(block);
            for (v, sums) in tile.chunks_exact_mut(16).enumerate() {
                let lines = &lines[v..];
                let whole = match bits {
                    Bits::Eight => eight256(x_block, lines),
                    Bits::Four => four256(x_block, lines),
                };
                for (half, sums) in sums.chunks_exact_mut(8).enumerate() {
                    let scales = &scales[v / 2].bytes()[32 * (v % 2) + 16 * half..];
                    let scale = _mm256_mul_ps(_mm256_cvtph_ps(load128(scales)), _mm256_set1_ps(x_block.scale));
                    // SAFETY: the chunk has eight floats.
                    unsafe {
                        let before = _mm256_loadu_ps(sums.as_ptr());
                        _mm256_storeu_ps(
                            sums.as_mut_ptr(),
                            _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[half]), scale, before),
                        );
                    }
                }
            }
        }
    }
}
