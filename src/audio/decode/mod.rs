//! Files to PCM: WAV, AIFF, AU and CAF of every width, FLAC, MP3, Ogg (Vorbis, Opus, FLAC), MP4 and
//! WebM.
//!
//! What comes in is hostile until it is decoded: the work stops at a length and at a size, whatever
//! a header claims. A length that a header tells is a guess and never cuts sound; where a file is
//! several, one behind the other, all of them are heard. Memory, time and crashes of parsers are
//! bounded by whoever calls, see `sandbox`.

mod aiff;
mod container;
mod flac;
mod mp3;
mod mp4;
mod ogg;
mod opus;
mod output;
mod packets;
mod pcm;
#[cfg(test)]
mod tests;
mod wav;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use output::{MAX_SECONDS, Parts, PcmSpec, Take};

use super::AudioError;
use crate::pcm::Pcm;
use output::Output;

/// Whether another decoder might hear more in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Trust {
    /// All of it was understood.
    Whole,
    /// Parts were damaged, or in a dialect that is only half understood.
    Doubtful,
}

impl Trust {
    fn and(self, other: Self) -> Self {
        if self == Self::Whole { other } else { self }
    }
}

/// Decodes a whole file, of which the container is found by its content.
///
/// # Errors
/// [`AudioError::Unreadable`], [`AudioError::Silent`] when there is no sample in it,
/// [`AudioError::TooLong`].
pub fn decode(bytes: impl AsRef<[u8]>) -> Result<Pcm, AudioError> {
    let mut parts = Parts::default();
    let _ = decode_to(bytes.as_ref(), &mut |spec, pcm| parts.push(spec, pcm))?;
    parts.join()
}

/// As [`decode`], but hands the sound on block by block, so that only the file is in memory. Blocks
/// may differ in rate and channels: then the file consists of several.
///
/// # Errors
/// As [`decode`], and whatever `take` gives.
pub fn decode_to(bytes: &[u8], take: Take<'_>) -> Result<Trust, AudioError> {
    let mut output = Output::new(take, MAX_SECONDS);
    // Parsers of other people meet files that nobody thought of.
    let done = catch_unwind(AssertUnwindSafe(|| dispatch(bytes, &mut output)));
    let trust = done.unwrap_or_else(|_| Err(unreadable("its parts contradict each other")))?;
    if output.is_silent() { Err(AudioError::Silent) } else { Ok(trust) }
}

fn dispatch(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    if bytes.is_empty() {
        return Err(unreadable("it is empty"));
    }
    let body = behind_tags(bytes);
    match body {
        _ if wav::is_one(body) => wav::decode(body, output),
        // A film, whose sound is cut into pieces.
        [b'R', b'I', b'F', b'F', ..] => Err(unreadable("it is no WAV but another kind of RIFF")),
        [b'F', b'O', b'R', b'M', ..] => aiff::decode(body, output),
        [b'.', b's', b'n', b'd', ..] => aiff::decode_au(body, output),
        [b'O', b'g', b'g', b'S', ..] => ogg::decode(body, output),
        [b'f', b'L', b'a', b'C', ..] => flac::decode(body, output),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => container::decode_matroska(body, output),
        [b'c', b'a', b'f', b'f', ..] => container::decode(body, output),
        _ if mp4::is_one(body) => mp4::decode(body, output),
        // ADTS: the synchronisation word of MPEG audio with layer 0.
        [0xff, second, ..] if second & 0xf6 == 0xf0 => container::decode(body, output),
        _ => match junk(body) {
            Some(at) if body[at] == b'O' => ogg::decode(&body[at..], output),
            Some(at) => flac::decode(&body[at..], output),
            None => mp3::decode(body, output),
        },
    }
}

/// Bytes before an Ogg or FLAC stream that has something else in front.
fn junk(bytes: &[u8]) -> Option<usize> {
    const FAR: usize = 64 << 10;
    let near = &bytes[..mp3::first(bytes).unwrap_or(bytes.len()).min(FAR)];
    near.windows(4).position(|four| four == b"OggS" || four == b"fLaC")
}

/// A file behind its ID3v2 tags; pictures in them may be megabytes.
fn behind_tags(mut bytes: &[u8]) -> &[u8] {
    while let Some(length) = id3v2_length(bytes) {
        bytes = bytes.get(length..).unwrap_or_default();
    }
    bytes
}

/// Length of the ID3v2 tag that begins here.
fn id3v2_length(bytes: &[u8]) -> Option<usize> {
    let &[b'I', b'D', b'3', major, _, flags, a, b, c, d, ..] = bytes else { return None };
    if major == 0xff || [a, b, c, d].iter().any(|&byte| byte > 127) {
        return None;
    }
    let size = [a, b, c, d].iter().fold(0, |size, &byte| size << 7 | usize::from(byte));
    Some(10 + size + if flags & 0x10 == 0 { 0 } else { 10 })
}

fn unreadable(reason: impl std::fmt::Display) -> AudioError {
    AudioError::Unreadable(reason.to_string())
}
