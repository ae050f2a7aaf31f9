//! The kernel of `quant.rs` with the vectors of x86-64 processors.
//!
//! The only unsafe things here are loads from a whole cache line that a reference proves to be there, and calls of
//! functions for which the processor was asked first. Tests compare every body with the plain one, bit for bit.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::quant::{BLOCK, Bits, Body, Line, PANEL, Q4_BLOCK, Q8_BLOCK, ROWS, Rounded, Tile};

/// Vectors of sixteen outputs in a panel.
const VECTORS: usize = PANEL / 16;

/// Every body that this processor has, the fastest first.
pub(super) fn bodies() -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        bodies.push(|bits, rows, lines, tile| {
            // SAFETY: the processor was asked above; a body is only given out where it has these instructions.
            unsafe { vnni(bits, rows, lines, tile) }
        });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        bodies.push(|bits, rows, lines, tile| {
            // SAFETY: as above.
            unsafe { avx2(bits, rows, lines, tile) }
        });
    }
    bodies
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni(bits: Bits, rows: &[&Rounded], lines: &[Line], tile: &mut Tile) {
    match (bits, rows) {
        (Bits::Eight, [a]) => vnni8([a], lines, tile),
        (Bits::Eight, [a, b]) => vnni8([a, b], lines, tile),
        (Bits::Eight, [a, b, c]) => vnni8([a, b, c], lines, tile),
        (Bits::Eight, [a, b, c, d, ..]) => vnni8([a, b, c, d], lines, tile),
        (Bits::Four, [a]) => vnni4([a], lines, tile),
        (Bits::Four, [a, b]) => vnni4([a, b], lines, tile),
        (Bits::Four, [a, b, c]) => vnni4([a, b, c], lines, tile),
        (Bits::Four, [a, b, c, d, ..]) => vnni4([a, b, c, d], lines, tile),
        (_, []) => {}
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load512(line: &Line) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes.
    unsafe { _mm512_loadu_si512(line.bytes().as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store512(sums: &[[__m512; VECTORS]], tile: &mut Tile) {
    for (sums, tile) in sums.iter().zip(tile) {
        for (sum, to) in sums.iter().zip(tile.chunks_exact_mut(16)) {
            // SAFETY: the chunk has sixteen floats.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *sum) }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni8<const R: usize>(rows: [&Rounded; R], lines: &[Line], tile: &mut Tile) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (block, lines) in lines.chunks_exact(Q8_BLOCK / 64).enumerate() {
        let mut whole = [[_mm512_setzero_si512(); VECTORS]; R];
        for r in 0..R {
            whole[r] = [_mm512_set1_epi32(-128 * rows[r].sum(block)); VECTORS];
        }
        let words = rows.map(|row| row.words(block));
        for (four, lines) in lines.chunks_exact(VECTORS).enumerate() {
            let weights: [__m512i; VECTORS] =
                [load512(&lines[0]), load512(&lines[1]), load512(&lines[2]), load512(&lines[3])];
            for r in 0..R {
                let x = _mm512_set1_epi32(words[r][four]);
                for v in 0..VECTORS {
                    whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], weights[v], x);
                }
            }
        }
        for r in 0..R {
            let scale = _mm512_set1_ps(rows[r].scale(block));
            for v in 0..VECTORS {
                sums[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][v]), scale, sums[r][v]);
            }
        }
    }
    store512(&sums, tile);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni4<const R: usize>(rows: [&Rounded; R], lines: &[Line], tile: &mut Tile) {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (block, lines) in lines.chunks_exact(Q4_BLOCK / 64).enumerate() {
        let (scales, lines) = lines.split_at(2 * PANEL / 64);
        let mut whole = [[_mm512_setzero_si512(); VECTORS]; R];
        for r in 0..R {
            whole[r] = [_mm512_set1_epi32(-8 * rows[r].sum(block)); VECTORS];
        }
        let words = rows.map(|row| row.words(block));
        for (eight, lines) in lines.chunks_exact(VECTORS).enumerate() {
            for v in 0..VECTORS {
                let both = load512(&lines[v]);
                let low = _mm512_and_si512(both, mask);
                let high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
                for r in 0..R {
                    whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], low, _mm512_set1_epi32(words[r][2 * eight]));
                    whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], high, _mm512_set1_epi32(words[r][2 * eight + 1]));
                }
            }
        }
        let both = [load512(&scales[0]), load512(&scales[1])];
        for v in 0..VECTORS {
            let half = if v % 2 == 0 {
                _mm512_castsi512_si256(both[v / 2])
            } else {
                _mm512_extracti64x4_epi64(both[v / 2], 1)
            };
            let weights = _mm512_cvtph_ps(half);
            for r in 0..R {
                let scale = _mm512_mul_ps(weights, _mm512_set1_ps(rows[r].scale(block)));
                sums[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][v]), scale, sums[r][v]);
            }
        }
    }
    store512(&sums, tile);
}

/// Eight outputs of a line as pairs of sums, half of a line's part each: products of four bytes with four of x.
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

#[target_feature(enable = "avx2,fma,f16c")]
fn avx2(bits: Bits, rows: &[&Rounded], lines: &[Line], tile: &mut Tile) {
    let per_block = match bits {
        Bits::Eight => Q8_BLOCK / 64,
        Bits::Four => Q4_BLOCK / 64,
    };
    let mask = _mm_set1_epi8(15);
    for (row, tile) in rows.iter().zip(tile).take(ROWS) {
        tile.fill(0.0);
        for (block, lines) in lines.chunks_exact(per_block).enumerate() {
            let x = |input: usize| {
                let four = _mm_set1_epi32(row.words(block)[input / 4]);
                _mm256_cvtepi8_epi16(four)
            };
            for (v, sums) in tile.chunks_exact_mut(16).enumerate() {
                // Four quarters of a line, each with the pairs of four outputs.
                let mut quarters = [_mm256_setzero_si256(); 4];
                match bits {
                    Bits::Eight => {
                        for four in 0..BLOCK / 4 {
                            let x = x(4 * four);
                            for (q, quarter) in quarters.iter_mut().enumerate() {
                                let weights = load128(&lines[four * VECTORS + v].bytes()[16 * q..]);
                                *quarter = _mm256_add_epi32(*quarter, pairs(weights, x));
                            }
                        }
                    }
                    Bits::Four => {
                        for eight in 0..BLOCK / 8 {
                            let (low, high) = (x(8 * eight), x(8 * eight + 4));
                            for (q, quarter) in quarters.iter_mut().enumerate() {
                                let both = load128(&lines[2 + eight * VECTORS + v].bytes()[16 * q..]);
                                let upper = _mm_and_si128(_mm_srli_epi16(both, 4), mask);
                                *quarter = _mm256_add_epi32(*quarter, pairs(_mm_and_si128(both, mask), low));
                                *quarter = _mm256_add_epi32(*quarter, pairs(upper, high));
                            }
                        }
                    }
                }
                let zero = _mm256_set1_epi32(if bits == Bits::Eight { -128 } else { -8 } * row.sum(block));
                for (half, sums) in sums.chunks_exact_mut(8).enumerate() {
                    let mixed = _mm256_hadd_epi32(quarters[2 * half], quarters[2 * half + 1]);
                    let whole = _mm256_add_epi32(_mm256_permute4x64_epi64(mixed, 0b11_01_10_00), zero);
                    let mut scale = _mm256_set1_ps(row.scale(block));
                    if bits == Bits::Four {
                        let scales = &lines[v / 2].bytes()[32 * (v % 2) + 16 * half..];
                        scale = _mm256_mul_ps(_mm256_cvtph_ps(load128(scales)), scale);
                    }
                    // SAFETY: the chunk has eight floats.
                    unsafe {
                        let before = _mm256_loadu_ps(sums.as_ptr());
                        _mm256_storeu_ps(sums.as_mut_ptr(), _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, before));
                    }
                }
            }
        }
    }
}
