//! Several processes as one server, over a real NATS server that dies and comes back.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "cluster/clips.rs"]
mod clips;
#[path = "cluster/hls.rs"]
mod hls;
#[path = "cluster/nats.rs"]
mod nats;
#[path = "cluster/node.rs"]
mod node;
#[path = "cluster/past.rs"]
mod past;
#[path = "cluster/proxy.rs"]
mod proxy;
#[path = "cluster/servers.rs"]
mod servers;
#[path = "cluster/shipped.rs"]
mod shipped;
#[path = "cluster/sockets.rs"]
mod sockets;
#[path = "cluster/sound.rs"]
mod sound;
#[path = "cluster/takeover.rs"]
mod takeover;
mod tools;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use nats::Nats;
use node::{Node, eventually};

/// A node that has no room for streams, and one that has: the first passes everything on.
async fn pair(nats: &Nats, mut options: Value) -> (Node, Node) {
    let mut free = Node::start_with("free", &nats.url(), &options);
    options["voices"] = 0.into();
    let mut full = Node::start_with("full", &nats.url(), &options);
    for node in [&mut full, &mut free] {
        node.ready().await;
    }
    full.sees_room_at("free").await;
    free.sees(&["free", "full"]).await;
    (full, free)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_and_miss_those_that_end_or_are_killed() {
    let nats = Nats::start().await;
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| Node::start(name, &nats.url()));
    for node in [&mut a, &mut b, &mut c] {
        node.ready().await;
    }
    for other in ["a", "b", "c"] {
        a.sees_room_at(other).await;
    }
    for node in [&a, &b, &c] {
        let told = node.sees(&["a", "b", "c"]).await;
        assert_eq!((&told["cluster"], &told["node"]), (&"continuo".into(), &node.name.as_str().into()));
        for other in told["nodes"].as_array().unwrap() {
            assert_eq!(other["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(other["role"], "both");
        }
    }
    // Who listens at one is told by all.
    let mut listener = a.get("/generate?prompt=x").await;
    listener.some(1000).await;
    eventually(async || {
        let told = b.get("/v1/nodes").await.json().await;
        if told["nodes"][0]["listeners"] == 1 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let metrics = b.get("/metrics").await.text().await;
    assert!(metrics.contains("continuo_cluster_nodes{node=\"b\"} 3"), "{metrics}");
    assert!(metrics.contains("continuo_cluster_connected{node=\"b\"} 1"), "{metrics}");
    b.signal("TERM");
    a.sees(&["a", "c"]).await;
    c.kill();
    a.sees(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_different_names_share_a_nats_server() {
    let nats = Nats::start().await;
    let mut one = Node::real("a", &nats.url(), &["--cluster-name", "one"]);
    let mut two = Node::real("a", &nats.url(), &["--cluster-name", "two"]);
    one.ready().await;
    two.ready().await;
    assert_eq!(one.sees(&["a"]).await["cluster"], "one");
    assert_eq!(two.sees(&["a"]).await["cluster"], "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_with_one_name_the_second_is_told_and_follows_when_the_first_has_died() {
    let nats = Nats::start().await;
    let mut first = Node::real("a", &nats.url(), &[]);
    first.ready().await;
    first.sees(&["a"]).await;
    let mut second = Node::real("a", &nats.url(), &[]);
    second.ready().await;
    let sentence = eventually(async || {
        let mut answer = second.get("/v1/nodes").await;
        let sentence = answer.problem().await;
        if sentence.contains("--node") { Ok((answer.status, sentence)) } else { Err(sentence) }
    })
    .await;
    assert_eq!(
        sentence,
        (503, "Another node of the cluster is called `a`; start one of them with another --node.".into())
    );
    first.sees(&["a"]).await;
    first.kill();
    second.sees(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_plays_while_no_nats_server_answers_and_joins_when_one_does() {
    let mut nats = Nats::absent();
    let mut node = Node::start("a", &nats.url());
    node.ready().await;
    let mut listener = node.get("/generate?prompt=x").await;
    listener.some(1000).await;
    for _ in 0..2 {
        eventually(async || {
            let mut answer = node.get("/v1/nodes").await;
            if answer.status == 200 {
                return Err("the node does not notice that it is alone".into());
            }
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
            let sentence = answer.problem().await;
            assert!(sentence.starts_with("This node does not reach its cluster at present"), "{sentence}");
            Ok(())
        })
        .await;
        listener.some(20_000).await;
        nats.up().await;
        node.sees(&["a"]).await;
        listener.some(20_000).await;
        nats.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_by_itself_has_no_nodes() {
    let mut alone = Node::serve("alone", &Node::MODEL);
    alone.ready().await;
    let told = alone.get("/v1/nodes").await.json().await;
    assert_eq!(told, serde_json::json!({ "cluster": null, "node": null, "nodes": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_made_shown_steered_and_ended_through_every_node() {
    let nats = Nats::start().await;
    let (full, free) = pair(&nats, json!({})).await;
    let id = full.create(r#"{"name": "Tee & Kaffee", "prompts": ["tea"]}"#).await;
    let place = format!("/v1/streams/{id}");
    for node in [&full, &free] {
        let told = node.get(&place).await.json().await;
        assert_eq!((&told["id"], &told["name"]), (&json!(id), &json!("Tee & Kaffee")), "{}", node.name);
        let list = node.get("/v1/streams").await.json().await;
        let found = list["streams"].as_array().unwrap().iter().filter(|stream| stream["id"] == id.as_str());
        let owners: Vec<&Value> = found.map(|stream| &stream["node"]).collect();
        assert_eq!((&told["node"], owners), (&json!("free"), vec![&json!("free")]), "{}", node.name);
    }
    for (method, end, body, status) in [
        ("PATCH", "", r#"{"prompts": ["coffee"]}"#, 200),
        ("PATCH", "", r#"{"prompts": 3}"#, 422),
        ("POST", "/pause", "", 200),
        ("POST", "/resume", "", 200),
        ("POST", "/reset", "", 200),
        ("POST", "/nothing", "", 404),
        ("PUT", "", "", 405),
        ("GET", "/history", "", 200),
        ("HEAD", "/history", "", 200),
        ("GET", "/hls/master.m3u8", "", 200),
    ] {
        let answer = full.call(method, &format!("{place}{end}"), body).await;
        assert_eq!(answer.status, status, "{method} {end}");
    }
    assert_eq!(free.get(&place).await.json().await["prompts"][0]["text"], "coffee");
    assert_eq!(full.get("/hls/Tee%20%26%20Kaffee/master.m3u8").await.status, 200);
    assert_eq!(full.call("POST", "/v1/streams", r#"{"name": "Tee & Kaffee", "prompts": ["x"]}"#).await.status, 409);
    assert_eq!(full.call("DELETE", &place, "").await.status, 204);
    assert_eq!(full.get(&place).await.status, 404);
    assert_eq!(free.get(&place).await.status, 404);
    // The name is free at once.
    full.create(r#"{"name": "Tee & Kaffee", "prompts": ["tea"]}"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_wanted_twice_at_the_same_time_is_given_once() {
    let nats = Nats::start().await;
    let [mut a, mut b] = ["a", "b"].map(|name| Node::start(name, &nats.url()));
    a.ready().await;
    b.ready().await;
    a.sees_room_at("b").await;
    b.sees_room_at("a").await;
    for round in 0..5 {
        let body = format!(r#"{{"name": "same {round}", "prompts": ["x"]}}"#);
        let (mut one, mut two) =
            tokio::join!(a.call("POST", "/v1/streams", &body), b.call("POST", "/v1/streams", &body));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "round {round}");
        let made = if one.status == 201 { one.json().await } else { two.json().await };
        let place = format!("/v1/streams/{}", made["id"].as_str().unwrap());
        assert_eq!(a.call("DELETE", &place, "").await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_answers_may_be_larger_than_a_message() {
    let nats = Nats::start().await;
    // Sound that can be had at once.
    let (full, free) = pair(&nats, json!({ "burst": 16 })).await;
    let id = full.create(r#"{"prompts": ["x"]}"#).await;
    let place = format!("/v1/streams/{id}");
    let mut listener = free.get(&format!("{place}/audio.ogg")).await;
    eventually(async || {
        let _ = listener.some(1).await;
        let told = full.get(&format!("{place}/history")).await.json().await;
        if told["to"].as_f64().unwrap() >= 12.0 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    // A slow machine has enough to do.
    assert_eq!(full.call("POST", &format!("{place}/pause"), "").await.status, 200);
    let path = format!("{place}/recording?from=0&to=12&format=wav");
    let (theirs, ours) = (full.get(&path).await.body().await, free.get(&path).await.body().await);
    assert!(ours.len() > 1_100_000, "{}", ours.len());
    assert!(theirs == ours);
    let mut part = crate::client::send(full.addr, &format!("GET {path} HTTP/1.1\nRange: bytes=100-1099"), b"").await;
    assert_eq!((part.status, part.body().await == ours[100..1100]), (206, true));
    assert_eq!(full.call("POST", &format!("{place}/resume"), "").await.status, 200);
    // Segments of HLS are the same bytes from every node.
    let folder = format!("{place}/hls/opus");
    let segment = eventually(async || {
        let playlist = full.get(&format!("{folder}/index.m3u8?session=a")).await.text().await;
        let segment = playlist.lines().find(|line| line.ends_with(".m4s") && !line.starts_with('#'));
        segment.map(str::to_owned).ok_or(playlist)
    })
    .await;
    let file = format!("{folder}/{segment}");
    let (mut theirs, mut ours) = (full.get(&file).await, free.get(&file).await);
    assert_eq!((theirs.status, ours.status), (200, 200));
    assert!(theirs.body().await == ours.body().await);
    // So may what it is asked.
    let large = format!("{}{}", " ".repeat(1_000_000), r#"{"prompts": ["y"]}"#);
    assert_eq!(full.call("PATCH", &place, &large).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_where_a_request_comes_in() {
    let nats = Nats::start().await;
    let mut full = Node::start_with("full", &nats.url(), &json!({ "voices": 0, "token": "at the door" }));
    let mut free = Node::start_with("free", &nats.url(), &json!({ "token": "another one" }));
    full.ready().await;
    free.ready().await;
    eventually(async || {
        let told = full.get("/v1/nodes?token=at+the+door").await.json().await;
        let has_room = |node: &Value| node["name"] == "free" && node["room"].as_u64() > Some(0);
        match told["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(has_room)) {
            true => Ok(()),
            false => Err(told.to_string()),
        }
    })
    .await;
    let body = r#"{"prompts": ["x"]}"#;
    assert_eq!(full.call("POST", "/v1/streams", body).await.status, 401);
    let mut created = full.call("POST", "/v1/streams?token=at+the+door", body).await;
    assert_eq!(created.status, 201);
    let place = format!("/v1/streams/{}", created.json().await["id"].as_str().unwrap());
    assert_eq!(free.get(&format!("{place}?token=another+one")).await.status, 200);
    assert_eq!(full.get(&format!("{place}?token=another+one")).await.status, 401);
    let change = r#"{"prompts": ["y"]}"#;
    assert_eq!(full.call("PATCH", &format!("{place}?token=at+the+door"), change).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_a_nodes_own_streams_are_steered_and_those_of_others_are_503() {
    let mut nats = Nats::start().await;
    let (full, free) = pair(&nats, json!({})).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"prompts": ["x"]}"#).await);
    let mut listener = full.get(&format!("{place}/audio.ogg")).await;
    listener.some(20_000).await;
    nats.kill();
    eventually(async || {
        let answer = full.get(&place).await;
        if answer.status == 503 && answer.header("retry-after") == Some("2") {
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    })
    .await;
    assert_eq!(free.call("PATCH", &place, r#"{"prompts": ["y"]}"#).await.status, 200);
    let alone = free.create(r#"{"name": "made alone", "prompts": ["z"]}"#).await;
    nats.up().await;
    for place in [place, format!("/v1/streams/{alone}")] {
        eventually(async || {
            let status = full.get(&place).await.status;
            if status == 200 { Ok(()) } else { Err(format!("{place}: {status}")) }
        })
        .await;
    }
    // Who listened to another node's stream goes on.
    listener.some(60_000).await;
    assert_eq!(full.call("POST", "/v1/streams", r#"{"name": "made alone", "prompts": ["x"]}"#).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_played_is_forgotten_where_nobody_hears_it_or_can_go_on() {
    let nats = Nats::start().await;
    let (full, mut free) = pair(&nats, json!({})).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"prompts": ["x"]}"#).await);
    assert_eq!(full.get(&place).await.status, 200);
    free.kill();
    eventually(async || {
        let status = full.get(&place).await.status;
        if status == 404 { Ok(()) } else { Err(format!("the stream is still {status}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_of_all_nodes_plays_at_one_and_at_another_when_that_ends() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sets.json");
    std::fs::write(&file, r#"{"stations": [{"name": "radio", "prompts": ["waves"]}]}"#).unwrap();
    let prompts = json!({ "prompts": file.to_str().unwrap() });
    let mut first = Node::start_with("first", &nats.url(), &prompts);
    first.ready().await;
    first.sees(&["first"]).await;
    let mut second = Node::start_with("second", &nats.url(), &prompts);
    second.ready().await;
    second.sees(&["first", "second"]).await;
    let stations = async |node: &Node| {
        let list = node.get("/v1/streams").await.json().await;
        list["streams"].as_array().unwrap().iter().map(|stream| stream["id"].as_str().unwrap().to_owned()).collect()
    };
    let before: Vec<String> = stations(&second).await;
    assert_eq!((before.len(), &before), (1, &stations(&first).await));
    first.kill();
    eventually(async || match stations(&second).await {
        now if now.len() == 1 && now != before => Ok(()),
        now => Err(format!("{now:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_another_node_hears_every_sample_to_the_end() {
    let nats = Nats::start().await;
    let (full, _free) = pair(&nats, json!({})).await;
    for format in ["ogg", "wav", "mp3"] {
        let place = format!("/v1/streams/{}", full.create(r#"{"prompts": ["x"], "seconds": 5}"#).await);
        let mut heard = full.get(&format!("{place}/audio.{format}")).await;
        assert_eq!(heard.status, 200);
        let heard = heard.body().await;
        if format == "ogg" {
            sound::continuous(&heard);
        }
        let frames = sound::decoded(&heard, format).len();
        // An MP3 has the silence of its encoder too.
        let most = if format == "mp3" { 5 * 48_000 + 4000 } else { 5 * 48_000 };
        assert!((5 * 48_000..=most).contains(&frames), "{format}: {frames}");
    }
    let metrics = full.get("/metrics").await.text().await;
    assert!(!metrics.contains("continuo_packets_encoded_total{node=\"full\"}"), "{metrics}");
    assert!(!metrics.contains("continuo_cluster_pages_missed_total{"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_all_nodes_hear_the_same_packets_and_are_counted_together() {
    let nats = Nats::start().await;
    let (full, free) = pair(&nats, json!({})).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"name": "calm", "prompts": ["x"]}"#).await);
    let path = format!("{place}/audio.ogg");
    let mut first = full.get(&path).await;
    let early = first.some(20_000).await;
    // Whoever comes later begins with what was just played, at either node.
    let (mut second, mut third) = (full.get(&path).await, free.get(&path).await);
    let listeners = async |count: u64| {
        eventually(async || {
            let told = full.get(&place).await.json().await;
            if told["listeners"] == count { Ok(()) } else { Err(told.to_string()) }
        })
        .await
    };
    let (second_heard, third_heard) = (second.some(60_000).await, third.some(60_000).await);
    listeners(3).await;
    // As one Icecast, whichever node is asked.
    for node in [&full, &free] {
        let told = node.get("/status-json.xsl").await.json().await;
        let mounts = told["icestats"]["source"].as_array().unwrap();
        let counts = mounts.iter().map(|mount| (&mount["server_type"], &mount["listeners"]));
        let expected = [(&json!("audio/mpeg"), &json!(0)), (&json!("audio/ogg"), &json!(3))];
        let mut counts: Vec<_> = counts.collect();
        counts.sort_by_key(|(kind, _)| kind.as_str());
        assert_eq!(counts, expected, "{told}");
    }
    let first_heard = [early, first.some(60_000).await].concat();
    let packets = [&first_heard, &second_heard, &third_heard].map(|heard| sound::packets(heard));
    for others in &packets[1..] {
        let at = packets[0].iter().position(|packet| *packet == others[0]).expect("they hear the same stream");
        let common = (packets[0].len() - at).min(others.len());
        assert!(common > 50, "{common}");
        assert!(packets[0][at..at + common] == others[..common]);
    }
    drop((first, second));
    listeners(1).await;
    drop(third);
    listeners(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_titles_and_sockets_are_as_at_the_node_that_makes_the_stream() {
    let nats = Nats::start().await;
    let (full, free) = pair(&nats, json!({})).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"name": "cafe", "prompts": ["tea"]}"#).await);
    let mut events = full.get(&format!("{place}/events")).await;
    let mut told = String::new();
    let mut until = async |words: &[&str]| {
        while !words.iter().all(|word| told.contains(word)) {
            told += &String::from_utf8_lossy(&events.piece().await.expect("events go on"));
        }
    };
    until(&["event:title", "\"tea\"", "event:status"]).await;
    let address = format!("ws://{}{place}/ws?format=mp3", full.addr);
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    socket.send(Message::text(r#"{"type": "steer", "id": 7, "prompts": ["coffee"]}"#)).await.unwrap();
    let (mut ack, mut bytes) = (None, 0);
    while ack.is_none() || bytes < 10_000 {
        match timeout(client::PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Binary(sound) => bytes += sound.len(),
            Message::Text(text) => {
                let text: Value = serde_json::from_str(&text).unwrap();
                ack = (text["id"] == 7).then_some(text).or(ack);
            }
            _ => {}
        }
    }
    let ack = ack.unwrap();
    assert_eq!(ack["type"], "ack", "{ack}");
    assert!(ack["at"].is_number(), "{ack}");
    until(&["event:steer", "\"title\":\"coffee\""]).await;
    assert_eq!(free.get(&place).await.json().await["prompts"][0]["text"], "coffee");
    // Players of Icecast find titles between the sound.
    let head = "GET /generate?station=cafe&format=mp3 HTTP/1.1\nIcy-MetaData: 1";
    let mut player = crate::client::send(full.addr, head, b"").await;
    assert_eq!((player.status, player.header("icy-name")), (200, Some("cafe")));
    let sound = player.some(40_000).await;
    assert!(sound.windows(20).any(|bytes| bytes == b"StreamTitle='coffee'"));
    assert_eq!(free.call("DELETE", &place, "").await.status, 204);
    until(&["event:end", "it was deleted"]).await;
    while player.piece().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_heard_at_another_node_and_an_idle_stream_wakes_there() {
    let nats = Nats::start().await;
    let (full, free) = pair(&nats, json!({ "grace": 0 })).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"prompts": ["x"]}"#).await);
    let state = async |state: &str| {
        eventually(async || {
            let told = free.get(&place).await.json().await;
            if told["state"] == state { Ok(()) } else { Err(told.to_string()) }
        })
        .await
    };
    for _ in 0..2 {
        state("idle").await;
        let mut listener = full.get(&format!("{place}/audio.wav")).await;
        listener.some(400_000).await;
    }
    let mut listener = full.get(&format!("{place}/audio.wav")).await;
    let path = format!("{place}/recording?from=0&to=3&format=wav");
    let recording = eventually(async || {
        let _ = listener.some(1).await;
        let mut answer = full.get(&path).await;
        if answer.status == 200 { Ok(answer.body().await) } else { Err(answer.text().await) }
    })
    .await;
    let mut past = full.get(&format!("{place}/audio.wav?from=0")).await;
    assert_eq!(past.status, 200);
    let past = past.some(recording.len()).await;
    assert!(past[44..recording.len()] == recording[44..], "the past is another one");
    let mut fork = full.call("POST", &format!("{place}/fork"), r#"{"from": -2, "prompts": ["y"]}"#).await;
    assert_eq!(fork.status, 201);
    let fork = fork.json().await;
    assert_eq!((&fork["node"], &fork["prompts"][0]["text"]), (&json!("free"), &json!("y")), "{fork}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_serves_streams_without_a_model() {
    let nats = Nats::start().await;
    let mut edge = Node::serve("edge", &["--cluster", &nats.url(), "--node", "edge", "--role", "edge"]);
    edge.up().await;
    // Alone it has nothing to play, and says so.
    let sentence = eventually(async || {
        let mut answer = edge.get("/readyz").await;
        let sentence = answer.problem().await;
        if sentence.contains("--role") { Ok((answer.status, sentence)) } else { Err(sentence) }
    })
    .await;
    assert_eq!(sentence.0, 503, "{}", sentence.1);
    let mut engine = Node::start("engine", &nats.url());
    engine.ready().await;
    edge.ready().await;
    edge.sees_room_at("engine").await;
    let told = edge.sees(&["edge", "engine"]).await;
    assert_eq!((&told["nodes"][0]["role"], &told["nodes"][0]["room"]), (&json!("edge"), &json!(0)));
    let models = edge.get("/v1/models").await.json().await;
    assert_eq!(models, engine.get("/v1/models").await.json().await);
    let id = edge.create(r#"{"name": "far", "prompts": ["x"], "seconds": 4}"#).await;
    let heard = edge.get("/generate?station=far").await.body().await;
    sound::continuous(&heard);
    assert_eq!(sound::decoded(&heard, "ogg").len(), 4 * 48_000);
    assert_eq!(edge.get(&format!("/v1/streams/{id}/history")).await.status, 200);
    // A stream of one's own ends with its listener.
    let mut own = edge.get("/generate?prompt=x&seconds=3&wait=60").await;
    assert_eq!(own.status, 200);
    let place = format!("/v1/streams/{}", own.header("x-stream-id").unwrap());
    assert_eq!(edge.call("PATCH", &place, r#"{"prompts": ["y"]}"#).await.status, 200);
    let heard = own.body().await;
    sound::continuous(&heard);
    assert_eq!(sound::decoded(&heard, "ogg").len(), 3 * 48_000);
    let mut left = edge.get("/generate?prompt=x&wait=60").await;
    let place = format!("/v1/streams/{}", left.header("x-stream-id").unwrap());
    left.some(5000).await;
    drop(left);
    eventually(async || {
        let mut answer = engine.get(&place).await;
        let told = answer.text().await;
        if answer.status == 404 || told.contains("\"ended\"") { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(edge.call("POST", "/v1/clips", r#"{"prompt": "x", "seconds": 1}"#).await.status, 202);
    engine.kill();
    eventually(async || {
        let mut refused = edge.call("POST", "/v1/streams", r#"{"prompts": ["x"]}"#).await;
        let sentence = refused.problem().await;
        if sentence.contains("--role edge") { Ok(()) } else { Err(sentence) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_ones_own_plays_elsewhere_when_a_node_is_full() {
    let nats = Nats::start().await;
    let (full, free) = pair(&nats, json!({})).await;
    let mut heard = full.get("/generate?prompt=x&seconds=3&format=wav&wait=60").await;
    assert_eq!(heard.status, 200);
    let place = format!("/v1/streams/{}", heard.header("x-stream-id").unwrap());
    assert_eq!(free.get(&place).await.status, 200);
    assert_eq!(sound::decoded(&heard.body().await, "wav").len(), 3 * 48_000);
}
