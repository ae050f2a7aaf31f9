//! Commands: one JSON object in, its answer out.

use serde_json::{Map, Value, json};

use crate::http::auth::{Grant, Scope};
use crate::http::input::Change;
use crate::http::{HttpError, body};
use crate::station::Stream;

/// Carries out one command and makes its answer.
pub(super) async fn obeyed(stream: &Stream, grant: &Grant, text: &str) -> Value {
    let mut fields: Map<String, Value> = match body::json(text.as_bytes()) {
        Ok(fields) => fields,
        Err(error) => return refusal(None, &error),
    };
    let id = fields.remove("id");
    let allowed = grant.check(Scope::Steer, stream.name());
    let done = async { carry_out(stream, allowed.map(|()| fields)?).await };
    match done.await {
        Ok(mut answer) => {
            answer.insert("type".into(), "ack".into());
            answer.extend(id.map(|id| ("id".to_owned(), id)));
            Value::Object(answer)
        }
        Err(error) => refusal(id, &error),
    }
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
            let sentence = "`type` must be steer, pause, resume or reset; send one of these.";
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
