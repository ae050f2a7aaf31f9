//! The OpenAPI 3.1 description. What `/v1` is asked with and answers comes from the types that are
//! read and sent ([`super::views`]); paths and the older clients' bodies are written by hand in
//! `openapi.json` and compared with the router's table.
//!
//! A path like `/v1/streams/{id}/audio.{live}` stands for one per format; `{Format}` in it is the
//! format's name, `{media_type}` its media type. Elsewhere `{media_type}` and `{live}` stand for
//! those of all streams.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::router::methods;
use super::sound_paths::{Sounds, expanded};
use super::surface::SURFACES;
use super::views::schemas;
use crate::audio::Format;

/// The description as it is served, but for the server's address.
pub(super) static OPENAPI: LazyLock<String> = LazyLock::new(|| {
    // A test reads it.
    let mut described: Value = serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    if let (Some(written), Value::Object(derived)) = (described["components"]["schemas"].as_object_mut(), schemas()) {
        written.extend(derived);
    }
    if let Some(Value::Object(paths)) = described.get_mut("paths") {
        let written = std::mem::take(paths).into_iter().map(|(path, item)| tagged(path, item));
        paths.extend(written.flat_map(|(path, item)| {
            expanded(&path).into_iter().map(move |(path, format)| (path, filled(&item, format)))
        }));
    }
    serde_json::to_string_pretty(&filled(&described, None)).unwrap_or_default()
});

/// Operations of a path under the heading that it belongs to: its thing of the native API, or its
/// older client.
fn tagged(path: String, mut item: Value) -> (String, Value) {
    // Those of another original that one answers as well stand under the one they come from, which
    // is listed later.
    let asked = path.replace("{id}", "x");
    let surface = || SURFACES.iter().rev().find(|surface| methods(surface.paths, &asked).is_some());
    let tag = match path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()) {
        Some("openapi.json") => "server",
        Some(thing) => thing,
        None => surface().map_or("server", |surface| surface.name),
    };
    for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(operation) = operation.as_object_mut() {
            operation.entry("tags").or_insert_with(|| vec![Value::from(tag)].into());
        }
    }
    (path, item)
}

/// Says of one format, or of all, what stands for it.
fn filled(value: &Value, format: Option<Format>) -> Value {
    match value {
        Value::Object(fields) => Value::Object(fields.iter().fold(Map::new(), |mut filled_in, (name, value)| {
            let value = filled(value, format);
            if name == "{media_type}" {
                let formats = format.map_or_else(|| Sounds::Live.formats().collect(), |format| vec![format]);
                filled_in.extend(formats.into_iter().map(|format| (format.media_type().to_owned(), value.clone())));
            } else {
                filled_in.insert(name.clone(), value);
            }
            filled_in
        })),
        Value::Array(values) => {
            let filled = |value: &Value| match value.as_str() {
                Some("{live}") => Sounds::Live.formats().map(|format| format.extension().into()).collect(),
                _ => vec![filled(value, format)],
            };
            values.iter().flat_map(filled).collect()
        }
        Value::String(text) => match format {
            Some(format) => text.replace("{Format}", &capital(format.extension())).into(),
            None => value.clone(),
        },
        other => other.clone(),
    }
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_body_that_is_named_is_described() {
        let described: Value = serde_json::from_str(&OPENAPI).unwrap();
        let mut wanted = std::collections::BTreeSet::new();
        for (at, _) in OPENAPI.match_indices("#/components/schemas/") {
            let name = OPENAPI[at + 21..].split('"').next().unwrap();
            assert!(described["components"]["schemas"][name].is_object(), "{name} is named and not described");
            wanted.insert(name);
        }
        for name in described["components"]["schemas"].as_object().unwrap().keys() {
            assert!(wanted.contains(name.as_str()), "{name} is described and never named");
        }
    }

    #[test]
    fn bodies_are_described_as_they_are_read_and_sent() {
        let snapshot = include_str!("bodies.json");
        let now = serde_json::to_string_pretty(&schemas()).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/bodies.json");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, now + "\n").unwrap();
            return;
        }
        assert_eq!(
            now + "\n",
            snapshot,
            "the bodies of /v1 have changed; look at them, then UPDATE_SNAPSHOTS=1 cargo test"
        );
    }

    #[test]
    fn every_format_is_described_and_nothing_is_left_to_fill_in() {
        let described: Value = serde_json::from_str(&OPENAPI).unwrap();
        for format in Sounds::Files.formats() {
            let get = &described["paths"][format!("/v1/clips/{{id}}/audio.{format}")]["get"];
            assert!(get["responses"]["200"]["content"][format.media_type()].is_object(), "{format}: {get}");
        }
        assert_eq!(described["paths"]["/v1/streams/{id}/audio.mp3"]["get"]["operationId"], "getStreamAudioMp3");
        let told: Vec<_> = described["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        for item in described["paths"].as_object().unwrap().values() {
            let mut operations = item.as_object().unwrap().values().filter(|operation| operation.is_object());
            assert!(operations.all(|operation| told.contains(&&operation["tags"][0])), "{item}");
        }
        for (path, tag) in [("/v1/streams", "streams"), ("/generate/loop", "jerry"), ("/readyz", "server")] {
            let item = described["paths"][path].as_object().unwrap();
            assert!(item.values().all(|operation| operation["tags"] == serde_json::json!([tag])), "{path}");
        }
        for left in ["{media_type}", "{live}", "{file}", "{preview}", "{Format}"] {
            assert!(!OPENAPI.contains(left), "{left}");
        }
    }
}
