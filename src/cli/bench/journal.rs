//! `bench journal`: what journals cost, and how soon the past is heard. `bench recording`: how fast
//! a part of a stream becomes a file. Both ask a server over loopback, as clients do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use super::client::Client;
use super::loopback::Loopback;
use super::{KernelsChoice, RandomModel, Row, SizeChoice, quantile};
use crate::audio::hls::Rendition;
use crate::audio::{Format, OPUS_RATE};
use crate::cli::{Failure, ModelArgs, load};
use crate::engine::{Backend, CodecShape, Engine, EngineConfig, SamplingPatch};
use crate::station::{Idle, Journals, Listen, Station, StationConfig, Stream, StreamSpec, rehearse};

/// Bytes of a WAV answer that are more than its head.
const SOUND: usize = 200;

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
    model: ModelArgs,
    /// Seconds of the recording
    #[arg(long, default_value_t = 60.0)]
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
    let (times, segments) = runtime.block_on(async {
        let (station, stream) = played(&engine, args.seconds).await?;
        let server = Loopback::start(&station, args.seeks).await?;
        let (address, place) = (server.address.to_string(), format!("/v1/streams/{}", stream.id()));
        let (mut times, mut segments) = (Vec::with_capacity(args.seeks), Vec::new());
        for n in 0..args.seeks {
            let back = 5.0 + (args.seconds - 5.0) * (n as f64 * 0.618).fract();
            let mut client = Client::open(&address).await?;
            let timer = Instant::now();
            client.hear(&format!("{place}/audio.wav?from=-{back:.3}&latency=low"), SOUND).await?;
            times.push(timer.elapsed());
        }
        // One after the other, those that nobody has asked for: players that seek come from
        // anywhere.
        let mut client = Client::open(&address).await?;
        let whole = (args.seconds / 3.0) as usize;
        for segment in 0..whole.saturating_sub(1).min(args.seeks) {
            let timer = Instant::now();
            let rendition = Rendition::Opus;
            client.get(&format!("{place}/hls/{}/{segment}.{}", rendition.name(), rendition.extension())).await?;
            segments.push(timer.elapsed());
        }
        server.stop().await?;
        Ok::<_, Failure>((times, segments))
    })?;
    Ok(vec![vec![
        ("streams", json!(args.streams)),
        ("bytes_per_stream_hour", json!((bytes as f64 / hours).round() as u64)),
        ("mb_per_stream_day", json!(24.0 * bytes as f64 / hours / 1e6)),
        // Of the time that all of them play side by side.
        ("percent_of_a_core", json!(100.0 * spent / seconds as f64)),
        ("seek_p50_ms", json!(1000.0 * quantile(&times, 0.5))),
        ("seek_p99_ms", json!(1000.0 * quantile(&times, 0.99))),
        ("hls_segment_p50_ms", json!(1000.0 * quantile(&segments, 0.5))),
        ("hls_segment_p99_ms", json!(1000.0 * quantile(&segments, 0.99))),
    ]])
}

pub(super) fn recording(args: &RecordingArgs) -> Result<Vec<Row>, Failure> {
    let model = load::load(&args.model)?;
    let name = model.info().id.to_string();
    let mut rows = record(&name, model, args.seconds)?;
    // The codec is that of the published models; what its codes come from does not matter.
    let ModelArgs { device, dtype, .. } = args.model;
    let full = RandomModel { size: SizeChoice::Tiny, device, dtype, kernels: KernelsChoice::Own };
    let (full, ..) = full.build()?;
    rows.extend(record("full size", Box::new(full), args.seconds)?);
    Ok(rows)
}

fn record(codec: &str, backend: Box<dyn Backend>, seconds: f64) -> Result<Vec<Row>, Failure> {
    let engine = Engine::start(backend, EngineConfig::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (station, stream) = played(&engine, seconds).await?;
        let server = Loopback::start(&station, 1).await?;
        let mut client = Client::open(&server.address.to_string()).await?;
        let mut rows = Vec::new();
        for format in Format::ALL.into_iter().filter(|format| format.missing_feature().is_none()) {
            let timer = Instant::now();
            let path = format!("/v1/streams/{}/recording?from=0&to={seconds}&format={format}", stream.id());
            let bytes = client.get(&path).await?.len();
            rows.push(vec![
                ("codec", json!(codec)),
                ("format", json!(format.extension())),
                ("seconds", json!(seconds)),
                ("bytes", json!(bytes)),
                ("times_real_time", json!(seconds / timer.elapsed().as_secs_f64())),
            ]);
        }
        server.stop().await?;
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
