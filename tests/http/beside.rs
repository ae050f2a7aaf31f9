//! Clips beside live streams, and beside the clips of others: nobody's music stops for them, and
//! nobody is starved.

use std::collections::HashMap;
use std::time::Duration;

use continuo::engine::standin::Standin;
use continuo::station::StationConfig;
use continuo::studio::{Store, Studio, StudioConfig};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::task::block_in_place;

use super::client::{Answer, PATIENCE, get, send};
use super::server::{Server, start_on, until};

/// A server that makes `workers` clips at the same time.
async fn making(workers: usize, backend: Standin, station: StationConfig) -> Server {
    start_on(backend, station, |app| {
        let config = StudioConfig { workers, ..StudioConfig::default() };
        let studio = Studio::start(app.engine().clone(), Store::ephemeral().unwrap(), None, config);
        app.studio = Some(block_in_place(|| Handle::current().block_on(studio)).unwrap());
    })
    .await
}

/// Asks for a short clip in somebody's name.
async fn ask(server: &Server, owner: &str) -> Answer {
    let body = r#"{"prompt": "clip", "seconds": 4, "prompt_seconds": 1}"#;
    let head = format!("POST /v1/clips HTTP/1.1\nX-Forwarded-For: {owner}\nContent-Length: {}", body.len());
    send(server.addr, &head, body.as_bytes()).await
}

async fn clips(server: &Server) -> Vec<Value> {
    get(server.addr, "/v1/clips").await.json().await["clips"].as_array().unwrap().clone()
}

fn count(clips: &[Value], status: &str) -> usize {
    clips.iter().filter(|clip| clip["status"] == status).count()
}

/// A machine of which one voice needs a third and two need half. Six clips that shared every step
/// with two streams would leave 36 steps a second, and a lead of two seconds would be gone within
/// seven.
fn machine() -> Standin {
    Standin::default().with_step_time(Duration::from_millis(4)).with_row_time(Duration::from_millis(3))
}

fn hasty() -> StationConfig {
    StationConfig { lead: 2.0, burst: 0.5, ..StationConfig::default() }
}

/// Starts a stream and reads `seconds` of it.
async fn listen(server: &Server, prompt: &str, seconds: usize) -> JoinHandle<()> {
    let mut listener = get(server.addr, &format!("/generate?prompt={prompt}&format=wav")).await;
    assert_eq!(listener.status, 200);
    tokio::spawn(async move {
        listener.some(seconds * 48_000 * 2).await;
    })
}

fn underruns(server: &Server) -> u64 {
    server.app.station.list().iter().map(|stream| stream.underruns).sum()
}

async fn fill_the_queue(server: &Server) {
    for owner in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        for _ in 0..16 {
            assert_eq!(ask(server, owner).await.status, 202);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_play_in_real_time_beside_a_queue_full_of_clips() {
    let server = making(6, machine(), hasty()).await;
    let listeners = [listen(&server, "first", 15).await, listen(&server, "second", 15).await];
    until(|| server.app.station.list().iter().filter(|stream| stream.buffered > 1.0).count() == 2).await;
    let before = underruns(&server);
    fill_the_queue(&server).await;
    for listener in listeners {
        listener.await.unwrap();
    }
    assert_eq!(underruns(&server), before, "{:?}", server.app.station.list());
    let clips = clips(&server).await;
    assert!(count(&clips, "queued") > 0, "the queue was full all the time");
    assert!(count(&clips, "completed") > 0, "clips were made all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_begins_beside_clips_plays_as_if_there_were_none() {
    let server = making(6, machine(), hasty()).await;
    listen(&server, "alone", 4).await.await.unwrap();
    let alone = underruns(&server);
    until(|| server.voices() == 0).await;
    fill_the_queue(&server).await;
    until(|| server.voices() == 6).await;
    listen(&server, "beside", 4).await.await.unwrap();
    assert!(underruns(&server) <= alone, "{alone} alone, and then {:?}", server.app.station.list());
    assert!(count(&clips(&server).await, "queued") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_cannot_starve_the_others() {
    let backend = Standin::default().with_step_time(Duration::from_millis(2));
    let server = making(1, backend, StationConfig::default()).await;
    let mut greedy = 0;
    let refused = loop {
        let mut answer = ask(&server, "10.0.0.1").await;
        match answer.status {
            202 => greedy += 1,
            429 => break answer,
            status => panic!("{status}: {}", answer.text().await),
        }
        assert!(greedy < 40, "one client may fill the queue");
    };
    assert!(greedy >= 16 && refused.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() > 0));
    let mut of = HashMap::new();
    for owner in ["10.0.0.2", "10.0.0.3"] {
        let mut answer = ask(&server, owner).await;
        assert_eq!(answer.status, 202, "the queue is not full for {owner}");
        let view = answer.json().await;
        of.insert(view["id"].as_str().unwrap().to_owned(), owner);
        // At most the one that runs and the other newcomer are before it.
        let position = view["queue"]["position"].as_u64().unwrap();
        assert!((1..=2).contains(&position), "{owner} is number {position}");
        assert!(view["queue"]["total"].as_u64().unwrap() >= 16 && view["queue"]["seconds"].is_number(), "{view}");
    }
    let began = std::time::Instant::now();
    let waiting = loop {
        let clips = clips(&server).await;
        if of.keys().all(|id| clips.iter().any(|clip| clip["id"] == id.as_str() && clip["status"] == "completed")) {
            break count(&clips, "queued");
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{clips:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let metrics = get(server.addr, "/metrics").await.text().await;
    assert!(metrics.contains("continuo_clips_waiting{lane=\"pieces\"}"), "{metrics}");
    assert!(metrics.contains("continuo_clips_total{verb=\"generate\",status=\"completed\"}"), "{metrics}");
    assert!(waiting >= 10, "newcomers were served while {waiting} of the greedy client's waited");
}
