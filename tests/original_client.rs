//! The routes of musicgen-stream, as its own client uses them: framed PCM, MP3, changes of prompts
//! and of the model.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use client::call;
use continuo::engine::standin::Standin;
use continuo::station::StationConfig;
use server::{Server, loader, start, start_loading, start_on};

const BLOCK: usize = 64_000;

/// A tool that the tests need; a missing one is named with its Debian package.
fn tool(name: &str, package: &str) -> Command {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    assert!(found, "`{name}` is not installed; `apt-get install {package}` brings it");
    Command::new(name)
}

/// What a tool said, while the server goes on.
async fn output(child: Child) -> Output {
    spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
}

/// The client, told to collect this many seconds (0: until the server ends it).
fn original_client(server: &Server, path: &str, folder: &Path, body: &Value, seconds: f64) -> Child {
    drop(tool("curl", "curl"));
    let file = folder.join("prompts.json");
    std::fs::write(&file, body.to_string()).unwrap();
    tool("python3", "python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/original_client.py"))
        .arg(format!("http://{}{path}", server.addr))
        .arg(file)
        .args(["--seconds", &seconds.to_string(), "--out"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn report(client: Child) -> Value {
    let output = output(client).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the client has its first round.
async fn first_round(client: &mut Child) {
    let stderr = client.stderr.take().unwrap();
    let line = spawn_blocking(move || BufReader::new(stderr).lines().next().unwrap().unwrap()).await.unwrap();
    assert_eq!(line, "first round");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_client_gets_rounds_of_every_prompt() {
    let server = start().await;
    let folder = tempfile::tempdir().unwrap();
    let body = json!({"prompts": ["a", "b", "c"]});
    // The original's README gives an address to which its client appends the path once more.
    for path in ["/generate", "/generate/generate"] {
        let report = report(original_client(&server, path, folder.path(), &body, 6.0)).await;
        assert_eq!((&report["play_time"], &report["rounds"]), (&json!(2.0), &json!(3)), "{report}");
        for stream in report["streams"].as_array().unwrap() {
            assert_eq!(stream["samples"], 3 * BLOCK);
            assert!(stream["rms"].as_f64().unwrap() > 0.1, "{report}");
        }
        server.until_voices(0).await;
    }
    // What the client pipes into ffplay is sound without gaps at the seams of blocks: no silence,
    // no click.
    let pcm: Vec<f32> = floats(&std::fs::read(folder.path().join("1.f32")).unwrap());
    let steepest = pcm.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
    assert!(steepest < 0.1, "a tone of at most 724 Hz jumps by {steepest}");
    assert_ne!(pcm, floats(&std::fs::read(folder.path().join("0.f32")).unwrap()), "two voices");
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_ends_the_set_after_its_round() {
    let server = start().await;
    let folder = tempfile::tempdir().unwrap();
    let body = json!({"prompts": ["a", "b"]});
    let mut client = original_client(&server, "/generate", folder.path(), &body, 0.0);
    first_round(&mut client).await;
    let mut answer = call(server.addr, "POST", "/set_prompts", r#"{"prompts": []}"#).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(answer.body().await.is_empty());
    let report = report(client).await;
    let end = (&report["ended"], &report["cut"], &report["curl"]);
    assert_eq!(end, (&json!(true), &json!(false), &json!(0)), "a proper end: {report}");
    let blocks: Vec<_> = report["streams"].as_array().unwrap().iter().map(|stream| &stream["blocks"]).collect();
    assert_eq!(blocks, [&report["rounds"], &report["rounds"]], "whole rounds");
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_at_once_have_two_sets() {
    let server = start().await;
    let mut first = call(server.addr, "POST", "/generate", r#"{"prompts": ["a", "b"]}"#).await;
    let mut second = call(server.addr, "POST", "/generate", r#"{"prompts": ["c"]}"#).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(first.header("transfer-encoding"), Some("chunked"));
    assert_ne!(first.header("x-set-id"), second.header("x-set-id"));
    server.until_voices(3).await;
    // Unnamed, a change is for the newest set, as the original's one list would hold it.
    call(server.addr, "POST", "/set_prompts", r#"{"prompts": []}"#).await;
    let rest = second.body().await;
    assert_eq!(rest.len() % (4 + 4 * BLOCK), 0);
    server.until_voices(2).await;
    first.some(5 * (4 + 4 * BLOCK)).await;
    // The named one ends, and a set that is over cannot be named.
    let id: u64 = first.header("x-set-id").unwrap().parse().unwrap();
    let end = json!({"prompts": [], "set": id}).to_string();
    assert_eq!(call(server.addr, "POST", "/set_prompts", &end).await.status, 200);
    first.body().await;
    server.until_voices(0).await;
    let mut gone = call(server.addr, "POST", "/set_prompts", &end).await;
    assert_eq!(gone.status, 404);
    assert!(gone.problem().await.contains(&id.to_string()));
    // Unnamed and with nothing running, the original says 200.
    assert_eq!(call(server.addr, "POST", "/set_prompts", r#"{"prompts": ["x"]}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_replaced_in_place() {
    let server = start().await;
    let folder = tempfile::tempdir().unwrap();
    let body = json!({"prompts": ["a", "b"]});
    let mut client = original_client(&server, "/generate", folder.path(), &body, 0.0);
    first_round(&mut client).await;
    let change = |body: &'static str| async move { call(server.addr, "POST", "/set_prompts", body).await.status };
    // Extra ones are ignored, missing ones keep the old text: nothing fails yet.
    assert_eq!(change(r#"{"prompts": ["x", "y", "fail after 0"]}"#).await, 200);
    assert_eq!(change(r#"{"prompts": ["z"]}"#).await, 200);
    assert_eq!(server.voices(), 2);
    // The stand-in fails when a prompt tells it to: the change reaches the second voice, and the
    // body must then not look complete. Sound made before the change is still sent.
    assert_eq!(change(r#"{"prompts": ["z", "fail after 0"]}"#).await, 200);
    let report = report(client).await;
    assert_eq!(report["curl"], 18, "curl calls the transfer partial: {report}");
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mp3_rotates_through_the_prompts_in_one_stream() {
    let server = start().await;
    let body = r#"{"prompts": ["a", "b"], "mp3": true, "buffer_seconds": 3}"#;
    let mut answer = call(server.addr, "POST", "/generate", body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    let mut mp3 = answer.some(12_000 * 12).await;
    call(server.addr, "POST", "/set_prompts", r#"{"prompts": []}"#).await;
    mp3.extend(answer.body().await);
    server.until_voices(0).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("set.mp3");
    std::fs::write(&file, &mp3).unwrap();
    let probe = tool("ffprobe", "ffmpeg").args(["-v", "error", "-show_streams", "-of", "json"]).arg(&file).output();
    let probe: Value = serde_json::from_slice(&probe.unwrap().stdout).unwrap();
    let stream = &probe["streams"][0];
    assert_eq!((&stream["codec_name"], &stream["sample_rate"]), (&json!("mp3"), &json!("32000")), "{stream}");
    assert_eq!((&stream["channels"], &stream["bit_rate"]), (&json!(1), &json!("96000")), "{stream}");
    let decoded = tool("ffmpeg", "ffmpeg").args(["-v", "error", "-i"]).arg(&file).args(["-f", "f32le", "-"]).output();
    let decoded = decoded.unwrap();
    assert!(decoded.stderr.is_empty(), "{}", String::from_utf8_lossy(&decoded.stderr));
    let pcm = floats(&decoded.stdout);
    // Whole blocks, and what the encoder adds at both ends.
    let extra = pcm.len() % BLOCK;
    assert!(pcm.len() > 6 * BLOCK && extra < 4_000, "{} samples", pcm.len());
    for second in pcm[4_000..6 * BLOCK].chunks_exact(32_000) {
        let power = second.iter().map(|sample| sample * sample).sum::<f32>() / second.len() as f32;
        assert!((0.2..0.35).contains(&power.sqrt()), "a tone of amplitude 0.4, not {}", power.sqrt());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_for_one_voice_carries_a_set_that_takes_turns() {
    // Below real time even for one: nobody else is admitted beside it.
    let slow = Standin::default().with_step_time(Duration::from_millis(25));
    let server = start_on(slow, StationConfig::default(), |_| {}).await;
    let mut refused = call(server.addr, "POST", "/generate", r#"{"prompts": ["a", "b"]}"#).await;
    assert_eq!(refused.status, 429);
    assert!(refused.problem().await.contains("full"));
    server.until_voices(0).await;
    let body = r#"{"prompts": ["a", "b", "c"], "mp3": true, "buffer_seconds": 1}"#;
    let mut answer = call(server.addr, "POST", "/generate", body).await;
    assert_eq!(answer.status, 200);
    // Past the second prompt's two seconds.
    answer.some(12_000 * 4 + 1_000).await;
    assert_eq!(server.voices(), 3);
    drop(answer);
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_voices() {
    let server = start().await;
    let mut answer = call(server.addr, "POST", "/generate", r#"{"prompts": ["a", "b", "c", "d"]}"#).await;
    answer.some(100_000).await;
    server.until_voices(4).await;
    drop(answer);
    let took = server.until_voices(0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_before_the_headers() {
    let server = start().await;
    for (path, body, word) in [
        ("/generate", "nonsense", "not JSON"),
        ("/generate", "{}", "prompts"),
        ("/generate", r#"{"prompts": []}"#, "0 prompts"),
        ("/generate", r#"{"prompts": "a"}"#, "sequence"),
        ("/generate", r#"{"prompts": ["a"], "mp3": true, "buffer_seconds": -1}"#, "buffer_seconds"),
        ("/generate", r#"{"prompts": ["a", "cannot be encoded"]}"#, "cannot be encoded"),
        ("/set_prompts", r#"{"prompts": [1]}"#, "string"),
        ("/set_model", r#"{"dtype": "float16"}"#, "model"),
        ("/set_model", r#"{"model": " "}"#, "`model` is empty"),
    ] {
        let mut answer = call(server.addr, "POST", path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        let sentence = answer.problem().await;
        assert!(sentence.contains(word), "{body}: {sentence}");
    }
    let long = json!({"prompts": ["x".repeat(1001)]}).to_string();
    assert_eq!(call(server.addr, "POST", "/generate", &long).await.status, 400);
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_takes_over_without_a_gap() {
    let server = start_loading(Default::default(), loader).await;
    let mut set = call(server.addr, "POST", "/generate", r#"{"prompts": ["a"]}"#).await;
    set.some(4 + 4 * BLOCK).await;
    // The original's set_model.json: a dtype, too. The end of the body says that the model is
    // ready.
    let mut answer = call(server.addr, "POST", "/set_model", r#"{"model": "twin", "dtype": "float16"}"#).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(answer.body().await.is_empty());
    let default = server.app.engine().models()[0].id.0.clone();
    assert_eq!(default, "twin");
    set.some(4 * (4 + 4 * BLOCK)).await;
    // A model that cannot be loaded leaves everything as it was.
    let mut answer = call(server.addr, "POST", "/set_model", r#"{"model": "nothing"}"#).await;
    assert_eq!(answer.status, 422);
    assert!(answer.problem().await.contains("no `nothing`"));
    assert_eq!(server.app.engine().models()[0].id.0, "twin");
    set.some(2 * (4 + 4 * BLOCK)).await;
    assert_eq!(call(server.addr, "POST", "/generate", r#"{"prompts": ["b"]}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_are_what_ffmpeg_takes_for_sound() {
    let server = start().await;
    let mut answer = call(server.addr, "POST", "/generate", r#"{"prompts": ["a"]}"#).await;
    let bytes = answer.some(2 * (4 + 4 * BLOCK)).await;
    let mut ffmpeg = tool("ffmpeg", "ffmpeg")
        .args("-v error -f f32le -ar 32000 -ac 1 -i - -af astats=measure_perchannel=none -f null -".split(' '))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ffmpeg.stdin.take().unwrap().write_all(&bytes[4..4 + 4 * BLOCK]).unwrap();
    let output = output(ffmpeg).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bytes[..4], (4 * BLOCK as u32).to_le_bytes());
}
