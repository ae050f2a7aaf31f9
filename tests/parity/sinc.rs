//! Resampling of whole recordings with a windowed sinc, as torchaudio does it by default: models
//! were tried with it.

/// Zero crossings of the sinc on each side.
const CROSSINGS: f64 = 6.0;
/// Part of the lower rate's band that is kept.
const ROLLOFF: f64 = 0.99;

/// One channel at rate `from` as it is at rate `to`: `ceil(to * length / from)` samples.
pub fn sinc(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to || samples.is_empty() || from == 0 || to == 0 {
        return samples.to_vec();
    }
    let divisor = gcd(from, to);
    let (input, output) = ((from / divisor) as usize, (to / divisor) as usize);
    let cutoff = ROLLOFF * input.min(output) as f64;
    let reach = (CROSSINGS * input as f64 / cutoff).ceil() as usize;
    let taps = 2 * reach + input;
    let kernels: Vec<f32> = (0..output)
        .flat_map(|phase| (0..taps).map(move |tap| (phase, tap)))
        .map(|(phase, tap)| {
            let offset = (tap as f64 - reach as f64) / input as f64 - phase as f64 / output as f64;
            let u = (cutoff * offset).clamp(-CROSSINGS, CROSSINGS);
            let window = (std::f64::consts::PI * u / (2.0 * CROSSINGS)).cos().powi(2);
            let angle = std::f64::consts::PI * u;
            let sinc = if angle == 0.0 { 1.0 } else { angle.sin() / angle };
            (sinc * window * cutoff / input as f64) as f32
        })
        .collect();
    let mut padded = vec![0f32; reach];
    padded.extend_from_slice(samples);
    padded.resize(samples.len() + 2 * reach + 2 * input, 0.0);
    let length = (samples.len() * output).div_ceil(input);
    (0..length)
        .map(|index| {
            let (block, phase) = (index / output, index % output);
            let window = padded.get(block * input..).unwrap_or_default();
            let kernel = &kernels[phase * taps..][..taps];
            window.iter().zip(kernel).map(|(x, w)| x * w).sum()
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_pitch_and_its_level() {
        let tone = |rate: u32, count: usize| -> Vec<f32> {
            (0..count).map(|i| (std::f32::consts::TAU * 1000.0 * i as f32 / rate as f32).sin()).collect()
        };
        let resampled = sinc(&tone(32_000, 3200), 32_000, 48_000);
        assert_eq!(resampled.len(), 4800);
        let wanted = tone(48_000, 4800);
        let worst = resampled[200..4600].iter().zip(&wanted[200..4600]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{worst}");
    }

    #[test]
    fn lengths_are_rounded_up_and_equal_rates_change_nothing() {
        assert_eq!(sinc(&[0.0; 1501], 48_000, 44_100).len(), 1380);
        assert_eq!(sinc(&[0.5, -0.5], 44_100, 44_100), [0.5, -0.5]);
        assert!(sinc(&[], 32_000, 44_100).is_empty());
    }
}
