//! Reads the records of a journal in order, also while it grows.

use std::sync::Arc;

use super::super::StationError;
use super::Journal;
use super::record::Record;

pub(super) struct Reader {
    journal: Arc<Journal>,
    piece: u64,
    /// Bytes of the piece that were fetched.
    fetched: usize,
    /// What was fetched, and how much of it was read.
    bytes: Vec<u8>,
    read: usize,
}

/// The next bytes of a piece.
enum Next {
    Bytes(Vec<u8>),
    /// They lie on the shelf: so many bytes are the whole piece.
    OnShelf(usize),
    /// There are no more of them, but this piece follows.
    Piece(u64),
    /// Nothing follows at present.
    Nothing,
}

impl Reader {
    /// From the piece on that holds media time `frame`, or from the oldest one.
    pub(super) fn new(journal: Arc<Journal>, frame: u64) -> Self {
        let piece = {
            let state = journal.lock();
            let before = state.pieces.iter().rev().find(|piece| piece.start <= frame);
            before.or(state.pieces.front()).map_or(0, |piece| piece.number)
        };
        Self { journal, piece, fetched: 0, bytes: Vec::new(), read: 0 }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The next record; `None` if there is none at present. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, StationError> {
        loop {
            if let Some((record, length)) = Record::read(&self.bytes[self.read..]) {
                self.read += length;
                if record.is_some() {
                    return Ok(record);
                }
                continue;
            }
            let bytes = match self.journal.next(self.piece, self.fetched)? {
                Next::Nothing => return Ok(None),
                Next::Piece(piece) => {
                    (self.piece, self.fetched, self.read) = (piece, 0, 0);
                    self.bytes.clear();
                    continue;
                }
                Next::Bytes(bytes) => bytes,
                Next::OnShelf(length) => {
                    let (journal, piece) = (Arc::clone(&self.journal), self.piece);
                    let read = tokio::task::spawn_blocking(move || journal.fetch(piece)).await;
                    let mut bytes = read.map_err(|error| StationError::Journal(error.to_string()))??;
                    // What was not written is missed when sound is made of it.
                    bytes.resize(length.max(self.fetched), 0);
                    bytes.split_off(self.fetched)
                }
            };
            self.fetched += bytes.len();
            self.bytes.drain(..self.read);
            self.read = 0;
            self.bytes.extend(bytes);
        }
    }
}

impl Journal {
    fn next(&self, number: u64, fetched: usize) -> Result<Next, StationError> {
        let state = self.lock();
        let Some(at) = state.pieces.iter().position(|piece| piece.number >= number) else { return Ok(Next::Nothing) };
        let piece = &state.pieces[at];
        if piece.number > number {
            // The piece has gone while it was read.
            drop(state);
            return Err(StationError::not_kept(self.kept()));
        }
        Ok(match (&piece.bytes, state.pieces.get(at + 1)) {
            (_, None) if fetched >= piece.length => Next::Nothing,
            (_, Some(next)) if fetched >= piece.length => Next::Piece(next.number),
            (Some(bytes), _) => Next::Bytes(bytes[fetched..].to_vec()),
            (None, _) => Next::OnShelf(piece.length),
        })
    }

    fn fetch(&self, piece: u64) -> Result<Vec<u8>, StationError> {
        let shelf = self.shelf.as_ref().ok_or_else(|| StationError::Journal("it has no folder".into()))?;
        shelf.read(&self.stream, piece).map_err(|error| StationError::Journal(error.to_string()))
    }
}
