//! A file that is sent while its sound is still being made: WAV with open sizes, or Ogg Opus.

use ogg::writing::{PacketWriteEndInfo, PacketWriter};

use super::{ogg as pages, push_s16, wav_header};
use crate::audio::{AudioError, OPUS_FRAME, OPUS_RATE, OpusEncoder, StreamResampler};
use crate::units::SampleRate;

/// A player sees one file at a time, so a fixed serial number is as good as a random one.
const SERIAL: u32 = 0x636f_6e74;
/// Packets of a page: one second, so that players can seek.
const PAGE: u64 = 50;

/// Interleaved PCM in, bytes of one file out, in order.
pub struct GrowingFile {
    container: Container,
    bytes: Vec<u8>,
}

enum Container {
    Wav,
    Ogg(Box<OggOpus>),
}

impl GrowingFile {
    /// 16-bit WAV whose sizes say "until the end".
    pub fn wav(rate: SampleRate, channels: usize) -> Self {
        Self { container: Container::Wav, bytes: wav_header(rate.0, channels as u16).to_vec() }
    }

    /// Ogg Opus of about `kbps` kbit/s, of 1 or 2 channels.
    ///
    /// # Errors
    /// [`AudioError::Opus`], [`AudioError::Resample`].
    pub fn ogg(rate: SampleRate, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        let ogg = Box::new(OggOpus::new(rate, channels, kbps)?);
        Ok(Self { container: Container::Ogg(ogg), bytes: Vec::new() })
    }

    /// Takes sound, and gives the bytes that became final.
    ///
    /// # Errors
    /// As [`GrowingFile::ogg`].
    pub fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        match &mut self.container {
            Container::Wav => push_s16(pcm, &mut self.bytes),
            Container::Ogg(ogg) => self.bytes.append(&mut ogg.push(pcm)?),
        }
        Ok(std::mem::take(&mut self.bytes))
    }

    /// Gives the rest.
    ///
    /// # Errors
    /// As [`GrowingFile::ogg`].
    pub fn finish(mut self) -> Result<Vec<u8>, AudioError> {
        if let Container::Ogg(ogg) = self.container {
            self.bytes.append(&mut ogg.finish()?);
        }
        Ok(self.bytes)
    }
}

struct OggOpus {
    resampler: StreamResampler,
    encoder: OpusEncoder,
    writer: PacketWriter<'static, Vec<u8>>,
    /// The latest packet: whether it is the last is known when the next one comes.
    held: Option<Vec<u8>>,
    /// Packets written.
    written: u64,
}

impl OggOpus {
    fn new(rate: SampleRate, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        let encoder = OpusEncoder::new(channels, kbps)?;
        let pre_skip = encoder.pre_skip() as u16;
        let head = pages::StreamHead { serial: SERIAL, channels: channels as u8, pre_skip, input_rate: rate.0 };
        let mut writer = PacketWriter::new(Vec::new());
        for packet in [head.packet(), pages::opus_tags(&[])] {
            writer.write_packet(packet, SERIAL, PacketWriteEndInfo::EndPage, 0).map_err(in_memory)?;
        }
        let resampler = StreamResampler::new(rate, SampleRate(OPUS_RATE), channels)?;
        Ok(Self { resampler, encoder, writer, held: None, written: 0 })
    }

    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        let (mut sound, mut packets) = (Vec::new(), Vec::new());
        self.resampler.push(pcm, &mut sound)?;
        self.encoder.push(&sound, &mut |packet| packets.push(packet.to_vec()))?;
        self.write(packets)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    fn finish(mut self) -> Result<Vec<u8>, AudioError> {
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

/// Writing to memory fails only when a container's size field overflows.
pub(super) fn in_memory(source: std::io::Error) -> AudioError {
    AudioError::Write { path: "the file in memory".into(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_pieces_give_the_same_file_of_the_right_length() {
        let pcm: Vec<f32> = (0..2 * 44_100 * 3).map(|n| ((n / 2) as f32 * 0.05).sin() * 0.4).collect();
        let rate = SampleRate(44_100);
        for begin in [|rate| GrowingFile::ogg(rate, 2, 96), |rate| Ok(GrowingFile::wav(rate, 2))] {
            let made = |piece: usize| {
                let mut file = begin(rate).unwrap();
                let mut bytes: Vec<u8> = pcm.chunks(piece).flat_map(|piece| file.push(piece).unwrap()).collect();
                bytes.extend(file.finish().unwrap());
                bytes
            };
            let file = made(pcm.len());
            assert!(made(2) == file && made(5000) == file);
            let sound = crate::audio::decode(&file).unwrap();
            assert!((sound.seconds() - 3.0).abs() < 1e-3 && sound.channels == 2, "{} s", sound.seconds());
        }
    }

    #[test]
    fn sound_leaves_before_the_end() {
        let mut file = GrowingFile::ogg(SampleRate(32_000), 1, 96).unwrap();
        assert!(file.push(&vec![0.1; 2 * 32_000]).unwrap().len() > 500);
        let empty = GrowingFile::ogg(SampleRate(32_000), 1, 96).unwrap().finish().unwrap();
        assert!(empty.starts_with(b"OggS"));
    }
}
