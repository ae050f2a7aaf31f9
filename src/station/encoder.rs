//! One encoder of a stream: finished PCM in, packets out that any listener may begin with.

use crate::audio::{AudioError, OPUS_FRAME, OpusEncoder, push_s16};
#[cfg(feature = "mp3")]
use crate::audio::{Mp3Encoder, Mp3Frames, OPUS_RATE};

use super::Format;

/// Turns interleaved 48 kHz PCM into packets of one format.
pub(super) struct Encoder {
    codec: Codec,
    channels: usize,
}

enum Codec {
    Ogg(OpusEncoder),
    #[cfg(feature = "mp3")]
    Mp3(Mp3Encoder, Mp3Frames),
    Wav,
}

impl Encoder {
    pub(super) fn new(format: Format, kbps: u32, channels: usize) -> Result<Self, AudioError> {
        let codec = match format {
            Format::Ogg => Codec::Ogg(OpusEncoder::new(channels, kbps)?),
            #[cfg(feature = "mp3")]
            Format::Mp3 => Codec::Mp3(Mp3Encoder::new(OPUS_RATE, channels, kbps)?, Mp3Frames::default()),
            #[cfg(not(feature = "mp3"))]
            Format::Mp3 => return Err(AudioError::NoMp3),
            Format::Wav => Codec::Wav,
        };
        Ok(Self { codec, channels })
    }

    /// Frames that a decoder drops at the start (Opus).
    pub(super) fn pre_skip(&self) -> u64 {
        match &self.codec {
            Codec::Ogg(opus) => opus.pre_skip(),
            _ => 0,
        }
    }

    /// Hands over packets as (bytes, frames of PCM that they last).
    pub(super) fn push(&mut self, pcm: &[f32], packet: &mut impl FnMut(&[u8], u64)) -> Result<(), AudioError> {
        match &mut self.codec {
            Codec::Ogg(opus) => opus.push(pcm, &mut |bytes| packet(bytes, OPUS_FRAME as u64)),
            #[cfg(feature = "mp3")]
            Codec::Mp3(lame, frames) => {
                lame.push(pcm, frames.buffer())?;
                frames.cut(&mut |bytes| packet(bytes, Mp3Frames::SAMPLES));
                Ok(())
            }
            Codec::Wav => {
                let mut bytes = Vec::with_capacity(pcm.len() * 2);
                push_s16(pcm, &mut bytes);
                if !bytes.is_empty() {
                    packet(&bytes, (pcm.len() / self.channels) as u64);
                }
                Ok(())
            }
        }
    }

    /// Hands over the last packets. Returns the exact end of the sound if it lies within the last packet.
    pub(super) fn finish(&mut self, packet: &mut impl FnMut(&[u8], u64)) -> Result<Option<u64>, AudioError> {
        match &mut self.codec {
            Codec::Ogg(opus) => {
                opus.finish(&mut |bytes| packet(bytes, OPUS_FRAME as u64))?;
                Ok(Some(opus.end()))
            }
            #[cfg(feature = "mp3")]
            Codec::Mp3(lame, frames) => {
                lame.finish(frames.buffer())?;
                frames.cut(&mut |bytes| packet(bytes, Mp3Frames::SAMPLES));
                Ok(None)
            }
            Codec::Wav => Ok(None),
        }
    }
}
