//! Whether a sound has stopped moving: sound in, and since when nothing new has come out.
//!
//! The sound is cut into blocks of a quarter of a second, and each is described by its level in
//! semitone-wide bands. A block brings something new when these levels differ from those of the
//! block before by more than [`NEW`] on average. A held chord and silence bring nothing; a struck
//! note, a drum, a change of harmony do, however often they were heard before: a loop is not still.
//! Only the sound counts, so any model can be watched.

use std::ops::Range;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use crate::units::SampleRate;

/// Mean difference in dB from which on a block is something new. Held chords have 0.05 to 0.5, also
/// those of a model whose finer codebooks do not rest; anything that is struck or bowed anew has 1
/// and more.
const NEW: f32 = 0.7;
/// Spectra of a block.
const SPECTRA: usize = 4;
/// Blocks of a second.
const BLOCKS: usize = 4;
/// Bands lie between these frequencies, twelve in an octave.
const LOWEST: f32 = 55.0;
const HIGHEST: f32 = 9_000.0;
/// Levels so far below the loudest band, or below full scale, are not heard: all that lies there is
/// equal. In dB.
const MASKED: f32 = -30.0;
const SILENT: f32 = -70.0;

/// Watches one sound.
pub struct Stillness {
    fft: Arc<dyn RealToComplex<f32>>,
    shape: Vec<f32>,
    bands: Vec<Range<usize>>,
    /// Samples between two spectra.
    hop: usize,
    /// Still blocks that are too many.
    limit: usize,
    /// Media time of the first pending sample.
    at: u64,
    pending: Vec<f32>,
    /// Power per band of the present block, and spectra in it.
    sums: Vec<f32>,
    spectra: usize,
    /// Power per band of the block before.
    before: Option<Vec<f32>>,
    still: usize,
}

impl Stillness {
    /// Watches sound of this rate for stretches of `limit` seconds in which nothing new comes.
    pub fn new(rate: SampleRate, limit: f64) -> Self {
        let hop = (rate.0 as usize / (SPECTRA * BLOCKS)).max(1);
        let window = (2 * hop).next_power_of_two();
        let bin = rate.0 as f32 / window as f32;
        let edge = |band: u32| (LOWEST * 2f32.powf(band as f32 / 12.0) / bin).ceil() as usize;
        let bands = (0..)
            .map(|band| edge(band)..edge(band + 1))
            .take_while(|bins| bins.end <= window / 2 && bins.end as f32 * bin <= HIGHEST)
            .filter(|bins| !bins.is_empty())
            .collect::<Vec<_>>();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(window),
            shape: (0..window).map(|n| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / window as f32).cos()).collect(),
            hop,
            limit: (limit * BLOCKS as f64).ceil() as usize,
            at: 0,
            pending: Vec::new(),
            sums: vec![0.0; bands.len()],
            bands,
            spectra: 0,
            before: None,
            still: 0,
        }
    }

    /// Forgets what was heard: the sound goes on at media time `at`, in samples. What comes from
    /// before it is ignored.
    pub fn restart(&mut self, at: u64) {
        self.at = at;
        self.pending.clear();
        self.sums.fill(0.0);
        (self.spectra, self.before, self.still) = (0, None, 0);
    }

    /// Seconds in which nothing new has come.
    pub fn seconds(&self) -> f64 {
        self.still as f64 / BLOCKS as f64
    }

    /// Media time up to which whole blocks were heard.
    pub fn heard(&self) -> u64 {
        self.at - (self.spectra * self.hop) as u64
    }

    /// Samples of a block.
    pub fn block(&self) -> u64 {
        (SPECTRA * self.hop) as u64
    }

    /// Takes interleaved sound that begins at media time `from`. Answers as soon as nothing new
    /// came for as long as the limit, with the media time since when; then it is to be restarted.
    pub fn push(&mut self, from: u64, pcm: &[f32], channels: usize) -> Option<u64> {
        let known = (self.at + self.pending.len() as u64).saturating_sub(from) as usize;
        let mono = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
        self.pending.extend(pcm.chunks_exact(channels).skip(known).map(mono));
        let window = self.shape.len();
        let (mut input, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut done = 0;
        let mut since = None;
        while since.is_none() && self.pending.len() >= done + window {
            for ((value, sample), weight) in input.iter_mut().zip(&self.pending[done..]).zip(&self.shape) {
                *value = sample * weight;
            }
            // Lengths are the plan's own.
            if self.fft.process(&mut input, &mut spectrum).is_err() {
                break;
            }
            for (sum, bins) in self.sums.iter_mut().zip(&self.bands) {
                *sum += spectrum[bins.clone()].iter().map(|bin| bin.norm_sqr()).sum::<f32>();
            }
            done += self.hop;
            self.spectra += 1;
            if self.spectra == SPECTRA {
                self.end_block();
                if self.still >= self.limit {
                    since = Some(self.at + done as u64 - self.still as u64 * self.block());
                }
            }
        }
        self.pending.drain(..done);
        self.at += done as u64;
        since
    }

    fn end_block(&mut self) {
        let window = self.shape.len() as f32;
        // A sine of full scale has the power 1.
        let scale = 16.0 / (window * window * SPECTRA as f32);
        let block: Vec<f32> = self.sums.iter().map(|sum| sum * scale).collect();
        self.sums.fill(0.0);
        self.spectra = 0;
        let new = self.before.as_ref().is_some_and(|before| difference(before, &block) > NEW);
        self.still = if new || self.before.is_none() { 0 } else { self.still + 1 };
        self.before = Some(block);
    }
}

/// Mean difference in dB of two blocks' powers per band.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let power = |db: f32| 10f32.powf(db / 10.0);
    let loudest = a.iter().chain(b).copied().fold(0.0, f32::max);
    let floor = (loudest * power(MASKED)).max(power(SILENT));
    let sum: f32 = a.iter().zip(b).map(|(a, b)| (10.0 * ((a + floor) / (b + floor)).log10()).abs()).sum();
    sum / a.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: SampleRate = SampleRate(32_000);

    /// Three tones with a little vibrato, struck anew at the given seconds.
    fn chord(seconds: f32, strikes: &[(f32, [f32; 3])]) -> Vec<f32> {
        let sample = |n: usize| {
            let now = n as f32 / 32_000.0;
            let (at, tones) = strikes.iter().rev().find(|(at, _)| *at <= now).copied().unwrap_or((0.0, [220.0; 3]));
            let level = 0.2 * ((now - at) / 0.05).min(1.0);
            tones.iter().map(|tone| level * (std::f32::consts::TAU * tone * now).sin()).sum()
        };
        (0..(seconds * 32_000.0) as usize).map(sample).collect()
    }

    const C: [f32; 3] = [261.6, 329.6, 392.0];
    const F: [f32; 3] = [261.6, 349.2, 440.0];

    fn heard(pcm: &[f32], piece: usize) -> Option<u64> {
        let mut watch = Stillness::new(RATE, 4.0);
        pcm.chunks(piece).enumerate().find_map(|(n, part)| watch.push((n * piece) as u64, part, 1))
    }

    #[test]
    fn a_held_chord_is_still_and_the_place_is_its_onset() {
        let pcm = chord(12.0, &[(0.0, C), (2.0, F), (3.0, C)]);
        let since = heard(&pcm, 1280).map(|at| at as f32 / 32_000.0);
        assert!(since.is_some_and(|at| (3.0..=3.75).contains(&at)), "{since:?}");
    }

    #[test]
    fn chords_that_change_every_three_seconds_move() {
        let strikes: Vec<(f32, [f32; 3])> = (0..20).map(|n| (3.0 * n as f32, if n % 2 == 0 { C } else { F })).collect();
        assert_eq!(heard(&chord(60.0, &strikes), 1280), None);
    }

    #[test]
    fn a_note_that_is_struck_again_and_again_moves() {
        let strikes: Vec<(f32, [f32; 3])> = (0..60).map(|n| (n as f32, C)).collect();
        assert_eq!(heard(&chord(30.0, &strikes), 1280), None);
    }

    #[test]
    fn silence_is_still_whatever_hiss_is_in_it() {
        let mut seed = 1u32;
        let mut hiss = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let mut pcm = chord(2.0, &[(0.0, C), (1.0, F)]);
        pcm.extend((0..6 * 32_000).map(|_| 1e-4 * hiss()));
        let since = heard(&pcm, 640).map(|at| at as f32 / 32_000.0);
        assert!(since.is_some_and(|at| (2.0..=2.75).contains(&at)), "{since:?}");
    }

    #[test]
    fn pieces_of_any_size_give_the_same_verdict() {
        let pcm = chord(9.0, &[(0.0, C), (1.3, F)]);
        let all = heard(&pcm, pcm.len());
        assert!(all.is_some());
        for piece in [1, 640, 7_777] {
            assert_eq!(heard(&pcm, piece), all);
        }
    }

    #[test]
    fn after_a_restart_only_what_follows_counts() {
        let pcm = chord(12.0, &[(0.0, C)]);
        let mut watch = Stillness::new(RATE, 4.0);
        assert!(watch.push(0, &pcm[..3 * 32_000], 1).is_none() && watch.seconds() > 2.0);
        watch.restart(5 * 32_000);
        assert_eq!(watch.seconds(), 0.0);
        let since = watch.push(3 * 32_000, &pcm[3 * 32_000..], 1).map(|at| at as f32 / 32_000.0);
        assert!(since.is_some_and(|at| (5.0..=5.5).contains(&at)), "{since:?}");
    }
}
