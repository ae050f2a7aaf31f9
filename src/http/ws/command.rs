//! Commands: one JSON object in, its answer out.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::sound::Sound;
use crate::http::auth::{Grant, Scope};
use crate::http::client::Client;
use crate::http::input::Change;
use crate::http::{App, HttpError, body};
use crate::station::{Listen, Stream};

/// What a socket is about, and whose it is.
pub(super) struct Heard {
    pub(super) app: Arc<App>,
    pub(super) client: Client,
    pub(super) grant: Grant,
    pub(super) stream: Arc<Stream>,
    /// How its sound is sent; `None` if none is.
    pub(super) listen: Option<Listen>,
}

/// What a command leads to.
pub(super) struct Answer {
    pub(super) text: Value,
    /// What it goes on with instead of the sound before.
    pub(super) sound: Option<Sound>,
}

impl From<Value> for Answer {
    fn from(text: Value) -> Self {
        Self { text, sound: None }
    }
}

/// Carries out one command and makes its answer.
pub(super) async fn obeyed(heard: &Heard, text: &str) -> Answer {
    let mut fields: Map<String, Value> = match body::json(text.as_bytes()) {
        Ok(fields) => fields,
        Err(error) => return refusal(None, &error).into(),
    };
    let id = fields.remove("id");
    let seeks = fields.get("type").and_then(Value::as_str) == Some("seek");
    let done = if seeks {
        seek(heard, fields).await.map(|(answer, sound)| (answer, Some(sound)))
    } else {
        let allowed = heard.grant.check(Scope::Steer, heard.stream.name());
        let done = async { carry_out(&heard.stream, allowed.map(|()| fields)?).await };
        done.await.map(|answer| (answer, None))
    };
    match done {
        Ok((mut answer, sound)) => {
            answer.insert("type".into(), "ack".into());
            answer.extend(id.map(|id| ("id".to_owned(), id)));
            Answer { text: Value::Object(answer), sound }
        }
        Err(error) => refusal(id, &error).into(),
    }
}

/// Has the sound go on at another place.
async fn seek(heard: &Heard, mut fields: Map<String, Value>) -> Result<(Map<String, Value>, Sound), HttpError> {
    let Heard { stream, listen, .. } = heard;
    let at = fields.remove("at");
    fields.remove("type");
    if let Some(field) = fields.keys().next() {
        return Err(HttpError::Unprocessable(format!("`seek` takes no `{field}`; send its type, an id and at.")));
    }
    let listen = listen.ok_or_else(|| HttpError::Unprocessable("This socket has no sound to seek in.".into()))?;
    let (sound, at) = match at {
        None => (Sound::Here(stream.join(listen).await?), stream.info().playhead),
        Some(at) => {
            let text = at.as_str().map_or_else(|| at.to_string(), str::to_owned);
            Sound::of_past(heard, listen, ("at", &text)).await?
        }
    };
    Ok((Map::from_iter([("at".into(), at.into())]), sound))
}

async fn carry_out(stream: &Stream, mut fields: Map<String, Value>) -> Result<Map<String, Value>, HttpError> {
    let kind = fields.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    if kind != "steer"
        && let Some(field) = fields.keys().next()
    {
        return Err(HttpError::Unprocessable(format!("`{kind}` takes no `{field}`; send its type and an id at most.")));
    }
    let ack = match kind {
        "steer" => {
            let change = serde_json::from_value::<Change>(Value::Object(fields));
            let change =
                change.map_err(|error| HttpError::Unprocessable(format!("The JSON does not fit: {error}.")))?;
            change.apply(stream).await?
        }
        "reset" => stream.reset().await?,
        "pause" => return stream.pause().await.map(|()| Map::new()).map_err(HttpError::from),
        "resume" => return stream.resume().await.map(|()| Map::new()).map_err(HttpError::from),
        _ => {
            let sentence = "`type` must be steer, pause, resume, reset or seek; send one of these.";
            return Err(HttpError::Unprocessable(sentence.into()));
        }
    };
    Ok(Map::from_iter([("at".into(), ack.at.into()), ("epoch".into(), ack.epoch.into())]))
}

pub(super) fn refusal(id: Option<Value>, error: &HttpError) -> Value {
    let mut refusal = json!({ "type": "error", "status": error.status().as_u16(), "detail": error.to_string() });
    if let Some(fields) = refusal.as_object_mut() {
        fields.extend(id.map(|id| ("id".to_owned(), id)));
        fields.extend(error.retry_after().map(|seconds| ("retry_after".to_owned(), seconds.into())));
    }
    refusal
}
