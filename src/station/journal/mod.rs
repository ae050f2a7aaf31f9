//! The journal of a stream: everything that was heard of it, as codes, with what was asked of it
//! and when.
//!
//! Codes are written down once the stream's task has taken their sound, so a rewind rewrites
//! nothing. From them, and from the levels and the silences that stand beside them, [`Replay`]
//! makes the sound again that was heard.
//!
//! Media time is counted in frames of 48 kHz, as everywhere in the station. *Voice time* is media
//! time without the silence of pauses; the runs of codes lie in it.

mod bits;
mod codes;
mod history;
mod index;
mod journals;
mod reader;
mod record;
mod replay;
mod scribe;
mod seam;
mod shelf;
mod sound;
#[cfg(test)]
mod tests;
mod wall;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use metrics::gauge;
use tokio::sync::watch;

pub use self::history::History;
pub use self::journals::Journals;
pub use self::replay::Replay;
pub(super) use self::scribe::Scribe;
#[doc(hidden)]
pub use self::scribe::rehearse;
pub(super) use self::seam::Seam;
pub use self::wall::{parse_rfc3339, rfc3339};

use self::index::Index;
pub(super) use self::record::{Cause, Change, Origin};
use self::record::{Head, Mark, Record, What};
pub use self::shelf::Shelf;
use self::wall::micros;
use super::event::title;
use crate::audio::OPUS_RATE;
use crate::audio::hls::Title;
use crate::telemetry::JOURNAL_BYTES;

/// Frames of a piece: five minutes.
const PIECE: u64 = 300 * OPUS_RATE as u64;
/// Frames behind the beginning of what is kept that are needed to make sound from there, unless it
/// is the stream's own beginning.
const WARM_UP: u64 = 5 * OPUS_RATE as u64;
/// Pieces that stay in memory although they are on a shelf: whatever it was, it is written by then.
const IN_MEMORY: usize = 2;

/// A stream's journal.
pub struct Journal {
    stream: String,
    origin: Origin,
    channels: usize,
    /// Frames that are kept; 0 keeps nothing.
    most: u64,
    shelf: Option<Arc<dyn Shelf>>,
    /// Where a copy goes that outlives this machine.
    abroad: Arc<OnceLock<Arc<dyn Shelf>>>,
    state: Mutex<State>,
    /// Another node began it.
    taken: bool,
    grown: watch::Sender<Grown>,
}

/// How far a journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Grown {
    /// Media time before which all can be had.
    pub(super) end: u64,
    /// Nothing follows.
    pub(super) over: bool,
}

#[derive(Default)]
struct State {
    index: Index,
    pieces: VecDeque<Piece>,
    bytes: u64,
    /// Another process wrote the last piece: the next one is begun.
    resumed: bool,
}

struct Piece {
    number: u64,
    start: u64,
    length: usize,
    /// `None` if it has to be fetched from the shelf.
    bytes: Option<Vec<u8>>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Identity of its stream.
    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// How its stream came to be.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// It is not wanted any more; who reads it now is told so.
    pub(super) fn discard(&self) {
        if let Some(shelf) = &self.shelf {
            shelf.forget(&self.stream);
        }
        if let Some(abroad) = self.abroad.get() {
            abroad.forget(&self.stream);
        }
    }

    /// Whether another process began it.
    pub(super) fn is_of_others(&self) -> bool {
        self.taken
    }

    /// Another process goes on in the copy: what is kept here is of no use any more.
    pub(super) fn leave(&self) {
        if let Some(shelf) = &self.shelf {
            shelf.forget(&self.stream);
        }
    }

    /// What follows is to be understood without what is written by now.
    pub(super) fn begin_anew(&self) {
        let mut state = self.lock();
        state.resumed = !state.pieces.is_empty();
    }

    /// The stream stood still by request when the last was written.
    pub(super) fn ends_silent(&self) -> bool {
        let state = self.lock();
        let end = state.index.end();
        end > 0 && matches!(state.index.place(end - 1), index::Place::Silence(_))
    }

    /// Whether anything is written down.
    pub(super) fn keeps(&self) -> bool {
        self.most > 0
    }

    /// Media time that can be had now, in frames of 48 kHz.
    pub fn kept(&self) -> Range<u64> {
        let state = self.lock();
        let (start, end) = (state.index.start(), state.index.end());
        let first = state.pieces.front().is_none_or(|piece| piece.number == 0);
        let start = if first { start } else { start + WARM_UP };
        start.min(end)..end
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// When players play this frame, or played it.
    pub fn wall_of(&self, frame: u64) -> Option<SystemTime> {
        self.lock().index.wall_of(frame)
    }

    /// The frame that players play at this time; of a time in which nothing was played the next
    /// one.
    pub fn frame_at(&self, wall: SystemTime) -> Option<u64> {
        self.lock().index.frame_at(wall)
    }

    /// What plays at this frame, in words.
    pub fn title_at(&self, frame: u64) -> Option<String> {
        self.lock().index.change(frame).map(|change| title(&change.prompts))
    }

    /// What plays, in words, each from the media time on at which it begins.
    pub(super) fn titles(&self) -> Vec<Title> {
        let state = self.lock();
        let changes = state.index.marks().filter_map(|mark| match &mark.what {
            What::Change(change) => Some(Title { at: mark.at, text: title(&change.prompts) }),
            _ => None,
        });
        let mut titles: Vec<Title> = changes.collect();
        titles.dedup_by(|later, earlier| later.text == earlier.text);
        titles
    }

    /// What was asked for that is in force at this frame.
    pub(super) fn change_at(&self, frame: u64) -> Option<Change> {
        self.lock().index.change(frame).cloned()
    }

    /// What was asked of the stream and when, as far as it is kept.
    pub fn history(&self) -> History {
        let kept = self.kept();
        let state = self.lock();
        History::of(&state.index, kept, state.bytes)
    }

    /// Tells how far it is, now and whenever it has grown.
    pub(super) fn grown(&self) -> watch::Receiver<Grown> {
        self.grown.subscribe()
    }

    /// Nothing follows.
    pub(super) fn end(&self, reason: Option<String>) {
        let at = self.lock().index.end();
        self.mark(at, What::End { reason });
        self.grown.send_modify(|grown| grown.over = true);
    }

    /// Something else is in force from media time `at` on; it was asked for at this time.
    pub(super) fn changed(&self, at: u64, asked: SystemTime, change: Change) {
        self.append(&Record::Mark(Mark { at, wall: micros(asked), what: What::Change(change) }));
    }

    /// Writes down what happens now.
    fn mark(&self, at: u64, what: What) {
        self.append(&Record::Mark(Mark { at, wall: micros(SystemTime::now()), what }));
    }

    /// Writes a record down.
    fn append(&self, record: &Record) {
        if !self.keeps() {
            return;
        }
        let mut state = self.lock();
        let before = state.bytes;
        let end = state.index.end();
        let is_full = |piece: &Piece| matches!(record, Record::Sound(_)) && end >= piece.start + PIECE;
        if std::mem::take(&mut state.resumed) || state.pieces.back().is_none_or(is_full) {
            self.begin_piece(&mut state, end);
        }
        self.put(&mut state, record);
        let end = state.index.end();
        gauge!(JOURNAL_BYTES).increment(state.bytes as f64 - before as f64);
        drop(state);
        self.grown.send_if_modified(|grown| {
            let has_grown = end > grown.end;
            grown.end = grown.end.max(end);
            has_grown
        });
    }

    /// Begins a piece, and forgets the oldest ones.
    fn begin_piece(&self, state: &mut State, start: u64) {
        let number = state.pieces.back().map_or(0, |piece| piece.number + 1);
        state.pieces.push_back(Piece { number, start, length: 0, bytes: Some(Vec::new()) });
        let head = Head { start, silence: state.index.all_silence(), ..self.head() };
        self.put(state, &Record::Head(head));
        let of_kind = |is: fn(&What) -> bool| state.index.in_force(start, |mark| is(&mark.what).then(|| mark.clone()));
        let in_force = [
            of_kind(|what| matches!(what, What::Change(_))),
            of_kind(|what| matches!(what, What::Run(_))),
            of_kind(|what| matches!(what, What::Play)),
        ];
        for mark in in_force.into_iter().flatten() {
            self.put(state, &Record::Mark(mark));
        }
        if self.shelf.is_some() {
            let old = state.pieces.len().saturating_sub(IN_MEMORY);
            state.pieces.iter_mut().take(old).for_each(|piece| piece.bytes = None);
        }
        while state.pieces.get(1).is_some_and(|next| next.start + self.most <= start) {
            let Some(oldest) = state.pieces.pop_front() else { return };
            state.bytes -= oldest.length as u64;
            if let Some(shelf) = &self.shelf {
                shelf.remove(&self.stream, oldest.number);
            }
            let Some(first) = state.pieces.front() else { return };
            let (start, silence) = (first.start, first.start - state.index.voice_time(first.start));
            let head = Head { start, silence, ..self.head() };
            state.index.begin_with(&head);
        }
    }

    fn head(&self) -> Head {
        Head {
            version: record::VERSION,
            stream: self.stream.clone(),
            origin: self.origin.clone(),
            channels: self.channels,
            start: 0,
            silence: 0,
        }
    }

    fn put(&self, state: &mut State, record: &Record) {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        state.index.note(record);
        state.bytes += bytes.len() as u64;
        let Some(piece) = state.pieces.back_mut() else { return };
        piece.length += bytes.len();
        if let Some(all) = &mut piece.bytes {
            all.extend_from_slice(&bytes);
        }
        if let Some(abroad) = self.abroad.get() {
            abroad.append(&self.stream, piece.number, bytes.clone());
        }
        if let Some(shelf) = &self.shelf {
            shelf.append(&self.stream, piece.number, bytes);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        gauge!(JOURNAL_BYTES).decrement(self.bytes() as f64);
    }
}
