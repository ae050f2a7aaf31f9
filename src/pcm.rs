//! A whole piece of PCM in memory: mixed, cut, spread over channels. `audio` converts and encodes
//! it.

use crate::units::SampleRate;

/// A piece of sound with its rate and channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Pcm {
    /// Interleaved samples, nominally within -1..1.
    pub pcm: Vec<f32>,
    /// Channels, at least one.
    pub channels: usize,
    /// Frames per second.
    pub rate: SampleRate,
}

impl Pcm {
    /// Samples per channel.
    pub fn frames(&self) -> usize {
        self.pcm.len() / self.channels
    }

    /// Length.
    pub fn seconds(&self) -> f64 {
        self.frames() as f64 / f64::from(self.rate.0)
    }

    /// The frames `from..to`; what lies beyond the end is left out.
    #[must_use]
    pub fn cut(&self, from: usize, to: usize) -> Self {
        let (to, from) = (to.min(self.frames()), from.min(to).min(self.frames()));
        Self { pcm: self.pcm[from * self.channels..to * self.channels].to_vec(), ..*self }
    }

    /// All channels mixed to one, in equal parts.
    #[must_use]
    pub fn mono(self) -> Self {
        if self.channels == 1 {
            return self;
        }
        let share = 1.0 / self.channels as f32;
        let pcm = self.pcm.chunks_exact(self.channels).map(|frame| share * frame.iter().sum::<f32>()).collect();
        Self { pcm, channels: 1, ..self }
    }

    /// Two channels: a mono sound on both, of more than two channels the mix on both.
    #[must_use]
    pub fn stereo(self) -> Self {
        if self.channels == 2 {
            return self;
        }
        self.mono().spread(2)
    }

    /// A mono sound on every one of `channels`; others are mixed first.
    #[must_use]
    pub fn spread(self, channels: usize) -> Self {
        let mono = self.mono();
        let pcm = mono.pcm.iter().flat_map(|&sample| std::iter::repeat_n(sample, channels)).collect();
        Self { pcm, channels, ..mono }
    }

    /// Silence appended until it has at least `frames`.
    #[must_use]
    pub fn padded(mut self, frames: usize) -> Self {
        let samples = frames * self.channels;
        self.pcm.resize(self.pcm.len().max(samples), 0.0);
        self
    }

    /// One vector per channel.
    pub fn planes(&self) -> Vec<Vec<f32>> {
        (0..self.channels).map(|c| self.pcm.iter().skip(c).step_by(self.channels).copied().collect()).collect()
    }

    /// Scaled down until its peak is full scale; what does not exceed it is not touched.
    #[must_use]
    pub fn within_full_scale(mut self) -> Self {
        let peak = self.pcm.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
        if peak > 1.0 {
            self.pcm.iter_mut().for_each(|sample| *sample /= peak);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sound(pcm: &[f32], channels: usize) -> Pcm {
        Pcm { pcm: pcm.to_vec(), channels, rate: SampleRate(32_000) }
    }

    #[test]
    fn all_channels_are_mixed() {
        assert_eq!(sound(&[0.25, -0.25, 0.75, 0.25, 0.0, 0.25, 0.5, -0.75], 4).mono().pcm, [0.25, 0.0]);
        assert_eq!(sound(&[0.5, 0.25], 1).stereo().pcm, [0.5, 0.5, 0.25, 0.25]);
    }

    #[test]
    fn a_cut_beyond_the_end_is_what_is_there() {
        let piece = sound(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2);
        assert_eq!(piece.cut(1, 9).pcm, [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(piece.cut(4, 2).pcm, [0.0; 0]);
        assert_eq!(piece.padded(4).frames(), 4);
    }

    #[test]
    fn only_what_exceeds_full_scale_is_scaled() {
        assert_eq!(sound(&[0.5, -1.0], 1).within_full_scale().pcm, [0.5, -1.0]);
        assert_eq!(sound(&[0.5, -2.0], 1).within_full_scale().pcm, [0.25, -1.0]);
    }
}
