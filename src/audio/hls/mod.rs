//! HTTP Live Streaming (RFC 8216): sound in segments and parts that begin at fixed multiples of
//! media time.
//!
//! ```text
//! PCM ─► SegmentEncoder, one per segment ─► Part: packets ─► Rendition::mux ─► Muxed: bytes
//! ```
//!
//! Every segment has an encoder of its own that begins a fixed time before it. So its packets
//! depend on the sound there and on nothing else: whoever has that sound makes the same bytes,
//! whenever it begins. The packets at the seams need nothing of those before them, and packets lie
//! exactly at their media time: the codecs' delays are taken off.

mod encoder;
mod fmp4;
mod id3;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::encoder::SegmentEncoder;
use super::{Format, OPUS_FRAME, OPUS_RATE};

/// Frames of a segment: 3 s, a whole number of Opus packets (20 ms) and of MP3 frames (24 ms).
pub const SEGMENT: u64 = OPUS_RATE as u64 * 3;
/// Frames of a part of a segment: 0.6 s, likewise.
pub const PART: u64 = SEGMENT / 5;

/// One way in which the sound is offered; all of them have the same segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rendition {
    /// Opus in fragmented MP4 (CMAF).
    Opus,
    /// MP3 frames as they are, behind an ID3 tag with their time (RFC 8216 section 3.4).
    Mp3,
}

impl Rendition {
    /// All of them; the first is the best.
    pub const ALL: [Self; 2] = [Self::Opus, Self::Mp3];

    /// Those that this build can encode.
    pub fn built() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|rendition| rendition.format().missing_feature().is_none())
    }

    /// Whose name in addresses this is.
    pub fn named(name: &str) -> Option<Self> {
        Self::built().find(|rendition| rendition.name() == name)
    }

    /// Its name in addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Mp3 => "mp3",
        }
    }

    /// What the names of its segments end with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Opus => "m4s",
            Self::Mp3 => "mp3",
        }
    }

    /// The media type of its segments.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Opus => "audio/mp4",
            Self::Mp3 => "audio/mpeg",
        }
    }

    /// Its codec as playlists name it (RFC 6381).
    pub fn codec(self) -> &'static str {
        match self {
            Self::Opus => "Opus",
            Self::Mp3 => "mp4a.40.34",
        }
    }

    /// Bits per second with the container's: of the largest segment at most, and in the mean.
    /// Players that can choose take the most that their line carries: Opus sounds better with less,
    /// so what it may take is said to be more.
    pub fn bandwidth(self) -> (u32, u32) {
        match self {
            Self::Opus => (131_000, 102_000),
            Self::Mp3 => (130_000, 129_000),
        }
    }

    /// What players that read it prefer (`SCORE` of rfc8216bis): Opus, which comes in parts.
    pub fn score(self) -> u32 {
        match self {
            Self::Opus => 2,
            Self::Mp3 => 1,
        }
    }

    /// Whether players are offered parts of segments. hls.js lays every part of packed audio at the
    /// beginning of its segment, so of MP3 only whole segments are.
    pub fn in_parts(self) -> bool {
        matches!(self, Self::Opus)
    }

    /// The segment that players must have before all others, if there is one.
    pub fn init(self, channels: usize) -> Option<Bytes> {
        match self {
            Self::Opus => Some(fmp4::init(channels).into()),
            Self::Mp3 => None,
        }
    }

    /// The bytes of a part, with what plays there: the first title was in force before it, the
    /// others begin within it.
    pub fn mux(self, part: &Part, titles: &[Title]) -> Muxed {
        match self {
            Self::Opus => Muxed { head: Bytes::new(), body: fmp4::fragment(part, titles).into() },
            Self::Mp3 => Muxed { head: id3::packed_head(part, titles).into(), body: part.packets.concat().into() },
        }
    }

    fn format(self) -> Format {
        match self {
            Self::Opus => Format::OGG,
            Self::Mp3 => Format::MP3,
        }
    }

    fn kbps(self) -> u32 {
        self.format().live().map_or(0, |live| live.bit_rates().usual())
    }

    /// Frames of a packet.
    fn packet(self) -> u64 {
        match self {
            Self::Opus => OPUS_FRAME as u64,
            Self::Mp3 => 1152,
        }
    }

    /// Frames by which sound comes later out of a decoder than it went into the encoder.
    fn delay(self) -> u64 {
        match self {
            Self::Opus => 312,
            // 576 of LAME, 529 of every decoder's filter bank.
            Self::Mp3 => 1105,
        }
    }
}

/// Packets that follow each other, within one segment.
#[derive(Debug, Clone)]
pub struct Part {
    /// Media time of the first frame.
    pub start: u64,
    /// Frames of sound; fewer than the packets last at the end of a stream.
    pub frames: u64,
    packet: u64,
    packets: Vec<Bytes>,
}

impl Part {
    /// The segment that it belongs to.
    pub fn segment(&self) -> u64 {
        self.start / SEGMENT
    }

    /// The first one of its segment.
    pub fn is_first(&self) -> bool {
        self.start.is_multiple_of(SEGMENT)
    }

    /// Position after the last frame of sound.
    pub fn end(&self) -> u64 {
        self.start + self.frames
    }
}

/// What plays from a media time on, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title {
    /// Media time, in frames.
    pub at: u64,
    /// The words.
    pub text: String,
}

/// A part in its container. A segment is the head of its first part and the bodies of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Muxed {
    /// What whoever begins here must have first.
    pub head: Bytes,
    /// The rest.
    pub body: Bytes,
}
