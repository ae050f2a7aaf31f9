//! Sounds that are none, or too much of one, by every way in: each surface refuses them in its own
//! shape, and nothing is left behind.

use std::path::Path;
use std::process::{Command, Stdio};

use continuo::audio::decode;
use continuo::pcm::Pcm;
use continuo::units::SampleRate;
use serde_json::{Value, json};

use super::client::{Answer, call, get, send};
use super::juce::base64;
use super::server::{Server, start};

fn silence(seconds: f64, rate: u32, channels: usize) -> Vec<u8> {
    let samples = (seconds * f64::from(rate)) as usize * channels;
    Pcm { pcm: vec![0.0; samples], channels, rate: SampleRate(rate) }.wav()
}

/// Ten hours of silence in some kilobytes.
fn ten_hours(folder: &Path) -> Vec<u8> {
    let path = folder.join("silence.flac");
    let silent = ["-v", "error", "-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "36000", "-frame_size", "16384"];
    assert!(Command::new("ffmpeg").args(silent).arg(&path).stdin(Stdio::null()).status().unwrap().success());
    let file = std::fs::read(path).unwrap();
    assert!(file.len() < 1 << 20);
    file
}

fn bad_sounds(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let good = silence(1.0, 32_000, 1);
    let mut impossible = good.clone();
    // Four million channels' worth of bytes a second.
    impossible[22..24].copy_from_slice(&u16::MAX.to_le_bytes());
    let mut nothing_but_a_header = good.clone();
    nothing_but_a_header.truncate(44);
    vec![
        ("text", b"this is no music".to_vec()),
        ("zeros", vec![0; 100_000]),
        ("zero length", silence(0.0, 44_100, 2)),
        ("a header alone", nothing_but_a_header),
        ("a header cut off", good[..20].to_vec()),
        ("too many channels", impossible),
        ("eleven minutes", silence(660.0, 4000, 1)),
        ("ten hours", ten_hours(folder)),
        ("a script", b"#EXTM3U\nhttp://127.0.0.1/x.wav\n".to_vec()),
    ]
}

async fn empty(server: &Server) -> bool {
    let store = server.app.studio.as_ref().unwrap().store();
    store.sessions(10).await.unwrap().is_empty() && store.bytes().await.unwrap() == 0
}

async fn raw(server: &Server, path: &str, body: &[u8]) -> Answer {
    let head = format!("POST {path} HTTP/1.1\nContent-Type: audio/wav\nContent-Length: {}", body.len());
    send(server.addr, &head, body).await
}

async fn json(server: &Server, path: &str, body: &Value) -> Answer {
    call(server.addr, "POST", path, &body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_sound_is_refused_by_every_surface_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start().await;
    for (what, bytes) in bad_sounds(folder.path()) {
        for path in ["/v1/clips", "/v1/clips?verb=bang", "/v1/sessions"] {
            let mut answer = raw(&server, path, &bytes).await;
            assert_eq!(answer.status, 422, "{what} at {path}");
            assert!(answer.problem().await.starts_with("Failed to load audio:"), "{what} at {path}");
        }
        let sound = base64(&bytes);
        let fields = json!({"audio_data": sound, "model_name": "standin", "prompt_duration": 6});
        for route in ["process_audio", "continue_music", "update_cropped_audio"] {
            let mut answer = json(&server, &format!("/api/juce/{route}"), &fields).await;
            assert_eq!(answer.status, 400, "{what} at {route}");
            let body = answer.json().await;
            assert!(body["success"] == false && body["error"].as_str().is_some_and(|text| text.len() > 20), "{body}");
        }
        for (path, fields, begins) in [
            ("/crop-audio", json!({"audioData": sound, "end": 1}), "Error cropping audio"),
            ("/combine-audio", json!({"audioClips": [sound]}), "Server error"),
        ] {
            let mut answer = json(&server, path, &fields).await;
            assert_eq!(answer.status, 400, "{what} at {path}");
            assert!(answer.text().await.starts_with(begins));
        }
        assert!(empty(&server).await, "{what} left something behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_on_and_cannot_be_made_says_so_to_whoever_polls() {
    let server = start().await;
    let sound = base64(&silence(8.0, 44_100, 1));
    let fields = json!({"audio_data": sound, "model_name": "nobody/has-it", "prompt_duration": 6});
    let begun = json(&server, "/api/juce/process_audio", &fields).await.json().await;
    let session = begun["session_id"].as_str().unwrap();
    let status = loop {
        let status = get(server.addr, &format!("/api/juce/poll_status/{session}")).await.json().await;
        if status["generation_in_progress"] == false {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((&status["success"], &status["status"]), (&json!(true), &json!("failed")));
    assert!(status["error"].as_str().unwrap().contains("nobody/has-it"), "{status}");
    // The session is free again.
    let fields = json!({"audio_data": sound, "model_name": "standin", "prompt_duration": 6, "session_id": session});
    assert_eq!(json(&server, "/api/juce/continue_music", &fields).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_piece_from_text_needs_no_word_about_a_prompt() {
    let server = start().await;
    for seconds in [1.0, 2.5, 6.0] {
        let mut taken = json(&server, "/v1/clips", &json!({"prompt": "lofi", "seconds": seconds})).await;
        assert_eq!(taken.status, 202, "{seconds} s");
        let place = taken.header("location").unwrap().to_owned();
        taken.json().await;
        get(server.addr, &format!("{place}/events")).await.text().await;
        let made = decode(get(server.addr, &format!("{place}/audio.wav")).await.body().await).unwrap();
        assert_eq!(made.frames(), (seconds * 32_000.0) as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_the_limit_is_413_in_each_shape() {
    let server = start().await;
    let length = (96 << 20) + 1;
    for path in ["/v1/clips", "/v1/sessions", "/api/juce/process_audio", "/continue", "/crop-audio"] {
        let head = format!("POST {path} HTTP/1.1\nExpect: 100-continue\nContent-Length: {length}");
        let mut answer = send(server.addr, &head, b"").await;
        assert_eq!(answer.status, 413, "{path}");
        assert!(answer.text().await.contains("larger"), "{path}");
    }
}
