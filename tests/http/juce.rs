//! The plug-in's day: plain HTTP, polled as the plug-in polls.

use std::time::Duration;

use continuo::audio::decode;
use continuo::engine::standin::Standin;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::units::SampleRate;
use serde_json::{Value, json};

use super::client::{PATIENCE, call, get};
use super::renders::models;
use super::server::{Server, start, start_on, start_rendering};

pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize] as char;
            text.push(if place <= three.len() { letter } else { '=' });
        }
    }
    text
}

pub fn bytes_of(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let number = four.iter().fold(0u32, |n, letter| n << 6 | u32::from(value(*letter)));
        let length = 3 - four.iter().filter(|letter| **letter == b'=').count();
        bytes.extend_from_slice(&number.to_be_bytes()[1..=length]);
    }
    bytes
}

fn sound_of(text: &str) -> Pcm {
    decode(bytes_of(text)).unwrap()
}

fn wav(seconds: usize) -> String {
    let pcm = (0..seconds * 44_100 * 2).map(|n| ((n / 2) as f32 * 0.02).sin() * 0.3).collect();
    base64(&Pcm { pcm, channels: 2, rate: SampleRate(44_100) }.wav())
}

async fn post(server: &Server, route: &str, body: &Value) -> (u16, Value) {
    let mut answer = call(server.addr, "POST", &format!("/api/juce/{route}"), &body.to_string()).await;
    (answer.status, answer.json().await)
}

/// Asks as the plug-in does until it is over; nothing stale may be told meanwhile.
async fn polled(server: &Server, session: &Value) -> Value {
    let path = format!("/api/juce/poll_status/{}", session.as_str().unwrap());
    let (mut progress, began) = (0, std::time::Instant::now());
    loop {
        let status = get(server.addr, &path).await.json().await;
        assert_eq!(status["success"], true, "{status}");
        for field in ["message", "position", "total_queued", "estimated_seconds", "status"] {
            assert!(!status["queue_status"][field].is_null(), "{field}");
        }
        if status["generation_in_progress"] == false && status["transform_in_progress"] == false {
            return status;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{status}");
        assert!(status["audio_data"].is_null() && !status["queue_status"]["status"].as_str().unwrap().is_empty());
        assert!(["queued", "warming", "processing"].contains(&status["status"].as_str().unwrap()), "{status}");
        let now = status["progress"].as_u64().unwrap();
        assert!((progress..100).contains(&now));
        progress = now;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn request(audio: Option<&str>, session: Option<&Value>) -> Value {
    let mut body = json!({
        "model_name": "standin", "prompt_duration": 6, "top_k": 250, "temperature": 1.0, "cfg_coef": 3.0,
        "description": "",
    });
    if let Some(audio) = audio {
        body["audio_data"] = audio.into();
    }
    if let Some(session) = session {
        body["session_id"] = session.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plug_in_bangs_continues_retries_undoes_and_crops() {
    let backend = Standin::default().with_step_time(Duration::from_micros(200));
    let server = start_on(backend, StationConfig::default(), |_| {}).await;
    assert_eq!(get(server.addr, "/health").await.json().await["status"], "live");
    let models = get(server.addr, "/api/models").await.json().await;
    assert_eq!((&models["success"], &models["models"]["small"][0]["path"]), (&json!(true), &json!("standin")));
    assert!(models["models"]["large"].as_array().unwrap().iter().any(|entry| entry["type"] == "group"));
    assert!(models["updated_at"].as_str().unwrap().starts_with("20"));

    let audio = wav(8);
    let (status, bang) = post(&server, "process_audio", &request(Some(&audio), None)).await;
    assert_eq!((status, &bang["success"]), (200, &json!(true)));
    let path = format!("/api/latest_generated_audio/{}", bang["session_id"].as_str().unwrap());
    assert!([200, 202].contains(&get(server.addr, &path).await.status));
    let done = polled(&server, &bang["session_id"]).await;
    assert_eq!((&done["status"], &done["progress"], &done["error"]), (&json!("completed"), &json!(100), &Value::Null));
    assert_eq!(sound_of(done["audio_data"].as_str().unwrap()).frames(), 30 * 44_100);
    let mut answer = get(server.addr, &path).await;
    assert_eq!((answer.status, &answer.json().await["audio_data"]), (200, &done["audio_data"]));
    let (status, none) = post(&server, "retry_music", &request(None, Some(&bang["session_id"]))).await;
    assert_eq!((status, &none["error"]), (400, &json!("No last input audio available for retry")));

    // As the plug-in does: without a session, with the whole sound.
    let (_, begun) = post(&server, "continue_music", &request(Some(&audio), None)).await;
    let session = begun["session_id"].clone();
    let (status, busy) = post(&server, "continue_music", &request(None, Some(&session))).await;
    assert_eq!((status, &busy), (400, &json!({"success": false, "error": "Generation already in progress"})));
    let longer = polled(&server, &session).await;
    assert_eq!(sound_of(longer["audio_data"].as_str().unwrap()).frames(), 32 * 44_100);
    let (_, retried) = post(&server, "retry_music", &json!({ "session_id": session })).await;
    assert_eq!(retried["session_id"], session);
    assert_eq!(polled(&server, &session).await["session_data"]["prompt_duration"], 6.0);
    let (_, undone) = post(&server, "undo_transform", &json!({ "session_id": session })).await;
    assert_eq!(undone["audio_data"], audio);
    let (_, cropped) = post(&server, "update_cropped_audio", &json!({ "audio_data": wav(2) })).await;
    assert_eq!(cropped["auto_created"], true);
    // The same through the prefix of the original, as a proxy would ask.
    let path = format!("/gary/api/juce/poll_status/{}", session.as_str().unwrap());
    assert_eq!(get(server.addr, &path).await.json().await["session_id"], session);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plug_in_transforms_undoes_and_retries_from_before() {
    let server = start_rendering(models()).await;
    let audio = wav(2);
    // As the plug-in does: without a session, with words of its own beside a name that it always
    // sends.
    let request = json!({
        "audio_data": audio, "variation": "accordion_folk", "custom_prompt": "a choir", "flowstep": 0.1, "solver": "euler",
    });
    let (status, begun) = post(&server, "transform_audio", &request).await;
    assert_eq!((status, &begun["success"]), (200, &json!(true)), "{begun}");
    let session = begun["session_id"].clone();
    let done = polled(&server, &session).await;
    assert_eq!((&done["status"], &done["progress"]), (&json!("completed"), &json!(100)));
    let other = sound_of(done["audio_data"].as_str().unwrap());
    assert_eq!((other.frames(), other.channels, other.rate.0), (2 * 44_100, 2, 44_100));
    assert_ne!(done["audio_data"], audio);
    // The session's own parameters are as they were.
    assert_eq!(done["session_data"]["prompt_duration"], 6.0);
    // Once more, from what the session has now; then back to that, byte for byte, as often as it is
    // asked.
    let again = json!({ "session_id": session, "variation": "celtic", "solver": "midpoint", "seed": 3 });
    assert_eq!(post(&server, "transform_audio", &again).await.0, 200);
    let twice = polled(&server, &session).await;
    assert_ne!(twice["audio_data"], done["audio_data"]);
    for _ in 0..2 {
        let (_, undone) = post(&server, "undo_transform", &json!({ "session_id": session })).await;
        assert_eq!(undone["audio_data"], done["audio_data"]);
    }
    // A retry goes on from the sound before the transform.
    let retry = json!({ "session_id": session, "prompt_duration": 1 });
    assert_eq!(post(&server, "retry_music", &retry).await.0, 200);
    let longer = sound_of(polled(&server, &session).await["audio_data"].as_str().unwrap());
    assert_eq!(longer.frames(), (2 - 1 + 30) * 44_100);
    assert_eq!(longer.pcm[..44_100], other.pcm[..44_100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_that_cannot_be_says_why() {
    let server = start_rendering(models()).await;
    let audio = wav(1);
    let request = |change: &[(&str, Value)]| {
        let mut body = json!({ "audio_data": audio, "variation": "celtic", "flowstep": 0.1 });
        for (name, value) in change {
            body[*name] = value.clone();
        }
        body
    };
    for (change, word) in [
        (vec![("variation", Value::Null)], "variation"),
        (vec![("variation", json!("kazoo"))], "kazoo"),
        (vec![("flowstep", json!(0))], "Flowstep must be positive"),
        (vec![("flowstep", json!("x"))], "Invalid flowstep value"),
        (vec![("solver", json!("rk4"))], "solver"),
        (vec![("audio_data", Value::Null)], "No audio data available"),
        (vec![("audio_data", Value::Null), ("session_id", json!("nobody"))], "No audio data available"),
        (vec![("audio_data", json!("abcde"))], "base64"),
        (vec![("audio_data", json!(base64(b"no music")))], "Failed to load audio"),
    ] {
        let (status, answer) = post(&server, "transform_audio", &request(&change)).await;
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{answer}");
    }
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
    let bare = start().await;
    let (status, answer) = post(&bare, "transform_audio", &request(&[])).await;
    assert_eq!(status, 503);
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("Connection refused") && error.contains("--transform-model"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_has_the_plug_ins_shape_and_leaves_nothing() {
    let server = start().await;
    let unknown = json!("6f1e9a52-1111-4222-8333-444455556666");
    for (route, body, status) in [
        ("process_audio", json!({}), 400),
        ("process_audio", request(Some("abcde"), None), 400),
        ("process_audio", request(Some(&base64(b"no music")), None), 400),
        ("process_audio", json!([1]), 400),
        ("continue_music", json!({}), 400),
        ("continue_music", request(None, Some(&unknown)), 404),
        ("retry_music", json!({}), 400),
        ("retry_music", request(None, Some(&unknown)), 404),
        ("undo_transform", json!({}), 400),
        ("undo_transform", json!({ "session_id": unknown }), 404),
        ("update_cropped_audio", json!({}), 400),
    ] {
        let (is, answer) = post(&server, route, &body).await;
        assert_eq!(is, status, "{route} {answer}");
        assert!(answer["success"] == false && answer["error"].as_str().is_some_and(|text| text.len() > 5), "{answer}");
    }
    let poll = format!("/api/juce/poll_status/{}", unknown.as_str().unwrap());
    let mut answer = get(server.addr, &poll).await;
    assert_eq!((answer.status, answer.json().await), (404, json!({"success": false, "error": "Session not found"})));
    let latest = format!("/api/latest_generated_audio/{}", unknown.as_str().unwrap());
    assert_eq!(get(server.addr, &latest).await.json().await["status"], "not_found");
    let mut broken = call(server.addr, "POST", "/api/juce/process_audio", "{").await;
    assert!(broken.status == 400 && broken.json().await["success"] == false);
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
}
