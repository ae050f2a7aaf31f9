//! A whole piece of PCM at another rate, and as a file.

use super::format::{push_s16, wav_header_of};
use super::{AudioError, StreamResampler};
use crate::pcm::Pcm;
use crate::units::SampleRate;

impl Pcm {
    /// Another rate; the length is `round(frames · to / from)`.
    ///
    /// # Errors
    /// [`AudioError::Resample`].
    pub fn at(self, rate: SampleRate) -> Result<Self, AudioError> {
        if rate == self.rate {
            return Ok(self);
        }
        let mut resampler = StreamResampler::new(self.rate, rate, self.channels)?;
        let mut pcm = Vec::new();
        resampler.push(&self.pcm, &mut pcm)?;
        resampler.finish(&mut pcm)?;
        Ok(Self { pcm, channels: self.channels, rate })
    }

    /// A 16-bit WAV file of it. Sound above full scale is clipped; see [`Pcm::within_full_scale`].
    pub fn wav(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(44 + self.pcm.len() * 2);
        file.extend(wav_header_of(self.rate.0, self.channels as u16, self.frames() as u64));
        push_s16(&self.pcm, &mut file);
        file
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
    fn a_wav_file_has_its_true_sizes() {
        let file = sound(&[0.5, -0.5, 0.25, 1.0], 2).wav();
        let reader = hound::WavReader::new(std::io::Cursor::new(file)).unwrap();
        assert_eq!((reader.spec().channels, reader.duration()), (2, 2));
        assert!(reader.into_samples::<i16>().map(Result::unwrap).eq([16_384, -16_384, 8192, i16::MAX]));
    }

    #[test]
    fn thirty_seconds_are_thirty_seconds_at_every_rate() {
        for rate in [44_100, 48_000, 22_050, 96_000, 44_056] {
            let piece = Pcm { pcm: vec![0.1; 30 * 32_000], channels: 1, rate: SampleRate(32_000) };
            assert_eq!(piece.at(SampleRate(rate)).unwrap().frames(), 30 * rate as usize);
        }
    }
}
