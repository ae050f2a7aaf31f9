//! From logits to a code: guidance, temperature, top-k, nucleus, softmax, and a draw that depends
//! on nothing but the seed, the index of the draw and the codebook.

use std::cmp::Ordering;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// What is done with the logits before a draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shaping {
    /// Divides the logits; 0 means the largest logit wins.
    pub temperature: f32,
    /// Keeps the largest so many logits and all that equal the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable codes that together reach this probability; 1 keeps all.
    pub top_p: f32,
}

/// The logits hold a value that is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotANumber;

/// Classifier-free guidance: `uncond + scale * (cond - uncond)`.
pub fn guide(cond: &[f32], uncond: &[f32], scale: f32) -> Vec<f32> {
    cond.iter().zip(uncond).map(|(cond, uncond)| uncond + scale * (cond - uncond)).collect()
}

/// Probabilities of the codes after shaping (temperature above 0).
///
/// # Errors
/// [`NotANumber`].
pub fn probabilities(logits: &[f32], shaping: Shaping) -> Result<Vec<f32>, NotANumber> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(NotANumber);
    }
    let mut scaled: Vec<f32> = logits.iter().map(|logit| logit / shaping.temperature).collect();
    if shaping.top_k > 0 && shaping.top_k < scaled.len() {
        let mut sorted = scaled.clone();
        let (_, last, _) = sorted.select_nth_unstable_by(shaping.top_k - 1, descending);
        let last = *last;
        for logit in &mut scaled {
            if *logit < last {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    let mut shares = softmax(&scaled)?;
    if shaping.top_p < 1.0 {
        nucleus(&mut shares, shaping.top_p);
    }
    Ok(shares.into_iter().map(|share| share as f32).collect())
}

fn descending(a: &f32, b: &f32) -> Ordering {
    b.total_cmp(a)
}

fn softmax(logits: &[f32]) -> Result<Vec<f64>, NotANumber> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    if !total.is_finite() {
        return Err(NotANumber);
    }
    Ok(weights.into_iter().map(|weight| weight / total).collect())
}

/// Drops the least probable codes whose probabilities sum to at most `1 - top_p`, and scales up the
/// others.
fn nucleus(shares: &mut [f64], top_p: f32) {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| shares[*a].total_cmp(&shares[*b]).then(b.cmp(a)));
    let mut dropped = 0.0;
    // The most probable code always stays.
    for index in &order[..order.len() - 1] {
        dropped += shares[*index];
        if dropped > 1.0 - f64::from(top_p) {
            break;
        }
        shares[*index] = 0.0;
    }
    let total: f64 = shares.iter().sum();
    for share in shares {
        *share /= total;
    }
}

/// Index of the largest logit; the first of equal ones.
///
/// # Errors
/// [`NotANumber`].
pub fn arg_max(logits: &[f32]) -> Result<u32, NotANumber> {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return Err(NotANumber);
        }
        if *logit > logits[best] {
            best = index;
        }
    }
    Ok(best as u32)
}

/// The uniform number, from 0 to below 1, behind the choice for `book` in draw number `draw` of the
/// sequence that `seed` stands for.
pub fn uniform(seed: u64, draw: u64, book: usize) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(book as u64);
    // One block of the cipher has sixteen words; every draw takes two.
    rng.set_word_pos(u128::from(draw) * 2);
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Chooses the code of `book` for draw number `draw` of the sequence that `seed` stands for.
///
/// # Errors
/// [`NotANumber`].
pub fn choose(logits: &[f32], shaping: Shaping, seed: u64, draw: u64, book: usize) -> Result<u32, NotANumber> {
    choose_at(logits, shaping, uniform(seed, draw, book))
}

/// Chooses the first code at which the probabilities, summed up in order, exceed `target`.
///
/// # Errors
/// [`NotANumber`].
pub fn choose_at(logits: &[f32], shaping: Shaping, target: f64) -> Result<u32, NotANumber> {
    if shaping.temperature <= 0.0 {
        return arg_max(logits);
    }
    let shares = probabilities(logits, shaping)?;
    let mut sum = 0.0;
    let mut last = 0;
    for (index, share) in shares.iter().enumerate() {
        if *share > 0.0 {
            sum += f64::from(*share);
            last = index;
            if sum > target {
                break;
            }
        }
    }
    Ok(last as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PLAIN: Shaping = Shaping { temperature: 1.0, top_k: 0, top_p: 1.0 };

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, 1.0, f32::NEG_INFINITY, 2.0];
        let expected = probabilities(&logits, PLAIN).unwrap();
        let mut counts = [0f64; 4];
        for draw in 0..40_000 {
            counts[choose(&logits, PLAIN, 7, draw, 1).unwrap() as usize] += 1.0 / 40_000.0;
        }
        for (count, expected) in counts.iter().zip(expected) {
            assert!((count - f64::from(expected)).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn a_draw_depends_on_seed_index_and_codebook_only() {
        let logits: Vec<f32> = (0..2048).map(|i| ((i * 37) % 101) as f32 * 0.05).collect();
        let draw = |seed, index, book| choose(&logits, PLAIN, seed, index, book).unwrap();
        let forward: Vec<u32> = (0..50).map(|index| draw(3, index, 0)).collect();
        let backward: Vec<u32> = (0..50).rev().map(|index| draw(3, index, 0)).collect();
        assert!(forward.iter().eq(backward.iter().rev()));
        assert_ne!(forward, (0..50).map(|index| draw(4, index, 0)).collect::<Vec<_>>());
        assert_ne!(forward, (0..50).map(|index| draw(3, index, 1)).collect::<Vec<_>>());
    }

    #[test]
    fn a_bad_number_is_reported() {
        for shaping in [PLAIN, Shaping { temperature: 0.0, ..PLAIN }] {
            assert_eq!(choose(&[0.0, f32::NAN, 1.0], shaping, 0, 0, 0), Err(NotANumber));
        }
        assert_eq!(choose(&[1.0, 3.0, 3.0], Shaping { temperature: 0.0, ..PLAIN }, 0, 0, 0), Ok(1));
    }
}
