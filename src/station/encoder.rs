//! One encoder of a stream: finished PCM in, packets out that any listener may begin with.

use crate::audio::{AudioError, OPUS_FRAME, OpusEncoder, push_s16};
#[cfg(feature = "mp3")]
use crate::audio::{Mp3Encoder, Mp3Frames, Mp3Reservoir, OPUS_RATE};

use super::Format;

/// A packet.
pub(super) struct Encoded<'a> {
    pub(super) bytes: &'a [u8],
    /// What whoever begins with it must be sent first.
    pub(super) lead: Vec<u8>,
    /// Frames of PCM that it lasts.
    pub(super) frames: u64,
}

impl<'a> Encoded<'a> {
    fn alone(bytes: &'a [u8], frames: u64) -> Self {
        Self { bytes, lead: Vec::new(), frames }
    }
}

/// Turns interleaved 48 kHz PCM into packets of one format.
pub(super) struct Encoder {
    codec: Codec,
    channels: usize,
}

enum Codec {
    Ogg(OpusEncoder),
    #[cfg(feature = "mp3")]
    Mp3(Box<Mp3Encoder>, Mp3Frames, Mp3Reservoir),
    Wav,
}

impl Encoder {
    pub(super) fn new(format: Format, kbps: u32, channels: usize) -> Result<Self, AudioError> {
        let codec = match format {
            Format::Ogg => Codec::Ogg(OpusEncoder::new(channels, kbps)?),
            #[cfg(feature = "mp3")]
            Format::Mp3 => {
                let lame = Box::new(Mp3Encoder::new(OPUS_RATE, channels, kbps)?);
                Codec::Mp3(lame, Mp3Frames::default(), Mp3Reservoir::default())
            }
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

    /// Hands over packets.
    pub(super) fn push(&mut self, pcm: &[f32], packet: &mut impl FnMut(Encoded<'_>)) -> Result<(), AudioError> {
        match &mut self.codec {
            Codec::Ogg(opus) => opus.push(pcm, &mut |bytes| packet(Encoded::alone(bytes, OPUS_FRAME as u64))),
            #[cfg(feature = "mp3")]
            Codec::Mp3(lame, frames, reservoir) => {
                lame.push(pcm, frames.buffer())?;
                cut(frames, reservoir, packet);
                Ok(())
            }
            Codec::Wav => {
                let mut bytes = Vec::with_capacity(pcm.len() * 2);
                push_s16(pcm, &mut bytes);
                if !bytes.is_empty() {
                    packet(Encoded::alone(&bytes, (pcm.len() / self.channels) as u64));
                }
                Ok(())
            }
        }
    }

    /// Hands over the last packets. Returns the exact end of the sound if it lies within the last packet.
    pub(super) fn finish(&mut self, packet: &mut impl FnMut(Encoded<'_>)) -> Result<Option<u64>, AudioError> {
        match &mut self.codec {
            Codec::Ogg(opus) => {
                opus.finish(&mut |bytes| packet(Encoded::alone(bytes, OPUS_FRAME as u64)))?;
                Ok(Some(opus.end()))
            }
            #[cfg(feature = "mp3")]
            Codec::Mp3(lame, frames, reservoir) => {
                lame.finish(frames.buffer())?;
                cut(frames, reservoir, packet);
                Ok(None)
            }
            Codec::Wav => Ok(None),
        }
    }
}

#[cfg(feature = "mp3")]
fn cut(frames: &mut Mp3Frames, reservoir: &mut Mp3Reservoir, packet: &mut impl FnMut(Encoded<'_>)) {
    frames.cut(&mut |bytes| {
        let lead = reservoir.pass(bytes);
        packet(Encoded { bytes, lead, frames: Mp3Frames::SAMPLES });
    });
}
