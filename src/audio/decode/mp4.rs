//! MP4, M4A and MOV: which parts of the sound an edit list keeps.

use std::ops::Range;

use super::output::Output;
use super::{Trust, container};
use crate::audio::AudioError;

/// Boxes that a file may begin with.
const FIRST: [&[u8; 4]; 7] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"];

pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.get(4..8).is_some_and(|name| FIRST.iter().any(|first| name == *first))
}

pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let kept = edits(bytes);
    container::decode_parts(bytes, kept.as_deref(), output)
}

/// The boxes in a row, as names and bodies.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<4>()?;
        let (size, rest) = match u32::from_be_bytes(*size) {
            // To the end of the file.
            0 => (rest.len() as u64, rest),
            1 => {
                let (size, rest) = rest.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*size).checked_sub(16)?, rest)
            }
            size => (u64::from(size).checked_sub(8)?, rest),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        let body = &rest[..size];
        bytes = &rest[size..];
        Some((name, body))
    })
}

fn inner<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, name| boxes(bytes).find(|(found, _)| found == name).map(|(_, body)| body))
}

/// Seconds of the first sound track that its edit list keeps; `None` when it has no list that can
/// be followed.
fn edits(bytes: &[u8]) -> Option<Vec<Range<f64>>> {
    let movie = inner(bytes, &[b"moov"])?;
    let is_sound = |track: &&[u8]| {
        inner(track, &[b"mdia", b"hdlr"]).and_then(|body| body.get(8..12)).is_some_and(|kind| kind == b"soun")
    };
    let track = boxes(movie).filter(|(name, _)| *name == b"trak").map(|(_, body)| body).find(is_sound)?;
    let movie_scale = scale(inner(movie, &[b"mvhd"])?)?;
    let media_scale = scale(inner(track, &[b"mdia", b"mdhd"])?)?;
    let list = inner(track, &[b"edts", b"elst"])?;
    let wide = list.first()? == &1;
    let entry = if wide { 20 } else { 12 };
    let mut kept: Vec<Range<f64>> = Vec::new();
    for edit in list.get(8..)?.chunks_exact(entry) {
        let (length, start) = if wide {
            (u64::from_be_bytes(*edit.first_chunk()?), i64::from_be_bytes(*edit[8..].first_chunk()?))
        } else {
            let start = i32::from_be_bytes(*edit[4..].first_chunk()?);
            (u32::from_be_bytes(*edit.first_chunk()?).into(), start.into())
        };
        // Silence in front belongs to the film, not to the sound.
        if start < 0 {
            continue;
        }
        let start = start as f64 / media_scale;
        let end = if length == 0 { f64::INFINITY } else { start + length as f64 / movie_scale };
        if kept.last().is_some_and(|last| last.end > start) {
            return None;
        }
        kept.push(start..end);
    }
    (!kept.is_empty()).then_some(kept)
}

/// Ticks of a second, which `mvhd` and `mdhd` have in the same place.
fn scale(head: &[u8]) -> Option<f64> {
    let at = if head.first()? == &1 { 20 } else { 12 };
    let ticks = u32::from_be_bytes(*head.get(at..)?.first_chunk()?);
    (ticks > 0).then_some(ticks.into())
}
