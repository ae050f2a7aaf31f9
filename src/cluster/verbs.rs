//! What one node asks of another about a stream that the other makes, and what it answers.

use serde::{Deserialize, Serialize};

use crate::audio::Format;
use crate::engine::{Ack, EngineError, Steer};
use crate::station::{Facts, Listen, StationError, StreamSpec, Wish};
use crate::units::ModelId;

/// A question about a stream.
#[derive(Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) id: String,
    pub(super) what: What,
    /// What it is called where doing it twice would be something else than doing it once.
    #[serde(default)]
    pub(super) call: Option<String>,
}

impl Ask {
    pub(super) fn new(id: &str, what: What) -> Self {
        let may_be_done_twice = matches!(what, What::Want { .. } | What::Hello);
        let call = (!may_be_done_twice).then(|| uuid::Uuid::new_v4().simple().to_string());
        Self { id: id.to_owned(), what, call }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) enum What {
    /// Its pages in these ways, for this node.
    Want {
        node: String,
        wishes: Vec<Wanted>,
    },
    Wake,
    Steer(Steer),
    Reset,
    Model(ModelId),
    Pause,
    Resume,
    /// A stream that is none yet.
    Begin(Box<StreamSpec>),
    /// Whether it is there.
    Hello,
    /// To go on with it where its owner of this generation is gone, or hands it over; its listeners
    /// play this frame.
    TakeOver {
        generation: u64,
        plays: Option<u64>,
        hands_over: bool,
    },
}

/// One way to listen, and how many do.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Wanted {
    format: String,
    kbps: u32,
    low_latency: bool,
    pub(super) listeners: usize,
    /// What was sent lately is wanted too.
    pub(super) is_new: bool,
    /// From here on, if something was heard before.
    #[serde(default)]
    pub(super) from: Option<u64>,
}

impl Wanted {
    pub(super) fn of(wish: &Wish, is_new: bool) -> Self {
        let Wish { listen: Listen { format, kbps, low_latency }, listeners, reached, misses } = *wish;
        let from = reached.map(|reached| reached.end);
        Self { format: format.extension().into(), kbps, low_latency, listeners, is_new: is_new || misses, from }
    }

    /// `None` of a format that this version does not know.
    pub(super) fn listen(&self) -> Option<Listen> {
        let format = Format::of_extension(&self.format)?;
        Some(Listen { format, kbps: self.kbps, low_latency: self.low_latency })
    }
}

/// The end of the subject under which pages of one way to listen are sent.
pub(super) fn variant(listen: Listen) -> String {
    let Listen { format, kbps, low_latency } = listen;
    format!("{format}-{kbps}-{}", if low_latency { "low" } else { "normal" })
}

/// What is answered when it can be done.
#[derive(Serialize, Deserialize)]
pub(super) enum Done {
    Facts { facts: Box<Facts>, generation: u64 },
    Ack(Ack),
    Begun { id: String },
    Nothing,
}

/// Why it cannot be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Refusal {
    NotFound,
    /// Its owner is there.
    Lives,
    Ended(String),
    Waiting {
        retry_after: u64,
    },
    NoRoom {
        waited: u64,
        before: usize,
        retry_after: u64,
    },
    Engine(EngineError),
}

impl From<StationError> for Refusal {
    fn from(error: StationError) -> Self {
        match error {
            StationError::NotFound(_) => Self::NotFound,
            StationError::Ended(reason) => Self::Ended(reason),
            StationError::Waiting { retry_after } => Self::Waiting { retry_after },
            StationError::NoRoom { waited, before, retry_after } => Self::NoRoom { waited, before, retry_after },
            StationError::Engine(error) => Self::Engine(error),
            other => Self::Engine(EngineError::Failed(other.to_string().trim_end_matches('.').into())),
        }
    }
}

impl Refusal {
    pub(super) fn of_station(self, id: &str) -> StationError {
        match self {
            Self::NotFound => StationError::NotFound(id.to_owned()),
            Self::Lives => StationError::Waiting { retry_after: 1 },
            Self::Ended(reason) => StationError::Ended(reason),
            Self::Waiting { retry_after } => StationError::Waiting { retry_after },
            Self::NoRoom { waited, before, retry_after } => StationError::NoRoom { waited, before, retry_after },
            Self::Engine(error) => StationError::Engine(error),
        }
    }

    pub(super) fn of_engine(self) -> EngineError {
        match self {
            Self::Engine(error) => error,
            Self::Ended(reason) => EngineError::Gone(reason),
            Self::NotFound => EngineError::Gone("it is not there any more".into()),
            other => EngineError::Failed(other.of_station("").to_string().trim_end_matches('.').into()),
        }
    }
}

pub(super) type Reply = Result<Done, Refusal>;
