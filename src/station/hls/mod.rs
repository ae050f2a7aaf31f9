//! HLS: a stream as segments that lie ready, for players that come and ask.
//!
//! The [`Segmenter`] in the stream's task encodes the renditions that somebody follows; the
//! [`Presentation`] keeps what it made of the last minutes and lets requests wait for what is about
//! to be made. What lies further back is made again from the stream's journal. Whoever fetches
//! playlists is a listener ([`Sessions`]).

mod rewind;
mod segmenter;
mod sessions;
mod timeline;
mod track;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::rewind::Rewind;
pub(super) use self::segmenter::Segmenter;
pub(super) use self::sessions::Seat;
use self::sessions::Sessions;
use self::timeline::Timeline;
use self::track::Track;
use super::journal::Journal;
use super::{StationError, Stream};
use crate::audio::hls::{Muxed, PART, Part, Rendition, SEGMENT, Title};

/// Frames before the end of a presentation that a playlist has in full, whatever its player had
/// before.
pub const SKIP_UNTIL: u64 = 6 * SEGMENT;
/// Segments beyond the newest that a player may wait for.
const AHEAD: u64 = 2;

/// How long a request waits for what is about to be made: three segments.
const PATIENCE: Duration = Duration::from_secs(9);

/// What the players of a stream fetch.
pub struct Presentation {
    state: Mutex<State>,
    journal: Arc<Journal>,
    rewind: Rewind,
    sessions: Sessions,
    /// Counts what was added.
    added: watch::Sender<u64>,
}

struct State {
    tracks: [Track; Rendition::ALL.len()],
    timeline: Timeline,
    ended: bool,
}

/// What a playlist says.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The number of the first segment that can be fetched.
    pub first: u64,
    /// Segments from then on that are left out.
    pub skipped: u64,
    /// Those that follow, up to now; all but the last are whole.
    pub segments: Vec<Segment>,
    /// Changes of what plays, from the one that is in force at the beginning on.
    pub titles: Vec<(SystemTime, Title)>,
    /// Nothing follows.
    pub ended: bool,
}

/// A segment of a playlist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// Its place in the stream: its sound begins at so many times the length of a segment.
    pub number: u64,
    /// Frames of sound that it has by now.
    pub frames: u64,
    /// Parts that it has by now.
    pub parts: u64,
    /// Nothing is added to it any more.
    pub whole: bool,
    /// When players without delay play it.
    pub date: SystemTime,
}

/// A position in a presentation: a segment as a whole, or one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Number of the part in it.
    pub part: Option<u64>,
}

impl Position {
    /// What comes after it: a segment and a part of it. A part beyond a segment's last one is the
    /// first of the next (rfc8216bis section 6.2.5.2).
    fn after(self) -> (u64, u64) {
        match self.part {
            None => (self.segment + 1, 0),
            Some(part) if part >= SEGMENT / PART => (self.segment + 1, 1),
            Some(part) => (self.segment, part + 1),
        }
    }
}

/// Why a request was not served.
#[derive(Debug, Clone)]
pub enum Missing {
    /// It was never made, was too long ago, or is too far ahead.
    Never,
    /// It was not made in time.
    NotYet,
    /// The stream is over, and nothing of it is kept.
    Ended,
    /// It cannot be made again.
    Lost(StationError),
}

impl Presentation {
    pub(super) fn new(journal: Arc<Journal>, title: String) -> Self {
        let timeline = Timeline::new(Arc::clone(&journal), title);
        Self {
            state: Mutex::new(State { tracks: Default::default(), timeline, ended: false }),
            journal,
            rewind: Rewind::default(),
            sessions: Sessions::default(),
            added: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Players play media time `from` now and what follows at the pace of real time.
    pub(super) fn plays(&self, from: u64) {
        self.state().timeline.plays(from, SystemTime::now());
    }

    /// Another title is in force from a media time on.
    pub(super) fn titled(&self, at: u64, text: String) {
        self.state().timeline.titled(Title { at, text });
    }

    /// Adds a part that was made.
    pub(super) fn add(&self, rendition: Rendition, part: &Part) {
        {
            let mut state = self.state();
            let muxed = state.mux(rendition, part);
            state.tracks[rendition as usize].add(part, muxed);
        }
        self.changed();
    }

    /// Nobody follows a rendition any more: what was kept of it goes.
    pub(super) fn clear(&self, rendition: Rendition) {
        self.state().tracks[rendition as usize] = Track::default();
    }

    /// The stream is over.
    pub(super) fn close(&self) {
        {
            let mut state = self.state();
            state.ended = true;
            state.tracks.iter_mut().for_each(Track::finish);
        }
        self.sessions.close();
        self.changed();
    }

    fn changed(&self) {
        self.added.send_modify(|count| *count += 1);
    }

    /// What can be fetched of a rendition, as soon as there is a whole segment, and `until` is
    /// there if that is given. A `delta` leaves out what lies more than [`SKIP_UNTIL`] before the
    /// end.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn listing(
        &self,
        rendition: Rendition,
        until: Option<Position>,
        delta: bool,
    ) -> Result<Listing, Missing> {
        // Who knows of no parts waits for whole segments.
        let part = |until: Position| until.part.filter(|_| rendition.in_parts());
        let until = until.map(|until| Position { part: part(until), ..until });
        self.wait(|state| {
            let Some(next) = state.next(rendition) else {
                return state.ended.then_some(Err(Missing::Ended));
            };
            match until.filter(|_| !state.ended) {
                Some(position) if position.segment > newest(next) + AHEAD => Some(Err(Missing::Never)),
                Some(position) if position.after() > next => None,
                _ => Some(Ok(state.listing(rendition, delta))),
            }
        })
        .await
    }

    /// The bytes of a segment or of a part of `stream`, whose presentation this is; waits for them
    /// if they come next.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn bytes(&self, stream: &Stream, rendition: Rendition, position: Position) -> Result<Bytes, Missing> {
        let number = position.segment;
        let made = self.wait(|state| {
            if let Some(bytes) = state.tracks[rendition as usize].bytes(position) {
                return Some(Ok(Some(bytes)));
            }
            if position.part.is_none() {
                // What is written down is there, however far the newest sound is ahead of it.
                let again = state.timeline.again(rendition, state.ended);
                if again.is_some_and(|again| again.contains(&number)) {
                    return Some(Ok(None));
                }
                // Its end may have to be written down first.
                if state.before(rendition).contains(&number) {
                    return None;
                }
            }
            let waits = !state.ended && state.comes_next(rendition, position);
            if waits { None } else { Some(Err(Missing::Never)) }
        });
        match made.await? {
            Some(bytes) => Ok(bytes),
            None => {
                let mux = |part: &Part| self.state().mux(rendition, part);
                self.rewind.bytes(stream, rendition, number, mux).await.map_err(Missing::Lost)
            }
        }
    }

    /// The newest part of a rendition that is followed.
    pub fn edge(&self, rendition: Rendition) -> Option<Position> {
        self.state().tracks[rendition as usize].edge()
    }

    /// Asks until there is an answer, each time that something was added.
    async fn wait<T>(&self, ask: impl Fn(&State) -> Option<Result<T, Missing>>) -> Result<T, Missing> {
        let (mut added, mut written) = (self.added.subscribe(), self.journal.grown());
        let answer = async {
            loop {
                added.borrow_and_update();
                written.borrow_and_update();
                if let Some(answer) = ask(&self.state()) {
                    return answer;
                }
                // Both senders live as long as this.
                let _ = tokio::select! {
                    added = added.changed() => added,
                    written = written.changed() => written,
                };
            }
        };
        timeout(PATIENCE, answer).await.unwrap_or(Err(Missing::NotYet))
    }

    /// Whether somebody follows it, and how many.
    pub(super) fn followers(&self) -> usize {
        self.sessions.count(Instant::now())
    }

    /// The renditions that somebody follows.
    pub(super) fn followed(&self) -> Vec<Rendition> {
        self.sessions.followed(Instant::now())
    }
}

/// The segment of the last part before a position.
fn newest((segment, part): (u64, u64)) -> u64 {
    if part == 0 { segment.saturating_sub(1) } else { segment }
}

impl State {
    fn mux(&self, rendition: Rendition, part: &Part) -> Muxed {
        rendition.mux(part, &self.timeline.titles(part.start..part.end(), part.is_first()))
    }

    /// The numbers of the whole segments before those of the track.
    fn before(&self, rendition: Rendition) -> Range<u64> {
        let track = &self.tracks[rendition as usize];
        // The newest sound is written down a little later than it is encoded.
        let reaches = |again: &Range<u64>| track.first().is_none_or(|first| first <= again.end + 2);
        let again = self.timeline.again(rendition, self.ended).filter(|again| !again.is_empty() && reaches(again));
        match again {
            Some(again) => {
                let end = track.first().unwrap_or(again.end);
                again.start.min(end)..end
            }
            None => {
                let first = track.first_listed().unwrap_or(0);
                first..first
            }
        }
    }

    /// The position after what is there, a segment and a part of it, once there is a whole segment.
    fn next(&self, rendition: Rendition) -> Option<(u64, u64)> {
        let before = self.before(rendition);
        let next = self.tracks[rendition as usize].next().or((!before.is_empty()).then_some((before.end, 0)))?;
        (next.0 > before.start).then_some(next)
    }

    /// Whether a position is about to be made.
    fn comes_next(&self, rendition: Rendition, position: Position) -> bool {
        let next = self.tracks[rendition as usize].next().or_else(|| self.next(rendition));
        next.is_some_and(|(segment, part)| match position.part {
            Some(wanted) => (position.segment, wanted) == (segment, part),
            None => position.segment == segment,
        })
    }

    fn listing(&self, rendition: Rendition, delta: bool) -> Listing {
        let (track, before) = (&self.tracks[rendition as usize], self.before(rendition));
        let end = self.next(rendition).map_or(0, |(segment, part)| segment * SEGMENT + part * PART);
        let full = if delta && !self.ended { end.saturating_sub(SKIP_UNTIL) / SEGMENT } else { 0 };
        let (first, full) = (before.start, full.max(before.start));
        let date = |frame| self.timeline.date(frame);
        // Of a stream that is over the last one may be short.
        let written = if self.ended { self.timeline.end() } else { u64::MAX };
        let again = (full.min(before.end)..before.end).map(|number| {
            let start = number * SEGMENT;
            Segment { number, frames: SEGMENT.min(written - start), parts: 0, whole: true, date: date(start) }
        });
        let listed = |segment: &Segment| segment.whole || rendition.in_parts();
        let segments = again.chain(track.since(full.max(before.end), date)).filter(listed).collect();
        let titles = self.timeline.titles(first * SEGMENT..u64::MAX, true);
        let titles = titles.into_iter().map(|title| (date(title.at), title)).collect();
        Listing { first, skipped: full - first, segments, titles, ended: self.ended }
    }
}
