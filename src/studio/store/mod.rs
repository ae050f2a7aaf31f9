//! What outlives the process: sessions and clips in SQLite, sounds in files beside it.
//!
//! One thread owns the connection; everybody else sends it closures. A sound is written under a
//! temporary name and synced, then named by a row, then renamed: whatever moment the process dies
//! at, a row's file is whole, and what it began is finished or undone when the folder is opened.
//! What nobody here can have written is moved aside, not removed.

mod clips;
mod clock;
mod conversions;
mod copies;
mod files;
mod fit;
mod records;
mod rows;
mod schema;
mod sessions;
mod stored;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use uuid::Uuid;

#[cfg(test)]
pub(super) use clock::{Moment, Moments};
pub use conversions::{LEVELLED, PEAKS, SoundFile, tag};
pub use copies::SessionCopy;
pub use files::Draft;
pub use records::{ClipRecord, ClipState, SessionRecord};
pub use sweep::Retention;

use super::StudioError;
use clock::Clock;
use conversions::Conversions;
use files::Folder;

type Call = Box<dyn FnOnce(&mut Table) + Send>;

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    calls: Sender<Call>,
    folder: Arc<Folder>,
    /// Bytes of all sounds at most.
    most: Arc<AtomicU64>,
}

/// The connection, and what its thread keeps beside it.
struct Table {
    connection: Connection,
    clock: Clock,
    folder: PathBuf,
    /// Sounds whose removal has failed; tried again when the folder is opened.
    stuck: HashSet<String>,
}

impl Deref for Table {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Table {
    /// Unix seconds.
    fn now(&self) -> i64 {
        self.clock.now()
    }

    fn before_call(&mut self) {
        self.clock.look(&mut self.connection);
    }

    fn after_call(&mut self) {
        if let Err(error) = files::remove_gone(&self.connection, &self.folder, &mut self.stuck) {
            tracing::debug!(%error, "what is no longer kept is removed later");
        }
    }
}

/// A failure while a folder is opened: said to the operator, who may know its place.
fn broken(path: &Path, error: impl std::fmt::Display) -> StudioError {
    StudioError::Store(format!(
        "{} cannot be used: {error}. Check the folder and its rights, or name another one with --data.",
        path.display()
    ))
}

/// How the names of folders begin that go with their store.
const EPHEMERAL: &str = "continuo-";
/// After this time a server that uses a folder has locked it.
const SETTLED: Duration = Duration::from_secs(60);

impl Store {
    /// Opens a folder, creating what is missing, and finishes what an interrupted process left half
    /// done.
    ///
    /// # Errors
    /// [`StudioError::Store`] when the folder cannot be used, another process uses it, or its table
    /// is damaged or does not belong to its sounds; nothing is changed then.
    pub fn open(path: &Path) -> Result<Self, StudioError> {
        Self::open_as(path, false, clock::of_the_machine())
    }

    /// As [`Store::open`], by another clock.
    #[cfg(test)]
    pub(super) fn open_by(path: &Path, moments: Moments) -> Result<Self, StudioError> {
        Self::open_as(path, false, moments)
    }

    /// A folder of its own that goes with the store: for a server that need not remember.
    ///
    /// # Errors
    /// [`StudioError::Store`] when no folder for temporary files can be written.
    pub fn ephemeral() -> Result<Self, StudioError> {
        Self::ephemeral_in(&temporary_folders())
    }

    fn ephemeral_in(places: &[PathBuf]) -> Result<Self, StudioError> {
        let mut reasons = Vec::new();
        for place in places.iter().filter(|place| place.is_dir()) {
            sweep::remove_abandoned(place, SETTLED);
            let path = place.join(format!("{EPHEMERAL}{}", Uuid::new_v4().simple()));
            match make_private(&path).map_err(|error| broken(&path, error)) {
                Ok(()) => match Self::open_as(&path, true, clock::of_the_machine()) {
                    Ok(store) => return Ok(store),
                    Err(error) => {
                        // Nothing of use is in it.
                        let _ = fs::remove_dir_all(&path);
                        reasons.push(error.to_string());
                    }
                },
                Err(error) => reasons.push(error.to_string()),
            }
        }
        tracing::debug!(?reasons, "no place for temporary files");
        Err(StudioError::Store(
            "there is no folder for temporary files that can be written; name one with TMPDIR.".into(),
        ))
    }

    fn open_as(path: &Path, ephemeral: bool, moments: clock::Moments) -> Result<Self, StudioError> {
        Self::open_whole(path, ephemeral, moments).map_err(|error| {
            if files::has_room(path) {
                return error;
            }
            // Whatever failed did so for want of room.
            StudioError::Store(format!(
                "the disk of {} is full; make room on it, or name another folder with --data.",
                path.display()
            ))
        })
    }

    fn open_whole(path: &Path, ephemeral: bool, moments: clock::Moments) -> Result<Self, StudioError> {
        let audio = path.join("audio");
        fs::create_dir_all(&audio).map_err(|error| broken(path, error))?;
        let lock = File::create(path.join(files::LOCK)).map_err(|error| broken(path, error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StudioError::Store(format!(
                "{} is used by another server; give this one another --data.",
                path.display()
            )),
            TryLockError::Error(error) => broken(path, error),
        })?;
        let mut connection = fit::open(path)?;
        let unusable = |error: rusqlite::Error| broken(&path.join(fit::TABLE), error);
        let clock = Clock::start(&mut connection, moments).map_err(unusable)?;
        let mut table = Table { connection, clock, folder: path.to_owned(), stuck: HashSet::new() };
        table.after_call();
        fit::tidy(&table, path)?;
        #[expect(clippy::disallowed_methods, reason = "each call is answered before its caller goes on")]
        let (calls, inbox) = channel::<Call>();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                for call in inbox {
                    call(&mut table);
                }
            })
            .map_err(|error| broken(path, error))?;
        let conversions = Conversions::open(path.join(conversions::FOLDER))?;
        let drafts = AtomicU64::new(0);
        let folder = Folder { path: path.to_owned(), conversions, lock, ephemeral, drafts };
        Ok(Self { calls, folder: Arc::new(folder), most: Arc::new(AtomicU64::new(u64::MAX)) })
    }

    /// Bytes of all sounds at most, from now on.
    pub(super) fn keep_at_most(&self, bytes: Option<u64>) {
        self.most.store(bytes.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Brings all that is written into the table's one file, as whoever copies it expects.
    pub(super) async fn rest(&self) {
        let all = self.with(|table| Ok(schema::gather(table)?));
        if let Err(error) = all.await {
            tracing::debug!(%error, "the table stays in two files");
        }
    }

    /// Runs `call` on the store's thread. Once it was sent it is done, whether or not somebody
    /// waits for the answer.
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`], and whatever `call` answers.
    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Table) -> Result<T, StudioError> + Send + 'static,
    ) -> Result<T, StudioError> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |table| {
            table.before_call();
            let answer = call(table);
            table.after_call();
            // Whoever asked may be gone.
            let _ = reply.send(answer);
        });
        let ended = || StudioError::Store("its thread has ended; restart the server.".into());
        self.calls.send(call).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?.map_err(|error| self.folder.explained(error))
    }
}

/// Where temporary files may go, the likeliest first.
fn temporary_folders() -> Vec<PathBuf> {
    let mut places = vec![std::env::temp_dir()];
    if cfg!(unix) {
        places.extend(["/tmp".into(), "/var/tmp".into()]);
    }
    places
}

/// A folder in a place that all users share.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
