//! The examples, and those of the documentation, do what they say.

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

/// The blocks of a page that are marked as `sh`.
fn shell_blocks(page: &str) -> Vec<&str> {
    page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_for_listeners_producers_and_operators_can_be_typed_in() {
    let server = server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 32_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut riff = hound::WavWriter::create(folder.path().join("riff.wav"), spec).unwrap();
    (0..64_000).for_each(|at| riff.write_sample((8000.0 * (at as f32 * 0.1).sin()) as i16).unwrap());
    riff.finalize().unwrap();
    for page in ["listen", "produce", "operate"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{page}.md"));
        let text = std::fs::read_to_string(path).unwrap();
        let blocks = shell_blocks(&text);
        assert!(!blocks.is_empty(), "{page}");
        for block in blocks {
            let script = block.replace("localhost:8765", &server.addr.to_string()).replace("curl -s", "curl -sf");
            let mut shell = Command::new("bash");
            let done =
                shell.args(["-euo", "pipefail", "-c", &script]).current_dir(folder.path()).output().await.unwrap();
            let (said, wrong) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
            assert!(done.status.success(), "{page}: {block}{said}{wrong}");
        }
    }
    for (file, start) in
        [("dub.mp3", &b"ID3"[..]), ("heard.ogg", b"OggS"), ("piano.wav", b"RIFF"), ("longer.flac", b"fLaC")]
    {
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        let fits = bytes.starts_with(start) || (file == "dub.mp3" && bytes[0] == 0xff);
        assert!(fits && bytes.len() > 2000, "{file}: {} bytes", bytes.len());
    }
}
