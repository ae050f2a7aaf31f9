//! Resampling of an endless signal that arrives in chunks of any size.
//!
//! The filter's delay is cut off at the start and drained at the end, so output sample `n` is the
//! sound of time `n / to` and the length is right to the sample. The chunking of the input changes
//! nothing in the output.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use super::AudioError;
use crate::units::SampleRate;

/// Blocks per second: 20 ms each, so that a codec frame of a 50 Hz model becomes one Opus frame.
const BLOCKS_PER_SECOND: u32 = 50;

/// Converts interleaved PCM from one rate to another.
pub struct StreamResampler {
    from: SampleRate,
    to: SampleRate,
    channels: usize,
    /// `None` when both rates are equal.
    fft: Option<Fft<f32>>,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    /// Output of one block.
    block: Vec<f32>,
    /// Output frames still to drop: the filter's delay.
    skip: usize,
    taken: u64,
    given: u64,
}

impl StreamResampler {
    /// A resampler that has heard nothing.
    ///
    /// # Errors
    /// [`AudioError::Resample`] when a rate is 0.
    pub fn new(from: SampleRate, to: SampleRate, channels: usize) -> Result<Self, AudioError> {
        let fft = if from == to {
            None
        } else {
            let chunk = (from.0 / BLOCKS_PER_SECOND).max(1) as usize;
            let (rate_in, rate_out, window) = (from.0 as usize, to.0 as usize, WindowFunction::BlackmanHarris2);
            let fft = Fft::new_custom(rate_in, rate_out, chunk, 1, channels, window, FixedSync::Both)
                .map_err(|error| Self::error(from, to, &error))?;
            Some(fft)
        };
        let skip = fft.as_ref().map_or(0, Resampler::output_delay);
        let block = vec![0.0; fft.as_ref().map_or(0, Resampler::output_frames_max) * channels];
        Ok(Self { from, to, channels, fft, pending: Vec::new(), block, skip, taken: 0, given: 0 })
    }

    /// The rate that it takes.
    pub fn from(&self) -> SampleRate {
        self.from
    }

    /// Takes interleaved samples and appends what became final to `out`.
    ///
    /// # Errors
    /// [`AudioError::Resample`] if the filter refuses a block.
    pub fn push(&mut self, pcm: &[f32], out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.taken += (pcm.len() / self.channels) as u64;
        self.feed(pcm, out)
    }

    /// Appends the rest: in total `round(frames taken · to / from)` frames have then been given.
    ///
    /// # Errors
    /// [`AudioError::Resample`] if the filter refuses a block.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), AudioError> {
        let (from, to) = (u64::from(self.from.0), u64::from(self.to.0));
        let total = (self.taken * to + from / 2) / from;
        let silence = vec![0.0; self.fft.as_ref().map_or(0, Resampler::input_frames_next) * self.channels];
        let start = out.len();
        let missing = (total - self.given.min(total)) as usize;
        while (out.len() - start) / self.channels < missing {
            self.feed(&silence, out)?;
        }
        out.truncate(start + missing * self.channels);
        self.given = total;
        self.pending.clear();
        Ok(())
    }

    fn feed(&mut self, pcm: &[f32], out: &mut Vec<f32>) -> Result<(), AudioError> {
        let (from, to) = (self.from, self.to);
        let Some(fft) = &mut self.fft else {
            out.extend_from_slice(pcm);
            self.given += (pcm.len() / self.channels) as u64;
            return Ok(());
        };
        self.pending.extend_from_slice(pcm);
        let (need, gain) = (fft.input_frames_next(), fft.output_frames_next());
        let mut used = 0;
        while self.pending.len() - used >= need * self.channels {
            let input = &self.pending[used..used + need * self.channels];
            let input = InterleavedSlice::new(input, self.channels, need).map_err(|e| Self::error(from, to, &e))?;
            let mut output = InterleavedSlice::new_mut(&mut self.block, self.channels, gain)
                .map_err(|error| Self::error(from, to, &error))?;
            fft.process_into_buffer(&input, &mut output, None).map_err(|error| Self::error(from, to, &error))?;
            let skipped = self.skip.min(gain);
            self.skip -= skipped;
            out.extend_from_slice(&self.block[skipped * self.channels..gain * self.channels]);
            self.given += (gain - skipped) as u64;
            used += need * self.channels;
        }
        self.pending.drain(..used);
        Ok(())
    }

    fn error(from: SampleRate, to: SampleRate, reason: &dyn std::fmt::Display) -> AudioError {
        AudioError::Resample { from: from.0, to: to.0, reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    fn sine(rate: u32, frequency: f64, frames: usize, channels: usize) -> Vec<f32> {
        (0..frames)
            .flat_map(|n| {
                let sample = (TAU * frequency * n as f64 / f64::from(rate)).sin() as f32 * 0.5;
                std::iter::repeat_n(sample, channels)
            })
            .collect()
    }

    fn resample(pcm: &[f32], rate: u32, channels: usize, chunks: &[usize]) -> Vec<f32> {
        let mut resampler = StreamResampler::new(SampleRate(rate), SampleRate(48_000), channels).unwrap();
        let (mut out, mut rest, mut sizes) = (Vec::new(), pcm, chunks.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((sizes.next().unwrap() * channels).min(rest.len()));
            resampler.push(now, &mut out).unwrap();
            rest = later;
        }
        resampler.finish(&mut out).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_chunking_equals_one_shot(
            frames in 1usize..6000, channels in 1usize..=2, chunks in prop::collection::vec(1usize..1500, 1..6),
            rate in prop::sample::select(vec![16_000u32, 24_000, 32_000, 44_100, 48_000]),
        ) {
            let pcm = sine(rate, 440.0, frames, channels);
            let whole = resample(&pcm, rate, channels, &[frames]);
            prop_assert_eq!(whole.len() / channels, (frames as f64 * 48_000.0 / f64::from(rate)).round() as usize);
            prop_assert_eq!(resample(&pcm, rate, channels, &chunks), whole);
        }
    }

    #[test]
    fn a_sine_keeps_its_phase_and_level() {
        for rate in [24_000, 32_000, 44_100] {
            let out = resample(&sine(rate, 997.0, rate as usize, 1), rate, 1, &[640]);
            let ideal = sine(48_000, 997.0, 48_000, 1);
            let worst = out[960..47_000].iter().zip(&ideal[960..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-4, "{rate} Hz: off by {worst}");
        }
    }
}
