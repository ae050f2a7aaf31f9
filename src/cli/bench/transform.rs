//! `bench transform` and `bench loop`: solver steps and codecs of the flow models, random weights
//! at published sizes.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use clap::Args;
use serde_json::json;

use super::{RandomModel, Row, SizeChoice, beside};
use crate::cli::Failure;
use crate::cli::load::{DeviceChoice, DtypeChoice};
use crate::model::melodyflow::{FlowConfig, MelodyFlow, Method, OdeSolver};
use crate::model::stable_audio::{Diffusion, Guidance, Sampler, StableAudio, StableConfig, schedule};
use crate::model::vae::seeded;
use crate::model::weights::Target;

#[derive(Args)]
pub(super) struct TransformArgs {
    #[command(flatten)]
    solver: SolverArgs,
    /// Live voices that play meanwhile: their gaps are counted during a whole transform
    /// of --seconds
    #[arg(long, default_value_t = 0)]
    voices: usize,
    /// Size of the voices' model
    #[arg(long, default_value = "tiny")]
    voice_size: SizeChoice,
    /// Number format of the voices' model
    #[arg(long, default_value = "auto")]
    voice_dtype: DtypeChoice,
    /// Seconds after which the transform need not be complete for the voices' sake
    #[arg(long, default_value_t = 3600.0)]
    patience: f64,
}

#[derive(Args)]
pub(super) struct SolverArgs {
    /// Where to compute
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Number format of the weights
    #[arg(long, default_value = "auto")]
    dtype: DtypeChoice,
    /// Seconds of sound per step; a loop always has its window
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Seconds of sound for the codec
    #[arg(long, default_value_t = 5.0)]
    codec_seconds: f64,
    /// Guided steps to measure, after one that is not
    #[arg(long, default_value_t = 2)]
    steps: usize,
}

impl SolverArgs {
    fn target(&self) -> Result<(Target, &'static str), Failure> {
        Ok(self.dtype.on(&self.device.open()?))
    }
}

/// One figure after another, and what they have in common.
struct Figures {
    dtype: &'static str,
    rows: Vec<Row>,
}

impl Figures {
    fn push(&mut self, what: &str, sound: f64, times: &[f64]) {
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        self.rows.push(vec![
            ("what", json!(what)),
            ("dtype", json!(self.dtype)),
            ("sound_seconds", json!(sound)),
            ("seconds", json!(best)),
            ("seconds_per_second_of_sound", json!(best / sound)),
            ("runs", json!(times.len())),
            ("peak_gb", json!(peak_gb())),
        ]);
    }
}

impl Figures {
    /// Measures an encoder that gives its means after its last step.
    fn encode(
        &mut self,
        sound: f64,
        mut step: impl FnMut() -> Result<Option<Tensor>, Failure>,
    ) -> Result<Tensor, Failure> {
        let begun = Instant::now();
        let mean = loop {
            if let Some(mean) = step()? {
                break mean;
            }
        };
        settle(&mean)?;
        self.push("encode", sound, &[begun.elapsed().as_secs_f64()]);
        Ok(mean)
    }

    /// Measures a decoder whose steps give a piece of sound or none yet, until there are no more.
    fn decode(
        &mut self,
        sound: f64,
        mut step: impl FnMut() -> Result<Option<Option<Tensor>>, Failure>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        while let Some(piece) = step()? {
            piece.as_ref().map_or(Ok(()), settle)?;
        }
        self.push("decode", sound, &[begun.elapsed().as_secs_f64()]);
        Ok(())
    }
}

/// The most memory that this process has had, from Linux's `/proc`.
fn peak_gb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1e6)
}

/// A tensor on a GPU is there only once somebody has looked at it.
fn settle(x: &Tensor) -> Result<(), Failure> {
    x.flatten_all()?.narrow(0, 0, 1)?.to_vec1::<f32>()?;
    Ok(())
}

pub(super) fn transform(options: &TransformArgs) -> Result<Vec<Row>, Failure> {
    let args = &options.solver;
    let (target, dtype) = args.target()?;
    let model = MelodyFlow::random(FlowConfig::published(), 0, &target)?;
    if options.voices > 0 {
        let voices = RandomModel {
            size: options.voice_size,
            device: args.device,
            dtype: options.voice_dtype,
            kernels: super::KernelsChoice::Own,
        };
        return Ok(vec![beside::run(&voices, options.voices, model, (args.seconds, options.patience))?]);
    }
    let rate = f64::from(model.config.codec.sample_rate);
    let frames = ((args.seconds * model.config.frame_rate()) as usize).clamp(1, model.config.most_frames());
    let sound = frames as f64 / model.config.frame_rate();
    let mut figures = Figures { dtype, rows: Vec::new() };
    let states = Tensor::randn(0f32, 1.0, (32, model.config.width), &target.device)?;
    let text = vec![Some(model.transformer.prepare(&states)?)];
    let noise = Tensor::randn(0f32, 1.0, (1, model.config.latents, frames), &target.device)?;
    let mut walk = OdeSolver::generation(&model, &text, 0.0, noise, (Method::Euler, args.steps + 1))?;
    let mut times = Vec::new();
    while !walk.progress().is_complete() {
        let (begun, before) = (Instant::now(), walk.progress());
        while walk.progress() == before {
            walk.step()?;
        }
        settle(walk.latents())?;
        times.push(begun.elapsed().as_secs_f64());
    }
    figures.push("guided step", sound, times.get(1..).unwrap_or_default());

    let samples = (args.codec_seconds * rate) as usize;
    let wave = Tensor::randn(0f32, 0.1, (samples, model.config.codec.channels), &target.device)?;
    let mut encoding = model.encoding(wave);
    let mean = figures.encode(samples as f64 / rate, || Ok(encoding.step()?.map(|(mean, _)| mean)))?;
    let mut decoding = model.decoding(&mean)?;
    figures.decode(samples as f64 / rate, || match decoding.is_complete() {
        true => Ok(None),
        false => Ok(Some(decoding.step()?)),
    })?;
    Ok(figures.rows)
}

pub(super) fn make_loop(args: &SolverArgs) -> Result<Vec<Row>, Failure> {
    let (target, dtype) = args.target()?;
    let model: Arc<StableAudio> = StableAudio::random(StableConfig::published(), 0, &target)?;
    let mut figures = Figures { dtype, rows: Vec::new() };
    let window = model.config.seconds();
    let conditions = model.conditioner.conditions("warm pads 120bpm", &[("seconds_total", 11.0)])?;
    let (row, nothing) = (model.prepare(&conditions)?, model.prepare(&conditions.nothing()?)?);
    for (what, rows, scale) in [("step", vec![row.clone()], 1.0), ("guided step", vec![row, nothing], 6.0)] {
        let noise = Tensor::zeros((1, model.config.latents, model.config.frames()), DType::F32, &target.device)?;
        let way = (Sampler::PingPong, schedule(1.0, args.steps + 1));
        let draws = seeded(1, &target.device);
        let mut diffusion = Diffusion::new(&model, rows, Guidance::plain(scale), way, noise, draws)?;
        let mut times = Vec::new();
        while !diffusion.is_complete() {
            let (begun, before) = (Instant::now(), diffusion.progress());
            while diffusion.progress() == before {
                diffusion.step(&mut |_, _| {})?;
            }
            settle(diffusion.latents())?;
            times.push(begun.elapsed().as_secs_f64());
        }
        figures.push(what, window, times.get(1..).unwrap_or_default());
    }
    let rate = f64::from(model.config.sample_rate);
    let samples = (((args.codec_seconds * rate) as usize).min(model.config.window) / model.config.hop()).max(1)
        * model.config.hop();
    let wave = Tensor::randn(0f32, 0.1, (samples, model.config.channels), &target.device)?;
    let mut encoding = model.encoding(wave);
    let mean = figures.encode(samples as f64 / rate, || Ok(encoding.step()?.map(|(mean, _)| mean)))?;
    let mut decoding = model.decoding(&mean)?;
    figures.decode(samples as f64 / rate, || match decoding.is_complete() {
        true => Ok(None),
        false => Ok(Some(decoding.step()?)),
    })?;
    Ok(figures.rows)
}
