//! Nodes as their users start them, with the bundled model or without one.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::super::client::Client;
use crate::cli::Failure;

/// What is played.
pub(super) const STATION: &str = "bench";
/// No node takes longer to come about, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// How long nodes may take to end.
const FAREWELL: Duration = Duration::from_secs(15);

/// A cluster's nodes; those that still run are killed when dropped.
pub(super) struct Nodes {
    cluster: String,
    /// The one station that every engine would play.
    prompts: tempfile::NamedTempFile,
    processes: Vec<(String, Child)>,
    begun: usize,
}

/// A node that runs.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) pid: u32,
}

/// Whether a node makes the station.
pub(super) fn plays(node: &Value) -> bool {
    node["role"] == "both" && node["streams"].as_u64() > Some(0)
}

impl Nodes {
    pub(super) fn new(cluster: &str) -> Result<Self, Failure> {
        let mut prompts = tempfile::Builder::new().suffix(".json").tempfile()?;
        write!(prompts, "{}", json!({ "stations": [{ "name": STATION, "prompts": [{ "text": "lofi piano" }] }] }))?;
        Ok(Self { cluster: cluster.to_owned(), prompts, processes: Vec::new(), begun: 0 })
    }

    /// One that makes streams.
    pub(super) async fn engine(&mut self) -> Result<Node, Failure> {
        let prompts = self.prompts.path().display().to_string();
        self.start("engine", &["--prompts", &prompts]).await
    }

    /// One that does not, once it knows of the station and of no nodes from before.
    pub(super) async fn edge(&mut self) -> Result<Node, Failure> {
        let edge = self.start("edge", &["--role", "edge"]).await?;
        let is_own = |node: &Value| self.processes.iter().any(|(name, _)| node["name"] == name.as_str());
        edge.until(|nodes| nodes.iter().all(is_own) && nodes.iter().any(plays)).await?;
        Ok(edge)
    }

    async fn start(&mut self, role: &str, arguments: &[&str]) -> Result<Node, Failure> {
        self.begun += 1;
        // A name that a process before this one had is free after some seconds only.
        let name = format!("{role}-{}-{}", std::process::id(), self.begun);
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut serve = Command::new(std::env::current_exe()?);
        serve.args(["serve", "--port", &port.to_string(), "--cluster", &self.cluster, "--cluster-name", "bench"]);
        serve.args(["--node", &name]).args(arguments);
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = serve.spawn()?;
        let pid = process.id().unwrap_or_default();
        let node = Node { name: name.clone(), address: format!("127.0.0.1:{port}"), pid };
        let until = Instant::now() + PATIENCE;
        loop {
            match node.get("/readyz").await {
                Ok(_) => break,
                Err(Failure(why)) if Instant::now() > until => {
                    return Err(Failure(format!("The node {name} is not ready: {why}")));
                }
                Err(_) if process.try_wait()?.is_some() => {
                    return Err(Failure(format!("The node {name} ends at once; see what `serve --cluster` says.")));
                }
                Err(_) => sleep(LOOK).await,
            }
        }
        self.processes.push((name, process));
        Ok(node)
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self, name: &str) -> Result<(), Failure> {
        let found = self.processes.iter_mut().find(|(known, _)| known == name);
        Ok(found.ok_or_else(|| Failure(format!("There is no node {name}.")))?.1.kill().await?)
    }

    /// Asks all of them to end, so that nothing is left of them in the cluster, and waits until
    /// they have.
    pub(super) async fn end(mut self) {
        let pids = self.processes.iter().filter_map(|(_, process)| process.id());
        let kill = pids.fold("kill".to_owned(), |kill, pid| format!("{kill} {pid}"));
        // Those that do not end are killed.
        let _ = Command::new("sh").args(["-c", &kill]).status().await;
        for (_, process) in &mut self.processes {
            let _ = timeout(FAREWELL, process.wait()).await;
        }
    }
}

impl Node {
    async fn get(&self, path: &str) -> Result<Value, Failure> {
        let body = Client::open(&self.address).await?.get(path).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// The nodes, as soon as they are like this.
    pub(super) async fn until(&self, are: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.get("/v1/nodes").await;
            match told.as_ref().ok().and_then(|told| told["nodes"].as_array()) {
                Some(nodes) if are(nodes) => return Ok(nodes.clone()),
                _ if Instant::now() > until => {
                    let seen = told.map_or_else(|Failure(why)| why, |told| told.to_string());
                    return Err(Failure(format!("The nodes do not get ready: {seen}")));
                }
                _ => sleep(LOOK).await,
            }
        }
    }
}
