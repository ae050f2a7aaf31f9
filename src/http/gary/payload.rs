//! What clients send: objects, JSON text, or JSON text with too many backslashes; numbers as texts; lenient base64.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::json;
use super::super::seed::Seed;
use crate::studio::{SessionId, TransformWish, Wish};

/// Padding is checked by hand: everything that the original's decoder takes is taken.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A payload's fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Payload(Map<String, Value>);

impl Payload {
    /// An object as it is; a text as the JSON in it, strictly first (also twice over), then without its backslashes:
    /// one client escapes more than it should.
    pub fn parse(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            Value::String(text) => Self::parse_text(&text, 0),
            other => Err(format!("Unsupported data type: {}; send an object.", kind(&other))),
        }
    }

    fn parse_text(text: &str, depth: usize) -> Result<Self, String> {
        match json::parse(text.as_bytes()) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(Value::String(inner)) if depth < 2 => Self::parse_text(&inner, depth + 1),
            Ok(other) => Err(format!("Invalid JSON format: it holds {}, not an object.", kind(&other))),
            Err(error) => match json::parse(text.replace('\\', "").as_bytes()) {
                Ok(Value::Object(fields)) => Ok(Self(fields)),
                _ => Err(format!("Invalid JSON format: {error}.")),
            },
        }
    }

    fn given(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text; absent and null are the same.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{name}: a text is expected, and {} was sent.", kind(other))),
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

    /// The sound, if one was sent.
    pub fn audio(&self) -> Result<Option<Bytes>, String> {
        match self.text("audio_data")? {
            None | Some("") => Ok(None),
            Some(text) => decode_base64(text).map(Some).map_err(|error| format!("audio_data: {error}")),
        }
    }

    /// How the piece is to be made; fields that must be there are named by the caller.
    pub fn wish(&self) -> Result<Wish, String> {
        let top_k = self.whole("top_k")?;
        let top_k = top_k.map(|k| u32::try_from(k).map_err(|_| format!("top_k: {k} is below 0."))).transpose()?;
        Ok(Wish {
            model: self.text("model_name")?.map(|name| name.replace('\\', "").trim().to_owned()),
            prompt_seconds: self.whole("prompt_duration")?.map(|seconds| seconds as f64),
            seconds: None,
            top_k,
            temperature: self.number("temperature")?.map(|number| number as f32),
            guidance: self.number("cfg_coef")?.map(|number| number as f32),
            description: self.text("description")?.map(str::to_owned),
            seed: self.seed()?,
        })
    }

    /// How a recording is to be transformed.
    pub fn transform(&self) -> Result<TransformWish, String> {
        self.require(&["variation"])?;
        let flowstep = self.number("flowstep").map_err(|_| "Invalid flowstep value")?;
        if flowstep.is_some_and(|flowstep| flowstep <= 0.0) {
            return Err("Flowstep must be positive".into());
        }
        let solver = self.text("solver")?.map(str::to_lowercase);
        if solver.as_ref().is_some_and(|solver| !["euler", "midpoint"].contains(&solver.as_str())) {
            return Err("Invalid solver: take euler or midpoint.".into());
        }
        Ok(TransformWish {
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
        let missing: Vec<&str> = names.iter().copied().filter(|name| self.given(name).is_none()).collect();
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

/// Base64 as the original's decoder takes it: what is outside the alphabet is left out, only bad padding fails.
pub(crate) fn decode_base64(text: &str) -> Result<Bytes, String> {
    let broken = |reason: &dyn std::fmt::Display| format!("the base64 text is broken: {reason}.");
    // A data URI's prefix would otherwise count as base64.
    let text = match text.split_once(";base64,") {
        Some((prefix, rest)) if prefix.starts_with("data:") => rest,
        _ => text,
    };
    let clean: Vec<u8>;
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let body = if bytes[..end].iter().all(in_alphabet) {
        &bytes[..end]
    } else {
        clean = bytes.iter().copied().take_while(|&byte| byte != b'=').filter(in_alphabet).collect();
        &clean
    };
    let padding = bytes.iter().filter(|&&byte| byte == b'=').count();
    if !(body.len() + padding).is_multiple_of(4) && (body.len() % 4 == 1 || padding < (4 - body.len() % 4) % 4) {
        return Err(broken(&"its length is wrong, or its padding is missing"));
    }
    BASE64.decode(body).map(Bytes::from).map_err(|error| broken(&error))
}

/// Base64 with padding.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_and_texts_of_objects_are_the_same() {
        let object = json!({"session_id": "a", "description": "say \"hi\""});
        let text = object.to_string();
        let twice = serde_json::to_string(&text).unwrap();
        let expected = Payload::parse(object).unwrap();
        assert_eq!(Payload::parse(Value::String(text)).unwrap(), expected);
        assert_eq!(Payload::parse(Value::String(twice)).unwrap(), expected);
        // As the phone sends it.
        let escaped = r#"{\"session_id\":\"a\",\"audio_data\":\"UklG\/w==\"}"#;
        let payload = Payload::parse(Value::String(escaped.into())).unwrap();
        assert_eq!(payload.audio().unwrap().unwrap(), Bytes::from_static(b"RIF\xff"));
    }

    #[test]
    fn what_is_no_object_is_named() {
        assert!(Payload::parse(json!("{")).unwrap_err().starts_with("Invalid JSON format:"));
        assert!(Payload::parse(json!("[1]")).unwrap_err().starts_with("Invalid JSON format:"));
        assert!(Payload::parse(json!(3)).unwrap_err().starts_with("Unsupported data type:"));
    }

    #[test]
    fn numbers_may_be_texts_but_not_halves() {
        let wish = |value: Value| Payload::parse(value).unwrap().wish();
        let fine =
            wish(json!({"prompt_duration": "6", "top_k": 100.0, "temperature": "0.5", "cfg_coef": null})).unwrap();
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
            assert!(wish(bad.clone()).is_err(), "{bad}");
        }
        assert_eq!(wish(json!({"model_name": " thepatch\\/x "})).unwrap().model.unwrap(), "thepatch/x");
    }

    #[test]
    fn base64_is_lenient_but_not_about_its_length() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encode_base64(&bytes);
        assert_eq!(decode_base64(&text).unwrap(), bytes);
        let folded: String =
            text.as_bytes().chunks(76).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect();
        assert_eq!(decode_base64(&folded).unwrap(), bytes);
        assert_eq!(decode_base64(&format!("data:audio/wav;base64,{text}")).unwrap(), bytes);
        assert!(decode_base64("abcde").is_err());
        assert!(decode_base64("ab").is_err());
        assert_eq!(decode_base64("").unwrap(), b"".as_slice());
    }
}
