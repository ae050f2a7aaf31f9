//! `serve --prompts`: stations follow the files that describe them.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use continuo::engine::standin::Standin;
use continuo::engine::{Engine, EngineConfig};
use continuo::station::{PromptSetError, PromptSets, Station, StationConfig, Stream, StreamState};
use serde_json::{Value, json};

use client::get;
use server::{start, until};

fn set(stations: &Value) -> String {
    json!({ "prompts": [], "stations": stations }).to_string()
}

/// As careful editors do it: a new file takes the old one's place.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn text(stream: &Stream) -> String {
    stream
        .info()
        .prompts
        .iter()
        .map(|prompt| format!("{} {}", prompt.text, prompt.weight))
        .collect::<Vec<_>>()
        .join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_takes_effect_without_a_restart() {
    let server = start().await;
    let station = &server.app.station;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("set.json");
    let (lofi, dub) = (json!({"name": "lofi", "prompts": ["piano"]}), json!({"name": "dub", "prompts": ["bass"]}));
    std::fs::write(&file, set(&json!([lofi, dub]))).unwrap();
    let sets = PromptSets::start(Arc::clone(station), &file).await.unwrap();
    let (first, second) = (station.named("lofi").unwrap(), station.named("dub").unwrap());
    let mut listener = get(server.addr, "/generate?station=lofi").await;
    listener.some(3_000).await;

    // One is steered, one is new, one ends; the listener hears it all from the same stream.
    let lofi = json!({"name": "lofi", "prompts": ["piano", {"text": "rain", "weight": 0.5}], "temperature": 0.5});
    replace(&file, &set(&json!([lofi, {"name": "funk", "prompts": ["clavinet"]}])));
    until(|| station.named("funk").is_ok() && station.named("dub").is_err()).await;
    assert_eq!((text(&first), first.info().sampling.temperature), ("piano 1; rain 0.5".into(), 0.5));
    assert_eq!(second.info().state, StreamState::Ended);
    listener.some(3_000).await;

    // A mistake changes nothing, and the next edit is seen again (written in place this time).
    replace(&file, "{\"stations\": [");
    std::fs::write(&file, set(&json!([{"name": "lofi", "prompts": ["strings"]}]))).unwrap();
    until(|| text(&first) == "strings 1").await;
    assert_eq!(station.list().len(), 1);
    listener.some(3_000).await;

    // Nobody follows any more: the stations play on.
    drop(sets);
    replace(&file, &set(&json!([])));
    listener.some(20_000).await;
    assert!(station.named("lofi").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_gains_and_loses_files() {
    let server = start().await;
    let station = &server.app.station;
    let folder = tempfile::tempdir().unwrap();
    let names = || {
        let mut names: Vec<_> = station.list().into_iter().filter_map(|info| info.name).collect();
        names.sort();
        names
    };
    std::fs::write(folder.path().join("a.json"), r#"{"prompts": ["x", "y"]}"#).unwrap();
    let _sets = PromptSets::start(Arc::clone(station), folder.path()).await.unwrap();
    assert_eq!(names(), ["a-1", "a-2"]);
    std::fs::write(folder.path().join("b.json"), r#"{"prompts": ["z"]}"#).unwrap();
    until(|| names() == ["a-1", "a-2", "b-1"]).await;
    std::fs::remove_file(folder.path().join("a.json")).unwrap();
    until(|| names() == ["b-1"]).await;
}

/// A configuration map as an orchestrator mounts it: `set.json` leads through the link `..data` to
/// a folder, and an update points `..data` at another one and removes the first.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_swapped_are_followed_again_and_again() {
    use std::os::unix::fs::symlink;
    let server = start().await;
    let station = &server.app.station;
    let set = |name: &str| set(&json!([{"name": name, "prompts": ["x"]}]));
    let cases = [("data", "set.json"), ("data", "."), ("link", "set.json"), ("folder", "sets")];
    for (number, (case, given)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let swap = |leads_to: &str, name: &str| {
            symlink(leads_to, root.join("new")).unwrap();
            std::fs::rename(root.join("new"), root.join(name)).unwrap();
        };
        let begin = |n: usize| {
            std::fs::create_dir(root.join(format!("..{n}"))).unwrap();
            std::fs::write(root.join(format!("..{n}/set.json")), set(&format!("{number}-{n}"))).unwrap();
            match case {
                "data" => swap(&format!("..{n}"), "..data"),
                "link" => swap(&format!("..{n}/set.json"), "set.json"),
                _ => swap(&format!("..{n}"), "sets"),
            }
        };
        begin(1);
        if case == "data" {
            symlink("..data/set.json", root.join("set.json")).unwrap();
        }
        let _sets = PromptSets::start(Arc::clone(station), &root.join(given)).await.unwrap();
        for n in 2..4 {
            begin(n);
            std::fs::remove_dir_all(root.join(format!("..{}", n - 1))).unwrap();
            until(|| station.named(&format!("{number}-{n}")).is_ok()).await;
            assert!(station.named(&format!("{number}-{}", n - 1)).is_err(), "{case}: the old station plays on");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_vanishes_changes_nothing_until_it_is_back() {
    let server = start().await;
    let station = &server.app.station;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("set.json");
    std::fs::write(&file, set(&json!([{"name": "first", "prompts": ["x"]}]))).unwrap();
    let _sets = PromptSets::start(Arc::clone(station), &file).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    // Longer than the time between many looks.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(station.named("first").is_ok());
    std::fs::write(&file, set(&json!([{"name": "second", "prompts": ["x"]}]))).unwrap();
    until(|| station.named("second").is_ok() && station.named("first").is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_for_one_voice_holds_many_stations_and_makes_no_sound_unheard() {
    let slow = Standin::default().with_step_time(Duration::from_millis(15));
    let engine = Engine::start(Box::new(slow), EngineConfig::default()).unwrap();
    let station = Station::new(engine, StationConfig::default());
    let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/prompts/stations.json"));
    let _sets = PromptSets::start(Arc::clone(&station), shipped).await.unwrap();
    assert!(station.list().len() >= 12, "{}", station.list().len());
    until(|| station.list().iter().all(|info| info.state == StreamState::Idle)).await;
    for info in station.list() {
        assert!(info.buffered < 1.0, "{:?} has {} s", info.name, info.buffered);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_cannot_be_used_is_told_at_the_start() {
    let server = start().await;
    let folder = tempfile::tempdir().unwrap();
    let begin = |path| PromptSets::start(Arc::clone(&server.app.station), path);
    let none = folder.path().join("none.json");
    let missing = begin(&none).await.err().unwrap();
    assert!(matches!(&missing, PromptSetError::Unreadable { path, .. } if path.ends_with("none.json")), "{missing}");
    assert!(matches!(begin(folder.path()).await.err().unwrap(), PromptSetError::Empty(_)));
    assert!(server.app.station.list().is_empty());
}
