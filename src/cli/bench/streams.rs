//! `bench streams`: how many endless streams a machine makes at once.
//!
//! Voices stand at all positions between the kept part and the end of the window, as they do when
//! they began at different times. What a frame costs is a step, its share of the codec, and its
//! share of the passes that read a full window again. The number of voices is doubled, then
//! bisected, until the slowest steps or the sum no longer fit.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{RandomModel, Row, first_sound, quantile};
use crate::cli::Failure;
use crate::engine::{
    Backend, Blend, CodecState, Decode, Engine, EngineConfig, MusicGenBackend, Prefill, Slot, StepRow, frame_rate,
    shorten,
};
use crate::units::ModelId;

/// Columns of a prefill pass, as the engine makes them while others wait.
const PREFILL: usize = 32;
/// Frames of a codec pass.
const FRAMES: usize = 10;

#[derive(Args)]
pub(super) struct StreamsArgs {
    #[command(flatten)]
    model: RandomModel,
    /// Windows in seconds
    #[arg(long, value_delimiter = ',', default_value = "10,30")]
    windows: Vec<f64>,
    /// The 99th percentile of a step may take so many milliseconds; by default the length of a
    /// frame
    #[arg(long)]
    limit_ms: Option<f64>,
    /// Voices at most
    #[arg(long, default_value_t = 256)]
    most: usize,
    /// Gigabytes for keys and values
    #[arg(long, default_value_t = 4.0)]
    kv_memory: f64,
    /// Seconds to measure per number of voices
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Requests for a first sound beside half as many streams as are possible; 0 for none
    #[arg(long, default_value_t = 20)]
    requests: usize,
}

/// What a number of voices costs, in seconds.
struct Load {
    steps: Vec<Duration>,
    codec: f64,
    prefill: f64,
    frame: f64,
}

impl Load {
    /// The share of the time that is spent, 1 being all.
    fn share(&self) -> f64 {
        (quantile(&self.steps, 0.5) + self.codec + self.prefill) / self.frame
    }
}

pub(super) fn run(args: &StreamsArgs) -> Result<Vec<Row>, Failure> {
    let mut results = Vec::new();
    for &seconds in &args.windows {
        let open = || -> Result<(MusicGenBackend, &'static str), Failure> {
            let (mut model, dtype) = args.model.model()?;
            let frames = (seconds.max(1.0) * frame_rate(&model.config)) as usize;
            shorten(&mut model.config, frames);
            let memory = (args.kv_memory * 1e9) as usize;
            Ok((MusicGenBackend::new(ModelId("random".into()), model, memory)?, dtype))
        };
        let (mut model, dtype) = open()?;
        let most = args.most.min(model.slots());
        let limit = args.limit_ms.map_or(1.0 / model.info().frame_rate(), |ms| ms / 1000.0);
        let fits = |load: &Load| quantile(&load.steps, 0.99) <= limit && load.share() <= 1.0;
        let (mut good, mut bad, mut voices) = (None, most + 1, 1);
        while voices < bad {
            let load = measure(&mut model, voices, args.seconds)?;
            if fits(&load) {
                good = Some((voices, load));
                voices = (2 * voices).min(if bad > most { most } else { (voices + bad) / 2 });
                if good.as_ref().is_some_and(|(good, _)| *good == voices) {
                    break;
                }
            } else {
                bad = voices;
                let low = good.as_ref().map_or(0, |(good, _)| *good);
                voices = (low + bad) / 2;
                if voices <= low {
                    break;
                }
            }
        }
        let Some((voices, load)) = good else {
            results.push(vec![("dtype", json!(dtype)), ("window_s", json!(seconds)), ("voices", json!(0))]);
            continue;
        };
        let mut row = vec![
            ("dtype", json!(dtype)),
            ("window_s", json!(seconds)),
            ("voices", json!(voices)),
            ("slots", json!(model.slots())),
            ("step_p50_ms", json!(1000.0 * quantile(&load.steps, 0.5))),
            ("step_p99_ms", json!(1000.0 * quantile(&load.steps, 0.99))),
            ("codec_ms_per_frame", json!(1000.0 * load.codec)),
            ("prefill_ms_per_frame", json!(1000.0 * load.prefill)),
            ("share_of_time", json!(load.share())),
        ];
        drop(model);
        if args.requests > 0 {
            let engine = Engine::start(Box::new(open()?.0), EngineConfig::default())?;
            let times = first_sound::measure(&engine, &[voices / 2], args.requests)?.remove(0);
            row.push(("first_sound_busy", json!(voices / 2)));
            row.push(("first_sound_p50_ms", json!(1000.0 * quantile(&times, 0.5))));
            row.push(("first_sound_p99_ms", json!(1000.0 * quantile(&times, 0.99))));
        }
        results.push(row);
    }
    Ok(results)
}

fn measure(model: &mut MusicGenBackend, voices: usize, seconds: f64) -> Result<Load, Failure> {
    let info = model.info().clone();
    let text = "a prompt of ordinary length, with a few instruments";
    let condition = model.conditioner().condition(text).map_err(|fault| Failure(fault.0))?;
    let blend = [Blend { condition, share: 1.0 }];
    let (low, high) = (info.keep, info.window - 1);
    let position = |voice: usize| low + (high - low) * voice / voices;
    let history: Vec<u32> = (0..info.window * info.codebooks).map(|i| (i as u32 * 7919) % info.card).collect();
    let (mut prefilled, mut columns) = (Duration::ZERO, 0);
    for voice in 0..voices {
        for start in (0..position(voice)).step_by(PREFILL) {
            let end = position(voice).min(start + PREFILL);
            let ids = &history[start * info.codebooks..end * info.codebooks];
            let timer = Instant::now();
            let job = Prefill { slot: Slot(voice), position: start, ids, blend: &blend, guidance: 3.0 };
            model.prefill(&job).map_err(|lost| Failure(lost.0))?.map_err(|fault| Failure(fault.0))?;
            prefilled += timer.elapsed();
            columns += end - start;
        }
    }
    let ids = vec![1; info.codebooks];
    let mut steps = Vec::new();
    let begun = Instant::now();
    while steps.len() < 20 || begun.elapsed().as_secs_f64() < seconds {
        let draw = steps.len() as u64;
        let step = |voice| StepRow {
            slot: Slot(voice),
            position: position(voice),
            ids: &ids,
            blend: &blend,
            sampling: info.sampling,
            draw,
        };
        let batch: Vec<StepRow<'_>> = (0..voices).map(step).collect();
        let timer = Instant::now();
        model.step(&batch).map_err(|lost| Failure(lost.0))?;
        steps.push(timer.elapsed());
    }
    // The first steps put texts together and warm up.
    steps.drain(..5);
    let codes = vec![3u32; FRAMES * info.codebooks];
    let mut states: Vec<Box<dyn CodecState>> = (0..voices).map(|_| model.codec_state()).collect();
    let mut codec = Vec::new();
    for _ in 0..4 {
        let timer = Instant::now();
        let mut jobs: Vec<Decode<'_>> =
            states.iter_mut().map(|state| Decode { state: state.as_mut(), codes: &codes, last: false }).collect();
        model.decode(&mut jobs).map_err(|lost| Failure(lost.0))?;
        codec.push(timer.elapsed());
    }
    let reread = low as f64 / (high - low) as f64 * voices as f64;
    Ok(Load {
        steps,
        codec: quantile(&codec[1..], 0.5) / FRAMES as f64,
        prefill: prefilled.as_secs_f64() / columns.max(1) as f64 * reread,
        frame: 1.0 / info.frame_rate(),
    })
}
