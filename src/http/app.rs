//! What every route shares: the station, the studio, limits, and what must end at shutdown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::recording::Recordings;
use super::{Access, HttpError, Origins, TrustedProxies};
use crate::budget::Budget;
use crate::cluster::Cluster;
use crate::engine::{Engine, ModelRequest, ResidentError};
use crate::sandbox::Sandbox;
use crate::station::{Station, StationError, Stream, StreamSpec};
use crate::studio::{Decoded, Owner, Studio, StudioError, decode_within};
use crate::units::ModelId;

/// Bounds that protect the server from its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request body at most.
    pub body: usize,
    /// Bytes of an upload at most.
    pub upload: usize,
    /// Whether addresses that clients send may lie in private networks.
    pub private_addresses: bool,
    /// Connections at most: for a further one an idle one has to go, and if there is none it is
    /// told to come back.
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
    /// Names of models that can be loaded without a download.
    pub on_disk: fn() -> Vec<String>,
    /// Names of models that producers are offered besides those that are loaded or on disk.
    pub offered: Vec<String>,
    /// The program that fetches sound from video sites, if it is there.
    pub yt_dlp: PathBuf,
    /// What every route but the page, `/healthz` and `/readyz` asks for.
    pub access: Access,
    /// Proxies that are believed about whose requests they pass on.
    pub trusted_proxies: TrustedProxies,
    /// Pages that may use a server without a token, and the names that it has.
    pub origins: Origins,
    /// The nodes that this one is one of.
    pub cluster: Option<Arc<Cluster>>,
    /// Where `/metrics` comes from.
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled at shutdown: whatever is endless and not a listener of the station ends then.
    pub stopping: CancellationToken,
    /// Tasks that outlive their connection's handler (WebSockets); shutdown waits for them.
    pub tasks: TaskTracker,
    /// When the server began.
    pub started: Instant,
    /// Parts of streams as files.
    pub(super) recordings: Recordings,
    /// Where sounds are decoded without a studio.
    sandbox: Sandbox,
}

impl App {
    /// An app with default limits, no studio, no token and no metrics; set the fields that differ.
    pub fn new(station: Arc<Station>) -> Self {
        Self {
            station,
            studio: None,
            limits: Limits::default(),
            budget: Budget::default(),
            on_disk: Vec::new,
            offered: Vec::new(),
            yt_dlp: "yt-dlp".into(),
            access: Access::default(),
            trusted_proxies: TrustedProxies::on_this_machine(),
            origins: Origins::default(),
            cluster: None,
            metrics: None,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            recordings: Recordings::default(),
            sandbox: Sandbox::default(),
        }
    }

    /// This node's name, in a cluster.
    pub(super) fn node(&self) -> Option<&str> {
        self.cluster.as_deref().map(Cluster::node)
    }

    /// A stream to be heard, wherever in the cluster it plays.
    pub(super) async fn hear(&self, id: &str) -> Result<Arc<Stream>, HttpError> {
        match (self.station.get(id), &self.cluster) {
            (Err(StationError::NotFound(_)), Some(cluster)) => Ok(cluster.hear(id).await?),
            (found, _) => Ok(found?),
        }
    }

    /// A station to be heard, wherever in the cluster it plays.
    pub(super) async fn hear_named(&self, name: &str) -> Result<Arc<Stream>, HttpError> {
        match (self.station.named(name), &self.cluster) {
            (Err(StationError::NotFound(_)), Some(cluster)) => Ok(cluster.hear_named(name).await?),
            (found, _) => Ok(found?),
        }
    }

    /// A stream of whoever asks, begun where there is room for it.
    pub(super) async fn begin(&self, spec: StreamSpec) -> Result<Arc<Stream>, HttpError> {
        let Some(cluster) = &self.cluster else { return Ok(self.station.create(spec).await?) };
        if self.station.room() > 0 {
            return Ok(self.station.create(spec).await?);
        }
        match cluster.begin(&spec).await {
            // Without the others it is for this node to refuse it, or to let it wait.
            Err(_) if !cluster.is_edge() => Ok(self.station.create(spec).await?),
            begun => Ok(begun?),
        }
    }

    /// The name of a stream, wherever in the cluster it plays.
    pub(super) fn name_of(&self, id: &str) -> Option<String> {
        match (self.station.get(id), &self.cluster) {
            (Ok(stream), _) => stream.name().map(str::to_owned),
            (Err(_), Some(cluster)) => cluster.known(id)?.name,
            (Err(_), None) => None,
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
        self.engine().models().first().is_some_and(|model| model.device.is_gpu())
    }

    /// Clips and sessions.
    ///
    /// # Errors
    /// [`HttpError::Without`] when this server makes none.
    pub fn studio(&self) -> Result<&Arc<Studio>, HttpError> {
        self.studio.as_ref().ok_or(HttpError::Without("This server makes no clips, only streams."))
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

    /// Makes sure that a model is loaded, in the wanted format if one is named; without a studio
    /// only loaded ones are known.
    ///
    /// # Errors
    /// [`StudioError::NotYours`] when it is not for `owner` to name; [`HttpError::NoLoader`],
    /// [`HttpError::LoadFailed`].
    pub async fn load_model(&self, mut request: ModelRequest, owner: &Owner) -> Result<ModelId, HttpError> {
        let Some(studio) = &self.studio else {
            let loaded = self.engine().models().into_iter().find(|info| info.id.0 == request.model);
            return loaded.map(|info| info.id.clone()).ok_or(HttpError::NoLoader(request.model));
        };
        request.model = studio.permit(owner, &request.model)?;
        studio.models().load_voices(request).await.map_err(|error| match error {
            ResidentError::NoLoader(name) => HttpError::NoLoader(name),
            ResidentError::Failed(reason) => HttpError::LoadFailed(reason),
        })
    }
}
