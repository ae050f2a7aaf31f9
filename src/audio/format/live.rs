//! How streams are sent: one encoder for all who listen alike, pages that all of them share, and
//! what each listener needs of its own.
//!
//! ```text
//! PCM ─► LiveEncoder ─► packets with their place in media time ─► LiveFormat::page ─► PageBody
//!                       any of them can be the first one                                 │
//!                                   Received (of one listener) ─► its bytes ◄────────────┘
//! ```
//!
//! Packets know their media time and what whoever begins with them needs, so they can be cut
//! anywhere: into pages of a fraction of a second, or into segments at fixed multiples of media
//! time, as HLS wants them (an initialisation segment is then the head, a timestamp belongs to the
//! body).

use std::fmt::{self, Debug, Display};

use bytes::Bytes;

use crate::audio::AudioError;
use crate::units::SampleRate;

/// A format that streams are sent in.
pub trait LiveFormat: Sync {
    /// What a client may ask for.
    fn bit_rates(&self) -> BitRates;

    /// An encoder of interleaved 48 kHz PCM with 1 or 2 channels; `kbps` is one of
    /// [`LiveFormat::bit_rates`].
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn encoder(&self, channels: usize, kbps: u32) -> Result<Box<dyn LiveEncoder>, AudioError>;

    /// The same, for whoever was sent packets of another encoder of the same sound on the same
    /// grid: each packet that begins within the first `frames` frames may follow those.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn follower(&self, channels: usize, kbps: u32, _frames: u64) -> Result<Box<dyn LiveEncoder>, AudioError> {
        self.encoder(channels, kbps)
    }

    /// Frames of a packet; 1 where a packet may begin with any frame.
    fn packet_frames(&self) -> u64;

    /// What a packet has behind its first frames, where it can be cut.
    fn cut(&self, _packet: &Packet, _frames: u64) -> Option<Packet> {
        None
    }

    /// Makes a page of packets that follow each other; there is at least one.
    fn page(&self, packets: &[Packet], at: Span) -> Box<dyn PageBody>;

    /// How many of these bytes of a stream, from the beginning of one on, are whole pages, where a
    /// page must not be cut.
    fn whole(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    /// Whether players know how to find titles between the bytes (Shoutcast).
    fn carries_titles(&self) -> bool {
        false
    }
}

/// Finished PCM in, packets out.
pub trait LiveEncoder: Send {
    /// Hands over the packets that became full.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn push(&mut self, pcm: &[f32], packet: &mut dyn FnMut(Encoded<'_>)) -> Result<(), AudioError>;

    /// Hands over the last packets. Returns how many frames all packets are worth, if the sound
    /// ends within the last one.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn finish(&mut self, packet: &mut dyn FnMut(Encoded<'_>)) -> Result<Option<u64>, AudioError>;
}

/// A packet as its encoder hands it over.
#[derive(Debug)]
pub struct Encoded<'a> {
    /// The packet.
    pub bytes: &'a [u8],
    /// What whoever begins with it must be sent first.
    pub lead: Vec<u8>,
    /// Frames that a decoder which begins with it must drop.
    pub skip: u64,
    /// Frames of PCM that it lasts.
    pub frames: u64,
}

/// A packet with its place in the stream.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The packet.
    pub bytes: Bytes,
    /// What whoever begins with it must be sent first.
    pub lead: Bytes,
    /// Frames that a decoder which begins with it must drop.
    pub skip: u64,
    /// Media time of its first frame.
    pub start: u64,
    /// Frames of PCM that it lasts.
    pub frames: u64,
}

impl Packet {
    pub(crate) fn new(encoded: Encoded<'_>, start: u64) -> Self {
        let Encoded { bytes, lead, skip, frames } = encoded;
        Self { bytes: Bytes::copy_from_slice(bytes), lead: lead.into(), skip, start, frames }
    }
}

/// A page's place in the stream, in frames of media time.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// First frame.
    pub start: u64,
    /// Position after the last frame of sound.
    pub end: u64,
    /// Nothing follows.
    pub last: bool,
}

impl Span {
    /// Frames of sound.
    pub fn frames(self) -> u64 {
        self.end - self.start
    }
}

/// Bytes of a page, for any number of listeners.
pub trait PageBody: Debug + Send + Sync {
    /// Headers for whoever begins with this page.
    fn head(&self, _at: Span, _listener: &Received, _about: &About) -> Option<Bytes> {
        None
    }

    /// The page's bytes for one listener, in one or two pieces.
    fn bytes(&self, at: Span, listener: &Received) -> (Bytes, Option<Bytes>);
}

/// What one listener was sent so far.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Tells its stream from others.
    pub serial: u32,
    /// Pages.
    pub pages: u32,
    /// Frames of sound in them.
    pub frames: u64,
    /// Where the latest ended.
    pub end: Option<u64>,
}

impl Received {
    /// Nothing yet.
    pub fn nothing(serial: u32) -> Self {
        Self { serial, pages: 0, frames: 0, end: None }
    }

    /// Counts a page that goes out.
    pub fn count(&mut self, at: Span) {
        self.pages += 1;
        self.frames += at.frames();
        self.end = Some(at.end);
    }
}

/// What headers say of a stream.
#[derive(Debug, Clone)]
pub struct About {
    /// 1 or 2.
    pub channels: usize,
    /// Rate of the sound before it was encoded.
    pub input_rate: SampleRate,
    /// What plays.
    pub title: String,
    /// Frames from its beginning to its end, if it has one.
    pub length: Option<u64>,
}

/// Bit rates of a format, in kbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitRates {
    /// None: it compresses nothing.
    None,
    /// Any from the least to the most.
    Within {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
        /// What is sent when nobody says otherwise.
        usual: u32,
    },
    /// These.
    Among {
        /// In rising order.
        known: &'static [u32],
        /// What is sent when nobody says otherwise.
        usual: u32,
    },
}

impl BitRates {
    /// What is sent when nobody says otherwise; 0 when there is no choice.
    pub fn usual(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Within { usual, .. } | Self::Among { usual, .. } => usual,
        }
    }

    /// The one that is nearest to a wish, so that listeners share encoders.
    pub fn nearest(self, kbps: u32) -> u32 {
        match self {
            Self::None => 0,
            Self::Within { least, most, .. } => kbps.clamp(least, most),
            Self::Among { known, usual } => {
                known.iter().copied().min_by_key(|known| known.abs_diff(kbps)).unwrap_or(usual)
            }
        }
    }
}

impl Display for BitRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Within { least, most, .. } => write!(f, "{least} to {most}"),
            Self::Among { known, .. } => {
                let known: Vec<String> = known.iter().map(u32::to_string).collect();
                write!(f, "one of {}", known.join(", "))
            }
        }
    }
}

/// A page that is the same bytes for everybody.
#[derive(Debug)]
pub(super) struct PlainPage {
    /// Goes first where the page before was not sent.
    lead: Bytes,
    bytes: Bytes,
}

impl PlainPage {
    pub(super) fn of(packets: &[Packet]) -> Self {
        let lead = packets.first().map(|first| first.lead.clone()).unwrap_or_default();
        let bytes = match packets {
            [packet] => packet.bytes.clone(),
            _ => packets.iter().map(|packet| &packet.bytes[..]).collect::<Vec<_>>().concat().into(),
        };
        Self { lead, bytes }
    }
}

impl PageBody for PlainPage {
    fn bytes(&self, at: Span, listener: &Received) -> (Bytes, Option<Bytes>) {
        if self.lead.is_empty() || listener.end == Some(at.start) {
            (self.bytes.clone(), None)
        } else {
            (self.lead.clone(), Some(self.bytes.clone()))
        }
    }
}
