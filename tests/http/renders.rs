//! `/v1/transforms` and `/v1/loops`, with tiny checkpoints.

use std::path::Path;

use candle_core::Device;
use continuo::audio::decode;
use continuo::engine::standin::looper;
use continuo::engine::{RenderLoader, RenderModel};
use continuo::model::Files;
use continuo::model::melodyflow::MelodyFlow;
use continuo::model::weights::Target;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::studio::{Presets, RenderModels};
use continuo::units::SampleRate;
use serde_json::Value;

use super::client::{PATIENCE, call, get, send};
use super::server::{Server, start, start_rendering, start_with};

fn transformer() -> Result<RenderModel, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/melodyflow");
    let t5 = Files::Folder(folder.join("t5"));
    let target = Target::new(&Device::Cpu);
    let model = MelodyFlow::load(&Files::Folder(folder), &|_| Ok(t5.clone()), &target);
    Ok(model.map_err(|error| error.to_string())?)
}

/// The models of a server.
pub fn models() -> RenderModels {
    RenderModels::new(
        Presets::default(),
        Some(RenderLoader::new(transformer)),
        Some(RenderLoader::new(|| looper(8000))),
    )
}

async fn server() -> Server {
    start_rendering(models()).await
}

/// Follows a piece of work to its end.
async fn ended(server: &Server, place: &str) -> Value {
    let began = std::time::Instant::now();
    loop {
        let state = get(server.addr, place).await.json().await;
        if state["state"] != "working" {
            return state;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{state}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_transformed_and_keeps_its_length() {
    let server = server().await;
    let presets = get(server.addr, "/v1/transforms").await.json().await;
    assert_eq!(presets["presets"].as_array().unwrap().len(), 33);
    let pcm: Vec<f32> = (0..44_100).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
    let body = Pcm { pcm, channels: 1, rate: SampleRate(44_100) }.wav();
    let path = "/v1/transforms?preset=strings_quartet&steps=2&seed=5";
    let head = format!("POST {path} HTTP/1.1\nContent-Type: audio/wav\nContent-Length: {}", body.len());
    let mut answer = send(server.addr, &head, &body).await;
    assert_eq!(answer.status, 202);
    let view = answer.json().await;
    let place = view["href"].as_str().unwrap().to_owned();
    let state = ended(&server, &place).await;
    assert_eq!((state["state"].as_str(), state["frames"].as_u64()), (Some("done"), Some(48_000)), "{state}");
    let sound = decode(get(server.addr, &format!("{place}/audio.wav")).await.body().await).unwrap();
    assert_eq!((sound.frames(), sound.channels, sound.rate.0), (48_000, 2, 48_000));
    assert_eq!(call(server.addr, "DELETE", &place, "").await.status, 204);
    assert_eq!(get(server.addr, &place).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_has_the_length_of_its_bars() {
    let server = server().await;
    let body = r#"{"prompt": "warm pads", "bpm": 120, "bars": 2, "steps": 2, "seed": 9, "key": "a minor"}"#;
    let mut answer = call(server.addr, "POST", "/v1/loops", body).await;
    assert_eq!(answer.status, 202);
    let place = answer.json().await["href"].as_str().unwrap().to_owned();
    let state = ended(&server, &place).await;
    assert_eq!((state["state"].as_str(), state["frames"].as_u64()), (Some("done"), Some(4 * 8000)), "{state}");
    let sound = decode(get(server.addr, &format!("{place}/audio.flac")).await.body().await).unwrap();
    assert_eq!((sound.frames(), sound.channels), (32_000, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_wishes_get_one_sentence_that_says_what_to_do() {
    let server = server().await;
    for (path, body, what) in [
        ("/v1/transforms?preset=kazoo", "x", "no preset `kazoo`"),
        ("/v1/transforms", "x", "preset=NAME"),
        ("/v1/transforms?preset=celtic", "", "--data-binary"),
        ("/v1/transforms?preset=celtic&flowstep=x", "RIFF", "`flowstep` is `x`"),
        ("/v1/transforms?preset=celtic&solver=rk4", "x", "`rk4`"),
        ("/v1/loops", r#"{"prompt": "x", "bpm": 60, "bars": 8}"#, "take 2 bars"),
        ("/v1/loops", r#"{"prompt": " ", "bpm": 60}"#, "`prompt` is empty"),
    ] {
        let mut answer = call(server.addr, "POST", path, body).await;
        let problem = answer.text().await;
        assert!((400..500).contains(&answer.status) && problem.contains(what), "{path}: {} {problem}", answer.status);
    }
    assert_eq!(get(server.addr, "/v1/loops/6d0f4a30-0000-4000-8000-000000000000").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_weights_the_answer_says_how_to_get_them() {
    let server = start().await;
    let body = Pcm { pcm: vec![0.1; 48_000], channels: 1, rate: SampleRate(48_000) }.wav();
    let head = format!("POST /v1/transforms?preset=celtic HTTP/1.1\nContent-Length: {}", body.len());
    let transform = send(server.addr, &head, &body).await.text().await;
    assert!(transform.contains("--transform-model facebook/melodyflow-t24-30secs"), "{transform}");
    let body = r#"{"prompt": "x", "bpm": 120}"#;
    let made = call(server.addr, "POST", "/v1/loops", body).await.text().await;
    assert!(made.contains("--loop-model stabilityai/stable-audio-open-small"), "{made}");
    // A server without the service at all answers too.
    let bare = start_with(StationConfig::default(), |app| app.studio = None).await;
    assert_eq!(get(bare.addr, "/v1/transforms").await.status, 503);
}
