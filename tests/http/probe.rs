//! ffprobe and ffmpeg as judges of what the server sends.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

pub struct Sound {
    pub codec: String,
    pub rate: u32,
    /// Seconds of PCM that come out of the decoder.
    pub seconds: f64,
    /// The loudest sample, 0 to 1.
    pub peak: f32,
}

/// Decodes `bytes` and fails when ffmpeg finds anything to complain about.
pub async fn decode(bytes: Vec<u8>) -> Sound {
    tokio::task::spawn_blocking(move || decode_now(&bytes)).await.unwrap()
}

fn decode_now(bytes: &[u8]) -> Sound {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-of", "json"])
        .arg(file.path())
        .output()
        .expect("ffprobe is installed");
    let streams: Value = serde_json::from_slice(&probe.stdout).unwrap();
    let stream = &streams["streams"][0];
    let pcm = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file.path())
        .args(["-f", "f32le", "-ac", "1", "-ar", "48000", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let complaints = String::from_utf8_lossy(&pcm.stderr);
    assert!(pcm.status.success() && complaints.is_empty(), "ffmpeg: {complaints}");
    let samples = pcm.stdout.as_chunks::<4>().0;
    Sound {
        codec: stream["codec_name"].as_str().unwrap().to_owned(),
        rate: stream["sample_rate"].as_str().unwrap().parse().unwrap(),
        seconds: samples.len() as f64 / 48_000.0,
        peak: samples.iter().map(|bytes| f32::from_le_bytes(*bytes).abs()).fold(0.0, f32::max),
    }
}
