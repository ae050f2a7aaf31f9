//! What of a sound becomes the prompt, and how the piece and the sound are put together. Lengths
//! are exact.

use super::{Kind, Params, StudioError};
use crate::engine::ModelInfo;
use crate::pcm::Pcm;
use crate::units::{SampleRate, Samples};

/// The joint lies where the prompt begins: both sides hold the same music there, so a short
/// cross-fade hides the step between the original and the codec's version of it and moves nothing.
const FADE_SECONDS: f64 = 0.02;

/// The highest rate of results; what is sampled at a higher one is music no more.
const MAX_RATE: u32 = 96_000;
/// The rate that takes the place of one that no whole share of is within [`MAX_RATE`].
const RATE: u32 = 48_000;

/// A given sound in a shape that results can have: one or two channels, at a rate that music is
/// made at. What a file's header says is otherwise a wish for any amount of memory and disk.
///
/// # Errors
/// [`StudioError::Audio`] when the rate cannot be converted.
pub(super) fn usable(sound: Pcm) -> Result<Pcm, StudioError> {
    let sound = if sound.channels > 2 { sound.stereo() } else { sound };
    let SampleRate(rate) = sound.rate;
    if rate <= MAX_RATE {
        return Ok(sound);
    }
    let parts = rate.div_ceil(MAX_RATE);
    let rate = if rate.is_multiple_of(parts) { rate / parts } else { RATE };
    Ok(sound.at(SampleRate(rate))?)
}

/// A prompt at the model's rate, `[channels][samples]`, whole frames.
#[derive(Debug, PartialEq)]
pub(super) struct Prompt {
    pub(super) planes: Vec<Vec<f32>>,
}

/// Frames of the piece, the prompt included.
pub(super) fn piece_frames(params: &Params, model: &ModelInfo) -> u64 {
    (params.seconds * model.frame_rate()).ceil() as u64
}

/// Cuts the prompt out of a sound, mixes it to the model's channels and converts it to the model's
/// rate.
///
/// # Errors
/// [`StudioError::Audio`] when the rate cannot be converted.
pub(super) fn prompt(kind: Kind, sound: &Pcm, params: &Params, model: &ModelInfo) -> Result<Prompt, StudioError> {
    let wanted = prompt_samples(params, sound.rate);
    let part = match kind {
        // A short sound is followed by silence, so that the prompt always has its length.
        Kind::Bang => sound.cut(0, wanted).padded(wanted),
        // A short sound is the prompt as it is.
        _ => sound.cut(sound.frames().saturating_sub(wanted), sound.frames()),
    };
    let part = if model.channels == 2 { part.stereo() } else { part.mono() }.at(model.sample_rate)?;
    let frames = match kind {
        Kind::Bang => ((params.prompt_seconds * model.frame_rate()).round() as usize).max(1),
        _ => part.frames().div_ceil(model.hop),
    };
    let samples = frames * model.hop;
    let planes = part.planes().into_iter().map(|mut plane| {
        match kind {
            Kind::Bang => plane.resize(samples, 0.0),
            // The end must stay the end: what is missing to a whole frame is silence before it.
            _ => drop(plane.splice(0..0, std::iter::repeat_n(0.0, samples - plane.len()))),
        }
        plane
    });
    Ok(Prompt { planes: planes.collect() })
}

fn prompt_samples(params: &Params, rate: SampleRate) -> usize {
    (params.prompt_seconds * f64::from(rate.0)) as usize
}

/// The result: of a bang the piece, mono, at the sound's rate; of a continue the sound without its
/// prompt, then the piece, with at least two channels. Scaled down if it exceeds full scale.
///
/// # Errors
/// [`StudioError::Audio`] when the rate cannot be converted.
pub(super) fn result(kind: Kind, sound: Option<&Pcm>, piece: Pcm, params: &Params) -> Result<Pcm, StudioError> {
    let Some(sound) = sound else {
        let Samples(samples) = piece.rate.samples(params.seconds);
        return Ok(piece.cut(0, samples as usize).within_full_scale());
    };
    let Samples(samples) = sound.rate.samples(params.seconds);
    let (mut whole, joint) = before(kind, sound, params);
    let piece = with_channels(piece, whole.channels);
    let mut piece = piece.at(sound.rate)?.cut(0, samples as usize).padded(samples as usize);
    fade(&joint, &mut piece);
    whole.pcm.extend(piece.pcm);
    Ok(whole.within_full_scale())
}

/// What of a sound lies before the piece in the result, in the result's shape, and the moment after
/// it, which the piece is faded from. Both are empty for a bang.
pub(super) fn before(kind: Kind, sound: &Pcm, params: &Params) -> (Pcm, Pcm) {
    if !kind.keeps_sound() {
        let nothing = Pcm { pcm: Vec::new(), channels: 1, rate: sound.rate };
        return (nothing.clone(), nothing);
    }
    let spread = if sound.channels == 1 { sound.clone().spread(2) } else { sound.clone() };
    let head = spread.frames().saturating_sub(prompt_samples(params, sound.rate));
    let moment = if head > 0 { sound.rate.samples(FADE_SECONDS).0 as usize } else { 0 };
    (spread.cut(0, head), spread.cut(head, head + moment))
}

/// A piece in the result's channels.
pub(super) fn with_channels(piece: Pcm, channels: usize) -> Pcm {
    match channels {
        1 => piece.mono(),
        channels if channels == piece.channels => piece,
        channels => piece.spread(channels),
    }
}

/// Fades the beginning of `to` in from all of `from`.
pub(super) fn fade(from: &Pcm, to: &mut Pcm) {
    let length = from.frames().min(to.frames());
    for frame in 0..length {
        let share = (frame as f32 + 0.5) / length as f32;
        for sample in frame * to.channels..(frame + 1) * to.channels {
            to.pcm[sample] = share * to.pcm[sample] + (1.0 - share) * from.pcm[sample];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::Backend;
    use crate::engine::standin::Standin;

    fn ramp(rate: u32, frames: usize, channels: usize) -> Pcm {
        let pcm = (0..frames * channels).map(|n| (n / channels) as f32 / frames as f32 * 0.5).collect();
        Pcm { pcm, channels, rate: SampleRate(rate) }
    }

    fn piece(level: f32, channels: usize) -> Pcm {
        Pcm { pcm: vec![level; 960_000 * channels], channels, rate: SampleRate(32_000) }
    }

    #[test]
    fn the_prompt_has_whole_frames_and_the_asked_length() {
        let model = Standin::default().info().clone();
        for (rate, channels) in [(44_100, 1), (48_000, 2), (22_050, 6), (32_000, 1)] {
            for prompt_seconds in [1.0, 6.0, 15.0, 2.5] {
                let params = Params { prompt_seconds, ..Params::default() };
                let sound = ramp(rate, 20 * rate as usize + 17, channels);
                for kind in [Kind::Bang, Kind::Continue] {
                    let planes = prompt(kind, &sound, &params, &model).unwrap().planes;
                    let frames = planes[0].len() / 640;
                    assert_eq!((planes.len(), planes[0].len() % 640), (1, 0));
                    assert!(frames.abs_diff((prompt_seconds * 50.0) as usize) <= 1, "{kind:?}: {frames}");
                }
            }
        }
    }

    #[test]
    fn a_bang_takes_the_first_seconds_and_a_continue_the_last() {
        let model = Standin::default().info().clone();
        let sound = ramp(32_000, 20 * 32_000, 1);
        let first = prompt(Kind::Bang, &sound, &Params::default(), &model).unwrap().planes.remove(0);
        let last = prompt(Kind::Continue, &sound, &Params::default(), &model).unwrap().planes.remove(0);
        assert_eq!(first, sound.pcm[..6 * 32_000]);
        assert_eq!(last, sound.pcm[14 * 32_000..]);
        // Too short: silence behind for one, nothing but the sound for the other.
        let short = ramp(32_000, 32_000 + 1, 1);
        let first = prompt(Kind::Bang, &short, &Params::default(), &model).unwrap().planes.remove(0);
        let last = prompt(Kind::Continue, &short, &Params::default(), &model).unwrap().planes.remove(0);
        assert!(first.len() == 6 * 32_000 && first[32_001..].iter().all(|&sample| sample == 0.0));
        assert!(last.len() == 51 * 640 && last[639..] == short.pcm[..]);
    }

    #[test]
    fn results_have_their_exact_lengths_and_channels() {
        for (rate, frames, channels) in [(44_100, 1_000_001, 1), (48_000, 480_000, 2), (22_050, 400_000, 1)] {
            let sound = ramp(rate, frames, channels);
            for prompt_seconds in [1.0, 6.0, 15.0] {
                let params = Params { prompt_seconds, ..Params::default() };
                let bang = result(Kind::Bang, Some(&sound), piece(0.1, 1), &params).unwrap();
                assert_eq!((bang.frames(), bang.channels, bang.rate.0), (30 * rate as usize, 1, rate));
                let joined = result(Kind::Continue, Some(&sound), piece(0.1, 1), &params).unwrap();
                let prompt = (prompt_seconds * f64::from(rate)) as usize;
                assert_eq!(joined.frames(), frames.saturating_sub(prompt) + 30 * rate as usize);
                assert_eq!(joined.channels, channels.max(2));
                // What lies before the prompt is untouched.
                let head = frames.saturating_sub(prompt) * joined.channels;
                let spread = if channels == 1 { sound.clone().spread(2) } else { sound.clone() };
                assert!(joined.pcm[..head] == spread.pcm[..head]);
                if head > 0 {
                    assert!((joined.pcm[head] - spread.pcm[head]).abs() < 0.01, "no step at the joint");
                }
            }
        }
    }

    #[test]
    fn a_header_does_not_say_how_large_a_result_is() {
        for (rate, channels, then) in [
            (384_000, 18, (96_000, 2)),
            (352_800, 3, (88_200, 2)),
            (192_000, 1, (96_000, 1)),
            (176_400, 2, (88_200, 2)),
            (100_001, 2, (48_000, 2)),
            (96_000, 2, (96_000, 2)),
            (44_100, 6, (44_100, 2)),
            (8_000, 1, (8_000, 1)),
        ] {
            let sound = usable(ramp(rate, rate as usize / 10, channels)).unwrap();
            assert_eq!((sound.rate.0, sound.channels), then);
            assert!((sound.seconds() - 0.1).abs() < 1e-3, "{rate}: {} s", sound.seconds());
        }
    }

    #[test]
    fn a_short_sound_leaves_nothing_before_the_piece_and_loud_ones_are_scaled() {
        let sound = ramp(32_000, 32_000, 2);
        let joined = result(Kind::Continue, Some(&sound), piece(2.0, 2), &Params::default()).unwrap();
        assert_eq!(joined.frames(), 960_000);
        assert_eq!(joined.pcm.iter().fold(0.0f32, |a, b| a.max(*b)), 1.0);
        let generated = result(Kind::Generate, None, piece(0.5, 2), &Params { seconds: 12.5, ..Params::default() });
        assert_eq!(generated.unwrap().frames(), 400_000);
    }
}
