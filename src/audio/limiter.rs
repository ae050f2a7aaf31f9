//! A look-ahead limiter: nothing leaves above the ceiling, and what is below it passes untouched.
//!
//! The gain that each sample needs is held over the look-ahead (sliding minimum), released slowly,
//! and smoothed by a moving average as long as the look-ahead, which reaches the needed gain
//! exactly when the peak arrives.

use std::collections::VecDeque;

use super::true_peak::{self, TruePeak};

/// Ceiling of the output: -1 dBFS, true peak.
pub const CEILING: f32 = 0.891_25;

/// Length of the moving average: 5 ms at 48 kHz.
const ATTACK: usize = 240;
/// Frames between input and output: the average must lie behind the last value that concerns a
/// sample.
const LATENCY: usize = ATTACK + true_peak::DELAY + 1;
/// How much of the way back to unity is made per frame: a time constant of 150 ms at 48 kHz.
const RELEASE: f64 = 1.0 / (0.150 * 48_000.0);

/// Limits interleaved PCM of a fixed number of channels.
pub struct Limiter {
    channels: usize,
    peaks: Vec<TruePeak>,
    /// Samples on their way, [`LATENCY`] frames.
    delay: VecDeque<f32>,
    /// Frames still to drop at the start, so that the output is not delayed.
    skip: usize,
    frame: u64,
    /// Candidates for the minimum over the last `LATENCY + 1` frames: (frame, gain), gains rising.
    minima: VecDeque<(u64, f32)>,
    /// In `f64`: the last steps back to unity are smaller than what `f32` knows near one, where the
    /// gain would stand still.
    released: f64,
    average: VecDeque<f32>,
    /// Of [`Limiter::average`]; exact, so that it is what it was once all of them are one again.
    sum: f64,
    /// Peak of every frame of the present chunk.
    levels: Vec<f32>,
}

/// A broken sample becomes silence: it must not stay in the filters for ever.
fn clean(sample: f32) -> f32 {
    if sample.is_finite() { sample } else { 0.0 }
}

impl Limiter {
    /// A limiter that has heard nothing, for 48 kHz or about.
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            peaks: (0..channels).map(|_| TruePeak::new(0.5 * CEILING)).collect(),
            delay: std::iter::repeat_n(0.0, LATENCY * channels).collect(),
            skip: LATENCY,
            frame: 0,
            minima: VecDeque::new(),
            released: 1.0,
            average: std::iter::repeat_n(1.0, ATTACK).collect(),
            sum: ATTACK as f64,
            levels: Vec::new(),
        }
    }

    /// Takes samples and appends those that are final to `out`: all but the last five milliseconds.
    pub fn push(&mut self, pcm: &[f32], out: &mut Vec<f32>) {
        let mut levels = std::mem::take(&mut self.levels);
        levels.clear();
        for frame in pcm.chunks_exact(self.channels) {
            let peaks = frame.iter().zip(&mut self.peaks).map(|(&sample, peak)| peak.push(clean(sample)));
            levels.push(peaks.fold(0.0, f32::max));
        }
        self.delay.extend(pcm.iter().copied().map(clean));
        let skipped = self.skip.min(levels.len());
        self.skip -= skipped;
        self.delay.drain(..skipped * self.channels);
        let given = levels.len() - skipped;
        if self.at_rest() && levels.iter().all(|&level| level <= CEILING) {
            // Most music most of the time: nothing to hold, nothing to release.
            self.frame += levels.len() as u64;
            self.minima = VecDeque::from([(self.frame, 1.0)]);
            out.extend(self.delay.drain(..given * self.channels));
        } else {
            for (n, &level) in levels.iter().enumerate() {
                let gain = self.gain_for(level);
                if n < skipped {
                    continue;
                }
                // The clamp only removes rounding errors of the gain.
                out.extend(self.delay.drain(..self.channels).map(|sample| (sample * gain).clamp(-CEILING, CEILING)));
            }
        }
        self.levels = levels;
    }

    /// The gain is one, and was for as long as the look-ahead looks back.
    fn at_rest(&self) -> bool {
        self.sum == ATTACK as f64 && self.minima.front().is_none_or(|&(_, gain)| gain == 1.0)
    }

    /// Appends the frames that were held back.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let silence = vec![0.0; LATENCY * self.channels];
        self.push(&silence, out);
    }

    fn gain_for(&mut self, peak: f32) -> f32 {
        let need = if peak > CEILING { CEILING / peak } else { 1.0 };
        while self.minima.back().is_some_and(|&(_, gain)| gain >= need) {
            self.minima.pop_back();
        }
        self.minima.push_back((self.frame, need));
        if self.minima.front().is_some_and(|&(frame, _)| frame + (LATENCY as u64) < self.frame) {
            self.minima.pop_front();
        }
        self.frame += 1;
        let hold = self.minima.front().map_or(1.0, |&(_, gain)| f64::from(gain));
        let risen = self.released + (1.0 - self.released) * RELEASE;
        // So close to unity the ear hears nothing, and the signal passes bit for bit again.
        self.released = if risen > 0.999_99 { 1.0 } else { risen }.min(hold);
        let oldest = self.average.pop_front().unwrap_or(1.0);
        let released = self.released as f32;
        self.average.push_back(released);
        self.sum += f64::from(released) - f64::from(oldest);
        (self.sum / ATTACK as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn limit(pcm: &[f32], channels: usize) -> Vec<f32> {
        let (mut limiter, mut out) = (Limiter::new(channels), Vec::new());
        limiter.push(pcm, &mut out);
        limiter.finish(&mut out);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_leaves_above_the_ceiling(
            bursts in prop::collection::vec((1usize..600, -8.0f32..8.0, 0.0f32..3.2), 1..12), channels in 1usize..=2,
        ) {
            let mut pcm = Vec::new();
            for (frames, level, step) in bursts {
                pcm.extend((0..frames * channels).map(|n| level * (n as f32 * step).cos()));
            }
            let out = limit(&pcm, channels);
            prop_assert_eq!(out.len(), pcm.len());
            prop_assert!(out.iter().all(|sample| sample.abs() <= CEILING));
        }
    }

    #[test]
    fn chunks_do_not_matter() {
        let pcm: Vec<f32> =
            (0..96_000).map(|n| (n as f32 * 0.3).sin() * if n / 9600 % 3 == 1 { 2.0 } else { 0.7 }).collect();
        let whole = limit(&pcm, 2);
        for chunk in [2, 146, 960, 9602] {
            let (mut limiter, mut out) = (Limiter::new(2), Vec::new());
            pcm.chunks(chunk).for_each(|chunk| limiter.push(chunk, &mut out));
            limiter.finish(&mut out);
            assert_eq!(out, whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn quiet_sound_passes_bit_for_bit_and_undelayed() {
        let pcm: Vec<f32> = (0..9600).map(|n| (n as f32 * 0.07).sin() * 0.8).collect();
        assert_eq!(limit(&pcm, 2), pcm);
    }

    #[test]
    fn true_peaks_stay_near_the_ceiling() {
        // 12 kHz at 45 degrees: samples are 3 dB below the true peak, which is 5 dB above full
        // scale.
        let pcm: Vec<f32> =
            (0..48_000).map(|n| ((n as f64 + 0.5) * std::f64::consts::FRAC_PI_2).sin() as f32 * 1.8).collect();
        let mut meter = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::TRUE_PEAK).unwrap();
        meter.add_frames_f32(&limit(&pcm, 1)[4800..43_000]).unwrap();
        let peak = 20.0 * meter.true_peak(0).unwrap().log10();
        assert!((-1.6..=-0.7).contains(&peak), "true peak {peak:.2} dBTP");
    }

    #[test]
    fn the_gain_moves_without_a_jump_and_comes_back() {
        // Direct current shows the gain itself: half, then three, then half.
        let pcm: Vec<f32> = (0..96_000).map(|n| if (24_000..48_000).contains(&n) { 3.0 } else { 0.5 }).collect();
        let out = limit(&pcm, 1);
        let gain: Vec<f32> = out.iter().zip(&pcm).map(|(out, pcm)| out / pcm).collect();
        let step = gain.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(step < 0.004, "the gain jumps by {step}");
        assert_eq!(gain[10_000], 1.0);
        assert!(gain[95_999] > 0.99, "{}", gain[95_999]);
    }

    #[test]
    fn two_seconds_after_a_peak_the_sound_passes_bit_for_bit_again() {
        for peak in [0.9, 1.0, 3.0, 40.0] {
            let pcm: Vec<f32> = (0..110_000).map(|n| if n == 1000 { peak } else { 0.5 }).collect();
            let out = limit(&pcm, 1);
            assert_ne!(out[1000], peak);
            assert_eq!(out[100_000..], pcm[100_000..], "after {peak}");
            // And nothing is computed for it any more.
            let mut limiter = Limiter::new(1);
            limiter.push(&pcm, &mut Vec::new());
            assert!(limiter.at_rest(), "after {peak}");
        }
    }

    #[test]
    fn a_broken_sample_does_no_lasting_harm() {
        let mut pcm = vec![0.5; 4800];
        pcm[100] = f32::NAN;
        pcm[200] = f32::INFINITY;
        let out = limit(&pcm, 1);
        assert!(out.iter().all(|sample| sample.is_finite()));
        assert_eq!(out[4000], 0.5);
    }
}
