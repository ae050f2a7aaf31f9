//! What every route shares: the station, limits, the way to load a model, and what must end at shutdown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{HttpError, Origins, TrustedProxies};
use crate::budget::Budget;
use crate::engine::Engine;
use crate::sandbox::Sandbox;
use crate::station::Station;
use crate::studio::{Decoded, Owner, Studio, StudioError, decode_within};
use crate::units::ModelId;

/// A wish for a model that is perhaps not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRequest {
    /// A Hugging Face id, a folder, or `bundled`.
    pub model: String,
    /// Number format of the weights as the loader spells it (`f32`, `f16`, `q8`, ..); `None` is the loader's choice.
    pub dtype: Option<String>,
}

/// Loads a model and adds it to the engine; resolves when it is ready to play. The error is one sentence.
pub type ModelLoader = Arc<dyn Fn(ModelRequest) -> BoxFuture<'static, Result<ModelId, String>> + Send + Sync>;

/// Bounds that protect the server from its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request body at most.
    pub body: usize,
    /// Bytes of an upload at most.
    pub upload: usize,
    /// Whether addresses that clients send may lie in private networks.
    pub private_addresses: bool,
    /// Connections at most: for a further one an idle one has to go, and if there is none it is told to come back.
    pub connections: usize,
    /// Time for a client to send the head of a request, and again for its body.
    pub request: Duration,
    /// Time that listeners get at shutdown to take their last bytes.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1 << 20,
            upload: 96 << 20,
            private_addresses: false,
            connections: 12_000,
            request: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// The state behind all routes.
pub struct App {
    /// All streams.
    pub station: Arc<Station>,
    /// Clips, transforms, loops and sessions; without it their routes answer that there are none.
    pub studio: Option<Arc<Studio>>,
    /// Bounds on clients.
    pub limits: Limits,
    /// Memory for what requests hold.
    pub budget: Budget,
    /// Loads models on request; without it `POST /v1/models` and `/set_model` only know loaded ones.
    pub loader: Option<ModelLoader>,
    /// Names of models that can be loaded without a download.
    pub on_disk: fn() -> Vec<String>,
    /// Names of models that producers are offered besides those that are loaded or on disk.
    pub offered: Vec<String>,
    /// The program that fetches sound from video sites, if it is there.
    pub yt_dlp: PathBuf,
    /// Bearer token that every route but the page, `/healthz` and `/readyz` asks for.
    pub token: Option<String>,
    /// Proxies that are believed about whose requests they pass on.
    pub trusted_proxies: TrustedProxies,
    /// Pages that may use a server without a token, and the names that it has.
    pub origins: Origins,
    /// Where `/metrics` comes from.
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled at shutdown: whatever is endless and not a listener of the station ends then.
    pub stopping: CancellationToken,
    /// Tasks that outlive their connection's handler (WebSockets); shutdown waits for them.
    pub tasks: TaskTracker,
    /// When the server began.
    pub started: Instant,
    /// One model is loaded at a time: two at once could need twice the memory.
    loading: tokio::sync::Mutex<()>,
    /// Where sounds are decoded without a studio.
    sandbox: Sandbox,
}

impl App {
    /// An app with default limits, no loader, no token and no metrics; set the fields that differ.
    pub fn new(station: Arc<Station>) -> Self {
        Self {
            station,
            studio: None,
            limits: Limits::default(),
            budget: Budget::default(),
            loader: None,
            on_disk: Vec::new,
            offered: Vec::new(),
            yt_dlp: "yt-dlp".into(),
            token: None,
            trusted_proxies: TrustedProxies::on_this_machine(),
            origins: Origins::default(),
            metrics: None,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            loading: tokio::sync::Mutex::new(()),
            sandbox: Sandbox::default(),
        }
    }

    /// Where sounds are decoded.
    pub fn sandbox(&self) -> &Sandbox {
        self.studio.as_ref().map_or(&self.sandbox, |studio| studio.sandbox())
    }

    /// The engine below the station.
    pub fn engine(&self) -> &Engine {
        self.station.engine()
    }

    /// Whether the engine computes on a GPU, as its first model says.
    pub fn has_gpu(&self) -> bool {
        self.engine().models().first().is_some_and(|model| model.description.ends_with("on GPU"))
    }

    /// Clips and sessions.
    ///
    /// # Errors
    /// [`HttpError::NotReady`] when this server makes none.
    pub fn studio(&self) -> Result<&Arc<Studio>, HttpError> {
        self.studio.as_ref().ok_or_else(|| HttpError::NotReady("This server makes no clips, only streams.".into()))
    }

    /// Decodes a sound that a client sent, within the memory that there is for it.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Exhausted`].
    pub async fn decode(&self, file: Bytes) -> Result<Decoded, StudioError> {
        match &self.studio {
            Some(studio) => studio.decode(file).await,
            None => decode_within(&self.budget, &self.sandbox, file).await,
        }
    }

    /// Makes sure that a model is loaded: at once when it is already, else through the loader, once there is memory for
    /// it.
    ///
    /// # Errors
    /// [`StudioError::NotYours`] when it is not for `owner` to name; [`HttpError::NoLoader`], [`HttpError::LoadFailed`].
    pub async fn load_model(&self, mut request: ModelRequest, owner: &Owner) -> Result<ModelId, HttpError> {
        if let Some(studio) = &self.studio {
            request.model = studio.permit(owner, &request.model)?;
        }
        let _one_at_a_time = self.loading.lock().await;
        if request.dtype.is_none()
            && let Some(info) = self.engine().models().into_iter().find(|info| info.id.0 == request.model)
        {
            return Ok(info.id.clone());
        }
        let loader = self.loader.as_ref().ok_or_else(|| HttpError::NoLoader(request.model.clone()))?;
        let (name, again) = (request.model.clone(), request.dtype.is_some());
        let load = loader(request);
        match &self.studio {
            None => load.await.map_err(HttpError::LoadFailed),
            Some(studio) => studio.load_with(&name, again, load).await.map_err(|error| match error {
                StudioError::Model(reason) => HttpError::LoadFailed(reason),
                error => error.into(),
            }),
        }
    }
}
