//! Whether a sound has stopped moving: sound in, and since when nothing new has come out.
//!
//! In every block of a quarter of a second two things are something new. An onset: how much the levels of 128 mel bands
//! rise within 23 ms, on average, as beat trackers have it (librosa's scale and window). And a change of harmony, however
//! soft: how much the levels of semitones differ from those of the block before. A held chord and silence bring nothing,
//! nor does a pad that swells; a struck note, a drum, another chord do, however often they were heard before: a loop is
//! not still. Soft changes alone do not move a voice for long, though: without an onset it is still a little later. Only
//! the sound counts, so any model can be watched.

use std::ops::Range;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use crate::units::SampleRate;

/// Onset strength from which on a block is something new, in dB. Held chords and pads that swell have 0.2 to 0.9, what
/// is struck 1.5 and more.
const ONSET: f32 = 1.0;
/// Mean difference in dB of the semitones of two blocks from which on the later one is something new. Held chords have
/// 0.05 to 0.7, pads that swell up to 1.5.
const CHANGE: f32 = 2.0;
/// So many times the limit may pass without an onset, whatever changes softly.
const SOFTLY: f64 = 1.25;
/// Spectra of a block.
const SPECTRA: usize = 11;
/// Blocks of a second.
const BLOCKS: usize = 4;
/// A spectrum is taken of so many steps from one to the next.
const OVERLAP: usize = 4;
const BANDS: usize = 128;
const HIGHEST: f64 = 11_025.0;
/// Semitones lie between these frequencies, in Hz.
const LOWEST: f32 = 55.0;
const HIGHEST_TONE: f32 = 9_000.0;
/// Levels so far below the loudest band, or below full scale, are not heard: all that lies there is equal. In dB, for
/// onsets and for changes.
const FAINT: [f32; 2] = [-60.0, -90.0];
const MASKED: [f32; 2] = [-30.0, -70.0];

/// Watches one sound.
pub struct Stillness {
    fft: Arc<dyn RealToComplex<f32>>,
    shape: Vec<f32>,
    bands: Vec<Band>,
    tones: Vec<Range<usize>>,
    /// Samples between two spectra.
    hop: usize,
    /// Still blocks that are too many, and blocks without an onset.
    limit: usize,
    soft_limit: usize,
    /// Media time of the first pending sample.
    at: u64,
    pending: Vec<f32>,
    /// Power per band of the spectrum before.
    before: Vec<f32>,
    /// Highest onset strength of the present block, power per semitone, and spectra in it.
    onset: f32,
    sums: Vec<f32>,
    spectra: usize,
    /// Power per semitone of the block before.
    block_before: Option<Vec<f32>>,
    /// Blocks in which nothing new has come, and no onset.
    still: usize,
    soft: usize,
}

/// What a mel band takes of a spectrum.
struct Band {
    /// Its first bin.
    bin: usize,
    weights: Vec<f32>,
}

impl Stillness {
    /// Watches sound of this rate for stretches of `limit` seconds in which nothing new comes.
    pub fn new(rate: SampleRate, limit: f64) -> Self {
        let hop = (rate.0 as usize / (SPECTRA * BLOCKS)).max(1);
        let window = OVERLAP * hop;
        let size = window.next_power_of_two();
        let bin = rate.0 as f32 / size as f32;
        let edge = |tone: u32| (LOWEST * 2f32.powf(tone as f32 / 12.0) / bin).ceil() as usize;
        let tones: Vec<Range<usize>> = (0..)
            .map(|tone| edge(tone)..edge(tone + 1))
            .take_while(|bins| bins.end <= size / 2 && bins.end as f32 * bin <= HIGHEST_TONE)
            .filter(|bins| !bins.is_empty())
            .collect();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(size),
            shape: (0..window).map(|n| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / window as f32).cos()).collect(),
            bands: mel_bands(f64::from(rate.0), size),
            hop,
            limit: (limit * BLOCKS as f64).ceil() as usize,
            soft_limit: (SOFTLY * limit * BLOCKS as f64).ceil() as usize,
            at: 0,
            pending: Vec::new(),
            before: Vec::new(),
            onset: 0.0,
            sums: vec![0.0; tones.len()],
            tones,
            spectra: 0,
            block_before: None,
            still: 0,
            soft: 0,
        }
    }

    /// Forgets what was heard: the sound goes on at media time `at`, in samples. What comes from
    /// before it is ignored.
    pub fn restart(&mut self, at: u64) {
        self.at = at;
        self.pending.clear();
        self.before.clear();
        self.sums.fill(0.0);
        (self.onset, self.spectra, self.block_before) = (0.0, 0, None);
        (self.still, self.soft) = (0, 0);
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
        // A sine of full scale has the power 1.
        let scale = 16.0 / (window * window) as f32;
        let mut done = 0;
        let mut since = None;
        while since.is_none() && self.pending.len() >= done + window {
            for ((value, sample), weight) in input.iter_mut().zip(&self.pending[done..]).zip(&self.shape) {
                *value = sample * weight;
            }
            // The transform leaves its input as scratch.
            input[window..].fill(0.0);
            // Lengths are the plan's own.
            if self.fft.process(&mut input, &mut spectrum).is_err() {
                break;
            }
            let power = |band: &Band| -> f32 {
                band.weights.iter().zip(&spectrum[band.bin..]).map(|(weight, bin)| weight * bin.norm_sqr()).sum()
            };
            let levels: Vec<f32> = self.bands.iter().map(|band| scale * power(band)).collect();
            if !self.before.is_empty() {
                self.onset = self.onset.max(mean_difference(&self.before, &levels, FAINT, |rise| rise.max(0.0)));
            }
            self.before = levels;
            for (sum, bins) in self.sums.iter_mut().zip(&self.tones) {
                *sum += scale / SPECTRA as f32 * spectrum[bins.clone()].iter().map(|bin| bin.norm_sqr()).sum::<f32>();
            }
            done += self.hop;
            self.spectra += 1;
            if self.spectra == SPECTRA {
                self.end_block();
                let blocks = if self.soft >= self.soft_limit { self.soft } else { self.still };
                if blocks >= self.limit {
                    // What came last may have come at the end of the first still spectrum.
                    since = Some(self.at + done as u64 + window as u64 - blocks as u64 * self.block());
                }
            }
        }
        self.pending.drain(..done);
        self.at += done as u64;
        since
    }

    fn end_block(&mut self) {
        let block = std::mem::replace(&mut self.sums, vec![0.0; self.tones.len()]);
        let change = |before: &Vec<f32>| mean_difference(before, &block, MASKED, f32::abs);
        let changed = self.block_before.as_ref().is_none_or(|before| change(before) > CHANGE);
        let onset = self.block_before.is_none() || self.onset > ONSET;
        self.soft = if onset { 0 } else { self.soft + 1 };
        self.still = if onset || changed { 0 } else { self.still + 1 };
        (self.onset, self.spectra, self.block_before) = (0.0, 0, Some(block));
    }
}

/// Triangles that lie alike on Slaney's mel scale: linear below 1 kHz, then 27 to a factor of 6.4.
fn mel_bands(rate: f64, size: usize) -> Vec<Band> {
    const KNEE: f64 = 1_000.0;
    const KNEE_MEL: f64 = 15.0;
    let step = 6.4_f64.ln() / 27.0;
    let mel = |hz: f64| if hz < KNEE { KNEE_MEL * hz / KNEE } else { KNEE_MEL + (hz / KNEE).ln() / step };
    let hertz = |mel: f64| if mel < KNEE_MEL { KNEE * mel / KNEE_MEL } else { KNEE * (step * (mel - KNEE_MEL)).exp() };
    let highest = mel(HIGHEST.min(rate / 2.0));
    let edge = |band: usize| hertz(highest * band as f64 / (BANDS + 1) as f64);
    let bins = size / 2 + 1;
    let band = |band: usize| {
        let (low, peak, high) = (edge(band), edge(band + 1), edge(band + 2));
        let weight = |bin: usize| {
            let hz = bin as f64 * rate / size as f64;
            ((hz - low) / (peak - low)).min((high - hz) / (high - peak)).max(0.0) as f32
        };
        let bin = (0..bins).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
        Band { bin, weights: (bin..bins).map(weight).take_while(|weight| *weight > 0.0).collect() }
    };
    (0..BANDS).map(band).collect()
}

/// Mean of what `counts` makes of the differences in dB between powers per band; what is `faint` is all equal.
fn mean_difference(before: &[f32], now: &[f32], faint: [f32; 2], counts: impl Fn(f32) -> f32) -> f32 {
    let [below_loudest, silent] = faint.map(|db| 10f32.powf(db / 10.0));
    let loudest = before.iter().chain(now).copied().fold(0.0, f32::max);
    let floor = (loudest * below_loudest).max(silent);
    let difference = |(before, now): (&f32, &f32)| counts(10.0 * ((now + floor) / (before + floor)).log10());
    before.iter().zip(now).map(difference).sum::<f32>() / now.len().max(1) as f32
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
    fn a_chord_that_swells_is_still() {
        let pcm = chord(12.0, &[(0.0, C)]);
        let swell = |n: usize| 0.6 + 0.4 * (std::f32::consts::TAU * n as f32 / 32_000.0 / 2.0).sin();
        let pcm: Vec<f32> = pcm.iter().enumerate().map(|(n, sample)| swell(n) * sample).collect();
        assert!(heard(&pcm, 1280).is_some());
    }

    /// A chord of so many partials that grows darker in steps of a quarter of a second, at 2.5, 5.0 and 7.5 s.
    fn darkening_chord(seconds: f32) -> Vec<f32> {
        let ends = |partial: u32| match partial {
            1..=2 => f32::INFINITY,
            3..=4 => 7.5,
            5..=8 => 5.0,
            _ => 2.5,
        };
        let sample = |n: usize| {
            let now = n as f32 / 32_000.0;
            let partials = C.iter().flat_map(|tone| (1..=16).map(move |partial| (tone, partial)));
            let level = |partial| 0.02 * (now / 0.05).min(1.0) * (1.0 - ((now - ends(partial)) / 0.25).clamp(0.0, 1.0));
            let wave = |tone: &f32, partial| (std::f32::consts::TAU * (tone * partial as f32 * now).fract()).sin();
            partials.map(|(tone, partial)| level(partial) * wave(tone, partial)).sum()
        };
        (0..(seconds * 32_000.0) as usize).map(sample).collect()
    }

    #[test]
    fn soft_changes_move_but_not_for_long() {
        assert_eq!(heard(&darkening_chord(5.0), 1280), None);
        let since = heard(&darkening_chord(8.0), 1280).map(|at| at as f32 / 32_000.0);
        assert!(since.is_some_and(|at| (0.0..=0.75).contains(&at)), "{since:?}");
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
