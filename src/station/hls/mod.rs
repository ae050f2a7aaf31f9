//! HLS: a stream as segments that lie ready, for players that come and ask.
//!
//! The [`Segmenter`] in the stream's task encodes the renditions that somebody follows; the [`Presentation`] keeps what it
//! made of the last minutes, knows when it was and what played, and lets requests wait for what is about to be made.
//! Whoever fetches playlists is a listener ([`Sessions`]).

mod segmenter;
mod sessions;
mod timeline;
mod track;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub(super) use self::segmenter::Segmenter;
pub(super) use self::sessions::Seat;
use self::sessions::Sessions;
use self::timeline::Timeline;
use self::track::Track;
use crate::audio::hls::{Part, Rendition, Title};

/// How long a request waits for what is about to be made: three segments.
const PATIENCE: Duration = Duration::from_secs(9);

/// What the players of a stream fetch.
pub struct Presentation {
    state: Mutex<State>,
    sessions: Sessions,
    /// Counts what was added.
    added: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    tracks: [Track; Rendition::ALL.len()],
    timeline: Timeline,
    ended: bool,
}

/// What a playlist says.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Those that follow each other up to now; all but the last are whole.
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
    /// When its sound was made.
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

/// Why a request was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It was never made, was too long ago, or is too far ahead.
    Never,
    /// It was not made in time.
    NotYet,
    /// The stream is over, and nobody followed it.
    Ended,
}

impl Presentation {
    pub(super) fn new(title: String) -> Self {
        let state = State { timeline: Timeline::new(title), ..State::default() };
        Self { state: Mutex::new(state), sessions: Sessions::default(), added: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// From media time `from` on, frame `due` is made now and the others at the pace of real time.
    pub(super) fn runs(&self, from: u64, due: u64) {
        self.state().timeline.runs(from, due, SystemTime::now());
    }

    /// Another title is in force from a media time on.
    pub(super) fn titled(&self, at: u64, text: String) {
        self.state().timeline.titled(Title { at, text });
    }

    /// Adds a part that was made.
    pub(super) fn add(&self, rendition: Rendition, part: &Part) {
        let mut state = self.state();
        let titles = state.timeline.titles(part.start, part.end(), part.is_first());
        let muxed = rendition.mux(part, &titles);
        state.tracks[rendition as usize].add(part, muxed);
        drop(state);
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

    /// What can be fetched of a rendition, as soon as there is a whole segment, and `until` is there if that is given.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn listing(&self, rendition: Rendition, until: Option<Position>) -> Result<Listing, Missing> {
        self.wait(|state| {
            let track = &state.tracks[rendition as usize];
            match (track.has_whole(), state.ended) {
                (false, true) => Some(Err(Missing::Ended)),
                (false, false) => None,
                (true, true) => Some(Ok(state.listing(track))),
                (true, false) => match until {
                    Some(position) if track.is_far_ahead(position) => Some(Err(Missing::Never)),
                    Some(position) if !track.has(position) => None,
                    _ => Some(Ok(state.listing(track))),
                },
            }
        })
        .await
    }

    /// The bytes of a segment or of a part; waits for them if they come next.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn bytes(&self, rendition: Rendition, position: Position) -> Result<Bytes, Missing> {
        self.wait(|state| {
            let track = &state.tracks[rendition as usize];
            match track.bytes(position) {
                Some(bytes) => Some(Ok(bytes)),
                None if !state.ended && track.comes_next(position) => None,
                None => Some(Err(Missing::Never)),
            }
        })
        .await
    }

    /// The newest part of a rendition that is followed.
    pub fn edge(&self, rendition: Rendition) -> Option<Position> {
        self.state().tracks[rendition as usize].edge()
    }

    /// Asks until there is an answer, each time that something was added.
    async fn wait<T>(&self, ask: impl Fn(&State) -> Option<Result<T, Missing>>) -> Result<T, Missing> {
        let mut added = self.added.subscribe();
        let answer = async {
            loop {
                added.borrow_and_update();
                if let Some(answer) = ask(&self.state()) {
                    return answer;
                }
                if added.changed().await.is_err() {
                    return Err(Missing::Ended);
                }
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

impl State {
    fn listing(&self, track: &Track) -> Listing {
        let segments: Vec<Segment> = track.listed(|frame| self.timeline.date(frame)).collect();
        let titles = segments.first().map_or_else(Vec::new, |first| self.timeline.titles_since(first.number));
        Listing { segments, titles, ended: self.ended }
    }
}
