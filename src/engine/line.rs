//! Waiting for room on the machine, as whoever waits sees it.

use tokio::sync::{oneshot, watch};

use super::EngineError;
use super::command::stopped;

/// Where a voice stands in the line.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    /// Voices of its kind before it.
    pub before: usize,
    /// Seconds until it will come in, as far as voices with an end tell; `None` if it takes one
    /// that has none to leave.
    pub estimate: Option<f64>,
}

/// A voice that waits for room: it generates as soon as its turn comes. Dropping this leaves the
/// line.
pub struct InLine {
    admitted: oneshot::Receiver<Result<(), EngineError>>,
    place: watch::Receiver<Place>,
}

impl InLine {
    /// A place that others decide over: for stand-ins of a voice.
    pub fn new(admitted: oneshot::Receiver<Result<(), EngineError>>, place: watch::Receiver<Place>) -> Self {
        Self { admitted, place }
    }

    /// Where it stands, followed as it moves up.
    pub fn place(&self) -> watch::Receiver<Place> {
        self.place.clone()
    }

    /// Waits until the voice generates. Cancel safe: the place in the line is kept.
    ///
    /// # Errors
    /// [`EngineError::Gone`], [`EngineError::DeviceLost`].
    pub async fn admitted(&mut self) -> Result<(), EngineError> {
        (&mut self.admitted).await.map_err(|_| stopped())?
    }
}
