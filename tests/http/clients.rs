//! Who a client is, however it comes: directly, through proxies, over IPv4 or IPv6.

use std::net::SocketAddr;
use std::time::Duration;

use continuo::engine::standin::Standin;
use continuo::http::TrustedProxies;
use continuo::station::StationConfig;

use super::client::{call, send};
use super::server::{Server, start, start_on};

const CLIP: &str = r#"{"prompt": "a", "seconds": 300}"#;

/// A server that never gets far with a clip, so that they wait.
async fn busy(trusted: &str) -> Server {
    let slow = Standin::default().with_step_time(Duration::from_millis(50));
    let trusted: TrustedProxies = trusted.parse().unwrap();
    start_on(slow, StationConfig::default(), |app| app.trusted_proxies = trusted).await
}

async fn clip(server: &Server, forwarded: &str) -> u16 {
    let head = format!("POST /v1/clips HTTP/1.1\n{forwarded}\nContent-Length: {}", CLIP.len());
    send(server.addr, &head, CLIP.as_bytes()).await.status
}

/// Asks for clips until one is refused.
async fn until_refused(server: &Server, forwarded: &str) {
    for _ in 0..40 {
        match clip(server, forwarded).await {
            202 => {}
            status => return assert_eq!(status, 429),
        }
    }
    panic!("{forwarded}: no limit was met");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_have_a_queue_each() {
    let server = busy("loopback").await;
    until_refused(&server, "X-Forwarded-For: 203.0.113.1").await;
    // What a client wrote itself stands left of what its proxy says, in one header or in several.
    assert_eq!(clip(&server, "X-Forwarded-For: 203.0.113.2, 203.0.113.1").await, 429);
    assert_eq!(clip(&server, "X-Forwarded-For: 203.0.113.2\nX-Forwarded-For: 203.0.113.1").await, 429);
    assert_eq!(clip(&server, "X-Forwarded-For: 203.0.113.2, 203.0.113.1:999").await, 429);
    assert_eq!(clip(&server, "Forwarded: for=203.0.113.2\nX-Forwarded-For: 203.0.113.1").await, 429);
    assert_eq!(clip(&server, "X-Forwarded-For: 203.0.113.1, 203.0.113.2").await, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_no_proxy_cannot_be_somebody_else() {
    let server = busy("none").await;
    until_refused(&server, "X-Forwarded-For: 203.0.113.1").await;
    assert_eq!(clip(&server, "X-Forwarded-For: 203.0.113.2").await, 429);
    assert_eq!(clip(&server, "X-Real-IP: 203.0.113.2").await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_may_wait_for_a_place_in_a_full_queue() {
    let server = busy("none").await;
    let mut last = String::new();
    loop {
        let mut answer = call(server.addr, "POST", "/v1/clips", CLIP).await;
        match answer.status {
            202 => last = answer.json().await["id"].as_str().unwrap().to_owned(),
            status => break assert_eq!(status, 429),
        }
    }
    let begun = std::time::Instant::now();
    assert_eq!(call(server.addr, "POST", "/v1/clips?wait=0.2", CLIP).await.status, 429);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let addr = server.addr;
    let waiting = tokio::spawn(async move { call(addr, "POST", "/v1/clips?wait=60", CLIP).await.status });
    assert_eq!(call(server.addr, "DELETE", &format!("/v1/clips/{last}"), "").await.status, 200);
    assert_eq!(waiting.await.unwrap(), 202);
    // The place that was waited for is taken.
    assert_eq!(call(server.addr, "POST", "/v1/clips", CLIP).await.status, 429);
    assert_eq!(call(server.addr, "POST", "/v1/clips?wait=601", CLIP).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_set_for_the_clients_own_music() {
    let server = start().await;
    let generate = |client: &str, prompt: &str| {
        let body = format!(r#"{{"prompts": ["{prompt}"]}}"#);
        let head = format!("POST /generate HTTP/1.1\nX-Forwarded-For: {client}\nContent-Length: {}", body.len());
        let addr: SocketAddr = server.addr;
        async move { send(addr, &head, body.as_bytes()).await }
    };
    let mut first = generate("203.0.113.1", "a").await;
    let mut second = generate("6.6.6.6, 203.0.113.2", "b").await;
    first.some(1000).await;
    second.some(1000).await;
    // The first client ends its own, though the second's is newer and names the same address.
    let empty = r#"{"prompts": []}"#;
    let head = format!("POST /set_prompts HTTP/1.1\nX-Forwarded-For: 203.0.113.1\nContent-Length: {}", empty.len());
    assert_eq!(send(server.addr, &head, empty.as_bytes()).await.status, 200);
    first.body().await;
    second.some(600_000).await;
    assert_eq!(call(server.addr, "POST", "/set_prompts", empty).await.status, 200);
    second.body().await;
}
