//! The shipped nginx configuration in front of a real server: however many players there are, each
//! segment is fetched once.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "http/m3u8.rs"]
#[allow(dead_code)]
mod m3u8;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;

use client::{call, get};
use m3u8::{media, variants};
use server::{Server, start, until};

struct Proxy {
    nginx: Child,
    addr: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

async fn proxy(server: &Server) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    // nginx cannot say which port it was given, so a free one is looked up for it.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = folder.path().display();
    let shipped = include_str!("../deploy/nginx.conf");
    let mut conf = format!("daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/log;\n{shipped}");
    for (of_host, of_test) in [
        ("127.0.0.1:8765", server.addr.to_string()),
        ("listen 8080", format!("listen {addr}")),
        ("/var/cache/nginx/continuo", format!("{place}/cache")),
        (
            "http {",
            format!(
                "http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n fastcgi_temp_path {place}/fcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;"
            ),
        ),
        ("events {}", "events { worker_connections 4096; }".into()),
    ] {
        assert!(conf.contains(of_host), "the configuration has no `{of_host}`");
        conf = conf.replacen(of_host, &of_test, 1);
    }
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, conf).unwrap();
    let log = std::fs::File::create(folder.path().join("stderr")).unwrap();
    // It is not in everybody's path.
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::join_paths(std::env::split_paths(&paths).chain(["/usr/sbin".into()])).unwrap();
    let nginx = Command::new("nginx")
        .env("PATH", paths)
        .arg("-p")
        .arg(folder.path())
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("nginx is installed; `apt-get install nginx-light` brings it");
    let proxy = Proxy { nginx, addr, _folder: folder };
    until(|| std::net::TcpStream::connect(addr).is_ok()).await;
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn each_segment_is_fetched_once_for_all_players() {
    const PLAYERS: usize = 200;
    let server = start().await;
    let proxy = proxy(&server).await;
    let view = call(proxy.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.json().await;
    let master = get(proxy.addr, view["urls"]["hls"].as_str().unwrap()).await.text().await;
    let (_, address) = variants(&master).remove(0);
    let mut answer = get(proxy.addr, &address).await;
    assert_eq!(answer.header("x-cache"), None, "playlists are for one player");
    let (origin, stays) = (server.addr, address.clone());
    tokio::spawn(async move {
        while get(origin, &stays).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let playlist = media(&answer.text().await);
    let folder = address.split_once("index.m3u8").unwrap().0.to_owned();
    // A segment that is there, one that is being made, and a part that comes next.
    let next = format!("{}.m4s", playlist.sequence + playlist.segments.len() as u64);
    let uris = [playlist.segments[0].uri.clone(), playlist.map.unwrap(), next, playlist.hint.unwrap()];
    for uri in uris {
        let players = join_all((0..PLAYERS).map(|_| async {
            let mut answer = get(proxy.addr, &format!("{folder}{uri}")).await;
            assert_eq!(answer.status, 200, "{uri}");
            (answer.header("x-cache").unwrap().to_owned(), answer.body().await)
        }));
        let got = players.await;
        let misses = got.iter().filter(|(cache, _)| cache == "MISS").count();
        assert_eq!(misses, 1, "{uri} was fetched {misses} times");
        assert!(got.iter().all(|(cache, bytes)| (cache == "HIT" || cache == "MISS") && *bytes == got[0].1));
    }
}
