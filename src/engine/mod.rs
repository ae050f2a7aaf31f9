//! The engine: one thread per device that owns the models and turns voices into PCM.
//!
//! [`Engine`] is the handle that other rooms hold: it admits voices and answers questions. A
//! [`Voice`] is the receiving end of one of them: PCM chunks stamped with media time and epoch, and
//! a [`VoiceControl`] to steer it. Dropping the [`Voice`] frees its place. No HTTP types, no JSON,
//! no tensors pass through here.

mod backend;
mod blend;
mod codes;
mod command;
mod cost;
mod decoding;
mod device;
mod error;
mod handle;
mod held;
mod jobs;
mod line;
mod loaded_model;
mod musicgen;
mod passage;
mod pcm_ring;
mod rate;
mod render;
mod resident;
mod schedule;
mod shared;
mod spec;
#[doc(hidden)]
pub mod standin;
mod stillness;
#[cfg(test)]
mod tests;
mod texts;
mod voice_state;
mod worker;

use std::fmt;

pub use backend::{
    Backend, Blend, CodecState, Condition, Conditioner, Decode, Encoder, Fault, Lost, ModelInfo, Prefill, Slot, StepRow,
};
pub use decoding::{Decoding, Parts};
pub use device::DeviceKind;
pub use error::EngineError;
pub use handle::{Engine, Voice, VoiceControl};
pub use jobs::{Job, JobHandle, Step};
pub use line::{InLine, Place};
pub use musicgen::{Fit, FitConstraints, KV_BUDGET, MusicGenBackend, fit, frame_rate, shorten};
pub use passage::{CodecShape, Passage};
pub use render::{
    FineTune, Given, LoopSettings, LoopSpec, Mask, RenderBackend, RenderInfo, RenderJob, RenderKey, RenderModel,
    RenderSpec, Sampler, Shape, TransformMethod, TransformSettings, TransformSpec,
};
pub use resident::{
    AskModel, ModelRequest, RenderLease, RenderLoader, ResidentError, ResidentModels, VoiceLease, VoiceLoader,
};
pub use spec::{
    MAX_PROMPT_CHARS, MAX_PROMPTS, MAX_STILL, Prefix, Priority, Sampling, SamplingPatch, Steer, VoiceSpec,
    WeightedPrompt, validate_max_still,
};
pub use stillness::Stillness;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::units::{SampleRate, Samples};

/// How an engine is run.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Voices that generate at the same time at most, whatever the measured speed says; paused ones
    /// do not count.
    pub max_voices: usize,
    /// Seconds of nothing new after which a voice goes back and on differently, unless it says
    /// otherwise; 0 never.
    pub max_still: f32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { max_voices: 256, max_still: MAX_STILL }
    }
}

/// What an operator wants to know of an engine.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// `None` while the device works, else why it does not.
    pub lost: Option<String>,
    /// Voices that are admitted (paused ones included).
    pub voices: usize,
    /// Mean time of the last decoder steps, in seconds.
    pub step_seconds: f64,
    /// Seconds of audio generated per second of work over all voices, recently.
    pub realtime_factor: f64,
    /// Voices of the default model that would be let in beside those that generate.
    pub room: usize,
}

/// PCM of one voice, in order, without gaps: the next chunk starts where the last one ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Media time of the first sample, since the voice began.
    pub start: Samples,
    /// Raised by one at every rewind (steer, reset, model change), modulo 65536.
    pub epoch: u32,
    /// Rate of `pcm`.
    pub sample_rate: SampleRate,
    /// 1 or 2; may change when the voice's model is changed.
    pub channels: usize,
    /// Interleaved samples, nominally within -1..1 but not clipped.
    pub pcm: Vec<f32>,
    /// The codes that it is made of, where it is made of codes.
    pub passage: Option<Passage>,
}

/// What reading a voice gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// The next piece of sound.
    Chunk(Chunk),
    /// Nothing generated yet; wait with [`Voice::ready`].
    Pending,
    /// The voice is over; nothing follows.
    End(VoiceEnd),
}

/// Why a voice ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoiceEnd {
    /// Its length is reached.
    Finished,
    /// It was dropped with this reason while others went on, or the device was lost.
    Failed(String),
    /// The engine was stopped.
    Stopped,
}

impl fmt::Display for VoiceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("its length is reached"),
            Self::Failed(reason) => f.write_str(reason),
            Self::Stopped => f.write_str("the server is stopping"),
        }
    }
}

/// A voice stood still and was taken back before anybody heard it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Freeze {
    /// Media time, in seconds since the voice began, from which on its music is another one.
    pub at: f64,
    /// What was done about it.
    pub remedy: Remedy,
}

/// What is done about a voice that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Remedy {
    /// It goes on with other draws.
    Draws,
    /// It goes on with other draws and remembers only the last moments.
    Context,
    /// It begins anew under a cross-fade.
    Anew,
    /// Nothing helped: it is heard as it is.
    Left,
}

impl Remedy {
    /// Its name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draws => "draws",
            Self::Context => "context",
            Self::Anew => "anew",
            Self::Left => "left",
        }
    }
}

/// From when on a change can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Media time, in seconds since the voice began, of the first sample that the change affects.
    pub at: f64,
    /// Epoch of the chunks from there on.
    pub epoch: u32,
}
