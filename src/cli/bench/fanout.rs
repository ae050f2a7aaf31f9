//! `bench fanout`: one stream, many listeners over loopback, in processes of their own so that
//! their work is not counted as the server's. `bench listeners` is the listening half alone, to
//! measure another server with the same load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Row;
use super::loopback::{Loopback, cpu_seconds, make_room, tones};
use crate::cli::Failure;

#[derive(Args)]
pub(super) struct FanoutArgs {
    /// Listeners
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000")]
    listeners: Vec<usize>,
    /// Seconds to measure once all are connected
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

#[derive(Args)]
pub(super) struct ListenersArgs {
    /// host:port of the server
    address: String,
    /// Path to ask for
    #[arg(default_value = "/")]
    path: String,
    /// Listeners
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Seconds to measure once all are connected
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Also read the CPU time of this process id
    #[arg(long)]
    pid: Option<u32>,
}

pub(super) fn run(args: &FanoutArgs) -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let most = args.listeners.iter().copied().max().unwrap_or(0);
    make_room(most)?;
    runtime.block_on(async {
        let (station, stream) = tones(most).await?;
        let server = Loopback::start(&station, most).await?;
        let mut results = Vec::new();
        for &listeners in &args.listeners {
            let before = stream.info().underruns;
            let output = tokio::process::Command::new(std::env::current_exe()?)
                .args(["bench", "listeners", &server.address.to_string(), "/generate?station=bench", "--json"])
                .args(["--count", &listeners.to_string(), "--seconds", &args.seconds.to_string()])
                .args(["--pid", &std::process::id().to_string()])
                .stderr(std::process::Stdio::inherit())
                .output()
                .await?;
            let report: Value = serde_json::from_slice(&output.stdout)?;
            let mut row: Row = vec![("underruns", json!(stream.info().underruns - before))];
            for key in KEYS {
                row.push((key, report["results"][0][key].clone()));
            }
            results.push(row);
        }
        server.stop().await?;
        Ok(results)
    })
}

const KEYS: [&str; 6] = [
    "listeners",
    "kbit_per_listener",
    "longest_gap_ms",
    "lost",
    "server_cpu_percent",
    "server_cpu_us_per_listener_second",
];

pub(super) fn listeners(args: &ListenersArgs) -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    make_room(args.count)?;
    runtime.block_on(async {
        let tally = Arc::new(Tally::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..args.count {
            let mut socket = TcpStream::connect(&args.address).await?;
            let head = format!("GET {} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", args.path);
            socket.write_all(head.as_bytes()).await?;
            let tally = Arc::clone(&tally);
            tasks.spawn(async move { follow(socket, &tally).await });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while tally.playing.load(Ordering::Relaxed) < args.count {
            if Instant::now() > deadline {
                return Err(Failure(format!(
                    "Only {} of {} listeners were served.",
                    tally.playing.load(Ordering::Relaxed),
                    args.count
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The burst of the last to come is no part of the steady state.
        tokio::time::sleep(Duration::from_secs(3)).await;
        tally.measuring.store(1, Ordering::Relaxed);
        let (cpu, timer) = (args.pid.and_then(cpu_seconds), Instant::now());
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        tally.measuring.store(0, Ordering::Relaxed);
        let took = timer.elapsed().as_secs_f64();
        let used = args.pid.and_then(cpu_seconds).zip(cpu).map(|(after, before)| after - before);
        let bytes = tally.bytes.load(Ordering::Relaxed) as f64;
        let count = args.count as f64;
        Ok(vec![vec![
            ("listeners", json!(args.count)),
            ("kbit_per_listener", json!(bytes * 8.0 / 1000.0 / took / count)),
            ("longest_gap_ms", json!(tally.gap_us.load(Ordering::Relaxed) as f64 / 1000.0)),
            ("lost", json!(tally.lost.load(Ordering::Relaxed))),
            ("server_cpu_percent", json!(used.map(|used| 100.0 * used / took))),
            ("server_cpu_us_per_listener_second", json!(used.map(|used| 1e6 * used / took / count))),
        ]])
    })
}

#[derive(Default)]
struct Tally {
    playing: AtomicUsize,
    measuring: AtomicUsize,
    bytes: AtomicU64,
    /// Longest time between two reads of one listener while measuring, in microseconds.
    gap_us: AtomicU64,
    /// Connections that ended.
    lost: AtomicUsize,
}

async fn follow(mut socket: TcpStream, tally: &Tally) {
    let mut buffer = vec![0; 16 << 10];
    let mut last: Option<Instant> = None;
    loop {
        match socket.read(&mut buffer).await {
            Ok(read) if read > 0 => {
                let now = Instant::now();
                match last.replace(now) {
                    None => {
                        tally.playing.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(before) if tally.measuring.load(Ordering::Relaxed) == 1 => {
                        tally.bytes.fetch_add(read as u64, Ordering::Relaxed);
                        tally.gap_us.fetch_max((now - before).as_micros() as u64, Ordering::Relaxed);
                    }
                    Some(_) => {}
                }
            }
            _ => {
                tally.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}
