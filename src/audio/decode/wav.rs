//! RIFF, RIFX, RF64, BW64 and Wave64, with sizes that lie: recorders that write into a pipe never
//! come back to them.

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS};

use super::output::{Output, PcmSpec};
use super::packets::Packets;
use super::pcm::{Coding, Pcm};
use super::{Trust, mp3, unreadable};
use crate::audio::AudioError;

/// GUIDs of Wave64 are a RIFF name and one of two endings.
const W64_RIFF: &[u8] = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0";
/// Bytes of a GUID and its size.
const W64_HEAD: usize = 24;
/// The end of the GUIDs that carry a format tag.
const TAG_GUID: &[u8] = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71";

const PCM: u16 = 1;
const ADPCM_MS: u16 = 2;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const ADPCM_IMA: u16 = 0x11;
const MPEG: u16 = 0x50;
const MP3: u16 = 0x55;
const EXTENSIBLE: u16 = 0xfffe;

pub(super) fn is_one(bytes: &[u8]) -> bool {
    let riff = [b"RIFF", b"RIFX", b"RF64", b"BW64"].iter().any(|name| bytes.starts_with(*name));
    (riff && bytes.get(8..12) == Some(b"WAVE")) || bytes.starts_with(W64_RIFF)
}

pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let chunks = if bytes.starts_with(W64_RIFF) { w64(bytes) } else { riff(bytes) };
    let format = chunks.format.ok_or_else(|| unreadable("it is a WAV without a format"))?;
    let data = chunks.data.ok_or_else(|| unreadable("it is a WAV without data"))?;
    Format::parse(format, bytes.starts_with(b"RIFX"))?.decode(data, output)
}

#[derive(Default)]
struct Chunks<'a> {
    format: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl Chunks<'_> {
    fn are_found(&self) -> bool {
        self.format.is_some() && self.data.is_some()
    }
}

/// What lies at `at`, at most to the end of the file.
fn part(bytes: &[u8], at: usize, size: u64) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    &rest[..usize::try_from(size).unwrap_or(usize::MAX).min(rest.len())]
}

fn riff(bytes: &[u8]) -> Chunks<'_> {
    let size_of = if bytes.starts_with(b"RIFX") { u32::from_be_bytes } else { u32::from_le_bytes };
    let (mut chunks, mut at, mut long) = (Chunks::default(), 12, None);
    while let Some(&[a, b, c, d, e, f, g, h]) = bytes.get(at..).and_then(<[u8]>::first_chunk)
        && !chunks.are_found()
    {
        let (name, mut size) = ([a, b, c, d], u64::from(size_of([e, f, g, h])));
        at += 8;
        match &name {
            // The sizes of more than 4 GB: of the file, then of the data.
            b"ds64" => long = bytes.get(at + 8..at + 16).and_then(<[u8]>::first_chunk).copied().map(u64::from_le_bytes),
            b"fmt " => chunks.format = Some(part(bytes, at, size)),
            b"data" => {
                if let Some(long) = long
                    && size == u64::from(u32::MAX)
                {
                    size = long;
                }
                // Nothing yet, or everything: whoever wrote it could not know.
                let open = size == 0 || size == u64::from(u32::MAX);
                chunks.data = Some(part(bytes, at, if open { u64::MAX } else { size }));
            }
            _ => {}
        }
        at = at.saturating_add(usize::try_from(size + size % 2).unwrap_or(usize::MAX));
    }
    chunks
}

fn w64(bytes: &[u8]) -> Chunks<'_> {
    let (mut chunks, mut at) = (Chunks::default(), W64_HEAD + 16);
    while let Some(head) = bytes.get(at..at + W64_HEAD)
        && !chunks.are_found()
    {
        let mut size = [0; 8];
        size.copy_from_slice(&head[16..]);
        let size = u64::from_le_bytes(size);
        let open = size <= W64_HEAD as u64 || size > i64::MAX as u64;
        let body = part(bytes, at + W64_HEAD, if open { u64::MAX } else { size - W64_HEAD as u64 });
        match &head[..4] {
            b"fmt " => chunks.format = Some(body),
            b"data" => chunks.data = Some(body),
            _ => {}
        }
        // Chunks begin at multiples of eight.
        at = at.saturating_add(usize::try_from(size.max(W64_HEAD as u64)).unwrap_or(usize::MAX));
        at = at.checked_next_multiple_of(8).unwrap_or(usize::MAX);
    }
    chunks
}

/// What a `fmt ` chunk of any length says.
struct Format {
    tag: u16,
    spec: PcmSpec,
    block: usize,
    bits: u16,
    big_endian: bool,
}

impl Format {
    fn parse(chunk: &[u8], big_endian: bool) -> Result<Self, AudioError> {
        let word = |at: usize| {
            let two = [*chunk.get(at)?, *chunk.get(at + 1)?];
            Some(if big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
        };
        let needed = |at| word(at).ok_or_else(|| unreadable("its WAV format is cut off"));
        let mut tag = needed(0)?;
        if tag == EXTENSIBLE {
            tag = match chunk.get(26..40) {
                Some(guid) if guid == TAG_GUID => needed(24)?,
                // Ambisonic PCM has GUIDs of its own, with the tag in the same place.
                Some(_) if matches!(word(24), Some(PCM | FLOAT)) => needed(24)?,
                _ => return Err(unreadable("its WAV format has a name that is not known")),
            };
        }
        let (low, high) = (needed(4)?, needed(6)?);
        let (low, high) = if big_endian { (high, low) } else { (low, high) };
        let spec = PcmSpec { rate: u32::from(high) << 16 | u32::from(low), channels: needed(2)?.into() };
        if spec.channels == 0 {
            return Err(unreadable("it has no channels"));
        }
        // The oldest format chunk ends before the bits.
        let bits = word(14).filter(|&bits| bits > 0).unwrap_or(8);
        Ok(Self { tag, spec, block: needed(12)?.into(), bits, big_endian })
    }

    fn decode(&self, data: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
        let bytes = usize::from(self.bits.div_ceil(8));
        let coding = match (self.tag, bytes) {
            (PCM, 1) => Coding::Unsigned8,
            (PCM, 2 | 3 | 4 | 8) => Coding::Signed(bytes),
            (FLOAT, 4) => Coding::Float32,
            (FLOAT, 8) => Coding::Float64,
            (A_LAW, _) => Coding::ALaw,
            (MU_LAW, _) => Coding::MuLaw,
            (MPEG | MP3, _) => return mp3::decode(data, output),
            (ADPCM_MS | ADPCM_IMA, _) => return self.adpcm(data, output),
            (tag, _) => {
                let reason = format!("it is a WAV of a kind that is not known ({tag:#x}, {} bits)", self.bits);
                return Err(unreadable(reason));
            }
        };
        Pcm { coding, big_endian: self.big_endian, spec: self.spec }.decode(data, output)?;
        Ok(Trust::Whole)
    }

    fn adpcm(&self, data: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
        let PcmSpec { rate, channels } = self.spec;
        let (codec, head, first) = if self.tag == ADPCM_MS {
            (CODEC_ID_ADPCM_MS, 7 * channels, 2)
        } else {
            (CODEC_ID_ADPCM_IMA_WAV, 4 * channels, 1)
        };
        if self.block <= head || self.bits != 4 || channels > 2 {
            return Err(unreadable("its ADPCM blocks are of no known shape"));
        }
        let frames = (first + (self.block - head) * 2 / channels) as u64;
        let mut parameters = AudioCodecParameters::new();
        parameters
            .for_codec(codec)
            .with_sample_rate(rate)
            .with_channels(Channels::Discrete(channels as u16))
            .with_max_frames_per_packet(frames)
            .with_frames_per_block(frames);
        let mut packets = Packets::new(&parameters)?;
        for block in data.chunks_exact(self.block) {
            if let Some(spec) = packets.decode(block, frames)? {
                output.push(spec, &mut packets.pcm)?;
            }
        }
        // ffmpeg reads a last block that is not whole, too.
        Ok(if data.len().is_multiple_of(self.block) { packets.trust } else { Trust::Doubtful })
    }
}
