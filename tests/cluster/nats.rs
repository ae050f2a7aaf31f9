//! A real NATS server, which dies and comes back at the same address.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

pub const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/producers/.venv/bin/nats-server");

/// An address that was free a moment ago.
pub fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A NATS server with JetStream; killed when dropped.
pub struct Nats {
    pub addr: SocketAddr,
    process: Option<Child>,
    folder: tempfile::TempDir,
}

impl Nats {
    /// One that does not run yet.
    pub fn absent() -> Self {
        Self { addr: free(), process: None, folder: tempfile::tempdir().unwrap() }
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
