//! The journals of all streams of a station, and where they are kept.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::gauge;
use tokio::sync::watch;

use super::super::StationError;
use super::record::Origin;
use super::shelf::{Folder, Found, Shelf};
use super::{Grown, Journal, Piece, State};
use crate::audio::OPUS_RATE;
use crate::telemetry::JOURNAL_BYTES;

/// Hours that are kept in memory unless somebody says otherwise.
const HOURS: f64 = 0.5;

/// Where journals are kept and for how long; clones share it.
#[derive(Clone)]
pub struct Journals(Arc<Inner>);

struct Inner {
    shelf: Option<Arc<dyn Shelf>>,
    /// Where a copy goes, if there is such a place.
    abroad: Arc<OnceLock<Arc<dyn Shelf>>>,
    /// Frames of a stream that are kept.
    most: u64,
    /// Those of an earlier process whose streams have not gone on yet.
    found: Mutex<Vec<Arc<Journal>>>,
}

impl Default for Journals {
    fn default() -> Self {
        Self::in_memory(HOURS)
    }
}

impl fmt::Debug for Journals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.0.most as f64 / f64::from(OPUS_RATE) / 3600.0;
        write!(f, "{hours} hours {}", if self.0.shelf.is_some() { "on disk" } else { "in memory" })
    }
}

impl Journals {
    /// For as long as the process lives, so many hours of every stream; 0 keeps nothing.
    pub fn in_memory(hours: f64) -> Self {
        Self::with(None, hours)
    }

    /// In a folder, so many hours of every stream. What an earlier process has left there is found
    /// again: streams with a name, and those that were to be kept.
    ///
    /// # Errors
    /// [`StationError::Journal`] when the folder cannot be used.
    pub fn open(folder: &Path, hours: f64) -> Result<Self, StationError> {
        if hours <= 0.0 {
            return Ok(Self::in_memory(0.0));
        }
        let unusable =
            |error| StationError::Journal(format!("the folder {} cannot be used: {error}", folder.display()));
        let (shelf, found) = Folder::open(folder).map_err(unusable)?;
        let shelf: Arc<dyn Shelf> = Arc::new(shelf);
        let (wanted, unwanted): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| found.head.origin.stays() && found.index.end() > 0);
        unwanted.iter().for_each(|found| shelf.forget(&found.head.stream));
        let journals = Self::with(Some(shelf), hours);
        *journals.found() = wanted.into_iter().map(|found| journals.again(found, false)).collect();
        Ok(journals)
    }

    fn with(shelf: Option<Arc<dyn Shelf>>, hours: f64) -> Self {
        Self(Arc::new(Inner { shelf, abroad: Arc::default(), most: frames(hours), found: Mutex::default() }))
    }

    /// From now on a copy of all that is written goes to this place. The first one counts.
    pub(in super::super) fn copy_to(&self, place: Arc<dyn Shelf>) {
        let _ = self.0.abroad.set(place);
    }

    /// A journal of another process, by the bytes of its last pieces; `None` if these are none, or
    /// nothing is kept here.
    pub(in super::super) fn of_others(&self, pieces: Vec<(u64, Vec<u8>)>) -> Option<Arc<Journal>> {
        let mut found = None;
        let mut bytes = HashMap::new();
        for (number, mut piece) in pieces {
            if let Some(whole) = Found::piece(&mut found, number, &piece) {
                piece.truncate(whole);
                bytes.insert(number, piece);
            }
        }
        let found = found.filter(|found| found.index.end() > 0 && self.0.most > 0)?;
        let stream = found.head.stream.clone();
        if let Some(shelf) = &self.0.shelf {
            for (number, ..) in &found.pieces {
                shelf.append(&stream, *number, bytes.get(number).cloned().unwrap_or_default());
            }
        }
        let journal = self.again(found, true);
        for piece in &mut journal.lock().pieces {
            piece.bytes = bytes.remove(&piece.number);
        }
        Some(journal)
    }

    fn found(&self) -> MutexGuard<'_, Vec<Arc<Journal>>> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal of a new stream.
    pub(in super::super) fn begin(&self, stream: &str, origin: Origin, channels: usize) -> Arc<Journal> {
        self.journal(stream.to_owned(), origin, channels, State::default(), false)
    }

    fn journal(&self, stream: String, origin: Origin, channels: usize, state: State, taken: bool) -> Arc<Journal> {
        gauge!(JOURNAL_BYTES).increment(state.bytes as f64);
        let grown = Grown { end: state.index.end(), over: false };
        Arc::new(Journal {
            stream,
            origin,
            channels,
            most: self.0.most,
            taken,
            shelf: self.0.shelf.clone(),
            abroad: Arc::clone(&self.0.abroad),
            state: Mutex::new(state),
            grown: watch::Sender::new(grown),
        })
    }

    /// A journal that an earlier process has left.
    fn again(&self, Found { head, index, pieces }: Found, taken: bool) -> Arc<Journal> {
        let piece = |(number, start, length)| Piece { number, start, length, bytes: None };
        let bytes = pieces.iter().map(|&(.., length)| length as u64).sum();
        let pieces = pieces.into_iter().map(piece).collect();
        self.journal(head.stream, head.origin, head.channels, State { index, pieces, bytes, resumed: true }, taken)
    }

    /// What an earlier process has left of a stream with this name.
    pub(in super::super) fn named(&self, name: &str) -> Option<Arc<Journal>> {
        self.found().iter().rev().find(|journal| journal.origin().name.as_deref() == Some(name)).cloned()
    }

    /// All that an earlier process has left and no stream has taken up.
    pub(in super::super) fn left(&self) -> Vec<Arc<Journal>> {
        self.found().clone()
    }

    /// A stream has taken it up, or nobody will; others of its name are gone then.
    pub(in super::super) fn settle(&self, journal: &Arc<Journal>) {
        let name = &journal.origin().name;
        self.found().retain(|other| {
            let same = Arc::ptr_eq(other, journal);
            let older = !same && name.is_some() && other.origin().name == *name;
            if older {
                other.discard();
            }
            !same && !older
        });
    }
}

fn frames(hours: f64) -> u64 {
    (hours.max(0.0) * 3600.0 * f64::from(OPUS_RATE)) as u64
}
