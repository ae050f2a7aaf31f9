//! What a producer does to a session without making music: crop, restore, upload, undo, pin,
//! remove.

use std::sync::Arc;

use bytes::Bytes;

use super::run::work;
use super::splice;
use super::store::ClipState;
use super::{
    AudioId, ClipRecord, ClipRequest, ClipTask, Kind, Owner, Params, SessionId, SessionRecord, Studio, StudioError,
};

impl Studio {
    /// Puts a sound in place of the session's (cut by the client); without a session a new one.
    /// Says which, and whether it is new.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Store`].
    pub async fn crop(
        self: &Arc<Self>,
        session: Option<SessionId>,
        audio: Bytes,
    ) -> Result<(SessionId, bool), StudioError> {
        self.decode(audio.clone()).await?;
        let auto_created = session.is_none();
        let id = session.unwrap_or_else(SessionId::random);
        self.replace(&id, "crop", None, audio, None).await?;
        Ok((id, auto_created))
    }

    /// Keeps the seconds `from` to `to` of a session's sound, as a clip.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] when nothing would be left, [`StudioError::NoSession`],
    /// [`StudioError::NoAudio`].
    pub async fn crop_to(
        self: &Arc<Self>,
        owner: Owner,
        id: &SessionId,
        (from, to): (f64, Option<f64>),
    ) -> Result<(), StudioError> {
        let sound = self.decode(self.sound_of(id).await?).await?;
        let cut = work(move || {
            let sound = sound.try_map(splice::usable)?;
            let place = |seconds: f64| sound.rate.samples(seconds).0 as usize;
            let cut = sound.cut(place(from), to.map_or(usize::MAX, place));
            if cut.pcm.is_empty() {
                return Err(StudioError::Invalid(format!(
                    "Nothing would be left of the {:.1} seconds; send `from` and `to` in seconds within them.",
                    sound.seconds()
                )));
            }
            Ok(cut.wav())
        });
        self.replace(id, "crop", None, cut.await?.into(), Some((Kind::Crop, owner))).await
    }

    /// A session with this sound and these parameters: a client brings back what it had kept.
    /// `session` is an id given out for it, or `None`.
    ///
    /// # Errors
    /// [`StudioError::Audio`], [`StudioError::Invalid`], [`StudioError::Store`].
    pub async fn restore(
        self: &Arc<Self>,
        session: Option<SessionId>,
        request: Option<ClipRequest>,
        audio: Bytes,
    ) -> Result<SessionId, StudioError> {
        let params = request.map(|request| request.resolve(None));
        params.as_ref().map_or(Ok(()), Params::validate)?;
        self.decode(audio.clone()).await?;
        let id = session.unwrap_or_else(SessionId::random);
        self.replace(&id, "restore", params, audio, None).await?;
        Ok(id)
    }

    /// As [`Studio::restore`], but the sound is a clip: one can go back to it.
    ///
    /// # Errors
    /// As [`Studio::restore`].
    pub async fn upload(
        self: &Arc<Self>,
        owner: Owner,
        session: Option<SessionId>,
        request: ClipRequest,
        audio: Bytes,
    ) -> Result<SessionId, StudioError> {
        let params = request.resolve(None);
        params.validate()?;
        self.decode(audio.clone()).await?;
        let id = session.unwrap_or_else(SessionId::random);
        self.replace(&id, "upload", Some(params), audio, Some((Kind::Upload, owner))).await?;
        Ok(id)
    }

    /// Puts a file that is known to be a sound in place of a session's, perhaps as a clip of a
    /// kind.
    async fn replace(
        self: &Arc<Self>,
        id: &SessionId,
        origin: &str,
        params: Option<Params>,
        audio: Bytes,
        clip: Option<(Kind, Owner)>,
    ) -> Result<(), StudioError> {
        let kept = self.store.keep(audio, id).await?;
        let session = SessionRecord::new(id.clone(), origin, Params::default());
        self.edit(id, move |studio| async move {
            let mut session = studio.known(&session.id).await?.unwrap_or(session);
            let before = session.current.replace(kept.id());
            if let Some(params) = params {
                (session.params, session.unreadable) = (params, None);
            }
            let id = session.id.clone();
            let clip = match clip {
                Some((kind, owner)) => Some(studio.done(&session, kind, owner, before).await?),
                None => None,
            };
            studio.store.accept(session, Some(kept), clip).await?;
            studio.touch(&id);
            Ok(())
        })
        .await
    }

    /// A clip that is complete already: the session's present sound.
    async fn done(
        &self,
        session: &SessionRecord,
        kind: Kind,
        owner: Owner,
        before: Option<AudioId>,
    ) -> Result<ClipRecord, StudioError> {
        let input = before.filter(|_| kind == Kind::Crop);
        Ok(ClipRecord {
            state: ClipState::Completed,
            parent: self.maker(&session.id, input).await?,
            input,
            output: session.current,
            // Whoever asked for it has it.
            delivered: true,
            ..ClipRecord::new(session.id.clone(), owner, kind)
        })
    }

    /// Goes back to the input of the last continue, retry or transform, and says which sound that
    /// is.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::NothingToUndo`], [`StudioError::Store`].
    pub async fn undo(self: &Arc<Self>, id: &SessionId) -> Result<AudioId, StudioError> {
        let of = id;
        let id = id.clone();
        self.edit(of, move |studio| async move {
            let mut session = studio.store.session(&id).await?;
            let input = session.input.ok_or(StudioError::NothingToUndo)?;
            session.current = Some(input);
            studio.store.accept(session, None, None).await?;
            studio.touch(&id);
            Ok(input)
        })
        .await
    }

    /// Whether a session is kept whatever its age.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::Store`].
    pub async fn pin(self: &Arc<Self>, id: &SessionId, pinned: bool) -> Result<SessionRecord, StudioError> {
        let of = id;
        let id = id.clone();
        self.edit(of, move |studio| async move {
            let mut session = studio.store.session(&id).await?;
            session.pinned = pinned;
            studio.store.accept(session.clone(), None, None).await?;
            studio.touch(&id);
            Ok(session)
        })
        .await
    }

    /// Cancels what a session waits for and removes it with everything in it.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::Store`].
    pub async fn remove_session(self: &Arc<Self>, id: &SessionId) -> Result<(), StudioError> {
        self.store.session(id).await?;
        let of_it: Vec<Arc<ClipTask>> = {
            let queue = self.queue();
            queue.tasks.values().filter(|task| task.record.session == *id).cloned().collect()
        };
        for task in of_it {
            self.cancel(task.record.id).await?;
        }
        let of = id;
        let id = id.clone();
        self.edit(of, move |studio| async move {
            studio.store.remove_session(&id).await?;
            studio.touch(&id);
            Ok(())
        })
        .await
    }

    /// Reads, changes and writes a session while nobody else does, to the end.
    pub(super) async fn edit<T, F>(
        self: &Arc<Self>,
        id: &SessionId,
        edit: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<T, StudioError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StudioError>> + Send + 'static,
    {
        let (studio, id) = (Arc::clone(self), id.clone());
        let edit = edit(Arc::clone(self));
        self.apart(async move {
            let alone = studio.edits.lock().await;
            let done = edit.await?;
            drop(alone);
            studio.copied(&id).await?;
            Ok(done)
        })
        .await
    }
}
