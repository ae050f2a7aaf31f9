//! Restoring in pieces: slices of one base64 text, in any order, kept in memory for an hour at most.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::studio::SessionId;

/// What clients are told to cut their text into.
pub(super) const CHUNK: usize = 8 << 20;
/// Bytes of one text, and of all of them.
const MOST: usize = 192 << 20;
const MOST_OF_ALL: usize = 768 << 20;
/// Pieces of one text.
const MOST_CHUNKS: usize = 4096;
/// How long an unfinished text is kept.
const LIFE: Duration = Duration::from_secs(3600);

/// Texts that are not complete yet.
#[derive(Default)]
pub(super) struct Chunks(Mutex<HashMap<SessionId, Text>>);

struct Text {
    pieces: Vec<Option<String>>,
    bytes: usize,
    touched: Instant,
}

/// What a piece changed.
#[derive(Debug, PartialEq)]
pub(super) struct Progress {
    /// Distinct pieces that are there.
    pub(super) received: usize,
    /// Those that are not, if this was meant to be the end.
    pub(super) missing: Option<Vec<usize>>,
    /// The whole text, if nothing is missing.
    pub(super) text: Option<String>,
}

impl Chunks {
    fn texts(&self) -> MutexGuard<'_, HashMap<SessionId, Text>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects pieces for a session.
    pub(super) fn begin(&self, session: SessionId) {
        self.tidy();
        self.texts().insert(session, Text { pieces: Vec::new(), bytes: 0, touched: Instant::now() });
    }

    fn tidy(&self) {
        self.texts().retain(|_, text| text.touched.elapsed() < LIFE);
    }

    /// Takes a piece; one that was there is replaced.
    ///
    /// # Errors
    /// A sentence when the piece cannot belong to the text, or a bound is exceeded.
    pub(super) fn add(
        &self,
        session: &SessionId,
        (index, total): (usize, usize),
        piece: &str,
        is_last: bool,
    ) -> Result<Progress, String> {
        self.tidy();
        if total == 0 || total > MOST_CHUNKS || index >= total {
            return Err(format!("Chunk {index} of {total} cannot be; send at most {MOST_CHUNKS}, counted from 0."));
        }
        let mut texts = self.texts();
        let of_all: usize = texts.values().map(|text| text.bytes).sum();
        let text = texts.entry(session.clone()).or_insert_with(|| Text {
            pieces: Vec::new(),
            bytes: 0,
            touched: Instant::now(),
        });
        if text.bytes + piece.len() > MOST || of_all + piece.len() > MOST_OF_ALL {
            texts.remove(session);
            return Err(format!("The sound is larger than {} MiB of text; send less.", MOST >> 20));
        }
        text.pieces.resize_with(total, || None);
        text.pieces[index] = Some(piece.to_owned());
        text.bytes = text.pieces.iter().flatten().map(String::len).sum();
        text.touched = Instant::now();
        let received = text.pieces.iter().flatten().count();
        if !is_last && received < total {
            return Ok(Progress { received, missing: None, text: None });
        }
        let missing: Vec<usize> = (0..total).filter(|&index| text.pieces[index].is_none()).collect();
        if !missing.is_empty() {
            return Ok(Progress { received, missing: Some(missing), text: None });
        }
        let whole = texts.remove(session).map(|text| text.pieces.into_iter().flatten().collect());
        Ok(Progress { received, missing: None, text: whole })
    }

    /// Forgets the pieces of a session.
    pub(super) fn forget(&self, session: &SessionId) {
        self.texts().remove(session);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_come_in_any_order_and_gaps_are_told() {
        let (chunks, session) = (Chunks::default(), SessionId::random());
        chunks.begin(session.clone());
        assert_eq!(chunks.add(&session, (2, 4), "c", false).unwrap().received, 1);
        assert_eq!(chunks.add(&session, (0, 4), "x", false).unwrap().received, 2);
        assert_eq!(chunks.add(&session, (0, 4), "a", false).unwrap().received, 2);
        assert_eq!(chunks.add(&session, (3, 4), "d", true).unwrap().missing, Some(vec![1]));
        assert_eq!(chunks.add(&session, (1, 4), "b", false).unwrap().text.unwrap(), "abcd");
        // It is forgotten once it is whole.
        assert_eq!(chunks.add(&session, (1, 4), "b", false).unwrap().received, 1);
    }

    #[test]
    fn impossible_pieces_are_refused() {
        let (chunks, session) = (Chunks::default(), SessionId::random());
        for place in [(4, 4), (0, 0), (0, 1 << 30)] {
            assert!(chunks.add(&session, place, "x", false).is_err());
        }
        let big = "x".repeat(100 << 20);
        chunks.add(&session, (0, 4), &big, false).unwrap();
        assert!(chunks.add(&session, (1, 4), &big, false).is_err());
        assert!(chunks.texts().is_empty());
    }
}
