//! `/v1/nodes`: the processes that are one server together.

use std::sync::Arc;

use warp::Filter;
use warp::http::header::CACHE_CONTROL;
use warp::reply::with_header;

use super::error::reply;
use super::router::get;
use super::views::NodeList;
use super::{App, HttpError, Routes};

/// `GET /v1/nodes`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    let list = move || reply(list(&app).map(|list| with_header(warp::reply::json(&list), CACHE_CONTROL, "no-store")));
    warp::path!("v1" / "nodes").and(get()).map(list).boxed()
}

fn list(app: &App) -> Result<NodeList, HttpError> {
    let Some(cluster) = &app.cluster else { return Ok(NodeList { cluster: None, node: None, nodes: Vec::new() }) };
    let nodes = cluster.nodes()?;
    Ok(NodeList { cluster: Some(cluster.name().into()), node: Some(cluster.node().into()), nodes })
}
