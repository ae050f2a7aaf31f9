//! The same thing in the spellings of different clients: seeds and JSON.

use serde_json::{Value, json};

use super::client::{Answer, call, get, send};
use super::server::{Server, start};

async fn post(server: &Server, path: &str, body: &str) -> Answer {
    call(server.addr, "POST", path, body).await
}

/// What becomes of a seed on a route: the status, and the seed that was taken.
async fn seed_of(server: &Server, path: &str, before: &str, seed: &str) -> (u16, Option<u64>) {
    let mut answer = post(server, path, &format!("{{{before}, \"seed\": {seed}}}")).await;
    let status = answer.status;
    let view = answer.json().await;
    if let Some(id) = view["id"].as_str() {
        // It is not to be made.
        call(server.addr, "DELETE", &format!("{path}/{id}"), "").await;
    }
    (status, view["seed"].as_u64().or(view["sampling"]["seed"].as_u64()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_the_same_seeds_and_tells_them_exactly() {
    let server = start().await;
    let routes = [
        ("/v1/streams", r#""prompts": ["a"]"#, 201),
        ("/v1/clips", r#""prompt": "a", "seconds": 1"#, 202),
        // Without a model for loops a seed that is taken ends here.
        ("/v1/loops", r#""prompt": "a", "bpm": 120"#, 503),
    ];
    for (path, before, taken) in routes {
        for (sent, seed) in [
            ("0", 0),
            ("7.0", 7),
            ("1e9", 1_000_000_000),
            ("\"7\"", 7),
            ("\"7.0\"", 7),
            ("9007199254740993", (1 << 53) + 1),
            ("\"9007199254740993.0\"", (1 << 53) + 1),
            ("18446744073709551615", u64::MAX),
        ] {
            let told = (taken < 300).then_some(seed);
            assert_eq!(seed_of(&server, path, before, sent).await, (taken, told), "{path} {sent}");
        }
        for any in ["null", "-1", "\"-1\"", "-1.0", "\"\""] {
            let (status, seed) = seed_of(&server, path, before, any).await;
            assert_eq!(status, taken, "{path} {any}");
            assert!(taken > 300 || seed.unwrap() < 1 << 53, "{path} {any}: {seed:?}");
        }
        for wrong in ["7.5", "18446744073709551616", "true", "\"x\"", "[1]"] {
            assert_eq!(seed_of(&server, path, before, wrong).await.0, 422, "{path} {wrong}");
        }
    }
    let view = post(&server, "/v1/streams", r#"{"prompts": ["a"], "seed": 5}"#).await.json().await;
    let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
    for (seed, is_five) in [("null", true), ("-1", false), ("\"5.0\"", true)] {
        let change = format!(r#"{{"prompts": ["b"], "seed": {seed}}}"#);
        assert_eq!(call(server.addr, "PATCH", &place, &change).await.status, 200);
        let seed = get(server.addr, &place).await.json().await["sampling"]["seed"].as_u64().unwrap();
        assert_eq!(seed == 5, is_five, "{change}: {seed}");
    }
    // In queries and forms.
    for (seed, status) in [("7", 200), ("7.0", 200), ("1e9", 200), ("-1", 200), ("", 200), ("7.5", 400), ("x", 400)] {
        let path = format!("/generate?prompt=a&seconds=1&seed={seed}");
        assert_eq!(get(server.addr, &path).await.status, status, "{seed}");
        let path = format!("/v1/clips?prompt=a&seconds=1&seed={seed}");
        let status = if status == 200 { 202 } else { 422 };
        assert_eq!(post(&server, &path, "").await.status, status, "{seed}");
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\n--b\r\n\
            Content-Disposition: form-data; name=\"seed\"\r\n\r\n{seed}\r\n--b--\r\n"
        );
        let head = format!(
            "POST /v1/clips HTTP/1.1\nContent-Type: multipart/form-data; boundary=b\nContent-Length: {}",
            form.len()
        );
        assert_eq!(send(server.addr, &head, form.as_bytes()).await.status, status, "{seed}");
        let jerry = format!("prompt=warm+120bpm&return_format=base64&seed={seed}");
        let status = if status == 202 { 503 } else { 400 };
        assert_eq!(post(&server, "/generate/loop", &jerry).await.status, status, "{seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_a_byte_order_mark_or_half_an_emoji_is_read() {
    let server = start().await;
    let mark = "\u{feff}";
    for (path, body, status) in [
        ("/v1/streams", r#"{"prompts": ["a\ud83d"]}"#, 201),
        ("/v1/clips", r#"{"prompt": "\ude00 a", "seconds": 1}"#, 202),
        ("/generate", r#"{"prompts": ["a\ud83d b"]}"#, 200),
        ("/set_prompts", r#"{"prompts": ["\ud83d"]}"#, 200),
        ("/api/juce/undo_transform", r#"{"session_id": "s", "description": "\ud83d"}"#, 404),
        ("/task_notification", r#"{"session_id": "s", "status": "\ud83d"}"#, 200),
    ] {
        for body in [body.to_owned(), format!("{mark}{body}"), format!("{mark} \r\n{body}")] {
            assert_eq!(post(&server, path, &body).await.status, status, "{path} {body}");
        }
    }
    let titles: Vec<Value> = get(server.addr, "/v1/streams").await.json().await["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["prompts"][0]["text"].clone())
        .collect();
    assert!(titles.contains(&json!("a\u{fffd}")), "{titles:?}");
    // A text in which JSON is, as one client sends it.
    let inner = serde_json::to_string(r#"{"session_id": "s", "description": "\ud83d"}"#).unwrap();
    assert_eq!(post(&server, "/api/juce/undo_transform", &inner).await.status, 404);
    let utf16: Vec<u8> = "\u{feff}{\"prompts\": [\"é\"]}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let head = format!("POST /v1/streams HTTP/1.1\nContent-Length: {}", utf16.len());
    assert_eq!(send(server.addr, &head, &utf16).await.json().await["prompts"][0]["text"], "é");
}
