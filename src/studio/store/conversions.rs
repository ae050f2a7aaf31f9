//! Sounds in other formats: each conversion is made once, by whoever asks first, and kept beside
//! the sounds.
//!
//! Together they stay within a size; those that were not asked for longest go first. A conversion
//! is written under a temporary name and renamed, so a file under its proper name is whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::super::{AudioId, StudioError};
use super::files::{Folder, PARTIAL, blocking};
use super::{Store, broken};
use crate::audio::Format;

/// Their folder, beside that of the sounds.
pub(super) const FOLDER: &str = "converted";
/// The kind that is brought to one loudness.
pub const LEVELLED: &str = "levelled.wav";
/// The kind that is drawn.
pub const PEAKS: &str = "peaks.json";
/// Bytes of all conversions.
const MOST: u64 = 2 << 30;
/// Conversions that are made at the same time: each takes a processor, and memory for a whole
/// sound.
const AT_ONCE: usize = 2;
/// Another version may convert the same sound to other bytes.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A stored sound or a conversion of one, open for reading. It can be read to its end whatever is
/// removed meanwhile.
#[derive(Debug)]
pub struct SoundFile {
    /// At its beginning.
    pub file: File,
    /// Its size.
    pub bytes: u64,
}

/// The name of these bytes: the same name is the same bytes, for ever.
pub fn tag(id: AudioId, kind: &str) -> String {
    format!("{id}-{VERSION}.{kind}")
}

/// All kinds of conversions.
fn kinds() -> impl Iterator<Item = &'static str> {
    Format::ALL.into_iter().map(Format::extension).chain([LEVELLED, PEAKS])
}

/// The folder of conversions.
pub(super) struct Conversions {
    folder: PathBuf,
    most: u64,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Sizes, and when each was asked for last.
    kept: HashMap<String, (u64, SystemTime)>,
    /// One lock per conversion that somebody waits for.
    making: HashMap<String, Weak<tokio::sync::Mutex<()>>>,
}

impl Conversions {
    pub(super) fn open(folder: PathBuf) -> Result<Self, StudioError> {
        Self::within(folder, MOST)
    }

    fn within(folder: PathBuf, most: u64) -> Result<Self, StudioError> {
        fs::create_dir_all(&folder).map_err(|error| broken(&folder, error))?;
        let mut state = State::default();
        for entry in fs::read_dir(&folder).map_err(|error| broken(&folder, error))?.flatten() {
            let (Ok(name), Ok(data)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if name.ends_with(PARTIAL) {
                remove(&entry.path());
            } else if data.is_file() {
                state.kept.insert(name, (data.len(), data.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
            }
        }
        let conversions = Self { folder, most, places: Arc::new(Semaphore::new(AT_ONCE)), state: Mutex::new(state) };
        conversions.shrink();
        Ok(conversions)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panicking holder left, files that are not listed are only not found.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was made already.
    fn at_hand(&self, name: &str) -> Option<SoundFile> {
        let mut state = self.state();
        let kept = state.kept.get_mut(name)?;
        match open(&self.folder.join(name)) {
            Ok(found) => {
                kept.1 = SystemTime::now();
                // For the order after a restart; a file system that refuses it loses only that.
                let _ = found.file.set_modified(kept.1);
                Some(found)
            }
            Err(_) => {
                state.kept.remove(name);
                None
            }
        }
    }

    fn lock_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        state.making.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = state.making.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        state.making.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<SoundFile> {
        let (path, partial) = (self.folder.join(name), self.folder.join(format!("{name}.{PARTIAL}")));
        fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, &path)).inspect_err(|_| remove(&partial))?;
        let found = open(&path)?;
        // The system's own times of files are coarser.
        let now = SystemTime::now();
        let _ = found.file.set_modified(now);
        self.state().kept.insert(name.to_owned(), (found.bytes, now));
        self.shrink();
        Ok(found)
    }

    /// Removes what was not asked for longest until the rest fits.
    fn shrink(&self) {
        let mut state = self.state();
        let mut total: u64 = state.kept.values().map(|(bytes, _)| bytes).sum();
        while total > self.most
            && let Some(oldest) = state.kept.iter().min_by_key(|(_, (_, asked))| *asked).map(|(name, _)| name.clone())
        {
            total -= state.kept.remove(&oldest).map_or(0, |(bytes, _)| bytes);
            remove(&self.folder.join(oldest));
        }
    }
}

/// Removes the conversions of a sound that goes. What is still counted is found to be gone when it
/// is asked for.
pub(super) fn forget(folder: &Path, id: &str) {
    let Ok(id) = id.parse::<AudioId>() else { return };
    let folder = folder.join(FOLDER);
    kinds().for_each(|kind| remove(&folder.join(tag(id, kind))));
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{} cannot be removed: {error}", path.display());
    }
}

fn open(path: &Path) -> io::Result<SoundFile> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok(SoundFile { file, bytes })
}

impl Store {
    /// A sound as it is stored.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn sound(&self, id: AudioId) -> Result<SoundFile, StudioError> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            let path = folder.file(id);
            open(&path).map_err(|error| folder.failed("read", &path, &error))
        })
        .await
    }

    /// A conversion that was made already.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn converted_before(&self, id: AudioId, kind: &str) -> Result<Option<SoundFile>, StudioError> {
        let (folder, name) = (Arc::clone(&self.folder), tag(id, kind));
        blocking(move || Ok(folder.conversions.at_hand(&name))).await
    }

    /// A sound's conversion, made by `make` from the stored bytes unless that was done before.
    /// Whoever asks for the same at the same time waits for the one that is being made, which is
    /// finished even when nobody waits any more.
    ///
    /// # Errors
    /// [`StudioError::Store`], and what `make` answers.
    pub async fn converted<M, F>(&self, id: AudioId, kind: &str, make: M) -> Result<SoundFile, StudioError>
    where
        M: FnOnce(Bytes) -> F + Send + 'static,
        F: Future<Output = Result<Vec<u8>, StudioError>> + Send,
    {
        if let Some(found) = self.converted_before(id, kind).await? {
            return Ok(found);
        }
        let (store, name) = (self.clone(), tag(id, kind));
        let alone = self.folder.conversions.lock_of(&name).lock_owned().await;
        if let Some(found) = self.converted_before(id, kind).await? {
            return Ok(found);
        }
        let places = Arc::clone(&self.folder.conversions.places);
        let making = tokio::spawn(async move {
            let _alone = alone;
            let _place = places.acquire_owned().await;
            let bytes = store.read(id).await?;
            let made = make(bytes).await?;
            let folder: Arc<Folder> = Arc::clone(&store.folder);
            blocking(move || {
                let kept = folder.conversions.keep(&name, &made);
                kept.map_err(|error| folder.failed("written", &folder.path.join(FOLDER).join(&name), &error))
            })
            .await
        });
        making.await.map_err(|error| StudioError::Store(format!("a file could not be converted: {error}.")))?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// A sound that is stored.
    fn stored(store: &Store) -> AudioId {
        let id = AudioId::random();
        fs::write(store.folder.file(id), b"sound").unwrap();
        id
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn two_who_ask_at_the_same_time_get_one_conversion() {
        let store = Store::ephemeral().unwrap();
        let id = stored(&store);
        let (made, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        // Made when it is told to.
        let ask = |kind| {
            let (made, go) = (Arc::clone(&made), Arc::clone(&go));
            store.converted(id, kind, move |bytes| async move {
                made.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Ok(bytes.repeat(2))
            })
        };
        let begun = async |count| {
            while made.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        let release = async {
            begun(1).await;
            go.notify_one();
        };
        let (one, other, ()) = tokio::join!(ask("flac"), ask("flac"), release);
        assert_eq!((one.unwrap().bytes, other.unwrap().bytes), (10, 10));
        assert_eq!(made.load(Ordering::SeqCst), 1);
        // Whoever leaves before it is there does not stop it.
        tokio::select! {
            _ = ask("ogg") => panic!("it is not made yet"),
            () = begun(2) => {}
        }
        go.notify_one();
        let never = async |_: Bytes| Err(StudioError::Broken("it is made already".into()));
        assert_eq!(store.converted(id, "ogg", never).await.unwrap().bytes, 10);
        forget(&store.folder.path, &id.to_string());
        assert!(store.converted_before(id, "flac").await.unwrap().is_none());
        assert!(names(&store.folder.conversions.folder).is_empty());
    }

    #[tokio::test]
    async fn a_conversion_that_fails_leaves_nothing_and_may_be_asked_for_again() {
        let store = Store::ephemeral().unwrap();
        let id = stored(&store);
        let fails = store.converted(id, "flac", |_| async { Err(StudioError::Broken("no".into())) }).await;
        assert!(matches!(fails, Err(StudioError::Broken(_))));
        let again = store.converted(id, "flac", |bytes| async move { Ok(bytes.to_vec()) }).await;
        assert_eq!(again.unwrap().bytes, 5);
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("converted");
        let conversions = Conversions::within(path.clone(), 25).unwrap();
        for name in ["a", "b"] {
            conversions.keep(name, &[0; 10]).unwrap();
        }
        assert!(conversions.at_hand("a").is_some());
        conversions.keep("c", &[0; 10]).unwrap();
        assert_eq!(names(&path), ["a", "c"]);
        fs::write(path.join("d.part"), b"half").unwrap();
        let conversions = Conversions::within(path.clone(), 15).unwrap();
        assert_eq!(names(&path), ["c"]);
        assert!(conversions.at_hand("a").is_none() && conversions.at_hand("c").is_some());
    }
}
