//! `bench hls`: one station, many players of HLS over loopback, in a process of their own. `bench
//! players` is the playing half alone, to measure another server with the same load.

mod player;
mod playlist;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::player::{Player, Tally};
use super::Row;
use super::loopback::{Loopback, cpu_seconds, make_room, memory, tones};
use crate::audio::Format;
use crate::cli::Failure;
use crate::station::Listen;

/// Players come one after the other within so many seconds, as people do: a segment's length.
const ARRIVAL: f64 = 3.0;

/// Sound that there is before the first player comes: five segments.
const BEFORE: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(super) struct HlsArgs {
    /// Players
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    players: Vec<usize>,
    /// Seconds to measure once all play
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

#[derive(Args)]
pub(super) struct PlayersArgs {
    /// host:port of the server
    address: String,
    /// Path of the playlist
    path: String,
    /// Players
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Seconds to measure once all play
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Take parts as soon as they are made
    #[arg(long)]
    low_latency: bool,
    /// Also read the CPU time and the memory of this process id
    #[arg(long)]
    pid: Option<u32>,
    /// One player that writes what it gets into this folder, for another server to serve
    #[arg(long, conflicts_with_all = ["low_latency", "count"])]
    save: Option<PathBuf>,
}

const KEYS: [&str; 9] = [
    "players",
    "requests_per_second",
    "kbit_per_player",
    "stalls",
    "lost",
    "server_cpu_percent",
    "server_cpu_us_per_player_second",
    "server_mb_before",
    "server_mb_after",
];

pub(super) fn run(args: &HlsArgs) -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let most = args.players.iter().copied().max().unwrap_or(0);
    make_room(2 * most)?;
    runtime.block_on(async {
        // Those of one row have not all been given up when those of the next come.
        let (station, stream) = tones(2 * most).await?;
        // Players find a stream that has played for a while.
        let mut listener = stream.join(Listen { format: Format::OGG, kbps: 96, low_latency: false }).await?;
        tokio::spawn(async move { while listener.next().await.is_some() {} });
        tokio::time::sleep(BEFORE).await;
        let server = Loopback::start(&station, 2 * most).await?;
        let mut results = Vec::new();
        for (&players, low_latency) in args.players.iter().flat_map(|players| [(players, false), (players, true)]) {
            let before = stream.info().underruns;
            let mut listening = tokio::process::Command::new(std::env::current_exe()?);
            listening.args(["bench", "players", &server.address.to_string(), "/hls/bench/master.m3u8", "--json"]);
            listening.args(["--count", &players.to_string(), "--seconds", &args.seconds.to_string()]);
            listening.args(["--pid", &std::process::id().to_string()]);
            listening.args(low_latency.then_some("--low-latency"));
            let output = listening.output().await?;
            if !output.status.success() {
                return Err(Failure(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
            let report: Value = serde_json::from_slice(&output.stdout)?;
            let mut row: Row = vec![("low_latency", json!(low_latency))];
            row.extend(KEYS.map(|key| (key, report["results"][0][key].clone())));
            row.push(("underruns", json!(stream.info().underruns - before)));
            results.push(row);
        }
        server.stop().await?;
        Ok(results)
    })
}

pub(super) fn players(args: &PlayersArgs) -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let count = if args.save.is_some() { 1 } else { args.count };
    make_room(count)?;
    runtime.block_on(async {
        let (tally, mut tasks) = (Arc::new(Tally::default()), JoinSet::new());
        for number in 0..count {
            let player = Player {
                address: args.address.clone(),
                path: args.path.clone(),
                low_latency: args.low_latency,
                save: args.save.clone(),
                tally: Arc::clone(&tally),
            };
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(ARRIVAL * number as f64 / count as f64)).await;
                if let Err(Failure(why)) = player.run().await {
                    tracing::warn!("a player stops: {why}");
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while tally.playing() < count {
            if Instant::now() > deadline {
                return Err(Failure(format!("Only {} of {count} players play.", tally.playing())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What the last to come fetch at first is no part of the steady state.
        tokio::time::sleep(Duration::from_secs_f64(ARRIVAL)).await;
        let (before, begun) = (tally.read(), Instant::now());
        let read = |of: fn(u32) -> Option<f64>| args.pid.and_then(of);
        let (cpu, mb) = (read(cpu_seconds), read(memory));
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        let took = begun.elapsed().as_secs_f64();
        let used = read(cpu_seconds).zip(cpu).map(|(after, before)| after - before);
        let passed = tally.read().since(before);
        Ok(vec![vec![
            ("players", json!(count)),
            ("requests_per_second", json!(passed.requests as f64 / took)),
            ("kbit_per_player", json!(passed.bytes as f64 * 8.0 / 1000.0 / took / count as f64)),
            ("stalls", json!(passed.stalls)),
            ("lost", json!(std::iter::from_fn(|| tasks.try_join_next()).count())),
            ("server_cpu_percent", json!(used.map(|used| 100.0 * used / took))),
            ("server_cpu_us_per_player_second", json!(used.map(|used| 1e6 * used / took / count as f64))),
            ("server_mb_before", json!(mb)),
            ("server_mb_after", json!(read(memory))),
        ]])
    })
}
