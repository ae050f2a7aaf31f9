//! The room's one error type: a sentence per variant.

use crate::audio::AudioError;
use crate::budget::Exhausted;
use crate::engine::{EngineError, ResidentError};
use crate::units::ModelId;

/// Why the studio could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StudioError {
    /// A value is out of bounds; the text says which and what to send instead.
    #[error("{0}")]
    Invalid(String),
    /// A number is out of bounds.
    #[error("`{field}` is {value} but must lie between {least} and {most}.")]
    OutOfBounds {
        /// Its name in the native API.
        field: &'static str,
        /// What was asked.
        value: f64,
        /// The least that is possible.
        least: f64,
        /// The most that is possible.
        most: f64,
    },
    /// The upload is no sound that can be used.
    #[error("Failed to load audio: {0}")]
    Audio(String),
    /// Too much is asked for at the same time.
    #[error("{0}")]
    Crowded(String),
    /// No such session.
    #[error("There is no session `{0}`, or it was kept for its time and then removed.")]
    NoSession(String),
    /// No such clip.
    #[error("There is no clip `{0}`, or it was kept for its time and then removed.")]
    NoClip(String),
    /// The clip is not complete, or was given up.
    #[error("The clip `{0}` has no sound yet, or was given up.")]
    NotReady(String),
    /// One generation per session.
    #[error("A piece of this session is being made already; wait for it, or cancel it.")]
    Busy,
    /// One transform per session.
    #[error("A sound of this session is being transformed already; wait for it, or cancel it.")]
    TransformBusy,
    /// Nothing was continued in this session yet.
    #[error("Nothing was continued in this session yet, so there is nothing to retry; continue it first.")]
    NoInput,
    /// Nothing to go back to.
    #[error("This session has no earlier sound to go back to.")]
    NothingToUndo,
    /// The session holds no sound.
    #[error("There is no sound to work on yet; send one.")]
    NoAudio,
    /// The queue's bound.
    #[error("{queued} clips are waiting already; try again in {retry_after} s.")]
    QueueFull {
        /// Jobs that wait.
        queued: usize,
        /// A sensible wait in seconds.
        retry_after: u64,
    },
    /// One client's bound.
    #[error("You have {limit} clips waiting already; wait for one of them, or cancel it.")]
    TooManyOfYours {
        /// The bound.
        limit: usize,
        /// A sensible wait in seconds.
        retry_after: u64,
    },
    /// It is not for this client to name.
    #[error(
        "`{0}` is not among the models that clients of this server may name: those that are loaded, offered or on its \
         disk. Its operator can allow more with --allow-models."
    )]
    NotYours(String),
    /// The model cannot be had.
    #[error("{0}")]
    Model(String),
    /// No model of this kind was named when the server was started.
    #[error("{0}")]
    Absent(&'static str),
    /// The memory for requests is in use.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The folder or the database failed.
    #[error("The server cannot keep its data: {0}")]
    Store(String),
    /// The disk is full, or what may be kept is.
    #[error("There is no room for it: {0}")]
    NoRoom(String),
    /// The voice ended early, or a bug.
    #[error("The music could not be made: {0}.")]
    Broken(String),
    /// A clip that was waited for has failed, for this reason.
    #[error("{0}")]
    Failed(String),
    /// Another process has gone on with the session.
    #[error("This session goes on at another node of the cluster; ask again.")]
    Elsewhere,
    /// It was cancelled.
    #[error("The clip was cancelled.")]
    Cancelled,
}

impl From<AudioError> for StudioError {
    fn from(error: AudioError) -> Self {
        match error {
            AudioError::Busy => Self::Crowded(error.to_string()),
            AudioError::NoDecoder(reason) => Self::Broken(reason),
            error => Self::Audio(error.to_string()),
        }
    }
}

impl From<ResidentError> for StudioError {
    fn from(error: ResidentError) -> Self {
        match error {
            ResidentError::NoLoader(name) => EngineError::UnknownModel(ModelId(name)).into(),
            ResidentError::Failed(sentence) => Self::Model(sentence),
        }
    }
}

impl From<rusqlite::Error> for StudioError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Self::NoRoom("the disk of the server is full.".into());
        }
        // Whoever asked learns nothing of the server's folders.
        tracing::error!("the table of sessions and clips: {error}");
        Self::Store("its table of sessions and clips failed; its log says why.".into())
    }
}
