//! Tokens with scopes and signed addresses.

use std::sync::Arc;
use std::time::Duration;

use continuo::http::{SigningKey, Token};
use continuo::station::StationConfig;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::client::{call, get};
use super::m3u8::{media, variants};
use super::server::{Server, start_with};

const ROOT: &str = "everything";
const KEY: &str = "0123456789abcdef";

fn token(secret: &str, scopes: &[&str], stations: Option<&[&str]>) -> Arc<Token> {
    let written = json!({"name": secret, "hash": Token::hash(secret), "scopes": scopes, "stations": stations});
    Arc::new(serde_json::from_value(written).unwrap())
}

/// A server with tokens and two stations; the paths of their streams.
async fn guarded() -> (Server, [String; 2]) {
    let server = start_with(StationConfig::default(), |app| {
        app.access.token = Some(ROOT.into());
        app.access.tokens = vec![
            token("hears", &["listen"], None),
            token("hears-lofi", &["listen"], Some(&["lofi"])),
            token("steers-lofi", &["listen", "steer"], Some(&["lofi"])),
            token("makes", &["produce"], None),
            token("makes-mine", &["produce"], Some(&["mine"])),
            token("goes-on", &["listen", "produce"], Some(&["lofi", "encore"])),
            token("works", &["listen", "produce"], None),
            token("rules", &["admin"], None),
        ];
        app.access.signing = Some(KEY.parse().unwrap());
    })
    .await;
    let mut paths = Vec::new();
    for name in ["lofi", "dub"] {
        let body = format!(r#"{{"name": "{name}", "prompts": ["a"]}}"#);
        let mut made = call(server.addr, "POST", &format!("/v1/streams?token={ROOT}"), &body).await;
        paths.push(format!("/v1/streams/{}", made.json().await["id"].as_str().unwrap()));
    }
    (server, paths.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_what_its_scopes_say_where_it_may() {
    let (server, [lofi, dub]) = guarded().await;
    let change = r#"{"prompts": ["b"]}"#;
    let mine = r#"{"name": "mine", "prompts": ["a"]}"#;
    let (lofi_pause, dub_pause) = (format!("{lofi}/pause"), format!("{dub}/pause"));
    let audio = format!("{dub}/audio.ogg");
    for (token, method, path, body, status) in [
        ("nobody", "GET", "/v1/streams", "", 401),
        ("hears", "GET", "/v1/streams", "", 200),
        ("hears", "GET", audio.as_str(), "", 200),
        ("hears", "GET", "/generate?station=dub", "", 200),
        ("hears", "GET", "/generate?prompt=a", "", 403),
        ("hears", "PATCH", &lofi, change, 403),
        ("hears", "POST", &lofi_pause, "", 403),
        ("hears", "DELETE", &lofi, "", 403),
        ("hears", "POST", "/v1/streams", mine, 403),
        ("hears", "POST", "/v1/clips", r#"{"prompt": "a"}"#, 403),
        ("hears", "GET", "/metrics", "", 403),
        ("hears", "GET", "/v1/stats", "", 403),
        ("hears", "GET", "/gary/health", "", 403),
        ("hears-lofi", "GET", "/generate?station=lofi", "", 200),
        ("hears-lofi", "GET", "/generate?station=dub", "", 403),
        ("hears-lofi", "GET", &dub, "", 403),
        ("hears-lofi", "GET", "/v1/streams/none", "", 403),
        ("steers-lofi", "PATCH", &lofi, change, 200),
        ("steers-lofi", "PATCH", &dub, change, 403),
        ("steers-lofi", "POST", &dub_pause, "", 403),
        ("makes", "POST", "/v1/clips", r#"{"prompt": "a", "seconds": 1}"#, 202),
        ("makes", "GET", "/gary/health", "", 200),
        ("makes", "PATCH", &lofi, change, 403),
        ("makes-mine", "POST", "/v1/streams", r#"{"prompts": ["a"]}"#, 403),
        ("makes-mine", "POST", "/v1/streams", r#"{"name": "lofi", "prompts": ["a"]}"#, 403),
        ("makes-mine", "POST", "/v1/streams", mine, 201),
        ("makes-mine", "POST", "/v1/clips", r#"{"prompt": "a"}"#, 403),
        ("makes-mine", "DELETE", &dub, "", 403),
        ("rules", "GET", "/metrics", "", 200),
        ("rules", "POST", &dub_pause, "", 200),
        ("rules", "DELETE", &dub, "", 204),
        (ROOT, "GET", "/metrics", "", 200),
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut answer = call(server.addr, method, &format!("{path}{joint}token={token}"), body).await;
        assert_eq!(answer.status, status, "{token}: {method} {path}");
        if status == 403 {
            let sentence = answer.problem().await;
            assert!(sentence.contains(token), "{sentence}");
        }
    }
    let names = |list: &Value| -> Vec<Value> {
        list["streams"].as_array().unwrap().iter().map(|stream| stream["name"].clone()).collect()
    };
    let all = get(server.addr, "/v1/streams?token=hears").await.json().await;
    assert_eq!(names(&all), ["lofi", "mine"]);
    let some = get(server.addr, "/v1/streams?token=hears-lofi").await.json().await;
    assert_eq!(names(&some), ["lofi"]);
    let mounts = get(server.addr, "/status-json.xsl?token=hears-lofi").await.text().await;
    assert!(mounts.contains("station=lofi") && !mounts.contains("station=mine"), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_of_a_stream_is_for_who_may_hear_it_and_make_that() {
    let (server, [lofi, dub]) = guarded().await;
    let mut sound = get(server.addr, &format!("{lofi}/audio.wav?token={ROOT}")).await;
    sound.some(1000).await;
    let history = format!("{lofi}/history?token={ROOT}");
    let heard = async { while get(server.addr, &history).await.json().await["to"].as_f64().unwrap() < 1.0 {} };
    tokio::time::timeout(super::client::PATIENCE, heard).await.expect("it is written down");

    let encore = r#"{"from": 1, "name": "encore"}"#;
    let part = r#"{"from": 0, "to": 1}"#;
    let [fork, clip, recording] = ["fork", "clip", "recording?to=1"].map(|made| format!("{lofi}/{made}"));
    for (token, method, path, body, status) in [
        ("hears", "GET", &recording, "", 200),
        ("hears-lofi", "GET", &recording, "", 200),
        ("goes-on", "GET", &recording, "", 200),
        ("goes-on", "GET", &format!("{dub}/recording"), "", 403),
        ("makes", "GET", &recording, "", 403),
        ("hears", "POST", &fork, encore, 403),
        ("makes", "POST", &fork, encore, 403),
        ("goes-on", "POST", &fork, "", 403),
        ("goes-on", "POST", &fork, r#"{"name": "dub"}"#, 403),
        ("goes-on", "POST", &format!("{dub}/fork"), encore, 403),
        ("goes-on", "POST", &fork, encore, 201),
        ("works", "POST", &fork, r#"{"from": 1}"#, 201),
        ("hears", "POST", &clip, part, 403),
        ("makes", "POST", &clip, part, 403),
        ("goes-on", "POST", &clip, part, 403),
        ("works", "POST", &clip, part, 201),
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let answer = call(server.addr, method, &format!("{path}{joint}token={token}"), body).await;
        assert_eq!(answer.status, status, "{token}: {method} {path} {body}");
    }
    let key: SigningKey = KEY.parse().unwrap();
    let signed = key.sign("lofi", Duration::from_secs(3600));
    assert_eq!(get(server.addr, &format!("{recording}&{signed}")).await.status, 200);
    assert_eq!(call(server.addr, "POST", &format!("{fork}?{signed}"), encore).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_address_opens_one_station_until_its_end() {
    let (server, [lofi, dub]) = guarded().await;
    let key: SigningKey = KEY.parse().unwrap();
    let hour = key.sign("lofi", Duration::from_secs(3600));
    let over = key.sign("lofi", Duration::ZERO);
    let id = dub.rsplit('/').next().unwrap();
    let by_id = key.sign(id, Duration::from_secs(3600));
    for (path, query, status) in [
        (format!("{lofi}/audio.mp3"), &hour, 200),
        (format!("{lofi}/events"), &hour, 200),
        ("/generate?station=lofi&format=wav".to_owned(), &hour, 200),
        (format!("{dub}/audio.mp3"), &by_id, 200),
        (format!("{dub}/audio.mp3"), &hour, 403),
        ("/generate?station=dub".to_owned(), &hour, 403),
        ("/generate?prompt=a".to_owned(), &hour, 403),
        ("/v1/streams".to_owned(), &hour, 403),
        ("/metrics".to_owned(), &hour, 403),
        (format!("{lofi}/audio.mp3"), &over, 403),
        (format!("{lofi}/audio.mp3"), &"format=x".to_owned(), 401),
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut answer = get(server.addr, &format!("{path}{joint}{query}")).await;
        assert_eq!(answer.status, status, "{path} {query}");
        match status {
            200 => assert!(!answer.piece().await.unwrap().is_empty()),
            _ => assert!(!answer.problem().await.is_empty()),
        }
    }
    for (place, query) in [(&lofi, &over), (&dub, &hour)] {
        match tokio_tungstenite::connect_async(format!("ws://{}{place}/ws?{query}", server.addr)).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 403, "{place} {query}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(call(server.addr, "PATCH", &format!("{lofi}?{hour}"), r#"{"prompts": ["b"]}"#).await.status, 403);
    assert_eq!(call(server.addr, "POST", &format!("{lofi}/pause?{hour}"), "").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_put_a_signature_on_all_that_they_name() {
    let (server, _) = guarded().await;
    let key: SigningKey = KEY.parse().unwrap();
    let master = format!("/hls/lofi/master.m3u8?{}", key.sign("lofi", Duration::from_secs(3600)));
    let master = get(server.addr, &master).await.text().await;
    let address = variants(&master).remove(0).1;
    let playlist = media(&get(server.addr, &format!("{address}&_HLS_msn=0")).await.text().await);
    let folder = address.split_once("index.m3u8").unwrap().0;
    for uri in playlist.segments.iter().map(|segment| &segment.uri).chain(&playlist.map) {
        assert_eq!(get(server.addr, &format!("{folder}{uri}")).await.status, 200, "{uri}");
        let bare = uri.split_once('?').unwrap().0;
        assert_eq!(get(server.addr, &format!("{folder}{bare}")).await.status, 401, "{bare}");
    }
    assert!(!playlist.segments.is_empty());
    let over = key.sign("lofi", Duration::ZERO);
    assert_eq!(get(server.addr, &format!("/hls/lofi/master.m3u8?{over}")).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_a_listener_hears_and_commands_nothing() {
    let (server, [lofi, _]) = guarded().await;
    let key: SigningKey = KEY.parse().unwrap();
    for query in [key.sign("lofi", Duration::from_secs(3600)), "token=hears".into()] {
        let url = format!("ws://{}{lofi}/ws?{query}", server.addr);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        socket.send(Message::text(r#"{"type": "steer", "prompts": ["b"], "id": 7}"#)).await.unwrap();
        let (mut sound, mut answer) = (0, Value::Null);
        while sound == 0 || answer.is_null() {
            match tokio::time::timeout(super::client::PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Binary(bytes) => sound += bytes.len(),
                Message::Text(text) => {
                    let text: Value = serde_json::from_str(text.as_str()).unwrap();
                    if text["id"] == 7 {
                        answer = text;
                    }
                }
                _ => {}
            }
        }
        assert_eq!((&answer["type"], &answer["status"]), (&json!("error"), &json!(403)), "{answer}");
    }
    let url = format!("ws://{}{lofi}/ws?token=steers-lofi&format=none", server.addr);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::text(r#"{"type": "steer", "prompts": ["b"], "id": 8}"#)).await.unwrap();
    loop {
        let message = tokio::time::timeout(super::client::PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let text: Value = serde_json::from_str(text.as_str()).unwrap();
        if text["id"] == 8 {
            assert_eq!(text["type"], "ack");
            break;
        }
    }
}
