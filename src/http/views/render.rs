//! Transforms and loops as clients of their own routes see them; they are clips too.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::links::Links;
use crate::studio::{Accepted, ClipRecord, ClipSnapshot, Render, Shape, Status};

/// Presets of transforms.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct PresetList {
    pub presets: Vec<PresetView>,
}

/// What a recording can become, by name.
#[derive(Serialize, ToSchema)]
#[schema(as = Preset)]
pub(in crate::http) struct PresetView {
    pub name: String,
    pub prompt: String,
    /// Where the way back ends; higher stays closer to the recording.
    pub flowstep: f64,
    /// Evaluations of the way forth.
    pub steps: usize,
}

/// A transform or a loop that was taken on.
#[derive(Serialize, ToSchema)]
#[schema(as = RenderAccepted)]
pub(in crate::http) struct AcceptedRender {
    id: String,
    /// Where to ask how far it is.
    pub href: String,
    /// Where its sound will be.
    audio: String,
    /// Server-sent events, as of any clip.
    events: String,
    session: String,
    seed: Option<u64>,
}

impl AcceptedRender {
    pub fn new(kind: &str, taken: &Accepted, record: &ClipRecord, links: &Links) -> Self {
        let id = taken.clip;
        let href = links.to(&format!("/v1/{kind}/{id}"));
        Self {
            id: id.to_string(),
            audio: format!("{href}/audio.wav"),
            href,
            events: links.to(&format!("/v1/clips/{id}/events")),
            session: taken.session.to_string(),
            seed: record.seed(),
        }
    }
}

/// A transform or a loop and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Render)]
pub(in crate::http) struct RenderView {
    id: String,
    state: RenderState,
    session: String,
    seed: Option<u64>,
    /// How it is made.
    #[schema(value_type = Object)]
    settings: serde_json::Value,
    /// Its place while it waits; 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    /// Steps made.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    /// Steps in all; 0 while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    result: Option<RenderResult>,
}

/// Where a transform or a loop is in its life.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RenderState {
    Working,
    Done,
    Failed,
    Cancelled,
}

/// What a finished transform or loop is.
#[derive(Serialize, ToSchema)]
struct RenderResult {
    /// Samples per channel.
    frames: u64,
    /// Hz.
    sample_rate: u32,
    channels: u16,
    /// Where its sound is.
    audio: String,
}

impl RenderView {
    /// `shape` is that of the finished sound.
    pub fn new(kind: &str, ClipSnapshot { record, status }: ClipSnapshot, shape: Option<Shape>, links: &Links) -> Self {
        let settings = match &record.render {
            Some(Render::Transform(params)) => serde_json::to_value(params),
            Some(Render::Loop(params)) => serde_json::to_value(params),
            None => Ok(serde_json::Value::Null),
        };
        let (position, done, of) = match status {
            Status::Queued { position, .. } => (Some(position), None, None),
            Status::Starting | Status::Loading => (None, Some(0), Some(0)),
            Status::Running { steps, total } => (None, Some(steps), Some(total)),
            _ => (None, None, None),
        };
        let result = shape.map(|shape| RenderResult {
            frames: shape.frames,
            sample_rate: shape.rate.0,
            channels: shape.channels,
            audio: links.to(&format!("/v1/{kind}/{}/audio.wav", record.id)),
        });
        let (state, error) = match status {
            Status::Completed => (RenderState::Done, None),
            Status::Cancelled => (RenderState::Cancelled, None),
            Status::Failed(reason) => (RenderState::Failed, Some(reason)),
            _ => (RenderState::Working, None),
        };
        Self {
            id: record.id.to_string(),
            state,
            session: record.session.to_string(),
            seed: record.seed(),
            settings: settings.unwrap_or_default(),
            position,
            done,
            of,
            error,
            result,
        }
    }
}
