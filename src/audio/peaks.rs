//! A sound as it is drawn: the lowest and the highest sample of every few, in 8 bits.
//!
//! The layout is that of BBC's audiowaveform, which players of wave forms read: `low, high, low,
//! high, ...`.

use crate::pcm::Pcm;

/// Pairs per second of a short sound.
const PER_SECOND: usize = 200;
/// Pairs of a long one.
const MOST: usize = 24_000;

/// A wave form, all channels in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Peaks {
    /// Frames that a pair stands for; the last one may stand for fewer.
    pub samples_per_pixel: usize,
    /// Lowest and highest sample, pair by pair; 127 is full scale.
    pub data: Vec<i8>,
}

/// The wave form of a sound.
pub fn peaks(sound: &Pcm) -> Peaks {
    let finest = sound.rate.0 as usize / PER_SECOND;
    let samples_per_pixel = sound.frames().div_ceil(MOST).max(finest).max(1);
    let extremes = |samples: &[f32]| {
        let (low, high) = samples.iter().fold((1.0f32, -1.0f32), |(low, high), s| (low.min(*s), high.max(*s)));
        // `as` saturates, and has no trouble with what is no number.
        [(127.0 * low.min(high)).round() as i8, (127.0 * high.max(low)).round() as i8]
    };
    let data = sound.pcm.chunks(samples_per_pixel * sound.channels).flat_map(extremes).collect();
    Peaks { samples_per_pixel, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SampleRate;

    #[test]
    fn every_pair_holds_the_extremes_of_its_samples() {
        let mut pcm = vec![0.0; 2 * 400];
        (pcm[7], pcm[400], pcm[799]) = (0.5, -1.0, 1.5);
        let sound = Pcm { pcm, channels: 2, rate: SampleRate(40_000) };
        let drawn = peaks(&sound);
        assert_eq!((drawn.samples_per_pixel, drawn.data), (200, vec![0, 64, -127, 127]));
    }

    #[test]
    fn a_long_sound_is_drawn_coarsely_and_an_empty_one_not_at_all() {
        let long = Pcm { pcm: vec![0.25; 1_000_000], channels: 1, rate: SampleRate(8000) };
        let drawn = peaks(&long);
        assert!(drawn.data.len() <= 2 * MOST && drawn.data.len() > MOST, "{}", drawn.data.len());
        assert!(drawn.data.iter().all(|value| *value == 32));
        assert_eq!(peaks(&Pcm { pcm: Vec::new(), ..long }).data, [0i8; 0]);
    }
}
