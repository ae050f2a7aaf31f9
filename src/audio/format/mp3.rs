//! MP3 (MPEG-1 layer III), through LAME where this build has it.

#[cfg(feature = "mp3")]
mod lame;

use super::live::PlainPage;
use super::{BitRates, FormatSpec, LiveEncoder, LiveFormat, LongFile, Packet, PageBody, Span, at_48k};
use crate::audio::{AudioError, OPUS_RATE};
use crate::units::SampleRate;

#[cfg(feature = "mp3")]
pub use self::lame::Mp3Encoder;

/// Bit rate of whole files.
const FILE_KBPS: u32 = 192;

pub(super) struct Mp3;

impl FormatSpec for Mp3 {
    fn names(&self) -> &'static [&'static str] {
        &["mp3"]
    }

    fn media_type(&self) -> &'static str {
        "audio/mpeg"
    }

    fn missing_feature(&self) -> Option<&'static str> {
        if cfg!(feature = "mp3") { None } else { Some("mp3") }
    }

    fn file(&self, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
        mp3_file(&at_48k(pcm, rate, channels)?, SampleRate(OPUS_RATE), channels, FILE_KBPS)
    }

    fn long(&self, channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
        long(channels)
    }

    fn live(&self) -> Option<&'static dyn LiveFormat> {
        Some(&Self)
    }
}

impl LiveFormat for Mp3 {
    fn bit_rates(&self) -> BitRates {
        BitRates::Among { known: &[48, 64, 80, 96, 112, 128, 160, 192, 224, 256], usual: 128 }
    }

    fn encoder(&self, channels: usize, kbps: u32) -> Result<Box<dyn LiveEncoder>, AudioError> {
        encoder(channels, kbps, false)
    }

    fn follower(&self, channels: usize, kbps: u32, _frames: u64) -> Result<Box<dyn LiveEncoder>, AudioError> {
        encoder(channels, kbps, true)
    }

    fn packet_frames(&self) -> u64 {
        1152
    }

    fn page(&self, packets: &[Packet], _at: Span) -> Box<dyn PageBody> {
        Box::new(PlainPage::of(packets))
    }

    fn carries_titles(&self) -> bool {
        true
    }
}

/// A whole file at a rate and a bit rate of its own.
///
/// # Errors
/// [`AudioError::Mp3`], [`AudioError::NoEncoder`].
#[cfg(feature = "mp3")]
pub fn mp3_file(pcm: &[f32], rate: SampleRate, channels: usize, kbps: u32) -> Result<Vec<u8>, AudioError> {
    Mp3Encoder::file(pcm, rate.0, channels, kbps)
}

/// This build has none.
///
/// # Errors
/// [`AudioError::NoEncoder`].
#[cfg(not(feature = "mp3"))]
pub fn mp3_file(_pcm: &[f32], _rate: SampleRate, _channels: usize, _kbps: u32) -> Result<Vec<u8>, AudioError> {
    Err(AudioError::NoEncoder(super::Format::MP3))
}

/// An encoder whose frames need nothing of those before them.
pub(in crate::audio) fn mp3_segments(channels: usize, kbps: u32) -> Result<Box<dyn LiveEncoder>, AudioError> {
    encoder(channels, kbps, true)
}

#[cfg(feature = "mp3")]
fn encoder(channels: usize, kbps: u32, independent: bool) -> Result<Box<dyn LiveEncoder>, AudioError> {
    let new = if independent { lame::Live::segments } else { lame::Live::new };
    Ok(Box::new(new(OPUS_RATE, channels, kbps)?))
}

#[cfg(feature = "mp3")]
fn long(channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
    Ok(Box::new(lame::Long::new(OPUS_RATE, channels, FILE_KBPS)?))
}

#[cfg(not(feature = "mp3"))]
fn long(_channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
    Err(AudioError::NoEncoder(super::Format::MP3))
}

#[cfg(not(feature = "mp3"))]
fn encoder(_channels: usize, _kbps: u32, _independent: bool) -> Result<Box<dyn LiveEncoder>, AudioError> {
    Err(AudioError::NoEncoder(super::Format::MP3))
}
