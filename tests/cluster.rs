//! Several processes as one server, over a real NATS server that dies and comes back.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "cluster/nats.rs"]
mod nats;
#[path = "cluster/node.rs"]
mod node;

use nats::Nats;
use node::{Node, eventually};
use serde_json::json;

/// A node that has no room for streams, and one that has: the first passes everything on.
async fn pair(nats: &Nats, arguments: &[&str]) -> (Node, Node) {
    let mut full = Node::start_with("full", &nats.url(), &[&["--max-voices", "0"], arguments].concat());
    let mut free = Node::start_with("free", &nats.url(), arguments);
    for node in [&mut full, &mut free] {
        node.ready().await;
    }
    for node in [&full, &free] {
        node.sees(&["free", "full"]).await;
    }
    (full, free)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_and_miss_those_that_end_or_are_killed() {
    let nats = Nats::start().await;
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| Node::start(name, &nats.url()));
    for node in [&mut a, &mut b, &mut c] {
        node.ready().await;
    }
    for node in [&a, &b, &c] {
        let told = node.sees(&["a", "b", "c"]).await;
        assert_eq!((&told["cluster"], &told["node"]), (&"continuo".into(), &node.name.as_str().into()));
        for other in told["nodes"].as_array().unwrap() {
            assert_eq!(other["version"], env!("CARGO_PKG_VERSION"));
            assert!(other["room"].as_u64().unwrap() > 0, "{other}");
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
    let mut one = Node::start_with("a", &nats.url(), &["--cluster-name", "one"]);
    let mut two = Node::start_with("a", &nats.url(), &["--cluster-name", "two"]);
    one.ready().await;
    two.ready().await;
    assert_eq!(one.sees(&["a"]).await["cluster"], "one");
    assert_eq!(two.sees(&["a"]).await["cluster"], "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_with_one_name_the_second_is_told_and_follows_when_the_first_has_died() {
    let nats = Nats::start().await;
    let mut first = Node::start("a", &nats.url());
    first.ready().await;
    first.sees(&["a"]).await;
    let mut second = Node::start("a", &nats.url());
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
    let mut alone = Node::alone();
    alone.ready().await;
    let told = alone.get("/v1/nodes").await.json().await;
    assert_eq!(told, serde_json::json!({ "cluster": null, "node": null, "nodes": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_made_shown_steered_and_ended_through_every_node() {
    let nats = Nats::start().await;
    let (full, free) = pair(&nats, &[]).await;
    let id = full.create(r#"{"name": "Tee & Kaffee", "prompts": ["tea"]}"#).await;
    let place = format!("/v1/streams/{id}");
    for node in [&full, &free] {
        let told = node.get(&place).await.json().await;
        assert_eq!((&told["id"], &told["name"]), (&json!(id), &json!("Tee & Kaffee")), "{}", node.name);
        let list = node.get("/v1/streams").await.json().await;
        let found = list["streams"].as_array().unwrap().iter().filter(|stream| stream["id"] == id.as_str()).count();
        assert_eq!(found, 1, "{}", node.name);
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
    // Its sound is to be had where it is made, and that is said.
    for path in [format!("{place}/audio.ogg"), format!("{place}/events"), "/generate?station=Tee+%26+Kaffee".into()] {
        let mut refused = full.get(&path).await;
        assert_eq!(refused.status, 421, "{path}");
        assert!(refused.problem().await.contains("`free`"));
    }
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
    a.sees(&["a", "b"]).await;
    b.sees(&["a", "b"]).await;
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
    let (full, free) = pair(&nats, &["--burst", "16", "--lead", "20"]).await;
    let id = full.create(r#"{"prompts": ["x"]}"#).await;
    let place = format!("/v1/streams/{id}");
    let mut listener = free.get(&format!("{place}/audio.ogg")).await;
    eventually(async || {
        let _ = listener.some(1).await;
        let told = full.get(&format!("{place}/history")).await.json().await;
        if told["to"].as_f64().unwrap() >= 14.0 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let path = format!("{place}/recording?from=0&to=14&format=wav");
    let (theirs, ours) = (full.get(&path).await.body().await, free.get(&path).await.body().await);
    assert!(ours.len() > 1_300_000, "{}", ours.len());
    assert!(theirs == ours);
    let mut part = crate::client::send(full.addr, &format!("GET {path} HTTP/1.1\nRange: bytes=100-1099"), b"").await;
    assert_eq!((part.status, part.body().await == ours[100..1100]), (206, true));
    // Segments of HLS are the same bytes from every node.
    let file = format!("{place}/hls/opus");
    eventually(async || {
        full.get(&format!("{file}/index.m3u8?session=a")).await.text().await;
        let (theirs, ours) = (full.get(&format!("{file}/3.m4s")).await, free.get(&format!("{file}/3.m4s")).await);
        let (mut theirs, mut ours) = (theirs, ours);
        if (theirs.status, ours.status) != (200, 200) {
            return Err(format!("{} {}", theirs.status, ours.status));
        }
        assert!(theirs.body().await == ours.body().await);
        Ok(())
    })
    .await;
    // What is too large to be passed on is refused in a sentence.
    let mut large = full.call("PATCH", &place, &" ".repeat(1_047_000)).await;
    assert_eq!(large.status, 413);
    assert!(large.problem().await.contains("another node"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_where_a_request_comes_in() {
    let nats = Nats::start().await;
    let mut full = Node::start_with("full", &nats.url(), &["--max-voices", "0", "--token", "at the door"]);
    let mut free = Node::start_with("free", &nats.url(), &["--token", "another one"]);
    full.ready().await;
    free.ready().await;
    eventually(async || {
        let mut answer = full.get("/v1/nodes?token=at+the+door").await;
        let told = answer.text().await;
        if told.contains("free") { Ok(()) } else { Err(told) }
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
    let (full, free) = pair(&nats, &[]).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"prompts": ["x"]}"#).await);
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
    assert_eq!(full.call("POST", "/v1/streams", r#"{"name": "made alone", "prompts": ["x"]}"#).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_played_is_forgotten_and_its_names_are_free() {
    let nats = Nats::start().await;
    let (full, mut free) = pair(&nats, &[]).await;
    let body = r#"{"name": "mine", "prompts": ["x"]}"#;
    let place = format!("/v1/streams/{}", full.create(body).await);
    assert_eq!(full.get(&place).await.status, 200);
    free.kill();
    let mut other = Node::start("other", &nats.url());
    eventually(async || {
        let status = full.get(&place).await.status;
        if status == 404 { Ok(()) } else { Err(format!("the stream is still {status}")) }
    })
    .await;
    other.ready().await;
    full.sees(&["full", "other"]).await;
    full.create(body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_of_all_nodes_plays_at_one_and_at_another_when_that_ends() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sets.json");
    std::fs::write(&file, r#"{"stations": [{"name": "radio", "prompts": ["waves"]}]}"#).unwrap();
    let prompts = ["--prompts", file.to_str().unwrap()];
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
