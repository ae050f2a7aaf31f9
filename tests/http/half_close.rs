//! Clients that close their sending half once the request is out, and clients that leave: both look
//! the same at first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use continuo::engine::ModelRequest;
use continuo::studio::Naming;
use continuo::units::ModelId;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{PATIENCE, answer, call};
use super::server::{Server, start, start_loading, until};

/// Sends a request and says that nothing more will come.
async fn half_closed(addr: SocketAddr, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    socket
}

/// Reads until so many bytes are there.
async fn some(socket: &mut TcpStream, enough: usize) -> Vec<u8> {
    let mut bytes = vec![0; enough];
    timeout(PATIENCE, socket.read_exact(&mut bytes)).await.expect("bytes in time").expect("the answer goes on");
    bytes
}

/// How long it takes until something is so.
async fn took(condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    until(condition).await;
    began.elapsed()
}

/// Work that a test lets go on, and how many requests wait for it.
#[derive(Clone, Default)]
struct Work {
    goes_on: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
}

impl Work {
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A server whose `POST /v1/models` is this work.
    async fn server(&self) -> Server {
        struct Waits(Arc<AtomicUsize>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let work = self.clone();
        start_loading(Naming::default(), |_| {
            Arc::new(move |_: ModelRequest| {
                let work = work.clone();
                Box::pin(async move {
                    work.waiting.fetch_add(1, Ordering::Relaxed);
                    let _waits = Waits(Arc::clone(&work.waiting));
                    work.goes_on.notified().await;
                    Ok(ModelId("standin".into()))
                })
            })
        })
        .await
    }
}

fn load(version: &str) -> String {
    let body = r#"{"model": "another"}"#;
    format!("POST /v1/models HTTP/{version}\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_gets_its_answer() {
    let server = start().await;
    for version in ["1.0", "1.1"] {
        for path in ["/healthz", "/v1/models", "/nowhere"] {
            let request = format!("GET {path} HTTP/{version}\r\nHost: test\r\n\r\n");
            let mut answer = answer(half_closed(server.addr, &request).await).await;
            assert!([200, 404].contains(&answer.status), "{path}");
            answer.json().await;
        }
    }
    // A body that breaks off is told at once.
    let request = "POST /v1/streams HTTP/1.1\r\nHost: test\r\nContent-Length: 99\r\n\r\n{";
    let mut socket = half_closed(server.addr, request).await;
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await.expect("no waiting for the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_hears_an_endless_stream() {
    let server = start().await;
    let request = "GET /generate?prompt=a&format=mp3 HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut listener = answer(half_closed(server.addr, request).await).await;
    listener.some(60_000).await;
    let request = "GET /generate?prompt=a&format=mp3 HTTP/1.0\r\n\r\n";
    let mut old = half_closed(server.addr, request).await;
    some(&mut old, 60_000).await;
    assert_eq!(server.voices(), 2);
    drop((listener, old));
    let took = server.until_voices(0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_waits_for_what_takes_time() {
    let work = Work::default();
    let server = work.server().await;
    for version in ["1.1", "1.0"] {
        let mut socket = half_closed(server.addr, &load(version)).await;
        until(|| work.waiting() == 1).await;
        // Whether it is still there is asked with what the answer begins with anyway.
        let mut whole = some(&mut socket, 3).await;
        assert_eq!(work.waiting(), 1);
        work.goes_on.notify_one();
        timeout(PATIENCE, socket.read_to_end(&mut whole)).await.expect("an answer in time").unwrap();
        let whole = String::from_utf8(whole).unwrap();
        assert!(whole.starts_with(&format!("HTTP/{version} 200 OK\r\n")), "{whole}");
        assert!(whole.ends_with('}') && whole.matches("HTTP/").count() == 1, "{whole}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_it_waits_is_noticed_within_a_second() {
    let work = Work::default();
    let server = work.server().await;
    for version in ["1.1", "1.0"] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(load(version).as_bytes()).await.unwrap();
        until(|| work.waiting() == 1).await;
        drop(socket);
        let took = took(|| work.waiting() == 0).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // Also on a connection that was used before.
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let answer = some(&mut socket, 100).await;
    let rest = String::from_utf8_lossy(&answer).into_owned();
    if !rest.ends_with('}') {
        while some(&mut socket, 1).await != b"}" {}
    }
    socket.write_all(load("1.1").as_bytes()).await.unwrap();
    until(|| work.waiting() == 1).await;
    drop(socket);
    let took = took(|| work.waiting() == 0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_keeps_a_half_closed_listener_and_notices_one_that_leaves() {
    let server = start().await;
    let view = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
    let request = format!("GET {place}/audio.mp3 HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut stays = answer(half_closed(server.addr, &request).await).await;
    stays.some(1000).await;
    assert_eq!(call(server.addr, "POST", &format!("{place}/pause"), "").await.status, 200);
    let mut leaves = TcpStream::connect(server.addr).await.unwrap();
    leaves.write_all(request.as_bytes()).await.unwrap();
    let listeners = || server.app.station.list()[0].listeners;
    until(|| listeners() == 2).await;
    // It reads what there is, so that its leaving is as quiet as can be.
    let mut read = [0; 4096];
    while timeout(Duration::from_millis(400), leaves.read(&mut read)).await.is_ok() {}
    drop(leaves);
    let took = took(|| listeners() == 1).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(call(server.addr, "POST", &format!("{place}/resume"), "").await.status, 200);
    stays.some(100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_websocket_hears_on_and_one_that_leaves_is_noticed() {
    let server = start().await;
    let view = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
    // One closes its half once the socket is open, the other as soon as it has asked for it.
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let (mut open, _) = tokio_tungstenite::client_async(format!("ws://test{place}/ws"), tcp).await.unwrap();
    open.get_mut().shutdown().await.unwrap();
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let request = format!(
        "GET {place}/ws?format=mp3 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    let mut eager = half_closed(server.addr, &request).await;
    let head = some(&mut eager, 12).await;
    assert_eq!(head, b"HTTP/1.1 101");
    some(&mut eager, 60_000).await;
    let mut heard = 0;
    while heard < 60_000 {
        match timeout(PATIENCE, open.next()).await.expect("a message in time") {
            Some(Ok(Message::Binary(sound))) => heard += sound.len(),
            Some(Ok(_)) => {}
            end => panic!("the socket ended: {end:?}"),
        }
    }
    let listeners = || server.app.station.list()[0].listeners;
    assert_eq!(listeners(), 2);
    drop(eager);
    until(|| listeners() == 1).await;
    // The other leaves in silence: everything was read, and no sound goes out.
    assert_eq!(call(server.addr, "POST", &format!("{place}/pause"), "").await.status, 200);
    until_pong(&mut open).await;
    drop(open);
    let took = took(|| listeners() == 0).await;
    assert!(took < Duration::from_secs(5), "{took:?}: not before the next ping");
}

/// Reads on until the server asks whether somebody is there.
async fn until_pong(socket: &mut WebSocketStream<TcpStream>) {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("a message in time") {
            Some(Ok(Message::Pong(_))) => return,
            Some(Ok(_)) => {}
            end => panic!("the socket ended: {end:?}"),
        }
    }
}
