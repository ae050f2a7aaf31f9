//! Files that clients send: read once, and kept read for the clip that waits for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::run::work;
use super::{AudioId, Decoded, Studio, StudioError, splice};
use crate::budget::{Budget, Share};

/// What part of the memory for requests may be taken by sounds whose clips wait: a long queue must
/// not stop those who come and go.
const PART: u64 = 4;

/// A client's file, and the sound in it once it was read.
pub struct GivenSound {
    pub(super) file: Bytes,
    sound: Option<Decoded>,
}

impl From<Bytes> for GivenSound {
    fn from(file: Bytes) -> Self {
        Self { file, sound: None }
    }
}

impl GivenSound {
    /// A file that is written here: the sound in 16 bits. It is heard as whoever reads the file
    /// hears it.
    pub fn written(sound: Decoded) -> Self {
        Self { file: sound.wav().into(), sound: Some(sound.in_16_bits()) }
    }

    /// Its sound, once it was read.
    pub fn sound(&self) -> Option<&Decoded> {
        self.sound.as_ref()
    }
}

impl Studio {
    /// Reads an upload, unless that was done.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Exhausted`].
    pub async fn read(&self, upload: impl Into<GivenSound>) -> Result<GivenSound, StudioError> {
        let GivenSound { file, sound } = upload.into();
        let sound = match sound {
            Some(sound) => sound,
            None => self.decode(file.clone()).await?,
        };
        Ok(GivenSound { file, sound: Some(sound) })
    }

    /// The same for an upload that need not be there.
    pub(super) async fn read_any(
        &self,
        upload: Option<impl Into<GivenSound>>,
    ) -> Result<Option<GivenSound>, StudioError> {
        match upload {
            Some(upload) => Ok(Some(self.read(upload).await?)),
            None => Ok(None),
        }
    }

    /// The sound of an upload in the shape that clips work on, if there is memory to keep it.
    pub(super) async fn to_be_kept(&self, sound: Option<Decoded>) -> Option<Kept> {
        let sound = sound?;
        // What cannot be brought into shape is told by the clip.
        let sound = work(move || sound.try_map(splice::usable)).await.ok()?;
        self.given.room_for(sound)
    }
}

impl GivenSound {
    pub(super) fn into_parts(self) -> (Bytes, Option<Decoded>) {
        (self.file, self.sound)
    }
}

/// Sounds that were read and whose clips wait or are being made.
pub(super) struct GivenSounds {
    room: Budget,
    kept: Mutex<HashMap<AudioId, Kept>>,
}

/// A sound, and its place among those that are kept.
pub(super) struct Kept {
    sound: Arc<Decoded>,
    _room: Share,
}

impl GivenSounds {
    /// A part of a budget.
    pub(super) fn within(budget: &Budget) -> Self {
        Self { room: Budget::new(budget.bytes() / PART), kept: Mutex::default() }
    }

    fn room_for(&self, sound: Decoded) -> Option<Kept> {
        let bytes = sound.bytes();
        let room = if bytes <= self.room.bytes() { self.room.try_take(bytes).ok() } else { None };
        Some(Kept { sound: Arc::new(sound), _room: room? })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AudioId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the sound of a file that is stored.
    pub(super) fn keep(&self, file: AudioId, sound: Option<Kept>) {
        if let Some(sound) = sound {
            self.lock().insert(file, sound);
        }
    }

    /// The sound of a stored file, if it is kept.
    pub(super) fn get(&self, file: AudioId) -> Option<Arc<Decoded>> {
        self.lock().get(&file).map(|kept| Arc::clone(&kept.sound))
    }

    /// Gives up the sound of a stored file; it belongs to whoever asked, unless others hear it as
    /// well.
    pub(super) fn take(&self, file: AudioId) -> Option<Decoded> {
        let kept = self.lock().remove(&file)?;
        Arc::into_inner(kept.sound)
    }
}
