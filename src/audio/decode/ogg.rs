//! Ogg: chains of streams as a station's recording has them, each with whatever else is multiplexed
//! beside it.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_OPUS, CODEC_ID_VORBIS};

use super::output::Output;
use super::packets::Packets;
use super::{Trust, flac, unreadable};
use crate::audio::AudioError;
use crate::audio::format::checksum;

/// Bytes of a page before its segment table.
const FIXED: usize = 27;
const CRC_AT: usize = 22;
/// Bytes of a packet at most.
const LONGEST: usize = 16 << 20;

/// One page.
struct Page<'a> {
    continued: bool,
    first: bool,
    last: bool,
    granule: u64,
    serial: u32,
    lacing: &'a [u8],
    body: &'a [u8],
}

impl<'a> Page<'a> {
    /// The page at the beginning of `bytes`, and its length.
    fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let head: &[u8; FIXED] = bytes.first_chunk()?;
        if !head.starts_with(b"OggS\0") {
            return None;
        }
        let lacing = bytes.get(FIXED..FIXED + usize::from(head[26]))?;
        let size: usize = lacing.iter().map(|&size| usize::from(size)).sum();
        let start = FIXED + lacing.len();
        let body = bytes.get(start..start + size)?;
        let sum = [&head[..CRC_AT], &[0; 4], &bytes[CRC_AT + 4..start + size]];
        if head[CRC_AT..CRC_AT + 4] != checksum(&sum).to_le_bytes() {
            return None;
        }
        let granule = u64::from_le_bytes([head[6], head[7], head[8], head[9], head[10], head[11], head[12], head[13]]);
        let serial = u32::from_le_bytes([head[14], head[15], head[16], head[17]]);
        let flag = |bit: u8| head[5] & bit != 0;
        let page = Self { continued: flag(1), first: flag(2), last: flag(4), granule, serial, lacing, body };
        Some((page, start + size))
    }
}

pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let (mut at, mut trust, mut heard) = (0, Trust::Whole, false);
    let mut stream: Option<Stream> = None;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((page, length)) = Page::parse(rest) else {
            // A damaged page, or junk: on to the next one. A page that is cut off at the end is the
            // end.
            let next = rest[1..].windows(4).position(|four| four == b"OggS");
            trust = if next.is_some() { Trust::Doubtful } else { trust };
            at = next.map_or(bytes.len(), |next| at + 1 + next);
            continue;
        };
        at += length;
        // Streams that lie beside another begin before any of them has sound.
        if page.first && stream.as_ref().is_none_or(|stream| stream.serial == page.serial || stream.has_begun()) {
            match Stream::begin(&page) {
                Ok(next) => {
                    trust = stream.take().map_or(trust, |stream| trust.and(stream.trust()));
                    stream = Some(next);
                }
                // Pictures, text, or a codec that is not known here.
                Err(_) if stream.is_none() => {}
                Err(_) => trust = Trust::Doubtful,
            }
        } else if let Some(stream) = stream.as_mut().filter(|stream| stream.serial == page.serial && !page.first) {
            heard |= stream.page(&page, output)?;
        }
    }
    match stream {
        Some(stream) if heard => Ok(trust.and(stream.trust())),
        Some(_) => Err(AudioError::Silent),
        None => Err(unreadable("there is no Opus, Vorbis or FLAC at its beginning")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Opus,
    Vorbis,
    Flac,
}

/// A logical stream.
struct Stream {
    serial: u32,
    kind: Kind,
    /// Packets before the sound.
    headers: Vec<Vec<u8>>,
    decoder: Option<Packets>,
    /// What the last page holds of a packet that goes on.
    partial: Vec<u8>,
    /// The granule position at which the sound begins; `None` before its first page is complete.
    base: Option<u64>,
    /// Frames before pre-skip, as granule positions count them.
    frames: u64,
}

impl Stream {
    fn begin(page: &Page<'_>) -> Result<Self, AudioError> {
        let kind = match page.body {
            [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => Kind::Opus,
            [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => Kind::Vorbis,
            [0x7f, b'F', b'L', b'A', b'C', ..] => Kind::Flac,
            _ => return Err(unreadable("it is a stream of another kind")),
        };
        let headers = vec![page.body.to_vec()];
        let serial = page.serial;
        Ok(Self { serial, kind, headers, decoder: None, partial: Vec::new(), base: None, frames: 0 })
    }

    /// Whether more than its first page was seen.
    fn has_begun(&self) -> bool {
        self.headers.len() > 1 || self.decoder.is_some()
    }

    fn trust(&self) -> Trust {
        self.decoder.as_ref().map_or(Trust::Whole, |decoder| decoder.trust)
    }

    /// Decodes the packets that end in a page; says whether any was sound.
    fn page(&mut self, page: &Page<'_>, output: &mut Output<'_>) -> Result<bool, AudioError> {
        let mut packets = packets_of(page, std::mem::take(&mut self.partial));
        self.partial = packets.pop().unwrap_or_default();
        let (mut blocks, before) = (Vec::new(), self.frames);
        for packet in packets {
            if let Some(decoder) = self.decoder_for(&packet)?
                && let Some(spec) = decoder.decode(&packet, 0)?
            {
                blocks.push((spec, std::mem::take(&mut decoder.pcm), decoder.skipped()));
            }
        }
        for (spec, pcm, skipped) in &blocks {
            self.frames += (pcm.len() / spec.channels + skipped) as u64;
        }
        // A granule position of -1 says that no packet ends here.
        let told = page.granule != u64::MAX;
        if self.base.is_none() && !blocks.is_empty() && told {
            // A recording that begins in the middle of a stream begins at a later position; the end
            // of a page that is also the last one says how much of it is padding instead.
            self.base = Some(if page.last { 0 } else { page.granule.saturating_sub(self.frames) });
        }
        if page.last && told && self.kind != Kind::Flac {
            self.trim(page.granule, before, &mut blocks);
        }
        let heard = !blocks.is_empty();
        for (spec, mut pcm, _) in blocks {
            output.push(spec, &mut pcm)?;
        }
        Ok(heard)
    }

    /// Drops what the last packets have beyond the end; never more than the page holds.
    fn trim(&self, granule: u64, before: u64, blocks: &mut Vec<Block>) {
        let end = granule.saturating_sub(self.base.unwrap_or(0));
        // An end before the last page began is a mistake of whoever wrote it.
        if end <= before && before > 0 {
            return;
        }
        let mut beyond = self.frames.saturating_sub(end) as usize;
        while beyond > 0
            && let Some((spec, pcm, _)) = blocks.last_mut()
        {
            let frames = pcm.len() / spec.channels;
            let cut = beyond.min(frames);
            pcm.truncate((frames - cut) * spec.channels);
            beyond -= cut;
            if pcm.is_empty() {
                blocks.pop();
            }
        }
    }

    /// The decoder if the packet is sound; headers are kept until there are enough for one.
    fn decoder_for(&mut self, packet: &[u8]) -> Result<Option<&mut Packets>, AudioError> {
        let header = match self.kind {
            Kind::Opus => self.headers.len() < 2,
            Kind::Vorbis => packet.first().is_some_and(|kind| kind & 1 == 1),
            Kind::Flac => packet.first() != Some(&0xff),
        };
        if header {
            // Long lists of comments and pictures are of no use here.
            let kept = self.kind == Kind::Vorbis || self.headers.len() < 2;
            if kept && self.headers.len() < 3 {
                self.headers.push(packet.to_vec());
            }
            return Ok(None);
        }
        if self.decoder.is_none() {
            self.decoder = Some(self.open()?);
        }
        Ok(self.decoder.as_mut())
    }

    fn open(&self) -> Result<Packets, AudioError> {
        let mut parameters = AudioCodecParameters::new();
        match (self.kind, &self.headers[..]) {
            (Kind::Opus, [head, ..]) => {
                parameters.for_codec(CODEC_ID_OPUS).with_extra_data(head.as_slice().into());
            }
            (Kind::Vorbis, [head, _, setup]) => {
                parameters.for_codec(CODEC_ID_VORBIS).with_extra_data([head.as_slice(), setup].concat().into());
            }
            // The mapping's header, then the stream's marker and the header of STREAMINFO.
            (Kind::Flac, [head, ..]) if head.len() >= 51 => return flac::packets(&head[17..51]),
            _ => return Err(unreadable("its headers are not complete")),
        }
        Packets::new(&parameters)
    }
}

type Block = (super::output::PcmSpec, Vec<f32>, usize);

/// The packets of a page, the last one unfinished (perhaps empty).
fn packets_of(page: &Page<'_>, partial: Vec<u8>) -> Vec<Vec<u8>> {
    let mut packets = vec![if page.continued { partial } else { Vec::new() }];
    // The rest of a packet whose beginning was lost is no packet.
    let mut lost = page.continued && packets[0].is_empty();
    let mut body = page.body;
    for &size in page.lacing {
        let (segment, rest) = body.split_at(usize::from(size));
        body = rest;
        if let Some(packet) = packets.last_mut()
            && packet.len() < LONGEST
            && !lost
        {
            packet.extend_from_slice(segment);
        }
        if size < 255 {
            if lost {
                packets.pop();
            }
            lost = false;
            packets.push(Vec::new());
        }
    }
    packets
}
