//! What sockets are told without asking: places in the queue, progress, results, failures.
//!
//! A request's own answer comes first: while a request for a session is being taken on, what
//! happens to the session is held back. Progress is thinned out as the original does it; the last
//! one before a result is never dropped.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use socketioxide::extract::SocketRef;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::super::base64;
use super::asker::Asker;
use super::socket::Gary;
use super::texts;
use crate::studio::{
    AudioId, ClipId, ClipRecord, ClipState, ClipTask, Event, Kind, Lane, Render, SessionId, Status, Studio, StudioError,
};

/// Time between two progress events of a session, alone and when several clips are made.
const PACE: Duration = Duration::from_secs(1);
const SLOW_PACE: Duration = Duration::from_secs(2);
/// A session's pace is forgotten after so long.
const FORGET: Duration = Duration::from_secs(3600);
/// Base64 text of a transform at most, as in the original.
const MOST: u64 = 128 << 20;
/// Percent from which on no report follows but the end.
const LAST: u64 = 95;

/// What is held back, and how it comes out again.
pub(super) struct Push {
    held: Mutex<HashMap<SessionId, Held>>,
    /// Bounded by what the studio's queue holds.
    release: UnboundedSender<Event>,
}

#[derive(Default)]
struct Held {
    by: usize,
    events: Vec<Event>,
}

/// While it lives, events of its session wait.
pub(super) struct Hold<'a> {
    push: &'a Push,
    session: SessionId,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = self.push.held();
        let Some(entry) = held.get_mut(&self.session) else { return };
        entry.by -= 1;
        if entry.by == 0
            && let Some(Held { events, .. }) = held.remove(&self.session)
        {
            for event in events {
                // At the end of the server nobody listens any more.
                let _ = self.push.release.send(event);
            }
        }
    }
}

impl Push {
    pub(super) fn new() -> (Self, UnboundedReceiver<Event>) {
        #[expect(clippy::disallowed_methods, reason = "what was held is bounded by the studio's events")]
        let (release, inbox) = unbounded_channel();
        (Self { held: Mutex::default(), release }, inbox)
    }

    pub(super) fn hold(&self, session: &SessionId) -> Hold<'_> {
        self.held().entry(session.clone()).or_default().by += 1;
        Hold { push: self, session: session.clone() }
    }

    /// The event, unless it has to wait.
    fn passes(&self, event: Event) -> Option<Event> {
        match self.held().get_mut(&event.clip.session) {
            Some(held) => {
                held.events.push(event);
                None
            }
            None => Some(event),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<SessionId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells rooms what happens to their sessions until the server stops; then closes all sockets.
pub(super) async fn run(gary: Gary, mut inbox: UnboundedReceiver<Event>) {
    if let Ok(studio) = gary.studio() {
        let mut events = studio.events();
        let mut pace = Pace::default();
        loop {
            let event = tokio::select! {
                biased;
                () = gary.stopping.cancelled() => break,
                // What was held back is older than anything new.
                Some(event) = inbox.recv() => Some(event),
                event = events.recv() => match event {
                    Ok(event) => gary.push.passes(event),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "sockets were told too late; they can ask for results");
                        None
                    }
                    Err(RecvError::Closed) => break,
                },
            };
            if let Some(event) = event {
                tell(&gary, studio, &mut pace, event).await;
            }
        }
    } else {
        gary.stopping.cancelled().await;
    }
    gary.close().await;
}

async fn tell(gary: &Gary, studio: &Studio, pace: &mut Pace, Event { clip, status }: Event) {
    let session = &clip.session;
    if !gary.is_heard(session) {
        return;
    }
    match &status {
        Status::Queued { .. } | Status::Starting | Status::Loading => {
            let queue = texts::queue_status(session, clip.id, &status, studio.load(clip.kind.lane()));
            gary.tell(None, session, "queue_status", &queue).await;
        }
        Status::Running { steps: 0, .. } => {}
        Status::Running { .. } => {
            // Of a transform every step is told, as in the original.
            let told = clip.kind == Kind::Transform;
            if told || pace.allows(session, status.percent(), studio.load(clip.kind.lane()).1) {
                let update = json!({ "progress": status.percent(), "session_id": session });
                gary.tell(None, session, "progress_update", &update).await;
            }
        }
        Status::Completed | Status::Failed(_) | Status::Cancelled => {
            pace.forget(session);
            match studio.store().clip(clip.id).await {
                Ok(clip) => deliver(gary, studio, None, &clip).await,
                Err(error) => tracing::debug!(%error, "a clip is gone"),
            }
        }
    }
}

/// Tells a room that is heard again where its session stands: what is being made, or a result that
/// nobody was handed.
pub(super) async fn catch_up(gary: &Gary, session: &SessionId) {
    let Ok(studio) = gary.studio() else { return };
    for task in Lane::ALL.into_iter().filter_map(|lane| studio.task_in(session, lane)) {
        let (event, told) = standing(studio, session, &task);
        gary.tell(None, session, event, &told).await;
    }
    if let Ok(Some(clip)) = studio.undelivered(session).await {
        deliver(gary, studio, None, &clip).await;
    }
}

/// How far a clip is, as an event.
pub(super) fn standing(studio: &Studio, session: &SessionId, task: &ClipTask) -> (&'static str, Value) {
    let (status, lane) = (task.status().borrow().clone(), task.record().kind.lane());
    match status {
        Status::Running { .. } => ("progress_update", json!({ "progress": status.percent(), "session_id": session })),
        status => ("queue_status", texts::queue_status(session, task.record().id, &status, studio.load(lane))),
    }
}

/// Hands a result, or the news that there is none, to the room of its session.
pub(super) async fn deliver(gary: &Gary, studio: &Studio, asker: Option<&Asker<'_>>, clip: &ClipRecord) {
    let session = &clip.session;
    let is_here = asker.is_some() || gary.is_in_a_room(session);
    // Whether anybody is at the nodes that follow it they have to say.
    let ends = (!is_here).then_some(clip.id);
    let mut code = None;
    let failure = match clip.state {
        ClipState::Completed => match large(studio, clip).await {
            Ok(true) => {
                code = Some("DATA_TOO_LARGE");
                Some("The transformed audio is too large for one message; fetch it by HTTP.".to_owned())
            }
            Ok(false) => {
                let Some(audio) = clip.output else { return };
                let variation = match &clip.render {
                    Some(Render::Transform(params)) => {
                        let whole = json!({ "progress": 100, "session_id": session });
                        gary.tell(asker, session, "progress_update", &whole).await;
                        Some(&params.variation)
                    }
                    _ => None,
                };
                let sent = Sounding { audio, session, ends, variation: variation.map(|name| json!(name)) };
                if let Err(error) = sent.send(gary, asker, texts::result_event(clip.kind)).await {
                    // It is handed over when the session is asked for again.
                    let error = json!({ "message": error.to_string(), "session_id": session });
                    gary.tell(asker, session, "error", &error).await;
                    return;
                }
                None
            }
            Err(error) => Some(error.to_string()),
        },
        ClipState::Failed => {
            Some(texts::failure(clip.kind, clip.error.as_deref().unwrap_or("the reason is not known")))
        }
        ClipState::Cancelled => Some("The clip was cancelled.".to_owned()),
        ClipState::Accepted => return,
    };
    if let Some(message) = failure {
        let mut error = json!({ "message": message, "session_id": session });
        if let Some(code) = code {
            error["code"] = json!(code);
        }
        gary.emit(session, "error", &error).await;
        gary.tell_far(asker, session, ("error", ends), || error.clone());
    }
    if is_here {
        handed_over(studio, clip.id).await;
    }
}

/// Whoever waited for how a clip ended knows it.
pub(super) async fn handed_over(studio: &Studio, clip: ClipId) {
    if let Err(error) = studio.delivered(clip).await {
        tracing::warn!(%error, "that a result was handed over could not be written");
    }
}

/// Whether a result is more than clients take in one message.
async fn large(studio: &Studio, clip: &ClipRecord) -> Result<bool, StudioError> {
    let output = clip.output.ok_or_else(|| StudioError::NotReady(clip.id.to_string()))?;
    let bytes = studio.store().sound(output).await?.bytes;
    Ok(clip.kind == Kind::Transform && bytes / 3 * 4 > MOST)
}

/// A stored sound on its way to the room of its session.
pub(super) struct Sounding<'a> {
    pub(super) audio: AudioId,
    pub(super) session: &'a SessionId,
    /// The clip whose end it is, if only nodes that follow the session may have somebody who hears
    /// it.
    pub(super) ends: Option<ClipId>,
    pub(super) variation: Option<Value>,
}

#[derive(Serialize)]
struct Message<'a> {
    audio_data: String,
    session_id: &'a SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    variation: Option<Value>,
}

impl Sounding<'_> {
    /// Sends it, once there is memory for it.
    pub(super) async fn send(self, gary: &Gary, asker: Option<&Asker<'_>>, event: &str) -> Result<(), StudioError> {
        let studio = gary.studio()?;
        let bytes = studio.store().sound(self.audio).await?.bytes;
        // The file and its text; the message takes its own.
        let _share = gary.members.budget.take(bytes + bytes / 3 * 4).await?;
        let file = studio.store().read(self.audio).await?;
        let text = tokio::task::spawn_blocking(move || base64::encode(&file)).await;
        let audio_data = text.map_err(|error| StudioError::Broken(error.to_string()))?;
        let length = audio_data.len() as u64;
        let message = Message { audio_data, session_id: self.session, variation: self.variation };
        gary.send(self.session, event, (&message, length)).await?;
        gary.tell_far(asker, self.session, (event, self.ends), || serde_json::to_value(&message).unwrap_or_default());
        Ok(())
    }
}

/// To one socket.
pub(super) fn to_one(socket: &SocketRef, event: &str, data: &Value) {
    if let Err(error) = socket.emit(event, data) {
        tracing::debug!(%error, event, "a socket was not told");
    }
}

/// When each session was last told of progress.
#[derive(Default)]
struct Pace(HashMap<SessionId, Instant>);

impl Pace {
    fn allows(&mut self, session: &SessionId, percent: u64, running: usize) -> bool {
        let pace = if running > 1 { SLOW_PACE } else { PACE };
        let now = Instant::now();
        self.0.retain(|_, told| now.duration_since(*told) < FORGET);
        if percent <= LAST && self.0.get(session).is_some_and(|told| now.duration_since(*told) < pace) {
            return false;
        }
        self.0.insert(session.clone(), now);
        true
    }

    fn forget(&mut self, session: &SessionId) {
        self.0.remove(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_thinned_out_but_not_the_last() {
        let (mut pace, session) = (Pace::default(), SessionId::random());
        assert!(pace.allows(&session, 4, 1));
        assert!(!pace.allows(&session, 8, 1));
        assert!(pace.allows(&session, 99, 1));
        assert!(pace.allows(&SessionId::random(), 8, 1));
        pace.forget(&session);
        assert!(pace.allows(&session, 4, 1));
    }
}
