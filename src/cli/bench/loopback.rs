//! A server in this process on a port of its own, for what is measured over sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cli::Failure;
use crate::engine::standin::Standin;
use crate::engine::{Engine, EngineConfig, SamplingPatch};
use crate::http::{self, App, Limits};
use crate::station::{Idle, Station, StationConfig, Stream, StreamSpec};

pub(super) struct Loopback {
    pub(super) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Loopback {
    /// Serves a station to so many clients.
    pub(super) async fn start(station: &Arc<Station>, clients: usize) -> Result<Self, Failure> {
        let mut app = App::new(Arc::clone(station));
        app.limits = Limits { connections: clients + 100, ..Limits::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(http::serve(Arc::new(app), vec![listener], async move {
            // Dropping the sender stops the server as well.
            let _ = stopped.await;
        }));
        Ok(Self { address, stop, server })
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        drop(self.stop);
        Ok(self.server.await??)
    }
}

/// The station `bench` of a server that makes tones, for so many listeners. They are enough: what
/// is measured begins behind the encoder.
pub(super) async fn tones(listeners: usize) -> Result<(Arc<Station>, Arc<Stream>), Failure> {
    let engine = Engine::start(Box::new(Standin::default()), EngineConfig::default())?;
    let station = Station::new(engine, StationConfig { max_listeners: listeners + 10, ..StationConfig::default() });
    let spec = StreamSpec {
        name: Some("bench".into()),
        model: None,
        prompts: vec!["tones".into()],
        sampling: SamplingPatch::default(),
        seconds: None,
        max_still: None,
        wait: None,
        keep: false,
        idle: Idle::Pause,
    };
    let stream = station.create(spec).await?;
    Ok((station, stream))
}

/// Files and connections that this process may have open, for so many clients.
pub(super) fn make_room(clients: usize) -> Result<(), Failure> {
    #[cfg(unix)]
    rlimit::increase_nofile_limit(clients as u64 + 1024)?;
    Ok(())
}

/// User and system time of a process in seconds, from Linux's `/proc`.
pub(super) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; fields 14 and 15 are counted from behind
    // it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// Memory of a process in megabytes, from there too.
pub(super) fn memory(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1000.0)
}
