//! From a voice's PCM to the sound that listeners get: 48 kHz, fixed channels, steady loudness, no
//! clipping.
//!
//! Frame `n` of the output is the sound of media time `n / 48000`, whatever delays the filters have
//! inside.

use super::level::Levels;
use crate::audio::{AudioError, LEVEL_BLOCK, Leveler, Limiter, OPUS_RATE, Room, StreamResampler, remix};
use crate::engine::Chunk;
use crate::units::SampleRate;

/// The chain of filters of one stream.
pub(super) struct Program {
    channels: usize,
    resampler: StreamResampler,
    /// Channels of the voice.
    voice: usize,
    room: Option<Box<Room>>,
    level: Level,
    limiter: Limiter,
    mixed: Vec<f32>,
    resampled: Vec<f32>,
}

/// Who decides how loud it is.
enum Level {
    /// The sound itself.
    Leveler(Box<Leveler>),
    /// What was decided when it was heard, and the next frame.
    Known(Levels, u64),
    /// Nobody.
    Plain,
}

impl Program {
    pub(super) fn new(rate: SampleRate, channels: usize) -> Result<Self, AudioError> {
        Ok(Self {
            channels,
            resampler: StreamResampler::new(rate, SampleRate(OPUS_RATE), channels)?,
            voice: 0,
            room: None,
            level: Leveler::new(OPUS_RATE, channels).map_or(Level::Plain, |leveler| Level::Leveler(Box::new(leveler))),
            limiter: Limiter::new(channels),
            mixed: Vec::new(),
            resampled: Vec::new(),
        })
    }

    /// A program that goes on in the midst of a stream, at the level of that place, which it keeps
    /// for some frames.
    pub(super) fn going_on(rate: SampleRate, channels: usize, level: i16, frames: u64) -> Result<Self, AudioError> {
        let rests = frames.div_ceil(u64::from(LEVEL_BLOCK));
        let leveler = Leveler::going_on(OPUS_RATE, channels, level, rests);
        let level = leveler.map_or(Level::Plain, |leveler| Level::Leveler(Box::new(leveler)));
        Ok(Self { level, ..Self::new(rate, channels)? })
    }

    /// A program for sound that was heard already: from its frame `frame` on, at the levels of that
    /// time.
    pub(super) fn again(rate: SampleRate, channels: usize, frame: u64, levels: Levels) -> Result<Self, AudioError> {
        Ok(Self { level: Level::Known(levels, frame), ..Self::new(rate, channels)? })
    }

    /// Whether a voice with one channel is heard in a room; only where there are two.
    pub(super) fn in_room(mut self, is: bool) -> Self {
        self.room = (is && self.channels == 2).then(Box::default);
        self
    }

    /// The block of the leveler that is being filled, and the level that rules at its end in
    /// hundredths of a decibel.
    pub(super) fn level(&self) -> (u64, i16) {
        match &self.level {
            Level::Leveler(leveler) => leveler.level(),
            Level::Known(..) | Level::Plain => (0, 0),
        }
    }

    /// The levels that it was made with, to add to them.
    pub(super) fn levels(&mut self) -> Option<&mut Levels> {
        match &mut self.level {
            Level::Known(levels, _) => Some(levels),
            _ => None,
        }
    }

    /// Takes the voice's next chunk and appends what became final to `out`.
    pub(super) fn push(&mut self, chunk: &Chunk, out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.resampled.clear();
        let widens = self.room.is_some() && chunk.channels != self.voice;
        if chunk.sample_rate != self.resampler.from() || widens {
            self.resampler.finish(&mut self.resampled)?;
            self.place();
            self.voice = chunk.channels;
            self.level_and_limit(out);
            self.resampled.clear();
            self.resampler = StreamResampler::new(chunk.sample_rate, SampleRate(OPUS_RATE), self.channels)?;
        }
        self.mixed.clear();
        remix(&chunk.pcm, chunk.channels, self.channels, &mut self.mixed);
        self.resampler.push(&self.mixed, &mut self.resampled)?;
        self.place();
        self.level_and_limit(out);
        Ok(())
    }

    /// Appends the rest: as many frames in total as the voice's sound lasts.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.resampled.clear();
        self.resampler.finish(&mut self.resampled)?;
        self.place();
        self.level_and_limit(out);
        self.limiter.finish(out);
        Ok(())
    }

    /// Puts what was resampled into the room.
    fn place(&mut self) {
        match &mut self.room {
            Some(room) if self.voice == 1 => room.process(&mut self.resampled),
            Some(room) => room.pass(&mut self.resampled),
            None => {}
        }
    }

    fn level_and_limit(&mut self, out: &mut Vec<f32>) {
        match &mut self.level {
            Level::Leveler(leveler) => leveler.process(&mut self.resampled),
            Level::Known(levels, frame) => {
                levels.apply(*frame, self.channels, &mut self.resampled);
                *frame += (self.resampled.len() / self.channels) as u64;
            }
            Level::Plain => {}
        }
        self.limiter.push(&self.resampled, out);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::units::Samples;

    #[test]
    fn an_impulse_stays_at_its_media_time() {
        let mut pcm = vec![0.0; 32_000];
        pcm[16_000] = 0.5;
        let (mut program, mut out) = (Program::new(SampleRate(32_000), 2).unwrap(), Vec::new());
        for (n, part) in pcm.chunks(640).enumerate() {
            let start = Samples(n as u64 * 640);
            let (sample_rate, pcm) = (SampleRate(32_000), part.to_vec());
            program.push(&Chunk { start, epoch: 0, sample_rate, channels: 1, pcm, passage: None }, &mut out).unwrap();
        }
        program.finish(&mut out).unwrap();
        assert_eq!(out.len(), 2 * 48_000);
        let peak = (0..48_000).max_by(|&a, &b| out[2 * a].abs().total_cmp(&out[2 * b].abs())).unwrap();
        assert_eq!(peak, 24_000);
    }
}
