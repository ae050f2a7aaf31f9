//! Steady loudness between streams: a slow gain towards [`TARGET_LUFS`].
//!
//! The sound is measured in blocks of 100 ms (EBU R 128 weighting); silence and noise floors do not
//! count, the estimate covers about the last 20 s, and the gain moves so slowly that nobody hears
//! it work. No look-ahead, so no latency; peaks are the limiter's business.

use ebur128::{EbuR128, Mode};

/// Loudness that every stream tends to.
pub const TARGET_LUFS: f64 = -16.0;

/// Blocks per second.
const BLOCKS: u32 = 10;
/// Frames of a block at 48 kHz.
pub const LEVEL_BLOCK: u32 = 48_000 / BLOCKS;
/// Quieter blocks say nothing about the music.
const GATE_LUFS: f64 = -50.0;
/// Blocks this much below the estimate are rests and fades: they count little.
const REST_LU: f64 = 10.0;
/// Weight of such a block.
const REST_WEIGHT: f64 = 0.1;
/// The estimate's memory, in blocks.
const MEMORY: f64 = 200.0;
/// What is assumed before anything was heard: the target itself, as if heard for this many blocks.
const PRIOR: f64 = 5.0;
/// Bounds of the gain, in dB.
const GAIN_DB: (f64, f64) = (-12.0, 9.0);
/// The gain rests while it is this close to what it should be, in dB.
const DEAD_BAND_DB: f64 = 0.5;
/// For this many blocks the gain may move fast: nobody knows the music yet.
const OPENING: u32 = 4 * BLOCKS;
/// Largest change per block in dB, down and up: in the opening, and later.
const SLEW_DB: [(f64, f64); 2] = [(0.4, 0.15), (0.06, 0.03)];

/// Applies the slow gain to interleaved PCM.
pub struct Leveler {
    meter: EbuR128,
    channels: usize,
    /// Frames of a block, and how many of the present one were heard.
    block: usize,
    filled: usize,
    /// Mean energy, and the number of blocks that it stands for.
    energy: f64,
    weight: f64,
    age: u32,
    gain_db: f64,
    /// Blocks that were measured, and until which the gain rests.
    blocks: u64,
    rests: u64,
    /// Linear gain at the start and at the end of the present block.
    ramp: (f32, f32),
}

impl Leveler {
    /// A leveler that has heard nothing; `None` if the meter does not know this rate or channel
    /// count.
    pub fn new(rate: u32, channels: usize) -> Option<Self> {
        Some(Self {
            meter: EbuR128::new(channels as u32, rate, Mode::M).ok()?,
            channels,
            block: (rate / BLOCKS) as usize,
            filled: 0,
            energy: energy(TARGET_LUFS),
            weight: PRIOR,
            age: 0,
            gain_db: 0.0,
            blocks: 0,
            rests: 0,
            ramp: (1.0, 1.0),
        })
    }

    /// One that goes on from another's gain, in hundredths of a decibel, and leaves it as it is for
    /// some blocks.
    pub fn going_on(rate: u32, channels: usize, level: i16, rests: u64) -> Option<Self> {
        let gain_db = f64::from(level) / 100.0;
        let gain = 10f64.powf(gain_db / 20.0) as f32;
        let (energy, weight) = (energy(TARGET_LUFS - gain_db), MEMORY / 2.0);
        Some(Self { energy, weight, age: OPENING, gain_db, rests, ramp: (gain, gain), ..Self::new(rate, channels)? })
    }

    /// Changes the level of `pcm` in place. The chunking changes nothing.
    pub fn process(&mut self, pcm: &mut [f32]) {
        let mut rest = pcm;
        while !rest.is_empty() {
            let frames = (self.block - self.filled).min(rest.len() / self.channels);
            let (now, later) = rest.split_at_mut(frames * self.channels);
            if now.is_empty() {
                return;
            }
            let heard = self.meter.add_frames_f32(now).is_ok();
            let (from, to) = self.ramp;
            for (n, frame) in now.chunks_exact_mut(self.channels).enumerate() {
                let gain = from + (to - from) * ((self.filled + n) as f32 / self.block as f32);
                frame.iter_mut().for_each(|sample| *sample *= gain);
            }
            self.filled += frames;
            if self.filled == self.block {
                self.filled = 0;
                self.blocks += 1;
                if heard {
                    self.measure();
                }
                self.ramp = (to, 10f64.powf(self.gain_db / 20.0) as f32);
            }
            rest = later;
        }
    }

    /// The number of the present block and the gain at its end, in hundredths of a decibel: it
    /// moves in whole ones.
    pub fn level(&self) -> (u64, i16) {
        (self.blocks, (100.0 * self.gain_db).round() as i16)
    }

    fn measure(&mut self) {
        self.age = self.age.saturating_add(1);
        let Ok(loudness) = self.meter.loudness_window(1000 / BLOCKS) else { return };
        if loudness.is_finite() && loudness > GATE_LUFS {
            let rest = loudness < lufs(self.energy) - REST_LU;
            let weight = if rest { REST_WEIGHT } else { 1.0 };
            self.weight = (self.weight + weight).min(MEMORY);
            self.energy += (energy(loudness) - self.energy) * weight / self.weight;
        }
        let wanted = (TARGET_LUFS - lufs(self.energy)).clamp(GAIN_DB.0, GAIN_DB.1);
        let error = wanted - self.gain_db;
        if error.abs() > DEAD_BAND_DB && self.blocks > self.rests {
            let (down, up) = SLEW_DB[usize::from(self.age > OPENING)];
            self.gain_db += error.clamp(-down, up);
        }
    }
}

fn energy(lufs: f64) -> f64 {
    10f64.powf((lufs + 0.691) / 10.0)
}

fn lufs(energy: f64) -> f64 {
    10.0 * energy.log10() - 0.691
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Noise that is shaped a little like music, deterministic.
    fn noise(level: f32, seconds: usize) -> Vec<f32> {
        let (mut state, mut last) = (1u32, 0.0f32);
        (0..seconds * 48_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                last += 0.1 * ((state >> 8) as f32 / 8_388_608.0 - 1.0 - last);
                level * last
            })
            .collect()
    }

    fn loudness(pcm: &[f32]) -> f64 {
        let mut meter = EbuR128::new(1, 48_000, Mode::I).unwrap();
        meter.add_frames_f32(pcm).unwrap();
        meter.loudness_global().unwrap()
    }

    fn level(pcm: &[f32], chunk: usize) -> Vec<f32> {
        let (mut leveler, mut pcm) = (Leveler::new(48_000, 1).unwrap(), pcm.to_vec());
        pcm.chunks_mut(chunk).for_each(|chunk| leveler.process(chunk));
        pcm
    }

    #[test]
    fn loud_and_quiet_streams_meet() {
        for amplitude in [0.4, 0.8, 1.6, 3.0] {
            let pcm = noise(amplitude, 40);
            let before = loudness(&pcm);
            let after = loudness(&level(&pcm, 960)[30 * 48_000..]);
            assert!((after - TARGET_LUFS).abs() < 1.0, "{before:.1} LUFS became {after:.1}");
        }
    }

    #[test]
    fn the_gain_is_bounded_and_silence_is_left_alone() {
        let quiet = noise(0.03, 40);
        let gained = loudness(&level(&quiet, 960)[35 * 48_000..]) - loudness(&quiet[35 * 48_000..]);
        assert!((8.0..=9.1).contains(&gained), "gain {gained:.2} dB");
        let floor = noise(0.000_5, 20);
        assert_eq!(level(&floor, 960), floor, "a noise floor is not amplified");
    }

    #[test]
    fn a_pause_in_the_music_is_not_filled_with_gain() {
        let mut pcm = noise(0.8, 20);
        pcm.extend(noise(0.05, 5));
        let out = level(&pcm, 960);
        let change = loudness(&out[21 * 48_000..])
            - loudness(&pcm[21 * 48_000..])
            - (loudness(&out[15 * 48_000..20 * 48_000]) - loudness(&pcm[15 * 48_000..20 * 48_000]));
        assert!(change.abs() < 1.0, "the gain moved by {change:.2} dB within a rest");
    }

    #[test]
    fn chunks_do_not_matter() {
        let pcm = noise(0.2, 3);
        assert_eq!(level(&pcm, 777), level(&pcm, 48_000));
    }
}
