//! What a page draws and says of a sound before it has loaded it: wave form, length, tempo,
//! loudness. Computed once, kept beside the conversions.

use ebur128::{EbuR128, Mode};
use serde::Serialize;
use utoipa::ToSchema;

use super::store::PEAKS;
use super::{AudioId, SoundFile, Studio, StudioError};
use crate::audio::{Peaks, Pulse, peaks, pulse};
use crate::pcm::Pcm;

/// How a sound is drawn: the JSON of audiowaveform, version 2, and what it has no field for.
#[derive(Serialize, ToSchema)]
#[schema(as = Peaks)]
pub struct Drawing {
    version: u32,
    /// All channels are drawn as one.
    channels: u32,
    sample_rate: u32,
    /// Samples that a pair stands for.
    samples_per_pixel: usize,
    bits: u32,
    /// Pairs.
    length: usize,
    /// The lowest and the highest sample, pair by pair; 127 is full scale.
    data: Vec<i8>,
    /// Length.
    seconds: f64,
    /// Beats per minute; `None` without a pulse.
    bpm: Option<f64>,
    /// Seconds at which the first beat is heard.
    first_beat: Option<f64>,
    /// Integrated loudness in LUFS (EBU R 128); `None` for silence.
    loudness: Option<f64>,
    /// The highest peak between samples in dBTP; `None` for silence.
    true_peak: Option<f64>,
}

impl Studio {
    /// The drawing of a sound, as JSON; the same bytes every time.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Store`], [`StudioError::Exhausted`].
    pub async fn peaks(&self, id: AudioId) -> Result<SoundFile, StudioError> {
        self.converted(id, PEAKS, |sound| {
            let drawn = drawing(&sound)?;
            serde_json::to_vec(&drawn).map_err(|error| StudioError::Broken(error.to_string()))
        })
        .await
    }
}

fn drawing(sound: &Pcm) -> Result<Drawing, StudioError> {
    let Peaks { samples_per_pixel, data } = peaks(sound);
    let pulse = pulse(sound)?;
    let (loudness, true_peak) = levels(sound).unwrap_or_default();
    let rounded = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    Ok(Drawing {
        version: 2,
        channels: 1,
        sample_rate: sound.rate.0,
        samples_per_pixel,
        bits: 8,
        length: data.len() / 2,
        data,
        seconds: rounded(sound.seconds(), 6),
        bpm: pulse.map(|Pulse { bpm, .. }| rounded(bpm, 2)),
        first_beat: pulse.map(|Pulse { first, .. }| rounded(first, 3)),
        loudness: loudness.map(|lufs| rounded(lufs, 1)),
        true_peak: true_peak.map(|peak| rounded(peak, 1)),
    })
}

/// Integrated loudness and true peak.
fn levels(sound: &Pcm) -> Option<(Option<f64>, Option<f64>)> {
    let mut meter = EbuR128::new(sound.channels as u32, sound.rate.0, Mode::I | Mode::TRUE_PEAK).ok()?;
    meter.add_frames_f32(&sound.pcm).ok()?;
    let loudness = meter.loudness_global().ok().filter(|lufs| lufs.is_finite());
    let highest = (0..sound.channels as u32).filter_map(|channel| meter.true_peak(channel).ok()).fold(0.0, f64::max);
    Some((loudness, Some(20.0 * highest.log10()).filter(|peak| peak.is_finite())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::units::SampleRate;

    #[test]
    fn a_tone_has_the_loudness_and_the_peak_that_the_standard_gives_it() {
        // EBU Tech 3341: a 1 kHz sine on both channels at -23 dBFS measures -23 LUFS.
        let rate = 48_000;
        let level = 10f64.powf(-23.0 / 20.0);
        let sine = |n: usize| (level * (std::f64::consts::TAU * 1000.0 * n as f64 / f64::from(rate)).sin()) as f32;
        let pcm = (0..10 * rate as usize).flat_map(|n| [sine(n); 2]).collect();
        let drawn = drawing(&Pcm { pcm, channels: 2, rate: SampleRate(rate) }).unwrap();
        assert!((drawn.loudness.unwrap() + 23.0).abs() < 0.11, "{:?}", drawn.loudness);
        assert!((drawn.true_peak.unwrap() + 23.0).abs() < 0.11, "{:?}", drawn.true_peak);
        assert_eq!((drawn.seconds, drawn.length, drawn.samples_per_pixel), (10.0, 2000, 240));
    }

    #[test]
    fn silence_has_a_wave_form_and_nothing_else() {
        let silence = Pcm { pcm: vec![0.0; 32_000], channels: 1, rate: SampleRate(32_000) };
        let drawn = drawing(&silence).unwrap();
        assert_eq!((drawn.bpm, drawn.loudness, drawn.true_peak), (None, None, None));
        assert_eq!(drawn.data, [0i8; 400]);
    }
}
