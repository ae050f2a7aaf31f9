//! WAV of 16-bit samples: whole, and for a receiver that cannot be rewound.

use std::io::Cursor;

use bytes::Bytes;

use super::live::PlainPage;
use super::{
    About, BeginFile, BitRates, Encoded, FormatSpec, LiveEncoder, LiveFormat, LongEnd, LongFile, Packet, PageBody,
    Received, Span, StreamingFile, in_memory,
};
use crate::audio::{AudioError, OPUS_RATE};
use crate::units::SampleRate;

pub(super) struct Wav;

impl FormatSpec for Wav {
    fn names(&self) -> &'static [&'static str] {
        &["wav"]
    }

    fn media_type(&self) -> &'static str {
        "audio/wav"
    }

    fn most_channels(&self) -> usize {
        u16::MAX.into()
    }

    fn file(&self, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
        let mut file = Cursor::new(Vec::new());
        let spec = hound::WavSpec {
            channels: channels as u16,
            sample_rate: rate.0,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut write = || {
            let mut writer = hound::WavWriter::new(&mut file, spec)?;
            pcm.iter().try_for_each(|&sample| writer.write_sample(s16(sample)))?;
            writer.finalize()
        };
        write().map_err(in_memory)?;
        Ok(file.into_inner())
    }

    fn long(&self, channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
        Ok(Box::new(Long { channels, frames: 0 }))
    }

    fn preview(&self) -> Option<BeginFile> {
        Some(|rate, channels| Ok(Box::new(OpenEnded { header: wav_header(rate.0, channels as u16).to_vec() })))
    }

    fn live(&self) -> Option<&'static dyn LiveFormat> {
        Some(&Self)
    }
}

/// A file whose sizes say "until the end".
struct OpenEnded {
    header: Vec<u8>,
}

impl StreamingFile for OpenEnded {
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        let mut bytes = std::mem::take(&mut self.header);
        push_s16(pcm, &mut bytes);
        Ok(bytes)
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, AudioError> {
        Ok(self.header)
    }
}

/// A file whose sizes are written at the end.
struct Long {
    channels: usize,
    frames: u64,
}

impl LongFile for Long {
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        let mut bytes =
            if self.frames == 0 { wav_header(OPUS_RATE, self.channels as u16).to_vec() } else { Vec::new() };
        self.frames += (pcm.len() / self.channels) as u64;
        push_s16(pcm, &mut bytes);
        Ok(bytes)
    }

    fn finish(self: Box<Self>) -> Result<LongEnd, AudioError> {
        let head = wav_header_of(OPUS_RATE, self.channels as u16, self.frames).to_vec();
        Ok(LongEnd { rest: Vec::new(), head })
    }
}

impl LiveFormat for Wav {
    fn bit_rates(&self) -> BitRates {
        BitRates::None
    }

    fn encoder(&self, channels: usize, _kbps: u32) -> Result<Box<dyn LiveEncoder>, AudioError> {
        Ok(Box::new(Samples { channels }))
    }

    fn packet_frames(&self) -> u64 {
        1
    }

    fn cut(&self, packet: &Packet, frames: u64) -> Option<Packet> {
        let size = packet.bytes.len() / packet.frames.max(1) as usize;
        let bytes = packet.bytes.slice((frames as usize * size).min(packet.bytes.len())..);
        let (start, frames) = (packet.start + frames, packet.frames.saturating_sub(frames));
        Some(Packet { bytes, start, frames, ..packet.clone() })
    }

    fn page(&self, packets: &[Packet], _at: Span) -> Box<dyn PageBody> {
        Box::new(Body(PlainPage::of(packets)))
    }
}

/// A packet is a block as it comes.
struct Samples {
    channels: usize,
}

impl LiveEncoder for Samples {
    fn push(&mut self, pcm: &[f32], packet: &mut dyn FnMut(Encoded<'_>)) -> Result<(), AudioError> {
        let mut bytes = Vec::with_capacity(pcm.len() * 2);
        push_s16(pcm, &mut bytes);
        if !bytes.is_empty() {
            let frames = (pcm.len() / self.channels) as u64;
            packet(Encoded { bytes: &bytes, lead: Vec::new(), skip: 0, frames });
        }
        Ok(())
    }

    fn finish(&mut self, _packet: &mut dyn FnMut(Encoded<'_>)) -> Result<Option<u64>, AudioError> {
        Ok(None)
    }
}

#[derive(Debug)]
struct Body(PlainPage);

impl PageBody for Body {
    fn head(&self, at: Span, _listener: &Received, about: &About) -> Option<Bytes> {
        let channels = about.channels as u16;
        let header = match about.length {
            Some(frames) => wav_header_of(OPUS_RATE, channels, frames.saturating_sub(at.start)),
            None => wav_header(OPUS_RATE, channels),
        };
        Some(Bytes::copy_from_slice(&header))
    }

    fn bytes(&self, at: Span, listener: &Received) -> (Bytes, Option<Bytes>) {
        self.0.bytes(at, listener)
    }
}

/// The 44 bytes before the samples. The sizes are 0xFFFFFFFF, which players read as "until the
/// end".
pub(in crate::audio) fn wav_header(rate: u32, channels: u16) -> [u8; 44] {
    let frame_bytes = channels * 2;
    let mut header = [0xff; 44];
    header[..4].copy_from_slice(b"RIFF");
    header[8..16].copy_from_slice(b"WAVEfmt ");
    header[16..20].copy_from_slice(&16u32.to_le_bytes());
    header[20..22].copy_from_slice(&1u16.to_le_bytes());
    header[22..24].copy_from_slice(&channels.to_le_bytes());
    header[24..28].copy_from_slice(&rate.to_le_bytes());
    header[28..32].copy_from_slice(&(rate * u32::from(frame_bytes)).to_le_bytes());
    header[32..34].copy_from_slice(&frame_bytes.to_le_bytes());
    header[34..36].copy_from_slice(&16u16.to_le_bytes());
    header[36..40].copy_from_slice(b"data");
    header
}

/// The same for `frames` frames of sound; more of them than the format can count are "until the
/// end".
pub(in crate::audio) fn wav_header_of(rate: u32, channels: u16, frames: u64) -> [u8; 44] {
    let mut header = wav_header(rate, channels);
    let bytes = frames.checked_mul(2 * u64::from(channels)).and_then(|bytes| u32::try_from(bytes).ok());
    if let Some((bytes, all)) = bytes.and_then(|bytes| Some((bytes, bytes.checked_add(36)?))) {
        header[4..8].copy_from_slice(&all.to_le_bytes());
        header[40..44].copy_from_slice(&bytes.to_le_bytes());
    }
    header
}

/// Appends `pcm` as little-endian 16-bit samples; what is above full scale is clipped.
pub(in crate::audio) fn push_s16(pcm: &[f32], out: &mut Vec<u8>) {
    out.extend(pcm.iter().flat_map(|&sample| s16(sample).to_le_bytes()));
}

pub(in crate::audio) fn s16(sample: f32) -> i16 {
    // `as` saturates, so full scale and above become the largest value.
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn samples_are_clipped_not_wrapped() {
        let mut bytes = Vec::new();
        push_s16(&[0.0, 0.5, 1.5, -1.5], &mut bytes);
        let samples: Vec<i16> = bytes.chunks(2).map(|b| i16::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(samples, [0, 16_384, i16::MAX, i16::MIN]);
    }

    #[test]
    fn a_length_that_the_header_cannot_hold_stays_open() {
        assert_eq!(wav_header_of(48_000, 2, 1 << 30), wav_header(48_000, 2));
        assert_eq!(wav_header_of(48_000, 2, 3)[40..], 12u32.to_le_bytes());
    }

    #[test]
    fn the_header_is_read_by_another_reader() {
        let mut file = wav_header(48_000, 2).to_vec();
        file[40..44].copy_from_slice(&8u32.to_le_bytes());
        file.extend_from_slice(&[0; 8]);
        let reader = hound::WavReader::new(std::io::Cursor::new(file)).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels, reader.len()), (48_000, 2, 4));
    }
}
