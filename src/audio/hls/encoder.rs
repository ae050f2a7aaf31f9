//! The encoder of one segment.

use bytes::Bytes;

use super::{PART, Part, Rendition, SEGMENT};
use crate::audio::format::mp3_segments;
use crate::audio::{AudioError, LiveEncoder, OPUS_FRAME, OpusEncoder};

/// Frames that an encoder hears before its segment, so that it has forgotten that it began: 0.48 s,
/// whole packets of every codec. Its slowest part, a filter against direct current at 3 Hz, forgets
/// 99.99 % of it.
const WARM_UP: u64 = 23_040;

/// Encodes the sound of one segment. Any pieces give the same parts.
pub struct SegmentEncoder {
    codec: Codec,
    taker: Taker,
    channels: usize,
    /// Media time of the next frame that it wants.
    wants: u64,
}

enum Codec {
    Opus(OpusEncoder),
    Mp3(Box<dyn LiveEncoder>),
}

/// Gathers the segment's packets into parts.
struct Taker {
    /// Media time of the next packet. Negative before the first segment, where the codec is given
    /// silence.
    at: i64,
    start: u64,
    end: u64,
    packet: u64,
    packets: Vec<Bytes>,
}

impl SegmentEncoder {
    /// The encoder of segment number `segment`, interleaved 48 kHz PCM with 1 or 2 channels.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    pub fn new(rendition: Rendition, channels: usize, segment: u64) -> Result<Self, AudioError> {
        let codec = match rendition {
            Rendition::Opus => {
                let mut opus = OpusEncoder::new(channels, rendition.kbps())?;
                opus.predict_nothing_in(WARM_UP..WARM_UP + OPUS_FRAME as u64);
                Codec::Opus(opus)
            }
            Rendition::Mp3 => Codec::Mp3(mp3_segments(channels, rendition.kbps())?),
        };
        let start = segment * SEGMENT;
        let at = start as i64 - WARM_UP as i64;
        let taker = Taker { at, start, end: start + SEGMENT, packet: rendition.packet(), packets: Vec::new() };
        let (begins, wants) = (begins(rendition, segment), Self::begins(rendition, segment));
        let mut encoder = Self { codec, taker, channels, wants };
        // Before a stream there is silence.
        let silence = vec![0.0; begins.min(0).unsigned_abs() as usize * channels];
        encoder.encode(&silence, &mut |_| ())?;
        Ok(encoder)
    }

    /// Media time of the first frame that the encoder of a segment wants.
    pub fn begins(rendition: Rendition, segment: u64) -> u64 {
        begins(rendition, segment).max(0).unsigned_abs()
    }

    /// The first segment that can be made from sound that begins at a media time.
    pub fn first_from(rendition: Rendition, from: u64) -> u64 {
        let unaligned = (from + WARM_UP).saturating_sub(rendition.delay()).div_ceil(SEGMENT);
        if from == 0 { 0 } else { unaligned }
    }

    /// Takes sound that begins at media time `at`; what lies before the part that it wants is
    /// passed over. Hands over the parts that became full.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    pub fn push(&mut self, at: u64, pcm: &[f32], part: &mut dyn FnMut(Part)) -> Result<(), AudioError> {
        let frames = (pcm.len() / self.channels) as u64;
        let over = self.wants.saturating_sub(at).min(frames);
        self.wants += frames - over;
        self.encode(&pcm[over as usize * self.channels..], part)
    }

    /// The sound ended at media time `end`, within the segment: hands over the last parts.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    pub fn finish(mut self, end: u64, part: &mut dyn FnMut(Part)) -> Result<(), AudioError> {
        self.taker.end = self.taker.end.min(end);
        let silence = vec![0.0; self.taker.packet as usize * self.channels];
        while !self.is_full() {
            self.encode(&silence, part)?;
        }
        Ok(())
    }

    /// Whether all of its parts were handed over.
    pub fn is_full(&self) -> bool {
        self.taker.at >= self.taker.end as i64
    }

    fn encode(&mut self, pcm: &[f32], part: &mut dyn FnMut(Part)) -> Result<(), AudioError> {
        let taker = &mut self.taker;
        match &mut self.codec {
            Codec::Opus(opus) => opus.push(pcm, &mut |packet| taker.take(packet, part)),
            Codec::Mp3(lame) => lame.push(pcm, &mut |packet| taker.take(packet.bytes, part)),
        }
    }
}

fn begins(rendition: Rendition, segment: u64) -> i64 {
    (segment * SEGMENT + rendition.delay()) as i64 - WARM_UP as i64
}

impl Taker {
    fn take(&mut self, packet: &[u8], part: &mut dyn FnMut(Part)) {
        let at = self.at;
        self.at += self.packet as i64;
        if at < self.start as i64 || at >= self.end as i64 {
            return;
        }
        self.packets.push(Bytes::copy_from_slice(packet));
        let end = self.at.unsigned_abs();
        if end.is_multiple_of(PART) || end >= self.end {
            let packets = std::mem::take(&mut self.packets);
            let start = end - packets.len() as u64 * self.packet;
            part(Part { start, frames: end.min(self.end) - start, packet: self.packet, packets });
        }
    }
}
