//! The room's one error type: a sentence per variant.

use std::ops::Range;
use std::sync::Arc;

use crate::audio::{AudioError, Format, OPUS_RATE, list};
use crate::engine::EngineError;

/// The station's one error type.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StationError {
    /// No such stream.
    #[error("There is no stream `{0}`; GET /v1/streams lists those that exist.")]
    NotFound(String),
    /// The name is in use.
    #[error("There is already a stream named `{0}`; choose another name or PATCH that one.")]
    NameTaken(String),
    /// A limit is reached.
    #[error("There are already {limit} {what}; try again in {retry_after} s or raise the limit with {option}.")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// A sensible wait in seconds.
        retry_after: u64,
        /// Command line option that raises it.
        option: &'static str,
    },
    /// The machine has fallen behind: this stream would be one of those that wait for the others.
    #[error(
        "The machine has fallen behind: streams that began earlier are made whole first. Try again in {retry_after} s."
    )]
    Waiting {
        /// A sensible wait in seconds.
        retry_after: u64,
    },
    /// The stream has waited for room in vain.
    #[error("No room came free within {waited} s; {before} streams were before it. Try again in {retry_after} s.")]
    NoRoom {
        /// How long it waited, in seconds.
        waited: u64,
        /// Streams that were before it at the end.
        before: usize,
        /// A sensible wait in seconds.
        retry_after: u64,
    },
    /// The stream is over.
    #[error("The stream has ended: {0}.")]
    Ended(String),
    /// Streams are not sent in this format, or not by this build.
    #[error("{}", not_sent(*.0))]
    NotSent(Format),
    /// That part of the stream is not in its journal.
    #[error("The journal holds the stream from {from:.2} to {to:.2} s of media time; ask for a part of that.")]
    NotKept {
        /// Media time in seconds.
        from: f64,
        /// Media time in seconds.
        to: f64,
    },
    /// The journal cannot be read.
    #[error("The journal cannot be used: {0}.")]
    Journal(String),
    /// Sound of the journal cannot be processed.
    #[error(transparent)]
    Audio(#[from] Arc<AudioError>),
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<AudioError> for StationError {
    fn from(error: AudioError) -> Self {
        Self::Audio(Arc::new(error))
    }
}

impl StationError {
    /// Of a journal that holds so many frames of 48 kHz.
    pub(super) fn not_kept(kept: Range<u64>) -> Self {
        let seconds = |frames: u64| frames as f64 / f64::from(OPUS_RATE);
        Self::NotKept { from: seconds(kept.start), to: seconds(kept.end) }
    }
}

fn not_sent(format: Format) -> String {
    let sent = list(Format::all_live().filter(|format| format.missing_feature().is_none()), "");
    match format.missing_feature() {
        None => format!("Streams are not sent as {format}; ask for format={sent}."),
        Some(feature) => {
            let name = format.extension().to_uppercase();
            format!("This build has no {name} encoder; ask for format={sent}, or build with the feature `{feature}`.")
        }
    }
}
