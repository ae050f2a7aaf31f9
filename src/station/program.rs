//! From a voice's PCM to the sound that listeners get: 48 kHz, fixed channels, steady loudness, no clipping.
//!
//! Frame `n` of the output is the sound of media time `n / 48000`, whatever delays the filters have inside.

use crate::audio::{AudioError, Leveler, Limiter, OPUS_RATE, StreamResampler, remix};
use crate::engine::Chunk;
use crate::units::SampleRate;

/// The chain of filters of one stream.
pub(super) struct Program {
    channels: usize,
    resampler: StreamResampler,
    leveler: Option<Leveler>,
    limiter: Limiter,
    mixed: Vec<f32>,
    resampled: Vec<f32>,
}

impl Program {
    pub(super) fn new(rate: SampleRate, channels: usize) -> Result<Self, AudioError> {
        Ok(Self {
            channels,
            resampler: StreamResampler::new(rate, SampleRate(OPUS_RATE), channels)?,
            leveler: Leveler::new(OPUS_RATE, channels),
            limiter: Limiter::new(channels),
            mixed: Vec::new(),
            resampled: Vec::new(),
        })
    }

    /// Takes the voice's next chunk and appends what became final to `out`.
    pub(super) fn push(&mut self, chunk: &Chunk, out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.resampled.clear();
        if chunk.sample_rate != self.resampler.from() {
            self.resampler.finish(&mut self.resampled)?;
            self.resampler = StreamResampler::new(chunk.sample_rate, SampleRate(OPUS_RATE), self.channels)?;
        }
        self.mixed.clear();
        remix(&chunk.pcm, chunk.channels, self.channels, &mut self.mixed);
        self.resampler.push(&self.mixed, &mut self.resampled)?;
        self.level_and_limit(out);
        Ok(())
    }

    /// Appends the rest: as many frames in total as the voice's sound lasts.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.resampled.clear();
        self.resampler.finish(&mut self.resampled)?;
        self.level_and_limit(out);
        self.limiter.finish(out);
        Ok(())
    }

    fn level_and_limit(&mut self, out: &mut Vec<f32>) {
        if let Some(leveler) = &mut self.leveler {
            leveler.process(&mut self.resampled);
        }
        self.limiter.push(&self.resampled, out);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::units::Samples;

    #[test]
    fn an_impulse_stays_at_its_media_time() {
        let mut pcm = vec![0.0; 32_000];
        pcm[16_000] = 0.5;
        let (mut program, mut out) = (Program::new(SampleRate(32_000), 2).unwrap(), Vec::new());
        for (n, part) in pcm.chunks(640).enumerate() {
            let start = Samples(n as u64 * 640);
            let (sample_rate, pcm) = (SampleRate(32_000), part.to_vec());
            program.push(&Chunk { start, epoch: 0, sample_rate, channels: 1, pcm }, &mut out).unwrap();
        }
        program.finish(&mut out).unwrap();
        assert_eq!(out.len(), 2 * 48_000);
        let peak = (0..48_000).max_by(|&a, &b| out[2 * a].abs().total_cmp(&out[2 * b].abs())).unwrap();
        assert_eq!(peak, 24_000);
    }
}
