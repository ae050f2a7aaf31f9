//! Socket.IO at nodes where a session does not live.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use continuo::pcm::Pcm;
use continuo::units::SampleRate;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::clips::ask_for;
use crate::nats::Nats;
use crate::node::{Node, PATIENCE, eventually};

/// A socket that has joined the name space.
struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn connect(node: &Node) -> Self {
        let tcp = TcpStream::connect(node.addr).await.unwrap();
        let address = "ws://test/socket.io/?EIO=4&transport=websocket";
        let mut socket = Self(tokio_tungstenite::client_async(address, tcp).await.unwrap().0);
        socket.0.send(Message::text("40")).await.unwrap();
        socket.told("40").await;
        socket
    }

    async fn send(&mut self, event: &str, data: Value) {
        self.0.send(Message::text(format!("42{}", json!([event, data])))).await.unwrap();
    }

    async fn told(&mut self, beginning: &str) -> String {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await.expect("a message in time").unwrap().unwrap();
            if let Message::Text(text) = message
                && text.starts_with(beginning)
            {
                return text.to_string();
            }
        }
    }

    /// Asks how a session stands that has told all, and reads on to the answer of what is asked
    /// next.
    async fn hears_nothing_again(&mut self, session: &Value) {
        self.send("verify_session", json!({ "session_id": session })).await;
        self.send("begin_restore_audio", json!({})).await;
        let next = self.told("42").await;
        assert!(next.starts_with("42[\"ready_for_chunks\""), "{}", &next[..next.len().min(100)]);
    }

    /// Reads on to an event, and gives what came with it.
    async fn hears(&mut self, event: &str) -> Value {
        let text = self.told(&format!("42[\"{event}\"")).await;
        serde_json::from_str::<Value>(&text[2..]).unwrap()[1].take()
    }
}

fn audio() -> String {
    let pcm = (0..4 * 44_100).map(|n| (n as f32 * 0.02).sin() * 0.3).collect();
    STANDARD.encode(Pcm { pcm, channels: 1, rate: SampleRate(44_100) }.wav())
}

async fn nodes(nats: &Nats, makers: &[&str], options: &Value) -> (Vec<Node>, Node) {
    let mut nodes: Vec<Node> = makers.iter().map(|name| Node::start_with(name, &nats.url(), options)).collect();
    let mut edge = Node::start_with("edge", &nats.url(), &json!({ "edge": true }));
    let names = [makers, &["edge"]].concat();
    for node in nodes.iter_mut().chain([&mut edge]) {
        node.ready().await;
    }
    for node in nodes.iter().chain([&edge]) {
        node.sees(&names).await;
    }
    (nodes, edge)
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_all_nodes_hear_of_one_session() {
    let nats = Nats::start().await;
    let (makers, edge) = nodes(&nats, &["a", "b"], &json!({})).await;
    let mut far = Socket::connect(&edge).await;
    let asked = json!({ "audio_data": audio(), "model_name": "standin", "prompt_duration": 2 });
    far.send("process_audio_request", asked).await;
    let session = far.hears("process_audio_received").await["session_id"].clone();
    let first = far.hears("audio_processed").await;
    assert_eq!(first["session_id"], session);
    for node in &makers {
        let mut near = Socket::connect(node).await;
        let asked = json!({ "session_id": session, "model_name": "standin", "prompt_duration": 2 });
        near.send("continue_music_request", asked).await;
        near.hears("continue_music_received").await;
        let here = near.hears("music_continued").await;
        let there = far.hears("music_continued").await;
        assert!(here["audio_data"].is_string() && here == there, "{}", node.name);
        near.send("undo_transform_request", json!({ "session_id": session })).await;
        assert!(near.hears("transform_undone").await == far.hears("transform_undone").await);
    }
    far.send("retry_music_request", json!({ "session_id": "nobody" })).await;
    assert!(far.hears("error").await["message"].as_str().unwrap().contains("Session not found"));
    far.send("begin_restore_audio", json!({})).await;
    let restored = far.hears("ready_for_chunks").await["session_id"].clone();
    let text = audio();
    let pieces = [&text[..100_000], &text[100_000..]];
    for (n, piece) in pieces.iter().enumerate() {
        let chunk = json!({ "session_id": restored, "chunk_index": n, "total_chunks": 2, "chunk": piece });
        far.send("audio_chunk", chunk).await;
    }
    assert_eq!(far.hears("restore_complete").await["session_id"], restored);
    for node in makers.iter().chain([&edge]) {
        let path = format!("/v1/sessions/{}/audio.wav", restored.as_str().unwrap());
        assert!(STANDARD.encode(node.get(&path).await.body().await) == text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_handed_what_another_node_has_made_of_a_dead_ones_session() {
    let nats = Nats::start().await;
    let (mut makers, edge) = nodes(&nats, &["a"], &json!({ "step_ms": 100 })).await;
    let mut socket = Socket::connect(&edge).await;
    let asked = json!({ "audio_data": audio(), "model_name": "standin", "prompt_duration": 2 });
    socket.send("process_audio_request", asked).await;
    let session = socket.hears("process_audio_received").await["session_id"].clone();
    socket.hears("progress_update").await;
    let mut b = Node::start("b", &nats.url());
    b.ready().await;
    edge.sees(&["a", "b", "edge"]).await;
    makers[0].kill();
    assert_eq!(socket.hears("audio_processed").await["session_id"], session);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_nobody_is_there_is_handed_to_whoever_comes_back_and_nothing_twice() {
    let nats = Nats::start().await;
    let (_makers, edge) = nodes(&nats, &["a"], &json!({ "step_ms": 1 })).await;
    let mut gone = Socket::connect(&edge).await;
    let asked = json!({ "audio_data": audio(), "model_name": "standin", "prompt_duration": 2 });
    gone.send("process_audio_request", asked).await;
    let session = gone.hears("process_audio_received").await["session_id"].clone();
    drop(gone);
    let place = format!("/v1/sessions/{}", session.as_str().unwrap());
    eventually(async || {
        let told = edge.get(&place).await.json().await;
        if told["making"].is_null() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let mut back = Socket::connect(&edge).await;
    back.send("verify_session", json!({ "session_id": session })).await;
    assert_eq!(back.hears("audio_processed").await["session_id"], session);
    back.hears_nothing_again(&session).await;
    let asked = json!({ "session_id": session, "model_name": "standin", "prompt_duration": 2 });
    back.send("continue_music_request", asked).await;
    back.hears("music_continued").await;
    back.hears_nothing_again(&session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_model_asks_the_next_one_when_the_first_has_no_place() {
    let nats = Nats::start().await;
    let slow = json!({ "step_ms": 100 });
    let mut b = Node::start_with("b", &nats.url(), &slow);
    b.ready().await;
    b.sees(&["b"]).await;
    // More than the other one is to have, none of which is made before this is over.
    for n in 0..24 {
        ask_for(&b, 1 + n % 2, 20, n).await;
    }
    let mut a = Node::start_with("a", &nats.url(), &slow);
    let mut edge = Node::start_with("edge", &nats.url(), &json!({ "edge": true }));
    a.ready().await;
    edge.ready().await;
    let has = async |node: &Node, maker: usize, clips: usize| {
        eventually(async || {
            let told = node.get("/v1/nodes").await.json().await;
            if told["nodes"][maker]["clips"] == clips { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
    };
    for node in [&a, &edge] {
        node.sees(&["a", "b", "edge"]).await;
        // Else the first one would leave some to the second.
        has(node, 1, 24).await;
    }
    // Two are made and sixteen wait: more than so many of one client do not.
    for seed in 0..18 {
        let body = json!({ "prompt": "rain", "seconds": 20, "seed": seed }).to_string();
        assert_eq!(a.call("POST", "/v1/clips", &body).await.status, 202);
    }
    has(&edge, 0, 18).await;
    let mut socket = Socket::connect(&edge).await;
    let asked = json!({ "audio_data": audio(), "model_name": "standin", "prompt_duration": 2 });
    socket.send("process_audio_request", asked.clone()).await;
    let session = socket.hears("process_audio_received").await["session_id"].clone();
    let told = b.get("/v1/clips").await.json().await;
    let clips = told["clips"].as_array().unwrap();
    assert!(clips.iter().any(|clip| clip["session"] == session), "{told}");
    // And says what the last one says when none has.
    for _ in 0..16 {
        socket.send("process_audio_request", asked.clone()).await;
    }
    let said = socket.hears("error").await["message"].as_str().unwrap().to_owned();
    assert!(said.contains("16"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_waits_for_goes_as_soon_as_the_last_socket_of_all_nodes_has_left() {
    let nats = Nats::start().await;
    let (makers, edge) = nodes(&nats, &["a"], &json!({ "step_ms": 100 })).await;
    for stays in [true, false] {
        let mut near = Socket::connect(&makers[0]).await;
        let asked = json!({ "audio_data": audio(), "model_name": "standin", "prompt_duration": 2 });
        near.send("process_audio_request", asked).await;
        let session = near.hears("process_audio_received").await["session_id"].clone();
        let mut far = Socket::connect(&edge).await;
        far.send("request_progress_status", json!({ "session_id": session })).await;
        far.hears("progress_update").await;
        let clean_up = json!({ "session_id": session });
        if !stays {
            far.0.close(None).await.unwrap();
            while far.0.next().await.is_some_and(|message| message.is_ok()) {}
        }
        near.send("cleanup_session_request", clean_up.clone()).await;
        near.hears("cleanup_complete").await;
        if stays {
            // It is made for whoever is still there.
            far.hears("progress_update").await;
            far.send("cleanup_session_request", clean_up.clone()).await;
            far.hears("cleanup_complete").await;
        }
        let place = format!("/v1/sessions/{}", session.as_str().unwrap());
        eventually(async || {
            if !stays {
                // The other node may not know yet that its socket is closed.
                near.send("cleanup_session_request", clean_up.clone()).await;
            }
            let told = makers[0].get(&place).await.json().await;
            let clip = makers[0].get(&format!("/v1/clips/{}", told["clips"][0].as_str().unwrap())).await.json().await;
            match clip["status"].as_str() {
                Some("cancelled") => Ok(()),
                Some("completed") => panic!("it was made for nobody"),
                _ => Err(clip.to_string()),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_works_all_day_at_a_node_without_a_model() {
    let (nats, apart) = (Nats::start().await, Nats::start().await);
    let (_makers, edge) = nodes(&nats, &["a"], &json!({ "step_ms": 1, "transforms": "real" })).await;
    let mut bare = Node::start_with("bare", &apart.url(), &json!({ "transforms": "none" }));
    bare.ready().await;
    bare.sees(&["bare"]).await;
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers/script.mjs");
    let [url, bare] = [&edge, &bare].map(|node| format!("http://{}", node.addr));
    let mut command = Command::new("node");
    command.arg(script).args([&url, "4", "both", &bare]).kill_on_drop(true);
    let output = command.output().await.expect("node is installed: run `scripts/setup test`");
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim_end().ends_with("all of it"), "{said}\n{complaints}");
}
