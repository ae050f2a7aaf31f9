//! `/v1/streams`: a stream's life over plain requests.

use continuo::studio::Naming;
use serde_json::json;

use super::client::{call, get};
use super::server::{Server, loader, start, start_loading};

/// Creates a stream and gives its path.
async fn created(server: &Server, body: &str) -> String {
    let mut answer = call(server.addr, "POST", "/v1/streams", body).await;
    assert_eq!(answer.status, 201, "{body}");
    let place = answer.header("location").unwrap().to_owned();
    let view = answer.json().await;
    assert_eq!(place, format!("/v1/streams/{}", view["id"].as_str().unwrap()));
    assert_eq!(view["urls"]["ogg"], format!("{place}/audio.ogg"));
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_created_listed_shown_and_deleted() {
    let server = start().await;
    let body = r#"{"name": "Dusk", "prompts": ["a", {"text": "b", "weight": 0.5}], "guidance": 2.5, "seed": 9}"#;
    let place = created(&server, body).await;
    let shown = get(server.addr, &place).await.json().await;
    assert_eq!(shown["name"], "Dusk");
    assert_eq!(shown["prompts"], json!([{"text": "a", "weight": 1.0}, {"text": "b", "weight": 0.5}]));
    assert_eq!((&shown["sampling"]["seed"], &shown["sampling"]["guidance"]), (&json!(9), &json!(2.5)));
    let list = get(server.addr, "/v1/streams").await.json().await;
    assert_eq!(list["streams"].as_array().unwrap().len(), 1);
    assert_eq!(list["streams"][0]["id"], shown["id"]);

    let mut again = call(server.addr, "POST", "/v1/streams", r#"{"name": "Dusk", "prompts": ["c"]}"#).await;
    assert_eq!(again.status, 409);
    assert!(again.problem().await.contains("`Dusk`"));

    assert_eq!(call(server.addr, "DELETE", &place, "").await.status, 204);
    for (method, path) in [("GET", place.clone()), ("DELETE", place.clone()), ("POST", format!("{place}/pause"))] {
        let mut gone = call(server.addr, method, &path, "").await;
        assert_eq!(gone.status, 404, "{method} {path}");
        gone.problem().await;
    }
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_of_a_stream_can_be_heard_at_once() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let mut listeners = Vec::new();
    for (format, magic) in [("ogg", &b"OggS"[..]), ("wav", b"RIFF"), ("mp3", b"\xff")] {
        let mut answer = get(server.addr, &format!("{place}/audio.{format}?latency=low")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.some(3000).await.starts_with(magic), "{format}");
        listeners.push(answer);
    }
    assert_eq!(server.voices(), 1);
    assert_eq!(get(server.addr, &place).await.json().await["listeners"], 3);
    let mut wrong = get(server.addr, &format!("{place}/audio.flac")).await;
    assert_eq!(wrong.status, 404);
    wrong.problem().await;
    assert_eq!(get(server.addr, &format!("{place}/audio.ogg?seed=1")).await.status, 400);
    assert_eq!(get(server.addr, "/v1/streams/nobody/audio.ogg").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steer_says_when_it_is_heard() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let mut listener = get(server.addr, &format!("{place}/audio.ogg")).await;
    listener.some(5000).await;
    let change = r#"{"prompts": [{"text": "b", "weight": 2}], "ramp": 0.5, "temperature": 0.8, "top_k": 20}"#;
    let mut answer = call(server.addr, "PATCH", &place, change).await;
    assert_eq!(answer.status, 200);
    let first = answer.json().await;
    let shown = get(server.addr, &place).await.json().await;
    assert_eq!(shown["prompts"][0]["text"], "b");
    assert_eq!(shown["sampling"]["top_k"], 20);
    let at = first["at"].as_f64().unwrap();
    // A listener at the beginning has been given a burst of two seconds, which cannot be changed
    // any more.
    assert!(at > 0.0 && at < shown["playhead"].as_f64().unwrap() + 2.5, "at {at}: {shown}");

    let second = call(server.addr, "POST", &format!("{place}/reset"), "").await.json().await;
    assert!(second["epoch"].as_u64() > first["epoch"].as_u64());
    assert!(second["at"].as_f64().unwrap() >= at);
    listener.some(20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_change_changes_nothing() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let before = get(server.addr, &place).await.json().await;
    for (change, status, word) in [
        ("{}", 422, "Nothing would change"),
        ("nonsense", 400, "not JSON"),
        (r#"["a"]"#, 422, "array"),
        (r#"{"prompt": "a"}"#, 422, "unknown field `prompt`"),
        (r#"{"temperature": 9, "prompts": ["z"]}"#, 422, "`temperature`"),
        (r#"{"prompts": []}"#, 422, "no prompt"),
        (r#"{"ramp": 3}"#, 422, "`ramp`"),
        (r#"{"model": "nobody/none", "prompts": ["z"]}"#, 422, "nobody/none"),
    ] {
        let mut answer = call(server.addr, "PATCH", &place, change).await;
        let sentence = answer.problem().await;
        assert_eq!(answer.status, status, "{change}: {sentence}");
        assert!(sentence.contains(word), "{change}: {sentence}");
    }
    let after = get(server.addr, &place).await.json().await;
    assert_eq!((&before["prompts"], &before["sampling"]), (&after["prompts"], &after["sampling"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_stream_says_so_and_goes_on() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let mut listener = get(server.addr, &format!("{place}/audio.ogg?latency=low")).await;
    listener.some(1000).await;
    let paused = call(server.addr, "POST", &format!("{place}/pause"), "").await.json().await;
    assert_eq!(paused["state"], "paused");
    let resumed = call(server.addr, "POST", &format!("{place}/resume"), "").await.json().await;
    assert_eq!(resumed["state"], "playing");
    listener.some(30_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_moves_to_another_model_while_it_is_heard() {
    let server = start_loading(Naming::default(), loader).await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let mut listener = get(server.addr, &format!("{place}/audio.ogg")).await;
    listener.some(1000).await;
    let mut loaded = call(server.addr, "POST", "/v1/models", r#"{"model": "twin"}"#).await;
    assert_eq!(loaded.status, 200);
    assert_eq!(loaded.json().await["id"], "twin");
    let moved = call(server.addr, "PATCH", &place, r#"{"model": "twin"}"#).await;
    assert_eq!(moved.status, 200);
    assert_eq!(get(server.addr, &place).await.json().await["model"], "twin");
    listener.some(30_000).await;
}
