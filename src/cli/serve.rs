//! `continuo serve`: engine, station and HTTP put together.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
#[cfg(unix)]
use sd_notify::NotifyState;
use tokio::task::JoinSet;

use super::bounds::{gigabytes, within};
use super::cluster::ClusterArgs;
use super::config::{Config, Following};
use super::edge::Edge;
use super::listen::listen;
use super::load::load;
use super::log::{self, LogFormat};
use super::memory;
use super::on_request;
use super::ports::Ports;
use super::sampling::max_still;
use super::sockets::{allow_many_sockets, places};
use super::{Failure, ModelArgs, Outcome};
use crate::budget::Budget;
use crate::cluster::{Cluster, Role};
use crate::engine::{Engine, EngineConfig, MAX_STILL};
use crate::http::{self, Access, App, Limits, Port, SigningKey, Token};
use crate::sandbox::Sandbox;
use crate::station::{Journals, PromptSets, Station, StationConfig};
use crate::studio::{Naming, Retention, Store, Studio, StudioConfig};

/// Hours of every stream that are kept where there is a folder for them.
const HOURS_ON_DISK: f64 = 6.0;

/// How long a node waits for its cluster before its stations begin without.
const FOR_OTHERS: Duration = Duration::from_secs(3);

/// Whether there is a room around a voice.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Room {
    On,
    Off,
}

#[derive(Args)]
pub(super) struct ServeArgs {
    /// A file that says what these options do not, and describes stations; `continuo check FILE`
    /// tells what is wrong with it
    #[arg(long, env = "CONTINUO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address or name to listen on; 0.0.0.0 lets other machines in, :: those with IPv6 too
    #[arg(long, env = "CONTINUO_HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on
    #[arg(short, long, env = "CONTINUO_PORT", default_value_t = 8765)]
    port: u16,
    /// How the log on the standard error is written: lines for people, or a JSON object per line
    #[arg(long, env = "CONTINUO_LOG", value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    edge: Edge,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Let clients name addresses in private networks for the server to fetch sound from
    #[arg(long)]
    private_addresses: bool,
    /// The program that fetches sound from video sites
    #[arg(long, value_name = "PROGRAM", default_value = "yt-dlp")]
    yt_dlp: PathBuf,
    /// The program that is asked for sound in formats that Continuo does not know, if it is there;
    /// it sees no network and no files
    #[arg(long, value_name = "PROGRAM", default_value = "ffmpeg")]
    ffmpeg: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// File or folder of prompt sets: their stations start with the server and follow every edit
    #[arg(long, env = "CONTINUO_PROMPTS", value_name = "PATH")]
    prompts: Option<PathBuf>,
    /// Folder for sessions, clips and downloaded models; without it clips last as long as the
    /// server, and models are kept in the Hugging Face cache of this user
    #[arg(long, env = "CONTINUO_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The transform model: a Hugging Face id such as facebook/melodyflow-t24-30secs, or a folder;
    /// loaded when first wanted
    #[arg(long, env = "CONTINUO_TRANSFORM_MODEL", value_name = "NAME")]
    transform_model: Option<String>,
    /// The loop model: a Hugging Face id such as stabilityai/stable-audio-open-small, or a folder;
    /// loaded when first wanted
    #[arg(long, env = "CONTINUO_LOOP_MODEL", value_name = "NAME")]
    loop_model: Option<String>,
    /// File of presets for transforms
    #[arg(long, value_name = "FILE")]
    variations: Option<PathBuf>,
    /// Folder of riffs for loops to begin with, named by key and tempo: csharp_120bpm.wav
    #[arg(long, value_name = "DIR")]
    riffs: Option<PathBuf>,
    /// Ask every client for this bearer token (header, or `?token=` for players and WebSockets)
    #[arg(long, env = "CONTINUO_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// What listeners' addresses are signed with (`continuo sign`), 16 characters at least; needs a
    /// token
    #[arg(long, env = "CONTINUO_SIGNING_KEY", hide_env_values = true, value_name = "SECRET")]
    signing_key: Option<SigningKey>,
    /// Voices that play at the same time at most, whatever the measured speed allows
    #[arg(long, env = "CONTINUO_MAX_VOICES", default_value_t = 256, value_name = "N")]
    max_voices: usize,
    /// Streams at most; beyond it the one that was idle for longest ends for a new one
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_streams: usize,
    /// Listeners at most, over all streams
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_listeners: usize,
    /// Clips made at the same time, with what streams leave of the machine
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    clips: u16,
    /// Gigabytes of memory for models: beyond it those that clips asked for and nobody used for
    /// longest are unloaded [default: half of the machine's memory, three quarters of a GPU's]
    #[arg(long, env = "CONTINUO_MODEL_MEMORY", value_name = "GB", value_parser = gigabytes(0.1))]
    model_memory: Option<f64>,
    /// Gigabytes of memory for what requests hold: bodies, decoded sound, conversions, messages.
    /// Beyond it they wait a moment and are then told to come back [default: an eighth of the
    /// machine's memory, 1 at most]
    #[arg(long, env = "CONTINUO_REQUEST_MEMORY", value_name = "GB", value_parser = gigabytes(0.6))]
    request_memory: Option<f64>,
    /// A model to offer in producers' menus besides those on disk: a Hugging Face id or a folder;
    /// may be repeated
    #[arg(long, value_name = "NAME")]
    offer: Vec<String>,
    /// Models that clients may name besides those that are loaded, offered or on disk: names with *
    /// for anything, as in facebook/*; may be repeated. Without it, and without a token, clients on
    /// this machine may name any model if the server listens on a loopback address alone
    #[arg(long, env = "CONTINUO_ALLOW_MODELS", value_name = "PATTERN", value_delimiter = ',')]
    allow_models: Vec<String>,
    /// Days after which sessions and clips are removed that nobody touched, of the time that the
    /// server runs; 0 keeps them whatever their age
    #[arg(long, default_value_t = 7, value_name = "DAYS")]
    keep_days: u32,
    /// Gigabytes of sound at most: for more the sessions untouched for longest are removed; 0 is no
    /// limit
    #[arg(long, default_value_t = 20, value_name = "GB")]
    keep_gb: u32,
    /// Seconds of sound that a new listener gets at once
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = within(0.1, 30.0, "seconds"))]
    burst: f64,
    /// Seconds generated ahead of what is played
    #[arg(long, default_value_t = 8.0, value_name = "SECONDS", value_parser = within(0.5, 120.0, "seconds"))]
    lead: f64,
    /// Seconds without a listener before a stream stops generating
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS", value_parser = within(0.0, 86_400.0, "seconds"))]
    grace: f64,
    /// Hours of every stream that can be heard again, cut out and gone on from [default: 6
    /// with --data, 0.5 in memory without]; 0 keeps nothing
    #[arg(long, env = "CONTINUO_JOURNAL_HOURS", value_name = "HOURS", value_parser = within(0.0, 720.0, "hours"))]
    journal_hours: Option<f64>,
    /// Seconds of nothing new after which music goes back before anybody hears it, and on
    /// differently; 0 never
    #[arg(long, env = "CONTINUO_MAX_STILL", default_value_t = MAX_STILL, value_name = "SECONDS", value_parser = max_still)]
    max_still: f32,
    /// Whether voices with one channel are heard in a fixed room, in stereo; clips are dry either
    /// way
    #[arg(long, env = "CONTINUO_ROOM", default_value = "on", value_name = "on|off")]
    room: Room,
}

pub(super) fn run(args: ServeArgs, config: Option<Config>) -> Outcome {
    let _log = log::start(args.log);
    if let Some(path) = &args.config {
        tracing::info!("options and stations come from {} too", path.display());
    }
    if let Some(data) = &args.data {
        crate::model::keep_downloads_in(data).map_err(|error| Failure(format!("--data: {error}")))?;
    }
    let cluster = args.cluster.config(args.port)?;
    let is_edge = cluster.as_ref().is_some_and(|config| config.role == Role::Edge);
    let node = cluster.as_ref().map(|config| config.node.as_str());
    let metrics =
        http::install_metrics(node).map_err(|error| Failure(format!("The metrics cannot be set up: {error}.")))?;
    let handles = allow_many_sockets(args.max_listeners);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        #[cfg(unix)]
        super::signals::outlive();
        // The address comes first: a wrong one is said before a model is loaded for minutes.
        let own = [(None, args.port)].into_iter();
        let mut ports: Vec<Port> = Vec::new();
        for (surface, port) in own.chain(args.ports.0.iter().map(|&(surface, port)| (Some(surface), port))) {
            let listeners = listen(&args.host, port).await.map_err(|error| {
                let (host, option) = (&args.host, surface.map_or("port", |surface| surface.option));
                Failure(format!("{host}:{port} cannot be listened on ({error}); take another --{option} or --host."))
            })?;
            ports.extend(listeners.into_iter().map(|listener| Port { listener, surface }));
        }
        let address = ports[0].listener.local_addr()?;
        // So is a folder that cannot be used.
        let store = store(args.data.as_deref())?;
        let journals = journals(args.data.as_deref(), args.journal_hours)?;
        let (choice, voices) =
            (args.model.clone(), EngineConfig { max_voices: args.max_voices, max_still: args.max_still });
        let engine = tokio::task::spawn_blocking(move || -> Result<Engine, Failure> {
            if is_edge {
                return Ok(Engine::without_models(voices)?);
            }
            let backend = load(&choice)?;
            Ok(Engine::start(backend, voices)?)
        })
        .await??;
        if let (Some(info), status) = (engine.models().first(), engine.status()) {
            tracing::info!("{}: {}", info.id, info.description);
            let speed = status.realtime_factor;
            tracing::info!("one voice plays at {speed:.1}x real time on this machine");
            if speed < 1.0 {
                tracing::warn!(
                    "this is below real time: streams will pause to catch up; a smaller model or a GPU helps"
                );
            }
        }
        let station = Station::new(
            engine.clone(),
            StationConfig {
                max_streams: args.max_streams,
                max_listeners: args.max_listeners,
                burst: args.burst,
                grace: args.grace,
                lead: args.lead,
                room: args.room == Room::On,
                journals,
            },
        );
        let cluster = match cluster {
            Some(config) => {
                let cluster = Cluster::join(config, &station).await?;
                // A station that another node plays does not begin here as well.
                cluster.reached_within(FOR_OTHERS).await;
                Some(Arc::new(cluster))
            }
            None => None,
        };
        let tokens: Vec<Arc<Token>> =
            config.iter().flat_map(|config| config.tokens()).map(|token| Arc::new(token.clone())).collect();
        let pushes = config.as_ref().map(|config| config.push().to_vec()).unwrap_or_default();
        // An edge makes nothing: its stations, clips and sessions are those of other nodes.
        let _following = match is_edge {
            true => None,
            false => Some(stations(&station, args.prompts.as_deref(), config).await?),
        };
        if !is_edge {
            station.resume().await;
        }
        let is_local = ports.iter().all(|port| port.listener.local_addr().is_ok_and(|at| at.ip().is_loopback()));
        let is_open = args.token.is_none() && tokens.is_empty();
        let studio = match is_edge {
            true => None,
            false => Some(studio(engine, &args, store, is_local && is_open, cluster.as_deref()).await?),
        };
        // Sound is decoded and converted beside what comes and goes, so that a full house of
        // uploads is worked off.
        let half = request_memory(&args) / 2;
        let mut app = App::new(station);
        app.budget = Budget::new(half);
        app.studio = studio;
        app.limits = Limits {
            connections: places(args.max_listeners, handles),
            private_addresses: args.private_addresses,
            ..Limits::default()
        };
        args.edge.configure(&mut app);
        app.offered = args.offer;
        app.yt_dlp = args.yt_dlp;
        app.access = Access { token: args.token, tokens, signing: args.signing_key };
        if app.access.signing.is_some() && !app.access.is_guarded() {
            let sentence = "--signing-key: without a token every address is open; give --token or [[tokens]] too.";
            return Err(Failure(sentence.into()));
        }
        app.metrics = Some(metrics);
        app.cluster.clone_from(&cluster);
        app.on_disk = crate::model::on_disk;
        match args.host.parse::<IpAddr>() {
            Err(_) if !args.host.contains(':') => {
                tracing::info!("listening on http://{}:{}/", args.host, address.port());
            }
            _ => tracing::info!("listening on http://{address}/"),
        }
        // They end with this: before that their stations end with a proper last page.
        let on_air = pushes.into_iter().map(|push| http::keep_on_air(Arc::clone(&app.station), push));
        let _on_air: JoinSet<_> = on_air.collect();
        // Before anybody is told that the server is ready: he may ask it to end at once.
        let terminated = http::terminated()?;
        #[cfg(unix)]
        super::signals::end_at_the_second();
        // A model is there, and whoever comes is answered.
        #[cfg(unix)]
        super::signals::tell_manager(&[NotifyState::Ready]);
        let stop = async {
            terminated.await;
            #[cfg(unix)]
            super::signals::tell_manager(&[NotifyState::Stopping]);
            if let Some(cluster) = &cluster {
                cluster.hand_over().await;
            }
        };
        http::serve(Arc::new(app), ports, stop).await?;
        if let Some(cluster) = &cluster {
            cluster.leave().await;
        }
        Ok(())
    });
    // Work that is still being done for a client that left must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Starts the stations of the prompt sets and of the configuration file, or those that come with
/// the program. They follow edits until what this gives is dropped.
async fn stations(
    station: &Arc<Station>,
    prompts: Option<&Path>,
    config: Option<Config>,
) -> Result<(Option<PromptSets>, Option<Following>), Failure> {
    let sets = match prompts {
        Some(path) => {
            let started = PromptSets::start(Arc::clone(station), path).await;
            Some(started.map_err(|error| Failure(format!("--prompts: {error}")))?)
        }
        None => {
            if !config.as_ref().is_some_and(Config::has_stations) {
                PromptSets::start_bundled(Arc::clone(station)).await?;
            }
            None
        }
    };
    let following = match config {
        Some(config) => Some(config.follow(Arc::clone(station)).await),
        None => None,
    };
    Ok((sets, following))
}

/// Where sessions and clips are kept.
fn store(data: Option<&Path>) -> Result<Store, Failure> {
    match data {
        Some(folder) => Ok(Store::open(&folder.join("studio"))?),
        None => Store::ephemeral()
            .map_err(|error| Failure(format!("{error} Or name a folder to keep sessions in with --data."))),
    }
}

/// Where the journals of streams are kept.
fn journals(data: Option<&Path>, hours: Option<f64>) -> Result<Journals, Failure> {
    match data {
        Some(folder) => Ok(Journals::open(&folder.join("journal"), hours.unwrap_or(HOURS_ON_DISK))?),
        None => Ok(hours.map_or_else(Journals::default, Journals::in_memory)),
    }
}

/// `is_local`: the server listens on loopback addresses alone, and asks for no token.
async fn studio(
    engine: Engine,
    args: &ServeArgs,
    store: Store,
    is_local: bool,
    cluster: Option<&Cluster>,
) -> Result<Arc<Studio>, Failure> {
    let device = args.model.device.open()?;
    let config = StudioConfig {
        workers: args.clips.into(),
        model_memory: match args.model_memory {
            Some(gigabytes) => (gigabytes * 1e9) as u64,
            None => memory::for_models(&device),
        },
        retention: Retention {
            age: (args.keep_days > 0).then(|| Duration::from_secs(u64::from(args.keep_days) * 24 * 3600)),
            bytes: (args.keep_gb > 0).then(|| u64::from(args.keep_gb) << 30),
        },
        naming: Naming {
            patterns: args.allow_models.clone(),
            offered: args.offer.clone(),
            on_disk: crate::model::on_disk,
            loopback_names_all: is_local && args.allow_models.is_empty(),
        },
        budget: Budget::new(request_memory(args) / 2),
        renders: super::render::service(
            &args.model,
            (&args.transform_model, &args.loop_model),
            (&args.variations, &args.riffs),
        )?,
        sandbox: Sandbox::of_this_program(Some(args.ffmpeg.clone()))?,
        ..StudioConfig::default()
    };
    let loader = on_request::models(engine.clone(), &args.model, &device);
    let studio = Studio::start_with(engine, store, Some(loader), config, cluster.map(Cluster::copies)).await?;
    if let Some(cluster) = cluster {
        cluster.makes_clips(&studio);
    }
    Ok(studio)
}

/// Bytes for what requests hold.
fn request_memory(args: &ServeArgs) -> u64 {
    args.request_memory.map_or_else(memory::for_requests, |gigabytes| (gigabytes * 1e9) as u64)
}
