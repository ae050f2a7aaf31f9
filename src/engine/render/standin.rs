//! What tests render with: models of random weights, small enough that a transform takes a moment,
//! and tones without any weights.

use std::sync::Arc;

use candle_core::Device;

use super::super::{DeviceKind, Job, Step};
use super::{RenderBackend, RenderInfo, RenderJob, RenderModel, RenderSpec, Shape};
use crate::bars::bar_seconds;
use crate::model::melodyflow::{FlowConfig, MelodyFlow};
use crate::model::stable_audio::{DitConfig, OobleckConfig, StableAudio, StableConfig};
use crate::model::weights::Target;
use crate::pcm::Pcm;
use crate::units::SampleRate;

/// Samples per second of [`transformer`].
pub const TRANSFORM_RATE: u32 = 1920 * 4;

/// A window of three seconds.
///
/// # Errors
/// When memory is short.
pub fn transformer() -> Result<RenderModel, String> {
    let published = FlowConfig::published();
    let mut codec = published.codec.clone();
    (codec.dim, codec.filters, codec.sample_rate) = (4, 2, TRANSFORM_RATE);
    let config = FlowConfig { width: 16, heads: 2, layers: 4, ffn: 32, latents: 4, seconds: 3.0, codec, ..published };
    let model = MelodyFlow::random(config, 3, &Target::new(&Device::Cpu)).map_err(|error| error.to_string())?;
    Ok(model)
}

/// A window of 8.192 seconds at so many samples per second.
///
/// # Errors
/// When memory is short.
pub fn looper(sample_rate: u32) -> Result<RenderModel, String> {
    let dit = DitConfig {
        width: 64,
        depth: 1,
        heads: 2,
        cond_width: 8,
        global_width: 8,
        project_cond: true,
        head_norm: true,
    };
    let vae = OobleckConfig { channels: 2, multiples: vec![1, 2], strides: vec![2, 4], tanh: false };
    let published = StableConfig::published();
    let window = sample_rate as usize * 8192 / 1000;
    let config = StableConfig { sample_rate, window, latents: 4, cond_width: 8, tokens: 4, dit, vae, ..published };
    let model = StableAudio::random(config, 3, &Target::new(&Device::Cpu)).map_err(|error| error.to_string())?;
    Ok(model)
}

/// A model without weights: tones, as long as they are asked for, made in the steps that are asked
/// for. What a request says decides the sound.
pub struct Tones(RenderInfo);

impl Tones {
    /// Mono at so many samples per second, with a window of so many seconds.
    pub fn model(rate: u32, seconds: usize) -> RenderModel {
        let window = rate as usize * seconds;
        let (rate, device) = (SampleRate(rate), DeviceKind::Cpu);
        Arc::new(Self(RenderInfo { rate, channels: 1, window, objective: "tones", steps: 4, device }))
    }
}

impl RenderBackend for Tones {
    fn info(&self) -> RenderInfo {
        self.0.clone()
    }

    fn check(&self, spec: &RenderSpec) -> Result<(), String> {
        match spec {
            RenderSpec::Transform(spec) => spec.settings.check().map_err(|text| text.trim_end_matches('.').to_owned()),
            RenderSpec::Loop(spec, _) => self.0.fits(spec.shape),
        }
    }

    fn begin(self: Arc<Self>, spec: RenderSpec, given: Option<Vec<f32>>) -> Result<RenderJob, String> {
        self.check(&spec)?;
        let frames = |seconds: f64| (seconds * f64::from(self.0.rate.0)) as usize;
        let (frames, steps, seed) = match &spec {
            RenderSpec::Transform(spec) => match given {
                Some(pcm) if !pcm.is_empty() => (pcm.len(), spec.settings.steps, spec.seed),
                _ => return Err("the recording has no sound in it".into()),
            },
            RenderSpec::Loop(spec, settings) => {
                let frames = match spec.shape {
                    Shape::Loop { bpm, bars } => frames(bar_seconds(bpm) * f64::from(bars)),
                    Shape::First(seconds) => frames(seconds).min(self.0.window),
                    Shape::Window => self.0.window,
                };
                (frames, settings.steps.unwrap_or(self.0.steps), spec.seed)
            }
        };
        let pitch = 0.01 + (seed % 100) as f32 * 0.001;
        let pcm = (0..frames).map(|frame| (frame as f32 * pitch).sin() * 0.3).collect();
        Ok(Box::new(Tone { pcm: Pcm { pcm, channels: 1, rate: self.0.rate }, done: 0, steps }))
    }
}

struct Tone {
    pcm: Pcm,
    done: usize,
    steps: usize,
}

impl Job for Tone {
    type Output = Pcm;

    fn step(&mut self) -> Result<Step<Pcm>, String> {
        self.done += 1;
        if self.done <= self.steps {
            return Ok(Step::Working(self.done, self.steps));
        }
        let (channels, rate) = (self.pcm.channels, self.pcm.rate);
        Ok(Step::Done(Pcm { pcm: std::mem::take(&mut self.pcm.pcm), channels, rate }))
    }
}
