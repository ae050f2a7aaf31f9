//! The JSON that streams are made and changed with: objects with known fields only, prompts as
//! texts or objects.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::HttpError;
use super::query::checked_seconds;
use super::seed::Seed;
use crate::engine::{Ack, SamplingPatch, Steer, WeightedPrompt};
use crate::station::{Idle, Stream, StreamSpec};
use crate::units::ModelId;

/// The longest name of a stream, in characters.
const MAX_NAME: usize = 80;

/// `"lofi piano"` or `{"text": "lofi piano", "weight": 0.5}`.
pub(super) struct Prompt(WeightedPrompt);

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrObject;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            text: String,
            weight: Option<f32>,
        }

        impl<'de> Visitor<'de> for TextOrObject {
            type Value = Prompt;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a prompt: \"text\" or {\"text\": \"...\", \"weight\": 1.0}")
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Prompt, A::Error> {
                let Object { text, weight } = Object::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Prompt(WeightedPrompt { text, weight: weight.unwrap_or(1.0) }))
            }
        }

        deserializer.deserialize_any(TextOrObject)
    }
}

impl ToSchema for Prompt {}

impl PartialSchema for Prompt {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).max_length(Some(1000));
        let weight = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).default(Some(1.into()));
        let object = ObjectBuilder::new().property("text", text()).required("text").property("weight", weight);
        OneOfBuilder::new().item(text()).item(object).into()
    }
}

pub(super) fn blend(prompts: Vec<Prompt>) -> Vec<WeightedPrompt> {
    prompts.into_iter().map(|prompt| prompt.0).collect()
}

/// A stream's name within bounds, wherever it was sent.
pub(super) fn checked_name(name: Option<String>) -> Result<Option<String>, HttpError> {
    match name {
        Some(name)
            if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) =>
        {
            let sentence = format!("`name` must have 1 to {MAX_NAME} printable characters; choose another or none.");
            Err(HttpError::Unprocessable(sentence))
        }
        name => Ok(name),
    }
}

/// `POST /v1/streams`.
#[derive(Deserialize, ToSchema)]
#[schema(as = StreamRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    #[schema(min_items = 1, max_items = 8)]
    prompts: Vec<Prompt>,
    #[schema(min_length = 1, max_length = 80)]
    name: Option<String>,
    model: Option<String>,
    /// Its length; endless without.
    #[schema(exclusive_minimum = 0, maximum = 86400)]
    seconds: Option<f64>,
    #[schema(minimum = 0, maximum = 4)]
    temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 65536)]
    top_k: Option<u32>,
    #[schema(minimum = 0, maximum = 20)]
    guidance: Option<f32>,
    #[serde(default)]
    seed: Seed,
    /// Seconds of nothing new after which the music goes back before it is heard, and on
    /// differently: 0 (never) or 1 to 30; the server's without.
    #[schema(minimum = 0, maximum = 30)]
    max_still: Option<f32>,
    /// It stays however long nobody listens, and goes on after a restart of a server with a folder.
    #[serde(default)]
    keep: bool,
}

impl Create {
    /// The stream that is asked for: it pauses while nobody listens.
    pub fn into_spec(self) -> Result<StreamSpec, HttpError> {
        if self.keep && self.seconds.is_some() {
            let sentence = "`keep` is for streams without an end; leave `seconds` out.";
            return Err(HttpError::Unprocessable(sentence.into()));
        }
        Ok(StreamSpec {
            name: checked_name(self.name)?,
            model: self.model.map(ModelId),
            prompts: blend(self.prompts),
            sampling: SamplingPatch {
                temperature: self.temperature,
                top_k: self.top_k,
                guidance: self.guidance,
                seed: self.seed.exact(),
            },
            seconds: checked_seconds(self.seconds)?,
            max_still: self.max_still,
            wait: None,
            keep: self.keep,
            idle: Idle::Pause,
        })
    }
}

/// `PATCH /v1/streams/{id}` and the WebSocket's `steer`; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[schema(as = StreamChange)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    #[schema(min_items = 1, max_items = 8)]
    prompts: Option<Vec<Prompt>>,
    /// Seconds over which the new prompts replace the old ones.
    #[schema(minimum = 0, maximum = 600)]
    ramp: Option<f32>,
    model: Option<String>,
    #[schema(minimum = 0, maximum = 4)]
    temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 65536)]
    top_k: Option<u32>,
    #[schema(minimum = 0, maximum = 20)]
    guidance: Option<f32>,
    #[serde(default)]
    seed: Seed,
}

impl Change {
    /// Makes the change and says from when on it is heard. Nothing is changed when a value is out
    /// of bounds.
    pub async fn apply(self, stream: &Stream) -> Result<Ack, HttpError> {
        let sampling = SamplingPatch {
            temperature: self.temperature,
            top_k: self.top_k,
            guidance: self.guidance,
            seed: self.seed.patch(),
        };
        let steers = self.prompts.is_some() || sampling != SamplingPatch::default();
        if self.ramp.is_some() && self.prompts.is_none() {
            let sentence = "`ramp` says how long the new `prompts` take to replace the old ones; send both.";
            return Err(HttpError::Unprocessable(sentence.into()));
        }
        let steer = Steer { prompts: self.prompts.map(blend), ramp: self.ramp.unwrap_or(0.0), sampling };
        steer.validate()?;
        let moved = match &self.model {
            Some(model) => Some(stream.set_model(&ModelId(model.clone())).await?),
            None => None,
        };
        match (moved, steers) {
            (_, true) => Ok(stream.steer(steer).await?),
            (Some(ack), false) => Ok(ack),
            (None, false) => Err(HttpError::Unprocessable(
                "Nothing would change; send prompts, model, temperature, top_k, guidance or seed.".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::body::json;
    use super::*;

    fn create(body: &str) -> Result<StreamSpec, HttpError> {
        json::<Create>(body.as_bytes())?.into_spec()
    }

    #[test]
    fn prompts_are_texts_or_objects() {
        let spec = create(r#"{"prompts": ["a", {"text": "b", "weight": 0.5}, {"text": "c"}], "seed": 3}"#).unwrap();
        let weights: Vec<f32> = spec.prompts.iter().map(|prompt| prompt.weight).collect();
        assert_eq!(weights, [1.0, 0.5, 1.0]);
        assert_eq!(spec.sampling.seed, Some(3));
    }

    #[test]
    fn mistakes_are_named() {
        for (body, status, word) in [
            ("{", 400, "not JSON"),
            ("[[\"a\"]]", 422, "array"),
            (r#"{"prompts": ["a"], "tempo": 1}"#, 422, "unknown field `tempo`, expected one of `prompts`"),
            (r#"{"prompts": [1]}"#, 422, "expected a prompt"),
            (r#"{"prompts": [{"txt": "a"}]}"#, 422, "unknown field `txt`"),
            (r#"{"name": "x"}"#, 422, "missing field `prompts`"),
            (r#"{"prompts": ["a"], "name": " "}"#, 422, "`name`"),
            (r#"{"prompts": ["a"], "seconds": 0}"#, 422, "`seconds`"),
            (r#"{"prompts": ["a"], "top_k": -1}"#, 422, "invalid value"),
            (r#"{"prompts": ["a"], "keep": true, "seconds": 5}"#, 422, "`keep`"),
        ] {
            let error = create(body).unwrap_err();
            assert_eq!(error.status(), status, "{body}");
            assert!(error.to_string().contains(word), "{body}: {error}");
        }
    }
}
