//! Units that must not be mixed up: codec frames, PCM samples, identities.
//!
//! A *frame* is one codec time step (20 ms at 50 Hz); a *sample* is one PCM instant of all channels together.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A count of codec frames, or a position on a voice's time line in frames since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Frames(pub u64);

/// A count of PCM samples per channel, or a position on a voice's time line in samples since it began.
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
