//! `bench kernels` and `bench bandwidth`: where the time of a decoder step goes, and how fast memory could be read.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use super::{RandomModel, Row, quantile};
use crate::cli::Failure;
use crate::model::decoder::{CrossShare, Decoder, Part, Token};

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

/// Time per step of every part, over all layers.
type Times = BTreeMap<Part, Duration>;

/// Steps on an otherwise empty pool: times per part and of whole steps.
fn measure(
    decoder: &Decoder,
    args: &KernelsArgs,
    states: &candle_core::Tensor,
) -> Result<(Times, Vec<Duration>), Failure> {
    let prompt = decoder.prepare(states, 0)?;
    let cross = [CrossShare { prompt, share: 1.0 }];
    let mut cache = decoder.cache(args.rows, args.position + 1)?;
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
        measure(decoder, args, &model.made_up_states("a prompt of ordinary length, with a few words")?)?;
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
    let read = read_speed(args.megabytes.max(1) << 20, Duration::from_secs_f64(args.step.seconds.max(0.1)));
    let (model, dtype) = args.step.model.model()?;
    let states = model.made_up_states("a prompt of ordinary length, with a few words")?;
    let (_, steps) = measure(&model.decoder, &args.step, &states)?;
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

/// Bytes a second that all cores together read from a buffer far larger than the caches: the best of many passes.
fn read_speed(bytes: usize, time: Duration) -> f64 {
    let threads = rayon::current_num_threads();
    let words: Vec<u64> = (0..bytes as u64 / 8).collect();
    let share = words.len().div_ceil(threads);
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    while begun.elapsed() < time || best.is_infinite() {
        let timer = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(share) {
                scope.spawn(|| black_box(checksum(part)));
            }
        });
        best = best.min(timer.elapsed().as_secs_f64());
    }
    (words.len() * 8) as f64 / best
}

/// Reads every word with the widest vectors of the machine.
fn checksum(words: &[u64]) -> u64 {
    pulp::Arch::new().dispatch(|| {
        let mut lanes = [0u64; 32];
        for chunk in words.chunks_exact(32) {
            for (lane, word) in lanes.iter_mut().zip(chunk) {
                *lane ^= word;
            }
        }
        lanes.iter().fold(0, |all, lane| all ^ lane)
    })
}
