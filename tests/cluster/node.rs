//! A node: `continuo serve --cluster` with a tiny model.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, call, get};
use crate::nats::free;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/musicgen-mono");
/// No condition takes longer to come about unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process; killed when dropped.
pub struct Node {
    pub addr: SocketAddr,
    pub name: String,
    process: Child,
}

impl Node {
    pub fn start(name: &str, cluster: &str) -> Self {
        Self::start_with(name, cluster, &[])
    }

    pub fn start_with(name: &str, cluster: &str, arguments: &[&str]) -> Self {
        Self::spawn(name, &[&["--cluster", cluster, "--node", name], arguments].concat())
    }

    /// A server without a cluster.
    pub fn alone() -> Self {
        Self::spawn("alone", &[])
    }

    fn spawn(name: &str, arguments: &[&str]) -> Self {
        let addr = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_continuo"));
        command.args(["serve", "--port", &addr.port().to_string()]).args(arguments);
        command.args(["--model", MODEL, "--dtype", "f32", "--context", "30"]);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).env_remove("RUST_LOG").spawn().unwrap();
        Self { addr, name: name.to_owned(), process }
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(self.addr, path).await
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        call(self.addr, method, path, body).await
    }

    /// Makes a stream, by this node and wherever there is room; gives its id.
    pub async fn create(&self, body: &str) -> String {
        let mut created = self.call("POST", "/v1/streams", body).await;
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
