//! `bench step`: one decoder pass for a batch, at a given depth of the window.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{RandomModel, Row, quantile};
use crate::cli::Failure;
use crate::engine::{Backend, Blend, Prefill, Slot, StepRow};

#[derive(Args)]
pub(super) struct StepArgs {
    #[command(flatten)]
    model: RandomModel,
    /// Rows of the batch: two per voice with guidance
    #[arg(long, value_delimiter = ',', default_value = "2,8,32")]
    rows: Vec<usize>,
    /// Position in the window at which steps are made
    #[arg(long, default_value_t = 256)]
    position: usize,
    /// Seconds to measure per batch size
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

pub(super) fn run(args: &StepArgs) -> Result<Vec<Row>, Failure> {
    if args.rows.iter().any(|&rows| rows == 0 || rows % 2 != 0) {
        return Err(Failure("--rows takes even numbers: a voice with guidance has two rows.".into()));
    }
    let (mut model, dtype, weights) = args.model.build()?;
    let info = model.info().clone();
    if args.rows.iter().any(|&rows| rows / 2 > model.slots()) {
        return Err(Failure(format!("--rows may be {} at most in the memory set aside.", 2 * model.slots())));
    }
    if args.position + 1 >= info.window {
        return Err(Failure(format!("--position must be below {}.", info.window - 1)));
    }
    let text = "a prompt of ordinary length, with a few instruments";
    let condition = model.conditioner().condition(text).map_err(|fault| Failure(fault.0))?;
    let blend = [Blend { condition, share: 1.0 }];
    let mut results = Vec::new();
    for &rows in &args.rows {
        let voices = rows / 2;
        let history: Vec<u32> = (0..args.position * info.codebooks).map(|i| (i as u32 * 7919) % info.card).collect();
        for voice in 0..voices {
            let slot = Slot(voice);
            let job = Prefill { slot, position: 0, ids: &history, blend: &blend, guidance: 3.0 };
            model.prefill(&job).map_err(|lost| Failure(lost.0))?.map_err(|fault| Failure(fault.0))?;
        }
        let ids = vec![1; info.codebooks];
        let begun = Instant::now();
        let mut times: Vec<Duration> = Vec::new();
        while times.len() < 3 || begun.elapsed().as_secs_f64() < args.seconds {
            let draw = times.len() as u64;
            let batch: Vec<StepRow<'_>> = (0..voices)
                .map(|voice| StepRow {
                    slot: Slot(voice),
                    position: args.position,
                    ids: &ids,
                    blend: &blend,
                    sampling: info.sampling,
                    draw,
                })
                .collect();
            let timer = Instant::now();
            model.step(&batch).map_err(|lost| Failure(lost.0))?;
            times.push(timer.elapsed());
        }
        let per_second = times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
        results.push(vec![
            ("dtype", json!(dtype)),
            ("rows", json!(rows)),
            ("position", json!(args.position)),
            ("steps_per_second", json!(per_second)),
            ("realtime", json!(per_second / info.frame_rate())),
            ("voices_per_second_of_sound", json!(voices as f64 * per_second / info.frame_rate())),
            ("step_p50_ms", json!(1000.0 * quantile(&times, 0.5))),
            ("step_p99_ms", json!(1000.0 * quantile(&times, 0.99))),
            ("weights_gb_per_second", json!(weights as f64 * per_second / 1e9)),
        ]);
    }
    Ok(results)
}
