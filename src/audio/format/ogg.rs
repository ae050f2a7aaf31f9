//! Ogg Opus (RFC 3533, RFC 7845).
//!
//! A [`SharedPage`] holds packets once for all listeners; [`SharedPage::header`] makes the few
//! bytes that differ: each listener's own serial number, page sequence and granule position, with a
//! right checksum for the shared body.

mod crc;
mod file;
mod page;

use bytes::Bytes;

use self::file::OggFile;
use self::page::{SharedPage, StreamHead};
use super::{
    About, BeginFile, BitRates, Encoded, FormatSpec, LiveEncoder, LiveFormat, LongEnd, LongFile, Packet, PageBody,
    Received, Span, StreamingFile,
};
use crate::audio::{AudioError, OPUS_FRAME, OPUS_RATE, OpusEncoder};
use crate::units::SampleRate;

/// Bit rate of whole files.
const FILE_KBPS: u32 = 160;
/// Bit rate of files that are heard while they are made.
const PREVIEW_KBPS: u32 = 128;
/// Frames that a decoder needs to converge when it begins in the middle: 80 ms (RFC 7845 section
/// 4.6).
const CONVERGENCE: u64 = 3840;
/// Pages that a stream's headers take.
const HEADER_PAGES: u32 = 2;

pub(super) struct OggOpus;

impl FormatSpec for OggOpus {
    fn names(&self) -> &'static [&'static str] {
        &["ogg", "opus"]
    }

    fn media_type(&self) -> &'static str {
        "audio/ogg"
    }

    fn file(&self, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
        let mut file = Box::new(OggFile::new(rate, channels, FILE_KBPS)?);
        let mut bytes = file.push(pcm)?;
        bytes.append(&mut file.finish()?);
        Ok(bytes)
    }

    fn long(&self, channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
        Ok(Box::new(Long(Box::new(OggFile::new(SampleRate(OPUS_RATE), channels, FILE_KBPS)?))))
    }

    fn preview(&self) -> Option<BeginFile> {
        Some(|rate, channels| Ok(Box::new(OggFile::new(rate, channels, PREVIEW_KBPS)?)))
    }

    fn live(&self) -> Option<&'static dyn LiveFormat> {
        Some(&Self)
    }
}

/// A file of pages, each of which knows its place.
struct Long(Box<OggFile>);

impl LongFile for Long {
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        self.0.push(pcm)
    }

    fn finish(self: Box<Self>) -> Result<LongEnd, AudioError> {
        Ok(LongEnd { rest: self.0.finish()?, head: Vec::new() })
    }
}

impl LiveFormat for OggOpus {
    fn bit_rates(&self) -> BitRates {
        BitRates::Within { least: 64, most: 160, usual: 96 }
    }

    fn encoder(&self, channels: usize, kbps: u32) -> Result<Box<dyn LiveEncoder>, AudioError> {
        let opus = OpusEncoder::new(channels, kbps)?;
        Ok(Box::new(Live { skip: opus.pre_skip(), opus }))
    }

    fn follower(&self, channels: usize, kbps: u32, frames: u64) -> Result<Box<dyn LiveEncoder>, AudioError> {
        let mut opus = OpusEncoder::new(channels, kbps)?;
        opus.predict_nothing_in(0..frames);
        Ok(Box::new(Live { skip: opus.pre_skip(), opus }))
    }

    fn packet_frames(&self) -> u64 {
        OPUS_FRAME as u64
    }

    fn page(&self, packets: &[Packet], at: Span) -> Box<dyn PageBody> {
        let mut page = SharedPage::collect();
        packets.iter().for_each(|packet| page.push(&packet.bytes));
        let skip = packets.first().map_or(0, |first| first.skip);
        // The last page may be shorter than what a decoder needs to converge.
        Box::new(Body { page: page.build(), pre_skip: skip.min(at.frames()) as u16 })
    }

    fn whole(&self, bytes: &[u8]) -> usize {
        page::whole(bytes)
    }
}

struct Live {
    opus: OpusEncoder,
    /// What a decoder drops that begins with the next packet.
    skip: u64,
}

impl Live {
    /// Before the first packet there is nothing to converge from.
    fn packet<'a>(bytes: &'a [u8], skip: &mut u64) -> Encoded<'a> {
        let skip = std::mem::replace(skip, CONVERGENCE);
        Encoded { bytes, lead: Vec::new(), skip, frames: OPUS_FRAME as u64 }
    }
}

impl LiveEncoder for Live {
    fn push(&mut self, pcm: &[f32], packet: &mut dyn FnMut(Encoded<'_>)) -> Result<(), AudioError> {
        let Self { opus, skip } = self;
        opus.push(pcm, &mut |bytes| packet(Self::packet(bytes, skip)))
    }

    fn finish(&mut self, packet: &mut dyn FnMut(Encoded<'_>)) -> Result<Option<u64>, AudioError> {
        let Self { opus, skip } = self;
        opus.finish(&mut |bytes| packet(Self::packet(bytes, skip)))?;
        Ok(Some(opus.end()))
    }
}

#[derive(Debug)]
struct Body {
    page: SharedPage,
    /// Frames that a decoder which begins here must drop.
    pre_skip: u16,
}

impl PageBody for Body {
    fn head(&self, _at: Span, listener: &Received, about: &About) -> Option<Bytes> {
        let head = StreamHead {
            serial: listener.serial,
            channels: about.channels as u8,
            pre_skip: self.pre_skip,
            input_rate: about.input_rate.0,
        };
        Some(head.pages(&[("TITLE", &about.title)]))
    }

    fn bytes(&self, at: Span, listener: &Received) -> (Bytes, Option<Bytes>) {
        let (granule, sequence) = (listener.frames + at.frames(), HEADER_PAGES + listener.pages);
        let head = self.page.header(granule, listener.serial, sequence, at.last);
        (head, Some(self.page.body().clone()))
    }
}

/// The checksum of a page in parts, with zeros in its own place.
pub(crate) fn checksum(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |register, part| crc::update(register, part))
}
