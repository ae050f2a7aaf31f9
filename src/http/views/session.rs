//! A session as clients see it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::links::Links;
use super::clip::file_urls;
use crate::studio::{ClipId, SessionRecord};

/// Sessions, the last used first.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct SessionList {
    pub sessions: Vec<SessionView>,
}

/// A producer's chain of clips.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(in crate::http) struct SessionView {
    id: String,
    /// How it came to be: `bang`, `continue`, `crop`, `restore`, `upload`, `generate`, `transform`,
    /// `loop`.
    origin: String,
    /// The model that was last asked for; `null` is the server's.
    model: Option<String>,
    prompt: String,
    /// Seconds of the sound that the next piece goes on from.
    prompt_seconds: f64,
    /// Kept whatever its age and size.
    pinned: bool,
    /// Unix seconds.
    created: i64,
    /// Unix seconds.
    updated: i64,
    has_sound: bool,
    can_undo: bool,
    /// Where to fetch its present sound, by format.
    urls: BTreeMap<String, String>,
    /// Its clips, the newest first; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    clips: Option<Vec<String>>,
    /// The clip whose result its present sound is, if one made it; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    clip: Option<Option<String>>,
    /// The clip that is being made; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    making: Option<Option<String>>,
}

impl SessionView {
    pub fn new(session: &SessionRecord, links: &Links) -> Self {
        let params = &session.params;
        Self {
            id: session.id.to_string(),
            origin: session.origin.clone(),
            model: params.model_name(),
            prompt: params.text().to_owned(),
            prompt_seconds: params.prompt_seconds,
            pinned: session.pinned,
            created: session.created,
            updated: session.updated,
            has_sound: session.current.is_some(),
            can_undo: session.input.is_some(),
            urls: file_urls(|end| links.to(&format!("/v1/sessions/{}/{end}", session.id))),
            clips: None,
            clip: None,
            making: None,
        }
    }

    /// With its clips, the present one, and the one that is being made, if there are such.
    pub fn with(self, clips: impl Iterator<Item = ClipId>, present: Option<ClipId>, making: Option<ClipId>) -> Self {
        let text = |id: ClipId| id.to_string();
        let (clip, making) = (Some(present.map(text)), Some(making.map(text)));
        Self { clips: Some(clips.map(text).collect()), clip, making, ..self }
    }
}
