//! Three NATS servers, of which one after the other dies under listeners and comes back.

use serde_json::json;

use crate::clips::{completed, taken_on};
use crate::nats::{Nats, Three};
use crate::node::{Node, answered, eventually};
use crate::sound;
use crate::takeover::{Listener, SECOND, assert_one_piece, assert_part, playhead, recording};

/// Who makes a stream, a node without a model, and the stream's place.
async fn a_stream(cluster: &str) -> (Node, Node, String) {
    let mut owner = Node::start("owner", cluster);
    let mut edge = Node::start_with("edge", cluster, &json!({ "edge": true }));
    owner.ready().await;
    edge.ready().await;
    edge.sees_room_at("owner").await;
    let place = format!("/v1/streams/{}", edge.create(r#"{"name": "calm", "prompts": ["x"]}"#).await);
    (owner, edge, place)
}

/// How many times a node's journals were begun anew in NATS.
async fn times_begun(node: &Node) -> u64 {
    let metrics = node.get("/metrics").await.text().await;
    let line = metrics.lines().find(|line| line.starts_with("continuo_cluster_journals_begun_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_nats_server_of_three_dies_and_comes_back_and_nobody_notices() {
    let mut nats = Three::start().await;
    let (mut owner, edge, place) = a_stream(&nats.url()).await;
    let mut listeners = [Listener::join(&edge, &place, "wav").await, Listener::join(&edge, &place, "ogg").await];
    Listener::hear_during(&mut listeners, async {}, 2).await;
    let mut clips = Vec::new();
    // Whichever the two nodes speak to, and whichever orders what is kept.
    for n in 0..3 {
        nats.kill(n);
        let asked = async {
            let body = json!({ "prompts": [format!("the server {n} is dead")] }).to_string();
            answered(200, edge.call("PATCH", &place, &body).await).await;
            let body = json!({ "prompt": "x", "seconds": 2, "seed": n }).to_string();
            clips.push(taken_on(edge.call("POST", "/v1/clips", &body).await).await);
            for path in ["/v1/nodes", "/v1/streams", "/readyz", &place] {
                answered(200, edge.get(path).await).await;
            }
        };
        Listener::hear_during(&mut listeners, asked, 2).await;
        Listener::hear_during(&mut listeners, nats.up(n), 0).await;
    }
    let made = async {
        for clip in &clips {
            completed(&edge, clip).await;
        }
    };
    Listener::hear_during(&mut listeners, made, 0).await;
    let told = edge.get("/v1/nodes").await.json().await;
    for node in told["nodes"].as_array().unwrap() {
        assert_eq!(node["takeovers"], 0, "{told}");
    }
    for node in [&edge, &owner] {
        let metrics = node.get("/metrics").await.text().await;
        assert!(!metrics.contains("continuo_cluster_pages_missed_total{"), "{metrics}");
    }
    let seconds = playhead(&owner, &place).await;
    let played = recording(&owner, &place, 0..seconds - 1).await;
    for listener in &listeners {
        if listener.format == "ogg" {
            sound::continuous(&listener.bytes);
        }
        assert_one_piece(listener, &played);
    }
    // What is kept is whole: it goes on at another node, and nobody hears that either.
    let mut next = Node::start("next", &nats.url());
    let is_there = async {
        next.ready().await;
        edge.sees_room_at("next").await;
    };
    Listener::hear_during(&mut listeners, is_there, 0).await;
    // A server that dies may take some of it with it: what is kept begins behind that.
    let (mut begun, mut since) = (times_begun(&owner).await, playhead(&owner, &place).await);
    while since + 8 > playhead(&owner, &place).await {
        let times = times_begun(&owner).await;
        if times != begun {
            (begun, since) = (times, playhead(&owner, &place).await);
        }
        Listener::hear_during(&mut listeners, async {}, 1).await;
    }
    let begin = playhead(&owner, &place).await - 4;
    owner.kill();
    Listener::hear_during(&mut listeners, async {}, 4).await;
    let seconds = eventually(async || match playhead(&next, &place).await {
        0 => Err("it does not go on".into()),
        seconds => Ok(seconds),
    })
    .await;
    let played = recording(&next, &place, begin..seconds - 1).await;
    let pcm = listeners[0].samples();
    assert_part("wav", &pcm[pcm.len() - 5 * SECOND..], &played);
    sound::continuous(&listeners[1].bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_dies_together_with_an_owner_and_the_stream_goes_on() {
    let mut nats = Three::start().await;
    let (mut owner, edge, place) = a_stream(&nats.url()).await;
    let mut listeners = [Listener::join(&edge, &place, "wav").await, Listener::join(&edge, &place, "ogg").await];
    // Whichever orders what is kept.
    for n in 0..3 {
        let mut next = Node::start(&format!("next-{n}"), &nats.url());
        let is_there = async {
            next.ready().await;
            edge.sees_room_at(&next.name).await;
        };
        Listener::hear_during(&mut listeners, is_there, 2).await;
        nats.kill(n);
        owner.kill();
        // What was in store may be heard first.
        Listener::hear_during(&mut listeners, async {}, 6).await;
        Listener::hear_during(&mut listeners, nats.up(n), 0).await;
        let told = eventually(async || {
            let told = edge.get(&place).await.json().await;
            if told["node"] == next.name { Ok(told) } else { Err(told.to_string()) }
        });
        Listener::hear_during(&mut listeners, told, 0).await;
        owner = next;
    }
    sound::continuous(&listeners[1].bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_nats_is_away_for_ten_seconds_and_listeners_of_the_owner_hear_nothing_of_it() {
    let mut nats = Nats::start().await;
    let (owner, edge, place) = a_stream(&nats.url()).await;
    let mut near = Listener::join(&owner, &place, "wav").await;
    let mut far = Listener::join(&edge, &place, "mp3").await;
    futures_util::join!(near.hear(2), far.hear(2));
    nats.kill();
    let asked = async {
        assert_eq!(owner.call("PATCH", &place, r#"{"prompts": ["alone"]}"#).await.status, 200);
        let clip = taken_on(owner.call("POST", "/v1/clips", r#"{"prompt": "x", "seconds": 2}"#).await).await;
        completed(&owner, &clip).await;
        let refused = eventually(async || match edge.get(&place).await {
            answer if answer.status == 503 => Ok(answer),
            answer => Err(answer.status.to_string()),
        })
        .await;
        assert_eq!(refused.header("retry-after"), Some("2"));
        clip
    };
    // Ten seconds of sound are ten seconds.
    let (clip, ()) = futures_util::join!(asked, near.hear(10));
    futures_util::join!(nats.up(), near.hear(2));
    futures_util::join!(near.hear(2), far.hear(4));
    completed(&edge, &clip).await;
    let told = edge.sees(&["edge", "owner"]).await;
    assert_eq!(told["nodes"][1]["takeovers"], 0, "{told}");
    let seconds = playhead(&owner, &place).await;
    assert_one_piece(&near, &recording(&owner, &place, 0..seconds - 1).await);
}
