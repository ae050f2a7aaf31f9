//! The WebSocket and the events of a stream, and the last page of everything.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::client::{PATIENCE, call, get, send};
use super::server::{Server, start, until};

type Socket = WebSocketStream<TcpStream>;

async fn created(server: &Server) -> String {
    let view = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    format!("/v1/streams/{}", view["id"].as_str().unwrap())
}

async fn connect(server: &Server, path: &str) -> Socket {
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://test{path}"), tcp).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Message {
    timeout(PATIENCE, socket.next()).await.expect("a message in time").expect("a message").unwrap()
}

/// Sends a command and reads on until its answer.
async fn ask(socket: &mut Socket, command: Value) -> Value {
    let id = command["id"].clone();
    socket.send(Message::text(command.to_string())).await.unwrap();
    loop {
        if let Message::Text(text) = next(socket).await {
            let answer: Value = serde_json::from_str(text.as_str()).unwrap();
            if matches!(answer["type"].as_str(), Some("ack" | "error")) && answer["id"] == id {
                return answer;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_and_control_share_a_socket() {
    let server = start().await;
    let place = created(&server).await;
    let mut socket = connect(&server, &format!("{place}/ws?latency=low")).await;
    let (mut sound, mut kinds) = (Vec::new(), Vec::new());
    while sound.len() < 20_000 || !kinds.contains(&"status".to_owned()) {
        match next(&mut socket).await {
            Message::Binary(bytes) => {
                assert!(bytes.starts_with(b"OggS"), "a message begins with a page");
                sound.extend_from_slice(&bytes);
            }
            Message::Text(text) => {
                let event: Value = serde_json::from_str(text.as_str()).unwrap();
                kinds.push(event["type"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert!(kinds.contains(&"title".to_owned()), "{kinds:?}");
    assert_eq!(&sound[28..36], b"OpusHead");

    let steer = json!({"type": "steer", "id": "x7", "prompts": [{"text": "b", "weight": 0.5}, "c"], "guidance": 2});
    let first = ask(&mut socket, steer).await;
    assert_eq!(first["type"], "ack", "{first}");
    let at = first["at"].as_f64().unwrap();
    let playhead = server.app.station.list()[0].playhead;
    assert!(at > 0.0 && at < playhead + 2.0, "{first}, playhead {playhead}");
    assert_eq!(server.app.station.list()[0].prompts[1].text, "c");

    let reset = ask(&mut socket, json!({"type": "reset", "id": [1]})).await;
    assert!(reset["epoch"].as_u64() > first["epoch"].as_u64());
    assert_eq!(ask(&mut socket, json!({"type": "pause", "id": 1})).await, json!({"type": "ack", "id": 1}));
    assert_eq!(ask(&mut socket, json!({"type": "resume", "id": 2})).await["type"], "ack");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_command_is_refused_and_the_socket_stays() {
    let server = start().await;
    let place = created(&server).await;
    let mut socket = connect(&server, &format!("{place}/ws?format=none")).await;
    for (command, status, word) in [
        (json!({"type": "dance", "id": 1}), 422, "`type`"),
        (json!({"id": 2}), 422, "`type`"),
        (json!({"type": "steer", "id": 3, "tempo": 1}), 422, "`tempo`"),
        (json!({"type": "steer", "id": 4, "temperature": 9}), 422, "`temperature`"),
        (json!({"type": "pause", "id": 5, "prompts": []}), 422, "`prompts`"),
    ] {
        let answer = ask(&mut socket, command.clone()).await;
        assert_eq!((&answer["type"], &answer["status"]), (&json!("error"), &json!(status)), "{command}");
        assert!(answer["detail"].as_str().unwrap().contains(word), "{answer}");
    }
    socket.send(Message::text("{")).await.unwrap();
    assert_eq!(ask(&mut socket, json!({"type": "steer", "id": 6, "prompts": ["b"]})).await["type"], "ack");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_closes_leaves_the_stream() {
    let server = start().await;
    let place = created(&server).await;
    let mut polite = connect(&server, &format!("{place}/ws")).await;
    let rude = connect(&server, &format!("{place}/ws?format=mp3")).await;
    let listeners = || server.app.station.list()[0].listeners;
    until(|| listeners() == 2).await;
    drop(rude);
    until(|| listeners() == 1).await;
    polite.close(None).await.unwrap();
    loop {
        match timeout(PATIENCE, polite.next()).await.unwrap() {
            None | Some(Err(Error::ConnectionClosed)) => break,
            Some(message) => drop(message.unwrap()),
        }
    }
    until(|| listeners() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_closed_with_the_reason() {
    let server = start().await;
    let place = created(&server).await;
    let mut large = connect(&server, &format!("{place}/ws?format=none")).await;
    large.send(Message::text(" ".repeat(70_000))).await.unwrap();
    assert_eq!(close_code(&mut large).await, CloseCode::Size);
    let mut binary = connect(&server, &format!("{place}/ws?format=none")).await;
    binary.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(close_code(&mut binary).await, CloseCode::Unsupported);
    let mut over = connect(&server, &format!("{place}/ws")).await;
    assert_eq!(call(server.addr, "DELETE", &place, "").await.status, 204);
    assert_eq!(close_code(&mut over).await, CloseCode::Normal);
}

async fn close_code(socket: &mut Socket) -> CloseCode {
    loop {
        if let Message::Close(frame) = next(socket).await {
            return frame.unwrap().code;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_told_to_be_one() {
    let server = start().await;
    let place = created(&server).await;
    let mut plain = get(server.addr, &format!("{place}/ws")).await;
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
    plain.problem().await;
    assert_eq!(get(server.addr, "/v1/streams/nobody/ws").await.status, 404);
    let head = format!(
        "GET {place}/ws?format=midi HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    );
    assert_eq!(send(server.addr, &head, b"").await.status, 400);
    // The key and its answer are RFC 6455's own example.
    let upgraded = send(server.addr, &head.replace("midi", "ogg"), b"").await;
    assert_eq!(upgraded.status, 101);
    assert_eq!(upgraded.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_title_steer_status_and_end() {
    let server = start().await;
    let place = created(&server).await;
    let mut answer = get(server.addr, &format!("{place}/events")).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"));
    let mut text = String::new();
    while !text.contains("event:status") {
        text += &String::from_utf8(answer.piece().await.unwrap()).unwrap();
    }
    assert_eq!(call(server.addr, "PATCH", &place, r#"{"prompts": ["deep b"]}"#).await.status, 200);
    assert_eq!(call(server.addr, "DELETE", &place, "").await.status, 204);
    text += &answer.text().await;
    let mut kinds = Vec::new();
    for block in text.split("\n\n").filter(|block| block.contains("event:")) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let data: Value = serde_json::from_str(field("data:")).unwrap();
        assert_eq!(data["type"], field("event:"), "{block}");
        match field("event:") {
            "steer" => assert_eq!(data["prompts"][0]["text"], "deep b"),
            "status" => assert!(data["buffered"].is_number() && data["realtime_factor"].is_number(), "{data}"),
            "title" => assert!(data["title"].is_string() && data["at"].is_number(), "{data}"),
            "end" => assert!(data["reason"].is_string(), "{data}"),
            other => panic!("{other}"),
        }
        kinds.push(field("event:").to_owned());
    }
    for kind in ["title", "status", "steer"] {
        assert!(kinds.iter().any(|is| is == kind), "{kinds:?}");
    }
    assert_eq!(kinds.last().unwrap(), "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_everything_properly() {
    let mut server = start().await;
    let place = created(&server).await;
    let mut own = get(server.addr, "/generate?prompt=a").await;
    let mut shared = get(server.addr, &format!("{place}/audio.ogg")).await;
    let mut events = get(server.addr, &format!("{place}/events")).await;
    let mut socket = connect(&server, &format!("{place}/ws?format=wav")).await;
    let mut own_bytes = own.some(3000).await;
    let mut shared_bytes = shared.some(3000).await;
    next(&mut socket).await;
    server.stop();
    own_bytes.extend(own.body().await);
    shared_bytes.extend(shared.body().await);
    for bytes in [own_bytes, shared_bytes] {
        let mut pages = ogg::PacketReader::new(std::io::Cursor::new(bytes));
        let mut last = None;
        while let Some(packet) = pages.read_packet().unwrap() {
            last = Some(packet);
        }
        assert!(last.unwrap().last_in_stream(), "the last page says that it is the last");
    }
    assert!(events.text().await.contains("event:end"));
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    server.ended().await;
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stood_still_tells_of_it_before_it_is_heard() {
    let server = start().await;
    let body = r#"{"prompts": ["stuck from 300 through 1"], "max_still": 3}"#;
    let view = call(server.addr, "POST", "/v1/streams", body).await.json().await;
    let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
    let mut events = get(server.addr, &format!("{place}/events")).await;
    let mut text = String::new();
    while !text.contains("event:freeze") || !text.ends_with("\n\n") {
        text.push_str(&String::from_utf8_lossy(&events.piece().await.expect("the stream goes on")));
    }
    let data = text.split("event:freeze").nth(1).and_then(|rest| rest.split("data:").nth(1)).unwrap();
    let freeze: Value = serde_json::from_str(data.lines().next().unwrap()).unwrap();
    assert_eq!((freeze["type"].as_str(), freeze["remedy"].as_str()), (Some("freeze"), Some("draws")));
    let at = freeze["at"].as_f64().unwrap();
    assert!((6.0..7.0).contains(&at), "{at}");
    let view = get(server.addr, &place).await.json().await;
    assert!(view["freezes"] == 1 && view["playhead"].as_f64().unwrap() < at, "{view}");
    let metrics = get(server.addr, "/metrics").await.text().await;
    assert!(metrics.contains(r#"continuo_freezes_total{remedy="draws"}"#), "{metrics}");
    let refused = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"], "max_still": 0.5}"#).await;
    assert_eq!(refused.status, 422);
}
