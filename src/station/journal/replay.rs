//! Sound of a stream again, from its journal: codes through the codec and through the stream's own
//! processing.
//!
//! ```ignore
//! // Times are 48 kHz frames of media time; this is what can be had now.
//! let kept = stream.journal().kept();
//! let mut replay = Replay::open(&stream, from..to)?;
//! // Interleaved f32, `stream.channels()` of them, as limited and levelled as it was heard;
//! // `to - from` frames in all.
//! while let Some(block) = replay.next().await? { .. }
//! // When players played a frame, and back; what played there, in words.
//! let at: Option<SystemTime> = stream.journal().wall_of(frame);
//! let frame: Option<u64> = stream.journal().frame_at(wall);
//! let title: Option<String> = stream.journal().title_at(frame);
//! ```
//!
//! The codec's work is done on the engine's thread between the steps of voices. A piece that begins
//! with the stream, or where its music began anew, is what was heard bit for bit; elsewhere, and
//! where a long span is decoded in parts, it differs by one step of 16 bits at most.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::{StationError, Stream};
use super::index::Place;
use super::reader::Reader;
use super::sound::VoiceSound;
use super::{Grown, Journal};
use crate::engine::Engine;

/// Frames of silence that are given at once.
const SILENCE: u64 = 4800;

/// A part of a stream's sound, made again.
pub struct Replay {
    journal: Arc<Journal>,
    sound: VoiceSound,
    grown: watch::Receiver<Grown>,
    channels: usize,
    at: u64,
    /// `None` goes on for as long as the stream does.
    to: Option<u64>,
    /// Sound of the voice that is not given out yet.
    block: Vec<f32>,
}

impl Replay {
    /// The sound of a span of media time, in frames of 48 kHz.
    ///
    /// # Errors
    /// [`StationError::NotKept`] when not all of it lies in [`Journal::kept`].
    pub fn open(stream: &Stream, span: Range<u64>) -> Result<Self, StationError> {
        Self::of(stream.journal(), stream.engine(), span.start, Some(span.end))
    }

    /// As [`Replay::open`], without the room: what the voice made.
    ///
    /// # Errors
    /// As [`Replay::open`].
    pub fn dry(stream: &Stream, span: Range<u64>) -> Result<Self, StationError> {
        Self::in_room(false, stream.journal(), stream.engine(), span.start, Some(span.end))
    }

    /// The sound from a place in media time on. At the journal's end it waits for the stream to go
    /// on.
    ///
    /// # Errors
    /// [`StationError::NotKept`] when that place does not lie in [`Journal::kept`].
    pub fn follow(stream: &Stream, from: u64) -> Result<Self, StationError> {
        Self::of(stream.journal(), stream.engine(), from, None)
    }

    pub(super) fn of(
        journal: &Arc<Journal>,
        engine: &Engine,
        from: u64,
        to: Option<u64>,
    ) -> Result<Self, StationError> {
        Self::in_room(journal.origin().room, journal, engine, from, to)
    }

    pub(super) fn in_room(
        room: bool,
        journal: &Arc<Journal>,
        engine: &Engine,
        from: u64,
        to: Option<u64>,
    ) -> Result<Self, StationError> {
        let kept = journal.kept();
        if from < kept.start || from > kept.end || to.is_some_and(|to| to > kept.end || to < from) {
            return Err(StationError::not_kept(kept));
        }
        let reader = Reader::new(Arc::clone(journal), from.saturating_sub(VoiceSound::BEFORE));
        let voice = {
            let index = &journal.lock().index;
            (index.voice_time(from), to.map(|to| index.voice_time(to)))
        };
        Ok(Self {
            sound: VoiceSound::new(engine.clone(), reader, (journal.channels, room), voice),
            grown: journal.grown(),
            channels: journal.channels,
            journal: Arc::clone(journal),
            at: from,
            to,
            block: Vec::new(),
        })
    }

    /// Channels of its sound.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Media time of the next frame.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next block, interleaved; `None` at the end. What it holds is given once.
    ///
    /// # Errors
    /// [`StationError::Engine`] when no model understands the codes any more;
    /// [`StationError::Journal`] when they cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<f32>>, StationError> {
        loop {
            let Grown { end, over } = *self.grown.borrow_and_update();
            let most = self.to.unwrap_or(end).min(end).saturating_sub(self.at);
            if self.to == Some(self.at) || (over && most == 0) {
                return Ok(None);
            }
            if most > 0
                && let Some(block) = self.some(most).await?
            {
                self.at += (block.len() / self.channels) as u64;
                return Ok(Some(block));
            }
            if over && most > 0 {
                // All is written down, and its sound is not there.
                return Err(StationError::Journal("its end is missing".into()));
            }
            if self.grown.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// At most so many frames; `None` if their codes are not there yet.
    async fn some(&mut self, most: u64) -> Result<Option<Vec<f32>>, StationError> {
        let place = self.journal.lock().index.place(self.at);
        let until = match place {
            Place::Silence(until) => {
                let frames = most.min(until - self.at).min(SILENCE);
                return Ok(Some(vec![0.0; frames as usize * self.channels]));
            }
            Place::Sound(until) => most.min(until - self.at),
        };
        if self.block.is_empty() {
            match self.sound.next().await? {
                Some(block) => self.block = block,
                None => return Ok(None),
            }
        }
        let take = (until as usize).saturating_mul(self.channels).min(self.block.len());
        let rest = self.block.split_off(take);
        let mut block = std::mem::replace(&mut self.block, rest);
        let span = self.at..self.at + (block.len() / self.channels) as u64;
        for (at, frames, rises) in self.journal.lock().index.fades(span.clone()) {
            for (time, frame) in span.clone().zip(block.chunks_exact_mut(self.channels)) {
                if (at..at + frames).contains(&time) {
                    let part = (time - at + 1) as f32 / frames as f32;
                    let gain = if rises { part } else { 1.0 - part };
                    frame.iter_mut().for_each(|sample| *sample *= gain);
                }
            }
        }
        Ok(Some(block))
    }
}
