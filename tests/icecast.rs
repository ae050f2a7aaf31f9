//! A real Icecast in front of a real server: stations on the air, titles, and an Icecast that dies
//! and comes back.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;
mod tools;

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use continuo::engine::Steer;
use continuo::http::{Push, keep_on_air};
use continuo::station::{Idle, Stream, StreamSpec};
use serde_json::{Value, json};

use server::{Server, start};
use tools::{run, text, tool};

/// Icecast with one password, in a folder of its own.
struct Icecast {
    process: Child,
    port: u16,
    /// The one that speaks TLS.
    tls: u16,
    folder: tempfile::TempDir,
}

/// A key and a certificate for localhost that nobody but itself has signed.
const CERTIFICATE: &str = "[req]
prompt = no
distinguished_name = name
x509_extensions = leaf
[name]
CN = localhost
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost
";

impl Drop for Icecast {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Icecast {
    async fn start() -> Self {
        // It cannot say which ports it was given, so free ones are looked up for it.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, tls] = free.map(|listener| listener.local_addr().unwrap().port());
        // Whoever Icecast becomes reads its certificate.
        let readable = Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(readable).tempdir().unwrap();
        let certificate = folder.path().join("icecast.pem");
        std::fs::write(folder.path().join("certificate.conf"), CERTIFICATE).unwrap();
        let mut openssl = tool("openssl", "openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-config"]).arg(folder.path().join("certificate.conf"));
        openssl.arg("-keyout").arg(folder.path().join("key.pem")).arg("-out").arg(folder.path().join("own.pem"));
        text(run(openssl).await);
        let both = ["key.pem", "own.pem"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
        std::fs::write(&certificate, both.concat()).unwrap();
        // It does not run as root, which build machines often do.
        let mut id = tool("id", "coreutils");
        id.arg("-u");
        let is_root = text(run(id).await).trim() == "0";
        let owner = if is_root { "<changeowner><user>nobody</user><group>nogroup</group></changeowner>" } else { "" };
        let config = format!(
            "<icecast><hostname>localhost</hostname>
            <limits><sources>4</sources><source-timeout>10</source-timeout></limits>
            <authentication><source-password>hackme</source-password><admin-user>admin</admin-user>
            <admin-password>hackme</admin-password></authentication>
            <listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>
            <listen-socket><port>{tls}</port><bind-address>127.0.0.1</bind-address><ssl>1</ssl></listen-socket>
            <paths><basedir>/usr/share/icecast2</basedir><logdir>/tmp</logdir><webroot>/usr/share/icecast2/web</webroot>
            <adminroot>/usr/share/icecast2/admin</adminroot><ssl-certificate>{}</ssl-certificate></paths>
            <logging><accesslog>-</accesslog><errorlog>-</errorlog><loglevel>3</loglevel></logging>
            <security><chroot>0</chroot>{owner}</security></icecast>",
            certificate.display()
        );
        std::fs::write(folder.path().join("icecast.xml"), config).unwrap();
        let process = Self::spawn(&folder);
        let icecast = Self { process, port, tls, folder };
        icecast.answers().await;
        icecast
    }

    fn spawn(folder: &tempfile::TempDir) -> Child {
        let mut icecast = tool("icecast2", "icecast2");
        icecast.arg("-c").arg(folder.path().join("icecast.xml"));
        icecast.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    async fn start_again(&mut self) {
        self.process = Self::spawn(&self.folder);
        self.answers().await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn answers(&self) {
        let began = Instant::now();
        while !self.icestats().await["server_id"].is_string() {
            assert!(began.elapsed() < client::PATIENCE, "Icecast does not start");
        }
    }

    fn curl(&self, path: &str) -> Command {
        let mut curl = tool("curl", "curl");
        curl.args(["-sf", "--noproxy", "*", &self.url(path)]);
        curl
    }

    /// What it says of itself; nothing while it begins, when that is no JSON either.
    async fn icestats(&self) -> Value {
        let status = run(self.curl("/status-json.xsl")).await.stdout;
        serde_json::from_slice::<Value>(&status).unwrap_or_default()["icestats"].clone()
    }

    /// What it says of all its sources.
    async fn status(&self) -> Value {
        self.icestats().await["source"].clone()
    }

    async fn until(&self, condition: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if condition(&status) {
                return status;
            }
            assert!(began.elapsed() < client::PATIENCE, "{status}");
        }
    }

    /// Two seconds of a mount, decoded: how loud its loudest sample is.
    async fn hear(&self, mount: &str) -> u16 {
        let mut ffmpeg = tool("ffmpeg", "ffmpeg");
        ffmpeg.args(["-v", "error", "-i", &self.url(mount), "-t", "2", "-f", "s16le", "-ac", "1", "-ar", "48000", "-"]);
        let heard = run(ffmpeg).await;
        assert!(heard.status.success(), "{}", String::from_utf8_lossy(&heard.stderr));
        assert_eq!(heard.stdout.len(), 2 * 2 * 48_000);
        let samples = heard.stdout.as_chunks::<2>().0.iter().map(|sample| i16::from_le_bytes(*sample).unsigned_abs());
        samples.max().unwrap()
    }

    fn push(&self, server: &Server, change: &Value) -> tokio::task::JoinHandle<std::convert::Infallible> {
        let mut written = json!({"station": "lofi", "url": self.url("/lofi"), "password": "hackme"});
        written.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let push: Push = serde_json::from_value(written).unwrap();
        tokio::spawn(keep_on_air(Arc::clone(&server.app.station), push))
    }
}

async fn lofi(server: &Server) -> Arc<Stream> {
    let spec = StreamSpec {
        name: Some("lofi".into()),
        model: None,
        prompts: vec!["lofi piano".into()],
        sampling: Default::default(),
        seconds: None,
        max_still: None,
        wait: None,
        keep: false,
        idle: Idle::Wait,
    };
    server.app.station.create(spec).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_is_on_the_air_with_its_titles_and_again_after_its_server_died() {
    let (server, mut icecast) = (start().await, Icecast::start().await);
    let station = lofi(&server).await;
    let about = json!({"name": "Lo-Fi", "description": "slow", "genre": "lofi", "homepage": "https://radio.example"});
    let pushing = icecast.push(&server, &about);
    let status = icecast.until(|source| source["title"] == "lofi piano").await;
    assert_eq!((&status["server_name"], &status["server_type"]), (&json!("Lo-Fi"), &json!("audio/mpeg")));
    assert_eq!((&status["genre"], &status["bitrate"]), (&json!("lofi"), &json!(128)));
    assert!(icecast.hear("/lofi").await > 1000);
    assert_eq!(station.info().listeners, 1);
    let steer = Steer { prompts: Some(vec!["café & drums".into()]), ..Steer::default() };
    station.steer(steer).await.unwrap();
    icecast.until(|source| source["title"] == "café & drums").await;

    icecast.kill();
    server::until(|| station.info().listeners == 0).await;
    icecast.start_again().await;
    icecast.until(|source| source["title"] == "café & drums").await;
    assert!(icecast.hear("/lofi").await > 1000);

    // Who stops sending leaves the mount.
    pushing.abort();
    icecast.until(Value::is_null).await;
}

/// The keys of an object with the kinds of their values.
fn shape(object: &Value) -> Vec<(String, std::mem::Discriminant<Value>)> {
    let fields = object.as_object().unwrap().iter();
    fields.map(|(key, value)| (key.clone(), std::mem::discriminant(value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_status_has_the_shape_of_icecasts() {
    let (server, icecast) = (start().await, Icecast::start().await);
    let _station = lofi(&server).await;
    let pushing = icecast.push(&server, &json!({}));
    icecast.until(|source| source["title"] == "lofi piano").await;
    let theirs = icecast.icestats().await;
    let mut ours = client::get(server.addr, "/status-json.xsl").await.json().await["icestats"].clone();
    pushing.abort();
    let source = ours["source"].as_array_mut().unwrap().remove(0);
    ours["source"] = source;
    for (theirs, ours) in [(&theirs, &ours), (&theirs["source"], &ours["source"])] {
        let ours = shape(ours);
        // What a source client says of itself is passed on as it came.
        let missing: Vec<_> = shape(theirs).into_iter().filter(|field| !ours.contains(field)).collect();
        let missing: Vec<_> = missing.iter().map(|(key, _)| key.as_str()).collect();
        assert!(missing.iter().all(|key| key.starts_with("ice-") || *key == "audio_info"), "{missing:?}: {theirs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_get_a_station_and_one_that_refuses_it_harms_nobody() {
    let (server, icecast) = (start().await, Icecast::start().await);
    let station = lofi(&server).await;
    let wrong = icecast.push(&server, &json!({"url": icecast.url("/closed"), "password": "wrong"}));
    let mp3 = icecast.push(&server, &json!({}));
    let ogg = icecast.push(&server, &json!({"url": icecast.url("/lofi.ogg"), "format": "ogg"}));
    let status = icecast.until(|sources| sources.as_array().is_some_and(|sources| sources.len() == 2)).await;
    let kinds: Vec<_> = status.as_array().unwrap().iter().map(|source| &source["server_type"]).collect();
    assert!(kinds.contains(&&json!("audio/mpeg")) && kinds.contains(&&json!("audio/ogg")), "{status}");
    assert!(icecast.hear("/lofi").await > 1000 && icecast.hear("/lofi.ogg").await > 1000);
    assert_eq!(station.info().listeners, 2);
    for pushing in [wrong, mp3, ogg] {
        pushing.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_is_sent_encrypted_to_a_server_that_is_believed_and_to_no_other() {
    let (server, icecast) = (start().await, Icecast::start().await);
    let station = lofi(&server).await;
    let own = icecast.folder.path().join("own.pem");
    let url = format!("https://localhost:{}", icecast.tls);
    let stranger = icecast.push(&server, &json!({"url": format!("{url}/stranger")}));
    let other_name = format!("https://127.0.0.1:{}/name", icecast.tls);
    let other_name = icecast.push(&server, &json!({"url": other_name, "ca": own}));
    let pushing = icecast.push(&server, &json!({"url": format!("{url}/lofi"), "ca": own}));
    // The password and the titles go the same way.
    let status = icecast.until(|source| source["title"] == "lofi piano").await;
    assert!(status["listenurl"].as_str().unwrap().ends_with("/lofi"), "{status}");
    assert!(icecast.hear("/lofi").await > 1000);
    assert_eq!(station.info().listeners, 1);
    for pushing in [stranger, other_name, pushing] {
        pushing.abort();
    }
}
