//! Stored sounds as files of a format: as they are, or converted.

use std::io::{Read, Seek};

use bytes::Bytes;

use super::decoded::decode_within;
use super::run::work;
use super::{AudioId, ClipId, SessionId, SoundFile, Studio, StudioError};
use crate::audio::Format;
use crate::pcm::Pcm;
use crate::units::SampleRate;

/// Times its size that a sound takes while it is converted: samples at another rate, as numbers of
/// the encoder, as a file.
const CONVERSION: u64 = 3;

impl Studio {
    /// The present sound of a session.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::NoAudio`], [`StudioError::Store`].
    pub async fn current(&self, session: &SessionId) -> Result<AudioId, StudioError> {
        self.store.session(session).await?.current.ok_or(StudioError::NoAudio)
    }

    /// The result of a clip.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::NotReady`], [`StudioError::Store`].
    pub async fn output(&self, clip: ClipId) -> Result<AudioId, StudioError> {
        self.store.clip(clip).await?.output.ok_or_else(|| StudioError::NotReady(clip.to_string()))
    }

    /// A sound as a file of a format; the same bytes every time.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Store`].
    pub async fn file(&self, id: AudioId, format: Format) -> Result<SoundFile, StudioError> {
        match self.file_at_hand(id, format).await? {
            Some(file) => Ok(file),
            None => self.converted(id, format.extension(), move |sound| encode(sound, format)).await,
        }
    }

    /// What `make` makes of a sound, kept under a name of its `kind`.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Store`], [`StudioError::Exhausted`].
    pub async fn converted(
        &self,
        id: AudioId,
        kind: &str,
        make: impl FnOnce(Pcm) -> Result<Vec<u8>, StudioError> + Send + 'static,
    ) -> Result<SoundFile, StudioError> {
        let (budget, sandbox) = (self.config.budget.clone(), self.config.sandbox.clone());
        let make = move |bytes: Bytes| async move {
            let mut sound = decode_within(&budget, &sandbox, bytes).await?;
            sound.make_room_for(CONVERSION).await?;
            let (sound, share) = sound.into_parts();
            let made = work(move || make(sound)).await;
            drop(share);
            made
        };
        self.store.converted(id, kind, make).await
    }

    /// The same if no work is needed for it.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn file_at_hand(&self, id: AudioId, format: Format) -> Result<Option<SoundFile>, StudioError> {
        if format == Format::WAV {
            let stored = self.store.sound(id).await?;
            if let Some(wav) = work(move || Ok(if_wav(stored))).await? {
                return Ok(Some(wav));
            }
        }
        self.store.converted_before(id, format.extension()).await
    }
}

/// What a sound consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Samples per channel.
    pub frames: u64,
    /// Channels.
    pub channels: u16,
    /// Frames per second.
    pub rate: SampleRate,
}

impl Studio {
    /// The shape of a clip's result, from its header.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::NotReady`], [`StudioError::Store`].
    pub async fn shape_of_clip(&self, clip: ClipId) -> Result<Shape, StudioError> {
        let mut sound = self.store.sound(self.output(clip).await?).await?;
        let read = work(move || {
            let mut header = [0; 44];
            let read = sound.file.read_exact(&mut header);
            read.map_err(|error| StudioError::Broken(error.to_string()))?;
            Ok((header, sound.bytes))
        });
        // Results are written here: 16-bit samples after 44 bytes.
        let (header, bytes) = read.await?;
        let channels = u16::from_le_bytes([header[22], header[23]]).max(1);
        let rate = SampleRate(u32::from_le_bytes([header[24], header[25], header[26], header[27]]));
        Ok(Shape { frames: (bytes - 44) / (2 * u64::from(channels)), channels, rate })
    }
}

/// The file, if it is a WAV file.
fn if_wav(mut sound: SoundFile) -> Option<SoundFile> {
    let mut magic = [0; 4];
    sound.file.read_exact(&mut magic).ok()?;
    sound.file.rewind().ok()?;
    (magic == *b"RIFF").then_some(sound)
}

fn encode(mut sound: Pcm, format: Format) -> Result<Vec<u8>, StudioError> {
    if sound.channels > format.most_channels() {
        sound = sound.stereo();
    }
    Ok(format.encode(&sound.pcm, sound.rate, sound.channels)?)
}
