//! What outlives the process: sessions and clips in SQLite, sounds in files beside it.
//!
//! One thread owns the connection; everybody else sends it closures. A sound is written under a temporary name, synced
//! and renamed, and only then named by a row: whatever moment the process dies at, a row's file is whole. Files that no
//! row names (the process died in between) are removed when the folder is opened.

mod records;
mod schema;
mod sweep;

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use records::{ClipRecord, ClipState, SessionRecord};
pub use sweep::Retention;

use super::{AudioId, StudioError};

type Call = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    calls: Sender<Call>,
    folder: Arc<Folder>,
}

/// A folder that this process alone uses.
struct Folder {
    path: PathBuf,
    /// Held for as long as the store lives.
    _lock: File,
    /// Removed with the store.
    ephemeral: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ephemeral {
            // Left for the system's own cleaning if that fails.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn broken(path: &Path, error: impl std::fmt::Display) -> StudioError {
    StudioError::Store(format!("{} cannot be used: {error}. Check the folder and its rights.", path.display()))
}

/// How the names of folders begin that go with their store.
const EPHEMERAL: &str = "continuo-";
/// After this time a server that uses a folder has locked it.
const SETTLED: Duration = Duration::from_secs(60);

impl Store {
    /// Opens a folder, creating what is missing, and removes what an interrupted process left half done.
    ///
    /// # Errors
    /// [`StudioError::Store`] when the folder cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<Self, StudioError> {
        Self::open_as(path, false)
    }

    /// A folder of its own that goes with the store: for a server that need not remember.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub fn ephemeral() -> Result<Self, StudioError> {
        let temporary = std::env::temp_dir();
        sweep::remove_abandoned(&temporary, SETTLED);
        Self::open_as(&temporary.join(format!("{EPHEMERAL}{}", Uuid::new_v4().simple())), true)
    }

    fn open_as(path: &Path, ephemeral: bool) -> Result<Self, StudioError> {
        let audio = path.join("audio");
        fs::create_dir_all(&audio).map_err(|error| broken(path, error))?;
        let lock = File::create(path.join("lock")).map_err(|error| broken(path, error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StudioError::Store(format!(
                "{} is used by another server; give this one another --data.",
                path.display()
            )),
            TryLockError::Error(error) => broken(path, error),
        })?;
        let mut connection = schema::open(&path.join("studio.db"))?;
        sweep::remove_strays(&connection, &audio)?;
        let (calls, inbox) = channel::<Call>();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                for call in inbox {
                    call(&mut connection);
                }
            })
            .map_err(|error| broken(path, error))?;
        Ok(Self { calls, folder: Arc::new(Folder { path: path.to_owned(), _lock: lock, ephemeral }) })
    }

    /// Runs `call` on the store's thread.
    ///
    /// # Errors
    /// [`StudioError::Store`], and whatever `call` answers.
    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> Result<T, StudioError> + Send + 'static,
    ) -> Result<T, StudioError> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            // Whoever asked may be gone.
            let _ = reply.send(call(connection));
        });
        let ended = || StudioError::Store("its thread has ended; restart the server.".into());
        self.calls.send(call).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    fn file(&self, id: AudioId) -> PathBuf {
        self.folder.path.join("audio").join(id.to_string())
    }

    /// Writes a sound's bytes under a new id; durable when this returns. A row must name it soon.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn keep(&self, bytes: Bytes) -> Result<AudioId, StudioError> {
        let id = AudioId::random();
        let path = self.file(id);
        blocking(move || {
            let partial = path.with_extension("part");
            let write = || -> std::io::Result<()> {
                let mut file = File::create(&partial)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&partial, &path)?;
                path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
            };
            write().map_err(|error| {
                // The disk may be full: what was written must not stay.
                let _ = fs::remove_file(&partial);
                broken(&path, error)
            })
        })
        .await?;
        Ok(id)
    }

    /// A sound's bytes.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn read(&self, id: AudioId) -> Result<Bytes, StudioError> {
        let path = self.file(id);
        blocking(move || fs::read(&path).map(Bytes::from).map_err(|error| broken(&path, error))).await
    }

    /// Removes files that no row names any more.
    pub async fn remove(&self, ids: Vec<AudioId>) {
        if ids.is_empty() {
            return;
        }
        let paths: Vec<PathBuf> = ids.into_iter().map(|id| self.file(id)).collect();
        let removed = blocking(move || {
            for path in paths {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!("{} cannot be removed: {error}", path.display());
                }
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "files were not removed");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StudioError> + Send + 'static,
) -> Result<T, StudioError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StudioError::Store(format!("a file could not be worked on: {error}.")))?
}
