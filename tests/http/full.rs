//! A machine that has no room for one more stream.

use std::time::Duration;

use continuo::engine::standin::Standin;
use continuo::station::{StationConfig, StreamState};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::client::{PATIENCE, call, get};
use super::server::{start_on, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_go_on_says_so_to_whoever_wants_to_hear_it() {
    // One voice is more than it can do.
    let backend = Standin::default().with_step_time(Duration::from_millis(25));
    let server = start_on(backend, StationConfig { grace: 0.05, ..StationConfig::default() }, |_| {}).await;
    let body = r#"{"name": "Dusk", "prompts": ["a"]}"#;
    let view = call(server.addr, "POST", "/v1/streams", body).await.json().await;
    let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
    let state = || server.app.station.named("Dusk").unwrap().info().state;
    until(|| state() == StreamState::Idle).await;
    let other = get(server.addr, "/generate?prompt=b").await;
    assert_eq!(other.status, 200);

    for path in [format!("{place}/audio.ogg"), "/generate?station=Dusk".into()] {
        let mut refused = get(server.addr, &path).await;
        assert_eq!(refused.status, 429, "{path}");
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        assert!(refused.problem().await.contains("full"), "{path}");
    }
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://test{place}/ws"), tcp).await.unwrap();
    let mut next = async || timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    let Message::Text(text) = next().await else { panic!("no reason is given") };
    let error: Value = serde_json::from_str(text.as_str()).unwrap();
    assert_eq!((&error["type"], &error["status"]), (&"error".into(), &429.into()));
    assert!(error["retry_after"].as_u64().unwrap() > 0, "{error}");
    let Message::Close(Some(close)) = next().await else { panic!("the socket stays open") };
    assert!(close.code == CloseCode::Again && close.reason.contains("try again in"), "{close:?}");
    assert_eq!(state(), StreamState::Idle);

    drop(other);
    server.until_voices(1).await;
    let listener = get(server.addr, &format!("{place}/audio.ogg")).await;
    assert_eq!(listener.status, 200);
    until(|| state() == StreamState::Buffering).await;
    let shown = get(server.addr, &place).await.json().await;
    assert!(shown["buffer_target"].as_f64().unwrap() > 1.0, "{shown}");
    let models = get(server.addr, "/v1/models").await.json().await;
    assert!(models["models"][0]["realtime_factor"].as_f64().unwrap() < 1.0, "{models}");
    let ready = get(server.addr, "/readyz").await.json().await;
    assert_eq!((&ready["behind_seconds"], &ready["waiting_streams"]), (&0.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_wait_in_line_for_a_place() {
    // One voice is more than it can do.
    let backend = Standin::default().with_step_time(Duration::from_millis(25));
    let server = start_on(backend, StationConfig::default(), |_| {}).await;
    let first = get(server.addr, "/generate?prompt=a").await;
    assert_eq!(get(server.addr, "/generate?prompt=b").await.status, 429, "without `wait` it is refused");
    for wait in ["-1", "601", "long"] {
        let mut refused = get(server.addr, &format!("/generate?prompt=b&wait={wait}")).await;
        assert_eq!(refused.status, 400);
        assert!(refused.problem().await.contains("`wait`"));
    }
    let mut impatient = get(server.addr, "/generate?prompt=b&wait=0.2").await;
    assert_eq!((impatient.status, impatient.header("retry-after").is_some()), (503, true));
    assert!(impatient.problem().await.starts_with("No room came free"));

    let view = call(server.addr, "POST", "/v1/streams?wait=300", r#"{"prompts": ["c"]}"#).await.json().await;
    assert_eq!(view["state"], "queued", "{view}");
    let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
    let (addr, path) = (server.addr, format!("{place}/audio.ogg"));
    let listener = tokio::spawn(async move { get(addr, &path).await.status });
    let shown = async || get(server.addr, &place).await.json().await;
    let stream = server.app.station.get(view["id"].as_str().unwrap()).unwrap();
    until(|| stream.info().waiting.is_some_and(|waiting| waiting.before == Some(0))).await;
    assert_eq!(shown().await["waiting"]["before"], 0);
    assert!(!listener.is_finished());
    drop(first);
    assert_eq!(timeout(PATIENCE, listener).await.unwrap().unwrap(), 200);
    let shown = shown().await;
    assert!(shown["state"] != "queued" && shown["waiting"].is_null(), "{shown}");
}
