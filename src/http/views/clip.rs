//! A clip as clients see it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::links::Links;
use super::super::sound_paths::Sounds;
use crate::audio::Format;
use crate::studio::{ClipSnapshot, Kind, Render, Status};

/// Clips, the newest first.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ClipList {
    pub clips: Vec<ClipView>,
}

/// A clip and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Clip)]
pub(in crate::http) struct ClipView {
    id: String,
    /// The session that it belongs to.
    session: String,
    /// The clip of the same session whose result it was made of.
    parent: Option<String>,
    /// What somebody called it.
    name: Option<String>,
    verb: Kind,
    status: &'static str,
    /// Percent done; 100 only once the sound is there.
    #[schema(maximum = 100)]
    progress: u64,
    /// The model that was asked for; `null` is the server's.
    model: Option<String>,
    prompt: String,
    /// Seconds of the sound that it goes on from; for pieces alone.
    prompt_seconds: Option<f64>,
    /// Seconds of the piece, the prompt included; for pieces alone.
    seconds: Option<f64>,
    seed: Option<u64>,
    /// For pieces alone.
    sampling: Option<ClipSampling>,
    /// Unix seconds.
    created: i64,
    /// Where to fetch it, by format, to watch it (`events`) and to hear it while it is made
    /// (`live`).
    urls: BTreeMap<String, String>,
    /// How a transform or a loop is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    settings: Option<Render>,
    /// Its place while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Place>,
    /// How far it is while it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Steps>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How a piece is sampled.
#[derive(Serialize, ToSchema)]
struct ClipSampling {
    temperature: f32,
    top_k: u32,
    guidance: f32,
}

/// A place among the clips that wait.
#[derive(Serialize, ToSchema)]
#[schema(as = ClipPlace)]
struct Place {
    /// 1 is next.
    position: usize,
    /// Clips that wait or are being made.
    total: usize,
    /// Estimated seconds until it starts.
    seconds: f64,
}

/// Steps of the decoder or of a solver.
#[derive(Serialize, ToSchema)]
#[schema(as = ClipSteps)]
struct Steps {
    done: u64,
    total: u64,
}

impl ClipView {
    pub fn new(ClipSnapshot { record, status }: &ClipSnapshot, links: &Links) -> Self {
        let id = record.id.to_string();
        let url = |end: &str| links.to(&format!("/v1/clips/{id}/{end}"));
        let mut urls = file_urls(url);
        urls.insert("events".to_owned(), url("events"));
        for format in Sounds::Previews.formats() {
            // The first one was the only one.
            let name = if format == Format::WAV { "live".to_owned() } else { format!("live_{format}") };
            urls.insert(name, url(&Sounds::Previews.segment(format)));
        }
        let (params, is_piece) = (&record.params, record.kind.is_piece());
        let sampling = ClipSampling { temperature: params.temperature, top_k: params.top_k, guidance: params.guidance };
        Self {
            session: record.session.to_string(),
            parent: record.parent.map(|id| id.to_string()),
            name: record.name.clone(),
            verb: record.kind,
            status: status.name(),
            progress: status.percent(),
            model: params.model_name().filter(|_| is_piece),
            prompt: record.text().to_owned(),
            prompt_seconds: is_piece.then_some(params.prompt_seconds),
            seconds: is_piece.then_some(params.seconds),
            seed: record.seed(),
            sampling: is_piece.then_some(sampling),
            created: record.created,
            settings: record.render.clone(),
            queue: match *status {
                Status::Queued { position, total, seconds } => Some(Place { position, total, seconds }),
                _ => None,
            },
            steps: match *status {
                Status::Running { steps, total } => Some(Steps { done: steps, total }),
                _ => None,
            },
            error: match status {
                Status::Failed(reason) => Some(reason.clone()),
                _ => None,
            },
            id,
            urls,
        }
    }
}

/// A finished sound in every format, by the format's name.
pub(super) fn file_urls(url: impl Fn(&str) -> String) -> BTreeMap<String, String> {
    Sounds::Files.formats().map(|format| (format.to_string(), url(&Sounds::Files.segment(format)))).collect()
}
