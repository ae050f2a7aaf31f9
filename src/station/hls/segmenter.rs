//! The encoders of the renditions that somebody follows.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Presentation;
use crate::audio::AudioError;
use crate::audio::hls::{Rendition, SegmentEncoder};

/// Cuts a stream's sound into segments, as far as somebody wants them.
pub(in crate::station) struct Segmenter {
    presentation: Arc<Presentation>,
    channels: usize,
    tracks: Vec<Encoders>,
}

/// The encoders of one rendition: of a segment, and around its seams of two.
struct Encoders {
    rendition: Rendition,
    /// The segment that is to be begun next.
    next: u64,
    /// In the order of their segments.
    open: VecDeque<SegmentEncoder>,
}

impl Segmenter {
    pub(in crate::station) fn new(presentation: Arc<Presentation>, channels: usize) -> Self {
        Self { presentation, channels, tracks: Vec::new() }
    }

    /// Stops encoding what nobody follows any more, and says what is to be encoded besides.
    pub(in crate::station) fn missing(&mut self) -> Vec<Rendition> {
        let followed = self.presentation.followed();
        self.tracks.retain(|encoders| {
            let stays = followed.contains(&encoders.rendition);
            if !stays {
                self.presentation.clear(encoders.rendition);
            }
            stays
        });
        let is_missing = |rendition: &Rendition| self.tracks.iter().all(|encoders| encoders.rendition != *rendition);
        followed.into_iter().filter(is_missing).collect()
    }

    /// Encodes a rendition from the first segment on for which sound from a media time on is
    /// enough.
    pub(in crate::station) fn begin(&mut self, rendition: Rendition, from: u64) {
        let next = SegmentEncoder::first_from(rendition, from);
        self.tracks.push(Encoders { rendition, next, open: VecDeque::new() });
    }

    /// Encodes sound that begins at media time `at` for everybody. True if that made a part.
    pub(in crate::station) fn push(&mut self, at: u64, pcm: &[f32]) -> Result<bool, AudioError> {
        let mut made = false;
        for encoders in &mut self.tracks {
            made |= encoders.push(at, pcm, self.channels, &self.presentation)?;
        }
        Ok(made)
    }

    /// Encodes sound for the rendition that was begun last.
    pub(in crate::station) fn catch_up(&mut self, at: u64, pcm: &[f32]) -> Result<(), AudioError> {
        match self.tracks.last_mut() {
            Some(newest) => newest.push(at, pcm, self.channels, &self.presentation).map(drop),
            None => Ok(()),
        }
    }

    /// The sound ended at media time `end`.
    pub(in crate::station) fn finish(&mut self, end: u64) -> Result<(), AudioError> {
        for Encoders { rendition, open, .. } in self.tracks.drain(..) {
            for encoder in open {
                encoder.finish(end, &mut |part| self.presentation.add(rendition, &part))?;
            }
        }
        Ok(())
    }
}

impl Encoders {
    fn push(&mut self, at: u64, pcm: &[f32], channels: usize, presentation: &Presentation) -> Result<bool, AudioError> {
        let end = at + (pcm.len() / channels) as u64;
        while SegmentEncoder::begins(self.rendition, self.next) < end {
            self.open.push_back(SegmentEncoder::new(self.rendition, channels, self.next)?);
            self.next += 1;
        }
        let mut made = false;
        for encoder in &mut self.open {
            encoder.push(at, pcm, &mut |part| {
                presentation.add(self.rendition, &part);
                made = true;
            })?;
        }
        while self.open.front().is_some_and(SegmentEncoder::is_full) {
            self.open.pop_front();
        }
        Ok(made)
    }
}
