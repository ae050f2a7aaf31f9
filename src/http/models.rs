//! `/v1/models`: which models are loaded, and loading another while the others play.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use warp::Filter;

use super::client::owner;
use super::error::reply;
use super::router::get;
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

fn list(app: &App) -> Value {
    let models = app.engine().models();
    let models: Vec<Value> = models.iter().enumerate().map(|(place, info)| view(app, info, place == 0)).collect();
    json!({ "models": models })
}

fn view(app: &App, info: &ModelInfo, default: bool) -> Value {
    let sampling = info.sampling;
    json!({
        "id": info.id,
        "description": info.description,
        "default": default,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "frame_rate": info.frame_rate(),
        "codebooks": info.codebooks,
        "realtime_factor": app.engine().realtime_factor(&info.id),
        "window_seconds": info.window as f64 / info.frame_rate(),
        "sampling": {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "guidance": sampling.guidance,
        },
    })
}

/// `default`: new streams that name no model play on it from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Load {
    model: String,
    #[serde(rename = "dtype")]
    format: Option<WeightFormat>,
    #[serde(default)]
    default: bool,
}

async fn load(app: &App, body: Result<Bytes, HttpError>, owner: &Owner) -> Result<Value, HttpError> {
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
