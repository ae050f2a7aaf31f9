//! What a journal consists of, and how it is written down.
//!
//! ```text
//! record   kind (1 byte) · length (4, little endian) · payload · CRC-32 of all before it (4)
//! piece    a head, the change, the run and the clock in force, then records as they come
//! ```
//!
//! Heads and marks are JSON: they are few, and readers of another version skip what they do not
//! know. Sound is packed.

use serde::{Deserialize, Serialize};

use super::super::{Idle, StreamInfo};
use super::bits;
use crate::audio::checksum;
use crate::engine::{CodecShape, Sampling, WeightedPrompt};
use crate::units::ModelId;

/// Raised when older servers cannot read what is written.
pub(super) const VERSION: u32 = 1;
/// Bytes of a record beside its payload.
const AROUND: usize = 9;
/// No payload is longer: what says so is damaged.
const LONGEST: usize = 1 << 20;
const HEAD: u8 = 1;
const MARK: u8 = 2;
const SOUND: u8 = 3;

/// A record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Head(Head),
    Mark(Mark),
    Sound(Sound),
}

/// The beginning of a piece: what it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) version: u32,
    /// Identity of the stream.
    pub(super) stream: String,
    pub(super) origin: Origin,
    pub(super) channels: usize,
    /// Media time at which the piece begins, in frames of 48 kHz as everywhere here.
    pub(super) start: u64,
    /// Frames before it that were silence of pauses: voice time is media time without them.
    pub(super) silence: u64,
}

/// How a stream came to be, for one that goes on when a server starts again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(in super::super) struct Origin {
    /// Name for people.
    pub(in super::super) name: Option<String>,
    /// Whoever made it wants it to stay.
    pub(in super::super) keep: bool,
    /// Nobody else makes it again: it comes back by itself.
    pub(in super::super) returns: bool,
    /// What it was begun with.
    pub(in super::super) prompts: Vec<WeightedPrompt>,
    /// Seconds of nothing new that are too many, if that was said.
    pub(in super::super) max_still: Option<f32>,
    /// A voice with one channel is heard in a room.
    #[serde(default)]
    pub(in super::super) room: bool,
    /// What happens when its last listener leaves, where another process may go on at once.
    #[serde(default)]
    pub(in super::super) idle: Option<Idle>,
    /// Its length in seconds, if it has one.
    #[serde(default)]
    pub(in super::super) seconds: Option<f64>,
}

impl Origin {
    /// The stream outlives a server.
    pub(in super::super) fn stays(&self) -> bool {
        self.keep || self.name.is_some()
    }
}

/// Something that happened at a media time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Media time from which on it is heard.
    pub(super) at: u64,
    /// When it was asked for or happened, in microseconds since 1970.
    pub(super) wall: u64,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub(super) enum What {
    /// The stream was begun or changed; all that is in force from here on.
    Change(Change),
    /// Another run of codes, or the first one.
    Run(Run),
    /// Players play this frame at the wall-clock time of the mark, and the following ones at the
    /// pace of real time.
    Play,
    /// So many frames of silence were put in.
    Silence { frames: u64 },
    /// The sound rises from silence over so many frames, or falls to it.
    Fade { frames: u64, rises: bool },
    /// Nothing follows.
    End { reason: Option<String> },
}

/// What was asked of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Change {
    pub(in super::super) cause: Cause,
    pub(in super::super) prompts: Vec<WeightedPrompt>,
    pub(in super::super) sampling: Sampling,
    pub(in super::super) model: ModelId,
    /// Seconds over which the prompts replace those before.
    pub(in super::super) ramp: f32,
}

impl Change {
    /// What is in force in a stream.
    pub(in super::super) fn of(cause: Cause, info: &StreamInfo, ramp: f32) -> Self {
        let StreamInfo { prompts, sampling, model, .. } = info;
        Self { cause, prompts: prompts.clone(), sampling: *sampling, model: model.clone(), ramp }
    }
}

/// Why there is a change; of several at the same media time the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Cause {
    Steer,
    Model,
    Reset,
    Begin,
}

/// Codes without a break between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Counts the runs of a journal.
    pub(super) number: u32,
    /// Voice time, in frames of 48 kHz, at which the voice began: its samples count from there.
    pub(super) base: u64,
    /// The sample of the voice at which the run's frame 0 sounds, or would.
    pub(super) origin: i64,
    fingerprint: u64,
    rate: u32,
    channels: usize,
    hop: usize,
    codebooks: usize,
    card: u32,
    lookahead: usize,
}

impl Run {
    pub(super) fn new(number: u32, base: u64, origin: i64, codec: CodecShape) -> Self {
        let CodecShape { fingerprint, rate, channels, hop, codebooks, card, lookahead } = codec;
        Self { number, base, origin, fingerprint, rate, channels, hop, codebooks, card, lookahead }
    }

    pub(super) fn codec(&self) -> CodecShape {
        let Self { fingerprint, rate, channels, hop, codebooks, card, lookahead, .. } = *self;
        CodecShape { fingerprint, rate, channels, hop, codebooks, card, lookahead }
    }
}

/// Codes, and what is to be done with their sound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sound {
    /// Media time before which all sound can be made from the records up to this one.
    pub(super) end: u64,
    pub(super) run: u32,
    /// The first of these frames.
    pub(super) first: u64,
    /// Codes of a frame, and below what they are.
    pub(super) codebooks: usize,
    pub(super) card: u32,
    /// `[frames][codebooks]`, flattened.
    pub(super) codes: Vec<u32>,
    /// Levels, in hundredths of a decibel, from these blocks of 100 ms on; the first one is that in
    /// force before.
    pub(super) levels: Vec<(u64, i16)>,
}

impl Record {
    /// Appends the record's bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match self {
            Self::Head(_) => HEAD,
            Self::Mark(_) => MARK,
            Self::Sound(_) => SOUND,
        };
        out.push(kind);
        out.extend([0; 4]);
        // Writing plain values to memory does not fail.
        match self {
            Self::Head(head) => out.extend(serde_json::to_vec(head).unwrap_or_default()),
            Self::Mark(mark) => out.extend(serde_json::to_vec(mark).unwrap_or_default()),
            Self::Sound(sound) => sound.write(out),
        }
        let length = (out.len() - start - 5) as u32;
        out[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&[&out[start..]]);
        out.extend(sum.to_le_bytes());
    }

    /// The record at the beginning of `bytes` and its length; `None` where no whole one is. A
    /// record that this version does not know is `None` with its length.
    pub(super) fn read(bytes: &[u8]) -> Option<(Option<Self>, usize)> {
        let &[kind, a, b, c, d, ref rest @ ..] = bytes else { return None };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if kind == 0 || length > LONGEST || rest.len() < length + 4 {
            return None;
        }
        let (payload, sum) = (&rest[..length], &rest[length..length + 4]);
        if sum != checksum(&[&bytes[..5 + length]]).to_le_bytes() {
            return None;
        }
        let record = match kind {
            HEAD => serde_json::from_slice(payload).ok().map(Self::Head),
            MARK => serde_json::from_slice(payload).ok().map(Self::Mark),
            SOUND => Sound::read(payload).map(Self::Sound),
            _ => None,
        };
        Some((record, length + AROUND))
    }
}

impl Sound {
    fn write(&self, out: &mut Vec<u8>) {
        let frames = self.codes.len() / self.codebooks.max(1);
        let (from, level) = self.levels.first().copied().unwrap_or_default();
        out.extend(self.end.to_le_bytes());
        out.extend(self.run.to_le_bytes());
        out.extend(self.first.to_le_bytes());
        out.extend((frames as u32).to_le_bytes());
        out.extend([self.codebooks as u8, bits::width(self.card) as u8]);
        out.extend((from as u32).to_le_bytes());
        out.extend(level.to_le_bytes());
        out.push(self.levels.len().saturating_sub(1) as u8);
        for (block, level) in self.levels.iter().skip(1) {
            out.push((block - from) as u8);
            out.extend(level.to_le_bytes());
        }
        bits::pack(&self.codes, bits::width(self.card), out);
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (first, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(*first)
        }
        let bytes = &mut bytes;
        let (end, run) = (u64::from_le_bytes(take(bytes)?), u32::from_le_bytes(take(bytes)?));
        let (first, frames) = (u64::from_le_bytes(take(bytes)?), u32::from_le_bytes(take(bytes)?));
        let [codebooks, width] = take(bytes)?;
        let (from, level) = (u32::from_le_bytes(take(bytes)?), i16::from_le_bytes(take(bytes)?));
        let [changes] = take(bytes)?;
        let mut levels = vec![(u64::from(from), level)];
        for _ in 0..changes {
            let [later, low, high] = take(bytes)?;
            levels.push((u64::from(from) + u64::from(later), i16::from_le_bytes([low, high])));
        }
        let codes = bits::unpack(bytes, frames as usize * usize::from(codebooks), width.into())?;
        Some(Self {
            end,
            run,
            first,
            codebooks: codebooks.into(),
            card: 1u32.checked_shl(width.into())?,
            codes,
            levels,
        })
    }

    /// The frame behind the last one.
    pub(super) fn frames_end(&self) -> u64 {
        self.first + (self.codes.len() / self.codebooks.max(1)) as u64
    }
}

/// The records of a piece with the places behind them, up to the first that is not whole.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = (Record, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let (record, length) = Record::read(bytes.get(at..)?)?;
            at += length;
            if let Some(record) = record {
                return Some((record, at));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(first: u64) -> Record {
        let codes = (0..40).map(|n| n * 37 % 2048).collect();
        let levels = vec![(12, -150), (14, -156), (20, -162)];
        Record::Sound(Sound { end: 96_000, run: 3, first, codebooks: 4, card: 2048, codes, levels })
    }

    fn mark() -> Record {
        Record::Mark(Mark { at: 5, wall: 6, what: What::Fade { frames: 960, rises: true } })
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_or_damaged_tail_is_not() {
        let all = [mark(), sound(0), mark(), sound(10)];
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for record in &all {
            record.write(&mut bytes);
            places.push(bytes.len());
        }
        let read: Vec<_> = records(&bytes).collect();
        assert_eq!(read, all.into_iter().zip(places.clone()).collect::<Vec<_>>());
        for cut in [places[2] + 1, bytes.len() - 1] {
            assert_eq!(records(&bytes[..cut]).count(), 3, "{cut}");
        }
        let mut damaged = bytes.clone();
        damaged[places[0] + 20] ^= 1;
        assert_eq!(records(&damaged).count(), 1);
        // A file system may leave zeros where it knew the length and not the bytes.
        bytes.extend([0; 100]);
        assert_eq!(records(&bytes).count(), 4);
    }

    #[test]
    fn a_record_of_a_later_version_is_passed_over() {
        let (mut bytes, mut later) = (Vec::new(), Vec::new());
        mark().write(&mut bytes);
        sound(1).write(&mut later);
        later[0] = 77;
        let end = later.len() - 4;
        let sum = checksum(&[&later[..end]]);
        later.truncate(end);
        later.extend(sum.to_le_bytes());
        bytes.extend(later);
        mark().write(&mut bytes);
        assert_eq!(records(&bytes).count(), 2);
    }

    #[test]
    fn two_seconds_of_a_full_size_model_take_less_than_six_hundred_bytes() {
        let codes = vec![2047; 400];
        let sound = Sound { end: 0, run: 0, first: 0, codebooks: 4, card: 2048, codes, levels: vec![(0, 0)] };
        let mut bytes = Vec::new();
        Record::Sound(sound).write(&mut bytes);
        assert!(bytes.len() < 600, "{}", bytes.len());
    }
}
