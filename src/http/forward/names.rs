//! The session that a body names, found without keeping anything else of it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use futures_util::stream;
use multer::Multipart;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_TYPE;

use crate::http::{form, json};

/// What fields and parameters are called that hold the id of a session.
pub(super) const NAMES: [&str; 3] = ["session", "session_id", "task_id"];
/// Bytes of an id at most.
const LONGEST: usize = 64;
/// Bytes from which on a body is read off the runtime's threads.
const LARGE: usize = 64 << 10;
/// Bytes that the parser of forms is given at once.
const PIECE: usize = 64 << 10;
/// Texts in texts.
const DEPTH: usize = 2;

/// The session that a body names. What cannot be read names none: whoever answers says what is
/// wrong with it.
pub(super) async fn named(headers: &HeaderMap, body: &Bytes) -> Option<String> {
    if form::is_multipart(headers) {
        return of_form(headers, body).await;
    }
    if body.len() < LARGE {
        return of_json(body);
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || of_json(&body)).await.ok().flatten()
}

async fn of_form(headers: &HeaderMap, body: &Bytes) -> Option<String> {
    let boundary = multer::parse_boundary(headers.get(CONTENT_TYPE)?.to_str().ok()?).ok()?;
    let body = body.clone();
    let pieces = (0..body.len()).step_by(PIECE).map(move |at| {
        let end = (at + PIECE).min(body.len());
        Ok::<_, std::io::Error>(body.slice(at..end))
    });
    let mut form = Multipart::new(stream::iter(pieces), boundary);
    while let Some(mut field) = form.next_field().await.ok()? {
        if !field.name().is_some_and(|name| NAMES.contains(&name)) {
            continue;
        }
        let mut text = Vec::new();
        while let Some(piece) = field.chunk().await.ok()? {
            text.extend_from_slice(&piece);
            if text.len() > LONGEST {
                return None;
            }
        }
        return String::from_utf8(text).ok();
    }
    None
}

fn of_json(body: &[u8]) -> Option<String> {
    matches!(json::first(body), Some(b'{' | b'"')).then(|| read(&json::clean(body), DEPTH))?
}

fn read(text: &[u8], depth: usize) -> Option<String> {
    Named { depth }.deserialize(&mut serde_json::Deserializer::from_slice(text)).ok()?
}

/// Reads an object, or a text that is one.
struct Named {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Named {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Named {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if NAMES.contains(&&*name) {
                let id = map.next_value::<Id>()?;
                found = found.or(id.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        let Some(depth) = self.depth.checked_sub(1) else { return Ok(None) };
        // One client escapes more than it should.
        Ok(read(text.as_bytes(), depth).or_else(|| read(text.replace('\\', "").as_bytes(), depth)))
    }
}

struct Id(Option<String>);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_str().filter(|id| !id.is_empty() && id.len() <= LONGEST).map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_session_is_found_in_every_kind_of_body() {
        let mut headers = HeaderMap::new();
        for (body, wanted) in [
            (r#"{"audio_data": "UklGRg==", "session_id": "a"}"#, Some("a")),
            (r#"{"session": null, "task_id": "b", "more": {"session": "c"}}"#, Some("b")),
            (r#""{\"session_id\": \"d\"}""#, Some("d")),
            (r#""{\\\"session_id\\\": \\\"e\\\"}""#, Some("e")),
            (r#"{"session": ""}"#, None),
            (r#"{"prompt": "x"}"#, None),
            ("RIFF", None),
            ("", None),
            ("{", None),
        ] {
            assert_eq!(named(&headers, &Bytes::from_static(body.as_bytes())).await.as_deref(), wanted, "{body}");
        }
        headers.insert(CONTENT_TYPE, "multipart/form-data; boundary=x".parse().unwrap());
        let sound = "session=no".repeat(20_000);
        let form = format!(
            "--x\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"a.wav\"\r\n\r\n{sound}\r\n\
             --x\r\nContent-Disposition: form-data; name=\"session\"\r\n\r\nf\r\n--x--\r\n"
        );
        assert_eq!(named(&headers, &form.into()).await.as_deref(), Some("f"));
    }
}
