//! `POST /set_model`: another model for everything that plays, without dropping anybody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::task::JoinHandle;
use warp::Reply;
use warp::reply::Response;

use super::sets::Sets;
use super::{empty, parse};
use crate::engine::{EngineError, ModelRequest};
use crate::http::{App, HttpError};
use crate::studio::Owner;
use crate::units::{ModelId, WeightFormat};

/// An outcome within this time has its own status. Later the headers have to go out, so that nobody
/// between the client and here gives up; a late failure is then told in the body.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct SetModel {
    model: String,
    dtype: Option<String>,
    // The original moves its model between devices; here the device is chosen when the server
    // starts.
    #[serde(rename = "device")]
    _device: Option<String>,
}

/// The end of the reply's body means that the model is ready.
pub(super) async fn set(
    app: Arc<App>,
    sets: Arc<Sets>,
    owner: Owner,
    body: Result<Bytes, HttpError>,
) -> Result<Response, HttpError> {
    let wanted: SetModel = parse(&body?)?;
    if wanted.model.trim().is_empty() {
        return Err(HttpError::BadRequest("`model` is empty; send a Hugging Face id or a folder.".into()));
    }
    let request = ModelRequest { model: wanted.model, format: format(wanted.dtype.as_deref(), app.has_gpu()) };
    // A task of its own: a load that has begun is finished even when the client hangs up.
    let mut change = tokio::spawn(change(app, sets, owner, request));
    match tokio::time::timeout(PATIENCE, &mut change).await {
        Ok(outcome) => outcome.unwrap_or(Err(HttpError::Panicked)).map(|()| empty()),
        Err(_) => Ok(late(change)),
    }
}

/// The original's words; it ignores others, and its `float16` quietly means f32 on a CPU.
fn format(dtype: Option<&str>, has_gpu: bool) -> Option<WeightFormat> {
    match dtype? {
        "float16" if has_gpu => Some(WeightFormat::Bf16),
        "float16" => Some(WeightFormat::F32),
        other => other.parse().ok(),
    }
}

fn late(change: JoinHandle<Result<(), HttpError>>) -> Response {
    let mut response = empty();
    let outcome = async move {
        let text = match change.await.unwrap_or(Err(HttpError::Panicked)) {
            Ok(()) => String::new(),
            Err(error) => format!("{error}\n"),
        };
        Ok::<_, std::io::Error>(Bytes::from(text))
    };
    *response.body_mut() = warp::reply::stream(futures_util::stream::once(outcome)).into_response().into_body();
    response
}

async fn change(app: Arc<App>, sets: Arc<Sets>, owner: Owner, request: ModelRequest) -> Result<(), HttpError> {
    let before = app.engine().models().first().map(|info| info.id.clone());
    let model = app.load_model(request, &owner).await?;
    app.engine().set_default_model(&model)?;
    for voice in sets.voices() {
        carry(voice.set_model(&model).await.map(drop))?;
    }
    for info in app.station.list() {
        // A stream that was given a model of its own keeps it.
        if Some(&info.model) == before.as_ref()
            && let Ok(stream) = app.station.get(&info.id)
        {
            stream.set_model(&model).await.map(drop).or_else(|error| skip_ended(&model, &info.id, error))?;
        }
    }
    Ok(())
}

/// A voice that has left meanwhile is no failure.
fn carry(outcome: Result<(), EngineError>) -> Result<(), HttpError> {
    match outcome {
        Err(EngineError::Gone(_)) => Ok(()),
        other => other.map_err(Into::into),
    }
}

fn skip_ended(model: &ModelId, stream: &str, error: crate::station::StationError) -> Result<(), HttpError> {
    if matches!(error, crate::station::StationError::Ended(_)) {
        return Ok(());
    }
    tracing::warn!(%model, stream, %error, "a stream could not change its model");
    Err(error.into())
}
