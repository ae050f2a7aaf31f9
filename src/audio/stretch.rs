//! Another tempo at the same pitch: waveform-similarity overlap-add (Verhelst and Roelands 1993).
//!
//! Windows of the input are laid down at a fixed distance in the output. Each is looked for near
//! the place where it belongs, and taken where it goes on best from the one before, so that periods
//! of a tone meet in phase.

use crate::pcm::Pcm;

/// Seconds of a window; half of it is the distance of two windows in the output.
const WINDOW: f64 = 0.06;
/// Seconds around its place in which a window is looked for.
const SEARCH: f64 = 0.012;
/// Frames between two that are compared: what is below 3 kHz decides.
const COARSE: usize = 8;

impl Pcm {
    /// The sound `factor` times as long (2 is half the tempo), rounded to a frame, at the same
    /// pitch.
    #[must_use]
    pub fn stretched(&self, factor: f64) -> Self {
        let length = (self.frames() as f64 * factor).round() as usize;
        let hop = ((WINDOW / 2.0 * f64::from(self.rate.0)) as usize).max(COARSE);
        if (factor - 1.0).abs() < 1e-6 || self.frames() < 4 * hop {
            return self.cut(0, length).padded(length);
        }
        let reach = (SEARCH * f64::from(self.rate.0)) as usize;
        let mixed = self.clone().mono().pcm;
        let channels = self.channels;
        let mut out = vec![0.0f32; (length + 2 * hop) * channels];
        // Where the window before went on in the input.
        let mut onward: Option<usize> = None;
        for at in (0..length).step_by(hop) {
            let wanted = ((at as f64 / factor) as usize).min(mixed.len() - 1);
            let from = onward.map_or(0, |onward| best(&mixed, onward, wanted, (hop, reach)));
            for frame in 0..2 * hop {
                let Some(source) = (from + frame < mixed.len()).then_some(from + frame) else { break };
                // Two halves of a raised cosine add up to one; before the first window there is
                // nothing to fade from.
                let phase = std::f32::consts::PI * (frame as f32 + 0.5) / hop as f32;
                let weight = if onward.is_none() && frame < hop { 1.0 } else { 0.5 - 0.5 * phase.cos() };
                for channel in 0..channels {
                    out[(at + frame) * channels + channel] += weight * self.pcm[source * channels + channel];
                }
            }
            onward = Some(from + hop);
        }
        out.truncate(length * channels);
        Self { pcm: out, ..*self }
    }
}

/// The place near `wanted` whose next `hop` frames are most like those at `onward`.
fn best(mixed: &[f32], onward: usize, wanted: usize, (hop, reach): (usize, usize)) -> usize {
    if onward + hop >= mixed.len() {
        return wanted;
    }
    let likeness = |from: usize, step: usize| {
        let (mut product, mut power) = (0.0f32, 1e-9f32);
        for frame in (0..hop).step_by(step) {
            let sample = mixed[from + frame];
            product += sample * mixed[onward + frame];
            power += sample * sample;
        }
        product / power.sqrt()
    };
    let search = |around: usize, reach: usize, step: usize| {
        let last = (around + reach).min(mixed.len().saturating_sub(hop + 1));
        let places = (around.saturating_sub(reach)..=last).step_by(step);
        places.max_by(|a, b| likeness(*a, step).total_cmp(&likeness(*b, step))).unwrap_or(around)
    };
    search(search(wanted, reach, COARSE), COARSE, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SampleRate;

    const RATE: u32 = 16_000;

    fn tone(seconds: f64) -> Pcm {
        let frames = (seconds * f64::from(RATE)) as usize;
        let pcm = (0..frames).flat_map(|n| {
            let angle = n as f32 * std::f32::consts::TAU * 220.0 / RATE as f32;
            [0.5 * angle.sin(), 0.25 * angle.sin()]
        });
        Pcm { pcm: pcm.collect(), channels: 2, rate: SampleRate(RATE) }
    }

    fn crossings(sound: &Pcm) -> usize {
        let left: Vec<f32> = sound.pcm.iter().step_by(2).copied().collect();
        left.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count()
    }

    #[test]
    fn the_length_changes_and_the_pitch_and_the_level_do_not() {
        let tone = tone(4.0);
        for factor in [0.5, 0.8, 1.0, 1.37, 2.0] {
            let other = tone.stretched(factor);
            assert_eq!(other.frames(), (4.0 * f64::from(RATE) * factor).round() as usize);
            let pitch = crossings(&other) as f64 / other.seconds();
            assert!((pitch - 220.0).abs() < 3.0, "{factor}: {pitch} Hz");
            let middle = &other.pcm[other.pcm.len() / 4..other.pcm.len() / 2];
            let loudest = middle.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            assert!((0.45..0.55).contains(&loudest), "{factor}: {loudest}");
            assert!(other.pcm.chunks(2).all(|frame| (frame[0] - 2.0 * frame[1]).abs() < 1e-5), "both channels alike");
        }
    }

    #[test]
    fn clicks_keep_their_places_in_the_new_tempo() {
        let mut beat = Pcm { pcm: vec![0.0; 4 * RATE as usize], channels: 1, rate: SampleRate(RATE) };
        for second in 0..4 {
            for n in 0..400 {
                beat.pcm[second * RATE as usize + 200 + n] = (n as f32 * 0.4).sin() * (-(n as f32) / 90.0).exp();
            }
        }
        let slow = beat.stretched(1.5);
        for second in 0..4 {
            let place = (second * RATE as usize + 200) * 3 / 2;
            let near = place.saturating_sub(800)..(place + 1600).min(slow.pcm.len());
            let loudest = slow.pcm[near].iter().fold(0.0f32, |a, b| a.max(b.abs()));
            assert!(loudest > 0.3, "the beat of second {second} is lost: {loudest}");
        }
    }

    #[test]
    fn what_is_shorter_than_a_window_is_cut_or_padded() {
        let short = Pcm { pcm: vec![0.5; 100], channels: 1, rate: SampleRate(RATE) };
        assert_eq!(short.stretched(2.0).frames(), 200);
        assert_eq!(short.stretched(0.5).frames(), 50);
    }
}
