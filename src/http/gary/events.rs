//! What every event does: parse, ask the studio, answer.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use socketioxide::extract::SocketRef;

use super::super::base64;
use super::super::client::Client;
use super::chunks::CHUNK;
use super::payload::{Parsed, Payload};
use super::push::{Sounding, to_one, to_room};
use super::socket::Gary;
use super::texts;
use crate::studio::{ClipTask, Kind, Lane, Owner, SessionId, Status, StudioError};

/// Events that are answered.
pub(super) const EVENTS: &[&str] = &[
    "process_audio_request",
    "continue_music_request",
    "retry_music_request",
    "transform_audio_request",
    "undo_transform_request",
    "update_cropped_audio",
    "cleanup_session_request",
    "restore_processed_audio",
    "begin_restore_audio",
    "audio_chunk",
    "verify_session",
    "request_progress_status",
];

/// Bytes of sound that one `restore_processed_audio` may carry: 96 MiB of base64 text.
const RESTORE: usize = 72 << 20;

/// Why a request is not done: the `error` event.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) code: Option<&'static str>,
    /// The session that is meant; its whole room hears of it.
    pub(super) session: Option<SessionId>,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self { message, code: None, session: None }
    }
}

/// Handles one event of a socket.
pub(super) async fn handle(gary: &Gary, socket: &SocketRef, event: &str, data: Option<Parsed>) -> Result<(), Refusal> {
    // A beginning has no content, and clients send anything.
    let mut payload = match data {
        _ if event == "begin_restore_audio" => Payload::default(),
        Some(Parsed(payload)) => payload?,
        None => return Err("Unsupported data type: nothing; send an object.".to_owned().into()),
    };
    // It is in memory already: whoever had to wait would only hold it longer.
    let share = gary.members.budget.try_take(payload.bytes() as u64).map_err(|error| error.to_string())?;
    payload.hold(share);
    let session = payload.session()?;
    let fresh = event == "process_audio_request";
    if let Some(session) = session.as_ref().filter(|_| !fresh) {
        gary.members.join(socket, session);
    }
    let mut call = Call { gary, socket, payload, session: session.clone() };
    let done = match event {
        "process_audio_request" => call.bang().await,
        "continue_music_request" => call.extend().await,
        "retry_music_request" => call.retry().await,
        "transform_audio_request" => call.transform().await,
        "undo_transform_request" => call.undo().await,
        "update_cropped_audio" => call.crop().await,
        "cleanup_session_request" => call.clean_up().await,
        "restore_processed_audio" => call.restore().await,
        "begin_restore_audio" => call.begin_chunks(),
        "audio_chunk" => call.chunk().await,
        "verify_session" => call.verify().await,
        _ => call.progress().await,
    };
    done.map_err(|refusal| Refusal { session: refusal.session.or(session.filter(|_| !fresh)), ..refusal })
}

struct Call<'a> {
    gary: &'a Gary,
    socket: &'a SocketRef,
    payload: Payload,
    session: Option<SessionId>,
}

type Done = Result<(), Refusal>;

/// The sentence of an error, as the original begins it.
fn refused(kind: Kind, error: &StudioError) -> Refusal {
    match error {
        StudioError::Audio(_) => texts::failure(kind, &error.to_string()).into(),
        StudioError::NoAudio if kind == Kind::Transform => {
            "No audio data available for transformation".to_owned().into()
        }
        error => texts::no_transform(error).into(),
    }
}

impl Call<'_> {
    fn owner(&self) -> Owner {
        let client = self.socket.req_parts().extensions.get::<Client>();
        client.map_or_else(|| Owner(self.socket.id.to_string()), Client::owner)
    }

    fn known(&self) -> Result<&SessionId, Refusal> {
        self.session.as_ref().ok_or_else(|| "session_id: Field required.".to_owned().into())
    }

    fn audio(&self) -> Result<Bytes, Refusal> {
        self.payload.audio()?.ok_or_else(|| "Missing audio_data".to_owned().into())
    }

    /// Whatever session is sent, a bang begins a new one.
    async fn bang(&self) -> Done {
        self.payload.require(&["audio_data", "model_name", "prompt_duration"])?;
        let (request, audio) = (self.payload.clip_request()?, self.audio()?);
        let session = SessionId::random();
        self.gary.members.join(self.socket, &session);
        let held = self.gary.push.hold(&session);
        let accepted = self.gary.studio.bang(self.owner(), Some(session.clone()), request, audio).await;
        if let Err(error) = accepted {
            self.socket.leave(session.to_string());
            return Err(refused(Kind::Bang, &error));
        }
        to_one(self.socket, "process_audio_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    async fn extend(&self) -> Done {
        let (request, audio) = (self.payload.clip_request()?, self.payload.audio()?);
        let session = match (&self.session, &audio) {
            (Some(session), _) => session.clone(),
            (None, Some(_)) => SessionId::random(),
            (None, None) => {
                return Err("No session ID provided and no audio data to create session".to_owned().into());
            }
        };
        self.gary.members.join(self.socket, &session);
        let held = self.gary.push.hold(&session);
        let accepted = self.gary.studio.extend(self.owner(), Some(session.clone()), request, audio).await;
        if let Err(error) = accepted {
            if self.session.is_none() {
                self.socket.leave(session.to_string());
            }
            return Err(refused(Kind::Continue, &error));
        }
        to_one(self.socket, "continue_music_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    async fn retry(&self) -> Done {
        let (session, request) = (self.known()?, self.payload.clip_request()?);
        let held = self.gary.push.hold(session);
        let accepted = self.gary.studio.retry(self.owner(), session, request).await;
        accepted.map_err(|error| refused(Kind::Retry, &error))?;
        to_one(self.socket, "retry_music_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    async fn transform(&self) -> Done {
        let (request, audio) = (self.payload.transform()?, self.payload.audio()?);
        let session = self.session.clone().unwrap_or_else(SessionId::random);
        self.gary.members.join(self.socket, &session);
        let held = self.gary.push.hold(&session);
        let accepted = self.gary.studio.transform(self.owner(), Some(session.clone()), request, audio).await;
        if let Err(error) = accepted {
            if self.session.is_none() {
                self.socket.leave(session.to_string());
            }
            let error = match error {
                StudioError::NoSession(_) => StudioError::NoAudio,
                error => error,
            };
            return Err(refused(Kind::Transform, &error));
        }
        to_one(self.socket, "transform_audio_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    /// What the session waits for.
    fn tasks(&self, session: &SessionId) -> Vec<Arc<ClipTask>> {
        let lanes = Lane::ALL.into_iter();
        lanes.filter_map(|lane| self.gary.studio.task_in(session, lane)).collect()
    }

    async fn undo(&self) -> Done {
        let session = self.known()?;
        let audio = self.gary.studio.undo(session).await.map_err(|error| texts::said(&error))?;
        let sent = Sounding { audio, session, variation: None };
        sent.send(self.gary, self.socket, "transform_undone").await.map_err(|error| error.to_string().into())
    }

    async fn crop(&self) -> Done {
        let audio = self.audio()?;
        let done = self.gary.studio.crop(self.session.clone(), audio).await;
        let (session, auto_created) = done.map_err(|error| refused(Kind::Bang, &error))?;
        self.gary.members.join(self.socket, &session);
        let complete =
            json!({ "message": "The cropped audio is kept.", "session_id": session, "auto_created": auto_created });
        to_room(self.socket, &session, "update_cropped_audio_complete", &complete).await;
        Ok(())
    }

    /// The session stays; what it waits for goes unless somebody else is in its room.
    async fn clean_up(&self) -> Done {
        let session = self.known()?;
        self.gary.chunks.forget(session);
        let complete = json!({ "message": "The session is cleaned up.", "session_id": session });
        to_room(self.socket, session, "cleanup_complete", &complete).await;
        self.socket.leave(session.to_string());
        let others = self.socket.within(session.to_string()).sockets().len();
        for task in if others == 0 { self.tasks(session) } else { Vec::new() } {
            self.gary.studio.cancel(task.record().id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn restore(&self) -> Done {
        self.payload.require(&["audio_data", "model_name", "prompt_duration"])?;
        if self.payload.bytes() > RESTORE {
            let message = "The audio is too large for one message; restore it in chunks.".to_owned();
            return Err(Refusal { message, code: Some("DATA_TOO_LARGE"), session: None });
        }
        let (request, audio) = (self.payload.clip_request()?, self.audio()?);
        let size = audio.len();
        let restored = self.gary.studio.restore(None, Some(request), audio).await;
        let session = restored.map_err(|error| refused(Kind::Bang, &error))?;
        self.gary.members.join(self.socket, &session);
        let complete = json!({ "message": "The audio is restored.", "session_id": session, "data_size": size });
        to_room(self.socket, &session, "restore_complete", &complete).await;
        Ok(())
    }

    fn begin_chunks(&self) -> Done {
        let session = SessionId::random();
        self.gary.members.join(self.socket, &session);
        self.gary.chunks.begin(self.socket.id, session.clone())?;
        to_one(self.socket, "ready_for_chunks", &json!({ "session_id": session, "chunk_size": CHUNK }));
        Ok(())
    }

    async fn chunk(&mut self) -> Done {
        let session = &self.session.clone().ok_or_else(|| "Missing required chunk data".to_owned())?;
        let place = |name: &str| -> Result<usize, Refusal> {
            let number = self.payload.whole(name)?.and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| "Missing required chunk data".to_owned().into())
        };
        let (index, total) = (place("chunk_index")?, place("total_chunks")?);
        let is_last = self.payload.flag("is_last");
        let piece = self.payload.take_slice().ok_or_else(|| "Missing required chunk data".to_owned())?;
        let progress = self.gary.chunks.add(self.socket.id, session, (index, total), piece, is_last)?;
        let received = json!({
            "session_id": session, "chunk_index": index, "total_chunks": total, "received_chunks": progress.received,
        });
        to_one(self.socket, "chunk_received", &received);
        if let Some(missing) = progress.missing {
            to_one(self.socket, "chunks_missing", &json!({ "session_id": session, "missing_chunks": missing }));
        }
        if let Some(text) = progress.text {
            let share =
                self.gary.members.budget.take(2 * text.len() as u64).await.map_err(|error| error.to_string())?;
            let audio = tokio::task::spawn_blocking(move || base64::decode(&text)).await;
            let audio = audio.map_err(|error| error.to_string())?.map_err(|error| format!("audio_data: {error}"))?;
            let audio = share.hold(audio);
            let request = self.payload.clip_request()?;
            let request = (request.model.is_some() && request.prompt_seconds.is_some()).then_some(request);
            let restored = self.gary.studio.restore(Some(session.clone()), request, audio).await;
            restored.map_err(|error| refused(Kind::Bang, &error))?;
            let complete = json!({ "message": "The audio is restored.", "session_id": session });
            to_room(self.socket, session, "restore_complete", &complete).await;
        }
        Ok(())
    }

    /// After a reconnect: the room is joined by now; a result that nobody was there to take is handed over once.
    async fn verify(&self) -> Done {
        let Some(session) = &self.session else { return Ok(()) };
        let missed = self.gary.studio.undelivered(session).await.map_err(|error| error.to_string())?;
        if let Some(clip) = missed {
            super::push::deliver(self.gary, self.socket, &clip).await;
        }
        Ok(())
    }

    async fn progress(&self) -> Done {
        let Some(session) = &self.session else { return Ok(()) };
        for task in self.tasks(session) {
            let (status, lane) = (task.status().borrow().clone(), task.record().kind.lane());
            match status {
                Status::Running { .. } => {
                    let update = json!({ "progress": status.percent(), "session_id": session });
                    to_one(self.socket, "progress_update", &update);
                }
                status => {
                    let queue = texts::queue_status(session, task.record().id, &status, self.gary.studio.load(lane));
                    to_one(self.socket, "queue_status", &queue);
                }
            }
        }
        Ok(())
    }
}
