//! Unmodified clients of the original: socket.io-client 4 and 2 from npm, python-socketio from PyPI, each driving the
//! table of what the Ableton device sends and needs back. `scripts/setup test` installs them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::Device;
use continuo::engine::standin::Standin;
use continuo::engine::{Engine, EngineConfig};
use continuo::http::{self, App};
use continuo::model::Files;
use continuo::model::melodyflow::MelodyFlow;
use continuo::model::weights::Target;
use continuo::station::{Station, StationConfig};
use continuo::studio::{Flows, Store, Studio, StudioConfig, Variations};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers")
}

/// A tiny transform model.
fn transformer() -> Result<Arc<MelodyFlow>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/melodyflow");
    let t5 = Files::Folder(folder.join("t5"));
    let target = Target::new(&Device::Cpu);
    MelodyFlow::load(&Files::Folder(folder), &|_| Ok(t5.clone()), &target).map_err(|error| error.to_string())
}

/// A server whose clips take a second or so: time enough for a second request while the first is being made.
async fn server(flows: Flows) -> String {
    let backend = Standin::default().with_step_time(Duration::from_millis(1));
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let store = Store::ephemeral().unwrap();
    let studio =
        Studio::start(engine.clone(), store, None, StudioConfig { flows, ..StudioConfig::default() }).await.unwrap();
    let mut app = App::new(Station::new(engine, StationConfig::default()));
    app.studio = Some(studio);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(http::serve(Arc::new(app), vec![listener], std::future::pending()));
    url
}

async fn plays(program: PathBuf, script: &str, arguments: &[&str]) {
    let url = server(Flows::new(Variations::default(), Some(Arc::new(transformer)), None)).await;
    let without_models = server(Flows::default()).await;
    let output = Command::new(&program)
        .arg(folder().join(script))
        .arg(&url)
        .args(arguments)
        .arg(&without_models)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{} cannot be run ({error}): run `scripts/setup test`", program.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("all of it"),
        "{script} {arguments:?}: {said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_of_today_over_websocket() {
    plays("node".into(), "script.mjs", &["4", "websocket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_of_today_from_polling_to_websocket() {
    plays("node".into(), "script.mjs", &["4", "both"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_over_websocket() {
    plays("node".into(), "script.mjs", &["2", "websocket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_over_websocket() {
    plays(folder().join(".venv/bin/python"), "script.py", &["websocket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_over_polling() {
    plays(folder().join(".venv/bin/python"), "script.py", &["polling"]).await;
}
