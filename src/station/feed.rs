//! The sound of one stream, block by block: the voice through its program, silence while paused,
//! and the end.
//!
//! It keeps the stream's media time: every frame that it gives counts, also those of silence.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::journal::{Journal, Scribe, Seam};
use super::program::Program;
use super::source::Source;
use crate::audio::{AudioError, OPUS_FRAME, OPUS_RATE};
use crate::engine::{Freeze, Read, VoiceEnd};
use crate::units::{SampleRate, Samples};

/// Frames of a block of silence, and about those of a block of sound: 20 ms.
pub(super) const BLOCK: u64 = OPUS_FRAME as u64;

/// Why a stream is over.
pub(super) enum Over {
    /// Its length is reached.
    Finished,
    /// It was asked to end: the sound fades.
    Asked(String),
    /// It cannot go on.
    Failed(String),
}

impl From<VoiceEnd> for Over {
    fn from(end: VoiceEnd) -> Self {
        match end {
            VoiceEnd::Finished => Self::Finished,
            end => Self::Failed(end.to_string()),
        }
    }
}

impl From<AudioError> for Over {
    fn from(error: AudioError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Gives finished sound: interleaved, 48 kHz.
pub(super) struct Feed<S> {
    source: S,
    scribe: Scribe,
    program: Program,
    rate: SampleRate,
    channels: usize,
    /// Frames of the voice that the stream has, if it has an end.
    length: Option<u64>,
    position: u64,
    silence: u64,
    /// Frames that are thrown away: the codec and the program have yet to become what they were.
    cold: u64,
    /// The last block was sound, not the silence of a pause: it must not be cut off.
    sounding: bool,
    /// The voice is over; what was left of it was given.
    end: Option<VoiceEnd>,
}

impl<S: Source> Feed<S> {
    /// A feed whose first frame has the media time at which the journal ends.
    pub(super) fn new(source: S, scribe: Scribe, channels: usize, length: Option<u64>) -> Result<Self, AudioError> {
        let position = scribe.written();
        let rate = source.model().sample_rate;
        let program = Program::new(rate, channels)?.in_room(scribe.room());
        Ok(Self {
            source,
            scribe,
            program,
            rate,
            channels,
            length,
            position,
            silence: position,
            cold: 0,
            // In the midst of a stream it rises from silence.
            sounding: position == 0,
            end: None,
        })
    }

    /// A feed of a voice that goes on from another one's as if it were the same. Its first frames
    /// are made again; what is written down of it is what is new.
    pub(super) fn joining(
        source: S,
        (journal, seam): (Arc<Journal>, &Seam),
        channels: usize,
        length: Option<u64>,
    ) -> Result<Self, AudioError> {
        let rate = source.model().sample_rate;
        let room = journal.origin().room;
        let program = Program::going_on(rate, channels, seam.level, seam.at - seam.begins)?.in_room(room);
        let feed = Self::new(source, Scribe::joining(journal, seam), channels, length)?;
        let (position, silence, cold) = (seam.warm, seam.begins, seam.warm - seam.begins);
        Ok(Self { program, position, silence, cold, sounding: true, ..feed })
    }

    /// Frames given.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Frames that are none of this voice: silence of pauses, and what was given before it. Stream
    /// time is voice time plus this.
    pub(super) fn silence(&self) -> u64 {
        self.silence
    }

    /// Seconds that the voice has ready.
    pub(super) fn buffered(&self) -> f64 {
        self.source.buffered()
    }

    /// Seconds that are left of a stream with an end.
    pub(super) fn left(&self) -> Option<f64> {
        let left = |length: u64| length.saturating_sub(self.position - self.silence) as f64 / f64::from(OPUS_RATE);
        self.length.map(left)
    }

    /// Seconds of the voice that were made, given or not.
    pub(super) fn made(&self) -> f64 {
        (self.position - self.silence) as f64 / f64::from(OPUS_RATE) + self.buffered()
    }

    /// Changes how much the voice makes ahead.
    pub(super) fn keep_ahead(&self, lead: Duration) {
        self.source.keep_ahead(lead);
    }

    /// What the voice has ready is all that comes.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() || self.source.is_over()
    }

    /// Times that the voice stood still, since this was last asked.
    pub(super) fn freezes(&self) -> Vec<Freeze> {
        self.source.freezes()
    }

    /// Waits until the voice has something.
    pub(super) fn ready(&self) -> BoxFuture<'static, ()> {
        self.source.ready()
    }

    /// The voice has told its end.
    pub(super) fn voice_is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Whether what was given has to be written down soon.
    pub(super) fn write_soon(&mut self, soon: bool) {
        self.scribe.write_soon(soon);
    }

    /// Players play frame `at` of what was given now.
    pub(super) fn plays(&mut self, at: u64) {
        self.scribe.plays(at);
    }

    /// Nothing is wanted for a while, or any more: what was given is written down.
    pub(super) fn rests(&mut self) {
        self.scribe.rests(self.position);
    }

    /// The next block: sound, or silence while `paused`; `None` if the voice has nothing yet.
    pub(super) fn next(&mut self, paused: bool) -> Result<Option<Vec<f32>>, Over> {
        if paused {
            if let Some(faded) = self.fade_out()? {
                return Ok(Some(faded));
            }
            self.scribe.silence(self.position, BLOCK);
            self.position += BLOCK;
            self.silence += BLOCK;
            return Ok(Some(vec![0.0; OPUS_FRAME * self.channels]));
        }
        let Some(mut block) = self.sound()? else { return Ok(None) };
        if !std::mem::replace(&mut self.sounding, true) {
            self.fade(&mut block, true);
        }
        self.scribe.heard(self.position);
        Ok(Some(block))
    }

    /// A block that brings the sound to silence; `None` if it is silent already, or the voice has
    /// nothing to fade.
    pub(super) fn fade_out(&mut self) -> Result<Option<Vec<f32>>, Over> {
        if !std::mem::replace(&mut self.sounding, false) {
            return Ok(None);
        }
        let mut block = self.sound()?;
        if let Some(block) = &mut block {
            self.fade(block, false);
        }
        Ok(block)
    }

    /// Lets the block that was just taken rise from silence, or fall to it.
    fn fade(&mut self, block: &mut [f32], rises: bool) {
        let (from, to) = if rises { (0.0, 1.0) } else { (1.0, 0.0) };
        fade(block, self.channels, from, to);
        let frames = (block.len() / self.channels) as u64;
        self.scribe.fade(self.position - frames, frames, rises);
    }

    fn sound(&mut self) -> Result<Option<Vec<f32>>, Over> {
        let left = self.length.map(|length| length.saturating_sub(self.position - self.silence));
        if left == Some(0) {
            return Err(Over::Finished);
        }
        let mut block = Vec::with_capacity(OPUS_FRAME * self.channels * 5 / 4);
        while block.is_empty() {
            if let Some(end) = &self.end {
                return Err(end.clone().into());
            }
            match self.source.read(Samples(u64::from(self.rate.0) * BLOCK / u64::from(OPUS_RATE))) {
                Read::Chunk(chunk) => {
                    if let Some(passage) = &chunk.passage {
                        self.scribe.passage(self.position, passage);
                    }
                    self.program.push(&chunk, &mut block)?;
                    let (number, level) = self.program.level();
                    self.scribe.level(number, level);
                }
                Read::Pending => return Ok(None),
                Read::End(end) => {
                    self.program.finish(&mut block)?;
                    self.end = Some(end);
                }
            }
            let cold = self.cold.min((block.len() / self.channels) as u64);
            self.cold -= cold;
            block.drain(..cold as usize * self.channels);
        }
        if let Some(left) = left {
            block.truncate(usize::try_from(left).unwrap_or(usize::MAX).saturating_mul(self.channels));
        }
        self.position += (block.len() / self.channels) as u64;
        Ok(Some(block))
    }
}

/// Multiplies by a gain that goes from `from` to `to` over the block.
fn fade(block: &mut [f32], channels: usize, from: f32, to: f32) {
    let frames = block.len() / channels;
    for (n, frame) in block.chunks_exact_mut(channels).enumerate() {
        let gain = from + (to - from) * (n + 1) as f32 / frames as f32;
        frame.iter_mut().for_each(|sample| *sample *= gain);
    }
}
