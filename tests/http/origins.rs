//! Pages of other origins, and names that are not the server's own.

use continuo::http::Origins;
use continuo::station::StationConfig;

use super::client::{Answer, call, raw};
use super::server::{Server, start, start_with};

const EVIL: &str = "https://evil.example";

async fn ask(server: &Server, method: &str, path: &str, host: &str, more: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {length}\r\n\r\n{body}");
    raw(server.addr, head.as_bytes()).await
}

/// Requests that change something, on every surface.
const CHANGES: [(&str, &str, &str); 10] = [
    ("POST", "/v1/streams", r#"{"prompts": ["a"]}"#),
    ("POST", "/v1/clips", r#"{"prompt": "a", "seconds": 1}"#),
    ("DELETE", "/v1/sessions/x", ""),
    ("PATCH", "/v1/streams/x", "{}"),
    ("POST", "//v1/models", r#"{"model": "x"}"#),
    ("POST", "/generate", r#"{"prompts": ["a"]}"#),
    ("POST", "/set_prompts", r#"{"prompts": []}"#),
    ("POST", "/api/juce/undo_transform", "{}"),
    ("POST", "/gary/api/cleanup_old_sessions", ""),
    ("POST", "/socket.io/?EIO=4&transport=polling", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_change_nothing() {
    let server = start().await;
    for (method, path, body) in CHANGES {
        for origin in [EVIL, "http://127.0.0.1", "http://localhost:3000", "http://evil.example:8765"] {
            let mut refused =
                ask(&server, method, path, "127.0.0.1:8765", &format!("Origin: {origin}\r\n"), body).await;
            assert_eq!(refused.status, 403, "{method} {path} {origin}");
            assert!(refused.header("access-control-allow-origin").is_none(), "{method} {path} {origin}");
            assert!(refused.problem().await.contains("--allow-origin"));
        }
        let taken = ask(&server, method, path, "127.0.0.1:8765", "Origin: http://127.0.0.1:8765\r\n", body).await;
        assert_ne!(taken.status, 403, "{method} {path}");
        assert_ne!(ask(&server, method, path, "127.0.0.1:8765", "", body).await.status, 403, "{method} {path}");
    }
    assert_eq!(server.app.station.list().len(), 2);
    // A preflight promises nothing.
    let preflight = format!("Origin: {EVIL}\r\nAccess-Control-Request-Method: DELETE\r\n");
    let refused = ask(&server, "OPTIONS", "/v1/streams/x", "localhost", &preflight, "").await;
    assert_eq!((refused.status, refused.header("access-control-allow-methods")), (403, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_open_no_sockets_and_read_nothing() {
    let server = start().await;
    let view = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let path = view["urls"]["ws"].as_str().unwrap();
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (origin, status) in [(EVIL, 403), ("null", 403), ("file://", 403), ("http://localhost:8765", 101)] {
        let more = format!("{handshake}Origin: {origin}\r\n");
        assert_eq!(ask(&server, "GET", path, "localhost:8765", &more, "").await.status, status, "{origin}");
    }
    for path in ["/socket.io/?EIO=4&transport=polling", "/gary/socket.io/?EIO=4&transport=polling"] {
        for (origin, status) in [(EVIL, 403), ("null", 200), ("file://", 200), ("http://localhost:8765", 200)] {
            let more = format!("Origin: {origin}\r\n");
            let answer = ask(&server, "GET", path, "localhost:8765", &more, "").await;
            assert_eq!(answer.status, status, "{path} {origin}");
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, (status == 200).then_some(origin), "{path} {origin}");
        }
    }
    for path in ["/v1/sessions", "/v1/streams", "/metrics", "/api/models"] {
        let answer = ask(&server, "GET", path, "localhost", &format!("Origin: {EVIL}\r\n"), "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("access-control-allow-origin").is_none(), "{path}");
        assert_eq!(answer.header("vary"), Some("origin"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_files_and_extensions_reach_the_originals_routes_alone() {
    let server = start().await;
    for origin in ["null", "file://", "chrome-extension://abcdefgh"] {
        let more = format!("Origin: {origin}\r\n");
        for path in ["/set_prompts", "/gary/api/cleanup_old_sessions", "/api/cleanup_old_sessions"] {
            let answer = ask(&server, "POST", path, "localhost", &more, r#"{"prompts": []}"#).await;
            assert_eq!(answer.status, 200, "{path} {origin}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            assert!(answer.header("access-control-allow-credentials").is_none());
        }
        let preflight = format!("{more}Access-Control-Request-Method: POST\r\n");
        assert_eq!(ask(&server, "OPTIONS", "/set_prompts", "localhost", &preflight, "").await.status, 200);
        let refused = ask(&server, "POST", "/v1/streams", "localhost", &more, r#"{"prompts": ["a"]}"#).await;
        assert_eq!(refused.status, 403, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_pointed_here_is_refused() {
    let server = start_with(StationConfig::default(), |app| {
        app.origins = Origins { allowed: Vec::new(), names: vec!["https://radio.example:8443".parse().unwrap()] };
    })
    .await;
    for host in ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example."] {
        for (method, path) in [("GET", "/v1/streams"), ("GET", "/"), ("POST", "/set_prompts"), ("GET", "/gary/health")]
        {
            let more = format!("Origin: http://{host}\r\nX-Forwarded-Host: localhost\r\n");
            let mut refused = ask(&server, method, path, host, &more, "").await;
            assert_eq!(refused.status, 403, "{method} {path} {host}");
            assert!(refused.problem().await.contains("--public-name"));
        }
        // Probes look at nothing.
        assert_eq!(ask(&server, "GET", "/healthz", host, "", "").await.status, 200);
    }
    for host in ["127.0.0.1", "[::1]:8765", "localhost:1", "LocalHost.", "continuo:8765", "radio.example", "box.local"]
    {
        assert_eq!(ask(&server, "GET", "/v1/streams", host, "", "").await.status, 200, "{host}");
    }
    // Its own page behind a proxy that tells another host.
    let own = "Origin: https://radio.example\r\n";
    let made = ask(&server, "POST", "/v1/streams", "127.0.0.1:8765", own, r#"{"prompts": ["a"]}"#).await;
    assert_eq!(made.status, 201);
    let told = "Origin: https://cast.example\r\nX-Forwarded-Host: cast.example\r\n";
    let made = ask(&server, "POST", "/v1/streams", "127.0.0.1:8765", told, r#"{"prompts": ["a"]}"#).await;
    assert_eq!(made.status, 201);
    assert_eq!(raw(server.addr, b"GET /v1/streams HTTP/1.0\r\n\r\n").await.status, 200);
    let absolute = b"GET http://evil.example/v1/streams HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(raw(server.addr, absolute).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_pages_may_read_and_steer() {
    let friend = "https://friend.example";
    let server = start_with(StationConfig::default(), |app| {
        app.origins = Origins { allowed: vec![friend.parse().unwrap()], names: Vec::new() };
    })
    .await;
    let more = format!("Origin: {friend}\r\n");
    let mut answer = ask(&server, "GET", "/generate?prompt=a", "localhost", &more, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(friend));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("x-stream-id"));
    answer.some(1).await;
    let preflight = format!(
        "{more}Access-Control-Request-Method: PATCH\r\nAccess-Control-Request-Headers: authorization, x-any\r\n\
         Access-Control-Request-Private-Network: true\r\n"
    );
    let preflight = ask(&server, "OPTIONS", "/v1/streams", "localhost", &preflight, "").await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-methods"), Some("PATCH"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization, x-any"));
    assert_eq!(preflight.header("access-control-allow-private-network"), Some("true"));
    assert_eq!(preflight.header("access-control-allow-origin"), Some(friend));
    let plain = ask(&server, "GET", "/v1/streams", "localhost", "", "").await;
    assert!(!plain.headers.iter().any(|(name, _)| name.starts_with("access-control-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_any_page_that_has_it_is_welcome() {
    let server = start_with(StationConfig::default(), |app| app.access.token = Some("s3cret".into())).await;
    let more = format!("Origin: {EVIL}\r\n");
    assert_eq!(ask(&server, "POST", "/v1/streams", "any.example", &more, "{}").await.status, 401);
    let path = "/v1/streams?token=s3cret";
    let made = ask(&server, "POST", path, "any.example", &more, r#"{"prompts": ["a"]}"#).await;
    assert_eq!((made.status, made.header("access-control-allow-origin")), (201, Some(EVIL)));
    assert!(made.header("access-control-allow-credentials").is_none());
}
