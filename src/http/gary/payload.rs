//! What clients send: objects, JSON text, or JSON text with too many backslashes; numbers as texts.

mod read;

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

pub(super) use self::read::Parsed;
use self::read::Read;
use super::super::seed::Seed;
use super::super::{HttpError, base64, json};
use crate::budget::{Budget, Share};
use crate::studio::{ClipRequest, SessionId, TransformRequest};

/// Fields whose texts are sounds in base64: they are decoded as they are read, and never kept as
/// text.
const SOUNDS: [&str; 2] = ["audio_data", "audio"];
/// The field that holds a slice of such a text.
const SLICE: &str = "chunk";
/// Bytes of any other text, and of a name.
const LONGEST: usize = 64 << 10;
const LONGEST_NAME: usize = 80;
/// Fields that any request here could have.
const FIELDS: usize = 64;
/// Bytes from which on a body is read off the runtime's threads.
const LARGE: usize = 64 << 10;

/// A payload's fields: numbers, short texts, sounds. What else is sent is read over, whatever its
/// size.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Payload {
    /// Arrays and objects are kept as empty ones.
    fields: Map<String, Value>,
    sounds: HashMap<String, Result<Bytes, String>>,
    /// Texts that are too long to be what they claim.
    too_long: Vec<String>,
}

impl Payload {
    /// Reads a body: an object, or a text as the JSON in it, strictly first (also twice over), then
    /// without its backslashes: one client escapes more than it should. Sounds in it are taken from
    /// `budget`.
    ///
    /// # Errors
    /// A sentence.
    pub async fn read(body: Bytes, budget: &Budget) -> Result<Self, HttpError> {
        if body.len() < LARGE {
            return Self::parse(&body).map_err(HttpError::BadRequest);
        }
        let share = budget.take(body.len() as u64 / 4 * 3 + json::room(&body)).await?;
        let read = tokio::task::spawn_blocking(move || Self::parse(&body)).await;
        let read = read.unwrap_or_else(|error| Err(format!("The body could not be read: {error}.")));
        let mut payload = read.map_err(HttpError::BadRequest)?;
        payload.hold(share);
        Ok(payload)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        match json::parse::<Parsed>(body) {
            Ok(Parsed(payload)) => payload,
            Err(error) => Err(format!("Invalid JSON format: {error}.")),
        }
    }

    /// The fields of a form.
    pub fn of_form(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut payload = Self::default();
        for (name, text) in fields.into_iter().take(FIELDS) {
            payload.insert_text(name, &text);
        }
        payload
    }

    fn parse_text(text: &str, depth: usize) -> Result<Self, String> {
        let read = |text: &str| {
            let clean = json::clean(text.as_bytes());
            let mut reader = serde_json::Deserializer::from_slice(&clean);
            let parsed = Read { depth }.deserialize(&mut reader)?;
            reader.end().map(|()| parsed)
        };
        match read(text) {
            Ok(payload) => payload,
            Err(error) => match read(&text.replace('\\', "")) {
                Ok(Ok(payload)) => Ok(payload),
                _ => Err(format!("Invalid JSON format: {error}.")),
            },
        }
    }

    fn insert_text(&mut self, name: String, text: &str) {
        if SOUNDS.contains(&name.as_str()) && !text.is_empty() {
            self.sounds.insert(name, base64::decode(text));
        } else if text.len() > LONGEST && name != SLICE {
            self.too_long.push(name);
        } else {
            self.fields.insert(name, text.into());
        }
    }

    /// Its numbers and short texts.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Bytes of its sounds and slices.
    pub fn bytes(&self) -> usize {
        let sounds: usize = self.sounds.values().flatten().map(Bytes::len).sum();
        sounds + self.fields.get(SLICE).and_then(Value::as_str).map_or(0, str::len)
    }

    /// Lets its sounds hold a share for as long as they are needed.
    pub fn hold(&mut self, mut share: Share) {
        for sound in self.sounds.values_mut().flatten() {
            if let Ok(own) = share.split(sound.len() as u64) {
                *sound = own.hold(std::mem::take(sound));
            }
        }
    }

    /// The slice of a text, moved out.
    pub fn take_slice(&mut self) -> Option<String> {
        match self.fields.remove(SLICE) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn given(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A text; absent and null are the same.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        if self.too_long.iter().any(|long| long == name) {
            return Err(format!("{name}: the text has more than {} kB.", LONGEST >> 10));
        }
        match self.given(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{name}: a text is expected, and {} was sent.", kind(other))),
        }
    }

    /// The sound of a field, if one was sent.
    pub fn sound(&self, name: &str) -> Result<Option<Bytes>, String> {
        match self.sounds.get(name) {
            Some(sound) => sound.clone().map(Some),
            // What is there under this name is no text.
            None => self.text(name).map(|_| None),
        }
    }

    /// A number, or a text that is one.
    pub fn number(&self, name: &str) -> Result<Option<f64>, String> {
        let number = match self.given(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{name}: a number is expected.")),
        }
    }

    /// A whole number; `6.0` and `"6"` are, `6.5` is not.
    pub fn whole(&self, name: &str) -> Result<Option<i64>, String> {
        match self.number(name)? {
            Some(number) if number.fract() != 0.0 || number.abs() > 1e15 => {
                Err(format!("{name}: a whole number is expected, and {number} was sent."))
            }
            number => Ok(number.map(|number| number as i64)),
        }
    }

    /// The seed, if it matters which one.
    pub fn seed(&self) -> Result<Option<u64>, String> {
        let Some(value) = self.given("seed") else { return Ok(None) };
        let seed = Seed::deserialize(value).map_err(|error| format!("seed: {error}."))?;
        Ok(seed.exact())
    }

    /// Whether a flag is set.
    pub fn flag(&self, name: &str) -> bool {
        self.given(name).is_some_and(|value| value.as_bool().unwrap_or_else(|| value == "true" || value == 1))
    }

    /// The session that is named; an empty name is none.
    pub fn session(&self) -> Result<Option<SessionId>, String> {
        let id = self.text("session_id")?.map(|text| text.replace('\\', ""));
        match id.as_deref().map(str::trim) {
            None | Some("") => Ok(None),
            Some(id) => SessionId::parse(id).map(Some).map_err(|error| error.to_string()),
        }
    }

    /// The sound of `audio_data`, if one was sent.
    pub fn audio(&self) -> Result<Option<Bytes>, String> {
        self.sound("audio_data").map_err(|error| format!("audio_data: {error}"))
    }

    /// How the piece is to be made; fields that must be there are named by the caller.
    pub fn clip_request(&self) -> Result<ClipRequest, String> {
        let top_k = self.whole("top_k")?;
        let top_k = top_k.map(|k| u32::try_from(k).map_err(|_| format!("top_k: {k} is below 0."))).transpose()?;
        Ok(ClipRequest {
            model: self.text("model_name")?.map(|name| name.replace('\\', "").trim().to_owned()),
            prompt_seconds: self.whole("prompt_duration")?.map(|seconds| seconds as f64),
            top_k,
            temperature: self.number("temperature")?.map(|number| number as f32),
            guidance: self.number("cfg_coef")?.map(|number| number as f32),
            description: self.text("description")?.map(str::to_owned),
            seed: self.seed()?,
            ..ClipRequest::default()
        })
    }

    /// How a recording is to be transformed.
    pub fn transform(&self) -> Result<TransformRequest, String> {
        self.require(&["variation"])?;
        let flowstep = self.number("flowstep").map_err(|_| "Invalid flowstep value")?;
        if flowstep.is_some_and(|flowstep| flowstep <= 0.0) {
            return Err("Flowstep must be positive".into());
        }
        let solver = self.text("solver")?.map(str::to_lowercase);
        if solver.as_ref().is_some_and(|solver| !["euler", "midpoint"].contains(&solver.as_str())) {
            return Err("Invalid solver: take euler or midpoint.".into());
        }
        Ok(TransformRequest {
            variation: self.text("variation")?.map(str::to_owned),
            prompt: self.text("custom_prompt")?.map(str::to_owned),
            flowstep: flowstep.map(|flowstep| flowstep as f32),
            solver,
            steps: None,
            seed: self.seed()?,
            keeps_rate: true,
        })
    }

    /// Fails unless every one of `names` was sent.
    pub fn require(&self, names: &[&str]) -> Result<(), String> {
        let missing: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| self.given(name).is_none() && !self.sounds.contains_key(*name))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("Field required: {}.", missing.join(", "))) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Payload, String> {
        Payload::parse(value.to_string().as_bytes())
    }

    #[test]
    fn objects_and_texts_of_objects_are_the_same() {
        let object = json!({"session_id": "a", "description": "say \"hi\""});
        let text = object.to_string();
        let twice = serde_json::to_string(&text).unwrap();
        let expected = parse(&object).unwrap();
        assert_eq!(parse(&Value::String(text)).unwrap(), expected);
        assert_eq!(parse(&Value::String(twice)).unwrap(), expected);
        // As the phone sends it.
        let escaped = r#"{\"session_id\":\"a\",\"audio_data\":\"UklG\/w==\"}"#;
        let payload = parse(&Value::String(escaped.into())).unwrap();
        assert_eq!(payload.audio().unwrap().unwrap(), Bytes::from_static(b"RIF\xff"));
    }

    #[test]
    fn what_is_no_object_is_named() {
        assert!(parse(&json!("{")).unwrap_err().starts_with("Invalid JSON format:"));
        assert!(parse(&json!("[1]")).unwrap_err().starts_with("Invalid JSON format:"));
        assert!(parse(&json!(3)).unwrap_err().starts_with("Unsupported data type:"));
    }

    #[test]
    fn numbers_may_be_texts_but_not_halves() {
        let request = |value: Value| parse(&value).unwrap().clip_request();
        let fine =
            request(json!({"prompt_duration": "6", "top_k": 100.0, "temperature": "0.5", "cfg_coef": null})).unwrap();
        assert_eq!(
            (fine.prompt_seconds, fine.top_k, fine.temperature, fine.guidance),
            (Some(6.0), Some(100), Some(0.5), None)
        );
        for bad in [
            json!({"prompt_duration": 6.5}),
            json!({"top_k": -1}),
            json!({"temperature": "warm"}),
            json!({"model_name": 3}),
            json!({"cfg_coef": [1]}),
        ] {
            assert!(request(bad.clone()).is_err(), "{bad}");
        }
        assert_eq!(request(json!({"model_name": " thepatch\\/x "})).unwrap().model.unwrap(), "thepatch/x");
    }

    #[test]
    fn what_means_nothing_is_read_over_and_not_kept() {
        let long = "x".repeat(100_000);
        let body = format!(
            r#"{{"audio_data": [{}0], "model_name": {{"a": [[[]]]}}, "{long}": 1, "description": "{long}"}}"#,
            "0,".repeat(100_000)
        );
        let payload = Payload::parse(body.as_bytes()).unwrap();
        assert!(payload.too_long == ["description"]);
        assert!(payload.fields.values().all(|value| value.to_string().len() < 20));
        assert!(payload.audio().unwrap_err().contains("an array was sent"));
        assert!(payload.text("model_name").unwrap_err().contains("an object was sent"));
        assert!(payload.text("description").unwrap_err().contains("64 kB"));
        let many: String = (0..5000).map(|n| format!("\"a{n}\": {n}, ")).collect();
        let many = Payload::parse(format!(r#"{{{many} "a": 1}}"#).as_bytes());
        assert!(many.unwrap_err().contains("more than 64 fields"));
        // However deep it nests.
        let deep = format!(r#"{{"x": {}1{}, "session_id": "a"}}"#, "[".repeat(500_000), "]".repeat(500_000));
        assert!(Payload::parse(deep.as_bytes()).unwrap().session().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_sound_holds_its_part_of_the_memory_until_it_is_used() {
        let budget = Budget::new(1 << 20);
        let text = base64::encode(&vec![7; 90_000]);
        let payload = Payload::read(format!(r#"{{"audio_data": "{text}"}}"#).into(), &budget).await.unwrap();
        let sound = payload.audio().unwrap().unwrap();
        drop(payload);
        assert_eq!((sound.len(), budget.bytes() - budget.free()), (90_000, 88 << 10));
        drop(sound);
        assert_eq!(budget.free(), budget.bytes());
    }
}
