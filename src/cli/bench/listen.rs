//! `bench listen`: what a player with half a second in store hears of a machine that is only just
//! fast enough.
//!
//! The decoder is slowed down to each speed, so that a machine on which it is faster shows what
//! slower ones do; a speed that the machine does not reach is what it is. Everything else is real:
//! steps, codec, refills, encoder and clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{sleep_until, timeout_at};

use super::{RandomModel, Row};
use crate::audio::Format;
use crate::cli::Failure;
use crate::engine::{
    Backend, CodecState, Conditioner, Decode, Encoder, Engine, EngineConfig, Fault, Lost, ModelInfo, MusicGenBackend,
    Prefill, SamplingPatch, Slot, StepRow, frame_rate, shorten,
};
use crate::station::player::Player;
use crate::station::{Idle, Listen, Station, StationConfig, Stream, StreamSpec};
use crate::units::ModelId;

/// What a fast moment may make up for, as a real machine's queue does.
const CREDIT: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(super) struct ListenArgs {
    #[command(flatten)]
    model: RandomModel,
    /// Times real time that the decoder is held to
    #[arg(long, value_delimiter = ',', default_value = "0.84,1,1.1,1.5,3")]
    speeds: Vec<f64>,
    /// Streams that play side by side, each at this speed
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Seconds to listen per speed
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
    /// Window in seconds
    #[arg(long, default_value_t = 10.0)]
    window: f64,
    /// Seconds that the player wants in store before it plays
    #[arg(long, default_value_t = 0.5)]
    store: f64,
}

pub(super) fn run(args: &ListenArgs) -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for &speed in &args.speeds {
        let (mut model, dtype) = args.model.model()?;
        let rate = frame_rate(&model.config);
        shorten(&mut model.config, (args.window.max(1.0) * rate) as usize);
        let inner = MusicGenBackend::new(ModelId("random".into()), model, crate::engine::KV_BUDGET)?;
        let frame = Duration::from_secs_f64(1.0 / (rate * speed.max(0.01)));
        let engine = Engine::start(Box::new(Held { inner, frame, due: None }), EngineConfig::default())?;
        let told = engine.realtime_factor(&ModelId("random".into())).unwrap_or_default();
        let players = runtime.block_on(async {
            let station = Station::new(engine, StationConfig::default());
            let mut players = Vec::new();
            for seed in 0..args.streams as u64 {
                let sampling = SamplingPatch { seed: Some(seed), ..SamplingPatch::default() };
                let prompts = vec!["lofi piano".into()];
                let spec = StreamSpec {
                    name: None,
                    model: None,
                    prompts,
                    sampling,
                    seconds: None,
                    max_still: None,
                    wait: None,
                    keep: false,
                    idle: Idle::End,
                };
                let stream = station.create(spec).await?;
                players.push(tokio::spawn(hear(stream, args.seconds, args.store)));
            }
            let mut heard = Vec::new();
            for player in players {
                heard.push(player.await.map_err(|error| Failure(error.to_string()))??);
            }
            Ok::<_, Failure>(heard)
        })?;
        for (player, made, underruns) in players {
            rows.push(vec![
                ("dtype", json!(dtype)),
                ("speed_at_most", json!(speed)),
                ("told_at_start", json!(told)),
                ("made", json!(made)),
                ("start_s", json!(player.started)),
                ("stops", json!(player.stops)),
                ("missing_s", json!(player.missing)),
                ("underruns", json!(underruns)),
            ]);
        }
    }
    Ok(rows)
}

/// Plays a stream for `seconds`. Gives what was heard, the stream's speed at the end, and the
/// underruns counted.
async fn hear(stream: Arc<Stream>, seconds: f64, store: f64) -> Result<(Player, f64, u64), Failure> {
    let mut listener = stream.listen(Listen { format: Format::OGG, kbps: 96, low_latency: false })?;
    let (mut player, mut granule) = (Player::new(store), 0);
    let begun = tokio::time::Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    while let Ok(Some(piece)) = timeout_at(until, listener.next()).await {
        if let Some(end) = end_of_page(&piece) {
            granule = end;
            player.hears(begun.elapsed().as_secs_f64(), granule as f64 / 48_000.0);
        }
    }
    // A stream that ended too early is missed until the time is over.
    sleep_until(until).await;
    player.hears(seconds, granule as f64 / 48_000.0);
    let info = stream.info();
    Ok((player, info.realtime_factor, info.underruns))
}

/// The granule position of the last page whose head is in a piece, which begins with one or is a
/// page's body.
fn end_of_page(piece: &[u8]) -> Option<u64> {
    let head = piece.starts_with(b"OggS").then(|| piece.windows(4).rposition(|four| four == b"OggS"))??;
    Some(u64::from_le_bytes(piece.get(head + 6..head + 14)?.try_into().ok()?))
}

/// A backend whose steps take at least so long.
struct Held {
    inner: MusicGenBackend,
    frame: Duration,
    due: Option<Instant>,
}

impl Backend for Held {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    fn slots(&self) -> usize {
        self.inner.slots()
    }

    fn encoder(&self) -> Arc<dyn Encoder> {
        self.inner.encoder()
    }

    fn conditioner(&self) -> Arc<dyn Conditioner> {
        self.inner.conditioner()
    }

    fn prefill(&mut self, job: &Prefill<'_>) -> Result<Result<(), Fault>, Lost> {
        self.inner.prefill(job)
    }

    fn step(&mut self, rows: &[StepRow<'_>]) -> Result<Vec<Result<Vec<u32>, Fault>>, Lost> {
        let begun = Instant::now();
        let columns = self.inner.step(rows)?;
        let since = self.due.map_or(begun, |due| begun.checked_sub(CREDIT).map_or(due, |least| due.max(least)));
        let due = since + self.frame;
        self.due = Some(due);
        #[expect(clippy::disallowed_methods, reason = "it stands in for a slower machine")]
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        Ok(columns)
    }

    fn forget(&mut self, slot: Slot) {
        self.inner.forget(slot);
    }

    fn codec_state(&self) -> Box<dyn CodecState> {
        self.inner.codec_state()
    }

    fn decode(&mut self, jobs: &mut [Decode<'_>]) -> Result<Vec<Result<Vec<f32>, Fault>>, Lost> {
        self.inner.decode(jobs)
    }
}
