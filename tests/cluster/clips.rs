//! Sessions and clips, asked for at any node and gone on with by others.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use continuo::pcm::Pcm;
use continuo::units::SampleRate;
use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::nats::Nats;
use crate::node::{Node, eventually};

/// More than goes with a call to another node.
fn wav() -> Vec<u8> {
    let pcm = (0..10 * 44_100).map(|n| (n as f32 * 0.02).sin() * 0.3).collect();
    Pcm { pcm, channels: 1, rate: SampleRate(44_100) }.wav()
}

async fn upload(node: &Node, path: &str, body: &[u8]) -> Answer {
    let head = format!("POST {path} HTTP/1.1\nContent-Type: audio/wav\nContent-Length: {}", body.len());
    send(node.addr, &head, body).await
}

/// Nodes that make clips, and one without a model, which all see each other.
async fn cluster(nats: &Nats, makers: &[&str], options: &Value) -> (Vec<Node>, Node) {
    let mut nodes: Vec<Node> = makers.iter().map(|name| Node::start_with(name, &nats.url(), options)).collect();
    let mut edge = Node::start_with("edge", &nats.url(), &json!({ "edge": true }));
    let mut names = [makers, &["edge"]].concat();
    names.sort_unstable();
    for node in nodes.iter_mut().chain([&mut edge]) {
        node.ready().await;
    }
    for node in nodes.iter().chain([&edge]) {
        node.sees(&names).await;
    }
    (nodes, edge)
}

async fn shown(node: &Node, path: &str) -> Value {
    let mut answer = node.get(path).await;
    let (status, told) = (answer.status, answer.json().await);
    assert_eq!(status, 200, "{}: {path}: {told}", node.name);
    told
}

/// Asks for something that is taken on; gives the clip.
pub async fn taken_on(mut answer: Answer) -> Value {
    let (status, told) = (answer.status, answer.json().await);
    assert_eq!(status, 202, "{told}");
    told
}

fn place(clip: &Value) -> String {
    format!("/v1/clips/{}", clip["id"].as_str().unwrap())
}

fn session(clip: &Value) -> String {
    format!("/v1/sessions/{}", clip["session"].as_str().unwrap())
}

fn is_over(clip: &Value) -> bool {
    ["completed", "failed", "cancelled"].iter().any(|end| clip["status"] == *end)
}

/// Waits for a clip to end, whatever happens to its node meanwhile.
async fn ended(node: &Node, clip: &Value) -> Value {
    eventually(async || {
        let mut answer = node.get(&place(clip)).await;
        let (status, told) = (answer.status, answer.json().await);
        if status == 200 && is_over(&told) { Ok(told) } else { Err(format!("{status}: {told}")) }
    })
    .await
}

pub async fn completed(node: &Node, clip: &Value) {
    let told = ended(node, clip).await;
    assert_eq!(told["status"], "completed", "{told}");
}

async fn sound(node: &Node, path: &str) -> Vec<u8> {
    let mut answer = node.get(path).await;
    assert_eq!(answer.status, 200, "{}: {path}", node.name);
    answer.body().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_sessions_and_clips_answers_at_every_node() {
    let nats = Nats::start().await;
    let (makers, edge) = cluster(&nats, &["a", "b"], &json!({})).await;
    let [a, b] = &makers[..] else { unreachable!() };
    // New ones are made where they are asked for, and somewhere else when there is no model.
    for (n, node) in [a, b, &edge].into_iter().enumerate() {
        let body = json!({ "prompt": "tea", "seconds": 2.5, "seed": n }).to_string();
        let clip = taken_on(node.call("POST", "/v1/clips", &body).await).await;
        let events = edge.get(&format!("{}/events", place(&clip))).await.text().await;
        assert!(events.contains("\"completed\""), "{events}");
        for other in [a, b, &edge] {
            assert_eq!(shown(other, &place(&clip)).await["status"], "completed");
        }
    }
    let mut created = upload(&edge, "/v1/sessions", &wav()).await;
    assert_eq!(created.status, 201);
    let path = created.header("location").unwrap().to_owned();
    let id = created.json().await["id"].as_str().unwrap().to_owned();
    for node in [a, b, &edge] {
        assert_eq!(shown(node, &path).await["id"], id.as_str());
        assert!(sound(node, &format!("{path}/audio.wav")).await == wav());
        assert!(shown(node, &format!("{path}/peaks")).await.is_object());
        let mut part = send(node.addr, &format!("GET {path}/audio.wav HTTP/1.1\nRange: bytes=100-199"), b"").await;
        assert_eq!((part.status, part.body().await), (206, wav()[100..200].to_vec()));
    }
    // As JSON, as a form and as the sound itself, from every node in turn.
    let body = json!({ "session": id, "prompt_seconds": 4, "seconds": 6 }).to_string();
    let one = taken_on(b.call("POST", "/v1/clips", &body).await).await;
    completed(a, &one).await;
    let two = taken_on(edge.call("POST", &format!("{path}/continue"), r#"{"seconds": 6}"#).await).await;
    completed(b, &two).await;
    let three = taken_on(a.call("POST", &format!("{path}/retry"), r#"{"seconds": 6}"#).await).await;
    completed(&edge, &three).await;
    let four = taken_on(upload(&edge, &format!("/v1/clips?verb=continue&session={id}&seconds=6"), &wav()).await).await;
    completed(a, &four).await;
    for node in [a, b, &edge] {
        let told = shown(node, &format!("/v1/clips?session={id}")).await;
        let made: Vec<&Value> = told["clips"].as_array().unwrap().iter().map(|clip| &clip["id"]).collect();
        assert_eq!(made[..4], [&four["id"], &three["id"], &two["id"], &one["id"]], "{}", node.name);
        let all = shown(node, "/v1/clips").await;
        assert_eq!(all["clips"].as_array().unwrap().len(), 8, "{all}");
        let all = shown(node, "/v1/sessions").await;
        assert_eq!(all["sessions"].as_array().unwrap().len(), 4, "{all}");
    }
    for node in [a, b, &edge] {
        assert_eq!(node.call("PATCH", &place(&one), r#"{"name": "first"}"#).await.status, 200);
        let change = json!({ "clip": two["id"], "pinned": true }).to_string();
        assert_eq!(node.call("PATCH", &path, &change).await.status, 200);
        assert_eq!(node.call("POST", &format!("{path}/undo"), "").await.status, 200);
        assert_eq!(node.call("POST", &format!("{path}/crop"), r#"{"from": 1}"#).await.status, 200);
        let streamed = node.call("POST", &format!("{}/stream", place(&four)), "").await;
        assert_eq!(streamed.status, 201, "{}", node.name);
        assert_eq!(node.get(&format!("{}/live.ogg", place(&four))).await.status, 200);
        assert_eq!(node.get("/v1/clips/00000000000000000000000000000000").await.status, 404);
        assert_eq!(node.get("/v1/sessions/nobody").await.status, 404);
        assert_eq!(node.call("POST", "/v1/clips", "{}").await.status, 422);
    }
    let mut follower = edge.get(&format!("{path}/events")).await;
    assert!(String::from_utf8(follower.some(200).await).unwrap().contains("session"));
    assert_eq!(edge.call("DELETE", &path, "").await.status, 204);
    for node in [a, b, &edge] {
        assert_eq!(node.get(&path).await.status, 404);
        assert_eq!(node.get(&place(&one)).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_clients_find_their_sessions_at_every_node() {
    let nats = Nats::start().await;
    let (makers, edge) = cluster(&nats, &["a", "b"], &json!({})).await;
    let [a, b] = &makers[..] else { unreachable!() };
    let audio = STANDARD.encode(wav());
    // The plug-in polls whichever node it is led to.
    let plug_in = async |node: &Node, verb: &str, body: Value| {
        let told = node.call("POST", &format!("/gary/api/juce/{verb}"), &body.to_string()).await.json().await;
        assert_eq!(told["success"], true, "{told}");
        told
    };
    let polled = async |node: &Node, id: &str| {
        eventually(async || {
            let told = shown(node, &format!("/api/juce/poll_status/{id}")).await;
            if told["status"] == "completed" { Ok(told) } else { Err(told.to_string()) }
        })
        .await
    };
    let begun =
        plug_in(&edge, "process_audio", json!({ "audio_data": audio, "model_name": "standin", "prompt_duration": 4 }))
            .await;
    let id = begun["session_id"].as_str().unwrap();
    let heard = polled(a, id).await["audio_data"].clone();
    for node in [b, &edge] {
        assert!(polled(node, id).await["audio_data"] == heard);
    }
    for node in [b, &edge, a] {
        let body = json!({ "session_id": id, "model_name": "standin", "prompt_duration": 4 });
        plug_in(node, "continue_music", body).await;
        polled(&edge, id).await;
    }
    plug_in(b, "update_cropped_audio", json!({ "session_id": id, "audio_data": audio })).await;
    assert_eq!(polled(&edge, id).await["audio_data"], audio.as_str());
    assert_eq!(shown(&edge, &format!("/api/latest_generated_audio/{id}")).await["audio_data"], audio.as_str());
    // The web app's tasks are sessions with ids of their own.
    let task = "0123456789abcdef01234567";
    assert_eq!(upload(a, &format!("/v1/sessions?session={task}"), &wav()).await.status, 201);
    for node in [&edge, b, a] {
        let body = json!({ "task_id": task, "audio": audio, "model": "standin" }).to_string();
        let told = node.call("POST", "/continue", &body).await.json().await;
        assert_eq!(told["task_id"], task, "{told}");
        eventually(async || {
            let told = shown(&edge, &format!("/web/fetch-result/{task}")).await;
            if told["status"] == "completed" { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
        assert_eq!(shown(node, &format!("/progress/{task}")).await["progress"], 100.0);
        assert_eq!(shown(node, &format!("/tasks/{task}")).await["status"], "completed");
    }
    // terry transforms a session's sound, jerry makes loops, and both tell what they are.
    for node in [a, b, &edge] {
        let body = json!({ "variation": "strings_quartet", "session_id": id, "audio": audio, "flowstep": 0.1 });
        let mut told = node.call("POST", "/terry/transform", &body.to_string()).await;
        let (status, told) = (told.status, told.json().await);
        assert!(status == 200 && told["audio"].is_string(), "{}: {status} {told}", node.name);
        assert_eq!(shown(&edge, &format!("/v1/sessions/{id}")).await["id"], id);
        let body = json!({ "prompt": "pads 120bpm", "steps": 4, "return_format": "base64" });
        for path in ["/jerry/generate", "/audio/generate", "/generate"] {
            let told = node.call("POST", path, &body.to_string()).await.json().await;
            assert_eq!(told["success"], true, "{}: {path}", node.name);
        }
        for path in ["/gary/health", "/web/health", "/terry/health", "/jerry/health", "/health", "/api/models"] {
            assert_eq!(node.get(path).await.status, 200, "{}: {path}", node.name);
        }
        for path in ["/variations", "/riffs/available", "/models/status", "/v1/transforms", "/v1/models"] {
            assert_eq!(node.get(path).await.status, 200, "{}: {path}", node.name);
        }
    }
    // musicgen-stream's client finds the voices that it has begun.
    let mut playing = edge.call("POST", "/generate", r#"{"prompts": ["a", "b"]}"#).await;
    assert_eq!(playing.status, 200);
    playing.some(100_000).await;
    assert_eq!(edge.call("POST", "/set_prompts", r#"{"prompts": ["c"]}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_another_node_when_its_own_is_killed() {
    let nats = Nats::start().await;
    let (mut makers, edge) = cluster(&nats, &["a", "b"], &json!({})).await;
    let id = "kept.when-killed";
    let path = format!("/v1/sessions/{id}");
    assert_eq!(upload(&makers[0], &format!("/v1/sessions?session={id}"), &wav()).await.status, 201);
    let body = r#"{"prompt_seconds": 4, "seconds": 6}"#;
    let mut clips = Vec::new();
    for node in [&makers[1], &edge] {
        let clip = taken_on(node.call("POST", &format!("{path}/continue"), body).await).await;
        completed(&edge, &clip).await;
        clips.push(clip);
    }
    assert_eq!(edge.call("PATCH", &place(&clips[0]), r#"{"name": "first"}"#).await.status, 200);
    let mut before = Vec::new();
    for clip in &clips {
        before.push((sound(&edge, &format!("{}/audio.wav", place(clip))).await, shown(&edge, &place(clip)).await));
    }
    let present = sound(&edge, &format!("{path}/audio.wav")).await;
    makers[0].kill();
    // Whoever asks waits until it is certain.
    assert!(sound(&edge, &format!("{path}/audio.wav")).await == present);
    for (clip, (bytes, told)) in clips.iter().zip(&before) {
        assert!(sound(&makers[1], &format!("{}/audio.wav", place(clip))).await == *bytes);
        assert_eq!(shown(&edge, &place(clip)).await, *told);
    }
    assert_eq!(edge.call("POST", &format!("{path}/undo"), "").await.status, 200);
    assert!(sound(&edge, &format!("{path}/audio.wav")).await == before[0].0);
    let next = taken_on(edge.call("POST", &format!("{path}/continue"), body).await).await;
    completed(&makers[1], &next).await;
    let metrics = makers[1].get("/metrics").await.text().await;
    assert!(metrics.contains("continuo_cluster_sessions_taken_total{node=\"b\"} 1"), "{metrics}");
}

/// Has a node make a long clip, with another one behind it; gives both once the first has begun.
async fn at_work(node: &Node) -> Vec<Value> {
    let mut clips = Vec::new();
    for seconds in [20, 10] {
        let body = json!({ "prompt": "rain", "seconds": seconds, "seed": seconds }).to_string();
        clips.push(taken_on(node.call("POST", "/v1/clips", &body).await).await);
    }
    eventually(async || {
        let told = shown(node, &place(&clips[0])).await;
        if told["status"] == "running" { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    clips
}

/// Clips take a minute and longer here, on any machine.
fn slow() -> Value {
    json!({ "step_ms": 100 })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_was_making_is_made_by_another_and_the_node_that_returns_lets_go() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = slow();
    options["data"] = folder.path().to_str().into();
    let (mut a, edge) = cluster(&nats, &["a"], &options).await;
    let clips = at_work(&a[0]).await;
    let mut b = Node::start("b", &nats.url());
    b.ready().await;
    a[0].sees(&["a", "b", "edge"]).await;
    a[0].kill();
    // Nobody needs to ask.
    for clip in &clips {
        completed(&edge, clip).await;
    }
    let made = sound(&b, &format!("{}/audio.wav", place(&clips[0]))).await;
    let mut again = Node::start_with("a", &nats.url(), &options);
    again.ready().await;
    again.sees(&["a", "b", "edge"]).await;
    // It has no other opinion of them.
    assert!(sound(&again, &format!("{}/audio.wav", place(&clips[0]))).await == made);
    eventually(async || {
        let told = shown(&edge, "/v1/clips").await;
        let count = told["clips"].as_array().unwrap().len();
        if count == clips.len() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    for clip in &clips {
        for node in [&again, &b, &edge] {
            assert_eq!(shown(node, &place(clip)).await["status"], "completed", "{}", node.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_end_leaves_its_unfinished_clips_to_another() {
    let nats = Nats::start().await;
    let (makers, edge) = cluster(&nats, &["a"], &slow()).await;
    let clips = at_work(&makers[0]).await;
    let mut b = Node::start("b", &nats.url());
    b.ready().await;
    makers[0].sees(&["a", "b", "edge"]).await;
    makers[0].signal("TERM");
    for clip in &clips {
        completed(&edge, clip).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_clips_are_made_where_they_are_asked_for_and_are_copied_when_it_is_back() {
    let mut nats = Nats::start().await;
    let (mut makers, edge) = cluster(&nats, &["a", "b"], &json!({})).await;
    let early = taken_on(makers[0].call("POST", "/v1/clips", r#"{"prompt": "x", "seconds": 2}"#).await).await;
    completed(&edge, &early).await;
    nats.kill();
    let late = taken_on(makers[0].call("POST", "/v1/clips", r#"{"prompt": "y", "seconds": 2}"#).await).await;
    completed(&makers[0], &late).await;
    assert_eq!(makers[0].call("POST", &format!("{}/undo", session(&early)), "").await.status, 409);
    eventually(async || {
        let answer = edge.get(&place(&early)).await;
        if answer.status == 503 && answer.header("retry-after") == Some("2") {
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    })
    .await;
    nats.up().await;
    for clip in [&early, &late] {
        eventually(async || {
            let status = edge.get(&place(clip)).await.status;
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    let made = sound(&edge, &format!("{}/audio.wav", place(&late))).await;
    makers[0].kill();
    assert!(sound(&edge, &format!("{}/audio.wav", place(&late))).await == made);
}

/// A request of an owner.
async fn asked_by(node: &Node, owner: usize, path: &str, body: &[u8]) -> Answer {
    let head = format!("POST {path} HTTP/1.1\nX-Forwarded-For: 203.0.113.{owner}\nContent-Length: {}", body.len());
    send(node.addr, &head, body).await
}

/// A piece of an owner, of a node's choice of place.
pub async fn ask(node: &Node, owner: usize, seed: usize) -> Value {
    ask_for(node, owner, 2, seed).await
}

/// The same of this length.
pub async fn ask_for(node: &Node, owner: usize, seconds: u32, seed: usize) -> Value {
    let body = json!({ "prompt": "rain", "seconds": seconds, "seed": seed }).to_string();
    taken_on(asked_by(node, owner, "/v1/clips", body.as_bytes()).await).await
}

/// Sessions of a node that has nothing to do yet.
async fn sessions(node: &Node, count: usize) -> Vec<String> {
    let mut sessions = Vec::new();
    for _ in 0..count {
        let created = upload(node, "/v1/sessions", &wav()).await;
        sessions.push(created.header("location").unwrap().to_owned());
    }
    sessions
}

/// Pieces of an owner in these sessions.
async fn ask_in(node: &Node, owner: usize, sessions: &[String]) -> Vec<Value> {
    let mut clips = Vec::new();
    for session in sessions {
        let body = br#"{"prompt_seconds": 1, "seconds": 3}"#;
        clips.push(taken_on(asked_by(node, owner, &format!("{session}/continue"), body).await).await);
    }
    clips
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clips_of_ten_owners_are_each_made_once_while_nodes_die() {
    let nats = Nats::start().await;
    let (mut makers, edge) = cluster(&nats, &["a", "b", "c"], &json!({ "step_ms": 3 })).await;
    let mut clips = Vec::new();
    for round in 0..20 {
        let asked = (1..=10).map(|owner| ask(&edge, owner, 100 * owner + round));
        clips.extend(futures_util::future::join_all(asked).await);
    }
    let mut over = HashMap::new();
    let mut done = async |at_least: usize| {
        // However slow the machine is, one after the other ends.
        for count in 1..=at_least {
            eventually(async || {
                for clip in &clips {
                    if over.len() >= count || over.contains_key(&place(clip)) {
                        continue;
                    }
                    let mut answer = edge.get(&place(clip)).await;
                    let (status, told) = (answer.status, answer.json().await);
                    if status == 200 && is_over(&told) {
                        over.insert(place(clip), told);
                    }
                }
                if over.len() >= count { Ok(()) } else { Err(format!("{} of {count}", over.len())) }
            })
            .await;
        }
    };
    done(5).await;
    makers[0].kill();
    let mut d = Node::start("d", &nats.url());
    d.ready().await;
    done(40).await;
    makers[1].kill();
    done(clips.len()).await;
    let mut made = 0;
    for clip in &clips {
        let told = &over[&place(clip)];
        // One over which both have died is given up, and says so.
        let is_given_up = told["error"].as_str().is_some_and(|error| error.contains("given up"));
        assert!(told["status"] == "completed" || is_given_up, "{told}");
        if is_given_up {
            continue;
        }
        made += 1;
        let of_session = shown(&edge, &format!("/v1/clips?session={}", clip["session"].as_str().unwrap())).await;
        assert_eq!(of_session["clips"].as_array().unwrap().len(), 1, "{of_session}");
        let path = format!("{}/audio.wav", place(clip));
        assert!(sound(&makers[2], &path).await == sound(&d, &path).await);
    }
    assert!(made >= 190, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_take_turns_with_what_a_killed_node_had() {
    let nats = Nats::start().await;
    let (mut makers, edge) = cluster(&nats, &["a"], &slow()).await;
    let mut clips = Vec::new();
    for owner in [1, 1, 1, 1, 1, 2, 3, 3, 2] {
        clips.push((owner, ask(&edge, owner, 7).await));
    }
    // Two at a time.
    let begun: Vec<Value> = eventually(async || {
        let told = shown(&edge, "/v1/clips").await;
        let running = told["clips"].as_array().unwrap().iter().filter(|clip| clip["status"] == "running");
        let running: Vec<Value> = running.map(|clip| clip["id"].clone()).collect();
        if running.len() == 2 { Ok(running) } else { Err(told.to_string()) }
    })
    .await;
    let mut b = Node::start_with("b", &nats.url(), &slow());
    b.ready().await;
    edge.sees(&["a", "b", "edge"]).await;
    makers[0].kill();
    eventually(async || {
        let told = b.get("/metrics").await.text().await;
        let all = format!("continuo_cluster_sessions_taken_total{{node=\"b\"}} {}", clips.len());
        if told.contains(&all) { Ok(()) } else { Err(told) }
    })
    .await;
    let told = shown(&b, "/v1/clips").await;
    let told = told["clips"].as_array().unwrap();
    let owner = |clip: &Value| clips.iter().find(|(_, asked)| asked["id"] == clip["id"]).unwrap().0;
    let mut had: Vec<usize> = told.iter().filter(|clip| clip["status"] != "queued").map(owner).collect();
    // Those over which the other one has died come last, each alone.
    let mut line: Vec<&Value> =
        told.iter().filter(|clip| clip["status"] == "queued" && !begun.contains(&clip["id"])).collect();
    line.sort_by_key(|clip| clip["queue"]["position"].as_u64());
    let mut turns = Vec::new();
    for clip in line {
        let owner = owner(clip);
        turns.push(had.iter().filter(|other| **other == owner).count());
        had.push(owner);
    }
    assert!(turns.len() >= 4 && turns.is_sorted(), "{turns:?} of {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_all_places_everywhere_keeps_nobody_else_waiting() {
    let nats = Nats::start().await;
    let (makers, edge) = cluster(&nats, &["a", "b"], &slow()).await;
    // As many as one owner may have.
    let mut count = 0;
    loop {
        let answer = asked_by(&edge, 1, "/v1/clips", br#"{"prompt": "rain", "seconds": 20}"#).await;
        if answer.status != 202 {
            assert_eq!(answer.status, 429);
            break;
        }
        count += 1;
    }
    // Two at a time and sixteen behind them, at both nodes; nobody waits while another has a place.
    assert_eq!(count, 36);
    for (turn, owner) in [2, 3, 4].into_iter().enumerate() {
        for node in [&makers[0], &makers[1], &edge] {
            let clip = ask(node, 10 * owner + node.addr.port() as usize % 10, owner).await;
            let position = shown(&edge, &place(&clip)).await["queue"]["position"].as_u64().unwrap();
            // Behind those of others who came before, and of none of them more than one.
            assert!((1..=3 * turn as u64 + 3).contains(&position), "{}: {position}", node.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_at_a_busy_node_is_made_where_there_is_a_place() {
    let nats = Nats::start().await;
    let (makers, edge) = cluster(&nats, &["a", "b"], &slow()).await;
    for seed in 0..4 {
        ask(&makers[0], 1, seed).await;
    }
    eventually(async || {
        let told = shown(&edge, "/v1/clips").await;
        let clips = told["clips"].as_array().unwrap();
        let running = clips.iter().filter(|clip| clip["status"] == "running").count();
        if running == 4 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_at_every_node_gets_no_more_turns_for_it() {
    let nats = Nats::start().await;
    let (makers, _edge) = cluster(&nats, &["a", "b"], &json!({ "step_ms": 20 })).await;
    let [a, b] = &makers[..] else { unreachable!() };
    let (of_a, of_b) = (sessions(a, 14).await, sessions(b, 16).await);
    // One owner keeps the second node busy with clips of his own, all the while.
    let elsewhere = ask_in(b, 1, &of_b).await;
    eventually(async || {
        let told = shown(b, &place(&elsewhere[0])).await;
        if told["status"] == "running" { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let (of_one, of_two) = futures_util::join!(ask_in(a, 1, &of_a[..7]), ask_in(a, 2, &of_a[7..]));
    for clip in &of_two {
        completed(a, clip).await;
    }
    let mut made = 0;
    for clip in &of_one {
        made += usize::from(is_over(&shown(a, &place(clip)).await));
    }
    let last = shown(b, &place(elsewhere.last().unwrap())).await;
    assert!(!is_over(&last), "the second node has nothing to do any more: {last}");
    // In turns both would have had as many here.
    assert!((1..=5).contains(&made), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_stream_goes_into_a_session_of_another_node() {
    let nats = Nats::start().await;
    let mut a = Node::start("a", &nats.url());
    let mut b = Node::start_with("b", &nats.url(), &json!({ "voices": 0 }));
    let mut edge = Node::start_with("edge", &nats.url(), &json!({ "edge": true }));
    for node in [&mut a, &mut b, &mut edge] {
        node.ready().await;
    }
    for node in [&a, &b, &edge] {
        node.sees_room_at("a").await;
        node.sees(&["a", "b", "edge"]).await;
    }
    let stream = format!("/v1/streams/{}", edge.create(r#"{"prompts": ["x"]}"#).await);
    let mut listener = edge.get(&format!("{stream}/audio.ogg")).await;
    let at_b = upload(&b, "/v1/sessions?session=lives.at-b", &wav()).await;
    assert_eq!(at_b.status, 201);
    let mut cut = async |node: &Node, session: Value| {
        let body = json!({ "from": 0.5, "to": 2, "session": session }).to_string();
        eventually(async || {
            let _ = listener.some(1).await;
            let mut answer = node.call("POST", &format!("{stream}/clip"), &body).await;
            match answer.status {
                // So much has not been played yet.
                422 => Err(answer.text().await),
                _ => Ok((answer.status, answer.header("location").unwrap_or_default().to_owned(), answer.json().await)),
            }
        })
        .await
    };
    let (status, new, told) = cut(&edge, Value::Null).await;
    assert_eq!(status, 201, "{told}");
    let part = sound(&edge, &format!("{new}/audio.wav")).await;
    assert!(part.len() > 90_000, "{}", part.len());
    for (count, node) in [&edge, &a, &b].into_iter().enumerate() {
        let (status, place, told) = cut(node, json!("lives.at-b")).await;
        assert_eq!((status, place.as_str()), (201, "/v1/sessions/lives.at-b"), "{}: {told}", node.name);
        assert_eq!((&told["session"], &told["seconds"]), (&json!("lives.at-b"), &json!(1.5)));
        for other in [&a, &b, &edge] {
            assert!(sound(other, "/v1/sessions/lives.at-b/audio.wav").await == part, "{}", other.name);
        }
        let clips = shown(&edge, "/v1/clips?session=lives.at-b").await;
        assert_eq!(clips["clips"].as_array().unwrap().len(), count + 2, "{clips}");
    }
    // Whoever goes on with the session takes the next one.
    b.kill();
    let (status, _, told) = cut(&edge, json!("lives.at-b")).await;
    assert_eq!(status, 201, "{told}");
    let clips = shown(&a, "/v1/clips?session=lives.at-b").await;
    assert_eq!(clips["clips"].as_array().unwrap().len(), 5, "{clips}");
}
