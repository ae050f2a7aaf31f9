//! `bench journal`: what journals cost, and how soon the past is heard. `bench recording`: how fast a part of a stream
//! becomes a file, with a codec of full size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use super::{RandomModel, Row, quantile};
use crate::audio::{Format, OPUS_RATE};
use crate::cli::{Failure, ModelArgs, load};
use crate::engine::{CodecShape, Engine, EngineConfig, SamplingPatch};
use crate::station::{Idle, Journals, Listen, Replay, Station, StationConfig, Stream, StreamSpec, rehearse};

#[derive(Args)]
pub(super) struct JournalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Streams whose journals are written
    #[arg(long, default_value_t = 50)]
    streams: usize,
    /// Minutes of each of them
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Seconds of sound to seek in
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Places to seek to
    #[arg(long, default_value_t = 40)]
    seeks: usize,
}

#[derive(Args)]
pub(super) struct RecordingArgs {
    #[command(flatten)]
    model: RandomModel,
    /// Seconds of the recording
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
}

pub(super) fn journal(args: &JournalArgs) -> Result<Vec<Row>, Failure> {
    let backend = load::load(&args.model)?;
    let codec = CodecShape::from(backend.info());
    let folder = tempfile::tempdir()?;
    let journals = Journals::open(folder.path(), 24.0)?;
    let seconds = 60 * u64::from(args.minutes);
    let timer = Instant::now();
    let bytes: u64 = (0..args.streams).map(|n| rehearse(&journals, &format!("{n:032}"), codec, seconds)).sum();
    let spent = timer.elapsed().as_secs_f64();
    let hours = (args.streams as f64) * seconds as f64 / 3600.0;
    let engine = Engine::start(backend, EngineConfig::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let times = runtime.block_on(async {
        let (_station, stream) = played(&engine, args.seconds).await?;
        let mut times = Vec::with_capacity(args.seeks);
        for n in 0..args.seeks {
            let share = (n as f64 * 0.618).fract();
            let from = ((args.seconds - 5.0) * share * f64::from(OPUS_RATE)) as u64;
            let timer = Instant::now();
            let mut listener = stream.listen_from(Listen { format: Format::OGG, kbps: 96, low_latency: true }, from)?;
            if listener.next().await.is_none() {
                return Err(Failure("A seek led to no sound.".into()));
            }
            times.push(timer.elapsed());
        }
        Ok(times)
    })?;
    Ok(vec![vec![
        ("streams", json!(args.streams)),
        ("bytes_per_stream_hour", json!((bytes as f64 / hours).round() as u64)),
        ("mb_per_stream_day", json!(24.0 * bytes as f64 / hours / 1e6)),
        // Of the time that all of them play side by side.
        ("percent_of_a_core", json!(100.0 * spent / seconds as f64)),
        ("seek_p50_ms", json!(1000.0 * quantile(&times, 0.5))),
        ("seek_p99_ms", json!(1000.0 * quantile(&times, 0.99))),
    ]])
}

pub(super) fn recording(args: &RecordingArgs) -> Result<Vec<Row>, Failure> {
    let (backend, ..) = args.model.build()?;
    let engine = Engine::start(Box::new(backend), EngineConfig::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (_station, stream) = played(&engine, args.seconds).await?;
        let mut rows = Vec::new();
        for format in Format::ALL.into_iter().filter(|format| format.missing_feature().is_none()) {
            let timer = Instant::now();
            let end = (args.seconds * f64::from(OPUS_RATE)) as u64;
            let mut replay = Replay::open(&stream, 0..end)?;
            let (mut long, mut bytes) = (format.long(replay.channels())?, 0);
            while let Some(block) = replay.next().await? {
                bytes += long.push(&block)?.len();
            }
            bytes += long.finish()?.rest.len();
            let spent = timer.elapsed().as_secs_f64();
            rows.push(vec![
                ("format", json!(format.extension())),
                ("seconds", json!(args.seconds)),
                ("bytes", json!(bytes)),
                ("times_real_time", json!(args.seconds / spent)),
            ]);
        }
        Ok(rows)
    })
}

/// A stream of which so much was heard already, paused since.
async fn played(engine: &Engine, seconds: f64) -> Result<(Arc<Station>, Arc<Stream>), Failure> {
    let config = StationConfig { burst: seconds + 1.0, lead: seconds + 2.0, grace: 0.0, ..StationConfig::default() };
    let station = Station::new(engine.clone(), config);
    let spec = StreamSpec {
        name: None,
        model: None,
        prompts: vec!["lofi piano".into()],
        sampling: SamplingPatch { seed: Some(1), ..SamplingPatch::default() },
        seconds: None,
        max_still: Some(0.0),
        wait: None,
        keep: true,
        idle: Idle::Pause,
    };
    let stream = station.create(spec).await?;
    let mut listener = stream.listen(Listen { format: Format::WAV, kbps: 0, low_latency: false })?;
    while (stream.journal().kept().end as f64) < seconds * f64::from(OPUS_RATE) {
        tokio::select! {
            sound = listener.next() => drop(sound.ok_or_else(|| Failure("The stream ended.".into()))?),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    Ok((station, stream))
}
