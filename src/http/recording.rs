//! Recordings: a part of a stream as a file, made once and sent in any parts.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::HttpError;
use crate::audio::{AudioError, Format, LongEnd, LongFile, OPUS_RATE};
use crate::station::{Replay, StationError, Stream};
use crate::studio::SoundFile;

/// The longest recording, in frames: two hours.
pub(super) const LONGEST: u64 = 2 * 3600 * OPUS_RATE as u64;
/// Recordings that are made at the same time.
const AT_ONCE: usize = 2;
/// Recordings, and bytes of them, that are kept for who fetches them in parts.
const KEPT: usize = 16;
const KEPT_BYTES: u64 = 2 << 30;

/// The recordings of a server.
pub(super) struct Recordings {
    making: Semaphore,
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    tag: String,
    file: NamedTempFile,
    bytes: u64,
}

impl Default for Recordings {
    fn default() -> Self {
        Self { making: Semaphore::new(AT_ONCE), kept: Mutex::default() }
    }
}

fn broken(error: &io::Error) -> HttpError {
    HttpError::Station(StationError::Journal(format!("a recording cannot be written ({error})")))
}

impl Recordings {
    /// A recording that was made already.
    pub(super) fn at_hand(&self, tag: &str) -> Option<SoundFile> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|kept| kept.tag == tag)?;
        Some(SoundFile { file: found.file.reopen().ok()?, bytes: found.bytes })
    }

    /// A part of a stream in a format; `tag` is the name of these bytes.
    pub(super) async fn file(
        &self,
        stream: &Stream,
        span: Range<u64>,
        format: Format,
        tag: &str,
    ) -> Result<SoundFile, HttpError> {
        if let Some(made) = self.at_hand(tag) {
            return Ok(made);
        }
        let _turn = self.making.acquire().await;
        if let Some(made) = self.at_hand(tag) {
            return Ok(made);
        }
        let file = make(stream, span, format).await?;
        let (reopened, bytes) = file
            .reopen()
            .and_then(|reopened| reopened.metadata().map(|about| (reopened, about.len())))
            .map_err(|error| broken(&error))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(Kept { tag: tag.to_owned(), file, bytes });
        while kept.len() > KEPT || (kept.len() > 1 && kept.iter().map(|kept| kept.bytes).sum::<u64>() > KEPT_BYTES) {
            kept.pop_front();
        }
        Ok(SoundFile { file: reopened, bytes })
    }
}

/// A file in the making.
struct Pen {
    file: NamedTempFile,
    long: Box<dyn LongFile>,
}

impl Pen {
    fn write(mut self, sound: &[f32]) -> Result<Self, HttpError> {
        let bytes = self.long.push(sound).map_err(unmade)?;
        self.file.write_all(&bytes).map_err(|error| broken(&error))?;
        Ok(self)
    }

    fn finish(self) -> Result<NamedTempFile, HttpError> {
        let Self { mut file, long } = self;
        let LongEnd { rest, head } = long.finish().map_err(unmade)?;
        let mut write = || -> io::Result<()> {
            file.write_all(&rest)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&head)?;
            File::flush(file.as_file_mut())
        };
        write().map_err(|error| broken(&error))?;
        Ok(file)
    }
}

fn unmade(error: AudioError) -> HttpError {
    HttpError::Station(error.into())
}

/// Makes a recording as fast as the codec goes; the next piece is decoded while the one before is
/// encoded.
async fn make(stream: &Stream, span: Range<u64>, format: Format) -> Result<NamedTempFile, HttpError> {
    let mut replay = Replay::open(stream, span)?;
    let long = format.long(replay.channels()).map_err(unmade)?;
    let mut pen = Pen { file: NamedTempFile::new().map_err(|error| broken(&error))?, long };
    let mut block = replay.next().await?;
    while let Some(sound) = block {
        let writing = spawn_blocking(move || pen.write(&sound));
        block = replay.next().await?;
        pen = joined(writing.await)?;
    }
    joined(spawn_blocking(move || pen.finish()).await)
}

fn joined<T>(work: Result<Result<T, HttpError>, tokio::task::JoinError>) -> Result<T, HttpError> {
    work.map_err(|error| HttpError::Station(StationError::Journal(error.to_string())))?
}
