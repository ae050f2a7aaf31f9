//! The tempo of a piece: where its loudness rises in any band, and at which distance these rises
//! repeat.
//!
//! Spectral flux of a short-time Fourier transform gives an onset curve; a comb of its
//! autocorrelation at four multiples of a beat, weighted towards 120 beats per minute as listeners
//! are, gives the tempo.

use realfft::RealFftPlanner;

use super::AudioError;
use crate::pcm::Pcm;
use crate::units::SampleRate;

const RATE: SampleRate = SampleRate(11_025);
const WINDOW: usize = 512;
const HOP: usize = 64;
/// Beats per minute that are looked for.
const SLOWEST: f64 = 40.0;
const FASTEST: f64 = 220.0;
/// The tempo that listeners expect, and how far they stray from it, in octaves.
const EXPECTED: f64 = 120.0;
const SPREAD: f64 = 1.0;
/// Multiples of a beat at which rises must repeat.
const COMB: usize = 4;

/// Where in its window a rise is heard that makes the loudest difference to the window before, as a
/// part of it.
const HEARD_AT: f64 = 0.8;
/// A beat that lies this much before the beginning, in seconds, is the first one: attacks take
/// their time.
const EARLY: f64 = 0.04;
/// Most sounds begin on a beat: one that is so much weaker than the strongest place in a beat is
/// still the first.
const BEGINS: f32 = 0.4;
/// Bands below 200 Hz, and the share of all rises that they must have to say where the beats are.
const LOW: usize = 10;
const BASS: f32 = 0.01;
/// People choose whole numbers: one that fits nearly as well, and is this near, is meant.
const WHOLE: (f64, f64) = (0.9, 0.3);

/// Beats at equal distances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pulse {
    /// Beats per minute.
    pub bpm: f64,
    /// Seconds at which the first one is heard.
    pub first: f64,
}

/// Beats per minute (now and then those an octave away, as with all such measures), or `None` for a
/// sound without a pulse, or shorter than two beats.
///
/// # Errors
/// [`AudioError::Resample`] when the rate cannot be converted.
pub fn tempo(sound: &Pcm) -> Result<Option<f64>, AudioError> {
    Ok(measured(&sound.clone().mono().at(RATE)?)?.map(|(bpm, _)| bpm))
}

/// As [`tempo`], a whole number where one fits, and where the beats lie.
///
/// # Errors
/// As [`tempo`].
pub fn pulse(sound: &Pcm) -> Result<Option<Pulse>, AudioError> {
    let mono = sound.clone().mono().at(RATE)?;
    let Some((fine, all)) = measured(&mono)? else { return Ok(None) };
    // Beats are where the bass is hit; off-beats have their noise as well.
    let low = onsets(&mono.pcm, LOW);
    let has_bass = low.iter().sum::<f32>() > BASS * all.iter().sum::<f32>();
    let onsets = if has_bass { low } else { all };
    let risen = |bpm| first_beat(&onsets, 60.0 / bpm);
    let ((first, fit), (whole_first, whole_fit)) = (risen(fine), risen(fine.round()));
    let is_whole = (fine.round() - fine).abs() < WHOLE.1 && f64::from(whole_fit) > WHOLE.0 * f64::from(fit);
    Ok(Some(match is_whole {
        true => Pulse { bpm: fine.round(), first: whole_first },
        false => Pulse { bpm: fine, first },
    }))
}

/// Beats per minute of mono sound at [`RATE`], and the onsets that they were found in.
fn measured(mono: &Pcm) -> Result<Option<(f64, Vec<f32>)>, AudioError> {
    let onsets = onsets(&mono.pcm, WINDOW);
    let per_second = f64::from(RATE.0) / HOP as f64;
    let most = (COMB as f64 * 60.0 / SLOWEST * per_second) as usize + 2;
    let correlation = autocorrelation(&onsets, most.min(onsets.len()));
    if correlation.len() < (60.0 / FASTEST * per_second) as usize * 2 || correlation[0] <= 1e-9 {
        return Ok(None);
    }
    let at = |lag: f64| {
        let (low, part) = (lag.floor() as usize, lag.fract() as f32);
        match correlation.get(low..low + 2) {
            Some([a, b]) => f64::from(a + part * (b - a)),
            _ => 0.0,
        }
    };
    let score = |bpm: f64| {
        let beat = 60.0 / bpm * per_second;
        let comb: f64 = (1..=COMB).map(|k| at(beat * k as f64)).sum();
        comb * (-0.5 * ((bpm / EXPECTED).log2() / SPREAD).powi(2)).exp()
    };
    let best = |from: f64, to: f64, step: f64| {
        let count = ((to - from) / step) as usize;
        let tempos = (0..=count).map(|n| from + n as f64 * step);
        tempos.max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap_or(EXPECTED)
    };
    let rough = best(SLOWEST, FASTEST, 0.5);
    let fine = best(rough - 1.0, rough + 1.0, 0.02);
    let is_pulse = score(fine) > 0.02 * f64::from(correlation[0]);
    Ok(is_pulse.then_some((fine, onsets)))
}

/// The place within a beat, in seconds, at which the sound rises most beat for beat, and how much.
fn first_beat(onsets: &[f32], beat: f64) -> (f64, f32) {
    let per_second = f64::from(RATE.0) / HOP as f64;
    let places = ((beat * per_second) as usize).max(1);
    let risen = |place: usize| {
        let steps = (0..).map(|n| (place as f64 + n as f64 * beat * per_second).round() as usize);
        steps.map_while(|step| onsets.get(step)).sum::<f32>()
    };
    let second = |place: usize| {
        let second = (place as f64 / per_second + HEARD_AT * WINDOW as f64 / f64::from(RATE.0)) % beat;
        if second > beat - EARLY { second - beat } else { second }
    };
    let all: Vec<(f64, f32)> = (0..places).map(|place| (second(place), risen(place))).collect();
    let strongest = |of: &[(f64, f32)]| of.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
    let best = strongest(&all);
    let at_start: Vec<(f64, f32)> = all.into_iter().filter(|(second, _)| second.abs() < EARLY).collect();
    match strongest(&at_start) {
        start if start.1 > BEGINS * best.1 => (0.0, start.1),
        _ => (best.0.max(0.0), best.1),
    }
}

/// One value per hop: how much louder the lowest `bands` became, without the slow part.
fn onsets(pcm: &[f32], bands: usize) -> Vec<f32> {
    let mut planner = RealFftPlanner::<f32>::new();
    let fft = planner.plan_fft_forward(WINDOW);
    let (mut frame, mut spectrum) = (fft.make_input_vec(), fft.make_output_vec());
    let shape: Vec<f32> =
        (0..WINDOW).map(|n| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / WINDOW as f32).cos()).collect();
    let mut before = vec![0.0; spectrum.len()];
    let mut curve = Vec::with_capacity(pcm.len() / HOP);
    for start in (0..pcm.len().saturating_sub(WINDOW)).step_by(HOP) {
        for ((sample, value), weight) in frame.iter_mut().zip(&pcm[start..]).zip(&shape) {
            *sample = value * weight;
        }
        // Lengths are the plan's own.
        if fft.process(&mut frame, &mut spectrum).is_err() {
            break;
        }
        let mut rise = 0.0;
        for (bin, old) in spectrum.iter().zip(&mut before).take(bands) {
            let level = (1.0 + 100.0 * bin.norm()).ln();
            rise += (level - *old).max(0.0);
            *old = level;
        }
        curve.push(if curve.is_empty() { 0.0 } else { rise });
    }
    let reach = (f64::from(RATE.0) / HOP as f64 / 2.0) as usize;
    let mut sums = vec![0.0f64];
    curve.iter().for_each(|value| sums.push(sums[sums.len() - 1] + f64::from(*value)));
    let mean = |n: usize| {
        let (from, to) = (n.saturating_sub(reach), (n + reach).min(curve.len()));
        ((sums[to] - sums[from]) / (to - from).max(1) as f64) as f32
    };
    (0..curve.len()).map(|n| (curve[n] - mean(n)).max(0.0)).collect()
}

fn autocorrelation(curve: &[f32], lags: usize) -> Vec<f32> {
    let mean = curve.iter().sum::<f32>() / curve.len().max(1) as f32;
    let centred: Vec<f32> = curve.iter().map(|value| value - mean).collect();
    // Fewer terms at long distances must not count less.
    let one = |lag: usize| {
        let terms = centred.len() - lag;
        let sum: f32 = centred[..terms].iter().zip(&centred[lag..]).map(|(a, b)| a * b).sum();
        sum / terms.max(1) as f32
    };
    (0..lags).map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A kick on every beat, a quieter noise on every half, at any rate.
    fn drums(bpm: f64, seconds: f64, rate: u32) -> Pcm {
        let frames = (seconds * f64::from(rate)) as usize;
        let beat = 60.0 / bpm;
        let mut noise = 1u32;
        let pcm = (0..frames).map(|n| {
            let time = n as f64 / f64::from(rate);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (since, half) = (time % beat, (time + beat / 2.0) % beat);
            let kick = (-since * 30.0).exp() * (since * 2.0 * std::f64::consts::PI * 60.0).sin();
            let hat = 0.2 * (-half * 60.0).exp() * (f64::from(noise) / f64::from(u32::MAX) - 0.5);
            (0.7 * kick + hat) as f32
        });
        Pcm { pcm: pcm.collect(), channels: 1, rate: SampleRate(rate) }
    }

    #[test]
    fn a_drum_loop_has_its_tempo_or_that_an_octave_away() {
        for (bpm, rate) in [
            (75.0, 44_100),
            (90.0, 48_000),
            (100.0, 32_000),
            (120.0, 44_100),
            (128.0, 44_100),
            (140.0, 44_100),
            (174.0, 44_100),
        ] {
            let found = tempo(&drums(bpm, 20.0, rate)).unwrap().unwrap();
            let near = [0.5, 1.0, 2.0].into_iter().any(|octave| (found / (bpm * octave) - 1.0).abs() < 0.004);
            assert!(near, "{bpm} was heard as {found}");
        }
    }

    #[test]
    fn the_beats_lie_where_the_drum_is_hit() {
        for (bpm, silence) in [(90.0, 0.0), (120.0, 0.13), (128.0, 0.1), (174.0, 0.08)] {
            let (drums, rate) = (drums(bpm, 20.0, 44_100), 44_100.0);
            let mut pcm = vec![0.0; (silence * rate) as usize];
            pcm.extend(&drums.pcm);
            let found = pulse(&Pcm { pcm, ..drums }).unwrap().unwrap();
            // At half the tempo every other beat is as good.
            let beat = 60.0 / bpm;
            let off = (found.first - silence + beat / 2.0).rem_euclid(beat) - beat / 2.0;
            assert!(off.abs() < 0.02, "{bpm}: {} instead of {silence}", found.first);
        }
    }

    #[test]
    fn silence_and_clicks_have_none() {
        let silence = Pcm { pcm: vec![0.0; 441_000], channels: 1, rate: SampleRate(44_100) };
        assert_eq!(tempo(&silence).unwrap(), None);
        assert_eq!(tempo(&drums(120.0, 0.1, 44_100)).unwrap(), None);
    }
}
