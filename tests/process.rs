//! The program as its users start it: what it prints can be read or not, and signals end it.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use client::{call, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/musicgen-mono");

fn continuo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_continuo"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A server with a tiny model; killed when dropped.
struct Server {
    process: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(log: impl Into<Stdio>, level: &str) -> Self {
        // A port that was free a moment ago: the log, which names the port, may have no reader
        // here.
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::started(addr, continuo(&[]).env("RUST_LOG", level).stderr(log))
    }

    fn started(addr: SocketAddr, command: &mut Command) -> Self {
        let port = addr.port().to_string();
        let arguments = ["serve", "--port", &port, "--model", MODEL, "--dtype", "f32", "--context", "30"];
        Self { process: command.args(arguments).spawn().unwrap(), addr }
    }

    async fn ready(&mut self) {
        let begun = Instant::now();
        while !is_ready(self.addr).await {
            assert!(self.process.try_wait().unwrap().is_none(), "the server ended");
            assert!(begun.elapsed() < Duration::from_secs(60), "the server is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, name: &str) {
        // The shell's own `kill`: not every machine has the program.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.process.id())]).status().unwrap();
        assert!(sent.success());
    }

    async fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < patience, "the server is still there after {patience:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether it says that it is ready. Whatever else comes of a connection while it starts, it is
/// not.
async fn is_ready(addr: SocketAddr) -> bool {
    let asked = async {
        let mut socket = tokio::net::TcpStream::connect(addr).await?;
        socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        let mut status = [0; 12];
        socket.read_exact(&mut status).await?;
        std::io::Result::Ok(status.ends_with(b" 200"))
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.is_ok_and(|asked| asked.unwrap_or(false))
}

/// Asks for one thing of each kind.
async fn serves_everything(addr: SocketAddr) {
    assert_eq!(get(addr, "/healthz").await.status, 200);
    assert_eq!(get(addr, "/v1/models").await.status, 200);
    assert_eq!(get(addr, "/v1/streams/nobody").await.status, 404);
    assert_eq!(call(addr, "POST", "/v1/sessions", "this is no sound").await.status, 422);
    let mut stream = get(addr, "/generate?prompt=x&seconds=1&format=wav").await;
    assert_eq!(stream.status, 200);
    stream.some(20_000).await;
    assert_eq!(call(addr, "POST", "/v1/clips", r#"{"prompt":"x","seconds":1}"#).await.status, 202);
}

#[tokio::test]
async fn requests_are_answered_when_the_reader_of_the_log_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = Server::start(writer, "debug");
    server.ready().await;
    drop(reader);
    serves_everything(server.addr).await;
    server.signal("TERM");
    assert!(server.ended_within(Duration::from_secs(15)).await.success());
}

#[tokio::test]
async fn requests_are_answered_when_the_disk_of_the_log_is_full() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let mut server = Server::start(full, "debug");
    server.ready().await;
    serves_everything(server.addr).await;
}

#[tokio::test]
async fn requests_are_answered_when_nobody_reads_the_log_any_more() {
    // Kept open and never read: 64 kB later a write to it would wait for ever.
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut server = Server::start(writer, "trace");
    server.ready().await;
    for _ in 0..500 {
        assert_eq!(get(server.addr, "/v1/models").await.status, 200);
    }
    serves_everything(server.addr).await;
}

fn all(mut log: PipeReader) -> String {
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_log_without_a_terminal_has_no_colours_and_no_errors_about_clients_files() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = Server::start(writer, "info");
    let log = std::thread::spawn(|| all(reader));
    server.ready().await;
    let noise: String = std::iter::repeat_n("OggS fLaC RIFF\u{1}\u{2}", 500).collect();
    assert_eq!(call(server.addr, "POST", "/v1/sessions", &noise).await.status, 422);
    server.signal("TERM");
    assert!(server.ended_within(Duration::from_secs(15)).await.success());
    let log = log.join().unwrap();
    assert!(log.contains("listening on"), "{log}");
    assert!(log.contains("/v1/sessions"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn a_second_interrupt_ends_the_server_at_once() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = Server::start(writer, "info");
    server.ready().await;
    // A listener who takes nothing holds up an orderly end.
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    let listener = listener.connect(server.addr).await.unwrap();
    let request = b"GET /generate?prompt=x&format=wav HTTP/1.1\r\nHost: localhost\r\n\r\n";
    while listener.try_write(request).is_err() {
        listener.writable().await.unwrap();
    }
    listener.readable().await.unwrap();
    server.signal("INT");
    let mut log = BufReader::new(reader).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("shutting down")));
    let begun = Instant::now();
    server.signal("INT");
    assert_eq!(server.ended_within(Duration::from_secs(5)).await.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_command_whose_output_nobody_takes_ends_without_a_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = || Stdio::from(writer.try_clone().unwrap());
    assert!(continuo(&["models"]).stdout(closed()).stderr(closed()).status().unwrap().success());
    let refused =
        continuo(&["generate", "x", "-o", "x.wav", "--model", "/nowhere"]).stdout(closed()).stderr(closed()).status();
    assert_eq!(refused.unwrap().code(), Some(1));
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let told = continuo(&["models", "--json"]).stdout(full).output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("standard output cannot be written"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_terminals_and_log_rotators_change_nothing() {
    let mut server = Server::start(Stdio::null(), "info");
    server.ready().await;
    let mut listener = get(server.addr, "/generate?prompt=a").await;
    listener.some(100).await;
    for signal in ["HUP", "USR1", "USR2", "ALRM", "PIPE"] {
        server.signal(signal);
        listener.some(4000).await;
        assert!(server.process.try_wait().unwrap().is_none(), "SIG{signal} ended the server");
    }
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
}

/// A hub that has one checkpoint of 900 GB; gives what it was asked for.
fn hub() -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, (asked, requests)) = (listener.local_addr().unwrap(), std::sync::mpsc::sync_channel(64));
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&socket).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let body = match head[0].contains("/api/models/") {
                true => r#"{"sha":"abc","siblings":[{"rfilename":"config.json"},{"rfilename":"model.safetensors"}]}"#,
                false => "x",
            };
            let headers = "x-repo-commit: abc\r\netag: \"1\"\r\ncontent-range: bytes 0-0/900000000000";
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\n{headers}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            // Whoever has the answer finds what was asked.
            let _ = asked.send(head.join("\n").to_ascii_lowercase());
            let _ = std::io::Write::write_all(&mut &socket, answer.as_bytes());
        }
    });
    (addr, requests)
}

#[tokio::test]
async fn a_model_that_would_never_fit_is_refused_before_it_is_downloaded() {
    let (home, (hub, requests)) = (tempfile::tempdir().unwrap(), hub());
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = continuo(&[]);
    command.env("HF_HOME", home.path()).env("HF_ENDPOINT", format!("http://{hub}")).stderr(Stdio::null());
    let mut server = Server::started(addr, &mut command);
    server.ready().await;
    let mut refused = call(addr, "POST", "/v1/models", r#"{"model": "big/model"}"#).await;
    assert_eq!(refused.status, 422);
    let sentence = refused.text().await;
    assert!(sentence.contains("900.0 GB") && sentence.contains("--model-memory"), "{sentence}");
    let weights: Vec<String> = requests.try_iter().filter(|head| head.contains("safetensors")).collect();
    assert!(weights.iter().all(|head| head.contains("range: bytes=0-0")), "{weights:?}");
    assert_eq!(weights.len(), 1);
}

#[tokio::test]
async fn a_server_whose_data_folder_was_moved_is_not_ready_until_it_is_back() {
    let place = tempfile::tempdir().unwrap();
    let (data, away) = (place.path().join("data"), place.path().join("away"));
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Server::started(addr, continuo(&[]).env("CONTINUO_DATA", &data).stderr(Stdio::null()));
    server.ready().await;
    std::fs::rename(&data, &away).unwrap();
    let mut answer = get(addr, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.problem().await.contains("folder"));
    std::fs::rename(&away, &data).unwrap();
    assert_eq!(get(addr, "/readyz").await.status, 200);
}

fn station(name: &str, prompt: &str) -> String {
    format!("[[stations]]\nname = \"{name}\"\nprompts = [\"{prompt}\"]\n")
}

/// Names and prompts of the stations that play.
async fn stations(addr: SocketAddr) -> Vec<String> {
    let listed = get(addr, "/v1/streams").await.json().await;
    let name =
        |stream: &serde_json::Value| format!("{} {}", stream["name"], stream["prompts"][0]["text"]).replace('"', "");
    listed["streams"].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn a_file_says_what_nobody_else_does_and_its_stations_follow_edits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("continuo.toml");
    let write = |lead: u32, stations: &[String]| {
        let options = format!("model = {MODEL:?}\ndtype = \"f32\"\ncontext = 30\nlead = {lead}");
        std::fs::write(&file, format!("port = 1\nhost = \"nowhere.invalid\"\n{options}\n{}", stations.concat()))
            .unwrap();
    };
    write(5, &[station("first", "x")]);
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = continuo(&["serve", "--port", &addr.port().to_string(), "--config", file.to_str().unwrap()]);
    command.env("CONTINUO_HOST", "127.0.0.1").env("RUST_LOG", "info").stderr(writer);
    let mut server = Server { process: command.spawn().unwrap(), addr };
    drop(command);
    let log = std::thread::spawn(|| all(reader));
    server.ready().await;
    assert_eq!(stations(addr).await, ["first x"]);
    // A mistake between two edits changes nothing.
    for (lead, wanted) in [(6, vec![("first", "y"), ("second", "z")]), (0, vec![]), (6, vec![("second", "z")])] {
        write(lead, &wanted.iter().map(|(name, prompt)| station(name, prompt)).collect::<Vec<_>>());
        let wanted: Vec<_> = wanted.iter().map(|(name, prompt)| format!("{name} {prompt}")).collect();
        let begun = Instant::now();
        while lead > 0 && stations(addr).await != wanted {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", stations(addr).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    server.signal("TERM");
    assert!(server.ended_within(Duration::from_secs(15)).await.success());
    let log = log.join().unwrap();
    assert!(log.contains("`lead` is another") && !log.contains("`port`"), "{log}");
}

#[test]
fn faults_of_a_file_are_told_before_anything_begins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("continuo.toml");
    std::fs::write(&file, "prot = 1\nlead = 500\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [&["check", file][..], &["serve", "--config", file]] {
        let told = continuo(arguments).output().unwrap();
        let told = (told.status.code(), String::from_utf8(told.stderr).unwrap());
        assert_eq!(told.0, Some(1), "{}", told.1);
        let lines: Vec<&str> = told.1.lines().collect();
        assert_eq!(lines[0], format!("continuo: {file} has 2 faults:"));
        assert_eq!(lines[1], format!("  {file}:1: `prot` is not known; the nearest key is `port`."));
        assert_eq!(lines[2], format!("  {file}:2: `lead`: it must lie between 0.5 and 120 seconds."));
    }
    std::fs::write(file, "lead = 5\n").unwrap();
    let told = continuo(&["check", file]).output().unwrap();
    assert_eq!(
        String::from_utf8(told.stdout).unwrap(),
        format!("{file}: no faults; options: 1, stations: 0, schedule: 0, push: 0, tokens: 0.\n")
    );
}

#[tokio::test]
async fn a_service_manager_is_told_when_a_model_is_ready_and_when_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let told = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut message = [0; 512];
        let length = told.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = continuo(&[]);
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).stderr(Stdio::null());
    let mut server = Server::started(addr, &mut command);
    assert!(heard().contains("READY=1"));
    assert_eq!(get(addr, "/readyz").await.status, 200);
    server.signal("TERM");
    assert!(heard().contains("STOPPING=1"));
    assert!(server.ended_within(Duration::from_secs(15)).await.success());
}

#[tokio::test]
async fn a_log_for_machines_is_an_object_per_line() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = Server::started(
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        continuo(&[]).env("CONTINUO_LOG", "json").stderr(writer),
    );
    let log = std::thread::spawn(|| all(reader));
    server.ready().await;
    server.signal("TERM");
    assert!(server.ended_within(Duration::from_secs(15)).await.success());
    let lines = log.join().unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()));
    let says =
        |text: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|said| said.starts_with(text)));
    assert!(says("listening on") && says("shutting down"), "{lines:?}");
}
