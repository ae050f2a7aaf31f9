//! Which number format and window a machine without a GPU makes a model in real time with:
//! measured, not guessed.
//!
//! A few layers of random weights at the model's sizes make steps and prefill passes for a moment
//! each; the rest of the model takes as long per layer. What a second of music costs is then known
//! for any window: a step per frame, the kept part of the window read again once per window, and
//! the codec.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

use crate::model::{
    MusicGen, Result,
    config::Config,
    decoder::{CrossShare, Token},
    kernels::{Probe, WeightFormat},
    weights::Target,
};

/// Formats, the exactest first.
pub const FORMATS: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8, WeightFormat::Q4];
/// What is aimed at: real time, and something over for the rest of the machine.
const ENOUGH: f64 = 1.15;
/// The shorter window that is tried.
const SHORT_SECONDS: f64 = 10.0;
/// Weights of decoders that are fast anywhere.
const LIGHT: usize = 16 << 20;
/// Weights that the measured layers have at least, so that threads wait for each other as often as
/// in a whole step.
const SAMPLE: usize = 32 << 20;
/// Bytes that are read between two measurements: more than caches hold, which otherwise would still
/// have the sample.
const FLUSH: usize = 96 << 20;
/// Time per figure.
const MOMENT: Duration = Duration::from_millis(120);

/// What is to be found out; a given part is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct FitConstraints {
    /// Number format of the decoder.
    pub format: Option<WeightFormat>,
    /// Seconds of the window.
    pub window: Option<f64>,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Number format of the decoder.
    pub format: WeightFormat,
    /// Frames of the window.
    pub window: usize,
    /// Seconds of music per second for one voice with guidance; none if nothing had to be measured.
    pub realtime: Option<f64>,
}

/// What one format costs, in seconds.
#[derive(Debug, Clone, Copy)]
struct CostModel {
    /// A step with nothing behind it.
    step: f64,
    /// What every position behind it adds.
    position: f64,
    /// One position of a prefill pass, both rows.
    prefill: f64,
    /// The codec, per frame.
    codec: f64,
}

impl CostModel {
    /// Seconds of music per second with a window of `window` frames, of which `keep` are read again
    /// when it is full.
    fn realtime(&self, window: usize, keep: usize, frame_rate: f64) -> f64 {
        let between = (window - keep) as f64;
        let middle = (window + keep) as f64 / 2.0;
        let frame = self.step + self.position * middle + self.codec + self.prefill * keep as f64 / between;
        1.0 / (frame * frame_rate)
    }
}

/// Finds a format and a window for a model on the CPU. Measures for about two seconds if the
/// constraints leave anything open and the model is not a small one.
///
/// # Errors
/// When memory is short.
pub fn fit(config: &Config, constraints: FitConstraints) -> Result<Fit> {
    let rate = frame_rate(config);
    let full = config.generation.window;
    let window = constraints.window.map_or(full, |seconds| ((seconds * rate) as usize).min(full));
    let given = Fit { format: constraints.format.unwrap_or_default(), window, realtime: None };
    if (constraints.format.is_some() && constraints.window.is_some())
        || layer_weights(config) * config.decoder.layers < LIGHT
    {
        return Ok(given);
    }
    let short = ((SHORT_SECONDS * rate) as usize).min(full);
    choose(config, constraints, if constraints.window.is_some() { [window; 2] } else { [full, short] }, &|format| {
        measure(config, format)
    })
}

/// Shortens a model's window to `frames`, if it is longer.
pub fn shorten(config: &mut Config, frames: usize) {
    let generation = &mut config.generation;
    let window = frames.min(generation.window);
    generation.keep = kept(generation.keep, generation.window, window);
    generation.window = window;
}

/// The part of a shorter window that is kept: the same share as of the whole one.
fn kept(keep: usize, full: usize, window: usize) -> usize {
    if window < full { keep * window / full } else { keep }
}

/// The first that is enough: exact formats before the shorter window, the shorter window before
/// four bits.
fn choose(
    config: &Config,
    constraints: FitConstraints,
    [full, short]: [usize; 2],
    measure: &dyn Fn(WeightFormat) -> Result<CostModel>,
) -> Result<Fit> {
    let formats: Vec<WeightFormat> = constraints.format.map_or_else(|| FORMATS.to_vec(), |format| vec![format]);
    let mut costs: Vec<(WeightFormat, CostModel)> = Vec::new();
    let mut best: Option<Fit> = None;
    let whole = formats.iter().filter(|format| **format != WeightFormat::Q4).map(|format| (*format, full));
    let shorter = formats.iter().filter(|format| **format == WeightFormat::Q8).map(|format| (*format, short));
    let rest = formats.iter().flat_map(|format| [(*format, full), (*format, short)]);
    for (format, window) in whole.chain(shorter).chain(rest) {
        let known = costs.iter().find(|(other, _)| *other == format).map(|(_, cost)| *cost);
        let cost = match known {
            Some(cost) => cost,
            None => {
                let cost = measure(format)?;
                costs.push((format, cost));
                cost
            }
        };
        let generation = &config.generation;
        let realtime = cost.realtime(window, kept(generation.keep, generation.window, window), frame_rate(config));
        let found = Fit { format, window, realtime: Some(realtime) };
        if realtime >= ENOUGH {
            return Ok(found);
        }
        if best.is_none_or(|best| best.realtime < found.realtime) {
            best = Some(found);
        }
    }
    Ok(best.unwrap_or(Fit { format: WeightFormat::F32, window: full, realtime: None }))
}

/// Frames a second.
pub fn frame_rate(config: &Config) -> f64 {
    f64::from(config.codec.sample_rate) / config.codec.hop() as f64
}

/// Weights of a decoder layer that a step reads.
fn layer_weights(config: &Config) -> usize {
    let decoder = &config.decoder;
    decoder.hidden * (6 * decoder.hidden + 2 * decoder.ffn)
}

fn measure(config: &Config, format: WeightFormat) -> Result<CostModel> {
    let layers = SAMPLE.div_ceil(layer_weights(config)).clamp(1, config.decoder.layers);
    let mut part = config.clone();
    part.decoder.layers = layers;
    let model = MusicGen::random(part, 0, &Target { format, ..Target::new(&Device::Cpu) })?;
    let decoder = &model.decoder;
    let cross =
        [CrossShare { prompt: decoder.prepare(&model.made_up_states("a text of some words")?, 0)?, share: 1.0 }];
    let far = 512.min(config.generation.window - 1);
    let mut cache = decoder.cache(2, far + 1)?;
    let ids = vec![0; config.decoder.codebooks];
    let token = |row: usize, position: usize, logits: bool| Token {
        row,
        position,
        ids: &ids,
        cross: if row == 0 { &cross } else { &[] },
        logits,
    };
    let flush = Probe::new(FLUSH).map_err(candle_core::Error::from)?;
    let mut timed =
        |tokens: &[Token<'_>]| -> Result<f64> { median(&flush, || decoder.forward(&mut cache, tokens).map(drop)) };
    let near = timed(&[token(0, 0, true), token(1, 0, true)])?;
    let chunk = 32.min(far);
    let pass: Vec<Token<'_>> = (0..2 * chunk).map(|index| token(index % 2, index / 2, false)).collect();
    let prefill = timed(&pass)? / chunk as f64;
    let step = timed(&[token(0, far, true), token(1, far, true)])?;
    let frames = 8;
    let codes = Tensor::zeros((1, frames, config.codec.codebooks), candle_core::DType::U32, &Device::Cpu)?;
    let mut state = model.codec.decoder.start();
    let codec = median(&flush, || model.codec.push(&mut state, &codes, false).map(drop))? / frames as f64;
    // The heads are measured once with the layers; they are a part of every layer's share, which
    // errs to the safe side.
    let whole = config.decoder.layers as f64 / layers as f64;
    let position = (step - near).max(0.0) / far as f64 * whole;
    Ok(CostModel { step: near * whole, position, prefill: prefill * whole, codec })
}

/// The median of the times that something takes whose memory is in no cache, in seconds.
fn median(flush: &Probe, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || begun.elapsed() < MOMENT {
        flush.pass();
        let timer = Instant::now();
        f()?;
        times.push(timer.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn config(hidden: usize, layers: usize) -> Config {
        let config = json!({
            "model_type": "musicgen",
            "decoder": {
                "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4, "ffn_dim": 4 * hidden,
                "num_codebooks": 4, "vocab_size": 64, "audio_channels": 1, "activation_function": "gelu",
            },
            "audio_encoder": {
                "model_type": "encodec", "sampling_rate": 32_000, "audio_channels": 1, "hidden_size": 16,
                "codebook_dim": 16, "codebook_size": 64, "num_filters": 4, "num_residual_layers": 1,
                "upsampling_ratios": [8, 5, 4, 4], "kernel_size": 7, "residual_kernel_size": 3, "last_kernel_size": 7,
                "dilation_growth_rate": 2, "compress": 2, "num_lstm_layers": 2, "pad_mode": "reflect",
                "norm_type": "weight_norm", "use_conv_shortcut": false, "use_causal_conv": false, "normalize": false,
                "trim_right_ratio": 1.0, "target_bandwidths": [2.2],
            },
            "text_encoder": {
                "model_type": "t5", "vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1,
                "num_heads": 4, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
                "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6, "initializer_factor": 1.0,
                "feed_forward_proj": "relu", "is_decoder": false, "is_encoder_decoder": false, "use_cache": false,
                "pad_token_id": 0, "eos_token_id": 1,
            },
        });
        Config::from_hf(&config, &json!({ "max_length": 1500 })).unwrap()
    }

    /// What `choose` finds where a step with f32 takes `f32` seconds and positions cost nothing, or
    /// as much again by `far` of them.
    fn found(step: f64, far: f64, constraints: FitConstraints) -> (WeightFormat, usize) {
        let config = config(64, 2);
        let share = |format| {
            [(WeightFormat::F32, 1.0), (WeightFormat::Bf16, 0.5), (WeightFormat::Q8, 0.25), (WeightFormat::Q4, 0.125)]
                .iter()
                .find(|(other, _)| *other == format)
                .unwrap()
                .1
        };
        let measure = |format| Ok(CostModel { step: step * share(format), position: far, prefill: 0.0, codec: 0.0 });
        let fit = choose(&config, constraints, [1500, 500], &measure).unwrap();
        (fit.format, fit.window)
    }

    #[test]
    fn the_exactest_format_that_is_fast_enough_is_taken() {
        let open = FitConstraints::default();
        assert_eq!(found(0.010, 0.0, open), (WeightFormat::F32, 1500));
        assert_eq!(found(0.030, 0.0, open), (WeightFormat::Bf16, 1500));
        assert_eq!(found(0.060, 0.0, open), (WeightFormat::Q8, 1500));
        assert_eq!(found(0.130, 0.0, open), (WeightFormat::Q4, 1500));
        // Attention is what is slow: a shorter window is better than four bits.
        assert_eq!(found(0.016, 14e-6, open), (WeightFormat::Q8, 500));
        // Nothing is enough: the fastest.
        assert_eq!(found(9.0, 0.0, open).0, WeightFormat::Q4);
        assert_eq!(
            found(9.0, 1e-3, FitConstraints { format: Some(WeightFormat::Bf16), window: None }),
            (WeightFormat::Bf16, 500)
        );
    }

    #[test]
    fn small_models_and_full_wishes_are_not_measured() {
        let small = fit(&config(64, 2), FitConstraints::default()).unwrap();
        assert_eq!(small, Fit { format: WeightFormat::F32, window: 1500, realtime: None });
        let constraints = FitConstraints { format: Some(WeightFormat::Q8), window: Some(8.0) };
        assert_eq!(
            fit(&config(512, 60), constraints).unwrap(),
            Fit { format: WeightFormat::Q8, window: 400, realtime: None }
        );
        let mut short = config(64, 2);
        shorten(&mut short, 500);
        assert_eq!((short.generation.window, short.generation.keep), (500, 200));
    }

    #[test]
    fn a_large_model_is_measured() {
        let fit = fit(&config(512, 12), FitConstraints { format: None, window: Some(2.0) }).unwrap();
        assert!(fit.realtime.is_some_and(|realtime| realtime > 0.0) && fit.window == 100);
    }
}
