//! Inter-sample peaks: what a player's converter makes of samples that are themselves below the
//! ceiling.
//!
//! Four times oversampling with a 12-tap windowed sinc per phase, after ITU-R BS.1770-4 annex 2.

/// Taps of each phase.
const TAPS: usize = 12;
/// Frames of look-ahead that the interpolator needs: the value between frames `n - DELAY` and `n -
/// DELAY + 1` is known at frame `n`.
pub(super) const DELAY: usize = TAPS / 2;

/// The largest absolute value between samples of one channel.
pub(super) struct TruePeak {
    phases: [[f32; TAPS]; 3],
    /// The last samples twice over, so that a window of them is always contiguous.
    history: [f32; 2 * TAPS],
    at: usize,
    /// Frames for which a loud sample is still in the window.
    loud_for: usize,
    /// Below this sample level nothing between samples can matter.
    floor: f32,
}

impl TruePeak {
    /// Looks only where a sample within the window is at least `floor`.
    pub(super) fn new(floor: f32) -> Self {
        let phases = std::array::from_fn(|phase| {
            let fraction = (phase + 1) as f64 / 4.0;
            let mut taps: [f64; TAPS] = std::array::from_fn(|tap| {
                // Tap 0 meets the oldest sample; the wanted instant lies `fraction` after sample
                // TAPS / 2 - 1.
                let distance = tap as f64 - (TAPS / 2 - 1) as f64 - fraction;
                let x = std::f64::consts::PI * distance;
                let window = (x / TAPS as f64).cos();
                x.sin() / x * window
            });
            let sum: f64 = taps.iter().sum();
            taps.iter_mut().for_each(|tap| *tap /= sum);
            taps.map(|tap| tap as f32)
        });
        Self { phases, history: [0.0; 2 * TAPS], at: 0, loud_for: 0, floor }
    }

    /// Takes the next sample; returns the larger of it and of the peaks that became known with it.
    pub(super) fn push(&mut self, sample: f32) -> f32 {
        self.history[self.at] = sample;
        self.history[self.at + TAPS] = sample;
        self.at = (self.at + 1) % TAPS;
        let level = sample.abs();
        if level >= self.floor {
            self.loud_for = TAPS;
        }
        if self.loud_for == 0 {
            return level;
        }
        self.loud_for -= 1;
        let window = &self.history[self.at..self.at + TAPS];
        self.phases.iter().fold(level, |peak, taps| {
            let value: f32 = taps.iter().zip(window).map(|(tap, sample)| tap * sample).sum();
            peak.max(value.abs())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_agrees_with_the_ebu_meter() {
        // A quarter of the sample rate, 45 degrees off: every sample is 3 dB below the true peak.
        let pcm: Vec<f32> =
            (0..4800).map(|n| ((n as f64 + 0.5) * std::f64::consts::FRAC_PI_2).sin() as f32 * 0.9).collect();
        let mut meter = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::TRUE_PEAK).unwrap();
        meter.add_frames_f32(&pcm).unwrap();
        let mut peak = TruePeak::new(0.4);
        let ours = pcm.iter().map(|&sample| peak.push(sample)).fold(0.0, f32::max);
        let theirs = meter.true_peak(0).unwrap() as f32;
        assert!((ours / theirs - 1.0).abs() < 0.03, "{ours} against {theirs}");
    }
}
