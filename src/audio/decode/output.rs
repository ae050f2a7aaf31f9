//! Where decoded sound goes: bounded, made finite, and joined when a file is several.

use super::super::AudioError;
use super::unreadable;
use crate::pcm::Pcm;
use crate::units::SampleRate;

/// Seconds of an upload at most.
pub const MAX_SECONDS: f64 = 600.0;
/// Samples of all channels at most (half a gigabyte as `f32`).
const MAX_SAMPLES: usize = 128 << 20;
/// Rates that any producer's tool writes.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// Channels that any recorder has.
const MAX_CHANNELS: usize = 64;
/// Changes of rate or channels in one file: titles of a station's recording, not noise that looks
/// like headers.
const MAX_PARTS: usize = 1000;

/// Rate and channels of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcmSpec {
    /// Frames per second.
    pub rate: u32,
    /// Interleaved channels.
    pub channels: usize,
}

/// Takes interleaved blocks.
pub type Take<'a> = &'a mut dyn FnMut(PcmSpec, &[f32]) -> Result<(), AudioError>;

/// The one way out of every decoder.
pub(super) struct Output<'a> {
    take: Take<'a>,
    limit: f64,
    seconds: f64,
    samples: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(take: Take<'a>, limit: f64) -> Self {
        Self { take, limit, seconds: 0.0, samples: 0 }
    }

    /// Hands a block on, with every sample made finite: one NaN would make all of the music one.
    pub(super) fn push(&mut self, spec: PcmSpec, pcm: &mut [f32]) -> Result<(), AudioError> {
        let PcmSpec { rate, channels } = spec;
        if !RATES.contains(&rate) || !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(unreadable(format!("it claims {channels} channels at {rate} Hz")));
        }
        self.seconds += (pcm.len() / channels) as f64 / f64::from(rate);
        self.samples += pcm.len();
        // Half a frame of MP3 beyond it is no reason to refuse ten minutes.
        if self.seconds > self.limit + 0.1 || self.samples > MAX_SAMPLES {
            return Err(AudioError::TooLong { seconds: self.limit });
        }
        for sample in pcm.iter_mut() {
            *sample = if sample.is_finite() { sample.clamp(-64.0, 64.0) } else { 0.0 };
        }
        if pcm.is_empty() { Ok(()) } else { (self.take)(spec, pcm) }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.samples == 0
    }
}

/// Blocks in memory, as one sound at the end.
#[derive(Debug, Default)]
pub struct Parts {
    parts: Vec<Pcm>,
    samples: usize,
}

impl Parts {
    /// Takes a block.
    ///
    /// # Errors
    /// [`AudioError::TooLong`] beyond the samples of any upload.
    pub fn push(&mut self, spec: PcmSpec, pcm: &[f32]) -> Result<(), AudioError> {
        self.samples += pcm.len();
        if self.samples > MAX_SAMPLES {
            return Err(AudioError::TooLong { seconds: MAX_SECONDS });
        }
        let PcmSpec { rate, channels } = spec;
        if let Some(last) = self.parts.last_mut()
            && (last.rate.0, last.channels) == (rate, channels)
        {
            last.pcm.extend_from_slice(pcm);
            return Ok(());
        }
        if self.parts.len() == MAX_PARTS {
            return Err(unreadable("its rate changes all the time"));
        }
        self.parts.push(Pcm { pcm: pcm.to_vec(), channels, rate: SampleRate(rate) });
        Ok(())
    }

    /// Length.
    pub fn seconds(&self) -> f64 {
        self.parts.iter().map(Pcm::seconds).sum()
    }

    /// All of it, at the rate of the first part and with as many channels as the widest.
    ///
    /// # Errors
    /// [`AudioError::Silent`], [`AudioError::Resample`], [`AudioError::TooLong`].
    pub fn join(self) -> Result<Pcm, AudioError> {
        let channels = self.parts.iter().map(|part| part.channels).max().unwrap_or_default();
        let mut parts = self.parts.into_iter();
        let Some(first) = parts.next() else { return Err(AudioError::Silent) };
        let widened = |part: Pcm| if part.channels == channels { part } else { part.spread(channels) };
        let mut whole = widened(first);
        for part in parts {
            let part = widened(part.at(whole.rate)?);
            if whole.pcm.len() + part.pcm.len() > MAX_SAMPLES {
                return Err(AudioError::TooLong { seconds: MAX_SECONDS });
            }
            whole.pcm.extend(part.pcm);
        }
        Ok(whole)
    }
}
