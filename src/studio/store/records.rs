//! What the table knows, as values.

use serde::Serialize;

use super::super::{AudioId, ClipId, Kind, Owner, Params, Render, SessionId};

/// A session at rest.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// How it came to be: `bang`, `continue`, `crop`, `restore`, `upload`, `generate`, `transform`,
    /// `loop`.
    pub origin: String,
    /// Parameters of the latest accepted request.
    pub params: Params,
    /// What is kept of them, if another version wrote it in a shape that is not known here; it
    /// stays as it is.
    pub unreadable: Option<String>,
    /// Kept whatever its age and size.
    pub pinned: bool,
    /// Input of the bang that began it.
    pub initial: Option<AudioId>,
    /// The input that the last successful continue, retry or transform used.
    pub input: Option<AudioId>,
    /// Its present sound.
    pub current: Option<AudioId>,
    /// Input of the last accepted transform.
    pub transform_input: Option<AudioId>,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub updated: i64,
}

impl SessionRecord {
    /// A new one without sound.
    pub fn new(id: SessionId, origin: &str, params: Params) -> Self {
        Self {
            id,
            origin: origin.into(),
            params,
            unreadable: None,
            pinned: false,
            initial: None,
            input: None,
            current: None,
            transform_input: None,
            // The store says when.
            created: 0,
            updated: 0,
        }
    }
}

/// How far a clip is, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipState {
    /// Waiting or running: after a restart it runs (again).
    Accepted,
    /// Its sound is there.
    Completed,
    /// It ended with an error.
    Failed,
    /// It was given up.
    Cancelled,
}

impl ClipState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        [Self::Accepted, Self::Completed, Self::Cancelled]
            .into_iter()
            .find(|s| s.name() == name)
            .unwrap_or(Self::Failed)
    }
}

/// A clip at rest.
#[derive(Debug, Clone)]
pub struct ClipRecord {
    /// Its name.
    pub id: ClipId,
    /// The session that it belongs to.
    pub session: SessionId,
    /// Who asked.
    pub owner: String,
    /// What is done.
    pub kind: Kind,
    /// How, if it is a piece.
    pub params: Params,
    /// Another version kept how in a shape that is not known here: it cannot be made.
    pub unreadable: bool,
    /// How, if it is a transform or a loop.
    pub render: Option<Render>,
    /// How far it is.
    pub state: ClipState,
    /// Why it failed.
    pub error: Option<String>,
    /// What somebody calls it.
    pub name: Option<String>,
    /// The clip of the same session whose result it works on.
    pub parent: Option<ClipId>,
    /// The sound that it works on.
    pub input: Option<AudioId>,
    /// The result.
    pub output: Option<AudioId>,
    /// Whether some client was handed the result.
    pub delivered: bool,
    /// How often its making was begun and did not end, because the server did.
    pub attempts: u32,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub finished: Option<i64>,
}

impl ClipRecord {
    /// A new one that is still to be made.
    pub fn new(session: SessionId, owner: Owner, kind: Kind) -> Self {
        Self {
            id: ClipId::random(),
            session,
            owner: owner.0,
            kind,
            params: Params::default(),
            unreadable: false,
            render: None,
            state: ClipState::Accepted,
            error: None,
            name: None,
            parent: None,
            input: None,
            output: None,
            delivered: false,
            attempts: 0,
            // The store says when.
            created: 0,
            finished: None,
        }
    }

    /// The words that it is made by.
    pub fn text(&self) -> &str {
        self.render.as_ref().map_or_else(|| self.params.text(), Render::text)
    }

    /// The seed that makes it again.
    pub fn seed(&self) -> Option<u64> {
        self.render.as_ref().map_or(self.params.seed, |render| Some(render.seed()))
    }
}
