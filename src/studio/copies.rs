//! Sessions that other processes can go on with: what is copied to them, and how one is taken up or
//! let go.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{ClipId, ClipRecord, ClipState, Lane, MAX_ATTEMPTS, SessionId, Store, Studio, StudioError};

/// Keeps copies of sessions where other processes find them.
pub trait Copies: Send + Sync {
    /// Copies a session as it is in the store now; takes the copy of one that is not there any more
    /// away. What cannot be copied now is made up for later.
    ///
    /// # Errors
    /// [`StudioError::Elsewhere`] when another process has gone on with it.
    fn keep<'a>(&'a self, store: &'a Store, session: &'a SessionId) -> BoxFuture<'a, Result<(), StudioError>>;
}

impl Studio {
    /// Has others know what was written of a session, before whoever asked for it is told.
    ///
    /// # Errors
    /// [`StudioError::Elsewhere`].
    pub(super) async fn copied(&self, session: &SessionId) -> Result<(), StudioError> {
        match &self.copies {
            Some(copies) => copies.keep(&self.store, session).await,
            None => Ok(()),
        }
    }

    /// The same for the session of a clip.
    pub(super) async fn copied_of(&self, clip: ClipId) -> Result<(), StudioError> {
        if self.copies.is_none() {
            return Ok(());
        }
        let session = self.store.clip(clip).await?.session;
        self.copied(&session).await
    }

    /// Makes what is still to be made of a session that has come from another process.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn take_up(self: &Arc<Self>, session: &SessionId) -> Result<(), StudioError> {
        let (studio, session) = (Arc::clone(self), session.clone());
        self.apart(async move {
            let unfinished = studio.store.unfinished().await?;
            studio.resume(unfinished.into_iter().filter(|clip| clip.session == session)).await?;
            studio.touch(&session);
            Ok(())
        })
        .await
    }

    /// Forgets a session that another process goes on with: what is being made of it is not
    /// finished.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn let_go(self: &Arc<Self>, session: &SessionId) -> Result<(), StudioError> {
        match self.store.remove_session(session).await {
            Ok(()) | Err(StudioError::NoSession(_)) => {}
            Err(error) => return Err(error),
        }
        for task in Lane::ALL.into_iter().filter_map(|lane| self.task_in(session, lane)) {
            self.cancel(task.record().id).await?;
        }
        self.touch(session);
        Ok(())
    }

    /// Puts clips into the queue that a server had taken on which has ended.
    pub(super) async fn resume(&self, clips: impl Iterator<Item = ClipRecord>) -> Result<(), StudioError> {
        for record in clips {
            if record.attempts >= MAX_ATTEMPTS {
                tracing::warn!(clip = %record.id, "given up: the server ended twice while it was being made");
                let reason = "The server ended twice while it was being made, so it was given up; ask for less, or in \
                              another way.";
                self.store.end(record.id, ClipState::Failed, Some(reason.into())).await?;
                // Whoever has gone on with it finds out the same.
                let _ = self.copied(&record.session).await;
                continue;
            }
            tracing::info!(clip = %record.id, "taken up again after a restart");
            self.queue().busy.insert((record.session.clone(), record.kind.lane()));
            self.enqueue(record);
        }
        Ok(())
    }
}
