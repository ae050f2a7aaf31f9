//! Sounds as files: written whole before a row names them, gone when none does any more.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rusqlite::Connection;

use super::super::{AudioId, SessionId, StudioError};
use super::conversions::{self, Conversions};
use super::{Store, fit, sweep};

/// The file whose lock says that a folder is in use.
pub(super) const LOCK: &str = "lock";
/// How the name of a file ends that no row names yet.
pub(super) const PARTIAL: &str = "part";
/// Bytes of the disk that sounds leave alone, so that the table can still say what was removed.
const RESERVE: u64 = 1 << 20;
/// What clients are told; the log says where.
const DISK_FULL: &str = "the disk of the server is full. Remove sessions that are not needed, or try again when its operator has made room.";

/// A folder that this process alone uses.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Of the sounds, to other formats.
    pub(super) conversions: Conversions,
    /// Held for as long as the store lives.
    pub(super) lock: File,
    /// Removed with the store.
    pub(super) ephemeral: bool,
    /// Bytes of all drafts.
    pub(super) drafts: AtomicU64,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ephemeral {
            // Left for the system's own cleaning if that fails.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Folder {
    pub(super) fn file(&self, id: AudioId) -> PathBuf {
        self.path.join("audio").join(id.to_string())
    }

    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        free(&self.path).is_none_or(|free| free >= bytes.saturating_add(RESERVE))
    }

    /// What a client is told of a failure, which the log is told with its place.
    pub(super) fn failed(&self, doing: &str, path: &Path, error: &io::Error) -> StudioError {
        tracing::error!("{} cannot be {doing}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StudioError::NoRoom(DISK_FULL.into()),
            _ => StudioError::Store(format!("a file could not be {doing}; its log says why.")),
        }
    }

    /// A failure of the table is often one of the disk below it.
    pub(super) fn explained(&self, error: StudioError) -> StudioError {
        match error {
            StudioError::Store(_) if !self.has_room_for(0) => StudioError::NoRoom(DISK_FULL.into()),
            error => error,
        }
    }
}

/// Whether a path leads to this file. Where systems have no numbers for files, any file will do.
fn leads_to(path: &Path, file: &File) -> bool {
    let (Ok(found), Ok(ours)) = (fs::metadata(path), file.metadata()) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (found.dev(), found.ino()) == (ours.dev(), ours.ino())
    }
    #[cfg(not(unix))]
    {
        found.is_file() == ours.is_file()
    }
}

/// Whether the system would let this process write to a path.
fn is_writable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
    }
    #[cfg(not(unix))]
    {
        fs::metadata(path).is_ok_and(|found| found.is_dir() || !found.permissions().readonly())
    }
}

/// Whether the disk of a folder has room for more than what is there.
pub(super) fn has_room(path: &Path) -> bool {
    free(path).is_none_or(|free| free >= RESERVE)
}

/// Bytes that are free on the disk of a folder, as far as that can be found out.
fn free(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(path).ok()?;
        // Some systems of files have no numbers to run out of.
        let has_numbers = disk.f_files == 0 || disk.f_favail > 0;
        Some(if has_numbers { disk.f_bavail.saturating_mul(disk.f_frsize) } else { 0 })
    }
    #[cfg(not(unix))]
    None
}

/// A sound that is on the disk and that no row names yet. Dropped, it is gone.
pub struct Draft {
    id: AudioId,
    bytes: u64,
    folder: Arc<Folder>,
    settled: bool,
}

impl Draft {
    /// The name that a row will give it.
    pub fn id(&self) -> AudioId {
        self.id
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn partial(&self) -> PathBuf {
        self.folder.file(self.id).with_extension(PARTIAL)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let partial = self.partial();
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // The name must be on the disk before a row is.
        partial.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// A row names it, for good.
    pub(super) fn settle(mut self) {
        self.settled = true;
        if let Err(error) = fs::rename(self.partial(), self.folder.file(self.id)) {
            // It is there under its first name, and gets the other when the folder is opened again.
            tracing::error!(sound = %self.id, %error, "a sound could not be renamed; restart the server");
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.folder.drafts.fetch_sub(self.bytes, Ordering::SeqCst);
        if !self.settled {
            // It may never have been written.
            let _ = fs::remove_file(self.partial());
        }
    }
}

impl Store {
    /// Why no sound could be kept now, and what to do. Cheap: a few questions to the system.
    pub fn trouble(&self) -> Option<&'static str> {
        let folder = &self.folder;
        let (audio, table) = (folder.path.join("audio"), folder.path.join(fit::TABLE));
        if !leads_to(&folder.path.join(LOCK), &folder.lock) || !audio.is_dir() {
            return Some("the folder for clips and sessions is gone; put it back, or restart the server");
        }
        if ![&folder.path, &audio, &table].into_iter().all(|path| is_writable(path)) {
            return Some("the folder for clips and sessions cannot be written; make it writable");
        }
        (!folder.has_room_for(0)).then_some("the disk for clips and sessions is full; make room")
    }

    /// Writes a sound's bytes for a session, durably. What was not touched for longest goes for it
    /// if need be, but nothing of that session.
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn keep(&self, bytes: Bytes, of: &SessionId) -> Result<Draft, StudioError> {
        self.keep_as(AudioId::random(), bytes, of).await
    }

    /// The same under a name that it has already.
    ///
    /// # Errors
    /// Those of [`Store::keep`].
    pub async fn keep_as(&self, id: AudioId, bytes: Bytes, of: &SessionId) -> Result<Draft, StudioError> {
        let draft = self.reserve(id, bytes.len() as u64, of).await?;
        blocking(move || match draft.write(&bytes) {
            Ok(()) => Ok(draft),
            Err(error) => Err(draft.folder.failed("written", &draft.partial(), &error)),
        })
        .await
    }

    async fn reserve(&self, id: AudioId, bytes: u64, of: &SessionId) -> Result<Draft, StudioError> {
        let (folder, of) = (Arc::clone(&self.folder), of.clone());
        let most = self.most.load(Ordering::SeqCst);
        self.with(move |table| {
            if !folder.has_room_for(bytes) {
                return Err(StudioError::NoRoom(DISK_FULL.into()));
            }
            let wanted = folder.drafts.load(Ordering::SeqCst) + bytes;
            sweep::make_room(table, most, wanted, &of)?;
            folder.drafts.fetch_add(bytes, Ordering::SeqCst);
            Ok(Draft { id, bytes, folder, settled: false })
        })
        .await
    }

    /// A sound's bytes.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn read(&self, id: AudioId) -> Result<Bytes, StudioError> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            let path = folder.file(id);
            fs::read(&path).map(Bytes::from).map_err(|error| folder.failed("read", &path, &error))
        })
        .await
    }
}

/// Removes the files of rows that are gone. What is interrupted here is done when the folder is
/// opened again.
pub(super) fn remove_gone(connection: &Connection, folder: &Path, stuck: &mut HashSet<String>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT id FROM gone")?;
    let gone: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in gone.into_iter().filter(|id| !stuck.contains(id)).collect::<Vec<_>>() {
        // The table is a file like any other: only names that are made here lead to a file.
        let path = id.parse::<AudioId>().ok().map(|id| folder.join("audio").join(id.to_string()));
        conversions::forget(folder, &id);
        match path.map_or(Ok(()), fs::remove_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(sound = id, %error, "a sound that is no longer kept cannot be removed");
                stuck.insert(id);
            }
            _ => drop(connection.prepare_cached("DELETE FROM gone WHERE id = ?1")?.execute([id])?),
        }
    }
    Ok(())
}

/// Removes files whose rows cannot go before there is room on the disk to say so.
pub(super) fn remove_first(folder: &Folder, ids: &[AudioId]) {
    for id in ids {
        conversions::forget(&folder.path, &id.to_string());
        if let Err(error) = fs::remove_file(folder.file(*id)) {
            tracing::warn!(sound = %id, %error, "a sound that is no longer kept cannot be removed");
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StudioError> + Send + 'static,
) -> Result<T, StudioError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StudioError::Store(format!("a file could not be worked on: {error}.")))?
}
