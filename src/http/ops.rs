//! What operators and their machines ask: alive, ready, metrics, and what can be asked at all.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use warp::http::header::CACHE_CONTROL;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::description::OPENAPI;
use super::error::reply;
use super::links::{self, Links};
use super::router::{Paths, get};
use super::{App, HttpError, Routes};
use crate::station::Load;
use crate::studio::Lane;
use crate::telemetry;

/// Streams that run dry for so long are no passing trouble: the server is not ready for more.
const BEHIND: Duration = Duration::from_secs(30);

/// Installs the recorder of this process's metrics, which carry the name of its `node` if it is one
/// of several; what it gives belongs into [`App::metrics`]. Call it once, early: what is counted
/// before it is lost.
///
/// # Errors
/// When a recorder is installed already.
pub fn install_metrics(node: Option<&str>) -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in telemetry::BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
    }
    if let Some(node) = node {
        builder = builder.add_global_label("node", node);
    }
    let handle = builder.install_recorder()?;
    telemetry::describe();
    Ok(handle)
}

/// Paths of [`probes`].
pub(super) const PROBES: Paths = &[("/healthz", "GET, HEAD"), ("/readyz", "GET, HEAD")];

/// Whether a path is that of a probe.
pub(super) fn is_probe(path: &str) -> bool {
    PROBES.iter().any(|(probe, _)| *probe == path)
}

/// `GET /healthz`, `GET /readyz`: on every port.
pub(super) fn probes(app: &Arc<App>) -> Routes {
    let health = warp::path!("healthz").and(get()).map(|| fresh(warp::reply::json(&json!({ "status": "ok" }))));
    let app = Arc::clone(app);
    let ready = warp::path!("readyz").and(get()).map(move || reply(readiness(&app)));
    health.or(ready).unify().boxed()
}

/// The probes, `GET /metrics`, `GET /v1/openapi.json`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let probes = probes(app);
    let app = Arc::clone(app);
    let metrics = warp::path!("metrics").and(get()).map(move || reply(metrics_page(&app)));
    let described = warp::path!("v1" / "openapi.json").and(get()).and(links::of_request()).map(|links: Links| {
        let text = OPENAPI.replace("VERSION", env!("CARGO_PKG_VERSION")).replace("ROOT", &links.to("/"));
        warp::reply::with_header(text, "content-type", "application/json").into_response()
    });
    probes.or(metrics).unify().or(described).unify().boxed()
}

/// The server can take streams.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    status: &'static str,
    /// The default model; none of an edge of a cluster.
    model: Option<String>,
    /// How long streams have run dry again and again; 503 from 30 on.
    behind_seconds: u64,
    /// Streams that wait because the machine has fallen behind.
    waiting_streams: usize,
}

fn readiness(app: &App) -> Result<Response, HttpError> {
    if app.stopping.is_cancelled() {
        return Err(HttpError::NotReady("The server is shutting down; use another one.".into()));
    }
    if let Some(reason) = app.engine().status().lost {
        return Err(HttpError::NotReady(format!("The device was lost: {reason}. Restart the server.")));
    }
    if let Some(trouble) = app.studio.as_ref().and_then(|studio| studio.store().trouble()) {
        return Err(HttpError::NotReady(format!("Streams play, clips are refused: {trouble}.")));
    }
    let Load { behind, waiting } = app.station.load();
    if behind >= BEHIND {
        let seconds = behind.as_secs();
        return Err(HttpError::NotReady(format!(
            "Streams have run dry again and again for {seconds} s: the machine is too slow for what it plays."
        )));
    }
    if let Some(cluster) = app.cluster.as_ref().filter(|cluster| cluster.is_edge()) {
        cluster.engines()?;
        let ready = Readiness { status: "ready", model: None, behind_seconds: 0, waiting_streams: 0 };
        return Ok(fresh(warp::reply::json(&ready)));
    }
    match app.engine().models().first() {
        Some(model) => Ok(fresh(warp::reply::json(&Readiness {
            status: "ready",
            model: Some(model.id.to_string()),
            behind_seconds: behind.as_secs(),
            waiting_streams: waiting,
        }))),
        None => Err(HttpError::NotReady("No model is loaded; POST /v1/models loads one.".into())),
    }
}

fn metrics_page(app: &App) -> Result<Response, HttpError> {
    let handle = app.metrics.as_ref();
    let handle = handle.ok_or(HttpError::Without("This server keeps no metrics."))?;
    gauge!(telemetry::REALTIME_FACTOR).set(app.engine().status().realtime_factor);
    if let Some(cluster) = &app.cluster {
        // Those that fell silent are not counted any more.
        let _ = cluster.nodes();
    }
    if let Some(studio) = &app.studio {
        for (name, lane) in Lane::ALL.map(|lane| (lane.name(), lane)) {
            let (waiting, running) = studio.load(lane);
            gauge!(telemetry::CLIPS_WAITING, "lane" => name).set(waiting as f64);
            gauge!(telemetry::CLIPS_RUNNING, "lane" => name).set(running as f64);
        }
    }
    let text = handle.render();
    Ok(fresh(warp::reply::with_header(text, "content-type", "text/plain; version=0.0.4; charset=utf-8")))
}

/// Marks a response as true for this moment only.
fn fresh(body: impl Reply) -> Response {
    warp::reply::with_header(body, CACHE_CONTROL.as_str(), "no-store").into_response()
}
