//! Unmodified clients of the original: socket.io-client 4 and 2 from npm, python-socketio from
//! PyPI, each driving the table of what the Ableton device sends and needs back. `scripts/setup
//! test` installs them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use continuo::engine::standin::Standin;
use continuo::engine::{Engine, EngineConfig, RenderLoader, RenderModel};
use continuo::http::{self, App};
use continuo::model::Files;
use continuo::model::melodyflow::MelodyFlow;
use continuo::model::weights::Target;
use continuo::station::{Station, StationConfig};
use continuo::studio::{Presets, RenderModels, Store, Studio, StudioConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers")
}

/// A tiny transform model.
fn transformer() -> Result<RenderModel, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/melodyflow");
    let t5 = Files::Folder(folder.join("t5"));
    let target = Target::new(&Device::Cpu);
    let model = MelodyFlow::load(&Files::Folder(folder), &|_| Ok(t5.clone()), &target);
    Ok(model.map_err(|error| error.to_string())?)
}

/// A server whose clips take a second or so: time enough for a second request while the first is
/// being made.
async fn app(store: Store, renders: RenderModels) -> Arc<App> {
    let backend = Standin::default().with_step_time(Duration::from_millis(1));
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let config = StudioConfig { renders, ..StudioConfig::default() };
    let studio = Studio::start(engine.clone(), store, None, config).await.unwrap();
    let mut app = App::new(Station::new(engine, StationConfig::default()));
    app.studio = Some(studio);
    Arc::new(app)
}

async fn server(renders: RenderModels) -> String {
    let app = app(Store::ephemeral().unwrap(), renders).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(http::serve(app, vec![listener], std::future::pending()));
    url
}

/// Runs a script to its end.
async fn plays(program: PathBuf, script: &str, arguments: &[&str]) {
    let url = server(RenderModels::new(Presets::default(), Some(RenderLoader::new(transformer)), None)).await;
    let arguments: Vec<&str> = [url.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    runs(program, script, &arguments, async || ()).await;
}

/// Runs a script to its end, and does what it asks for whenever it says `restart`.
async fn runs(program: PathBuf, script: &str, arguments: &[&str], mut restart: impl AsyncFnMut()) {
    let without_models = server(RenderModels::default()).await;
    let mut child = Command::new(&program)
        .arg(folder().join(script))
        .args(arguments)
        .arg(&without_models)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run ({error}): run `scripts/setup test`", program.display()));
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut complaints = child.stderr.take().unwrap();
    let complaints = tokio::spawn(async move {
        let mut text = String::new();
        complaints.read_to_string(&mut text).await.unwrap();
        text
    });
    let mut last = String::new();
    while let Some(line) = said.next_line().await.unwrap() {
        if line == "restart" {
            restart().await;
        }
        last = line;
    }
    let status = child.wait().await.unwrap();
    let complaints = complaints.await.unwrap();
    assert!(status.success() && last == "all of it", "{script} {arguments:?}: {last}\n{complaints}");
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
async fn an_old_client_from_polling_to_websocket() {
    plays("node".into(), "script.mjs", &["2", "both"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_over_websocket() {
    plays(folder().join(".venv/bin/python"), "script.py", &["websocket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_over_polling() {
    plays(folder().join(".venv/bin/python"), "script.py", &["polling"]).await;
}

/// Ten hours of silence as a FLAC file.
fn bomb(folder: &Path) -> String {
    let path = folder.join("silence.flac");
    let silence =
        ["-v", "error", "-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "36000", "-frame_size", "16384"];
    let status = std::process::Command::new("ffmpeg").args(silence).arg(&path).stdin(Stdio::null()).status();
    assert!(status.unwrap().success());
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_with_the_client_of_today() {
    let scratch = tempfile::tempdir().unwrap();
    plays("node".into(), "tricky.mjs", &["4", &bomb(scratch.path())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_with_an_old_client() {
    let scratch = tempfile::tempdir().unwrap();
    plays("node".into(), "tricky.mjs", &["2", &bomb(scratch.path())]).await;
}

const FOLDER: &str = "CONTINUO_PRODUCERS_FOLDER";
const PORT: &str = "CONTINUO_PRODUCERS_PORT";

/// Not a test: a server of its own process, which can be killed, when this program is started with
/// a folder.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the server of the restart tests"]
async fn the_server_that_is_restarted() {
    let (Ok(folder), Ok(port)) = (std::env::var(FOLDER), std::env::var(PORT)) else { return };
    let app = app(Store::open(Path::new(&folder)).unwrap(), RenderModels::default()).await;
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).await.unwrap();
    println!("\nlistening {}", listener.local_addr().unwrap().port());
    http::serve(app, vec![listener], std::future::pending()).await.unwrap();
}

/// Starts that process; says its port.
async fn start_again(folder: &Path, port: u16) -> (Child, u16) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["the_server_that_is_restarted", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(PORT, port.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the server says where it listens");
        if let Some(port) = line.strip_prefix("listening ") {
            return (child, port.parse().unwrap());
        }
    }
}

async fn survives_restarts(version: &str) {
    let data = tempfile::tempdir().unwrap();
    let (mut server, port) = start_again(data.path(), 0).await;
    let url = format!("http://127.0.0.1:{port}");
    let restart = async || {
        server.kill().await.unwrap();
        server = start_again(data.path(), port).await.0;
    };
    runs("node".into(), "restart.mjs", &[&url, version], restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_today_goes_on_after_the_server_was_started_again() {
    survives_restarts("4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_goes_on_after_the_server_was_started_again() {
    survives_restarts("2").await;
}
