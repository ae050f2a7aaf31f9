//! FLAC (RFC 9639): encoding, and the headers of frames.

use flacenc::component::{BitRepr, StreamInfo};
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};

use super::{FormatSpec, LongEnd, LongFile, s16};
use crate::audio::{AudioError, OPUS_RATE};
use crate::units::SampleRate;

/// The highest rate that the encoder takes.
const HIGHEST: u32 = 96_000;
/// Where the smallest block and the rate are in the header of a file.
const SMALLEST_AT: usize = 8;
const RATE_AT: usize = 18;

pub(super) struct Flac;

impl FormatSpec for Flac {
    fn names(&self) -> &'static [&'static str] {
        &["flac"]
    }

    fn media_type(&self) -> &'static str {
        "audio/flac"
    }

    fn file(&self, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
        encode(pcm, rate, channels)
    }

    fn long(&self, channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
        let config = flacenc::config::Encoder::default().into_verified().map_err(|error| failed(&error))?;
        let about = StreamInfo::new(OPUS_RATE as usize, channels, 16).map_err(|error| failed(&error))?;
        Ok(Box::new(Long { config, about, channels, held: Vec::new(), blocks: 0, frames: 0 }))
    }
}

fn failed(error: &dyn std::fmt::Debug) -> AudioError {
    AudioError::Flac(format!("{error:?}"))
}

/// A file whose length is written at the end. It has no sum over its samples, which is allowed.
struct Long {
    config: Verified<flacenc::config::Encoder>,
    about: StreamInfo,
    channels: usize,
    /// Samples that do not fill a block.
    held: Vec<i32>,
    blocks: usize,
    /// Frames of sound.
    frames: u64,
}

impl Long {
    /// `fLaC` and the block that describes the stream (RFC 9639, 8.2).
    fn head(&self) -> Vec<u8> {
        let block = (self.config.block_size as u16).to_be_bytes();
        let mut head = b"fLaC\x80\0\0\x22".to_vec();
        // The smallest and the largest block, and frames of sizes that nobody knows.
        head.extend([block, block].concat());
        head.extend([0; 6]);
        let (channels, bits) = (self.channels as u64 - 1, 16 - 1);
        let facts = u64::from(OPUS_RATE) << 44 | channels << 41 | bits << 36 | self.frames & ((1 << 36) - 1);
        head.extend(facts.to_be_bytes());
        head.extend([0; 16]);
        head
    }

    fn block(&mut self, samples: usize, out: &mut Vec<u8>) -> Result<(), AudioError> {
        let block: Vec<i32> = self.held.drain(..samples).collect();
        let mut buffer = FrameBuf::with_size(self.channels, self.config.block_size).map_err(|error| failed(&error))?;
        buffer.fill_interleaved(&block).map_err(|error| failed(&error))?;
        let frame = flacenc::encode_fixed_size_frame(&self.config, &buffer, self.blocks, &self.about);
        let mut sink = flacenc::bitsink::ByteSink::new();
        frame.map_err(|error| failed(&error))?.write(&mut sink).map_err(|error| failed(&error))?;
        out.extend(sink.into_inner());
        self.blocks += 1;
        self.frames += (samples / self.channels) as u64;
        Ok(())
    }
}

impl LongFile for Long {
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        let mut out = if self.blocks == 0 && self.held.is_empty() { self.head() } else { Vec::new() };
        self.held.extend(pcm.iter().map(|&sample| i32::from(s16(sample))));
        let samples = self.config.block_size * self.channels;
        while self.held.len() >= samples {
            self.block(samples, &mut out)?;
        }
        Ok(out)
    }

    fn finish(mut self: Box<Self>) -> Result<LongEnd, AudioError> {
        let mut rest = Vec::new();
        if !self.held.is_empty() {
            self.block(self.held.len(), &mut rest)?;
        }
        Ok(LongEnd { rest, head: self.head() })
    }
}

/// Encodes interleaved `pcm` with 16 bits.
fn encode(pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
    let samples: Vec<i32> = pcm.iter().map(|&sample| i32::from(s16(sample))).collect();
    let config = flacenc::config::Encoder::default().into_verified().map_err(|error| failed(&error))?;
    let claimed = rate.0.min(HIGHEST);
    let source = flacenc::source::MemSource::from_samples(&samples, channels, 16, claimed as usize);
    let stream =
        flacenc::encode_with_fixed_block_size(&config, source, config.block_size).map_err(|error| failed(&error))?;
    let mut sink = flacenc::bitsink::ByteSink::new();
    stream.write(&mut sink).map_err(|error| failed(&error))?;
    let mut file = sink.into_inner();
    // The smallest block counts without the last one (RFC 9639, 8.2); the encoder counts it, and
    // strict readers then find no frame.
    if file.len() > SMALLEST_AT + 4 {
        file.copy_within(SMALLEST_AT + 2..SMALLEST_AT + 4, SMALLEST_AT);
    }
    if claimed != rate.0 {
        let lengths = (0..stream.frame_count()).filter_map(|n| stream.frame(n)).map(|frame| frame.count_bits() / 8);
        set_rate(&mut file, rate.0, &lengths.collect::<Vec<_>>());
    }
    Ok(file)
}

/// Puts another rate into the header of a file, of which the frames, with these lengths, then say
/// nothing.
fn set_rate(file: &mut [u8], rate: u32, lengths: &[usize]) {
    let Some(mut at) = file.len().checked_sub(lengths.iter().sum()).filter(|&at| at > RATE_AT + 2) else { return };
    let [_, high, middle, low] = (rate << 4).to_be_bytes();
    (file[RATE_AT], file[RATE_AT + 1]) = (high, middle);
    file[RATE_AT + 2] = low | file[RATE_AT + 2] & 15;
    for &length in lengths {
        let frame = &mut file[at..at + length];
        if let Some(Frame { head, .. }) = Frame::parse(frame, 0) {
            frame[2] &= 0xf0;
            frame[head] = crc8(&frame[..head]);
            let sum = crc16(&frame[..length - 2]).to_be_bytes();
            frame[length - 2..].copy_from_slice(&sum);
        }
        at += length;
    }
}

/// A frame's place and what its header says.
pub(in crate::audio) struct Frame {
    /// Where it begins.
    pub(in crate::audio) at: usize,
    /// Bytes of the header before its checksum.
    head: usize,
    /// The same in every frame of a stream, and with it the kind of numbers.
    sync: u8,
    number: u64,
    samples: u64,
}

impl Frame {
    /// The next frame from `at` on, the one that follows `before` if there is one.
    pub(in crate::audio) fn find(bytes: &[u8], mut at: usize, before: Option<&Self>) -> Option<Self> {
        loop {
            at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            if let Some(frame) = Self::parse(bytes, at)
                && before.is_none_or(|before| frame.follows(before))
            {
                return Some(frame);
            }
            at += 1;
        }
    }

    /// Whether this is the next frame, or a later one behind damage.
    fn follows(&self, before: &Self) -> bool {
        const DAMAGE: u64 = 1000;
        let (step, most) = if self.sync & 1 == 0 { (1, DAMAGE) } else { (before.samples, DAMAGE * before.samples) };
        let expected = before.number + step;
        self.sync == before.sync && (expected..=expected + most).contains(&self.number)
    }

    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        let head = bytes.get(at..)?;
        let &[0xff, sync, sizes, kind, ref rest @ ..] = head else { return None };
        if sync & 0xfe != 0xf8 || sizes & 15 == 15 || kind & 1 == 1 || kind >> 4 > 10 || kind >> 1 & 7 == 3 {
            return None;
        }
        let (number, mut used) = number(rest)?;
        let mut field = |size: usize| {
            let bytes = rest.get(used..used + size)?;
            used += size;
            Some(bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
        };
        let samples = match sizes >> 4 {
            0 => return None,
            1 => 192,
            size @ 2..=5 => 576 << (size - 2),
            6 => field(1)? + 1,
            7 => field(2)? + 1,
            size => 256 << (size - 8),
        };
        match sizes & 15 {
            12 => drop(field(1)?),
            13 | 14 => drop(field(2)?),
            _ => {}
        }
        let (sum, head) = (*rest.get(used)?, &head[..4 + used]);
        (sum == crc8(head)).then_some(Self { at, head: head.len(), sync, number, samples })
    }
}

/// A number in the manner of UTF-8, and its bytes.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let &first = bytes.first()?;
    let length = first.leading_ones() as usize;
    match length {
        0 => return Some((first.into(), 1)),
        1 | 8 => return None,
        _ => {}
    }
    let head = u64::from(first) & (0x7f >> length);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().try_fold(head, |sum, &byte| (byte >> 6 == 2).then_some(sum << 6 | u64::from(byte & 63)));
    Some((value?, length))
}

/// The checksum of a frame's header: polynomial 7.
fn crc8(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum, &byte| (0..8).fold(sum ^ byte, |sum: u8, _| sum << 1 ^ if sum & 0x80 == 0 { 0 } else { 7 }))
}

/// The checksum of a frame: polynomial 0x8005.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum: u16, &byte| {
        (0..8).fold(sum ^ u16::from(byte) << 8, |sum, _| sum << 1 ^ if sum & 0x8000 == 0 { 0 } else { 0x8005 })
    })
}
