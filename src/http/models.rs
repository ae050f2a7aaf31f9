//! `/v1/models`: which models are loaded, and loading another while the others play.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;
use warp::Filter;

use super::client::owner;
use super::error::reply;
use super::router::get;
use super::views::{ModelList, ModelView};
use super::{App, HttpError, Routes, body};
use crate::engine::{ModelInfo, ModelRequest};
use crate::studio::Owner;
use crate::units::WeightFormat;

/// `GET` and `POST /v1/models`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_list, for_load) = (Arc::clone(app), Arc::clone(app));
    let list = get().map(move || warp::reply::Reply::into_response(warp::reply::json(&list(&for_list))));
    let load = warp::post().and(body::bytes(app)).and(owner()).then(move |body, owner| {
        let app = Arc::clone(&for_load);
        async move { reply(load(&app, body, &owner).await.map(|view| warp::reply::json(&view))) }
    });
    warp::path!("v1" / "models").and(list.or(load).unify()).boxed()
}

fn list(app: &App) -> ModelList {
    let models = app.engine().models();
    let is_loaded = |name: &String| models.iter().any(|info| info.id.0 == *name);
    let mut more: Vec<String> = app.offered.iter().cloned().chain((app.on_disk)()).collect();
    more.sort_unstable();
    more.dedup();
    more.retain(|name| !is_loaded(name));
    ModelList { models: models.iter().enumerate().map(|(place, info)| view(app, info, place == 0)).collect(), more }
}

fn view(app: &App, info: &ModelInfo, default: bool) -> ModelView {
    ModelView::new(info, app.engine().realtime_factor(&info.id), default)
}

/// A model to load while the others play.
#[derive(Deserialize, ToSchema)]
#[schema(as = ModelRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    /// A Hugging Face id, a folder, or `bundled`.
    model: String,
    /// How its weights are kept; left out, the server's choice, or what is loaded.
    #[serde(rename = "dtype")]
    format: Option<WeightFormat>,
    /// New streams that name no model play on it from now on.
    #[serde(default)]
    default: bool,
}

async fn load(app: &App, body: Result<Bytes, HttpError>, owner: &Owner) -> Result<ModelView, HttpError> {
    let Load { model, format, default } = body::json(&body?)?;
    if model.trim().is_empty() {
        return Err(HttpError::Unprocessable("`model` is empty; send a Hugging Face id, a folder or bundled.".into()));
    }
    let id = app.load_model(ModelRequest { model, format }, owner).await?;
    if default {
        app.engine().set_default_model(&id)?;
    }
    let models = app.engine().models();
    match models.iter().position(|info| info.id == id) {
        Some(place) => Ok(view(app, &models[place], place == 0)),
        None => Err(HttpError::LoadFailed(format!("`{id}` was loaded and is gone again."))),
    }
}
