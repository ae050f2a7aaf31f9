//! The shipped Caddyfile in front of a real server: HTTPS on localhost, and no byte waits for the
//! next one.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;
mod tools;

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::spawn_blocking;

use server::{Server, start, until};
use tools::{run, text, tool};

/// Caddy with the shipped configuration, its certificates in a folder of its own.
struct Proxy {
    caddy: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.caddy.kill();
        let _ = self.caddy.wait();
    }
}

async fn proxy(server: &Server) -> Proxy {
    let (folder, began) = (tempfile::tempdir().unwrap(), Instant::now());
    // Caddy cannot say which port it was given, so a free one is looked up for it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let caddy = tool("caddy", "caddy")
        .args(["run", "--adapter", "caddyfile", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/Caddyfile")])
        .env("CONTINUO_SITE", format!("https://localhost:{port}"))
        .env("CONTINUO_UPSTREAM", server.addr.to_string())
        // No administration port, no certificate in the system's store, no redirecting server on
        // port 80.
        .env("CADDY_OPTIONS", "admin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\n")
        .env("HOME", folder.path())
        .env("XDG_DATA_HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let proxy = Proxy { caddy, port, folder };
    until(|| proxy.root().exists()).await;
    // Its port opens before its certificate is made.
    while !run(proxy.curl("/healthz", &["-f"])).await.status.success() {
        assert!(began.elapsed() < client::PATIENCE, "Caddy does not start");
    }
    proxy
}

impl Proxy {
    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("caddy/pki/authorities/local/root.crt")
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// curl, which checks the certificate.
    fn curl(&self, path: &str, arguments: &[&str]) -> Command {
        let mut curl = tool("curl", "curl");
        curl.args(["-sS", "-N", "--noproxy", "*", "--cacert"]).arg(self.root()).args(arguments).arg(self.url(path));
        curl
    }
}

async fn decode(file: &Path) -> (Value, f64) {
    let mut ffprobe = tool("ffprobe", "ffmpeg");
    ffprobe.args(["-v", "error", "-show_streams", "-of", "json"]).arg(file);
    let probe: Value = serde_json::from_str(&text(run(ffprobe).await)).unwrap();
    let mut ffmpeg = tool("ffmpeg", "ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(file).args(["-f", "s16le", "-ac", "1", "-ar", "48000", "-"]);
    let output = run(ffmpeg).await;
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (probe["streams"][0].clone(), output.stdout.len() as f64 / 96_000.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_whole_and_at_once_over_https() {
    let server = start().await;
    let proxy = proxy(&server).await;
    for (path, version) in [("/generate", "--http1.1"), ("/_/musicgen-stream/generate", "--http2")] {
        let file = proxy.folder.path().join("sound.ogg");
        let path = format!("{path}?prompt=a&seconds=3");
        let timing = "%{http_code} %{time_starttransfer}";
        let curl = proxy.curl(&path, &[version, "-w", timing, "-o", file.to_str().unwrap()]);
        let said = text(run(curl).await);
        let (status, first) = said.split_once(' ').unwrap();
        assert_eq!(status, "200");
        assert!(first.parse::<f64>().unwrap() < 2.0, "the first byte came after {first} s");
        let (stream, seconds) = decode(&file).await;
        assert_eq!(stream["codec_name"], "opus");
        assert!((2.9..3.2).contains(&seconds), "{seconds} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_stream_is_not_held_back() {
    let server = start().await;
    let proxy = proxy(&server).await;
    let began = Instant::now();
    let mut curl =
        proxy.curl("/generate?prompt=a&latency=low", &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut sound = curl.stdout.take().unwrap();
    // Less than a proxy's usual buffer of 4 to 64 KiB: it would have to wait for seconds of music
    // to fill it.
    let head = spawn_blocking(move || {
        let mut head = vec![0; 2_000];
        sound.read_exact(&mut head).unwrap();
        head
    });
    let head = tokio::time::timeout(Duration::from_secs(5), head).await.expect("bytes at once").unwrap();
    assert!(head.starts_with(b"OggS"), "after {:?}", began.elapsed());
    // The listener leaves, the proxy hangs up, the voice is freed.
    curl.kill().unwrap();
    curl.wait().unwrap();
    let took = server.until_voices(0).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_path_serves_page_api_and_rounds() {
    let server = start().await;
    let proxy = proxy(&server).await;
    let page = text(run(proxy.curl("/_/musicgen-stream/", &[])).await);
    assert!(page.contains("<title>Continuo</title>") && !page.contains("=\"/"), "addresses relative to the page");
    let away = text(run(proxy.curl("/_/musicgen-stream", &["-w", "%{redirect_url}"])).await);
    assert!(away.ends_with("/_/musicgen-stream/"), "{away}");
    let health = text(run(proxy.curl("/_/musicgen-stream/healthz", &[])).await);
    assert!(health.contains("ok"), "{health}");
    let mut rounds = proxy.curl("/_/musicgen-stream/generate", &["-d", r#"{"prompts":["a"]}"#]);
    let mut rounds = rounds.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut blocks = rounds.stdout.take().unwrap();
    let head = spawn_blocking(move || {
        let mut head = [0; 4];
        blocks.read_exact(&mut head).unwrap();
        head
    });
    assert_eq!(u32::from_le_bytes(head.await.unwrap()), 256_000);
    rounds.kill().unwrap();
    rounds.wait().unwrap();
    let made = ["-d", r#"{"prompts": ["a"]}"#, "-D", "-", "-H", &format!("Origin: https://localhost:{}", proxy.port)];
    let made = text(run(proxy.curl("/_/musicgen-stream/v1/streams", &made)).await);
    let place =
        made.lines().find_map(|line| line.to_lowercase().strip_prefix("location: ").map(str::to_owned)).unwrap();
    assert!(
        place.starts_with("/_/musicgen-stream/v1/streams/") && made.matches("\"/_/musicgen-stream/v1/").count() == 6
    );
    text(run(proxy.curl(place.trim(), &["-f"])).await);
    let foreign = ["-d", "{}", "-w", "%{http_code}", "-H", "Origin: https://elsewhere.example"];
    assert!(text(run(proxy.curl("/v1/streams", &foreign)).await).ends_with("403"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes() {
    let server = start().await;
    let proxy = proxy(&server).await;
    let body = r#"{"prompts": ["a"]}"#;
    let stream: Value = serde_json::from_str(&text(run(proxy.curl("/v1/streams", &["-d", body])).await)).unwrap();
    let path = format!("/v1/streams/{}/ws?format=none", stream["id"].as_str().unwrap());
    // curl shakes hands like a browser would, and the key's answer is the one of RFC 6455, section
    // 1.3.
    let handshake = [
        "--http1.1",
        "-i",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let mut curl = proxy.curl(&path, &handshake).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut socket = curl.stdout.take().unwrap();
    let said = spawn_blocking(move || {
        let (mut said, mut piece) = (Vec::new(), [0; 512]);
        while !String::from_utf8_lossy(&said).contains(r#""type":"status""#) {
            let read = socket.read(&mut piece).unwrap();
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let said = tokio::time::timeout(Duration::from_secs(10), said).await.expect("a status event").unwrap();
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    assert!(said.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{said}");
    curl.kill().unwrap();
    curl.wait().unwrap();
}

#[test]
fn what_the_image_copies_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    let copies =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    let sources: Vec<&str> = copies.flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' ')).collect();
    assert!(!sources.is_empty());
    for source in sources {
        assert!(root.join(source).exists(), "the Dockerfile copies `{source}`");
    }
    let compose = std::fs::read_to_string(root.join("compose.yaml")).unwrap();
    let mounts = compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.split(':').next());
    for mount in mounts {
        assert!(root.join(mount).exists(), "compose.yaml mounts `{mount}`");
    }
}
