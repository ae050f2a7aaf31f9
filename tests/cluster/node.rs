//! Nodes: `continuo serve --cluster`, and this very test program started again as a node that makes
//! tones, which costs a busy machine nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use continuo::cluster::{Cluster, ClusterConfig, Role};
use continuo::engine::standin::{Standin, Tones, transformer};
use continuo::engine::{Engine, EngineConfig, RenderLoader};
use continuo::http::{self, Access, App};
use continuo::station::{PromptSets, Station, StationConfig};
use continuo::studio::{Presets, RenderModels, Store, Studio, StudioConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::{Answer, call, get};
use crate::nats::free;

/// The real program's model, for nodes of which nobody wants to hear anything.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/musicgen-mono");
/// What a node of tones is told.
const OPTIONS: &str = "CONTINUO_TEST_NODE";
/// No condition takes longer to come about unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process; killed when dropped.
pub struct Node {
    pub addr: SocketAddr,
    pub name: String,
    process: Child,
}

/// Not a test: the node, when this program is started with its options. Put together as `continuo
/// serve` does it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a node of the other tests"]
async fn the_node_that_makes_tones() {
    let Ok(options) = std::env::var(OPTIONS) else { return };
    let options: Value = serde_json::from_str(&options).unwrap();
    let text = |key: &str| options[key].as_str().map(str::to_owned);
    let name = text("node").unwrap();
    let listener = TcpListener::bind(text("listen").unwrap()).await.unwrap();
    let metrics = http::install_metrics(Some(&name)).unwrap();
    let voices = options["voices"].as_u64().unwrap_or(16) as usize;
    let is_edge = options["edge"] == true;
    let engine = EngineConfig { max_voices: voices, ..EngineConfig::default() };
    let engine = match is_edge {
        true => Engine::without_models(engine).unwrap(),
        false => {
            let step = Duration::from_millis(options["step_ms"].as_u64().unwrap_or(0));
            let standin = Standin::default().with_whole_waves().with_step_time(step);
            Engine::start(Box::new(standin), engine).unwrap()
        }
    };
    let usual = StationConfig::default();
    let station = StationConfig {
        burst: options["burst"].as_f64().unwrap_or(usual.burst),
        grace: options["grace"].as_f64().unwrap_or(usual.grace),
        ..usual
    };
    let station = Station::new(engine.clone(), station);
    let config = ClusterConfig {
        servers: text("cluster").unwrap().split(',').map(|server| server.parse().unwrap()).collect(),
        credentials: None,
        name: "continuo".parse().unwrap(),
        node: name.parse().unwrap(),
        role: if is_edge { Role::Edge } else { Role::Both },
    };
    let cluster = Arc::new(Cluster::join(config, &station).await.unwrap());
    cluster.reached_within(Duration::from_secs(3)).await;
    let _stations = match text("prompts") {
        Some(path) => Some(PromptSets::start(Arc::clone(&station), &PathBuf::from(path)).await.unwrap()),
        None => None,
    };
    let mut app = App::new(station);
    app.cluster = Some(Arc::clone(&cluster));
    app.metrics = Some(metrics);
    if !is_edge {
        let store = match text("data") {
            Some(folder) => Store::open(&PathBuf::from(folder)).unwrap(),
            None => Store::ephemeral().unwrap(),
        };
        let tones = || Some(RenderLoader::new(|| Ok(Tones::model(8000, 9))));
        let renders = match options["transforms"].as_str() {
            Some("none") => RenderModels::default(),
            Some(_) => RenderModels::new(Presets::default(), Some(RenderLoader::new(transformer)), tones()),
            None => RenderModels::new(Presets::default(), tones(), tones()),
        };
        let studio = StudioConfig { probation: Duration::ZERO, renders, ..StudioConfig::default() };
        let studio = Studio::start_with(engine, store, None, studio, Some(cluster.copies())).await.unwrap();
        cluster.makes_clips(&studio);
        app.studio = Some(studio);
    }
    app.access = Access { token: text("token"), ..Access::default() };
    let terminated = http::terminated().unwrap();
    let stop = async {
        terminated.await;
        cluster.hand_over().await;
    };
    http::serve(Arc::new(app), vec![listener], stop).await.unwrap();
    cluster.leave().await;
}

impl Node {
    /// One that makes tones.
    pub fn start(name: &str, cluster: &str) -> Self {
        Self::start_with(name, cluster, &json!({}))
    }

    /// The same with `voices`, `burst`, `grace`, `token`, `prompts`, `data`, `edge`, `transforms`
    /// or `step_ms` of its own; `trust` is a file with the authority of the NATS servers.
    pub fn start_with(name: &str, cluster: &str, options: &Value) -> Self {
        let addr = free();
        let mut options = options.clone();
        options["node"] = name.into();
        options["cluster"] = cluster.into();
        options["listen"] = addr.to_string().into();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["node::the_node_that_makes_tones", "--exact", "--ignored", "--nocapture"]);
        command.envs(options["trust"].as_str().map(|file| ("SSL_CERT_FILE", file)));
        Self::spawn(name, addr, command.env(OPTIONS, options.to_string()))
    }

    /// `continuo serve` with these arguments.
    pub fn serve(name: &str, arguments: &[&str]) -> Self {
        let addr = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_continuo"));
        Self::spawn(name, addr, command.args(["serve", "--port", &addr.port().to_string()]).args(arguments))
    }

    /// A node as its users start it.
    pub fn real(name: &str, cluster: &str, arguments: &[&str]) -> Self {
        let node = ["--cluster", cluster, "--node", name];
        Self::serve(name, &[&node, &Self::MODEL[..], arguments].concat())
    }

    pub const MODEL: [&str; 6] = ["--model", MODEL, "--dtype", "f32", "--context", "30"];

    fn spawn(name: &str, addr: SocketAddr, command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_remove("RUST_LOG");
        Self { addr, name: name.to_owned(), process: quiet.spawn().unwrap() }
    }

    /// Waits until it listens.
    pub async fn up(&self) {
        let up = async || tokio::net::TcpStream::connect(self.addr).await.map(drop).map_err(|error| error.to_string());
        eventually(up).await;
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(self.addr, path).await
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        call(self.addr, method, path, body).await
    }

    /// Makes a stream, by this node and wherever there is room; gives its id.
    pub async fn create(&self, body: &str) -> String {
        // On a machine that is busy with other tests it may have to stand in line.
        let mut created = self.call("POST", "/v1/streams?wait=600", body).await;
        let (status, told) = (created.status, created.json().await);
        assert_eq!(status, 201, "{told}");
        told["id"].as_str().unwrap().to_owned()
    }

    /// Waits until it answers and is ready.
    pub async fn ready(&mut self) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(self.addr).await.is_err() || self.get("/readyz").await.status != 200 {
            assert!(self.process.try_wait().unwrap().is_none(), "the node ended");
            assert!(begun.elapsed() < PATIENCE, "the node is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it sees exactly these nodes.
    pub async fn sees(&self, names: &[&str]) -> Value {
        eventually(async || {
            let mut answer = self.get("/v1/nodes").await;
            let (status, body) = (answer.status, answer.json().await);
            let nodes = body["nodes"].as_array().cloned().unwrap_or_default();
            let seen: Vec<&str> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
            if status == 200 && seen == names { Ok(body) } else { Err(format!("{} sees {body}", self.name)) }
        })
        .await
    }

    /// Waits until it sees that another node has room.
    pub async fn sees_room_at(&self, name: &str) {
        eventually(async || {
            let told = self.get("/v1/nodes").await.json().await;
            let has_room = |node: &Value| node["name"] == name && node["room"].as_u64() > Some(0);
            let seen = told["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(has_room));
            if seen { Ok(()) } else { Err(told.to_string()) }
        })
        .await
    }

    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: not every machine has the program.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.process.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The answer, if it has this status; of another one, what it says is what the test fails with.
pub async fn answered(status: u16, mut answer: Answer) -> Answer {
    if answer.status != status {
        let text = answer.text().await;
        panic!("{}, not {status}: {text}", answer.status);
    }
    answer
}

/// Asks until the answer is the wanted one; of one that never is, the last is told.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(other) => assert!(begun.elapsed() < PATIENCE, "{other}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
