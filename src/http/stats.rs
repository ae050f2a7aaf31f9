//! Who listens: `/v1/stats`, and `/status-json.xsl` in Icecast's shape, for the widgets and
//! directories that read that.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use warp::http::HeaderMap;
use warp::http::header::CACHE_CONTROL;
use warp::http::request::Parts;
use warp::http::uri::Authority;
use warp::reply::{Response, with_header};
use warp::{Filter, Reply};

use super::auth::{self, Grant};
use super::client::Client;
use super::links::{self, Links};
use super::router::get;
use super::sound_paths::Sounds;
use super::{App, Routes};
use crate::audio::{BitRates, OPUS_RATE};
use crate::station::{SessionsInfo, Stream, StreamState};

/// `GET /v1/stats`, `GET /status-json.xsl`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_stats, for_icecast) = (Arc::clone(app), Arc::clone(app));
    let stats = warp::path!("v1" / "stats").and(get()).map(move || fresh(&stats(&for_stats)));
    let asked = warp::path!("status-json.xsl").and(get()).and(links::of_request());
    let asked = asked.and(auth::of_request()).and(warp::ext::get::<Client>()).and(warp::header::headers_cloned());
    let icecast = asked.map(move |links: Links, grant: Grant, client: Client, headers: HeaderMap| {
        fresh(&icestats(&for_icecast, &grant, &links, &Origin::of(&client, &headers)))
    });
    stats.or(icecast).unify().boxed()
}

fn fresh(body: &impl Serialize) -> Response {
    with_header(warp::reply::json(body), CACHE_CONTROL, "no-store").into_response()
}

/// Who listens.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// Since the server began.
    uptime_seconds: f64,
    /// Over all streams.
    listeners: usize,
    /// Those that have not ended, oldest first.
    streams: Vec<StreamStats>,
}

/// A stream and its listeners.
#[derive(Serialize, ToSchema)]
struct StreamStats {
    id: String,
    /// Of a station.
    name: Option<String>,
    /// What plays, in words.
    title: String,
    state: StreamState,
    /// Now.
    listeners: usize,
    #[serde(flatten)]
    sessions: SessionsInfo,
}

impl StreamStats {
    fn of(stream: &Stream) -> Self {
        let (info, sessions) = (stream.info(), stream.sessions());
        let listeners = sessions.open.len();
        Self { id: info.id, name: info.name, title: stream.title(), state: info.state, listeners, sessions }
    }
}

fn stats(app: &App) -> Stats {
    let streams: Vec<StreamStats> = app.station.heard().iter().map(|stream| StreamStats::of(stream)).collect();
    let listeners: usize = streams.iter().map(|stream| stream.listeners).sum();
    Stats { uptime_seconds: app.started.elapsed().as_secs_f64(), listeners, streams }
}

/// Stations are mounts: one for each format that players of Icecast know. Streams without a name
/// are nobody else's business.
fn icestats(app: &App, grant: &Grant, links: &Links, origin: &Origin) -> Value {
    let mut sources = Vec::new();
    // With those of other nodes that have listeners here, which are counted here.
    for stream in app.station.heard() {
        let Some(name) = stream.name().filter(|name| grant.hears(Some(name))) else { continue };
        let (sessions, start) = (stream.sessions(), ago(stream.age()));
        for format in Sounds::Live.formats().filter(|format| format.missing_feature().is_none()) {
            let Some(rates) = format.live().map(|live| live.bit_rates()).filter(|rates| *rates != BitRates::None)
            else {
                continue;
            };
            let count = sessions.formats.get(format.extension()).copied().unwrap_or_default();
            let station: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            let place = links.to(&format!("/generate?station={station}&format={format}"));
            sources.push(json!({
                "bitrate": rates.usual(),
                "channels": stream.channels(),
                "genre": "various",
                "listener_peak": count.peak,
                "listeners": count.listeners,
                "listenurl": format!("{}://{}{place}", origin.scheme, origin.host),
                "samplerate": OPUS_RATE,
                "server_description": "Unspecified description",
                "server_name": name,
                "server_type": format.media_type(),
                "stream_start": rfc_822(&start),
                "stream_start_iso8601": iso_8601(&start),
                "title": stream.title(),
                "dummy": null,
            }));
        }
    }
    let start = ago(app.started.elapsed());
    let mut stats = json!({
        "admin": "",
        "host": origin.host,
        "location": "",
        "server_id": concat!("Continuo ", env!("CARGO_PKG_VERSION")),
        "server_start": rfc_822(&start),
        "server_start_iso8601": iso_8601(&start),
        "dummy": null,
    });
    set_sources(&mut stats, sources);
    json!({ "icestats": stats })
}

/// As Icecast has it: nothing for none, one by itself, several as a list.
fn set_sources(stats: &mut Value, mut sources: Vec<Value>) {
    match sources.len() {
        0 => {}
        1 => stats["source"] = sources.remove(0),
        _ => stats["source"] = sources.into(),
    }
}

/// What several nodes say, as one Icecast would say it to whoever asks: a mount is there once, with
/// the listeners of all of them.
pub(super) fn joined(answers: Vec<Value>, asks: &Parts) -> Value {
    let client = asks.extensions.get::<Client>();
    let origin = client.map(|client| Origin::of(client, &asks.headers));
    let (mut stats, mut mounts) = (None, Vec::<Value>::new());
    for mut answer in answers {
        let mut own = answer["icestats"].take();
        let sources = match own.as_object_mut().and_then(|own| own.remove("source")) {
            Some(Value::Array(sources)) => sources,
            Some(source) => vec![source],
            None => Vec::new(),
        };
        stats.get_or_insert(own);
        for mut source in sources {
            if let Some(origin) = &origin {
                // Other nodes were not told under which name they are asked.
                source["listenurl"] = origin.instead(source["listenurl"].as_str().unwrap_or_default()).into();
            }
            match mounts.iter_mut().find(|mount| mount["listenurl"] == source["listenurl"]) {
                Some(mount) => join_mount(mount, source),
                None => mounts.push(source),
            }
        }
    }
    // In the order of any node that is asked.
    mounts.sort_by_key(|mount| mount["listenurl"].as_str().map(str::to_owned));
    let mut stats = stats.unwrap_or_else(|| json!({}));
    set_sources(&mut stats, mounts);
    json!({ "icestats": stats })
}

/// Adds what another node says of a mount. The peaks of nodes need not have been at the same time:
/// their sum is the most that there can have been.
fn join_mount(mount: &mut Value, other: Value) {
    for count in ["listeners", "listener_peak"] {
        mount[count] = (mount[count].as_u64().unwrap_or(0) + other[count].as_u64().unwrap_or(0)).into();
    }
    // Whoever plays it for others began later than it did.
    let start = "stream_start_iso8601";
    if other[start].as_str() < mount[start].as_str() {
        for field in ["stream_start", start] {
            mount[field] = other[field].clone();
        }
    }
}

fn ago(time: Duration) -> Zoned {
    let ago = SignedDuration::try_from(time).ok().and_then(|time| Timestamp::now().checked_sub(time).ok());
    ago.unwrap_or_default().to_zoned(TimeZone::UTC)
}

fn rfc_822(time: &Zoned) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

fn iso_8601(time: &Zoned) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%z").to_string()
}

/// Where a client found us.
struct Origin {
    scheme: &'static str,
    host: String,
}

impl Origin {
    fn of(client: &Client, headers: &HeaderMap) -> Self {
        let said = |name: &str| headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim);
        let by_proxy = |name| client.proxy.and_then(|_| said(name));
        let scheme = if by_proxy("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        let host =
            by_proxy("x-forwarded-host").or_else(|| said("host")).filter(|host| host.parse::<Authority>().is_ok());
        Self { scheme, host: host.unwrap_or("localhost").to_owned() }
    }

    /// An address with this origin in place of its own.
    fn instead(&self, address: &str) -> String {
        let path = address.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        format!("{}://{}{}", self.scheme, self.host, path.unwrap_or_default())
    }
}
