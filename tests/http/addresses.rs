//! Addresses in and out: paths below a proxy's prefix, slashes, and every form of a request's
//! target.

use serde_json::Value;

use super::client::{call, get, raw, send};
use super::server::start;

/// Every address in an answer.
fn addresses(view: &Value, found: &mut Vec<String>) {
    match view {
        Value::String(text) if text.contains("/v1/") => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| addresses(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| addresses(field, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_lead_through_the_proxy_that_takes_their_prefix_away() {
    let server = start().await;
    let sound = continuo::pcm::Pcm { pcm: vec![0.1; 8000], channels: 1, rate: continuo::units::SampleRate(8000) };
    let sound = sound.wav();
    let begun: [(&str, &[u8]); 3] = [
        ("/v1/streams", br#"{"prompts": ["a"]}"#),
        ("/v1/clips", br#"{"prompt": "a", "seconds": 1}"#),
        ("/v1/sessions", &sound),
    ];
    for (path, body) in begun {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\nX-Forwarded-Prefix: /_/music/\nContent-Length: {length}");
        let mut answer = send(server.addr, &head, body).await;
        let place = answer.header("location").unwrap().to_owned();
        assert!(place.starts_with(&format!("/_/music{path}/")), "{place}");
        let own = place.strip_prefix("/_/music").unwrap().to_owned();
        let mut found = Vec::new();
        addresses(&answer.json().await, &mut found);
        for path in [own.as_str(), path] {
            let head = format!("GET {path} HTTP/1.1\nX-Forwarded-Prefix: /_/music");
            addresses(&send(server.addr, &head, b"").await.json().await, &mut found);
        }
        assert!(found.len() >= 12, "{path}: {found:?}");
        assert!(found.iter().all(|address| address.starts_with(&format!("/_/music{path}/"))), "{found:?}");
        // The same without a proxy, and with one that tells nonsense.
        for prefix in ["", "\nX-Forwarded-Prefix: //evil.example/\\", "\nX-Forwarded-Prefix: https://evil.example"] {
            let mut found = Vec::new();
            addresses(&send(server.addr, &format!("GET {own} HTTP/1.1{prefix}"), b"").await.json().await, &mut found);
            assert!(found.iter().all(|address| address.starts_with(&format!("{path}/"))), "{found:?}");
        }
    }
    let head = "GET /v1/openapi.json HTTP/1.1\nX-Forwarded-Prefix: /_/music";
    let described = send(server.addr, head, b"").await.json().await;
    assert_eq!(described["servers"][0]["url"], "/_/music/");
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_in_a_row_are_one() {
    let server = start().await;
    for (path, status) in [
        ("//healthz", 200),
        ("///v1//streams", 200),
        ("//v1/streams//", 200),
        ("//health", 200),
        ("/gary//health", 200),
        ("//gary/health", 200),
        ("/api//models", 200),
        ("//socket.io//?EIO=4&transport=polling", 200),
        ("/gary//socket.io/?EIO=4&transport=polling", 200),
        ("//main.js", 200),
        ("//", 200),
        ("//generate?prompt=a&seconds=1", 200),
        ("//nowhere", 404),
        ("/v1%2Fstreams", 404),
    ] {
        assert_eq!(get(server.addr, path).await.status, status, "{path}");
    }
    for path in ["//v1/streams", "/v1//streams/"] {
        assert_eq!(call(server.addr, "POST", path, r#"{"prompts": ["a"]}"#).await.status, 201, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_target_is_answered() {
    let server = start().await;
    for (head, status) in [
        ("GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://localhost:80//v1/streams?token=x HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://localhost?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET https://localhost/gary/health HTTP/1.0\r\n\r\n", 200),
        ("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", 405),
        ("CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ] {
        let answer = raw(server.addr, head.as_bytes()).await;
        assert_eq!(answer.status, status, "{head}");
    }
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
}
