//! A real NATS server, which dies and comes back at the same address.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::client::get;
use crate::node::eventually;

pub const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/producers/.venv/bin/nats-server");

/// An address that was free a moment ago.
pub fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A NATS server with JetStream; killed when dropped.
pub struct Nats {
    pub addr: SocketAddr,
    /// What else it is told.
    arguments: Vec<String>,
    process: Option<Child>,
    folder: tempfile::TempDir,
}

impl Nats {
    /// One that does not run yet.
    pub fn absent() -> Self {
        Self { addr: free(), arguments: Vec::new(), process: None, folder: tempfile::tempdir().unwrap() }
    }

    pub async fn start() -> Self {
        let mut nats = Self::absent();
        nats.up().await;
        nats
    }

    /// Starts it, with what it had on its disk.
    pub async fn up(&mut self) {
        assert!(Path::new(PROGRAM).exists(), "there is no nats-server: run `scripts/setup test`");
        let process = Command::new(PROGRAM)
            .args(["-a", "127.0.0.1", "-p", &self.addr.port().to_string(), "-js", "-sd"])
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let begun = Instant::now();
        while TcpStream::connect(self.addr).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "nats-server does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// As `--cluster` takes it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three NATS servers that are a cluster, which keeps everything three times.
pub struct Three {
    servers: [Nats; 3],
    /// Where each says how it is.
    watched: [SocketAddr; 3],
}

impl Three {
    pub async fn start() -> Self {
        let [routes, watched] = [(); 2].map(|()| [(); 3].map(|()| free()));
        let servers = [0, 1, 2].map(|n| {
            let others: Vec<String> = routes.iter().map(|route| format!("nats://{route}")).collect();
            let arguments = [
                format!("--name=server-{n}"),
                "--cluster_name=three".into(),
                format!("--cluster=nats://{}", routes[n]),
                format!("--routes={}", others.join(",")),
                format!("--http_port={}", watched[n].port()),
            ];
            let mut server = Nats::absent();
            server.arguments = arguments.into();
            server
        });
        let mut three = Self { servers, watched };
        for n in 0..3 {
            three.servers[n].up().await;
        }
        for n in 0..3 {
            three.is_whole(n).await;
        }
        three
    }

    /// As `--cluster` takes them.
    pub fn url(&self) -> String {
        format!("nats://{}", self.servers.each_ref().map(|server| server.addr.to_string()).join(","))
    }

    /// SIGKILL.
    pub fn kill(&mut self, n: usize) {
        self.servers[n].kill();
    }

    /// Starts one again; comes back when it has all that the others have.
    pub async fn up(&mut self, n: usize) {
        self.servers[n].up().await;
        self.is_whole(n).await;
    }

    async fn is_whole(&self, n: usize) {
        eventually(async || {
            // Its connection for operators is opened last.
            if TcpStream::connect(self.watched[n]).await.is_err() {
                return Err("the server does not say how it is".into());
            }
            let mut answer = get(self.watched[n], "/healthz").await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text().await) }
        })
        .await;
    }
}
