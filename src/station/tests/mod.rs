//! Behaviour of the whole room, with a paused clock and a source of PCM that is a plain sine.

#![allow(clippy::unwrap_used)]

mod audience;
mod control;
mod fanout;
mod formats;
mod hls;
mod overload;
mod pace;
mod queue;
mod resume;
mod schedule;
mod store;
mod takeover;
mod tone;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::time::{Instant, timeout_at};

use super::*;
use crate::audio::Format;
use crate::engine::standin::Standin;
use crate::engine::{Engine, EngineConfig, Steer};
use tone::Tone;

const OGG: Listen = Listen { format: Format::OGG, kbps: 96, low_latency: false };
const MP3: Listen = Listen { format: Format::MP3, kbps: 128, low_latency: false };
const WAV: Listen = Listen { format: Format::WAV, kbps: 0, low_latency: false };

/// How somebody listens who asks for nothing but the format.
fn usual(format: Format) -> Listen {
    Listen { format, kbps: format.live().unwrap().bit_rates().usual(), low_latency: false }
}

fn station_with(config: StationConfig) -> Arc<Station> {
    let engine = Engine::start(Box::new(Standin::default()), EngineConfig::default()).unwrap();
    Station::new(engine, config)
}

fn station() -> Arc<Station> {
    station_with(StationConfig::default())
}

fn spec() -> StreamSpec {
    StreamSpec {
        name: None,
        model: None,
        prompts: vec!["a sine".into()],
        sampling: Default::default(),
        seconds: None,
        max_still: None,
        wait: None,
        keep: false,
        idle: Idle::Pause,
    }
}

/// A stream that plays `tone`.
fn play(station: &Station, tone: Tone, spec: StreamSpec) -> Arc<Stream> {
    station.start(tone, spec, Instant::now()).unwrap()
}

/// Everything that a listener gets within `seconds`, with the time of each piece since now.
async fn hear(listener: &mut Listener, seconds: f64) -> Vec<(f64, Bytes)> {
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(seconds);
    let mut heard = Vec::new();
    while let Ok(Some(bytes)) = timeout_at(until, listener.next()).await {
        heard.push((start.elapsed().as_secs_f64(), bytes));
    }
    heard
}

fn joined(pieces: &[(f64, Bytes)]) -> Vec<u8> {
    pieces.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect()
}

/// A packet of an Ogg stream: (bytes, granule position of its page, last of the stream).
type Packet = (Vec<u8>, u64, bool);

/// Reads with the `ogg` crate, which checks checksums and page numbers; checks the two headers
/// itself.
fn packets(file: &[u8]) -> (u64, Vec<Packet>) {
    let mut reader = ogg::reading::PacketReader::new(std::io::Cursor::new(file));
    let head = reader.read_packet_expected().unwrap();
    assert!(head.first_in_stream() && head.data.starts_with(b"OpusHead"));
    let tags = reader.read_packet_expected().unwrap();
    assert!(tags.data.starts_with(b"OpusTags"));
    let mut packets = Vec::new();
    while let Some(packet) = reader.read_packet().unwrap() {
        assert_eq!(packet.stream_serial(), head.stream_serial());
        packets.push((packet.data.clone(), packet.absgp_page(), packet.last_in_stream()));
    }
    (u64::from(u16::from_le_bytes([head.data[10], head.data[11]])), packets)
}

/// Seconds of sound in a listener's Ogg stream, after what the decoder drops.
fn ogg_seconds(file: &[u8]) -> f64 {
    let (pre_skip, packets) = packets(file);
    (packets.last().unwrap().1 - pre_skip) as f64 / 48_000.0
}

/// Runs a tool on a file and returns (standard output, standard error).
fn run(tool: &str, before: &[&str], file: &[u8], after: &[&str]) -> (Vec<u8>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound");
    std::fs::write(&path, file).unwrap();
    let output = Command::new(tool).args(before).arg(&path).args(after).stdin(Stdio::null()).output().unwrap();
    (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Decodes with ffmpeg, which must not complain, to mono f32 at 48 kHz.
fn decode(file: &[u8]) -> Vec<f32> {
    let (pcm, complaints) =
        run("ffmpeg", &["-v", "warning", "-i"], file, &["-ac", "1", "-ar", "48000", "-f", "f32le", "-"]);
    // Plain WAV cannot name its channels, an MP3 stream cannot tell its length, and an open-ended
    // WAV stops in the middle of what ffmpeg reads at once.
    const USUAL: [&str; 5] = [
        "Guessed Channel Layout",
        "Estimating duration",
        "Ignoring maximum wav data size",
        "Packet corrupt (stream = 0, dts = NOPTS)",
        "corrupt input packet in stream 0",
    ];
    let usual = |line: &&str| USUAL.iter().any(|usual| line.contains(usual));
    let complaints: Vec<_> = complaints.lines().filter(|line| !usual(line)).collect();
    assert!(complaints.is_empty(), "ffmpeg complains: {complaints:?}");
    pcm.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Counts what the code records while this lives (on this thread, which is where a test's runtime
/// lives).
struct Metrics {
    handle: PrometheusHandle,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl Metrics {
    fn record() -> Self {
        let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        Self { handle: recorder.handle(), _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// A counter's or gauge's value; 0 if it was never touched.
    fn value(&self, name: &str) -> f64 {
        let text = self.handle.render();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}
