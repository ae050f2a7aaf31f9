//! `bench first-sound`: what a listener waits for, without the network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use super::{Row, quantile};
use crate::audio::Format;
use crate::cli::{Failure, ModelArgs, load};
use crate::engine::{Engine, EngineConfig, SamplingPatch};
use crate::station::{Idle, Listen, Listener, Station, StationConfig, StreamSpec};

#[derive(Args)]
pub(super) struct FirstSoundArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Streams that play meanwhile
    #[arg(long, value_delimiter = ',', default_value = "0")]
    busy: Vec<usize>,
    /// Requests to measure
    #[arg(long, default_value_t = 20)]
    runs: usize,
}

pub(super) fn run(args: &FirstSoundArgs) -> Result<Vec<Row>, Failure> {
    let engine = Engine::start(load::load(&args.model)?, EngineConfig::default())?;
    let measured = measure(&engine, &args.busy, args.runs)?;
    let row = |(busy, times): (&usize, Vec<Duration>)| {
        vec![
            ("busy", json!(busy)),
            ("runs", json!(times.len())),
            ("p50_ms", json!(1000.0 * quantile(&times, 0.5))),
            ("p99_ms", json!(1000.0 * quantile(&times, 0.99))),
        ]
    };
    Ok(args.busy.iter().zip(measured).map(row).collect())
}

/// What `runs` requests wait for beside each number of streams, which must not fall.
pub(super) fn measure(engine: &Engine, busy: &[usize], runs: usize) -> Result<Vec<Vec<Duration>>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let station = Station::new(engine.clone(), StationConfig::default());
        let mut results = Vec::new();
        let mut playing = Vec::new();
        for &busy in busy {
            while playing.len() < busy {
                let mut listener = listen(&station, playing.len() as u64).await?;
                playing.push(tokio::spawn(async move { while listener.next().await.is_some() {} }));
            }
            let mut times = Vec::with_capacity(runs);
            for run in 0..runs {
                let timer = Instant::now();
                let mut listener = listen(&station, 1000 + run as u64).await?;
                let first = listener.next().await;
                times.push(timer.elapsed());
                if first.is_none() {
                    return Err(Failure("A stream ended before its first sound.".into()));
                }
                drop(listener);
                left(engine, busy).await;
            }
            results.push(times);
        }
        Ok(results)
    })
}

async fn listen(station: &Arc<Station>, seed: u64) -> Result<Listener, Failure> {
    let stream = station
        .create(StreamSpec {
            name: None,
            model: None,
            prompts: vec!["lofi piano".into()],
            sampling: SamplingPatch { seed: Some(seed), ..SamplingPatch::default() },
            seconds: None,
            max_still: None,
            wait: None,
            keep: false,
            idle: Idle::End,
        })
        .await?;
    Ok(stream.listen(Listen { format: Format::OGG, kbps: 96, low_latency: true })?)
}

/// The next request must not share the machine with the one before it.
async fn left(engine: &Engine, voices: usize) {
    while engine.status().voices > voices {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
