//! What is kept of a rendition: its last segments, in parts.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;

use super::{Position, Segment};
use crate::audio::hls::{Muxed, Part, SEGMENT};

/// Segments in a playlist: a minute.
const LISTED: usize = 20;
/// Segments that are kept. Whoever has an old playlist may fetch what is in it for as long as it
/// lasts (RFC 8216 section 6.2.2).
const KEPT: usize = 2 * LISTED;

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

    /// Its first segment.
    pub(super) fn first(&self) -> Option<u64> {
        self.segments.front().map(|first| first.number)
    }

    /// The first segment that a playlist lists which has no others.
    pub(super) fn first_listed(&self) -> Option<u64> {
        let whole = self.segments.iter().filter(|made| made.whole).count();
        self.segments.get(whole.saturating_sub(LISTED)).map(|first| first.number)
    }

    /// Its segments from a number on.
    pub(super) fn since(&self, number: u64, date: impl Fn(u64) -> SystemTime) -> impl Iterator<Item = Segment> {
        let since = self.segments.iter().skip_while(move |made| made.number < number);
        since.map(move |made| Segment {
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

    /// The position after the last part: a segment and a part of it.
    pub(super) fn next(&self) -> Option<(u64, u64)> {
        let last = self.segments.back()?;
        Some(if last.whole { (last.number + 1, 0) } else { (last.number, last.parts.len() as u64) })
    }

    pub(super) fn bytes(&self, position: Position) -> Option<Bytes> {
        let made = self.find(position.segment)?;
        match position.part {
            Some(part) => {
                let Muxed { head, body } = made.parts.get(usize::try_from(part).ok()?)?;
                Some(if head.is_empty() { body.clone() } else { [&head[..], body].concat().into() })
            }
            None => made.whole.then(|| made.joined()),
        }
    }

    /// The bytes of its newest segment.
    pub(super) fn joined(&self) -> Bytes {
        self.segments.back().map_or_else(Bytes::new, Made::joined)
    }

    /// The newest part.
    pub(super) fn edge(&self) -> Option<Position> {
        let last = self.segments.back()?;
        Some(Position { segment: last.number, part: (last.parts.len() as u64).checked_sub(1) })
    }
}

impl Made {
    fn joined(&self) -> Bytes {
        let head = self.parts.first().map(|first| &first.head[..]);
        let pieces = head.into_iter().chain(self.parts.iter().map(|part| &part.body[..]));
        pieces.collect::<Vec<_>>().concat().into()
    }
}
