//! The kernel of `quant.rs` with the vectors of 64-bit ARM processors, with their dot product
//! instruction where there is one.
//!
//! Sixteen outputs of a panel, a cache line of four inputs each, are summed up at a time for one or
//! two rows: more sums than that do not fit into 32 registers of four. Tests compare every body
//! with the plain one, bit for bit.
#![allow(unsafe_code)]

use std::arch::{aarch64::*, asm, is_aarch64_feature_detected};

use super::{Bits, Body, CacheLine, PANEL, Q4_BLOCK, Q8_BLOCK, QuantizedRow, ROWS, RoundedBlock, Tile};

/// Lines of sixteen outputs side by side in a panel.
const PARTS: usize = PANEL / 16;

/// Every body that this processor has, the fastest first.
pub(super) fn bodies() -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    if is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod") {
        bodies.push(|bits, rows, lines, tile| {
            // SAFETY: the processor was asked above; a body is only given out where it has these
            // instructions.
            unsafe { multiply::<true>(bits, rows, lines, tile) }
        });
    }
    if is_aarch64_feature_detected!("neon") {
        bodies.push(|bits, rows, lines, tile| {
            // SAFETY: as above.
            unsafe { multiply::<false>(bits, rows, lines, tile) }
        });
    }
    bodies
}

#[target_feature(enable = "neon")]
fn multiply<const DOT: bool>(bits: Bits, rows: &[&QuantizedRow], lines: &[CacheLine], tile: &mut Tile) {
    match bits {
        Bits::Eight => blocks::<DOT, true>(rows, lines, tile),
        Bits::Four => blocks::<DOT, false>(rows, lines, tile),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn blocks<const DOT: bool, const EIGHT: bool>(rows: &[&QuantizedRow], lines: &[CacheLine], tile: &mut Tile) {
    let rows = &rows[..rows.len().min(ROWS)];
    tile[..rows.len()].as_flattened_mut().fill(0.0);
    let per_block = if EIGHT { Q8_BLOCK } else { Q4_BLOCK } / 64;
    for (block, lines) in lines.chunks_exact(per_block).enumerate() {
        let (scales, lines) = lines.split_at(2 * PANEL / 64);
        let bits = if EIGHT { Bits::Eight } else { Bits::Four };
        scales.iter().for_each(|line| line.fetch_ahead::<0>(bits));
        for part in 0..PARTS {
            let scales = &scales[part / 2].bytes()[32 * (part % 2)..][..32];
            for (rows, tile) in rows.chunks(2).zip(tile.chunks_mut(2)) {
                match (rows, tile) {
                    ([a, b], [to_a, to_b]) => {
                        let (x, to) = ([a.block(block), b.block(block)], [to_a, to_b]);
                        sixteen::<DOT, EIGHT, 2>(x, scales, &lines[part..], to.map(|to| &mut to[16 * part..][..16]));
                    }
                    ([a], [to, ..]) => {
                        let to = [&mut to[16 * part..][..16]];
                        sixteen::<DOT, EIGHT, 1>([a.block(block)], scales, &lines[part..], to);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Adds what one block adds to sixteen outputs of `R` rows, whose weights are every [`PARTS`]th
/// line.
#[inline]
#[target_feature(enable = "neon")]
fn sixteen<const DOT: bool, const EIGHT: bool, const R: usize>(
    x: [&RoundedBlock; R],
    scales: &[u8],
    lines: &[CacheLine],
    to: [&mut [f32]; R],
) {
    let zero: [_; R] = std::array::from_fn(|r| vdupq_n_s32(if EIGHT { 0 } else { -8 * x[r].sum }));
    let (mut low, mut high) = (zero.map(|zero| [zero; 4]), [[vdupq_n_s32(0); 4]; R]);
    for (at, line) in lines.iter().step_by(PARTS).enumerate() {
        line.fetch_ahead::<0>(if EIGHT { Bits::Eight } else { Bits::Four });
        // Inputs in a line: four, or eight in halves of bytes.
        let words = if EIGHT { [at, at] } else { [2 * at, 2 * at + 1] };
        for q in 0..4 {
            let bytes = load(&line.bytes()[16 * q..]);
            for r in 0..R {
                if EIGHT {
                    let weights = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
                    low[r][q] = dot::<DOT>(low[r][q], weights, four(x[r].low[words[0]]));
                    high[r][q] = dot::<DOT>(high[r][q], weights, four(x[r].high[words[0]]));
                } else {
                    let halves = [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)];
                    for (half, word) in halves.into_iter().zip(words) {
                        low[r][q] = dot::<DOT>(low[r][q], vreinterpretq_s8_u8(half), four(x[r].low[word]));
                    }
                }
            }
        }
    }
    for (r, to) in to.into_iter().enumerate() {
        for (q, to) in to.chunks_exact_mut(4).enumerate() {
            let whole = vaddq_s32(vshlq_n_s32::<8>(high[r][q]), low[r][q]);
            let halves = &scales[8 * q..8 * q + 8];
            // SAFETY: both slices have four numbers, and loads need no alignment.
            unsafe {
                let scales = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves.as_ptr())));
                let scales = vmulq_n_f32(scales, x[r].scale);
                vst1q_f32(to.as_mut_ptr(), vfmaq_f32(vld1q_f32(to.as_ptr()), vcvtq_f32_s32(whole), scales));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8]) -> uint8x16_t {
    let sixteen = &bytes[..16];
    // SAFETY: the slice has sixteen bytes.
    unsafe { vld1q_u8(sixteen.as_ptr()) }
}

/// Four of x, for four outputs.
#[inline]
#[target_feature(enable = "neon")]
fn four(word: i32) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(word))
}

/// Adds to each of four sums the products of four weights with four of x.
#[inline]
#[target_feature(enable = "neon")]
fn dot<const DOT: bool>(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    if DOT {
        // SAFETY: only bodies of processors with this instruction come here, and it works on these
        // registers alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums, weights = in(vreg) weights, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        return sums;
    }
    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    let high = vmull_high_s8(weights, x);
    vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
}
