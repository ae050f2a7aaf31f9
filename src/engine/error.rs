//! The engine's one error type: a sentence per variant.

use serde::{Deserialize, Serialize};

use crate::units::ModelId;

/// Why the engine could not do what was asked.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
pub enum EngineError {
    /// A value is out of bounds; the text says which and what to send instead.
    #[error("{0}")]
    Invalid(String),
    /// The machine cannot generate one more voice in real time.
    #[error(
        "The machine is full: {voices} voices already need {load:.0} % of real time. Try again in {retry_after} s."
    )]
    Full {
        /// Voices now generating.
        voices: usize,
        /// Predicted load with one more voice, in percent of the step budget.
        load: f64,
        /// A sensible wait in seconds.
        retry_after: u64,
    },
    /// The configured number of voices is reached.
    #[error("{limit} voices are in use; try again in {retry_after} s.")]
    TooMany {
        /// The limit.
        limit: usize,
        /// A sensible wait in seconds.
        retry_after: u64,
    },
    /// No such model is loaded.
    #[error("The model `{0}` is not loaded.")]
    UnknownModel(ModelId),
    /// The voice has ended already.
    #[error("This voice has ended: {0}.")]
    Gone(String),
    /// Something could not be made, through no fault of whoever asked; a sentence without its full
    /// stop.
    #[error("{0}.")]
    Failed(String),
    /// The device failed; nothing more is generated until the server is started again.
    #[error("The device was lost: {0}. Restart the server.")]
    DeviceLost(String),
}
