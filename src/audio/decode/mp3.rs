//! MPEG audio, frame by frame: layers I to III, of one or several files one behind the other.
//!
//! A count in the first frame (Xing, Info, VBRI) is believed only where it is true: then the
//! encoder's delay and padding are left out, as players do it.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};

use super::output::Output;
use super::packets::Packets;
use super::{Trust, id3v2_length, unreadable};
use crate::audio::AudioError;

/// Delay of every layer III decoder.
const DECODER_DELAY: usize = 529;

/// What the four bytes at the beginning of a frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Halves of the rates of MPEG-1: 0, 1 or 2 for MPEG-1, -2 and -2.5.
    halvings: u32,
    layer: u8,
    rate: u32,
    mono: bool,
    /// Bytes, the header's own included.
    length: usize,
    /// PCM frames.
    samples: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        const KBPS: [[u16; 15]; 5] = [
            [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let &[0xff, second, third, fourth, ..] = bytes else { return None };
        let halvings = match second >> 3 & 3 {
            _ if second < 0xe0 => return None,
            3 => 0,
            2 => 1,
            0 => 2,
            _ => return None,
        };
        let layer = 4 - (second >> 1 & 3);
        let row = match (halvings, layer) {
            (_, 4) => return None,
            (0, layer) => usize::from(layer) - 1,
            (_, 1) => 3,
            _ => 4,
        };
        // Index 0 is "free format", which nobody writes and ffmpeg does not read.
        let kbps = usize::from(*KBPS[row].get(usize::from(third >> 4))?);
        let rate = *[44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))? >> halvings;
        let padding = usize::from(third >> 1 & 1);
        let (samples, length) = match layer {
            1 => (384, (12_000 * kbps / rate as usize + padding) * 4),
            3 if halvings > 0 => (576, 72_000 * kbps / rate as usize + padding),
            _ => (1152, 144_000 * kbps / rate as usize + padding),
        };
        (kbps > 0).then_some(Self { halvings, layer, rate, mono: fourth >> 6 == 3, length, samples })
    }

    /// Whether both may be frames of one stream; some encoders change between mono and stereo.
    fn fits(&self, other: &Self) -> bool {
        (self.halvings, self.layer, self.rate) == (other.halvings, other.layer, other.rate)
    }

    /// Bytes of layer III's side information.
    fn side(&self) -> usize {
        match (self.halvings, self.mono) {
            (0, false) => 32,
            (0, true) | (_, false) => 17,
            (_, true) => 9,
        }
    }
}

/// Whole frames, over everything that is none.
struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    last: Option<Header>,
    /// Bytes between frames that were no tags.
    junk: usize,
}

impl<'a> Frames<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, last: None, junk: 0 }
    }

    /// The frame at `at`, if what is around says that it is one.
    fn look(&self, at: usize) -> Option<Header> {
        let rest = self.bytes.get(at..)?;
        let header = Header::parse(rest)?;
        if header.length > rest.len() {
            return None;
        }
        let known = self.last.is_some_and(|last| last.fits(&header));
        let next = || Header::parse(&rest[header.length..]).is_some_and(|next| next.fits(&header));
        // Noise in front may look like two headers.
        let third = || {
            let next = Header::parse(&rest[header.length..])?;
            let third = rest.get(header.length + next.length..)?;
            Some(third.len() < 4 || Header::parse(third).is_some_and(|third| third.fits(&header)))
        };
        let sure = if self.last.is_none() && at > 0 { next() && third() == Some(true) } else { known || next() };
        (sure || (at == 0 && rest.len() - header.length < 4)).then_some(header)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Nothing but a header's first byte is looked at closely.
            let rest = self.bytes.get(self.at..)?;
            if let Some(header) = self.look(self.at) {
                self.last = Some(header);
                self.at += header.length;
                return Some((header, &rest[..header.length]));
            }
            if let Some(tag) = tag_length(rest) {
                self.at += tag;
                continue;
            }
            let skipped = 1 + rest.get(1..)?.iter().position(|byte| matches!(byte, 0xff | b'I' | b'A' | b'T'))?;
            self.junk += rest[..skipped].iter().filter(|&&byte| byte != 0).count();
            self.at += skipped;
        }
    }
}

/// Length of the tag that begins here: ID3v2 and APEv2 of files that were joined, ID3v1.
fn tag_length(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"TAG") && bytes.len() >= 128 {
        return Some(128);
    }
    if let [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', _, _, _, _, a, b, c, d, ..] = bytes {
        return Some((u32::from_le_bytes([*a, *b, *c, *d]) as usize + 32).min(bytes.len()).max(32));
    }
    id3v2_length(bytes)
}

/// Where MPEG audio begins.
pub(super) fn first(bytes: &[u8]) -> Option<usize> {
    let mut frames = Frames::new(bytes);
    frames.next().map(|(header, _)| frames.at - header.length)
}

/// What the first frame tells of the whole.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    frames: Option<usize>,
    /// Samples that the encoder put before and behind the sound.
    delay: usize,
    padding: usize,
}

/// Reads a frame that holds a count in the place of sound.
fn told(header: Header, frame: &[u8]) -> Option<Told> {
    let word = |at: usize| frame.get(at..at + 4)?.first_chunk().map(|&four| u32::from_be_bytes(four));
    if header.layer != 3 {
        return None;
    }
    if frame.get(36..40) == Some(b"VBRI") {
        return Some(Told { frames: word(50).map(|frames| frames as usize), ..Told::default() });
    }
    let at = 4 + header.side();
    if !matches!(frame.get(at..at + 4), Some(b"Xing" | b"Info")) {
        return None;
    }
    let flags = word(at + 4)?;
    let fields = [(1, 4), (2, 4), (4, 100), (8, 4)].map(|(flag, size)| if flags & flag == 0 { 0 } else { size });
    let frames = if flags & 1 == 0 { None } else { word(at + 8).map(|frames| frames as usize) };
    let encoder = at + 8 + fields.iter().sum::<usize>();
    let mut told = Told { frames, ..Told::default() };
    if matches!(frame.get(encoder..encoder + 4), Some(b"LAME" | b"Lavf" | b"Lavc"))
        && let Some(&[a, b, c]) = frame.get(encoder + 21..encoder + 24)
    {
        told.delay = (usize::from(a) << 4 | usize::from(b >> 4)) + DECODER_DELAY;
        told.padding = (usize::from(b & 15) << 8 | usize::from(c)).saturating_sub(DECODER_DELAY);
    }
    Some(told)
}

/// The frames in a row, from `start` on, and whether all of the file was frames and tags.
pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let mut frames = Frames::new(bytes);
    let Some((header, frame)) = frames.next() else {
        return Err(unreadable("no format is recognised in it"));
    };
    let told = told(header, frame);
    let start = if told.is_some() { frames.at } else { frames.at - header.length };
    let (mut count, mut samples) = (0, 0);
    let before = frames.junk;
    let (frames, mut all) = (Frames::new(&bytes[start..]), Frames::new(&bytes[start..]));
    for (header, _) in (&mut all).filter(is_sound) {
        (count, samples) = (count + 1, samples + header.samples);
    }
    let told = told.unwrap_or_default();
    let end = if told.frames == Some(count) { samples - told.padding.min(samples) } else { samples };
    let (mut decoder, mut at, mut frame) = (None, 0, Vec::new());
    let mut trust = if before + all.junk > 0 { Trust::Doubtful } else { Trust::Whole };
    for (header, bytes) in frames.filter(is_sound) {
        let packets = match &mut decoder {
            Some((of, packets)) if same_decoder(of, &header) => packets,
            decoder => &mut decoder.insert((header, packets(&header)?)).1,
        };
        frame.clear();
        frame.extend_from_slice(bytes);
        // Joint stereo that joins nothing is stereo, where the channels may have blocks of
        // different types.
        if frame[3] & 0xf0 == 0x40 {
            frame[3] &= 0x3f;
        }
        let decoded = packets.decode(&frame, header.samples as u64)?;
        trust = trust.and(packets.trust);
        if let Some(spec) = decoded {
            let length = packets.pcm.len() / spec.channels;
            let (from, to) = (told.delay.saturating_sub(at).min(length), end.saturating_sub(at).min(length));
            if from < to {
                output.push(spec, &mut packets.pcm[from * spec.channels..to * spec.channels])?;
            }
            at += length;
        }
    }
    Ok(trust)
}

/// Whether a frame is no count, of which joined files have several.
fn is_sound((header, frame): &(Header, &[u8])) -> bool {
    told(*header, frame).is_none()
}

fn same_decoder(a: &Header, b: &Header) -> bool {
    a.fits(b) && a.mono == b.mono
}

fn packets(header: &Header) -> Result<Packets, AudioError> {
    let codec = [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3][usize::from(header.layer) - 1];
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(codec).with_sample_rate(header.rate);
    Packets::new(&parameters)
}
