//! Nodes that die or are asked to end, under listeners of other nodes.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::nats::Nats;
use crate::node::{Node, answered, eventually};
use crate::proxy::Proxy;
use crate::sound;

pub const SECOND: usize = 48_000;

/// Somebody who listens, and what was heard so far.
pub struct Listener {
    pub format: &'static str,
    answer: Answer,
    pub bytes: Vec<u8>,
}

impl Listener {
    pub async fn join(node: &Node, place: &str, format: &'static str) -> Self {
        let answer = answered(200, node.get(&format!("{place}/audio.{format}")).await).await;
        Self { format, answer, bytes: Vec::new() }
    }

    /// Hears so many seconds more.
    pub async fn hear(&mut self, seconds: usize) {
        self.bytes.extend(self.answer.some(seconds * self.a_second()).await);
    }

    fn a_second(&self) -> usize {
        match self.format {
            "wav" => 2 * SECOND,
            "mp3" => 16_000,
            _ => 12_000,
        }
    }

    /// Hears on, whatever happens meanwhile, until that has happened and so many seconds more.
    pub async fn hear_during<T>(listeners: &mut [Self], happens: impl Future<Output = T>, seconds: usize) -> T {
        let over = AtomicBool::new(false);
        let hears = join_all(listeners.iter_mut().map(async |listener| {
            while !over.load(Ordering::Relaxed) {
                listener.bytes.extend(listener.answer.piece().await.expect("the stream goes on"));
            }
            listener.hear(seconds).await;
        }));
        let happens = async {
            let happened = happens.await;
            over.store(true, Ordering::Relaxed);
            happened
        };
        let (happened, _) = tokio::join!(happens, hears);
        happened
    }

    pub fn samples(&self) -> Vec<f32> {
        match self.format {
            "wav" => samples(&self.bytes),
            // A page or a frame may be cut off at the end.
            "mp3" => sound::decoded(&self.bytes[..self.bytes.len() / 384 * 384], "mp3"),
            _ => sound::decoded(sound::whole_pages(&self.bytes), "ogg"),
        }
    }
}

fn samples(wav: &[u8]) -> Vec<f32> {
    let pairs = wav[44..].as_chunks::<2>().0.iter();
    pairs.map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32_768.0).collect()
}

/// How far apart two pieces of sound are, as a part of their energy.
fn apart(one: &[f32], other: &[f32]) -> f32 {
    let error: f32 = one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum();
    error / one.iter().map(|sample| sample.powi(2)).sum::<f32>().max(1e-6)
}

/// Checks that all that was heard is one piece of the recording: no gap, nothing twice, nothing
/// else.
pub fn assert_one_piece(heard: &Listener, recording: &[f32]) {
    assert_part(heard.format, &heard.samples(), recording);
}

/// The same of what was heard at some time.
pub fn assert_part(format: &str, pcm: &[f32], recording: &[f32]) {
    assert!(pcm.len() > 4 * SECOND, "{}", pcm.len());
    // Codecs have to get going.
    let begin = SECOND / 2;
    let look: Vec<f32> = pcm[begin..begin + 19_200].iter().step_by(13).copied().collect();
    let mut best = (f32::MAX, 0);
    for at in 0..recording.len() - 19_200 {
        let mut error = 0.0;
        // Most places are wrong from the start.
        let is_better = look.iter().zip(recording[at..].iter().step_by(13)).all(|(one, other)| {
            error += (one - other).powi(2);
            error < best.0
        });
        if is_better {
            best = (error, at);
        }
    }
    let best = best.1;
    let recording = &recording[best..];
    for (n, (heard_now, played)) in pcm[begin..].chunks(4800).zip(recording.chunks(4800)).enumerate() {
        let apart = apart(heard_now, played);
        assert!(apart < 0.1, "{format}: {apart} after {} s", n as f32 / 10.0);
    }
}

/// A part of a stream, as it is written down where it plays now.
pub async fn recording(node: &Node, place: &str, seconds: Range<usize>) -> Vec<f32> {
    let Range { start, end } = seconds;
    let path = format!("{place}/recording?from={start}&to={end}&format=wav");
    eventually(async || {
        let mut answer = node.get(&path).await;
        if answer.status == 200 { Ok(samples(&answer.body().await)) } else { Err(answer.text().await) }
    })
    .await
}

pub async fn playhead(node: &Node, place: &str) -> usize {
    node.get(place).await.json().await["playhead"].as_f64().unwrap_or_default() as usize
}

/// Two nodes without room under listeners, and one after the other that make the stream; each is
/// ended like this.
async fn one_owner_after_the_other(rounds: usize, end: impl Fn(&mut Node)) {
    let nats = Nats::start().await;
    let mut edges = ["x", "y"].map(|name| Node::start_with(name, &nats.url(), &json!({ "voices": 0 })));
    let mut owner = Node::start("owner-0", &nats.url());
    for node in edges.iter_mut().chain([&mut owner]) {
        node.ready().await;
    }
    edges[0].sees_room_at("owner-0").await;
    let place = format!("/v1/streams/{}", edges[0].create(r#"{"prompts": ["x"]}"#).await);
    let mut listeners = [
        Listener::join(&edges[0], &place, "wav").await,
        Listener::join(&edges[0], &place, "ogg").await,
        Listener::join(&edges[1], &place, "wav").await,
        Listener::join(&edges[1], &place, "mp3").await,
    ];
    Listener::hear_during(&mut listeners, async {}, 3).await;
    for round in 1..=rounds {
        let mut next = Node::start(&format!("owner-{round}"), &nats.url());
        // Who does not read meanwhile may be too slow, and skips.
        let is_there = async {
            next.ready().await;
            for node in edges.iter().chain([&owner]) {
                node.sees_room_at(&next.name).await;
            }
        };
        Listener::hear_during(&mut listeners, is_there, 0).await;
        end(&mut owner);
        Listener::hear_during(&mut listeners, async {}, 4).await;
        let goes_on = eventually(async || {
            let told = next.get("/v1/nodes").await.json().await;
            let own = told["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["name"] == *next.name));
            match own {
                Some(own) if own["takeovers"] == 1 && own["streams"] == 1 => Ok(()),
                _ => Err(told.to_string()),
            }
        });
        Listener::hear_during(&mut listeners, goes_on, 0).await;
        owner = next;
    }
    for edge in &edges {
        let metrics = edge.get("/metrics").await.text().await;
        for lost in ["continuo_cluster_pages_missed_total", "continuo_listener_skips_total"] {
            let told = metrics.lines().find(|line| line.starts_with(lost));
            assert!(told.is_none_or(|told| told.ends_with(" 0")), "{told:?}");
        }
    }
    let seconds = playhead(&owner, &place).await;
    let recording = recording(&owner, &place, 0..seconds - 1).await;
    for listener in &listeners {
        if listener.format == "ogg" {
            sound::continuous(&listener.bytes);
        }
        assert_one_piece(listener, &recording);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_killed_one_after_the_other_and_nobody_hears_it() {
    one_owner_after_the_other(4, Node::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_end_hands_its_streams_over_and_nobody_hears_it() {
    one_owner_after_the_other(2, |node| node.signal("TERM")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_nobody_hears_goes_on_at_another_node_with_its_music() {
    let nats = Nats::start().await;
    let mut first = Node::start("first", &nats.url());
    first.ready().await;
    first.sees_room_at("first").await;
    let id = first.create(r#"{"name": "dusk", "prompts": ["x"]}"#).await;
    let place = format!("/v1/streams/{id}");
    let mut before = Listener::join(&first, &place, "wav").await;
    before.hear(5).await;
    assert_eq!(first.call("PATCH", &place, r#"{"prompts": ["rain"]}"#).await.status, 200);
    before.hear(5).await;
    let mut second = Node::start("second", &nats.url());
    second.ready().await;
    second.sees(&["first", "second"]).await;
    first.kill();
    let told: Value = eventually(async || {
        let mut answer = second.get(&place).await;
        if answer.status == 200 { Ok(answer.json().await) } else { Err(answer.status.to_string()) }
    })
    .await;
    assert_eq!((&told["name"], &told["prompts"][0]["text"]), (&json!("dusk"), &json!("rain")));
    assert!(told["playhead"].as_f64() > Some(5.0), "{told}");
    let mut after = Listener::join(&second, &place, "wav").await;
    after.hear(3).await;
    assert_eq!(second.call("POST", "/v1/streams", r#"{"name": "dusk", "prompts": ["y"]}"#).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_cut_off_comes_back_and_drops_its_voice() {
    let nats = Nats::start().await;
    let line = Proxy::start(nats.addr).await;
    let mut edge = Node::start_with("edge", &nats.url(), &json!({ "voices": 0 }));
    let mut beside = Node::start_with("beside", &line.url(), &json!({ "voices": 0 }));
    let mut first = Node::start("first", &line.url());
    for node in [&mut edge, &mut beside, &mut first] {
        node.ready().await;
    }
    edge.sees_room_at("first").await;
    let id = edge.create(r#"{"prompts": ["x"]}"#).await;
    let place = format!("/v1/streams/{id}");
    let mut second = Node::start("second", &nats.url());
    second.ready().await;
    edge.sees_room_at("second").await;
    let mut listener = Listener::join(&edge, &place, "wav").await;
    let mut cut_off_too = Listener::join(&beside, &place, "wav").await;
    futures_util::join!(listener.hear(3), cut_off_too.hear(3));
    line.cut();
    // It goes on elsewhere, although where it played it plays on.
    listener.hear(4).await;
    assert_eq!(first.get(&place).await.json().await["id"], id.as_str());
    line.heal();
    eventually(async || {
        let told = edge.get("/v1/nodes").await.json().await;
        let streams = |name: &str| {
            let node = told["nodes"].as_array()?.iter().find(|node| node["name"] == name)?;
            node["streams"].as_u64()
        };
        if (streams("first"), streams("second")) == (Some(0), Some(1)) { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let mut late = Listener::join(&first, &place, "wav").await;
    // Who knew only the first owner is not told that the stream ended with that.
    futures_util::join!(late.hear(6), listener.hear(6), cut_off_too.hear(6));
    let seconds = playhead(&second, &place).await;
    let recording = recording(&second, &place, 0..seconds - 1).await;
    assert_one_piece(&listener, &recording);
    assert_one_piece(&late, &recording);
}
