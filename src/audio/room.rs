//! A fixed room for a voice with one channel: what its walls give back differs between left and
//! right.
//!
//! All of the room is in the difference: left is the voice plus it, right the voice minus it. So
//! the sum of both, which a single loudspeaker plays, is the voice alone, without a colour; low
//! notes stay in the middle. Nothing moves in it (no chorus), so the same voice sounds the same
//! wherever its sound begins.

/// Energy of the difference below that of the voice, for music.
const SIDE_DB: f32 = -11.0;
/// First reflections: frames after the voice at 48 kHz (7 to 38 ms, no two at a simple ratio), and
/// how strong.
const REFLECTIONS: [(usize, f32); 6] =
    [(350, 0.50), (571, -0.45), (821, 0.38), (1118, -0.32), (1474, 0.26), (1819, -0.22)];
/// Lengths of the delay lines of the tail, in frames: primes, 30 to 50 ms.
const LINES: [usize; 4] = [1427, 1777, 2029, 2411];
/// Seconds in which the tail falls by 60 dB: a furnished room, not a hall.
const DECAY: f32 = 0.45;
/// Below this the room gives nothing back, in Hz.
const BASS: f32 = 250.0;
/// Walls swallow what is above, in Hz.
const WALLS: f32 = 4500.0;
const RATE: f32 = 48_000.0;
/// Gain of the difference that makes [`SIDE_DB`] of it, measured on music.
const SIDE: f32 = 0.62;

/// A filter of one pole; its state is the low part.
#[derive(Clone, Copy)]
struct Pole {
    step: f32,
    low: f32,
}

impl Pole {
    fn new(hertz: f32) -> Self {
        Self { step: 1.0 - (-std::f32::consts::TAU * hertz / RATE).exp(), low: 0.0 }
    }

    fn low(&mut self, sample: f32) -> f32 {
        self.low = settled(self.low + self.step * (sample - self.low));
        self.low
    }
}

/// A delay line of the tail.
struct Line {
    ring: Vec<f32>,
    at: usize,
    wall: Pole,
    /// What is left after one way through.
    gain: f32,
}

/// The room; one per stream, for 48 kHz.
pub struct Room {
    bass: [Pole; 2],
    voice: Vec<f32>,
    at: usize,
    lines: [Line; 4],
    /// Keeps the loudness: both channels carry the difference besides the voice.
    gain: f32,
}

impl Default for Room {
    fn default() -> Self {
        let line = |length: usize| Line {
            ring: vec![0.0; length],
            at: 0,
            wall: Pole::new(WALLS),
            gain: 10f32.powf(-3.0 * length as f32 / (RATE * DECAY)),
        };
        Self {
            bass: [Pole::new(BASS); 2],
            voice: vec![0.0; 2048],
            at: 0,
            lines: LINES.map(line),
            gain: (1.0 + 10f32.powf(SIDE_DB / 10.0)).sqrt().recip(),
        }
    }
}

impl Room {
    /// Puts interleaved stereo whose channels are the same into the room.
    pub fn process(&mut self, pcm: &mut [f32]) {
        for frame in pcm.chunks_exact_mut(2) {
            let voice = frame[0];
            let side = SIDE * self.side(voice);
            frame[0] = self.gain * (voice + side);
            frame[1] = self.gain * (voice - side);
        }
    }

    /// Lets the room fade under stereo sound that has a width of its own.
    pub fn pass(&mut self, pcm: &mut [f32]) {
        for frame in pcm.chunks_exact_mut(2) {
            let side = self.gain * SIDE * self.side(0.0);
            frame[0] += side;
            frame[1] -= side;
        }
    }

    /// The next frame of the difference.
    fn side(&mut self, voice: f32) -> f32 {
        // A broken sample must not stay in the room for ever.
        let mut heard = if voice.is_finite() { voice } else { 0.0 };
        for pole in &mut self.bass {
            heard -= pole.low(heard);
        }
        let length = self.voice.len();
        self.voice[self.at] = heard;
        let early: f32 =
            REFLECTIONS.iter().map(|(frames, gain)| gain * self.voice[(self.at + length - frames) % length]).sum();
        self.at = (self.at + 1) % length;
        let ends = self.lines.each_mut().map(|line| {
            let end = line.ring[line.at];
            line.gain * line.wall.low(end)
        });
        // Every line feeds all: a reflection (Householder) that keeps the energy.
        let half = 0.5 * ends.iter().sum::<f32>();
        for (n, (line, end)) in self.lines.iter_mut().zip(ends).enumerate() {
            let comes = if n % 2 == 0 { heard } else { -heard };
            line.ring[line.at] = settled(end - half + 0.5 * comes);
            line.at = (line.at + 1) % line.ring.len();
        }
        early + 0.6 * (ends[0] + ends[1] - ends[2] - ends[3])
    }
}

/// Nothing, instead of what is too small to be heard and slow to calculate with.
fn settled(sample: f32) -> f32 {
    if sample.abs() < 1e-15 { 0.0 } else { sample }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ebur128::{EbuR128, Mode};

    use super::*;

    /// Ten seconds of chords over a bass, as interleaved stereo with equal channels.
    fn music() -> Vec<f32> {
        let note = |t: f32, hertz: f32, begin: f32| {
            let age = t - begin;
            if age < 0.0 { 0.0 } else { (-3.0 * age).exp() * (std::f32::consts::TAU * hertz * age).sin() }
        };
        let sample = |n: usize| {
            let t = n as f32 / RATE;
            let beat = (t * 2.0).floor() / 2.0;
            let chord: f32 = [220.0, 277.2, 329.6, 440.0, 659.3, 1318.5, 2637.0]
                .iter()
                .enumerate()
                .map(|(n, hertz)| 0.1 / (1.0 + n as f32 * 0.2) * note(t, *hertz, beat))
                .sum();
            chord + 0.3 * note(t, 55.0, t.floor())
        };
        (0..480_000).flat_map(|n| [sample(n); 2]).collect()
    }

    fn decibels(samples: impl Iterator<Item = f32>) -> f32 {
        let (sum, count) = samples.fold((0.0, 0u32), |(sum, count), s| (sum + f64::from(s * s), count + 1));
        10.0 * (sum / f64::from(count)).log10() as f32
    }

    fn loudness(pcm: &[f32]) -> f64 {
        let mut meter = EbuR128::new(2, 48_000, Mode::I).unwrap();
        meter.add_frames_f32(pcm).unwrap();
        meter.loudness_global().unwrap()
    }

    #[test]
    fn the_sum_is_the_voice_and_the_loudness_stays() {
        let dry = music();
        let mut wet = dry.clone();
        wet.chunks_mut(962).for_each({
            let mut room = Room::default();
            move |part| room.process(part)
        });
        let mut whole = dry.clone();
        Room::default().process(&mut whole);
        assert!(wet == whole, "chunking changes it");
        for (before, after) in dry.chunks_exact(2).zip(wet.chunks_exact(2)) {
            let sum = 0.5 * (after[0] + after[1]);
            assert!((sum - 0.962 * before[0]).abs() < 1e-3 * before[0].abs() + 1e-6, "{sum} {}", before[0]);
        }
        let (before, after) = (loudness(&dry), loudness(&wet));
        assert!((before - after).abs() < 0.3, "{before} LUFS, in the room {after}");
        let side = decibels(wet.chunks_exact(2).map(|frame| 0.5 * (frame[0] - frame[1])));
        let middle = decibels(wet.chunks_exact(2).map(|frame| 0.5 * (frame[0] + frame[1])));
        assert!((-14.0..-10.0).contains(&(side - middle)), "{}", side - middle);
    }

    #[test]
    fn low_notes_stay_in_the_middle() {
        let tone = |hertz: f32| {
            let sample = move |n: usize| (std::f32::consts::TAU * hertz * n as f32 / RATE).sin();
            let mut pcm: Vec<f32> = (0..96_000).flat_map(|n| [sample(n); 2]).collect();
            Room::default().process(&mut pcm);
            decibels(pcm[96_000..].chunks_exact(2).map(|frame| frame[0] - frame[1]))
        };
        assert!(tone(50.0) < -25.0, "{}", tone(50.0));
        assert!(tone(1000.0) > -20.0, "{}", tone(1000.0));
    }

    #[test]
    fn a_second_and_a_half_later_nothing_is_left_of_a_sound() {
        let mut pcm = vec![0.0; 2 * 96_000];
        pcm[0] = 1.0;
        pcm[1] = 1.0;
        Room::default().process(&mut pcm);
        let late = pcm[2 * 72_000..].iter().fold(0f32, |most, sample| most.max(sample.abs()));
        assert!(late < 0.5 / 32_768.0 / 8.0, "{late}");
        let early = pcm[2..2 * 4_800].iter().fold(0f32, |most, sample| most.max(sample.abs()));
        assert!(early > 0.05, "{early}");
    }

    #[test]
    fn a_sound_with_its_own_width_passes_once_the_room_is_empty() {
        let mut room = Room::default();
        room.process(&mut [f32::NAN, f32::NAN, 0.5, 0.5]);
        room.pass(&mut vec![0.0; 2 * 144_000]);
        let mut pcm = vec![0.25, -0.5];
        room.pass(&mut pcm);
        assert!((pcm[0] - 0.25).abs() < 1e-9 && (pcm[1] + 0.5).abs() < 1e-9, "{pcm:?}");
    }
}
