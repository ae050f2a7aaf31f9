//! Socket.IO sockets that send or keep more than their part, over a plain WebSocket.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{PATIENCE, call, get, send};
use super::server::{Server, start, start_with, until};
use continuo::budget::Budget;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::units::SampleRate;

type Socket = WebSocketStream<TcpStream>;

/// A socket that has joined the name space.
async fn connect(server: &Server) -> Socket {
    let tcp = TcpSocket::new_v4().unwrap();
    // What is not read is soon the server's again.
    tcp.set_recv_buffer_size(8 << 10).unwrap();
    let tcp = tcp.connect(server.addr).await.unwrap();
    let address = "ws://test/socket.io/?EIO=4&transport=websocket";
    let mut socket = tokio_tungstenite::client_async(address, tcp).await.unwrap().0;
    socket.next().await.unwrap().unwrap();
    socket.send(Message::text("40")).await.unwrap();
    until_told(&mut socket, "40").await;
    socket
}

/// Reads on to a message that begins so.
async fn until_told(socket: &mut Socket, beginning: &str) -> String {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("a message in time");
        if let Message::Text(text) = message.expect("the socket goes on").unwrap()
            && text.starts_with(beginning)
        {
            return text.to_string();
        }
    }
}

fn wav(seconds: usize) -> Vec<u8> {
    let pcm = (0..seconds * 48_000 * 2).map(|n| (n as f32 * 0.02).sin() * 0.3).collect();
    Pcm { pcm, channels: 2, rate: SampleRate(48_000) }.wav()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_beginnings_and_chunks_takes_next_to_no_memory_and_leaves_with_its_socket() {
    let server = start().await;
    let free = server.app.budget.free();
    let (mut sender, mut told) = connect(&server).await.split();
    // Somebody who reads, or what he is told would be dropped.
    let (seen, mut answered) = tokio::sync::watch::channel(0);
    let reader = tokio::spawn(async move {
        let mut received = 0;
        while received < 2000
            && let Some(Ok(message)) = told.next().await
        {
            received += usize::from(message.to_text().unwrap_or_default().starts_with(r#"42["chunk_received""#));
            seen.send_replace(received);
        }
        told
    });
    for n in 0..2000 {
        sender.feed(Message::text(r#"42["begin_restore_audio"]"#)).await.unwrap();
        let chunk = json!({ "session_id": format!("s{n}"), "chunk_index": 0, "total_chunks": 4096, "chunk": "A" });
        sender.send(Message::text(format!(r#"42["audio_chunk",{chunk}]"#))).await.unwrap();
        timeout(PATIENCE, answered.wait_for(|answered| n < answered + 64)).await.unwrap().unwrap();
    }
    let told = timeout(PATIENCE, reader).await.expect("all are answered").unwrap();
    assert!(free - server.app.budget.free() < 64 << 10);
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
    drop((sender, told));
    until(|| server.app.budget.free() == free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_is_restored_from_pieces_of_its_text() {
    let server = start().await;
    let mut socket = connect(&server).await;
    socket.send(Message::text(r#"42["begin_restore_audio"]"#)).await.unwrap();
    let ready = until_told(&mut socket, r#"42["ready_for_chunks""#).await;
    let ready: serde_json::Value = serde_json::from_str(&ready[2..]).unwrap();
    let session = &ready[1]["session_id"];
    let sound = wav(1);
    let body = json!({ "audio_data": sound_text(&sound) }).to_string();
    let text = serde_json::from_str::<serde_json::Value>(&body).unwrap()["audio_data"].as_str().unwrap().to_owned();
    let pieces: Vec<&str> = text.as_bytes().chunks(100_000).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let (total, last) = (pieces.len(), n + 1 == pieces.len());
        let chunk = json!({
            "session_id": session, "chunk_index": n, "total_chunks": total, "chunk": piece, "is_last": last,
        });
        socket.send(Message::text(format!(r#"42["audio_chunk",{chunk}]"#))).await.unwrap();
    }
    until_told(&mut socket, r#"42["restore_complete""#).await;
    let stored = get(server.addr, &format!("/v1/sessions/{}/audio.wav", session.as_str().unwrap())).await.body().await;
    assert!(stored == sound);
}

fn sound_text(bytes: &[u8]) -> String {
    use std::fmt::Write;
    // Plain arithmetic, so that the test does not use what it tests.
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize] as char;
            let _ = write!(text, "{}", if place > group.len() { '=' } else { letter });
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_takes_nothing_is_closed_and_not_filled() {
    let server = start().await;
    let free = server.app.budget.free();
    let sound = wav(60);
    let path = "/v1/clips?verb=continue&seconds=2&prompt_seconds=1&session=undo";
    let head = format!("POST {path} HTTP/1.1\nContent-Type: audio/wav\nContent-Length: {}", sound.len());
    let made = send(server.addr, &head, &sound).await.json().await;
    let events = format!("/v1/clips/{}/events", made["id"].as_str().unwrap());
    assert!(get(server.addr, &events).await.text().await.contains("completed"));
    let mut socket = connect(&server).await;
    for _ in 0..8 {
        socket.send(Message::text(r#"42["undo_transform_request",{"session_id":"undo"}]"#)).await.unwrap();
    }
    // One message may wait; the next finds that it was not taken.
    until(|| server.app.budget.free() < free).await;
    until(|| server.app.budget.free() == free).await;
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(PATIENCE, ended).await.expect("the server hangs up");
    assert_eq!(call(server.addr, "POST", "/v1/sessions/undo/undo", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_message_is_not_waited_for_beyond_the_memory_for_requests() {
    use tokio::io::AsyncWriteExt;
    let server = start_with(StationConfig::default(), |app| app.budget = Budget::new(8 << 20)).await;
    let (mut whole, mut first, mut second) = (connect(&server).await, connect(&server).await, connect(&server).await);
    // Frames of ninety megabytes are announced, and six of them come.
    let mut bytes = vec![0x81, 0xff];
    bytes.extend((90u64 << 20).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.resize(6 << 20, b'x');
    first.get_mut().write_all(&bytes).await.unwrap();
    until(|| server.app.budget.free() <= 2 << 20).await;
    // The server may hang up before all of it is sent.
    let _ = second.get_mut().write_all(&bytes).await;
    let ended = async { while let Some(Ok(_)) = second.next().await {} };
    timeout(PATIENCE, ended).await.expect("the server hangs up");
    drop(first);
    until(|| server.app.budget.free() == server.app.budget.bytes()).await;
    whole.send(Message::text(r#"42["begin_restore_audio"]"#)).await.unwrap();
    until_told(&mut whole, r#"42["ready_for_chunks""#).await;
}

/// What a bang of a second is sent as.
fn bang(prompt: &str) -> String {
    let sound = sound_text(&wav(1));
    let wish = format!(r#""model_name":"","prompt_duration":1,"description":"{prompt}""#);
    format!(r#"42["process_audio_request",{{{wish},"audio_data":"{sound}"}}]"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_emoji_in_an_event_is_no_reason_to_refuse_it() {
    let server = start().await;
    let mut socket = connect(&server).await;
    socket.send(Message::text(bang(r"dusk \ud83d"))).await.unwrap();
    until_told(&mut socket, r#"42["process_audio_received""#).await;
    // Over polls too, as sockets begin.
    let path = "/socket.io/?EIO=4&transport=polling";
    let opened = get(server.addr, path).await.text().await;
    let opened: serde_json::Value = serde_json::from_str(&opened[1..]).unwrap();
    let path = format!("{path}&sid={}", opened["sid"].as_str().unwrap());
    // A client that speaks before it is told that it has joined is shut out, as by the original.
    for (message, answered) in [("40", "40"), (bang(r"dusk \ud83d").as_str(), r#"42["process_audio_received""#)] {
        assert_eq!(call(server.addr, "POST", &path, message).await.text().await, "ok");
        poll_until_told(&server, &path, answered).await;
    }
}

/// Polls on to a message that begins so.
async fn poll_until_told(server: &Server, path: &str, beginning: &str) {
    let mut told = String::new();
    while !told.split('\x1e').any(|message| message.starts_with(beginning)) {
        let mut answer = get(server.addr, path).await;
        assert_eq!(answer.status, 200, "after {told}");
        let said = answer.text().await;
        assert!(!said.contains(r#"42["error""#), "{said}");
        told = said;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_socket_is_told_what_it_asked_for() {
    let server = start().await;
    let mut socket = connect(&server).await;
    socket.send(Message::text(bang("dusk"))).await.unwrap();
    socket.get_mut().shutdown().await.unwrap();
    until_told(&mut socket, r#"42["process_audio_received""#).await;
    until_told(&mut socket, r#"42["audio_processed""#).await;
}
