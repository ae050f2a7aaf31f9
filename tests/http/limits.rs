//! What a client cannot do to the server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{PATIENCE, answer, call, get, send};
use super::server::{start, start_with};
use continuo::station::StationConfig;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_a_mebibyte_is_refused() {
    let server = start().await;
    let json = r#"{"prompts": ["a"]}"#;
    let fits = format!("{json}{}", " ".repeat(MIB - json.len()));
    assert_eq!(call(server.addr, "POST", "/v1/streams", &fits).await.status, 201);
    let over = format!("{fits} ");
    let mut announced = call(server.addr, "POST", "/v1/streams", &over).await;
    assert_eq!(announced.status, 413);
    assert!(announced.problem().await.contains("1048576"));
    let chunked = format!("{:x}\r\n{over}\r\n0\r\n\r\n", over.len());
    let head = "POST /v1/streams HTTP/1.1\nTransfer-Encoding: chunked";
    assert_eq!(send(server.addr, head, chunked.as_bytes()).await.status, 413);
    let chunked = format!("{:x}\r\n{json}\r\n0\r\n\r\n", json.len());
    assert_eq!(send(server.addr, head, chunked.as_bytes()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_counted_and_measured() {
    let server = start().await;
    let nine = "?prompt=a".to_owned() + &"&prompt=a".repeat(8);
    let long = format!("?prompt={}", "a".repeat(1001));
    for (query, word) in [(nine, "9 prompts"), (long, "1001 characters")] {
        let mut refused = get(server.addr, &format!("/generate{query}")).await;
        assert_eq!(refused.status, 422);
        assert!(refused.problem().await.contains(word));
    }
    let prompts = format!(r#"{{"prompts": [{}]}}"#, ["\"a\""; 9].join(","));
    assert_eq!(call(server.addr, "POST", "/v1/streams", &prompts).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_streams_or_listeners_are_told_to_come_back() {
    let config = StationConfig { max_streams: 1, max_listeners: 1, ..StationConfig::default() };
    let server = start_with(config, |_| {}).await;
    let view = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let audio = view["urls"]["ogg"].as_str().unwrap();
    let mut first = get(server.addr, audio).await;
    first.some(100).await;
    for path in ["/generate?prompt=b", audio] {
        let mut refused = get(server.addr, path).await;
        assert_eq!(refused.status, 429, "{path}");
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        refused.problem().await;
    }
    first.some(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_loses_its_place() {
    let server = start_with(StationConfig::default(), |app| app.limits.request = Duration::from_millis(200)).await;
    for beginning in ["", "P", "PRI * HT", "GET /healthz HTTP/1.1\r\nHost"] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the server hangs up");
    }
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"POST /v1/streams HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n{").await.unwrap();
    assert_eq!(answer(socket).await.status, 408);
    // A stream is not a request that takes long.
    let mut stream = get(server.addr, "/generate?prompt=a&seconds=3").await;
    stream.body().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_and_idle_connections_make_room_for_listeners_and_probes() {
    let server = start_with(StationConfig::default(), |app| app.limits.connections = 8).await;
    let mut crowd = Vec::new();
    for n in 0..40 {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        let upload = "POST /v1/sessions HTTP/1.1\r\nHost: test\r\nContent-Length: 90000000\r\n\r\nRIFF";
        let _ = socket.write_all(if n % 2 == 0 { upload.as_bytes() } else { b"GET /" }).await;
        crowd.push(socket);
    }
    let mut listeners = Vec::new();
    for _ in 0..8 {
        let mut listener = get(server.addr, "/generate?prompt=a").await;
        assert_eq!(listener.status, 200);
        listener.some(100).await;
        listeners.push(listener);
    }
    // Now everybody listens, so a further one has to come back; probes are answered.
    for _ in 0..50 {
        crowd.push(TcpStream::connect(server.addr).await.unwrap());
    }
    for _ in 0..40 {
        assert_eq!(get(server.addr, "/healthz").await.status, 200);
        assert_eq!(get(server.addr, "/readyz").await.status, 200);
    }
    let mut refused = get(server.addr, "/generate?prompt=b").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.problem().await.contains("--max-listeners"));
    for listener in &mut listeners {
        listener.some(30_000).await;
    }
    listeners.pop();
    server.until_voices(7).await;
    let mut ninth = get(server.addr, "/generate?prompt=b").await;
    assert_eq!(ninth.status, 200);
    ninth.some(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_a_connection() {
    let server = start().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";
    socket.write_all(request.repeat(3).as_bytes()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("200 OK").count() < 3 || !answers.ends_with('}') {
        let mut buffer = [0; 1024];
        let read = timeout(PATIENCE, socket.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "{answers}");
        answers += std::str::from_utf8(&buffer[..read]).unwrap();
    }
}
