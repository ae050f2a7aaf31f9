//! Given sounds, decoded within the memory that there is for requests.

use std::ops::Deref;

use bytes::Bytes;

use super::{Studio, StudioError};
use crate::budget::{Budget, Exhausted, Share};
use crate::pcm::Pcm;
use crate::sandbox::Sandbox;

/// Bytes that a sound is expected to take at least and at most before it is decoded, and times its
/// file.
const LEAST: u64 = 16 << 20;
const MOST: u64 = 240 << 20;
const UNFOLDS: u64 = 6;

/// A sound, and its part of the memory.
pub struct Decoded {
    sound: Pcm,
    share: Share,
}

impl Deref for Decoded {
    type Target = Pcm;

    fn deref(&self) -> &Pcm {
        &self.sound
    }
}

fn bytes_of(sound: &Pcm) -> u64 {
    size_of_val(&sound.pcm[..]) as u64
}

/// Decodes a file, once there is memory for it.
///
/// # Errors
/// [`StudioError::Audio`], [`StudioError::Exhausted`].
pub async fn decode_within(budget: &Budget, sandbox: &Sandbox, file: Bytes) -> Result<Decoded, StudioError> {
    let expected = (file.len() as u64 * UNFOLDS).clamp(LEAST, MOST);
    let mut share = budget.take(expected).await?;
    let sound = sandbox.decode(file).await?;
    share.grow(bytes_of(&sound)).await?;
    share.shrink(bytes_of(&sound));
    Ok(Decoded { sound, share })
}

impl Studio {
    /// Decodes a file of a client who waits.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Exhausted`].
    pub async fn decode(&self, file: Bytes) -> Result<Decoded, StudioError> {
        decode_within(&self.config.budget, &self.config.sandbox, file).await
    }

    /// Decodes the sound of work that was accepted, however long memory for it has to be waited
    /// for.
    ///
    /// # Errors
    /// [`StudioError::Audio`].
    pub(super) async fn decode_patiently(&self, file: Bytes) -> Result<Decoded, StudioError> {
        loop {
            match self.decode(file.clone()).await {
                Err(StudioError::Exhausted(_)) => {}
                other => return other,
            }
        }
    }
}

impl Decoded {
    /// The same sound in another shape.
    ///
    /// # Errors
    /// Those of `change`.
    pub(super) fn try_map(self, change: impl FnOnce(Pcm) -> Result<Pcm, StudioError>) -> Result<Self, StudioError> {
        Ok(Self::made_of(change(self.sound)?, self.share))
    }

    /// Bytes of its samples.
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(&self.sound)
    }

    /// What is left of it in a file of 16 bits.
    pub(super) fn in_16_bits(mut self) -> Self {
        self.sound.round_to_16_bits();
        self
    }

    /// A sound that was made of another one, whose part of the memory it takes over.
    pub fn made_of(sound: Pcm, mut share: Share) -> Self {
        share.shrink(bytes_of(&sound));
        Self { sound, share }
    }

    /// Takes memory for `times` as much besides.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub(super) async fn make_room_for(&mut self, times: u64) -> Result<(), Exhausted> {
        self.share.grow(bytes_of(&self.sound) * (1 + times)).await
    }

    /// The sound with its part of the memory, which must be kept as long.
    pub fn into_parts(self) -> (Pcm, Share) {
        (self.sound, self.share)
    }
}
