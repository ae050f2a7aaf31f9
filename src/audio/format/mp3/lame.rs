//! MP3 through LAME: an encoder for PCM that keeps coming, and the cutting of its output into
//! frames.

use mp3lame_encoder::{Bitrate, Builder, DualPcm, Encoder, FlushGap, Mode, MonoPcm, Quality, ffi};
use std::num::NonZeroU32;

use crate::audio::AudioError;
use crate::audio::format::{Encoded, LiveEncoder, LongEnd, LongFile};

/// What LAME may write beyond 1.25 bytes per frame, from its manual.
const SLACK: usize = 7200;

const BITRATES: [(u32, Bitrate); 13] = [
    (32, Bitrate::Kbps32),
    (40, Bitrate::Kbps40),
    (48, Bitrate::Kbps48),
    (64, Bitrate::Kbps64),
    (80, Bitrate::Kbps80),
    (96, Bitrate::Kbps96),
    (112, Bitrate::Kbps112),
    (128, Bitrate::Kbps128),
    (160, Bitrate::Kbps160),
    (192, Bitrate::Kbps192),
    (224, Bitrate::Kbps224),
    (256, Bitrate::Kbps256),
    (320, Bitrate::Kbps320),
];

fn nearest(kbps: u32) -> (u32, Bitrate) {
    BITRATES.into_iter().min_by_key(|&(rate, _)| rate.abs_diff(kbps)).unwrap_or((128, Bitrate::Kbps128))
}

/// A LAME encoder with constant bit rate.
pub struct Mp3Encoder {
    encoder: Encoder,
    channels: usize,
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Mp3Encoder {
    /// `channels` is 1 or 2, the bit rate the nearest that LAME has; for a rate of MPEG-1 layer
    /// III.
    fn new(rate: u32, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        Self::build(builder(rate, channels, kbps, Quality::Good, false)?, channels)
    }

    /// The parameters of the original streaming server: 96 kbit/s, mono, 32 kHz, quality 2. Unlike
    /// there, samples above full scale are clipped and do not wrap.
    ///
    /// # Errors
    /// [`AudioError::Mp3`].
    pub fn original() -> Result<Self, AudioError> {
        Self::build(builder(32_000, 1, 96, Quality::NearBest, false)?, 1)
    }

    /// A whole file at once: its first frame tells players the exact length.
    ///
    /// # Errors
    /// [`AudioError::Mp3`].
    pub(super) fn file(pcm: &[f32], rate: u32, channels: usize, kbps: u32) -> Result<Vec<u8>, AudioError> {
        let (mut long, mut file) = (Long::new(rate, channels, kbps)?, Vec::new());
        // LAME wants room for the worst case: pieces of a second keep that small.
        pcm.chunks(rate as usize * channels).try_for_each(|second| long.0.push(second, &mut file))?;
        let LongEnd { mut rest, head } = Box::new(long).finish()?;
        file.append(&mut rest);
        if head.len() <= file.len() {
            file[..head.len()].copy_from_slice(&head);
        }
        Ok(file)
    }

    fn build(builder: Builder, channels: usize) -> Result<Self, AudioError> {
        let encoder = builder.build().map_err(|error| AudioError::Mp3(error.to_string()))?;
        Ok(Self { encoder, channels, left: Vec::new(), right: Vec::new() })
    }

    /// Takes interleaved PCM and appends the bytes that LAME gives for it, not cut at frames.
    ///
    /// # Errors
    /// [`AudioError::Mp3`].
    pub fn push(&mut self, pcm: &[f32], out: &mut Vec<u8>) -> Result<(), AudioError> {
        let clip = |&sample: &f32| if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
        out.reserve(pcm.len() / self.channels * 5 / 4 + SLACK);
        self.left.clear();
        self.left.extend(pcm.iter().step_by(self.channels).map(clip));
        let result = if self.channels == 1 {
            self.encoder.encode_to_vec(MonoPcm(&self.left), out)
        } else {
            self.right.clear();
            self.right.extend(pcm.iter().skip(1).step_by(2).map(clip));
            self.encoder.encode_to_vec(DualPcm { left: &self.left, right: &self.right }, out)
        };
        result.map(drop).map_err(|error| AudioError::Mp3(error.to_string()))
    }

    /// Appends the last frames; nothing may be pushed afterwards.
    ///
    /// # Errors
    /// [`AudioError::Mp3`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), AudioError> {
        out.reserve(SLACK);
        self.encoder.flush_to_vec::<FlushGap>(out).map(drop).map_err(|error| AudioError::Mp3(error.to_string()))
    }
}

fn builder(rate: u32, channels: usize, kbps: u32, quality: Quality, tag: bool) -> Result<Builder, AudioError> {
    let failed = |error: &dyn std::fmt::Display| AudioError::Mp3(error.to_string());
    let mode = if channels == 1 { Mode::Mono } else { Mode::JointStereo };
    Builder::new()
        .ok_or_else(|| failed(&"out of memory"))?
        .with_num_channels(channels as u8)
        .and_then(|lame| lame.with_sample_rate(rate))
        .and_then(|lame| lame.with_output_sample_rate(NonZeroU32::new(rate)))
        .and_then(|lame| lame.with_brate(nearest(kbps).1))
        .and_then(|lame| lame.with_mode(mode))
        .and_then(|lame| lame.with_quality(quality))
        .and_then(|lame| lame.with_to_write_vbr_tag(tag))
        .map_err(|error| failed(&error))
}

/// The crate has no word for it.
#[allow(unsafe_code)]
fn disable_reservoir(builder: &mut Builder) {
    // SAFETY: the pointer is the builder's, which lives on; LAME notes the number and keeps nothing
    // else.
    unsafe { ffi::lame_set_disable_reservoir(builder.as_ptr(), 1) };
}

/// A file whose first frame tells players the exact length.
pub(super) struct Long(Mp3Encoder);

impl Long {
    pub(super) fn new(rate: u32, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        let builder = builder(rate, channels, kbps, Quality::NearBest, true)?;
        Mp3Encoder::build(builder, channels).map(Self)
    }
}

impl LongFile for Long {
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError> {
        let mut bytes = Vec::new();
        self.0.push(pcm, &mut bytes)?;
        Ok(bytes)
    }

    fn finish(mut self: Box<Self>) -> Result<LongEnd, AudioError> {
        let mut rest = Vec::new();
        self.0.finish(&mut rest)?;
        let mut head = Vec::with_capacity(self.0.encoder.lame_tag_size());
        // LAME left room for it: a frame of zeros.
        if self.0.encoder.lame_tag_encode_to_vec(&mut head).is_none() {
            head.clear();
        }
        Ok(LongEnd { rest, head })
    }
}

/// For live streams: whole frames, each of which a listener can begin with.
pub(super) struct Live {
    lame: Mp3Encoder,
    frames: Mp3Frames,
    reservoir: Mp3Reservoir,
}

impl Live {
    pub(super) fn new(rate: u32, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        Ok(Self::of(Mp3Encoder::new(rate, channels, kbps)?))
    }

    /// For segments, which follow those of other encoders: no frame needs anything of those before
    /// it.
    pub(super) fn segments(rate: u32, channels: usize, kbps: u32) -> Result<Self, AudioError> {
        let mut builder = builder(rate, channels, kbps, Quality::Good, false)?;
        disable_reservoir(&mut builder);
        Ok(Self::of(Mp3Encoder::build(builder, channels)?))
    }

    fn of(lame: Mp3Encoder) -> Self {
        Self { lame, frames: Mp3Frames::default(), reservoir: Mp3Reservoir::default() }
    }

    fn cut(&mut self, packet: &mut dyn FnMut(Encoded<'_>)) {
        let Self { frames, reservoir, .. } = self;
        frames.cut(&mut |bytes| {
            let lead = reservoir.pass(bytes);
            packet(Encoded { bytes, lead, skip: 0, frames: Mp3Frames::SAMPLES });
        });
    }
}

impl LiveEncoder for Live {
    fn push(&mut self, pcm: &[f32], packet: &mut dyn FnMut(Encoded<'_>)) -> Result<(), AudioError> {
        self.lame.push(pcm, self.frames.buffer())?;
        self.cut(packet);
        Ok(())
    }

    fn finish(&mut self, packet: &mut dyn FnMut(Encoded<'_>)) -> Result<Option<u64>, AudioError> {
        self.lame.finish(self.frames.buffer())?;
        self.cut(packet);
        Ok(None)
    }
}

/// Cuts a layer III byte stream into whole frames, so that a listener can begin at any of them.
#[derive(Debug, Default)]
struct Mp3Frames {
    pending: Vec<u8>,
}

impl Mp3Frames {
    /// PCM frames per MPEG-1 layer III frame.
    const SAMPLES: u64 = 1152;

    /// Where to append bytes from the encoder.
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Hands every complete frame to `frame`.
    fn cut(&mut self, frame: &mut impl FnMut(&[u8])) {
        let mut used = 0;
        while let Some(length) = frame_length(&self.pending[used..]) {
            let Some(bytes) = self.pending.get(used..used + length) else { break };
            frame(bytes);
            used += length;
        }
        self.pending.drain(..used);
    }
}

/// Length in bytes of the MPEG-1 layer III frame that begins here; `None` if its header is not
/// complete or not one.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let &[0xff, second, third, _, ..] = bytes else { return None };
    if second & 0xfe != 0xfa {
        return None;
    }
    length(usize::from(third >> 4), usize::from(third >> 2 & 3), usize::from(third >> 1 & 1))
}

/// Length in bytes of a frame of the `kbps`-th bit rate and the `rate`-th rate.
fn length(kbps: usize, rate: usize, padding: usize) -> Option<usize> {
    const KBPS: [usize; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const RATES: [usize; 3] = [44_100, 48_000, 32_000];
    let length = 144_000 * KBPS.get(kbps)? / RATES.get(rate)? + padding;
    (length > 4).then_some(length)
}

/// What frames leave for later ones: a frame's data may begin in the frames before it, up to 511
/// bytes earlier.
#[derive(Debug, Default)]
struct Mp3Reservoir {
    data: Vec<u8>,
}

impl Mp3Reservoir {
    /// Bytes that a frame may look back.
    const LONGEST: usize = 511;

    /// Takes note of a frame that goes by, which is MPEG-1 layer III without a checksum. Returns a
    /// silent frame that holds what this one needs of those before it: whoever begins here and
    /// hears that frame first, hears this one whole. Empty when it needs nothing.
    fn pass(&mut self, frame: &[u8]) -> Vec<u8> {
        let mono = frame.get(3).is_some_and(|byte| byte >> 6 == 3);
        let start = 4 + if mono { 17 } else { 32 };
        let Some(data) = frame.get(start..) else { return Vec::new() };
        // The first nine bits behind the header.
        let needed = usize::from(frame[4]) << 1 | usize::from(frame[5] >> 7);
        let carrier = match self.data.len().checked_sub(needed) {
            Some(from) if needed > 0 => carrier(frame, start, &self.data[from..]),
            _ => Vec::new(),
        };
        self.data.extend_from_slice(data);
        self.data.drain(..self.data.len().saturating_sub(Self::LONGEST));
        carrier
    }
}

/// A silent frame of the kind of `like`, the shortest that ends with `data`.
fn carrier(like: &[u8], start: usize, data: &[u8]) -> Vec<u8> {
    let rate = usize::from(like[2] >> 2 & 3);
    let fits = |kbps: &usize| length(*kbps, rate, 0).is_some_and(|length| length >= start + data.len());
    let Some((kbps, length)) = (1..15).find(fits).and_then(|kbps| Some((kbps, length(kbps, rate, 0)?))) else {
        return Vec::new();
    };
    // No parts, no bits of any of them: everything behind the side information is stuffing.
    let mut frame = vec![0; length - data.len()];
    frame[..4].copy_from_slice(&[like[0], like[1], (kbps as u8) << 4 | like[2] & 0x0c, like[3] & 0xcf]);
    frame.extend_from_slice(data);
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_of_lame_belongs_to_a_frame() {
        for (rate, channels, kbps) in [(48_000, 2, 128), (48_000, 1, 96), (32_000, 1, 96), (44_100, 2, 192)] {
            let mut encoder = Mp3Encoder::new(rate, channels, kbps).unwrap();
            let (mut frames, mut lengths) = (Mp3Frames::default(), Vec::new());
            let pcm: Vec<f32> = (0..rate as usize * channels).map(|n| (n as f32 * 0.05).sin()).collect();
            for chunk in pcm.chunks(1000) {
                encoder.push(chunk, frames.buffer()).unwrap();
                frames.cut(&mut |frame| lengths.push(frame.len()));
            }
            encoder.finish(frames.buffer()).unwrap();
            frames.cut(&mut |frame| lengths.push(frame.len()));
            assert!(frames.pending.is_empty(), "{} bytes are left", frames.pending.len());
            let seconds = lengths.len() as f64 * Mp3Frames::SAMPLES as f64 / f64::from(rate);
            assert!((1.0..1.15).contains(&seconds), "{seconds} s at {rate} Hz");
            let bits = lengths.iter().sum::<usize>() as f64 * 8.0 / seconds;
            assert!((bits / f64::from(kbps) / 1000.0 - 1.0).abs() < 0.01, "{bits} bit/s");
        }
    }

    #[test]
    fn who_begins_in_the_middle_hears_the_first_frame_whole() {
        for (channels, kbps) in [(1, 64), (2, 96), (2, 128), (2, 192), (2, 320)] {
            let mut encoder = Mp3Encoder::new(48_000, channels, kbps).unwrap();
            let (mut cut, mut frames) = (Mp3Frames::default(), Vec::new());
            // Quiet and loud in turns: what the quiet frames save the loud ones use.
            let pcm =
                (0..96_000 * channels).map(|n| (n as f32 * 0.37).sin() * if n / 9600 % 2 == 0 { 0.001 } else { 0.8 });
            encoder.push(&pcm.collect::<Vec<_>>(), cut.buffer()).unwrap();
            cut.cut(&mut |frame| frames.push(frame.to_vec()));
            let whole = crate::audio::decode(frames.concat()).unwrap();
            let mut reservoir = Mp3Reservoir::default();
            let carriers: Vec<_> = frames.iter().map(|frame| reservoir.pass(frame)).collect();
            assert!(kbps > 192 || carriers.iter().filter(|carrier| !carrier.is_empty()).count() > 20);
            for (first, carrier) in carriers.iter().enumerate().take(50).skip(10) {
                let joined = crate::audio::decode([&carrier[..], &frames[first..].concat()].concat()).unwrap();
                let block = 1152 * channels;
                let from = if carrier.is_empty() { 0 } else { block };
                // What it overlaps with was not sent, and the filters' memory of it is 1056 samples
                // long.
                let settled = 1060 * channels;
                let (ours, theirs) = (&joined.pcm[from + settled..from + block], &whole.pcm[first * block + settled..]);
                let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 0.02, "frame {first} of {channels} channels at {kbps} kbit/s is off by {off}");
            }
        }
    }

    #[test]
    fn the_nearest_bit_rate_is_taken() {
        assert_eq!([1, 100, 130, 999].map(|kbps| nearest(kbps).0), [32, 96, 128, 320]);
    }
}
