//! A whole server on an ephemeral port, with tones instead of a model.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use continuo::engine::standin::Standin;
use continuo::engine::{AskModel, Engine, EngineConfig, ModelRequest, VoiceLoader};
use continuo::http::{self, App};
use continuo::station::{Station, StationConfig};
use continuo::studio::{Naming, RenderModels, Store, Studio, StudioConfig};
use continuo::units::ModelId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::PATIENCE;

static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| http::install_metrics(None).unwrap());

pub struct Server {
    pub addr: SocketAddr,
    pub app: Arc<App>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

/// A server as `continuo serve` starts it.
pub async fn start() -> Server {
    start_with(StationConfig::default(), |_| {}).await
}

/// A server whose station or app differs.
pub async fn start_with(station: StationConfig, change: impl FnOnce(&mut App)) -> Server {
    start_on(Standin::default(), station, change).await
}

/// A server on another machine, say a slower one.
pub async fn start_on(backend: Standin, station: StationConfig, change: impl FnOnce(&mut App)) -> Server {
    serve(backend, station, StudioConfig::default(), change).await
}

/// A server that loads models in this way.
pub async fn start_loading(naming: Naming, loader: impl FnOnce(&Engine) -> AskModel<ModelId>) -> Server {
    let studio = StudioConfig { naming, ..StudioConfig::default() };
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let voices = VoiceLoader { weigh: Arc::new(|_| Box::pin(async { Ok(0) })), load: loader(&engine) };
    serve_on(engine, StationConfig::default(), studio, Some(voices), |_| {}).await
}

/// A server with models for transforms and loops.
pub async fn start_rendering(renders: RenderModels) -> Server {
    let studio = StudioConfig { renders, ..StudioConfig::default() };
    serve(Standin::default(), StationConfig::default(), studio, |_| {}).await
}

/// A server that keeps its sessions in a folder, at an address that a server before it had.
pub async fn start_again(folder: &Path, backend: Standin, addr: SocketAddr) -> Server {
    // The one before it may still hold the folder and the port for a moment.
    let deadline = Instant::now() + PATIENCE;
    let store = loop {
        match Store::open(folder) {
            Ok(store) => break store,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let studio = Studio::start(engine.clone(), store, None, StudioConfig::default()).await.unwrap();
    let mut app = App::new(Station::new(engine, StationConfig::default()));
    app.studio = Some(studio);
    listen(app, addr).await
}

async fn serve(
    backend: Standin,
    station: StationConfig,
    config: StudioConfig,
    change: impl FnOnce(&mut App),
) -> Server {
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    serve_on(engine, station, config, None, change).await
}

async fn serve_on(
    engine: Engine,
    station: StationConfig,
    config: StudioConfig,
    voices: Option<VoiceLoader>,
    change: impl FnOnce(&mut App),
) -> Server {
    let store = Store::ephemeral().unwrap();
    let studio = Studio::start(engine.clone(), store, voices, config).await.unwrap();
    let mut app = App::new(Station::new(engine, station));
    app.studio = Some(studio);
    // One recorder serves all servers of this process.
    app.metrics = Some(METRICS.clone());
    change(&mut app);
    listen(app, "127.0.0.1:0".parse().unwrap()).await
}

async fn listen(app: App, addr: SocketAddr) -> Server {
    let app = Arc::new(app);
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn({
        let app = Arc::clone(&app);
        async move {
            let stopped = async {
                let _ = stopped.await;
            };
            http::serve(app, vec![listener], stopped).await.unwrap();
        }
    });
    Server { addr, app, stop: Some(stop), task: Some(task) }
}

/// A loader that knows the stand-ins `twin` (same codec as the first model) and `panic`.
pub fn loader(engine: &Engine) -> AskModel<ModelId> {
    let engine = engine.clone();
    Arc::new(move |request: ModelRequest| {
        let engine = engine.clone();
        Box::pin(async move {
            match request.model.as_str() {
                "twin" => {
                    let twin = Standin::new("twin", 8).with_format(request.format.unwrap_or_default());
                    engine.add_model(Box::new(twin)).await.map_err(|error| error.to_string())?;
                    Ok(ModelId("twin".into()))
                }
                "panic" => panic!("a loader with a bug"),
                other => Err(format!("There is no `{other}`; name another.")),
            }
        })
    })
}

impl Server {
    /// Voices that the engine now has.
    pub fn voices(&self) -> usize {
        self.app.engine().status().voices
    }

    /// Waits until the engine has `count` voices, and says how long that took.
    pub async fn until_voices(&self, count: usize) -> Duration {
        let began = Instant::now();
        until(|| self.voices() == count).await;
        began.elapsed()
    }

    /// Begins a graceful shutdown.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end of a graceful shutdown.
    pub async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, self.task.take().unwrap()).await.expect("the server ends in time").unwrap();
    }
}

/// Waits for a condition that other threads bring about.
pub async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition does not come true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
