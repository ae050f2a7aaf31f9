//! What was asked of a stream and when, for people and programs.

use std::ops::Range;

use serde::Serialize;
use utoipa::ToSchema;

use super::index::Index;
use super::record::{Cause, Mark, What};
use super::wall::{moment, rfc3339};
use crate::audio::OPUS_RATE;
use crate::engine::{Sampling, WeightedPrompt};
use crate::units::ModelId;

/// What was asked of a stream, as far as it is kept.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StreamHistory)]
pub struct History {
    /// Media time that can be heard again, in seconds.
    pub from: f64,
    /// Media time up to which it can be heard again, in seconds.
    pub to: f64,
    /// Bytes of the journal.
    pub bytes: u64,
    /// What happened, in the order of media time.
    pub events: Vec<Happened>,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StreamHappened)]
pub struct Happened {
    /// Media time in seconds from which on it is heard.
    pub at: f64,
    /// When it was asked for or happened.
    #[schema(format = DateTime)]
    pub time: String,
    /// What it was.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can happen.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StreamHappening)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Happening {
    /// The stream was begun.
    Begin(InForce),
    /// Prompts or sampling were changed.
    Steer(InForce),
    /// Another model plays.
    Model(InForce),
    /// The music begins anew.
    Reset(InForce),
    /// Players play from here on at this time.
    Play,
    /// There is so much silence.
    Pause {
        /// Its length.
        seconds: f64,
    },
    /// The stream ended.
    End {
        /// Why, unless its length was reached.
        reason: Option<String>,
    },
}

/// All that is in force after a change.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StreamInForce)]
pub struct InForce {
    /// The blend.
    pub prompts: Vec<WeightedPrompt>,
    /// Sampling values.
    pub sampling: Sampling,
    /// The model.
    #[schema(value_type = String)]
    pub model: ModelId,
    /// Seconds over which the prompts replace those before.
    pub ramp: f32,
}

impl History {
    pub(super) fn of(index: &Index, kept: Range<u64>, bytes: u64) -> Self {
        let events = index.marks().filter_map(Happened::of).collect();
        Self { from: seconds(kept.start), to: seconds(kept.end), bytes, events }
    }
}

impl Happened {
    fn of(mark: &Mark) -> Option<Self> {
        let what = match &mark.what {
            What::Change(change) => {
                let change = change.clone();
                let (cause, prompts, sampling) = (change.cause, change.prompts, change.sampling);
                let all = InForce { prompts, sampling, model: change.model, ramp: change.ramp };
                match cause {
                    Cause::Begin => Happening::Begin(all),
                    Cause::Steer => Happening::Steer(all),
                    Cause::Model => Happening::Model(all),
                    Cause::Reset => Happening::Reset(all),
                }
            }
            What::Play => Happening::Play,
            What::Silence { frames } => Happening::Pause { seconds: seconds(*frames) },
            What::End { reason } => Happening::End { reason: reason.clone() },
            What::Run(_) | What::Fade { .. } => return None,
        };
        Some(Self { at: seconds(mark.at), time: rfc3339(moment(mark.wall)), what })
    }
}

fn seconds(frames: u64) -> f64 {
    frames as f64 / f64::from(OPUS_RATE)
}
