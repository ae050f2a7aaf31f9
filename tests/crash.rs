//! The server is killed fifty times at random moments under load: nothing that was accepted is
//! lost, nothing damaged is served. The server is this very test program, started again, so that it
//! can be killed.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use continuo::audio::decode;
use continuo::engine::standin::{Standin, TRANSFORM_RATE, transformer};
use continuo::engine::{Engine, EngineConfig, RenderLoader};
use continuo::http::{self, App};
use continuo::pcm::Pcm;
use continuo::station::{Station, StationConfig};
use continuo::studio::{Presets, RenderModels, Store, Studio, StudioConfig};
use continuo::units::SampleRate;
use tokio::net::{TcpListener, TcpStream};

const FOLDER: &str = "CONTINUO_CRASH_FOLDER";
const KILLS: u64 = 50;
const RATE: u32 = 8000;

/// Not a test: the server, when this program is started with a folder.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the server of the crash test"]
async fn the_server_that_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let backend = Standin::default().with_step_time(Duration::from_micros(200));
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let store = Store::open(Path::new(&folder)).unwrap();
    let renders = RenderModels::new(Presets::default(), Some(RenderLoader::new(transformer)), None);
    let config = StudioConfig { renders, ..StudioConfig::default() };
    let studio = Studio::start(engine.clone(), store, None, config).await.unwrap();
    let mut app = App::new(Station::new(engine, StationConfig::default()));
    app.studio = Some(studio);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nlistening {}", listener.local_addr().unwrap());
    http::serve(Arc::new(app), vec![listener], std::future::pending()).await.unwrap();
}

struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_server_that_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let addr = lines.find_map(|line| line.strip_prefix("listening ").map(str::to_owned)).expect("it starts");
        // Whatever else it says must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addr: addr.parse().unwrap() }
    }

    /// SIGKILL: no destructor runs, no buffer is written.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Clips that the server said it had taken on, and their lengths in samples.
type Accepted = Arc<Mutex<HashMap<String, usize>>>;

/// A request that the server's death may cut off at any point.
async fn request(addr: SocketAddr, head: String, body: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = TcpStream::connect(addr).await.ok()?;
    let head = format!("{head}\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.ok()?;
    socket.write_all(&body).await.ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let length = text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let body = answer.split_off(end);
    // An answer that was cut off counts as none.
    (length?.trim().parse::<usize>().ok()? == body.len()).then_some((status, body))
}

/// Asks for clips until the server is gone, and looks at what is finished.
async fn load(addr: SocketAddr, accepted: Accepted, client: usize) {
    let sound = |seconds: usize| {
        let pcm = (0..seconds * RATE as usize).map(|n| (n as f32 * 0.1).sin() * 0.3).collect();
        Pcm { pcm, channels: 1, rate: SampleRate(RATE) }.wav()
    };
    for round in 0.. {
        let seconds = 2 + (client + round) % 3;
        let (path, length) = match round % 3 {
            0 => (format!("clips?verb=bang&seconds={seconds}&prompt_seconds=1"), seconds * RATE as usize),
            1 => (format!("clips?verb=continue&seconds={seconds}&prompt_seconds=1"), (4 - 1 + seconds) * RATE as usize),
            _ => ("transforms?preset=celtic&steps=2".to_owned(), 4 * TRANSFORM_RATE as usize),
        };
        let head = format!("POST /v1/{path} HTTP/1.1\r\nX-Forwarded-For: 203.0.113.{client}");
        match request(addr, head, sound(4)).await {
            Some((202, body)) => {
                let view: serde_json::Value = serde_json::from_slice(&body).unwrap();
                accepted.lock().unwrap().insert(view["id"].as_str().unwrap().to_owned(), length);
            }
            Some((429, _)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Some((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
            None => return,
        }
        let some = accepted.lock().unwrap().iter().next().map(|(id, length)| (id.clone(), *length));
        if let Some((id, length)) = some {
            let path = format!("GET /v1/clips/{id}/audio.wav HTTP/1.1");
            match request(addr, path, Vec::new()).await {
                Some((200, file)) => whole(&file, length),
                Some((409, _)) => {}
                Some((status, _)) => panic!("clip {id} is lost: {status}"),
                None => return,
            }
        }
    }
}

fn whole(file: &[u8], length: usize) {
    assert_eq!(u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize + 8, file.len(), "the file is cut off");
    assert_eq!(decode(file).unwrap().frames(), length);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_nothing_and_damage_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let accepted = Accepted::default();
    let mut chance = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..KILLS {
        let server = Server::start(folder.path());
        let clients: Vec<_> =
            (0..3).map(|client| tokio::spawn(load(server.addr, Arc::clone(&accepted), client))).collect();
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // The moment is the point of the test; nothing is expected to have happened by then.
        tokio::time::sleep(Duration::from_millis(chance >> 55)).await;
        server.kill();
        for client in clients {
            client.await.unwrap();
        }
    }
    let server = Server::start(folder.path());
    let accepted = accepted.lock().unwrap().clone();
    assert!(accepted.len() as u64 > KILLS, "only {} clips were accepted", accepted.len());
    let deadline = Instant::now() + Duration::from_secs(300);
    for (id, length) in accepted {
        loop {
            assert!(Instant::now() < deadline, "clip {id} is not made");
            let mut answer = client::get(server.addr, &format!("/v1/clips/{id}/audio.wav")).await;
            match answer.status {
                200 => break whole(&answer.body().await, length),
                409 => tokio::time::sleep(Duration::from_millis(20)).await,
                status => panic!("clip {id} is lost: {status}"),
            }
        }
        let view = client::get(server.addr, &format!("/v1/clips/{id}")).await.json().await;
        assert_eq!(view["status"], "completed", "{view}");
    }
    server.kill();
    let unnamed = std::fs::read_dir(folder.path().join("audio")).unwrap().filter_map(Result::ok);
    let halves = unnamed.filter(|file| file.path().extension().is_some()).count();
    assert_eq!(halves, 0, "half a file is left");
}
