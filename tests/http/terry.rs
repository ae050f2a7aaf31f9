//! terry's clients: JSON as gary sends it, forms as `curl -F` sends them, and every mistake.

use continuo::audio::decode;
use continuo::engine::RenderLoader;
use continuo::engine::standin::transformer;
use continuo::pcm::Pcm;
use continuo::studio::{Lane, Presets, RenderModels};
use continuo::units::SampleRate;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{call, get, send};
use super::juce::{base64, bytes_of};
use super::renders::models;
use super::server::{Server, start, start_rendering, until};

fn wav(frames: usize, rate: u32, channels: usize) -> Vec<u8> {
    let pcm = (0..frames * channels).map(|n| ((n / channels) as f32 * 0.05).sin() * 0.3).collect();
    Pcm { pcm, channels, rate: SampleRate(rate) }.wav()
}

async fn transform(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let mut answer = call(server.addr, "POST", path, &body.to_string()).await;
    (answer.status, answer.json().await)
}

fn form(fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--xX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    if let Some((name, content)) = file {
        let head = format!("--xX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.wav\"\r\n\r\n");
        body.extend(head.bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--xX--\r\n");
    ("multipart/form-data; boundary=xX".into(), body)
}

/// A form, posted.
pub async fn post_form(
    server: &Server,
    path: &str,
    fields: &[(&str, &str)],
    file: Option<(&str, &[u8])>,
) -> super::client::Answer {
    let (kind, body) = form(fields, file);
    let head = format!("POST {path} HTTP/1.1\nContent-Type: {kind}\nContent-Length: {}", body.len());
    send(server.addr, &head, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn json_gets_base64_and_a_form_gets_the_file() {
    let server = start_rendering(models()).await;
    let audio = wav(50_001, 44_100, 1);
    let request = json!({
        "variation": "strings_quartet", "session_id": "from-gary", "audio": base64(&audio), "flowstep": "0.1",
        "solver": "euler",
    });
    for path in ["/transform", "/terry/transform"] {
        let (status, made) = transform(&server, path, &request).await;
        assert_eq!(status, 200, "{made}");
        let sound = decode(bytes_of(made["audio"].as_str().unwrap())).unwrap();
        // As long as it was, at its rate, on two channels.
        assert_eq!((sound.frames(), sound.rate.0, sound.channels), (50_001, 44_100, 2));
        assert!(made["message"].is_string());
    }
    // It was gary's session all along.
    let session = get(server.addr, "/v1/sessions/from-gary").await.json().await;
    assert_eq!((&session["can_undo"], session["clips"].as_array().unwrap().len()), (&json!(true), 2));
    let fields = [("variation", "custom"), ("custom_prompt", "a choir"), ("solver", "euler")];
    let mut answer = post_form(&server, "/transform", &fields, Some(("audio", &wav(9000, 22_050, 2)))).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/wav")));
    let sound = decode(answer.body().await).unwrap();
    assert_eq!((sound.frames(), sound.rate.0, sound.channels), (9000, 22_050, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_half_as_long_again_as_the_window_keeps_its_length() {
    // The published model has thirty seconds, and clients are told that 45 pass; this one has
    // three.
    let server =
        start_rendering(RenderModels::new(Presets::default(), Some(RenderLoader::new(transformer)), None)).await;
    let frames = 9 * 8000 / 2 + 77;
    let audio = base64(&wav(frames, 8000, 1));
    let request = json!({ "variation": "celtic", "session_id": "long", "audio": audio, "flowstep": 0.1 });
    let (status, made) = transform(&server, "/transform", &request).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(decode(bytes_of(made["audio"].as_str().unwrap())).unwrap().frames(), frames);
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_and_health_are_told() {
    let server = start_rendering(models()).await;
    let presets = get(server.addr, "/variations").await.json().await;
    assert_eq!(presets["variations"].as_object().unwrap().len(), 33);
    let celtic = &presets["variations"]["celtic"];
    assert!((celtic["flowstep"].as_f64().unwrap() - 0.12).abs() < 1e-6 && celtic["steps"] == 25);
    assert!(celtic["prompt"].as_str().unwrap().len() > 10);
    let health = get(server.addr, "/terry/health").await.json().await;
    assert_eq!((&health["status"], &health["model_loaded"]), (&json!("healthy"), &json!(false)));
    assert!(health["uptime"].is_u64() && health["gpu_available"] == false);
    let bare = start().await;
    let mut health = get(bare.addr, "/terry/health").await;
    assert_eq!((health.status, &health.json().await["status"]), (503, &json!("degraded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_an_error_in_a_sentence_and_leaves_nothing() {
    let server = start_rendering(models()).await;
    let audio = base64(&wav(4000, 32_000, 1));
    let request = |change: &[(&str, Value)]| {
        let mut body = json!({ "variation": "celtic", "session_id": "s", "audio": audio });
        for (name, value) in change {
            body[*name] = value.clone();
        }
        body
    };
    for (change, word) in [
        (vec![("variation", Value::Null)], "Missing required data"),
        (vec![("session_id", Value::Null)], "Missing required data"),
        (vec![("audio", Value::Null)], "No audio data or file path provided"),
        (
            vec![("audio", Value::Null), ("audio_file_path", json!("/etc/passwd"))],
            "No audio data or file path provided",
        ),
        (vec![("audio", json!("abcde"))], "Failed to load audio"),
        (vec![("audio", json!(base64(b"no music")))], "Failed to load audio"),
        (vec![("variation", json!("kazoo"))], "Unknown variation: kazoo"),
        (vec![("variation", json!("custom"))], "words of your own"),
        (vec![("flowstep", json!(0))], "Flowstep must be positive"),
        (vec![("flowstep", json!(-0.5))], "Flowstep must be positive"),
        (vec![("flowstep", json!("much"))], "Invalid flowstep value"),
        (vec![("flowstep", json!(1.5))], "Failed to process audio"),
        (vec![("solver", json!("rk4"))], "Invalid solver"),
        (vec![("session_id", json!("../../etc"))], "session id"),
        (vec![("variation", json!(7))], "variation"),
    ] {
        let (status, answer) = transform(&server, "/transform", &request(&change)).await;
        assert_eq!(status, 400, "{change:?}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{change:?}: {answer}");
    }
    for body in ["", "{", "[1]", "7"] {
        let mut answer = call(server.addr, "POST", "/transform", body).await;
        assert!(answer.status == 400 && answer.json().await["error"].is_string(), "{body}");
    }
    let mut broken = post_form(&server, "/transform", &[("variation", "celtic")], None).await;
    assert!(broken.status == 400 && broken.text().await.contains("No audio data"));
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
    let bare = start().await;
    let (status, answer) = transform(&bare, "/transform", &request(&[])).await;
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().contains("--transform-model facebook/melodyflow-t24-30secs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_its_transform_up() {
    let server =
        start_rendering(RenderModels::new(Presets::default(), Some(RenderLoader::new(transformer)), None)).await;
    let audio = base64(&wav(200 * 8000, 8000, 1));
    let body = json!({ "variation": "celtic", "session_id": "left", "audio": audio }).to_string();
    let head = format!("POST /transform HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let load = || server.app.studio().unwrap().load(Lane::Transforms);
    until(|| load() == (0, 1)).await;
    drop(socket);
    until(|| load() == (0, 0)).await;
    let session = get(server.addr, "/v1/sessions/left").await.json().await;
    let clip = get(server.addr, &format!("/v1/clips/{}", session["clips"][0].as_str().unwrap())).await.json().await;
    assert_eq!(clip["status"], "cancelled");
}
