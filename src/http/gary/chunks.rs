//! Restoring in pieces: slices of one base64 text, in any order, kept in memory while their socket
//! lives.
//!
//! A piece is kept as it came, whatever number it claims to be of. What a socket may have
//! unfinished is bounded, and what all have; their bytes are taken from the memory for requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socketioxide::socket::Sid;

use crate::budget::{Budget, Share};
use crate::studio::SessionId;

/// What clients are told to cut their text into.
pub(super) const CHUNK: usize = 8 << 20;
/// Bytes of one text.
const MOST: usize = 128 << 20;
/// Pieces of one text.
const MOST_CHUNKS: usize = 4096;
/// What a piece costs besides its text.
const OVERHEAD: usize = 96;
/// Unfinished texts of one socket, and of all.
const OF_ONE: usize = 4;
const OF_ALL: usize = 512;
/// How long an unfinished text is kept.
const LIFE: Duration = Duration::from_secs(3600);
/// A text that got nothing for so long gives way to a new one.
const STALE: Duration = Duration::from_secs(60);

/// Texts that are not complete yet.
pub(super) struct Chunks {
    budget: Budget,
    texts: Mutex<HashMap<SessionId, Text>>,
}

struct Text {
    socket: Sid,
    pieces: BTreeMap<usize, String>,
    bytes: usize,
    touched: Instant,
    share: Share,
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
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, texts: Mutex::default() }
    }

    fn texts(&self) -> MutexGuard<'_, HashMap<SessionId, Text>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects pieces for a session.
    ///
    /// # Errors
    /// A sentence when too many are expected already.
    pub(super) fn begin(&self, socket: Sid, session: SessionId) -> Result<(), String> {
        let mut texts = self.texts();
        self.insert(&mut texts, socket, session)
    }

    fn insert(&self, texts: &mut HashMap<SessionId, Text>, socket: Sid, session: SessionId) -> Result<(), String> {
        texts.retain(|_, text| text.touched.elapsed() < LIFE);
        let oldest = |texts: &HashMap<SessionId, Text>, of: &dyn Fn(&Text) -> bool| {
            let those = texts.iter().filter(|(_, text)| of(text));
            those.min_by_key(|(_, text)| text.touched).map(|(session, _)| session.clone())
        };
        if texts.values().filter(|text| text.socket == socket).count() >= OF_ONE
            && let Some(gone) = oldest(texts, &|text| text.socket == socket)
        {
            texts.remove(&gone);
        }
        if texts.len() >= OF_ALL {
            let stale = oldest(texts, &|text| text.touched.elapsed() > STALE);
            let gone = stale.ok_or("Too many sounds are being restored now; try again in a minute.")?;
            texts.remove(&gone);
        }
        let share = self.budget.try_take(0).map_err(|error| error.to_string())?;
        let text = Text { socket, pieces: BTreeMap::new(), bytes: 0, touched: Instant::now(), share };
        texts.insert(session, text);
        Ok(())
    }

    /// Takes a piece; one that was there is replaced.
    ///
    /// # Errors
    /// A sentence when the piece cannot belong to the text, or a bound is exceeded.
    pub(super) fn add(
        &self,
        socket: Sid,
        session: &SessionId,
        (index, total): (usize, usize),
        piece: String,
        is_last: bool,
    ) -> Result<Progress, String> {
        if total == 0 || total > MOST_CHUNKS || index >= total {
            return Err(format!("Chunk {index} of {total} cannot be; send at most {MOST_CHUNKS}, counted from 0."));
        }
        let mut texts = self.texts();
        if !texts.contains_key(session) {
            self.insert(&mut texts, socket, session.clone())?;
        }
        let Some(text) = texts.get_mut(session) else { return Err("The restore was given up; begin it again.".into()) };
        // Fewer than before: those behind the end were of another text.
        let behind = text.pieces.split_off(&total);
        let replaced = text.pieces.remove(&index);
        let gone = behind.into_values().chain(replaced).map(|piece| piece.len() + OVERHEAD).sum::<usize>();
        let bytes = text.bytes - gone + piece.len() + OVERHEAD;
        let fits = match bytes {
            bytes if bytes > MOST => Err(format!("The sound is larger than {} MiB of text; send less.", MOST >> 20)),
            bytes => text.share.try_grow(bytes as u64).map_err(|error| error.to_string()),
        };
        if let Err(sentence) = fits {
            texts.remove(session);
            return Err(sentence);
        }
        text.pieces.insert(index, piece);
        (text.bytes, text.socket, text.touched) = (bytes, socket, Instant::now());
        let received = text.pieces.len();
        if received < total {
            let missing = || (0..total).filter(|index| !text.pieces.contains_key(index)).collect();
            return Ok(Progress { received, missing: is_last.then(missing), text: None });
        }
        let Some(Text { pieces, bytes, .. }) = texts.remove(session) else {
            return Ok(Progress { received, missing: None, text: None });
        };
        drop(texts);
        let mut whole = String::with_capacity(bytes);
        pieces.into_values().for_each(|piece| whole.push_str(&piece));
        Ok(Progress { received, missing: None, text: Some(whole) })
    }

    /// Forgets the pieces of a session.
    pub(super) fn forget(&self, session: &SessionId) {
        self.texts().remove(session);
    }

    /// Forgets the pieces that a socket sent.
    pub(super) fn forget_socket(&self, socket: Sid) {
        self.texts().retain(|_, text| text.socket != socket);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chunks() -> (Chunks, Budget, Sid, SessionId) {
        let budget = Budget::new(256 << 20);
        (Chunks::new(budget.clone()), budget, Sid::new(), SessionId::random())
    }

    #[test]
    fn pieces_come_in_any_order_and_gaps_are_told() {
        let (chunks, budget, socket, session) = chunks();
        chunks.begin(socket, session.clone()).unwrap();
        let add = |place, piece: &str, is_last| chunks.add(socket, &session, place, piece.into(), is_last).unwrap();
        assert_eq!(add((2, 4), "c", false).received, 1);
        assert_eq!(add((0, 4), "x", false).received, 2);
        assert_eq!(add((0, 4), "a", false).received, 2);
        assert_eq!(add((3, 4), "d", true).missing, Some(vec![1]));
        assert_eq!(add((1, 4), "b", false).text.unwrap(), "abcd");
        assert_eq!(budget.free(), budget.bytes());
        // It is forgotten once it is whole.
        assert_eq!(add((1, 4), "b", false).received, 1);
    }

    #[test]
    fn impossible_pieces_are_refused() {
        let (chunks, budget, socket, session) = chunks();
        for place in [(4, 4), (0, 0), (0, 1 << 30)] {
            assert!(chunks.add(socket, &session, place, "x".into(), false).is_err());
        }
        let big = "x".repeat(100 << 20);
        chunks.add(socket, &session, (0, 4), big.clone(), false).unwrap();
        assert!(budget.free() < 160 << 20);
        assert!(chunks.add(socket, &session, (1, 4), big, false).is_err());
        assert!(chunks.texts().is_empty());
        assert_eq!(budget.free(), budget.bytes());
    }

    #[test]
    fn a_socket_keeps_few_texts_and_takes_them_along() {
        let (chunks, budget, socket, _) = chunks();
        for _ in 0..20_000 {
            chunks.add(socket, &SessionId::random(), (0, 4096), "A".into(), false).unwrap();
        }
        assert_eq!(chunks.texts().len(), OF_ONE);
        assert!(budget.bytes() - budget.free() <= 16 << 10);
        let other = SessionId::random();
        chunks.begin(Sid::new(), other.clone()).unwrap();
        chunks.forget_socket(socket);
        assert!(chunks.texts().keys().eq([&other]));
    }

    #[test]
    fn all_sockets_together_keep_a_bounded_number() {
        let (chunks, _, _, session) = chunks();
        for _ in 0..OF_ALL {
            chunks.begin(Sid::new(), SessionId::random()).unwrap();
        }
        assert!(chunks.begin(Sid::new(), session).unwrap_err().contains("try again"));
    }
}
