//! Units that must not be mixed up: codec frames, PCM samples, identities.
//!
//! A *frame* is one codec time step (20 ms at 50 Hz); a *sample* is one PCM instant of all channels
//! together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// A count of codec frames, or a position on a voice's time line in frames since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Frames(pub u64);

/// A count of PCM samples per channel, or a position on a voice's time line in samples since it
/// began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Samples(pub u64);

/// Samples per second and channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SampleRate(pub u32);

impl Samples {
    /// Length or position in seconds at `rate`.
    pub fn seconds(self, rate: SampleRate) -> f64 {
        self.0 as f64 / f64::from(rate.0)
    }
}

impl SampleRate {
    /// The number of whole samples in `seconds` (rounded, never negative).
    pub fn samples(self, seconds: f64) -> Samples {
        Samples((seconds * f64::from(self.0)).round().max(0.0) as u64)
    }
}

/// One generating sequence inside an engine. Never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct VoiceId(pub u64);

impl fmt::Display for VoiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voice-{}", self.0)
    }
}

/// The name under which a loaded checkpoint is known: a Hugging Face id, a folder, or `bundled`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(pub String);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a model's weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum WeightFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16: half the memory traffic; products and sums stay f32.
    Bf16,
    /// Rounded to 255 steps per output and 32 inputs: 8.5 bits a weight. What is multiplied with
    /// them is rounded to 65,000 steps per 32 inputs.
    Q8,
    /// Rounded to 16 steps per output and 32 inputs: 4.5 bits a weight. What is multiplied with
    /// them is rounded to 255 steps per 32 inputs.
    Q4,
}

/// A word that is no [`WeightFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number format; take f32, bf16, q8 or q4")]
pub struct UnknownFormat(String);

impl WeightFormat {
    /// Every one, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Q8, Self::Q4];

    /// Its name in options, requests and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "float" | "float32" => Ok(Self::F32),
            "bfloat16" => Ok(Self::Bf16),
            _ => Self::ALL
                .into_iter()
                .find(|format| format.name() == name)
                .ok_or_else(|| UnknownFormat(name.chars().take(80).collect())),
        }
    }
}

impl Serialize for WeightFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for WeightFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_format_has_one_name_everywhere_and_an_unknown_one_is_a_sentence() {
        for format in WeightFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(serde_json::from_str::<WeightFormat>(&json).unwrap(), format);
        }
        let error = serde_json::from_str::<WeightFormat>(r#""q3""#).unwrap_err().to_string();
        assert!(error.contains("`q3`") && error.contains("bf16"), "{error}");
    }
}
