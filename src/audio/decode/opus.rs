//! Opus packets of one to 255 channels (RFC 7845): pre-skip and gain as the header has them.

use opus::MSDecoder;

use super::output::PcmSpec;
use super::unreadable;
use crate::audio::{AudioError, OPUS_RATE};

/// Frames of the longest packet, 120 ms.
const LONGEST: usize = 5760;

/// A decoder that drops the pre-skip.
pub(super) struct Opus {
    decoder: MSDecoder,
    channels: usize,
    /// Frames that are still to be dropped.
    skip: usize,
    /// Those that were dropped of the last packet.
    pub skipped: usize,
}

impl Opus {
    /// From an `OpusHead` packet.
    pub(super) fn new(head: &[u8]) -> Result<Self, AudioError> {
        let broken = || unreadable("its Opus header is damaged");
        let channels = usize::from(*head.get(9).ok_or_else(broken)?);
        if !head.starts_with(b"OpusHead") || head.len() < 19 || channels == 0 {
            return Err(broken());
        }
        let (skip, gain) = (u16::from_le_bytes([head[10], head[11]]), i16::from_le_bytes([head[16], head[17]]));
        let (streams, coupled, mapping) = match head[18] {
            0 if channels <= 2 => (1, channels as u8 - 1, vec![0, 1][..channels].to_vec()),
            // Surround, separate channels, ambisonics: each has the same table.
            1 | 2 | 255 => {
                let mapping = head.get(21..21 + channels).ok_or_else(broken)?;
                (head[19], head[20], mapping.to_vec())
            }
            family => return Err(unreadable(format!("its Opus channels are mapped in an unknown way ({family})"))),
        };
        let mut decoder = MSDecoder::new(OPUS_RATE, streams, coupled, &mapping).map_err(unreadable)?;
        decoder.set_gain(gain.into()).map_err(unreadable)?;
        Ok(Self { decoder, channels, skip: skip.into(), skipped: 0 })
    }

    /// Decodes a packet into `pcm`; `None` when it is damaged.
    pub(super) fn decode(&mut self, packet: &[u8], pcm: &mut Vec<f32>) -> Option<PcmSpec> {
        self.skipped = 0;
        // To the library an empty packet is a lost one.
        if packet.is_empty() {
            return None;
        }
        pcm.resize(LONGEST * self.channels, 0.0);
        let frames = self.decoder.decode_float(packet, pcm, false).ok()?;
        pcm.truncate(frames * self.channels);
        self.skipped = self.skip.min(frames);
        self.skip -= self.skipped;
        pcm.drain(..self.skipped * self.channels);
        Some(PcmSpec { rate: OPUS_RATE, channels: self.channels })
    }
}
