//! The levels that a stream was heard at, block by block: what its leveler did, to be done again.

use std::collections::VecDeque;

use crate::audio::LEVEL_BLOCK;

/// Levels in hundredths of a decibel, each from its block on. Blocks are those of the leveler,
/// [`LEVEL_BLOCK`] frames each since the voice began; within a block the gain moves from the level
/// before to its own.
#[derive(Debug, Default)]
pub(super) struct Levels(VecDeque<(u64, i16)>);

impl Levels {
    /// From this block on. Blocks come in order; those that are known are passed over.
    pub(super) fn set(&mut self, block: u64, level: i16) {
        if self.0.back().is_none_or(|&(last, before)| block > last && level != before) {
            self.0.push_back((block, level));
        }
    }

    fn gain(&self, block: Option<u64>) -> f32 {
        let step = self.0.iter().rev().find(|&&(from, _)| block.is_some_and(|block| from <= block));
        let level = step.or(self.0.front()).map_or(0, |&(_, level)| level);
        10f64.powf(f64::from(level) / 2000.0) as f32
    }

    /// Gives interleaved sound, from `frame` on, its level.
    pub(super) fn apply(&mut self, frame: u64, channels: usize, pcm: &mut [f32]) {
        let length = LEVEL_BLOCK as u64;
        let (mut frame, mut rest) = (frame, pcm);
        while self.0.get(1).is_some_and(|&(next, _)| next < frame / length) {
            self.0.pop_front();
        }
        while !rest.is_empty() {
            let (block, filled) = (frame / length, frame % length);
            let frames = (length - filled).min((rest.len() / channels) as u64);
            let (now, later) = rest.split_at_mut(frames as usize * channels);
            if now.is_empty() {
                return;
            }
            let (from, to) = (self.gain(block.checked_sub(1)), self.gain(Some(block)));
            for (n, sound) in (filled..).zip(now.chunks_exact_mut(channels)) {
                let gain = from + (to - from) * (n as f32 / length as f32);
                sound.iter_mut().for_each(|sample| *sample *= gain);
            }
            frame += frames;
            rest = later;
        }
    }
}
