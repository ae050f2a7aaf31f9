//! What the world is told of a stream: its state, and events as they happen.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use crate::engine::{Remedy, Sampling, WeightedPrompt};
use crate::units::ModelId;

/// What the world may know of a stream.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StreamInfo {
    /// Identity, unguessable.
    pub id: String,
    /// Name for people.
    pub name: Option<String>,
    /// Model that plays it.
    #[schema(value_type = String)]
    pub model: ModelId,
    /// The blend now in force.
    pub prompts: Vec<WeightedPrompt>,
    /// Sampling values now in force.
    pub sampling: Sampling,
    /// `queued` (it waits for room on the machine), `playing`, `buffering` (listeners wait for
    /// enough sound), `paused`, `idle` (paused because nobody listens), `ended`.
    pub state: StreamState,
    /// Why it ended, if it failed.
    pub reason: Option<String>,
    /// Listeners now connected.
    pub listeners: usize,
    /// Media seconds that have left the station.
    pub playhead: f64,
    /// Seconds generated ahead of the playhead.
    pub buffered: f64,
    /// While it is `buffering`: seconds that have to be generated ahead before it plays on.
    pub buffer_target: Option<f64>,
    /// Why nothing is generated for it at present: the machine is full, or has fallen behind.
    pub waiting: Option<Waiting>,
    /// Seconds of audio that this stream gets per second while it wants some, over the last
    /// seconds; below 1 it will run dry.
    pub realtime_factor: f64,
    /// Times that the stream's players had nothing to play.
    pub underruns: u64,
    /// Times that the music stood still and was taken back before it was heard.
    pub freezes: u64,
}

/// Life of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// It waits for room on the machine, and has not been heard yet.
    Queued,
    /// Sound is generated.
    Playing,
    /// Listeners wait until there is enough sound to go on without a stop.
    Buffering,
    /// Paused by request.
    Paused,
    /// Paused because nobody listens.
    Idle,
    /// Over.
    Ended,
}

/// What a stream waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// In words.
    pub reason: String,
    /// Seconds after which it is looked at again, or until there will be room as far as that is
    /// known.
    pub retry_after: u64,
    /// Streams before it, while it waits for room.
    pub before: Option<usize>,
}

impl Waiting {
    pub(super) fn for_others(retry_after: u64) -> Self {
        let reason = "The machine has fallen behind: streams that began earlier are made whole first.";
        Self { reason: reason.into(), retry_after, before: None }
    }

    pub(super) fn for_room(before: Option<usize>, retry_after: u64) -> Self {
        let reason = "The machine is full: the stream begins as soon as there is room.";
        Self { reason: reason.into(), retry_after, before }
    }
}

/// Pushed to SSE and WebSocket receivers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// What plays now, in words; takes effect at media time `at`.
    Title {
        /// The blend in words.
        title: String,
        /// Media time in seconds.
        at: f64,
    },
    /// A steer was accepted and is heard from media time `at`.
    Steer {
        /// Media time in seconds.
        at: f64,
        /// Epoch from there on.
        epoch: u32,
        /// The blend from there on.
        prompts: Vec<WeightedPrompt>,
    },
    /// The music stood still; before anybody heard it, it was taken back and goes on differently
    /// from media time `at`.
    Freeze {
        /// Media time in seconds.
        at: f64,
        /// What was done about it.
        remedy: Remedy,
    },
    /// About once a second, and whenever the state changes.
    Status(Box<StreamInfo>),
    /// The stream is over; nothing follows.
    End {
        /// Why.
        reason: String,
    },
}

/// Receives the events of a stream. One that is read too slowly misses events, never blocks anyone.
pub struct Events {
    first: VecDeque<Event>,
    later: Option<Receiver<Event>>,
}

impl Events {
    pub(super) fn new(first: impl Into<VecDeque<Event>>, later: Receiver<Event>) -> Self {
        Self { first: first.into(), later: Some(later) }
    }

    /// The next event; `None` after the stream's [`Event::End`]. Cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        if let Some(event) = self.first.pop_front() {
            return Some(self.note(event));
        }
        loop {
            match self.later.as_mut()?.recv().await {
                Ok(event) => return Some(self.note(event)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn note(&mut self, event: Event) -> Event {
        if matches!(event, Event::End { .. }) {
            self.later = None;
        }
        event
    }
}

/// A blend in words: `lofi piano`, or `lofi piano 70 % + rain 30 %`.
pub(super) fn title(prompts: &[WeightedPrompt]) -> String {
    let total: f32 = prompts.iter().map(|prompt| prompt.weight).sum();
    let named: Vec<_> = prompts.iter().filter(|prompt| prompt.weight > 0.0 && !prompt.text.trim().is_empty()).collect();
    match named[..] {
        [] => "no description".into(),
        [one] => one.text.trim().into(),
        _ => {
            let share =
                |prompt: &&WeightedPrompt| format!("{} {:.0} %", prompt.text.trim(), 100.0 * prompt.weight / total);
            named.iter().map(share).collect::<Vec<_>>().join(" + ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_names_the_blend() {
        let prompt = |text: &str, weight| WeightedPrompt { text: text.into(), weight };
        assert_eq!(title(&["lofi piano".into()]), "lofi piano");
        assert_eq!(title(&[prompt("a", 3.0), prompt("b", 1.0), prompt("c", 0.0)]), "a 75 % + b 25 %");
        assert_eq!(title(&[prompt(" ", 1.0)]), "no description");
    }
}
