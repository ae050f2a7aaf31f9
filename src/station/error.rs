//! The room's one error type: a sentence per variant.

use crate::audio::{Format, list};
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
    /// The stream is over.
    #[error("The stream has ended: {0}.")]
    Ended(String),
    /// Streams are not sent in this format, or not by this build.
    #[error("{}", not_sent(*.0))]
    NotSent(Format),
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
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
