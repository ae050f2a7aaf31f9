//! A stream that waits for room on the machine before it is heard for the first time.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::super::event::Waiting;
use super::super::feed::Over;
use super::super::source::Source;
use super::super::{Idle, StationError};
use super::Task;
use crate::engine::{EngineError, InLine, Place};

/// A sensible wait for whoever cannot be told one, in seconds.
const RETRY_AFTER: u64 = 10;

/// A stream's wait for room.
pub(super) struct Queue {
    /// Its place in the engine's line. There is none while streams that were heard already wait:
    /// they come first.
    line: Option<(InLine, watch::Receiver<Place>)>,
    patience: Duration,
    until: Instant,
    /// Those who want to hear it.
    listeners: Vec<oneshot::Sender<Result<(), StationError>>>,
}

/// What happened in the line.
pub(super) enum Moved {
    Admitted(Result<(), EngineError>),
    /// It moved up.
    Up,
    TooLate,
}

impl Queue {
    pub(super) fn new(patience: Duration) -> Self {
        Self { line: None, patience, until: Instant::now() + patience, listeners: Vec::new() }
    }

    /// What the stream waits for.
    pub(super) fn waiting(&self) -> Waiting {
        let place = self.place();
        let estimate = place.and_then(|place| place.estimate).map(|seconds| seconds.ceil() as u64);
        Waiting::for_room(place.map(|place| place.before), estimate.unwrap_or(RETRY_AFTER).max(1))
    }

    fn place(&self) -> Option<Place> {
        self.line.as_ref().map(|(_, place)| *place.borrow())
    }

    fn too_late(&self) -> StationError {
        StationError::NoRoom {
            waited: self.patience.as_secs(),
            before: self.place().map_or(0, |place| place.before),
            retry_after: self.waiting().retry_after,
        }
    }

    /// Waits for something to happen. Cancel safe.
    pub(super) async fn moved(&mut self) -> Moved {
        let Some((line, place)) = &mut self.line else {
            sleep_until(self.until).await;
            return Moved::TooLate;
        };
        tokio::select! {
            biased;
            admitted = line.admitted() => Moved::Admitted(admitted),
            Ok(()) = place.changed() => Moved::Up,
            () = sleep_until(self.until) => Moved::TooLate,
        }
    }
}

impl<S: Source> Task<S> {
    /// Stands in the line, or leaves it to those who were heard already.
    pub(super) fn queue_up(&mut self, now: Instant) -> Result<(), Over> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        self.heard_at = now;
        if self.plan.idle == Idle::End && self.was_heard && queue.listeners.iter().all(oneshot::Sender::is_closed) {
            return Err(Over::Asked("nobody listens any more".into()));
        }
        if self.plan.place.queue(now).is_some() {
            queue.line = None;
        } else if queue.line.is_none() {
            let line = self.stream.remote().resume_when_free().map_err(|error| Over::Asked(error.to_string()))?;
            let place = line.place();
            queue.line = Some((line, place));
        }
        Ok(())
    }

    /// Somebody wants to hear the stream, and waits with it.
    pub(super) fn wait_for_room(
        &mut self,
        listener: oneshot::Sender<Result<(), StationError>>,
    ) -> Option<oneshot::Sender<Result<(), StationError>>> {
        let Some(queue) = &mut self.queue else { return Some(listener) };
        self.was_heard = true;
        queue.listeners.push(listener);
        None
    }

    /// The stream comes in, or gives up.
    pub(super) fn queue_moved(&mut self, moved: Moved) -> Result<(), Over> {
        let (answer, over) = match moved {
            Moved::Up => {
                self.stream.send_status();
                return Ok(());
            }
            Moved::Admitted(Ok(())) => {
                self.heard_at = Instant::now();
                self.engine_paused = false;
                self.plan.place.plays();
                (Ok(()), Ok(()))
            }
            Moved::Admitted(Err(error)) => (Err(error.clone().into()), Err(Over::Asked(error.to_string()))),
            Moved::TooLate => {
                let error = self.queue.as_ref().map_or(StationError::Waiting { retry_after: 1 }, Queue::too_late);
                (Err(error.clone()), Err(Over::Asked(error.to_string())))
            }
        };
        for listener in self.queue.take().into_iter().flat_map(|queue| queue.listeners) {
            super::answer(listener, answer.clone());
        }
        over
    }
}
