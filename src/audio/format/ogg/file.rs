//! Ogg Opus as a file, whole or sent while its sound is still being made.

use ogg::writing::{PacketWriteEndInfo, PacketWriter};

use super::page::{StreamHead, opus_tags};
use crate::audio::format::{StreamingFile, in_memory};
use crate::audio::{AudioError, OPUS_FRAME, OPUS_RATE, OpusEncoder, StreamResampler};
use crate::units::SampleRate;

/// A player sees one file at a time, so a fixed serial number is as good as a random one.
const SERIAL: u32 = 0x636f_6e74;
/// Packets of a page: one second, so that players can seek.
const PAGE: u64 = 50;

/// See [`StreamingFile`].
pub(super) struct OggFile {
    resampler: StreamResampler,
    encoder: OpusEncoder,
    writer: PacketWriter<'static, Vec<u8>>,
    /// The latest packet: whether it is the last is known when the next one comes.
    held: Option<Vec<u8>>,
    /// Packets written.
    written: u64,
}

impl OggFile {
    /// A file of about `kbps` kbit/s, of 1 or 2 channels.
    pub(super) fn new(rate: SampleRate, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        let encoder = OpusEncoder::new(channels, kbps)?;
        let pre_skip = encoder.pre_skip() as u16;
        let head = StreamHead { serial: SERIAL, channels: channels as u8, pre_skip, input_rate: rate.0 };
        let mut writer = PacketWriter::new(Vec::new());
        for packet in [head.packet(), opus_tags(&[])] {
            writer.write_packet(packet, SERIAL, PacketWriteEndInfo::EndPage, 0).map_err(in_memory)?;
        }
        let resampler = StreamResampler::new(rate, SampleRate(OPUS_RATE), channels)?;
        Ok(Self { resampler, encoder, writer, held: None, written: 0 })
    }

    fn write(&mut self, packets: Vec<Vec<u8>>) -> Result<(), AudioError> {
        for packet in packets {
            let Some(packet) = self.held.replace(packet) else { continue };
            self.written += 1;
            let info = match self.written % PAGE {
                0 => PacketWriteEndInfo::EndPage,
                _ => PacketWriteEndInfo::NormalPacket,
            };
            let granule = self.written * OPUS_FRAME as u64;
            self.writer.write_packet(packet, SERIAL, info, granule).map_err(in_memory)?;
        }
        Ok(())
    }
}

impl StreamingFile for OggFile {
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        let (mut sound, mut packets) = (Vec::new(), Vec::new());
        self.resampler.push(pcm, &mut sound)?;
        self.encoder.push(&sound, &mut |packet| packets.push(packet.to_vec()))?;
        self.write(packets)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<u8>, AudioError> {
        let (mut sound, mut packets) = (Vec::new(), Vec::new());
        self.resampler.finish(&mut sound)?;
        self.encoder.push(&sound, &mut |packet| packets.push(packet.to_vec()))?;
        self.encoder.finish(&mut |packet| packets.push(packet.to_vec()))?;
        self.write(packets)?;
        if let Some(last) = self.held.take() {
            let end = self.encoder.end();
            self.writer.write_packet(last, SERIAL, PacketWriteEndInfo::EndStream, end).map_err(in_memory)?;
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sound_leaves_before_the_end() {
        let mut file = OggFile::new(SampleRate(32_000), 1, 96).unwrap();
        assert!(file.push(&vec![0.1; 2 * 32_000]).unwrap().len() > 500);
        let empty = Box::new(OggFile::new(SampleRate(32_000), 1, 96).unwrap()).finish().unwrap();
        assert!(empty.starts_with(b"OggS"));
    }
}
