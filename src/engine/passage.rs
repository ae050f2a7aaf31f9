//! The codes that a piece of sound is made of, on their way to the reader beside it.
//!
//! A chunk brings those frames that its sound needs and that no chunk before it brought: what the
//! reader has taken can then be made again from what it was brought, whatever is cut off behind.

use super::ModelInfo;

/// What a codec makes of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecShape {
    /// [`ModelInfo::codec_fingerprint`].
    pub fingerprint: u64,
    /// Samples per second.
    pub rate: u32,
    /// Channels of its sound.
    pub channels: usize,
    /// Samples per channel and frame.
    pub hop: usize,
    /// Codes of a frame.
    pub codebooks: usize,
    /// Codes are below this.
    pub card: u32,
    /// Frames after a frame without which it cannot be heard.
    pub lookahead: usize,
}

impl From<&ModelInfo> for CodecShape {
    fn from(info: &ModelInfo) -> Self {
        Self {
            fingerprint: info.codec_fingerprint,
            rate: info.sample_rate.0,
            channels: info.channels,
            hop: info.hop,
            codebooks: info.codebooks,
            card: info.card,
            lookahead: info.lookahead,
        }
    }
}

/// Frames of codes that a chunk's sound needs and that no chunk before it brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// What they are codes of.
    pub codec: CodecShape,
    /// Counts beginnings: a reset, or a change to a model with another codec, is a new one. Frames
    /// are counted anew.
    pub run: u32,
    /// Media time, in samples, of the run's frame 0; below that of its first sound where the voice
    /// goes on from a sound that is not heard.
    pub origin: i64,
    /// The first of these frames.
    pub first: u64,
    /// `[frames][codebooks]`, flattened.
    pub codes: Vec<u32>,
}

impl Passage {
    /// The frame behind the last one.
    pub fn end(&self) -> u64 {
        self.first + (self.codes.len() / self.codec.codebooks) as u64
    }

    /// Frames that all sound before media time `sample` needs.
    pub fn needed(codec: &CodecShape, origin: i64, sample: u64) -> u64 {
        let sounding = (sample as i64 - origin).max(0) as u64;
        sounding.div_ceil(codec.hop as u64) + codec.lookahead as u64
    }

    /// Keeps what sound before media time `sample` needs, and gives the rest away.
    pub(super) fn split_off(&mut self, sample: u64) -> Self {
        let keep = Self::needed(&self.codec, self.origin, sample).clamp(self.first, self.end()) - self.first;
        let codes = self.codes.split_off(keep as usize * self.codec.codebooks);
        Self { first: self.first + keep, codes, ..*self }
    }
}
