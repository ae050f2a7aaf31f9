//! Bodies that are not finished when they begin: nobody in between may collect them, and every end
//! is told.

use serde_json::{Value, json};

use super::client::{call, get, send};
use super::server::{start, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_unfinished_body_keeps_proxies_from_collecting_it() {
    let server = start().await;
    let stream = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let stream = format!("/v1/streams/{}", stream["id"].as_str().unwrap());
    let clip = call(server.addr, "POST", "/v1/clips", r#"{"prompt": "a", "seconds": 300}"#).await.json().await;
    let clip = format!("/v1/clips/{}", clip["id"].as_str().unwrap());
    let get = |path: &str| ("GET", path.to_owned(), "");
    for (method, path, body) in [
        get("/generate?prompt=a"),
        get("/generate?prompt=a&format=mp3"),
        get("/generate?prompt=a&format=wav&seconds=3"),
        ("HEAD", "/generate?prompt=a".to_owned(), ""),
        get(&format!("{stream}/audio.ogg")),
        ("HEAD", format!("{stream}/audio.mp3"), ""),
        get(&format!("{stream}/events")),
        ("HEAD", format!("{stream}/events"), ""),
        get(&format!("{clip}/events")),
        get(&format!("{clip}/live.wav")),
        get(&format!("{clip}/live.ogg")),
        ("POST", "/generate".to_owned(), r#"{"prompts": ["a"]}"#),
        ("POST", "/generate".to_owned(), r#"{"prompts": ["a", "b"], "mp3": true}"#),
        ("POST", "/generate/generate".to_owned(), r#"{"prompts": ["a"]}"#),
    ] {
        let answer = call(server.addr, method, &path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}");
        assert_eq!(answer.header("x-accel-buffering"), Some("no"), "{method} {path}");
        assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"), "{method} {path}");
    }
    let whole = call(server.addr, "GET", "/v1/models", "").await;
    assert_eq!(whole.header("x-accel-buffering"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_the_last_event_is_told_not_to_come_again() {
    let server = start().await;
    let clip = call(server.addr, "POST", "/v1/clips", r#"{"prompt": "a", "seconds": 1}"#).await.json().await;
    let clip = format!("/v1/clips/{}/events", clip["id"].as_str().unwrap());
    let stream = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let stream = format!("/v1/streams/{}", stream["id"].as_str().unwrap());
    let again = |path: &str| format!("GET {path} HTTP/1.1\nLast-Event-ID: end");
    // A stream that plays goes on for whoever says what.
    assert_eq!(send(server.addr, &again(&format!("{stream}/events")), b"").await.status, 200);
    let first = get(server.addr, &clip).await.text().await;
    assert_eq!(first.matches("id:end").count(), 1, "only the last event has an id: {first}");
    assert!(first.trim_end().rsplit("\n\n").next().unwrap().contains("id:end"), "{first}");
    assert!(first.rsplit("data:").next().unwrap().contains(&json!("completed").to_string()), "{first}");
    let mut over = send(server.addr, &again(&clip), b"").await;
    assert_eq!((over.status, over.body().await.len()), (204, 0));
    // Who has not seen it, does now.
    assert!(get(server.addr, &clip).await.text().await.contains("id:end"));
    let mut events = get(server.addr, &format!("{stream}/events")).await;
    let ended = server.app.station.get(stream.rsplit('/').next().unwrap()).unwrap();
    let begun = call(server.addr, "POST", &format!("{stream}/reset"), "").await.json().await;
    assert!(begun["at"] != Value::Null);
    assert_eq!(call(server.addr, "DELETE", &stream, "").await.status, 204);
    assert!(events.text().await.contains("id:end"));
    until(|| ended.has_ended()).await;
}
