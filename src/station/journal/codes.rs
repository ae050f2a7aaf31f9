//! The codes before a place, for music that goes on from there.

use std::sync::Arc;

use super::super::StationError;
use super::Journal;
use super::reader::Reader;
use super::record::{Record, Run, What};
use crate::audio::OPUS_RATE;
use crate::engine::Prefix;

/// Frames of 48 kHz beside the wanted ones that are read: codes lie a little before their sound.
const BESIDE: u64 = 3 * OPUS_RATE as u64;

impl Journal {
    /// The last frames of codes whose sound lies before media time `at`, of the run that plays
    /// there; `most` says how many of a codec with a fingerprint are wanted.
    ///
    /// # Errors
    /// [`StationError::NotKept`] when there are none, [`StationError::Journal`].
    pub(in super::super) async fn codes_before(
        self: &Arc<Self>,
        at: u64,
        most: impl Fn(u64) -> usize,
    ) -> Result<Prefix, StationError> {
        let kept = self.kept();
        if at < kept.start || at > kept.end {
            return Err(StationError::not_kept(kept));
        }
        let voice = self.lock().index.voice_time(at);
        let mut found: Option<Found> = None;
        // The longest that any model remembers: what is read and not wanted is let go again.
        let mut reader = Reader::new(Arc::clone(self), at.saturating_sub(60 * u64::from(OPUS_RATE) + BESIDE));
        while let Some(record) = reader.next().await? {
            match record {
                Record::Mark(mark) => match mark.what {
                    What::Run(run) if found.as_ref().is_none_or(|found| found.run != run) => {
                        if run.begins() >= voice && found.is_some() {
                            break;
                        }
                        let most = most(run.codec().fingerprint);
                        found = Some(Found { run, first: None, codes: Vec::new(), most });
                    }
                    _ => {}
                },
                Record::Sound(sound) => {
                    let Some(found) = found.as_mut().filter(|found| found.run.number == sound.run) else { continue };
                    found.take(sound.first, &sound.codes, voice);
                    if sound.end > at + BESIDE {
                        break;
                    }
                }
                Record::Head(_) => {}
            }
        }
        let found = found.filter(|found| !found.codes.is_empty()).ok_or_else(|| StationError::not_kept(kept))?;
        let (codes, fingerprint) = (found.codes.into(), found.run.codec().fingerprint);
        Ok(Prefix { codes, fingerprint, heard: false, skipped: 0 })
    }
}

struct Found {
    run: Run,
    /// The frame that follows.
    first: Option<u64>,
    codes: Vec<u32>,
    most: usize,
}

impl Found {
    /// Takes the frames that sound before voice time `voice`, and keeps the last ones.
    fn take(&mut self, first: u64, codes: &[u32], voice: u64) {
        let codec = self.run.codec();
        if self.first.is_some_and(|next| next != first) {
            self.codes.clear();
        }
        let frames = (codes.len() / codec.codebooks) as u64;
        self.first = Some(first + frames);
        let wanted = self.run.frames_before(voice).saturating_sub(first).min(frames) as usize;
        self.codes.extend_from_slice(&codes[..wanted * codec.codebooks]);
        let most = self.most * codec.codebooks;
        self.codes.drain(..self.codes.len().saturating_sub(most));
    }
}

impl Run {
    /// Voice time of its first sound.
    pub(super) fn begins(&self) -> u64 {
        self.base + self.origin.max(0) as u64 * u64::from(OPUS_RATE) / u64::from(self.codec().rate)
    }

    /// Its frames that sound before voice time `voice`.
    pub(super) fn frames_before(&self, voice: u64) -> u64 {
        let codec = self.codec();
        let sample = voice.saturating_sub(self.base) * u64::from(codec.rate) / u64::from(OPUS_RATE);
        (sample as i64 - self.origin).max(0) as u64 / codec.hop as u64
    }
}
