//! Uploads and what comes with them: a JSON object, a form with a file, or the sound as the body
//! and the rest in the query. All three end in the same fields.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use warp::http::HeaderMap;
use warp::http::header::CONTENT_TYPE;
use warp::{Filter, Rejection};

use super::query::Query;
use super::seed::Seed;
use super::{App, HttpError, body, form, json};
use crate::budget::Budget;
use crate::studio::ClipRequest;

/// Fields of a request for a clip.
const FIELDS: [&str; 10] =
    ["verb", "session", "prompt", "model", "prompt_seconds", "seconds", "top_k", "temperature", "guidance", "seed"];
/// The file of a form.
const FILE: &str = "audio";

/// A request for a clip.
#[derive(Debug, Default, Deserialize, PartialEq, ToSchema)]
#[schema(as = ClipRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    /// `generate`, `bang` or `continue`. Without it: continue if there is a sound or a session,
    /// else generate.
    pub verb: Option<String>,
    pub session: Option<String>,
    #[schema(max_length = 1000)]
    pub prompt: Option<String>,
    /// A Hugging Face id, a folder, or a short name (small, medium, large).
    pub model: Option<String>,
    /// Seconds of the sound to go on from.
    #[serde(default, deserialize_with = "number")]
    #[schema(minimum = 0.5, maximum = 299, default = 6)]
    pub prompt_seconds: Option<f64>,
    /// Seconds of the piece, the prompt included.
    #[serde(default, deserialize_with = "number")]
    #[schema(minimum = 1, maximum = 300, default = 30)]
    pub seconds: Option<f64>,
    #[serde(default, deserialize_with = "number")]
    #[schema(minimum = 0, default = 250)]
    pub top_k: Option<u32>,
    /// Of the softmax; 0 is greedy.
    #[serde(default, deserialize_with = "number")]
    #[schema(minimum = 0, maximum = 4, default = 1)]
    pub temperature: Option<f32>,
    /// How strictly the prompt is followed.
    #[serde(default, deserialize_with = "number")]
    #[schema(minimum = 0, maximum = 20, default = 3)]
    pub guidance: Option<f32>,
    #[serde(default)]
    pub seed: Seed,
}

/// A number, or a text that is one, as forms send it.
fn number<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr,
    D: Deserializer<'de>,
{
    let text = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    // A whole number may be sent as 7.0, as some languages write it.
    let text = text.trim();
    let number = text.strip_suffix(".0").unwrap_or(text).parse().or_else(|_| text.parse());
    number.map(Some).map_err(|_| {
        let start: String = text.chars().take(40).collect();
        D::Error::custom(format!("`{start}` is not a number that fits"))
    })
}

/// What a client sent.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub fields: Fields,
    pub audio: Option<Bytes>,
    /// How long it waits for a place in a full queue; always in the query.
    pub wait: Duration,
}

impl Upload {
    pub fn clip_request(&self) -> ClipRequest {
        let fields = &self.fields;
        ClipRequest {
            model: fields.model.clone(),
            prompt_seconds: fields.prompt_seconds,
            seconds: fields.seconds,
            top_k: fields.top_k,
            temperature: fields.temperature,
            guidance: fields.guidance,
            description: fields.prompt.clone(),
            seed: fields.seed.exact(),
            wait: self.wait,
        }
    }
}

/// Reads the body of a request for a clip. Never rejects.
pub(super) fn of_request(
    app: &App,
) -> impl Filter<Extract = (Result<Upload, HttpError>,), Error = Rejection> + Clone + use<> {
    let (budget, most) = (app.budget.clone(), app.limits.body);
    body::upload(app).and(warp::header::headers_cloned()).and(super::query::raw()).then(
        move |body: Result<Bytes, HttpError>, headers: HeaderMap, query: String| {
            let budget = budget.clone();
            async move { parse(body?, &headers, &query, (&budget, most)).await }
        },
    )
}

/// `most` bytes are more than any JSON without a sound in it has.
async fn parse(
    body: Bytes,
    headers: &HeaderMap,
    query: &str,
    (budget, most): (&Budget, usize),
) -> Result<Upload, HttpError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let query = Query::parse(query, &[&FIELDS, &["wait"]])?;
    let wait = query.wait()?.unwrap_or_default();
    let mut fields = Map::new();
    for name in FIELDS {
        if let Some(value) = query.one(name)? {
            fields.insert(name.into(), value.into());
        }
    }
    let mut audio = None;
    if form::is_multipart(headers) {
        audio = form(body, headers, &mut fields, budget).await?;
    } else if body.is_empty() {
    } else if body.len() > most && (kind.contains("json") || json::first(&body) == Some(b'{')) {
        return Err(HttpError::TooLarge(most));
    } else if kind.starts_with("audio/") || json::first(&body) != Some(b'{') {
        if kind.contains("json") {
            return Err(body::json::<Fields>(&body).err().unwrap_or_else(|| bad("Send a JSON object.")));
        }
        audio = Some(body);
    } else {
        fields.extend(body::json::<Map<String, Value>>(&body)?);
    }
    let fields = serde_json::from_value(Value::Object(fields))
        .map_err(|error| HttpError::Unprocessable(format!("A field does not fit: {error}.")))?;
    Ok(Upload { fields, audio, wait })
}

async fn form(
    body: Bytes,
    headers: &HeaderMap,
    fields: &mut Map<String, Value>,
    budget: &Budget,
) -> Result<Option<Bytes>, HttpError> {
    let mut audio = None;
    for part in form::parts(body, headers, budget).await? {
        if part.name == FILE {
            if audio.replace(part.content).is_some() {
                return Err(bad("The form has two files; send one in the field `audio`."));
            }
        } else if FIELDS.contains(&part.name.as_str()) {
            let text = part.text()?.into();
            fields.insert(part.name, text);
        } else {
            let (name, known) = (part.name, FIELDS.join(", "));
            return Err(bad(&format!(
                "`{name}` is no field here; send the file as `audio`, and of {known} what you need."
            )));
        }
    }
    Ok(audio)
}

fn bad(sentence: &str) -> HttpError {
    HttpError::BadRequest(sentence.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn upload(kind: &str, query: &str, body: &str) -> Result<Upload, HttpError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        parse(Bytes::copy_from_slice(body.as_bytes()), &headers, query, (&Budget::default(), 1 << 20)).await
    }

    #[tokio::test]
    async fn json_form_and_raw_body_end_in_the_same_fields() {
        let wanted = Fields {
            verb: Some("bang".into()),
            prompt: Some("lofi piano".into()),
            seconds: Some(12.5),
            top_k: Some(7),
            ..Fields::default()
        };
        let json = r#"{"verb": "bang", "prompt": "lofi piano", "seconds": 12.5, "top_k": 7}"#;
        assert_eq!(upload("application/json", "", json).await.unwrap().fields, wanted);
        let raw = upload("audio/wav", "verb=bang&prompt=lofi+piano&seconds=12.5&top_k=7", "RIFF...").await.unwrap();
        assert_eq!((raw.fields, raw.audio.unwrap()), (wanted, Bytes::from_static(b"RIFF...")));
        let form = "--XyZ\r\nContent-Disposition: form-data; name=\"verb\"\r\n\r\nbang\r\n\
            --XyZ\r\nContent-Disposition: form-data; name=\"seconds\"\r\n\r\n12.5\r\n\
            --XyZ\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"a.wav\"\r\n\
            Content-Type: audio/wav\r\n\r\nRIFF...\r\n--XyZ--\r\n";
        let form = upload("multipart/form-data; boundary=XyZ", "", form).await.unwrap();
        assert_eq!((form.fields.verb.unwrap(), form.fields.seconds), ("bang".to_owned(), Some(12.5)));
        assert_eq!(form.audio.unwrap(), Bytes::from_static(b"RIFF..."));
    }

    #[tokio::test]
    async fn mistakes_are_named() {
        for (kind, query, body, word) in [
            ("application/json", "", "{", "not JSON"),
            ("application/json", "", "[1]", "array"),
            ("application/json", "", r#"{"seconds": "long"}"#, "`long`"),
            ("application/json", "", r#"{"tempo": 120}"#, "tempo"),
            ("audio/wav", "tempo=120", "RIFF", "tempo"),
            ("multipart/form-data", "", "x", "boundary"),
            ("multipart/form-data; boundary=a", "", "x", "broken"),
        ] {
            let error = upload(kind, query, body).await.unwrap_err().to_string();
            assert!(error.contains(word), "{kind} {query} {body}: {error}");
        }
    }
}
