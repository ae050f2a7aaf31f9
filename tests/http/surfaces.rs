//! Each original behind its prefix and on a port of its own: what it has, the probes, and nothing
//! else.

use std::net::SocketAddr;
use std::sync::Arc;

use continuo::http::{self, Port, SURFACES};
use continuo::station::StationConfig;
use serde_json::json;
use tokio::net::TcpListener;

use super::client::{call, get, send};
use super::renders::models;
use super::server::{Server, start, start_rendering, start_with, until};

/// A port where one original alone is spoken.
async fn port_of(server: &Server, name: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let surface = SURFACES.iter().find(|surface| surface.name == name);
    assert!(surface.is_some(), "{name}");
    tokio::spawn(http::serve(Arc::clone(&server.app), vec![Port { listener, surface }], std::future::pending()));
    addr
}

const OWN: [(&str, &[&str]); 5] = [
    (
        "gary",
        &[
            "/health",
            "/api/models",
            "/api/warmup/status",
            "/socket.io/?EIO=4&transport=polling",
            "/riffs/available",
            "/audio/models/status",
            "/models/status",
        ],
    ),
    ("terry", &["/health", "/variations", "/socket.io/?EIO=4&transport=polling"]),
    ("jerry", &["/health", "/riffs/available", "/audio/models/status", "/models/status"]),
    ("web", &["/health", "/progress/0123456789abcdef01234567"]),
    ("express", &["/health"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_port_and_a_prefix_have_one_surface_and_the_probes_alone() {
    let server = start_rendering(models()).await;
    for (name, own) in OWN {
        let port = port_of(&server, name).await;
        for (addr, prefix) in [(port, String::new()), (server.addr, format!("/{name}"))] {
            for path in own.iter().chain(&["/", "/healthz", "/readyz"]) {
                assert_eq!(get(addr, &format!("{prefix}{path}")).await.status, 200, "{prefix}{path} of {name}");
            }
            let others = OWN.iter().filter(|(other, _)| *other != name).flat_map(|(_, paths)| *paths);
            let native = ["/v1/clips", "/metrics", "/generate?prompt=a", "/main.js", "/v1/openapi.json"];
            for path in others.chain(&native).filter(|path| !own.contains(path)) {
                let status = get(addr, &format!("{prefix}{path}")).await.status;
                // What is asked elsewhere with GET may be known here with POST.
                assert!([404, 405].contains(&status), "{prefix}{path} of {name}: {status}");
            }
            let text = get(addr, &format!("{prefix}/")).await.text().await;
            assert!(text.starts_with("Continuo answers here"), "{text}");
        }
    }
    let mut wrong = call(server.addr, "PATCH", "/gary/health", "{}").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")));
    assert!(wrong.problem().await.contains("/health"));
    assert!(get(server.addr, "/").await.text().await.contains("<html"), "the server's own port has the page");
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_are_offered_what_is_configured_loaded_and_on_disk() {
    let server = start_with(StationConfig::default(), |app| {
        app.offered = vec!["./my-large-tune".into()];
        app.on_disk = || vec!["somebody/tune-4".into(), "standin".into()];
    })
    .await;
    let models = get(server.addr, "/api/models").await.json().await["models"].take();
    let paths =
        |size: &str| models[size].as_array().unwrap().iter().map(|entry| entry["path"].clone()).collect::<Vec<_>>();
    assert_eq!(paths("small")[0], "standin");
    assert_eq!(models["small"][1]["checkpoints"][0], json!({"name": "tune-4", "path": "somebody/tune-4", "epoch": 4}));
    assert_eq!(paths("large")[0], "./my-large-tune");
    assert_eq!(paths("small").iter().filter(|path| *path == "standin").count(), 1);
    let named = get(server.addr, "/v1/models").await.json().await;
    assert_eq!(named["models"][0]["id"], "standin");
    assert_eq!(named["more"], json!(["./my-large-tune", "somebody/tune-4"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_as_each_original_tells_it() {
    let server = start().await;
    let gary = get(server.addr, "/gary/health").await.json().await;
    let live = json!({"status": "live", "mongodb": "live", "redis": "live", "pytorch": "live"});
    assert_eq!(gary, live);
    assert_eq!(get(server.addr, "/health").await.json().await, live);
    assert_eq!(get(server.addr, "/web/health").await.json().await, live);
    call(server.addr, "POST", "/v1/clips", r#"{"prompt": "lose the device"}"#).await;
    until(|| server.app.engine().status().lost.is_some()).await;
    let mut gary = get(server.addr, "/health").await;
    assert_eq!((gary.status, &gary.json().await["status"]), (500, &json!("degraded")));
    let mut web = get(server.addr, "/web/health").await;
    assert_eq!((web.status, &web.json().await["pytorch"]), (503, &json!("down")));
}

#[tokio::test(flavor = "multi_thread")]
async fn gary_warms_up_and_hears_of_a_queue_that_it_does_not_need() {
    let server = start().await;
    let warm = get(server.addr, "/api/warmup/status").await.json().await;
    assert_eq!(warm, json!({"available": true, "models": ["standin"]}));
    let mut done = call(server.addr, "POST", "/api/warmup", "").await;
    assert_eq!(done.status, 200);
    let done = done.json().await;
    assert_eq!((&done["success"], &done["results"]["standin"]["status"]), (&json!(true), &json!("success")));
    let mut told = call(server.addr, "POST", "/task_notification", r#"{"session_id": "s", "status": "ready"}"#).await;
    let told = told.json().await;
    assert!(told["status"] == "received" && told["notification_id"].as_str().unwrap().starts_with("s_"), "{told}");
    let head = "POST /task_notification HTTP/1.1\nX-Notification-ID: \u{e9}\nContent-Length: 18";
    assert_eq!(send(server.addr, head, br#"{"session_id":"s"}"#).await.json().await["status"], "received");
    for nonsense in ["", "{", "[]", "{}", r#"{"session_id": 3}"#, r#"{"session_id": "../x"}"#] {
        let mut answer = call(server.addr, "POST", "/task_notification", nonsense).await;
        assert_eq!(answer.status, 400, "{nonsense}");
        assert_eq!(answer.json().await["status"], "error");
    }
}
