//! Who listens, as operators and Icecast's widgets see it.

use serde_json::{Value, json};

use super::client::{call, get, send};
use super::server::{start, until};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_all_formats_are_counted_from_coming_to_going() {
    let server = start().await;
    let made = call(server.addr, "POST", "/v1/streams", r#"{"name": "lofi", "prompts": ["piano"]}"#).await.json().await;
    let path = format!("/v1/streams/{}", made["id"].as_str().unwrap());
    let mut listeners = Vec::new();
    for file in ["audio.ogg", "audio.mp3", "audio.mp3?kbps=64", "audio.wav"] {
        let mut listener = get(server.addr, &format!("{path}/{file}")).await;
        listener.some(1000).await;
        listeners.push(listener);
    }
    let stats = get(server.addr, "/v1/stats").await.json().await;
    assert_eq!(stats["listeners"], 4);
    let stream = &stats["streams"][0];
    assert_eq!((&stream["name"], &stream["title"], &stream["peak"]), (&json!("lofi"), &json!("piano"), &json!(4)));
    let formats: Vec<&Value> = stream["open"].as_array().unwrap().iter().map(|open| &open["format"]).collect();
    assert_eq!(formats, ["ogg", "mp3", "mp3", "wav"]);
    assert!(stream["open"].as_array().unwrap().iter().all(|open| open["seconds"].as_f64().unwrap() > 0.0));
    assert_eq!(stream["formats"]["mp3"], json!({"listeners": 2, "peak": 2}));

    listeners.truncate(1);
    let left = server.app.station.named("lofi").unwrap();
    until(|| left.sessions().open.len() == 1).await;
    let stats = get(server.addr, "/v1/stats").await.json().await;
    let stream = &stats["streams"][0];
    assert_eq!((&stream["peak"], &stream["begun"], &stream["listeners"]), (&json!(4), &json!(4), &json!(1)));
    assert!(stream["listened_seconds"].as_f64().unwrap() > 0.0);
    let metrics = get(server.addr, "/metrics").await.text().await;
    assert!(metrics.contains("continuo_session_seconds_count{format=\"wav\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stations_are_mounts_where_icecasts_status_is_expected() {
    let server = start().await;
    let sources = async || {
        let head = "GET /status-json.xsl HTTP/1.1\nX-Forwarded-Host: radio.example\nX-Forwarded-Proto: https";
        send(server.addr, head, b"").await.json().await["icestats"]["source"].clone()
    };
    assert_eq!(sources().await, Value::Null);
    for body in [r#"{"prompts": ["private"]}"#, r#"{"name": "lo fi", "prompts": ["piano"]}"#] {
        assert_eq!(call(server.addr, "POST", "/v1/streams", body).await.status, 201);
    }
    let mut listener = get(server.addr, "/generate?station=lo+fi&format=mp3").await;
    listener.some(1000).await;
    let sources = sources().await;
    let urls: Vec<&Value> = sources.as_array().unwrap().iter().map(|source| &source["listenurl"]).collect();
    assert!(urls.contains(&&json!("https://radio.example/generate?station=lo+fi&format=ogg")), "{sources}");
    let mp3 = sources.as_array().unwrap().iter().find(|source| source["server_type"] == "audio/mpeg").unwrap();
    assert_eq!((&mp3["listeners"], &mp3["title"], &mp3["server_name"]), (&json!(1), &json!("piano"), &json!("lo fi")));
    let url = mp3["listenurl"].as_str().unwrap().strip_prefix("https://radio.example").unwrap();
    assert_eq!(get(server.addr, url).await.status, 200);
}
