//! The examples do what they say.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../examples/engine_to_wav.rs"]
#[allow(dead_code)]
mod engine_to_wav;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;

use std::path::Path;

use tokio::process::Command;

#[tokio::test]
async fn the_engine_alone_writes_music_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("music.wav");
    engine_to_wav::make("lofi piano", &output).await.unwrap();
    let mut reader = hound::WavReader::open(&output).unwrap();
    assert_eq!(reader.duration(), 8 * reader.spec().sample_rate);
    let loud = reader.samples::<i16>().filter(|sample| sample.as_ref().unwrap().unsigned_abs() > 1000).count();
    assert!(loud > 10_000, "{loud} samples are loud");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_records_a_stream_and_steers_it() {
    let server = server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("steered.ogg");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/steer.py");
    let told = Command::new("python3")
        .arg(script)
        .arg(format!("http://{}", server.addr))
        .arg(&output)
        .arg("0.3")
        .output()
        .await
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success() && said.starts_with("heard from second "), "{said}{wrong}");
    let sound = std::fs::read(output).unwrap();
    assert!(sound.starts_with(b"OggS") && sound.len() > 4000, "{} bytes", sound.len());
}
