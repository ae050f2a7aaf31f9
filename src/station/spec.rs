//! What a caller may ask of the station: streams, ways to listen, limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Journals;
use crate::audio::Format;
use crate::engine::{SamplingPatch, WeightedPrompt};
use crate::units::ModelId;

/// How a listener wants its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Container and codec: one that streams are sent in.
    pub format: Format,
    /// kbit/s, of those that the format has; 0 where there is no choice.
    pub kbps: u32,
    /// One page per packet instead of up to 200 ms, and a shorter burst.
    pub low_latency: bool,
}

impl Listen {
    /// The same with a bit rate that the format has, so that listeners share encoders.
    pub(super) fn normal(self) -> Self {
        let kbps = self.format.live().map_or(0, |live| live.bit_rates().nearest(self.kbps));
        Self { kbps, ..self }
    }
}

/// A new stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamSpec {
    /// Name for people; also its address when it is a station (`/generate?station=NAME`).
    pub name: Option<String>,
    /// Which loaded model; `None` is the default.
    pub model: Option<ModelId>,
    /// The blend.
    pub prompts: Vec<WeightedPrompt>,
    /// Sampling values that differ from the checkpoint's.
    pub sampling: SamplingPatch,
    /// Length in seconds; `None` is endless.
    pub seconds: Option<f64>,
    /// Seconds of nothing new after which it goes back and on differently; 0 never, `None` is the
    /// engine's.
    pub max_still: Option<f32>,
    /// How long it may wait for room on a full machine; without, it is refused there.
    pub wait: Option<Duration>,
    /// It stays however long nobody listens, keeps its place, and goes on from its journal when a
    /// server with the same folder starts again.
    pub keep: bool,
    /// What happens when its last listener leaves.
    pub idle: Idle,
}

impl StreamSpec {
    /// Whether it need not begin at once.
    pub(super) fn waits(&self) -> bool {
        self.idle == Idle::Wait || self.wait.is_some()
    }
}

/// What a stream does when nobody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Idle {
    /// Pause after the grace time, resume from its codes for the next listener (`/v1/streams`).
    /// Without a name it ends when nobody listened for an hour.
    Pause,
    /// As [`Idle::Pause`], and nothing is generated before the first listener (stations of a prompt
    /// set).
    Wait,
    /// End within a second (a stream that belongs to one `GET /generate`).
    End,
}

/// Limits and times of a station.
#[derive(Debug, Clone)]
pub struct StationConfig {
    /// Streams at most.
    pub max_streams: usize,
    /// Listeners at most, over all streams.
    pub max_listeners: usize,
    /// Seconds of sound that a new listener gets at once.
    pub burst: f64,
    /// Seconds without a listener before a stream pauses.
    pub grace: f64,
    /// Seconds generated ahead of the playhead.
    pub lead: f64,
    /// Voices with one channel are heard in a fixed room, in stereo.
    pub room: bool,
    /// Where journals are kept.
    pub journals: Journals,
}

impl StationConfig {
    /// Channels of a stream whose voice has so many.
    pub(super) fn channels(&self, voice: usize) -> usize {
        if self.room { 2 } else { voice }
    }
}

impl Default for StationConfig {
    fn default() -> Self {
        Self {
            max_streams: 256,
            max_listeners: 10_000,
            burst: 2.0,
            grace: 30.0,
            lead: 8.0,
            room: false,
            journals: Journals::default(),
        }
    }
}
