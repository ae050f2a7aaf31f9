//! Names of streams: one of each, and none that is no name.

use futures_util::future::join_all;
use serde_json::json;

use super::client::{call, get};
use super::server::start;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_streams_made_under_one_name_at_the_same_time_one_is_refused() {
    let server = start().await;
    for round in 0..5 {
        let body = json!({"prompts": ["a"], "name": format!("lofi {round}")}).to_string();
        let answers = join_all((0..8).map(|_| call(server.addr, "POST", "/v1/streams", &body))).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
        for mut answer in answers.into_iter().filter(|answer| answer.status == 409) {
            assert!(answer.problem().await.contains("lofi"));
        }
    }
    assert_eq!(server.app.station.list().len(), 5);
    server.until_voices(5).await;
    // A name is free again when its stream is over.
    let first = server.app.station.list()[0].id.clone();
    assert_eq!(call(server.addr, "DELETE", &format!("/v1/streams/{first}"), "").await.status, 204);
    let again = json!({"prompts": ["a"], "name": "lofi 0"}).to_string();
    assert_eq!(call(server.addr, "POST", "/v1/streams", &again).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_name_is_refused_by_every_way_and_never_told_in_full() {
    let server = start().await;
    let clip = call(server.addr, "POST", "/v1/clips", r#"{"prompt": "a", "seconds": 1}"#).await.json().await;
    let clip = format!("/v1/clips/{}", clip["id"].as_str().unwrap());
    get(server.addr, &format!("{clip}/events")).await.text().await;
    let long = "x".repeat(900_000);
    for name in [long.as_str(), "two\nlines", "\u{0}", "", " ", "a\u{7f}"] {
        for (path, mut body) in
            [("/v1/streams".to_owned(), json!({"prompts": ["a"]})), (format!("{clip}/stream"), json!({}))]
        {
            body["name"] = json!(name);
            let mut refused = call(server.addr, "POST", &path, &body.to_string()).await;
            assert_eq!(refused.status, 422, "{path}");
            assert!(refused.problem().await.contains("`name`"));
        }
    }
    for (path, body) in [
        ("/v1/streams", json!({"prompts": ["a"], "model": long})),
        ("/v1/clips", json!({"prompt": "a", "verb": long})),
        ("/v1/models", json!({"model": format!("a\n{long}")})),
        ("/set_model", json!({"model": long})),
        ("/transform", json!({"variation": long, "session_id": "s", "audio": "UklGRg=="})),
        ("/api/juce/transform_audio", json!({"variation": long, "audio_data": "UklGRg=="})),
        ("/generate", json!({"prompt": "a 120bpm", "model_type": long})),
        ("/continue", json!({"task_id": long})),
    ] {
        let mut refused = call(server.addr, "POST", path, &body.to_string()).await;
        assert!((400..=501).contains(&refused.status), "{path}: {}", refused.status);
        let told = refused.text().await;
        assert!(told.len() < 3000 && !told.contains("\\n"), "{path}: {} bytes", told.len());
    }
    assert!(server.app.station.list().is_empty());
    assert_eq!(call(server.addr, "POST", &format!("{clip}/stream?wait=soon"), "{}").await.status, 400);
    assert_eq!(call(server.addr, "POST", &format!("{clip}/stream?wait=5"), r#"{"name": "fine"}"#).await.status, 201);
}
