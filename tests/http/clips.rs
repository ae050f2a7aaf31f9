//! `/v1/clips` and `/v1/sessions`: a producer's day over plain requests.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Answer, PATIENCE, call, get, send};
use super::server::{Server, start, start_on};
use continuo::audio::decode;
use continuo::engine::standin::Standin;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::units::SampleRate;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn wav(seconds: usize, rate: u32, channels: usize) -> Vec<u8> {
    let pcm = (0..seconds * rate as usize * channels).map(|n| ((n / channels) as f32 * 0.02).sin() * 0.3).collect();
    Pcm { pcm, channels, rate: SampleRate(rate) }.wav()
}

async fn upload(server: &Server, path: &str, body: &[u8]) -> Answer {
    let head = format!("POST {path} HTTP/1.1\nContent-Type: audio/wav\nContent-Length: {}", body.len());
    send(server.addr, &head, body).await
}

async fn slow() -> Server {
    start_on(Standin::default().with_step_time(Duration::from_millis(2)), StationConfig::default(), |_| {}).await
}

/// Follows a clip's events to the end and gives all of them.
async fn followed(server: &Server, place: &str) -> Vec<Value> {
    let text = get(server.addr, &format!("{place}/events")).await.text().await;
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

async fn sound(server: &Server, path: &str) -> Pcm {
    let mut answer = get(server.addr, path).await;
    assert_eq!(answer.status, 200, "{path}");
    decode(answer.body().await).unwrap()
}

async fn taken_on(answer: &mut Answer) -> (String, Value) {
    assert_eq!(answer.status, 202);
    let place = answer.header("location").unwrap().to_owned();
    let view = answer.json().await;
    assert_eq!(place, format!("/v1/clips/{}", view["id"].as_str().unwrap()));
    (place, view)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_is_made_from_text_and_fetched_in_every_format() {
    let server = start().await;
    let body = r#"{"prompt": "lofi piano", "seconds": 12.5, "seed": 7, "top_k": 50}"#;
    let (place, view) = taken_on(&mut call(server.addr, "POST", "/v1/clips", body).await).await;
    assert_eq!((&view["verb"], &view["seed"], &view["sampling"]["top_k"]), (&json!("generate"), &json!(7), &json!(50)));
    let events = followed(&server, &place).await;
    let last = events.last().unwrap();
    assert_eq!((&last["status"], &last["progress"]), (&json!("completed"), &json!(100)));
    let made = sound(&server, last["urls"]["wav"].as_str().unwrap()).await;
    assert_eq!((made.frames(), made.rate.0), (400_000, 32_000));
    for format in ["flac", "ogg", "mp3"] {
        if format == "mp3" && !cfg!(feature = "mp3") {
            continue;
        }
        let other = sound(&server, last["urls"][format].as_str().unwrap()).await;
        assert!((other.seconds() - 12.5).abs() < 0.1, "{format}: {} s", other.seconds());
    }
    let list = get(server.addr, "/v1/clips").await.json().await;
    assert_eq!(list["clips"][0]["id"], view["id"]);
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"][0]["id"], view["session"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_is_continued_retried_undone_cropped_and_removed() {
    let server = start().await;
    let bytes = wav(10, 44_100, 1);
    // As a form.
    let mut form = b"--B\r\nContent-Disposition: form-data; name=\"prompt_seconds\"\r\n\r\n4\r\n\
        --B\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"a.wav\"\r\n\r\n"
        .to_vec();
    form.extend(&bytes);
    form.extend(b"\r\n--B--\r\n");
    let head = format!(
        "POST /v1/clips HTTP/1.1\nContent-Type: multipart/form-data; boundary=B\nContent-Length: {}",
        form.len()
    );
    let (place, view) = taken_on(&mut send(server.addr, &head, &form).await).await;
    assert_eq!(view["verb"], "continue");
    assert_eq!(followed(&server, &place).await.last().unwrap()["status"], "completed");
    let longer = sound(&server, &format!("{place}/audio.wav")).await;
    assert_eq!((longer.frames(), longer.channels, longer.rate.0), (36 * 44_100, 2, 44_100));

    let session = format!("/v1/sessions/{}", view["session"].as_str().unwrap());
    let (retry, view) = taken_on(&mut call(server.addr, "POST", &format!("{session}/retry"), "").await).await;
    assert_eq!((&view["verb"], &view["prompt_seconds"]), (&json!("retry"), &json!(4.0)));
    assert_eq!(followed(&server, &retry).await.last().unwrap()["status"], "completed");
    assert_eq!(sound(&server, &format!("{session}/audio.wav")).await.frames(), 36 * 44_100);

    let shown = call(server.addr, "POST", &format!("{session}/undo"), "").await.json().await;
    assert_eq!(shown["clips"].as_array().unwrap().len(), 2);
    assert_eq!(get(server.addr, &format!("{session}/audio.wav")).await.body().await, bytes);
    let crop = call(server.addr, "POST", &format!("{session}/crop"), r#"{"from": 1, "to": 3.5}"#).await;
    assert_eq!(crop.status, 200);
    assert_eq!(sound(&server, &format!("{session}/audio.wav")).await.frames(), 110_250);
    assert_eq!(call(server.addr, "POST", &format!("{session}/crop"), r#"{"from": 99}"#).await.status, 422);

    let pinned = call(server.addr, "PATCH", &session, r#"{"pinned": true}"#).await.json().await;
    assert_eq!(pinned["pinned"], true);
    assert_eq!(call(server.addr, "DELETE", &session, "").await.status, 204);
    for path in [session.clone(), format!("{session}/audio.wav"), place, retry] {
        assert_eq!(get(server.addr, &path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sound_of_a_session_is_a_clip_that_one_can_go_back_to() {
    let server = start().await;
    let begun = upload(&server, "/v1/sessions", &wav(6, 44_100, 1)).await.json().await;
    let session = format!("/v1/sessions/{}", begun["id"].as_str().unwrap());
    let of_session = async || {
        let path = format!("/v1/clips?session={}", begun["id"].as_str().unwrap());
        get(server.addr, &path).await.json().await["clips"].as_array().unwrap().clone()
    };
    let first = begun["clip"].clone();
    let clips = of_session().await;
    assert_eq!(
        (&clips[0]["id"], &clips[0]["verb"], &clips[0]["status"]),
        (&first, &json!("upload"), &json!("completed"))
    );
    let crop = format!("{session}/crop");
    let cropped = call(server.addr, "POST", &crop, r#"{"to": 4}"#).await.json().await;
    assert_eq!(cropped["clips"].as_array().unwrap().len(), 2);
    assert_ne!(cropped["clip"], first);
    let clips = of_session().await;
    assert_eq!((&clips[0]["verb"], &clips[0]["parent"], clips.len()), (&json!("crop"), &first, 2));

    // Back to the first sound, which a piece is added to.
    let back = json!({ "clip": first }).to_string();
    assert_eq!(call(server.addr, "PATCH", &session, &back).await.json().await["clip"], first);
    let go_on = format!("{session}/continue");
    let body = r#"{"prompt_seconds": 2, "seconds": 5}"#;
    let (place, view) = taken_on(&mut call(server.addr, "POST", &go_on, body).await).await;
    assert_eq!((&view["parent"], &view["name"]), (&first, &Value::Null));
    followed(&server, &place).await;
    assert_eq!(get(server.addr, &session).await.json().await["clip"], view["id"]);
    assert_eq!(sound(&server, &format!("{place}/audio.wav")).await.frames(), 9 * 44_100);
    let named = call(server.addr, "PATCH", &place, r#"{"name": "take one"}"#).await.json().await;
    assert_eq!(named["name"], "take one");
    assert_eq!(of_session().await[0]["name"], "take one");

    // A new piece from words in the same session.
    let body = json!({ "verb": "generate", "prompt": "pads", "seconds": 2, "session": begun["id"] }).to_string();
    let (other, view) = taken_on(&mut call(server.addr, "POST", "/v1/clips", &body).await).await;
    followed(&server, &other).await;
    assert_eq!((&view["session"], &view["parent"]), (&begun["id"], &Value::Null));
    assert_eq!(of_session().await.len(), 4);

    let stranger = upload(&server, "/v1/sessions", &wav(1, 32_000, 1)).await.json().await;
    for (body, status) in [
        (json!({ "clip": stranger["clip"] }), 404),
        (json!({ "clip": "nobody" }), 404),
        (json!({}), 422),
        (json!({ "clop": 1 }), 422),
    ] {
        assert_eq!(call(server.addr, "PATCH", &session, &body.to_string()).await.status, status, "{body}");
    }
    assert_eq!(call(server.addr, "PATCH", &place, r#"{"name": ""}"#).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_is_drawn_once_with_its_tempo_and_its_loudness() {
    let server = start().await;
    let begun = upload(&server, "/v1/sessions", &wav(3, 32_000, 2)).await.json().await;
    let paths = [("clips", &begun["clip"]), ("sessions", &begun["id"])];
    for path in paths.map(|(kind, id)| format!("/v1/{kind}/{}/peaks", id.as_str().unwrap())) {
        let mut answer = get(server.addr, &path).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let tag = answer.header("etag").unwrap().to_owned();
        let drawn = answer.json().await;
        assert_eq!((&drawn["version"], &drawn["bits"], &drawn["seconds"]), (&json!(2), &json!(8), &json!(3.0)));
        let data = drawn["data"].as_array().unwrap();
        assert_eq!((data.len(), &drawn["length"]), (1200, &json!(600)));
        assert!(data.iter().all(|value| value.as_i64().unwrap().abs() <= 39), "the tone has a level of 0.3");
        assert!(drawn["loudness"].as_f64().unwrap() < -10.0 && drawn["true_peak"].as_f64().unwrap() < -10.0);
        let head = format!("GET {path} HTTP/1.1\nIf-None-Match: {tag}");
        assert_eq!(send(server.addr, &head, b"").await.status, 304);
    }
    assert_eq!(get(server.addr, "/v1/clips/nobody/peaks").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_a_session_hears_of_every_change_and_every_step() {
    let server = start().await;
    let begun = upload(&server, "/v1/sessions", &wav(4, 32_000, 1)).await.json().await;
    let session = format!("/v1/sessions/{}", begun["id"].as_str().unwrap());
    let mut events = get(server.addr, &format!("{session}/events")).await;
    let mut told = String::new();
    // Steps and changes are told side by side: in which order is not said.
    let mut until = async |what: &str, times: usize| {
        let begun = std::time::Instant::now();
        while told.matches(what).count() < times {
            assert!(begun.elapsed() < PATIENCE, "{what} is not told {times} times: {told}");
            told.push_str(&String::from_utf8(events.piece().await.expect("it goes on")).unwrap());
        }
    };
    until("event:session", 1).await;
    let body = r#"{"prompt_seconds": 2, "seconds": 4}"#;
    let (place, view) = taken_on(&mut call(server.addr, "POST", &format!("{session}/continue"), body).await).await;
    until(r#""status":"running""#, 1).await;
    until(r#""status":"completed""#, 1).await;
    until(&format!(r#""clip":{}"#, view["id"]), 1).await;
    // At first, with the clip, with its end, and with its name.
    until("event:session", 3).await;
    call(server.addr, "PATCH", &place, r#"{"name": "take one"}"#).await;
    until("event:session", 4).await;
    assert_eq!(get(server.addr, "/v1/sessions/nobody/events").await.status, 404);
    // It ends with the session.
    assert_eq!(call(server.addr, "DELETE", &session, "").await.status, 204);
    while events.piece().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_is_heard_while_it_is_made_and_can_be_given_up() {
    let server = slow().await;
    let mut answer = upload(&server, "/v1/clips?verb=bang&prompt_seconds=2", &wav(8, 32_000, 1)).await;
    let (place, _) = taken_on(&mut answer).await;
    let mut live = get(server.addr, &format!("{place}/live.wav")).await;
    let heard = live.some(64_000).await;
    assert!(heard.starts_with(b"RIFF"));
    assert_eq!(get(server.addr, &format!("{place}/audio.wav")).await.status, 409);
    let ended = call(server.addr, "DELETE", &place, "").await.json().await;
    assert_eq!(ended["status"], "cancelled");
    // Its listener's body ends properly, and the engine is free.
    live.body().await;
    server.until_voices(0).await;
    assert_eq!(call(server.addr, "DELETE", &place, "").await.json().await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_clip_is_heard_as_it_will_be() {
    let server = slow().await;
    for (verb, format, exact) in [("continue", "wav", true), ("continue", "ogg", false), ("bang", "wav", true)] {
        let path = format!("/v1/clips?verb={verb}&prompt_seconds=3&seconds=6");
        let (place, _) = taken_on(&mut upload(&server, &path, &wav(10, 44_100, 1)).await).await;
        let mut live = get(server.addr, &format!("{place}/live.{format}")).await;
        assert_eq!((live.status, live.header("cache-control")), (200, Some("no-store, no-transform")));
        if verb == "continue" {
            // What is there before the piece is heard while the piece is made.
            live.some(20_000).await;
            assert_eq!(get(server.addr, &format!("{place}/audio.wav")).await.status, 409);
        }
        let mut live = get(server.addr, &format!("{place}/live.{format}")).await;
        let heard = decode(live.body().await).unwrap();
        followed(&server, &place).await;
        let result = sound(&server, &format!("{place}/audio.wav")).await;
        assert_eq!(heard.channels, result.channels, "{verb} {format}");
        if exact {
            assert_eq!((heard.rate, heard.frames()), (result.rate, result.frames()), "{verb}");
            let worst = heard.pcm.iter().zip(&result.pcm).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{verb}: off by {worst}");
        } else {
            assert!((heard.seconds() - result.seconds()).abs() < 0.01, "{} s", heard.seconds());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_becomes_an_endless_stream() {
    let server = start().await;
    let body = r#"{"prompt": "dub", "seconds": 5, "prompt_seconds": 1}"#;
    let (place, _) = taken_on(&mut call(server.addr, "POST", "/v1/clips", body).await).await;
    followed(&server, &place).await;
    let mut made = call(server.addr, "POST", &format!("{place}/stream"), r#"{"name": "on and on"}"#).await;
    assert_eq!(made.status, 201);
    let stream = made.json().await;
    assert_eq!((&stream["name"], &stream["prompts"][0]["text"]), (&json!("on and on"), &json!("dub")));
    let mut audio = get(server.addr, stream["urls"]["ogg"].as_str().unwrap()).await;
    assert!(audio.some(20_000).await.starts_with(b"OggS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_a_sentence_and_leave_nothing() {
    let server = start().await;
    for (path, body, status, word) in [
        ("/v1/clips", &b"{"[..], 400, "not JSON"),
        ("/v1/clips?verb=bang", b"no music", 422, "cannot be read"),
        ("/v1/clips?verb=sing", b"no music", 422, "`sing`"),
        ("/v1/clips?verb=generate", b"RIFF", 422, "from text alone"),
        ("/v1/clips?verb=continue", b"", 422, "no audio data"),
        ("/v1/clips?session=../x", b"RIFF", 422, "session id"),
        ("/v1/clips?session=nobody&verb=continue", b"", 404, "nobody"),
        ("/v1/clips?seconds=9999", b"", 422, "seconds"),
        ("/v1/clips?seconds=soon", b"", 422, "`soon`"),
        ("/v1/clips?seconds=inf", b"", 422, "`seconds` is inf"),
        ("/v1/clips?seed=7.5", b"", 422, "`7.5`"),
        ("/v1/clips", br#"{"seed": 7.5}"#, 422, "`seed` is 7.5"),
        ("/v1/clips", br#"{"seconds": [4]}"#, 422, "`[4]`"),
        ("/v1/clips", b"", 422, "what to make"),
        ("/v1/clips", b"{}", 422, "what to make"),
        ("/v1/clips?tempo=120", b"", 400, "tempo"),
        ("/v1/sessions", b"", 422, "begins with a sound"),
        ("/v1/sessions/nobody/retry", b"", 404, "nobody"),
        ("/v1/sessions/nobody/undo", b"", 404, "nobody"),
        ("/v1/clips/nobody/stream", b"", 404, "nobody"),
    ] {
        let kind = if body.starts_with(b"{") { "application/json" } else { "audio/wav" };
        let head = format!("POST {path} HTTP/1.1\nContent-Type: {kind}\nContent-Length: {}", body.len());
        let mut answer = send(server.addr, &head, body).await;
        assert_eq!(answer.status, status, "{path}");
        let sentence = answer.problem().await;
        assert!(sentence.to_lowercase().contains(word) || sentence.contains(word), "{path}: {sentence}");
    }
    assert_eq!(get(server.addr, "/v1/clips/nobody").await.status, 404);
    assert_eq!(get(server.addr, "/v1/clips").await.json().await["clips"], json!([]));
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_whose_client_hangs_up_is_made_or_was_never_taken_on() {
    let server = start().await;
    let body = r#"{"prompt": "x", "seconds": 1}"#;
    let request = format!("POST /v1/clips HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for n in 0..60 {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(100 * n)).await;
        // Closed with a reset, as a program that is killed does it.
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let began = std::time::Instant::now();
    loop {
        let clips = get(server.addr, "/v1/clips").await.json().await;
        let clips = clips["clips"].as_array().unwrap();
        if !clips.is_empty() && clips.iter().all(|clip| clip["status"] == "completed") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{clips:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
