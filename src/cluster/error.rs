//! The room's one error type: a sentence per variant.

use crate::station::StationError;

/// Seconds after which something that is away is asked for again.
const RETRY_AFTER: u64 = 2;

/// The cluster's one error type.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// The options that describe it cannot be used.
    #[error("{0}")]
    Options(String),
    /// The node's name is another's.
    #[error("Another node of the cluster is called `{0}`; start one of them with another --node.")]
    NameTaken(String),
    /// The node that is asked says nothing.
    #[error(
        "The node `{0}` does not answer; if it has died, what it had goes on elsewhere. Try again in {RETRY_AFTER} s."
    )]
    Silent(String),
    /// The node that is asked is not there.
    #[error("The node `{0}` is not there any more; what it played goes on elsewhere. Try again in {RETRY_AFTER} s.")]
    Gone(String),
    /// What a gone node has left of a session cannot be read now.
    #[error(
        "The node of this session is gone, and what is kept of it cannot be read at present; try again in {RETRY_AFTER} s."
    )]
    NotTaken,
    /// Nobody makes streams.
    #[error(
        "No node of the cluster has a model at present; start one without --role edge, or try again in {RETRY_AFTER} s."
    )]
    NoEngine,
    /// From the station.
    #[error(transparent)]
    Station(#[from] StationError),
    /// This node does not reach the others.
    #[error(
        "This node does not reach its cluster at present: no NATS server answers it. What it plays itself goes on; try \
         again in {RETRY_AFTER} s."
    )]
    Away,
}

impl ClusterError {
    /// Whether another node might do what this one refuses.
    pub(super) fn is_refusal(&self) -> bool {
        use crate::engine::EngineError::{Full, TooMany};
        match self {
            Self::Silent(_) | Self::Gone(_) => true,
            Self::Station(error) => matches!(
                error,
                StationError::Waiting { .. }
                    | StationError::NoRoom { .. }
                    | StationError::Engine(Full { .. } | TooMany { .. })
            ),
            _ => false,
        }
    }

    /// Seconds after which the same may succeed.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Options(_) | Self::Station(_) => None,
            Self::NameTaken(_) | Self::Silent(_) | Self::Gone(_) | Self::NotTaken | Self::NoEngine | Self::Away => {
                Some(RETRY_AFTER)
            }
        }
    }
}
