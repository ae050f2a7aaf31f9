//! What is kept of a rendition: its last segments, in parts.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;

use super::{Position, Segment};
use crate::audio::hls::{Muxed, PART, Part, SEGMENT};

/// Segments in a playlist: a minute.
const LISTED: usize = 20;
/// Segments that are kept. Whoever has an old playlist may fetch what is in it for as long as it lasts (RFC 8216 section
/// 6.2.2).
const KEPT: usize = 2 * LISTED;
/// Segments beyond the newest that a player may wait for.
const AHEAD: u64 = 2;

/// Segments that follow each other; the last one may be growing.
#[derive(Default)]
pub(super) struct Track {
    segments: VecDeque<Made>,
}

struct Made {
    number: u64,
    frames: u64,
    whole: bool,
    parts: Vec<Muxed>,
}

impl Track {
    /// Adds the next part. Begins anew if it does not follow the last one.
    pub(super) fn add(&mut self, part: &Part, muxed: Muxed) {
        let end = self.segments.back().map(|last| last.number * SEGMENT + last.frames);
        if end != Some(part.start) {
            self.segments.clear();
        }
        if part.is_first() || self.segments.is_empty() {
            self.segments.push_back(Made { number: part.segment(), frames: 0, whole: false, parts: Vec::new() });
        }
        if let Some(last) = self.segments.back_mut() {
            last.frames += part.frames;
            last.whole = last.frames == SEGMENT;
            last.parts.push(muxed);
        }
        while self.segments.len() > KEPT {
            self.segments.pop_front();
        }
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self) {
        if let Some(last) = self.segments.back_mut() {
            last.whole = true;
        }
    }

    pub(super) fn has_whole(&self) -> bool {
        self.segments.front().is_some_and(|first| first.whole)
    }

    /// What a playlist lists.
    pub(super) fn listed(&self, date: impl Fn(u64) -> SystemTime) -> impl Iterator<Item = Segment> {
        let whole = self.segments.iter().filter(|made| made.whole).count();
        self.segments.iter().skip(whole.saturating_sub(LISTED)).map(move |made| Segment {
            number: made.number,
            frames: made.frames,
            parts: made.parts.len() as u64,
            whole: made.whole,
            date: date(made.number * SEGMENT),
        })
    }

    fn find(&self, segment: u64) -> Option<&Made> {
        let first = self.segments.front()?.number;
        self.segments.get(usize::try_from(segment.checked_sub(first)?).ok()?)
    }

    /// The position after the last part.
    fn next(&self) -> Option<(u64, u64)> {
        let last = self.segments.back()?;
        Some(if last.whole { (last.number + 1, 0) } else { (last.number, last.parts.len() as u64) })
    }

    /// Whether everything up to a position is there.
    pub(super) fn has(&self, position: Position) -> bool {
        // A part beyond a segment's last one is the first of the next (rfc8216bis section 6.2.5.2).
        let beyond = position.part.filter(|part| *part >= SEGMENT / PART);
        let wanted = match (position.part, beyond) {
            (Some(part), None) => (position.segment, part + 1),
            (Some(_), Some(_)) => (position.segment + 1, 1),
            (None, _) => (position.segment + 1, 0),
        };
        self.next().is_some_and(|next| next >= wanted)
    }

    pub(super) fn is_far_ahead(&self, position: Position) -> bool {
        self.segments.back().is_some_and(|last| position.segment > last.number + AHEAD)
    }

    /// Whether a position is about to be made.
    pub(super) fn comes_next(&self, position: Position) -> bool {
        self.next().is_some_and(|(segment, part)| match position.part {
            Some(wanted) => (position.segment, wanted) == (segment, part),
            None => position.segment == segment,
        })
    }

    pub(super) fn bytes(&self, position: Position) -> Option<Bytes> {
        let made = self.find(position.segment)?;
        match position.part {
            Some(part) => {
                let Muxed { head, body } = made.parts.get(usize::try_from(part).ok()?)?;
                Some(if head.is_empty() { body.clone() } else { [&head[..], body].concat().into() })
            }
            None if made.whole => {
                let head = made.parts.first().map(|first| &first.head[..]);
                let pieces = head.into_iter().chain(made.parts.iter().map(|part| &part.body[..]));
                Some(pieces.collect::<Vec<_>>().concat().into())
            }
            None => None,
        }
    }

    /// The newest part.
    pub(super) fn edge(&self) -> Option<Position> {
        let last = self.segments.back()?;
        Some(Position { segment: last.number, part: (last.parts.len() as u64).checked_sub(1) })
    }
}
