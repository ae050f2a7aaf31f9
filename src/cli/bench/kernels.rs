//! `bench kernels` and `bench bandwidth`: where the time of a decoder step goes, and how fast
//! memory could be read.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use super::{RandomModel, Row, quantile};
use crate::cli::Failure;
use crate::model::{
    decoder::{CrossShare, Decoder, Part, Token},
    kernels::Probe,
};

#[derive(Args)]
pub(super) struct KernelsArgs {
    #[command(flatten)]
    model: RandomModel,
    /// Rows of the batch, every second one with a text
    #[arg(long, default_value_t = 2)]
    rows: usize,
    /// Position in the window at which steps are made
    #[arg(long, default_value_t = 256)]
    position: usize,
    /// Seconds to measure for
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Args)]
pub(super) struct BandwidthArgs {
    /// Megabytes to read; well above the caches
    #[arg(long, default_value_t = 1024)]
    megabytes: usize,
    #[command(flatten)]
    step: KernelsArgs,
}

/// Positions of a window of 30 s.
const WINDOW: usize = 1500;

/// Time per step of every part, over all layers.
type Times = BTreeMap<Part, Duration>;

/// Steps on an otherwise empty pool: times per part and of whole steps. `between` is called before
/// every few steps.
fn measure(
    decoder: &Decoder,
    args: &KernelsArgs,
    states: &candle_core::Tensor,
    mut between: impl FnMut(),
) -> Result<(Times, Vec<Duration>), Failure> {
    let prompt = decoder.prepare(states, 0)?;
    let cross = [CrossShare { prompt, share: 1.0 }];
    // The usual window: keys and values lie in pages as large as a server's.
    let mut cache = decoder.cache(args.rows, WINDOW.max(args.position + 1))?;
    let ids = vec![1; decoder.config().codebooks];
    let token = |row: usize, position: usize| Token {
        row,
        position,
        ids: &ids,
        cross: if row.is_multiple_of(2) { &cross } else { &[] },
        logits: position == args.position,
    };
    for row in 0..args.rows {
        let history: Vec<Token<'_>> = (0..args.position).map(|position| token(row, position)).collect();
        decoder.forward(&mut cache, &history)?;
    }
    let step: Vec<Token<'_>> = (0..args.rows).map(|row| token(row, args.position)).collect();
    let (mut parts, mut steps) = (Times::new(), Vec::new());
    let begun = Instant::now();
    while steps.len() < 5 || begun.elapsed().as_secs_f64() < args.seconds {
        if steps.len() % 4 == 0 {
            between();
        }
        let start = Instant::now();
        let mut last = start;
        let logits = decoder.forward_with(&mut cache, &step, &mut |part, _, _| {
            let now = Instant::now();
            *parts.entry(part).or_default() += now - last;
            last = now;
        })?;
        black_box(logits.to_device(&candle_core::Device::Cpu)?);
        steps.push(start.elapsed());
    }
    Ok((parts, steps))
}

pub(super) fn run(args: &KernelsArgs) -> Result<Vec<Row>, Failure> {
    if args.rows == 0 {
        return Err(Failure("--rows must be 1 at least.".into()));
    }
    let (model, dtype) = args.model.model()?;
    let decoder = &model.decoder;
    let (parts, steps) =
        measure(decoder, args, &model.made_up_states("a prompt of ordinary length, with a few words")?, || {})?;
    let total: Duration = steps.iter().sum();
    let per_step = |time: Duration| time.as_secs_f64() / steps.len() as f64;
    let mut rows: Vec<Row> = parts
        .iter()
        .map(|(part, time)| {
            let seconds = per_step(*time);
            let bytes = decoder.part_bytes(*part, args.rows, args.position + 1);
            vec![
                ("part", json!(format!("{part:?}"))),
                ("ms_per_step", json!(1000.0 * seconds)),
                ("percent", json!(100.0 * time.as_secs_f64() / total.as_secs_f64())),
                ("gb_per_second", json!(bytes as f64 / seconds / 1e9)),
            ]
        })
        .collect();
    let bytes = bytes(decoder, args);
    rows.push(vec![
        ("dtype", json!(dtype)),
        ("rows", json!(args.rows)),
        ("position", json!(args.position)),
        ("step_ms", json!(1000.0 * per_step(total))),
        ("step_p50_ms", json!(1000.0 * quantile(&steps, 0.5))),
        ("megabytes_per_step", json!(bytes as f64 / 1e6)),
        ("gb_per_second", json!(bytes as f64 / per_step(total) / 1e9)),
    ]);
    Ok(rows)
}

/// Weights, keys and values that one step reads.
fn bytes(decoder: &Decoder, args: &KernelsArgs) -> usize {
    let parts =
        [Part::Qkv, Part::Attend, Part::SelfOut, Part::CrossQuery, Part::CrossOut, Part::Fc1, Part::Fc2, Part::Heads];
    parts.iter().map(|part| decoder.part_bytes(*part, args.rows, args.position + 1)).sum()
}

pub(super) fn bandwidth(args: &BandwidthArgs) -> Result<Vec<Row>, Failure> {
    let probe = Probe::new(args.megabytes.max(1) << 20).map_err(|error| {
        Failure(format!("{} MB cannot be had ({error}); choose fewer --megabytes.", args.megabytes))
    })?;
    let (model, dtype) = args.step.model.model()?;
    let states = model.made_up_states("a prompt of ordinary length, with a few words")?;
    // In turns: what other tenants of the machine leave of its memory changes from second to
    // second.
    let mut passes = Vec::new();
    let (_, steps) = measure(&model.decoder, &args.step, &states, || {
        let start = Instant::now();
        black_box(probe.pass());
        passes.push(start.elapsed());
    })?;
    let read = probe.bytes() as f64 / quantile(&passes, 0.5);
    let speed = bytes(&model.decoder, &args.step) as f64 / quantile(&steps, 0.5);
    Ok(vec![vec![
        ("memory_gb_per_second", json!(read / 1e9)),
        ("dtype", json!(dtype)),
        ("rows", json!(args.step.rows)),
        ("position", json!(args.step.position)),
        ("step_gb_per_second", json!(speed / 1e9)),
        ("percent", json!(100.0 * speed / read)),
        ("steps_per_second", json!(1.0 / quantile(&steps, 0.5))),
        ("steps_per_second_at_the_bus", json!(read / bytes(&model.decoder, &args.step) as f64)),
    ]])
}
