//! Loops out of a window: exact lengths, and the level of what is handed out.

use candle_core::Tensor;

use super::super::error::Result;
use crate::bars::bar_seconds;

/// Samples of a loop.
pub fn loop_samples(bpm: f64, bars: u32, rate: u32) -> usize {
    (bar_seconds(bpm) * f64::from(bars) * f64::from(rate)) as usize
}

/// How the pull of a given piece is spread over a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// The first bar alone.
    FirstBar,
    /// All of it.
    Full,
    /// The first bar fully, then less and less.
    Fade,
}

/// Squared weights per latent frame, times a ramp from `start` to `end`.
pub fn pull_weights(mask: Mask, frames: usize, bars: u32, (start, end): (f64, f64)) -> Vec<f32> {
    let bar = (frames / bars.max(1) as usize).max(1);
    // The reference's `linspace`: both ends belong to it.
    let between = |from: f64, to: f64, i: usize, count: usize| {
        if count < 2 { from } else { from + (to - from) * i as f64 / (count - 1) as f64 }
    };
    let weight = |frame: usize| match mask {
        Mask::Full => 1.0,
        Mask::FirstBar => f64::from(u8::from(frame < bar)),
        Mask::Fade if frame < bar => 1.0,
        Mask::Fade => between(1.0, 0.3, frame - bar, frames - bar),
    };
    (0..frames).map(|frame| (weight(frame) * between(start, end, frame, frames)).powi(2) as f32).collect()
}

/// The largest magnitude of a sound.
///
/// # Errors
/// When the device fails.
pub fn peak(sound: &Tensor) -> Result<f32> {
    Ok(sound.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// Brings interleaved samples to full scale; silence stays silent.
pub fn normalise(samples: &mut [f32], peak: f32) {
    if peak > 0.0 {
        samples.iter_mut().for_each(|sample| *sample = (*sample / peak).clamp(-1.0, 1.0));
    }
}

/// Makes the join of a loop seamless: the first `fade` frames of `samples` (interleaved, the loop's
/// `frames` and at least `fade` more) are faded in over what would have come after the loop's end,
/// at equal power. Gives the loop alone.
pub fn seamless(samples: &[f32], channels: usize, frames: usize, fade: usize) -> Vec<f32> {
    let fade = fade.min(frames).min((samples.len() / channels).saturating_sub(frames));
    let mut out = samples[..(frames * channels).min(samples.len())].to_vec();
    for frame in 0..fade {
        // The loop's end goes on into its tail, which gives way to its own beginning.
        let angle = std::f32::consts::FRAC_PI_2 * (frame as f32 + 0.5) / fade as f32;
        for channel in 0..channels {
            let (at, tail) = (frame * channels + channel, (frames + frame) * channels + channel);
            out[at] = samples[at] * angle.sin() + samples[tail] * angle.cos();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seamless_loop_has_no_step_at_its_join() {
        // A tone whose period does not fit into the loop.
        let (frames, fade) = (1000, 200);
        let tone: Vec<f32> = (0..frames + fade).map(|i| (i as f32 * 0.0777).sin()).collect();
        let steps = |x: &[f32]| x.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        let joined = seamless(&tone, 1, frames, fade);
        assert_eq!(joined.len(), frames);
        let seam = (joined[0] - joined[frames - 1]).abs();
        assert!(seam <= steps(&tone) * 1.05, "{seam} against {}", steps(&tone));
        assert!((tone[0] - tone[frames - 1]).abs() > 3.0 * seam, "without the fade it clicks");
    }
}
