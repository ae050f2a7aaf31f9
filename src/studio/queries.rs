//! What can be asked of clips and sessions, and waiting for what a clip makes.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AudioId, ClipId, ClipRecord, ClipSnapshot, ClipState, ClipTask, Lane, SessionId, SessionRecord, Status, Studio,
    StudioError,
};

/// A clip whose sound somebody waits for; it is cancelled when they leave first.
struct Awaited {
    studio: Arc<Studio>,
    clip: ClipId,
    wanted: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.wanted || self.studio.stopping.is_cancelled() {
            return;
        }
        let (studio, clip) = (Arc::clone(&self.studio), self.clip);
        // Without a runtime the server is over.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = studio.cancel(clip).await {
                    tracing::debug!(%error, "a clip that nobody waits for was not cancelled");
                }
            });
        }
    }
}

impl Studio {
    /// A clip while it waits or is being made.
    pub fn task(&self, clip: ClipId) -> Option<Arc<ClipTask>> {
        self.queue().tasks.get(&clip).cloned()
    }

    /// The clip of a session that waits or is being made: a piece rather than a transform.
    pub fn task_of(&self, session: &SessionId) -> Option<Arc<ClipTask>> {
        Lane::ALL.into_iter().find_map(|lane| self.task_in(session, lane))
    }

    /// The clip of a session that waits or is being made in a lane.
    pub fn task_in(&self, session: &SessionId, lane: Lane) -> Option<Arc<ClipTask>> {
        let of_it = |task: &&Arc<ClipTask>| task.record.session == *session && task.record.kind.lane() == lane;
        self.queue().tasks.values().find(of_it).cloned()
    }

    /// A clip, whatever has become of it.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::Store`].
    pub async fn clip(&self, clip: ClipId) -> Result<ClipSnapshot, StudioError> {
        if let Some(task) = self.task(clip) {
            return Ok(ClipSnapshot { record: Arc::clone(&task.record), status: task.status.borrow().clone() });
        }
        let record = self.store.clip(clip).await?;
        let unwritten = self.queue().unwritten.get(&clip).cloned();
        Ok(ClipSnapshot { status: unwritten.unwrap_or_else(|| Status::at_rest(&record)), record: Arc::new(record) })
    }

    /// Waits for a clip and says which sound it made. A clip whose sound nobody waits for any more
    /// is given up.
    ///
    /// # Errors
    /// [`StudioError::Failed`], [`StudioError::Cancelled`], [`StudioError::NotReady`] when the
    /// server ends first.
    pub async fn outcome(self: &Arc<Self>, clip: ClipId) -> Result<AudioId, StudioError> {
        let mut awaited = Awaited { studio: Arc::clone(self), clip, wanted: true };
        let status = match self.task(clip) {
            Some(task) => {
                let mut status = task.status();
                tokio::select! {
                    ended = status.wait_for(Status::is_final) => ended.map_or(Status::Cancelled, |ended| ended.clone()),
                    () = self.stopping.cancelled() => return Err(StudioError::NotReady(clip.to_string())),
                }
            }
            None => self.clip(clip).await?.status,
        };
        awaited.wanted = false;
        match status {
            Status::Failed(reason) => Err(StudioError::Failed(reason)),
            Status::Cancelled => Err(StudioError::Cancelled),
            _ => self.output(clip).await,
        }
    }

    /// The latest clip of a session.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn latest(&self, session: &SessionId) -> Result<Option<ClipSnapshot>, StudioError> {
        match self.store.clips(Some(session), 1).await?.into_iter().next() {
            Some(record) => Ok(Some(self.clip(record.id).await?)),
            None => Ok(None),
        }
    }

    /// A session.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::Store`].
    pub async fn session(&self, id: &SessionId) -> Result<SessionRecord, StudioError> {
        self.store.session(id).await
    }

    pub(super) async fn known(&self, id: &SessionId) -> Result<Option<SessionRecord>, StudioError> {
        match self.store.session(id).await {
            Ok(session) => Ok(Some(session)),
            Err(StudioError::NoSession(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The present sound of a session, as a file's bytes.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::NoAudio`], [`StudioError::Store`].
    pub async fn sound_of(&self, id: &SessionId) -> Result<Bytes, StudioError> {
        let current: AudioId = self.store.session(id).await?.current.ok_or(StudioError::NoAudio)?;
        self.store.read(current).await
    }

    /// The result of a clip: a 16-bit WAV file's bytes.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::NotReady`], [`StudioError::Store`].
    pub async fn sound_of_clip(&self, clip: ClipId) -> Result<Bytes, StudioError> {
        let record = self.store.clip(clip).await?;
        let output = record.output.ok_or_else(|| StudioError::NotReady(clip.to_string()))?;
        self.store.read(output).await
    }

    /// A result of this session that no client was handed yet: after a reconnect it is given once.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn undelivered(&self, session: &SessionId) -> Result<Option<ClipRecord>, StudioError> {
        let latest = self.store.clips(Some(session), 1).await?.into_iter().next();
        Ok(latest.filter(|clip| !clip.delivered && matches!(clip.state, ClipState::Completed | ClipState::Failed)))
    }

    /// Notes that a client was handed a result.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn delivered(&self, clip: ClipId) -> Result<(), StudioError> {
        self.store.delivered(clip).await?;
        self.copied_of(clip).await
    }
}
