//! AIFF, AIFF-C and AU: samples behind a small header, big end first unless it says otherwise.

use super::output::{Output, PcmSpec};
use super::pcm::{Coding, Pcm};
use super::{Trust, container, unreadable};
use crate::audio::AudioError;

pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let (mut common, mut sound, mut at) = (None, None, 12);
    while let Some(head) = bytes.get(at..at + 8)
        && (common.is_none() || sound.is_none())
    {
        let size = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        at += 8;
        let rest = bytes.get(at..).unwrap_or_default();
        let body = &rest[..size.min(rest.len())];
        match &head[..4] {
            b"COMM" => common = Some(body),
            // Whoever wrote into a pipe could not know the size.
            b"SSND" => sound = Some(if size <= 8 || size == u32::MAX as usize { rest } else { body }),
            _ => {}
        }
        at = at.saturating_add(size.saturating_add(size % 2));
    }
    let (Some(common), Some(sound)) = (common, sound) else {
        return Err(unreadable("it is an AIFF without sound"));
    };
    let &[c0, c1, _, _, _, _, b0, b1, e0, e1, m0, m1, m2, m3, m4, m5, m6, m7, ref kind @ ..] = common else {
        return Err(unreadable("its AIFF format is cut off"));
    };
    let (channels, bits) = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([b0, b1]));
    let rate = extended(u16::from_be_bytes([e0, e1]), u64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]));
    let bytes_each = usize::from(bits.div_ceil(8));
    let (coding, big_endian) = match (kind.get(..4).unwrap_or(b"NONE"), bytes_each) {
        (b"NONE" | b"twos" | b"in24" | b"in32", 1..=4) => (Coding::Signed(bytes_each), true),
        (b"sowt" | b"42ni" | b"23ni", 1..=4) => (Coding::Signed(bytes_each), false),
        (b"raw ", _) => (Coding::Unsigned8, true),
        (b"fl32" | b"FL32", _) => (Coding::Float32, true),
        (b"fl64" | b"FL64", _) => (Coding::Float64, true),
        (b"alaw" | b"ALAW", _) => (Coding::ALaw, true),
        (b"ulaw" | b"ULAW", _) => (Coding::MuLaw, true),
        _ => return container::decode(bytes, output),
    };
    let offset = sound.first_chunk().map_or(0, |&four| u32::from_be_bytes(four) as usize);
    let data = sound.get(offset.saturating_add(8)..).unwrap_or_default();
    Pcm { coding, big_endian, spec: PcmSpec { rate, channels: channels.into() } }.decode(data, output)?;
    Ok(Trust::Whole)
}

/// A rate as a float of 80 bits.
fn extended(exponent: u16, mantissa: u64) -> u32 {
    let shift = 16_383 + 63 - i32::from(exponent & 0x7fff);
    if (0..64).contains(&shift) { (mantissa >> shift).try_into().unwrap_or(u32::MAX) } else { 0 }
}

/// The format of NeXT and Sun, which Java and many small tools still write.
pub(super) fn decode_au(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let field = |at: usize| bytes.get(at..at + 4)?.first_chunk().map(|&four| u32::from_be_bytes(four));
    let needed = |at| field(at).ok_or_else(|| unreadable("its AU header is cut off"));
    let (start, size, kind) = (needed(4)? as usize, needed(8)?, needed(12)?);
    let spec = PcmSpec { rate: needed(16)?, channels: needed(20)? as usize };
    let coding = match kind {
        1 => Coding::MuLaw,
        2..=5 => Coding::Signed(kind as usize - 1),
        6 => Coding::Float32,
        7 => Coding::Float64,
        27 => Coding::ALaw,
        _ => return Err(unreadable(format!("it is an AU file of a kind that is not known ({kind})"))),
    };
    let rest = bytes.get(start..).unwrap_or_default();
    let open = size == 0 || size == u32::MAX;
    let data = if open { rest } else { &rest[..rest.len().min(size as usize)] };
    Pcm { coding, big_endian: true, spec }.decode(data, output)?;
    Ok(Trust::Whole)
}
