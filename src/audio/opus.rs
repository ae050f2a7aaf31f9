//! Opus encoding of a live signal: 48 kHz, 20 ms packets, constrained VBR.

use std::ops::Range;

use opus::{Application, Bitrate, Channels, Encoder, Signal};

use super::AudioError;

/// The only rate that Opus granule positions know.
pub const OPUS_RATE: u32 = 48_000;
/// Frames of PCM per packet: 20 ms.
pub const OPUS_FRAME: usize = 960;

/// The best: music is coded by CELT alone, where level 10 costs no measurable time more than level
/// 5 (about 1 % of a core per stream).
const COMPLEXITY: i32 = 10;
/// The largest packet that libopus makes of one frame.
const MAX_PACKET: usize = 1275;

/// Encodes interleaved PCM of 48 kHz.
pub struct OpusEncoder {
    encoder: Encoder,
    channels: usize,
    lookahead: usize,
    pending: Vec<f32>,
    /// Frames taken, and frames put into packets.
    taken: u64,
    packed: u64,
    /// Packets that begin here predict nothing.
    alone: Range<u64>,
}

impl OpusEncoder {
    /// An encoder for 1 or 2 channels at about `kbps` kbit/s.
    ///
    /// # Errors
    /// [`AudioError::Opus`] for parameters that libopus does not take.
    pub fn new(channels: usize, kbps: u32) -> Result<Self, AudioError> {
        let layout = if channels == 1 { Channels::Mono } else { Channels::Stereo };
        let create = || {
            let mut encoder = Encoder::new(OPUS_RATE, layout, Application::Audio)?;
            encoder.set_bitrate(Bitrate::Bits(kbps as i32 * 1000))?;
            encoder.set_vbr(true)?;
            encoder.set_vbr_constraint(true)?;
            encoder.set_signal(Signal::Music)?;
            encoder.set_complexity(COMPLEXITY)?;
            let lookahead = encoder.get_lookahead()?;
            Ok((encoder, usize::try_from(lookahead).unwrap_or(0)))
        };
        let (encoder, lookahead) = create().map_err(Self::error)?;
        Ok(Self { encoder, channels, lookahead, pending: Vec::new(), taken: 0, packed: 0, alone: 0..0 })
    }

    /// Lets the packets that begin within some frames predict nothing from those before them, so
    /// that each of them may follow another encoder's packets.
    pub fn predict_nothing_in(&mut self, frames: Range<u64>) {
        self.alone = frames;
    }

    /// Frames that a decoder must drop at the start: the encoder's own delay.
    pub fn pre_skip(&self) -> u64 {
        self.lookahead as u64
    }

    /// Position after the last frame of real sound, on the decoder's time line; final after
    /// [`OpusEncoder::finish`].
    pub fn end(&self) -> u64 {
        self.taken + self.pre_skip()
    }

    /// Takes PCM and hands every packet that became full to `packet`.
    ///
    /// # Errors
    /// [`AudioError::Opus`].
    pub fn push(&mut self, pcm: &[f32], packet: &mut impl FnMut(&[u8])) -> Result<(), AudioError> {
        self.taken += (pcm.len() / self.channels) as u64;
        self.feed(pcm, packet)
    }

    /// Encodes what is left, and silence until the last frame has come out of the decoder: at least
    /// one packet.
    ///
    /// # Errors
    /// [`AudioError::Opus`].
    pub fn finish(&mut self, packet: &mut impl FnMut(&[u8])) -> Result<(), AudioError> {
        let missing = (self.end() - self.packed).max(1).next_multiple_of(OPUS_FRAME as u64);
        let silence = vec![0.0; missing as usize * self.channels - self.pending.len()];
        self.feed(&silence, packet)
    }

    fn feed(&mut self, pcm: &[f32], packet: &mut impl FnMut(&[u8])) -> Result<(), AudioError> {
        self.pending.extend_from_slice(pcm);
        let (size, mut used) = (OPUS_FRAME * self.channels, 0);
        let mut bytes = [0; MAX_PACKET];
        while self.pending.len() - used >= size {
            let frame = &self.pending[used..used + size];
            if self.packed <= self.alone.end && !self.alone.is_empty() {
                self.encoder.set_prediction_disabled(self.alone.contains(&self.packed)).map_err(Self::error)?;
            }
            let length = self.encoder.encode_float(frame, &mut bytes).map_err(Self::error)?;
            packet(&bytes[..length]);
            used += size;
            self.packed += OPUS_FRAME as u64;
        }
        self.pending.drain(..used);
        Ok(())
    }

    fn error(error: opus::Error) -> AudioError {
        AudioError::Opus(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_frame_of_sound_comes_out_of_the_decoder() {
        for frames in [1, 647, 648, 649, 960, 5000] {
            let mut encoder = OpusEncoder::new(1, 96).unwrap();
            let mut decoder = opus::Decoder::new(OPUS_RATE, Channels::Mono).unwrap();
            let pcm: Vec<f32> = (0..frames).map(|n| (n as f32 * 0.1).sin() * 0.5).collect();
            let mut decoded = Vec::new();
            let mut decode = |packet: &[u8]| {
                let mut out = [0.0; OPUS_FRAME];
                assert_eq!(decoder.decode_float(packet, &mut out, false).unwrap(), OPUS_FRAME);
                decoded.extend_from_slice(&out);
            };
            encoder.push(&pcm, &mut decode).unwrap();
            encoder.finish(&mut decode).unwrap();
            assert!(decoded.len() as u64 >= encoder.end(), "{frames} frames");
            assert!((decoded.len() as u64) < encoder.end() + OPUS_FRAME as u64, "{frames} frames");
            if frames == 5000 {
                let skip = encoder.pre_skip() as usize;
                let error: f32 = pcm[960..4800].iter().zip(&decoded[960 + skip..]).map(|(a, b)| (a - b).powi(2)).sum();
                assert!((error / 3840.0).sqrt() < 0.02, "decoded sound is shifted or wrong: {error}");
            }
        }
    }
}
