//! A session's clips as a history: which came of which, going on from any of them, and what they
//! are called.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{AudioId, ClipId, ClipSnapshot, SessionId, Studio, StudioError};

impl Studio {
    /// Makes the result of a clip its session's present sound. A retry repeats that clip from then
    /// on, and an undo takes it back.
    ///
    /// # Errors
    /// [`StudioError::NoClip`] also for a clip of another session; [`StudioError::NotReady`],
    /// [`StudioError::NoSession`], [`StudioError::Store`].
    pub async fn choose(self: &Arc<Self>, session: &SessionId, clip: ClipId) -> Result<(), StudioError> {
        let id = session.clone();
        self.edit(session, move |studio| async move {
            let mut session = studio.store.session(&id).await?;
            let chosen = studio.store.clip(clip).await?;
            if chosen.session != id {
                return Err(StudioError::NoClip(clip.to_string()));
            }
            session.current = Some(chosen.output.ok_or_else(|| StudioError::NotReady(clip.to_string()))?);
            // Sounds that no clip made are not kept.
            session.input = chosen.input.filter(|_| chosen.parent.is_some());
            studio.store.accept(session, None, None).await?;
            studio.touch(&id);
            Ok(())
        })
        .await
    }

    /// Calls a clip something, or nothing.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::Store`].
    pub async fn rename(self: &Arc<Self>, clip: ClipId, name: Option<String>) -> Result<(), StudioError> {
        let session = self.store.clip(clip).await?.session;
        let id = session.clone();
        self.edit(&id, move |studio| async move {
            studio.store.rename(clip, name).await?;
            studio.touch(&session);
            Ok(())
        })
        .await
    }

    /// The latest clips of a session, or of all, the newest first.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn history(&self, session: Option<&SessionId>, most: usize) -> Result<Vec<ClipSnapshot>, StudioError> {
        let mut clips = Vec::new();
        for record in self.store.clips(session, most).await? {
            clips.push(match self.task(record.id) {
                // A task does not know what its clip is called since.
                Some(task) => ClipSnapshot { status: task.status().borrow().clone(), record: Arc::new(record) },
                None => self.clip(record.id).await?,
            });
        }
        Ok(clips)
    }

    /// The clip of a session that made a sound.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn maker(&self, session: &SessionId, sound: Option<AudioId>) -> Result<Option<ClipId>, StudioError> {
        match sound {
            Some(sound) => self.store.maker(session, sound).await,
            None => Ok(None),
        }
    }

    /// Sessions that change from now on: their sound, their clips, or what these are called.
    pub fn changes(&self) -> broadcast::Receiver<SessionId> {
        self.changes.subscribe()
    }

    /// Tells whoever watches a session that it has changed.
    pub(super) fn touch(&self, session: &SessionId) {
        // Nobody may be subscribed.
        let _ = self.changes.send(session.clone());
    }
}
