//! What every event does: parse, ask the studio, answer.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::super::base64;
use super::super::error::sentence;
use super::asker::Asker;
use super::chunks::CHUNK;
use super::far;
use super::payload::{Parsed, Payload};
use super::push::{Sounding, standing};
use super::socket::Gary;
use super::texts;
use crate::studio::{ClipTask, Kind, Lane, Owner, SessionId, Studio, StudioError};

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

/// How a node without a model hands on a sound that came in pieces.
pub(super) const PIECES: &str = "restore_pieces";

/// Bytes of sound that one `restore_processed_audio` may carry: 96 MiB of base64 text.
const RESTORE: usize = 72 << 20;

/// Why a request is not done: the `error` event.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) code: Option<&'static str>,
    /// The session that is meant; its whole room hears of it.
    pub(super) session: Option<SessionId>,
    /// There is no place for it here; another node may have one.
    pub(super) is_full: bool,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self { message, code: None, session: None, is_full: false }
    }
}

/// Answers one event, which came as this text: here, or where its session lives.
pub(super) async fn answer(gary: &Gary, asker: &Asker<'_>, event: &str, data: Option<Parsed>, text: Bytes) {
    let Err(refusal) = handle(gary, asker, event, data, text).await else { return };
    if let Some(far) = asker.far().filter(|_| refusal.is_full) {
        far.refuse();
    }
    let mut error = json!({ "message": sentence(&refusal.message) });
    if let Some(code) = refusal.code {
        error["code"] = code.into();
    }
    match refusal.session {
        Some(session) => {
            error["session_id"] = json!(session);
            gary.tell(Some(asker), &session, "error", &error).await;
        }
        None => asker.tell("error", &error),
    }
}

async fn handle(gary: &Gary, asker: &Asker<'_>, event: &str, data: Option<Parsed>, text: Bytes) -> Result<(), Refusal> {
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
        asker.join(gary, session);
    }
    let meant = session.as_ref().filter(|_| !fresh);
    if let Asker::Here(socket) = asker
        && !["begin_restore_audio", "audio_chunk"].contains(&event)
        && !gary.bridge.places(meant).await.map_err(|error| error.to_string())?.is_empty()
    {
        if event == "cleanup_session_request"
            && let Some(session) = meant
            && gary.has_others_here(asker, session)
        {
            // Others of this node still wait for what is being made.
            let complete = json!({ "message": "The session is cleaned up.", "session_id": session });
            gary.emit(session, "cleanup_complete", &complete).await;
            asker.leave(session);
            return Ok(());
        }
        drop(payload);
        let _share = gary.members.budget.try_take(text.len() as u64).map_err(|error| error.to_string())?;
        return far::ask(gary, socket, event, text, meant).await;
    }
    let mut call = Call { gary, asker, payload, session: session.clone() };
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
        PIECES => call.pieces().await,
        "verify_session" => call.verify().await,
        _ => call.progress().await,
    };
    done.map_err(|refusal| Refusal { session: refusal.session.or(session.filter(|_| !fresh)), ..refusal })
}

struct Call<'a> {
    gary: &'a Gary,
    asker: &'a Asker<'a>,
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
        error => {
            let is_full = matches!(error, StudioError::QueueFull { .. } | StudioError::TooManyOfYours { .. });
            Refusal { is_full, ..texts::no_transform(error).into() }
        }
    }
}

impl Call<'_> {
    fn owner(&self) -> Owner {
        self.asker.owner()
    }

    fn studio(&self) -> Result<&Arc<Studio>, Refusal> {
        self.gary.studio().map_err(|error| error.to_string().into())
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
        self.asker.join(self.gary, &session);
        let held = self.gary.push.hold(&session);
        let accepted = self.studio()?.bang(self.owner(), Some(session.clone()), request, audio).await;
        if let Err(error) = accepted {
            self.asker.leave(&session);
            return Err(refused(Kind::Bang, &error));
        }
        self.asker.tell("process_audio_received", &json!({ "session_id": session }));
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
        self.asker.join(self.gary, &session);
        let held = self.gary.push.hold(&session);
        let accepted = self.studio()?.extend(self.owner(), Some(session.clone()), request, audio).await;
        if let Err(error) = accepted {
            if self.session.is_none() {
                self.asker.leave(&session);
            }
            return Err(refused(Kind::Continue, &error));
        }
        self.asker.tell("continue_music_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    async fn retry(&self) -> Done {
        let (session, request) = (self.known()?, self.payload.clip_request()?);
        let held = self.gary.push.hold(session);
        let accepted = self.studio()?.retry(self.owner(), session, request).await;
        accepted.map_err(|error| refused(Kind::Retry, &error))?;
        self.asker.tell("retry_music_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    async fn transform(&self) -> Done {
        let (request, audio) = (self.payload.transform()?, self.payload.audio()?);
        let session = self.session.clone().unwrap_or_else(SessionId::random);
        self.asker.join(self.gary, &session);
        let held = self.gary.push.hold(&session);
        let accepted = self.studio()?.transform(self.owner(), Some(session.clone()), request, audio).await;
        if let Err(error) = accepted {
            if self.session.is_none() {
                self.asker.leave(&session);
            }
            let error = match error {
                StudioError::NoSession(_) => StudioError::NoAudio,
                error => error,
            };
            return Err(refused(Kind::Transform, &error));
        }
        self.asker.tell("transform_audio_received", &json!({ "session_id": session }));
        drop(held);
        Ok(())
    }

    /// What the session waits for.
    fn tasks(&self, session: &SessionId) -> Result<Vec<Arc<ClipTask>>, Refusal> {
        let studio = self.studio()?;
        Ok(Lane::ALL.into_iter().filter_map(|lane| studio.task_in(session, lane)).collect())
    }

    async fn undo(&self) -> Done {
        let session = self.known()?;
        let audio = self.studio()?.undo(session).await.map_err(|error| texts::said(&error))?;
        let sent = Sounding { audio, session, ends: None, variation: None };
        sent.send(self.gary, Some(self.asker), "transform_undone").await.map_err(|error| error.to_string().into())
    }

    async fn crop(&self) -> Done {
        let audio = self.audio()?;
        let done = self.studio()?.crop(self.session.clone(), audio).await;
        let (session, auto_created) = done.map_err(|error| refused(Kind::Bang, &error))?;
        self.asker.join(self.gary, &session);
        let complete =
            json!({ "message": "The cropped audio is kept.", "session_id": session, "auto_created": auto_created });
        self.gary.tell(Some(self.asker), &session, "update_cropped_audio_complete", &complete).await;
        Ok(())
    }

    /// The session stays; what it waits for goes unless somebody else is in its room.
    async fn clean_up(&self) -> Done {
        let session = self.known()?;
        self.gary.chunks.forget(session);
        let complete = json!({ "message": "The session is cleaned up.", "session_id": session });
        self.gary.tell(Some(self.asker), session, "cleanup_complete", &complete).await;
        self.asker.leave(session);
        if self.gary.has_others(self.asker, session).await {
            return Ok(());
        }
        for task in self.tasks(session)? {
            self.studio()?.cancel(task.record().id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn restore(&self) -> Done {
        self.payload.require(&["audio_data", "model_name", "prompt_duration"])?;
        if self.payload.bytes() > RESTORE {
            let message = "The audio is too large for one message; restore it in chunks.".to_owned();
            return Err(Refusal { message, code: Some("DATA_TOO_LARGE"), session: None, is_full: false });
        }
        let (request, audio) = (self.payload.clip_request()?, self.audio()?);
        let size = audio.len();
        let restored = self.studio()?.restore(None, Some(request), audio).await;
        let session = restored.map_err(|error| refused(Kind::Bang, &error))?;
        self.asker.join(self.gary, &session);
        let complete = json!({ "message": "The audio is restored.", "session_id": session, "data_size": size });
        self.gary.tell(Some(self.asker), &session, "restore_complete", &complete).await;
        Ok(())
    }

    fn begin_chunks(&self) -> Done {
        let session = SessionId::random();
        self.asker.join(self.gary, &session);
        let socket = self.asker.id().ok_or_else(|| "Pieces are sent to a socket.".to_owned())?;
        self.gary.chunks.begin(socket, session.clone())?;
        self.asker.tell("ready_for_chunks", &json!({ "session_id": session, "chunk_size": CHUNK }));
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
        let socket = self.asker.id().ok_or_else(|| "Pieces are sent to a socket.".to_owned())?;
        let progress = self.gary.chunks.add(socket, session, (index, total), piece, is_last)?;
        let received = json!({
            "session_id": session, "chunk_index": index, "total_chunks": total, "received_chunks": progress.received,
        });
        self.asker.tell("chunk_received", &received);
        if let Some(missing) = progress.missing {
            self.asker.tell("chunks_missing", &json!({ "session_id": session, "missing_chunks": missing }));
        }
        match progress.text {
            Some(text) if self.gary.studio().is_err() => {
                // Whoever has a model takes it as a whole.
                let mut fields = self.payload.fields().clone();
                fields.insert("audio_data".into(), text.into());
                fields.insert("session_id".into(), json!(session));
                let Asker::Here(socket) = self.asker else { return Ok(()) };
                let text = json!([PIECES, fields]).to_string().into();
                far::ask(self.gary, socket, PIECES, text, Some(session)).await
            }
            Some(text) => {
                let share =
                    self.gary.members.budget.take(2 * text.len() as u64).await.map_err(|error| error.to_string())?;
                let audio = tokio::task::spawn_blocking(move || base64::decode(&text)).await;
                let audio =
                    audio.map_err(|error| error.to_string())?.map_err(|error| format!("audio_data: {error}"))?;
                self.restore_as(session, share.hold(audio)).await
            }
            None => Ok(()),
        }
    }

    /// A sound that came to another node in pieces.
    async fn pieces(&self) -> Done {
        if self.asker.far().is_none() {
            return Err("Send the pieces as `audio_chunk`.".to_owned().into());
        }
        self.restore_as(self.known()?, self.audio()?).await
    }

    async fn restore_as(&self, session: &SessionId, audio: Bytes) -> Done {
        let request = self.payload.clip_request()?;
        let request = (request.model.is_some() && request.prompt_seconds.is_some()).then_some(request);
        let restored = self.studio()?.restore(Some(session.clone()), request, audio).await;
        restored.map_err(|error| refused(Kind::Bang, &error))?;
        let complete = json!({ "message": "The audio is restored.", "session_id": session });
        self.gary.tell(Some(self.asker), session, "restore_complete", &complete).await;
        Ok(())
    }

    /// After a reconnect: the room is joined by now; a result that nobody was there to take is
    /// handed over once.
    async fn verify(&self) -> Done {
        let Some(session) = &self.session else { return Ok(()) };
        let missed = self.studio()?.undelivered(session).await.map_err(|error| error.to_string())?;
        if let Some(clip) = missed {
            super::push::deliver(self.gary, self.studio()?, Some(self.asker), &clip).await;
        }
        Ok(())
    }

    async fn progress(&self) -> Done {
        let Some(session) = &self.session else { return Ok(()) };
        for task in self.tasks(session)? {
            let (event, told) = standing(self.studio()?, session, &task);
            self.asker.tell(event, &told);
        }
        Ok(())
    }
}
