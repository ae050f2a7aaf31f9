//! What others need to go on with a session, brought to them before whoever changed it is told.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::super::link::{PATIENCE, Trouble};
use super::rows::{Row, clip_key, session_key};
use super::{Homes, Place, SOUND, Stores, lock, trouble};
use crate::studio::{AudioId, Copies, SessionCopy, SessionId, Store, Studio, StudioError};

/// What became of an attempt to write.
enum Written {
    Done,
    /// Another process has gone on with it.
    Superseded,
}

impl Homes {
    /// Writes a session down as it is in the store.
    async fn copy(
        &self,
        stores: &Stores,
        store: &Store,
        session: &SessionId,
        place: &mut Place,
    ) -> Result<Written, Trouble> {
        let Some(copy) = store.export(session).await.map_err(trouble)? else {
            return self.take_away(stores, session, place).await.map(|()| Written::Done);
        };
        place.was_here = true;
        loop {
            let mut revision = self.revision(place);
            if revision.is_none() {
                match self.written(stores, session).await? {
                    Some((row, at)) => {
                        place.generation = match row.process == self.process {
                            true => row.generation,
                            // An earlier process with the same folder.
                            false if row.generation == copy.generation => row.generation + 1,
                            false => return Ok(Written::Superseded),
                        };
                        (place.sounds, place.clips) = (row.sounds(), row.clips());
                        revision = Some(at);
                    }
                    None => {
                        place.generation = copy.generation.max(1);
                        (place.sounds, place.clips) = Default::default();
                    }
                }
            }
            self.copy_parts(stores, store, &copy, place).await?;
            let row = Row {
                node: self.node.clone(),
                process: self.process.clone(),
                generation: place.generation,
                is_unfinished: copy.is_unfinished,
                sounds: copy.sounds.iter().map(ToString::to_string).collect(),
                clips: copy.clips.iter().map(ToString::to_string).collect(),
                rows: copy.rows.clone(),
            };
            let Some(written) = self.write(stores, session, &row, revision).await? else {
                // It may have been this process, whose last word was not answered.
                place.revision = None;
                continue;
            };
            place.revision = self.own(written);
            if copy.generation != place.generation {
                store.set_generation(session, place.generation).await.map_err(trouble)?;
            }
            self.drop_unused(stores, &copy, place).await;
            return Ok(Written::Done);
        }
    }

    /// What has to be there before a row names it.
    async fn copy_parts(
        &self,
        stores: &Stores,
        store: &Store,
        copy: &SessionCopy,
        place: &mut Place,
    ) -> Result<(), Trouble> {
        for id in &copy.sounds {
            if !place.sounds.contains(id) {
                let bytes = store.read(*id).await.map_err(trouble)?;
                timeout(SOUND, stores.sounds.put(id.to_string().as_str(), &mut &bytes[..])).await??;
                place.sounds.insert(*id);
            }
        }
        for clip in &copy.clips {
            if !place.clips.contains(clip) {
                let session = Bytes::copy_from_slice(copy.session.as_str().as_bytes());
                timeout(PATIENCE, stores.rows.put(clip_key(*clip), session)).await??;
                place.clips.insert(*clip);
            }
        }
        if copy.is_unfinished {
            lock(&self.due).wanted.insert(copy.session.to_string());
            if !lock(&self.due).written.contains(copy.session.as_str()) {
                self.list_due(stores).await?;
            }
        }
        Ok(())
    }

    async fn drop_unused(&self, stores: &Stores, copy: &SessionCopy, place: &mut Place) {
        if !copy.is_unfinished {
            lock(&self.due).wanted.remove(copy.session.as_str());
        }
        let unused: Vec<AudioId> = place.sounds.iter().filter(|id| !copy.sounds.contains(id)).copied().collect();
        for id in unused {
            place.sounds.remove(&id);
            // What does not succeed grows old.
            let _ = timeout(PATIENCE, stores.sounds.delete(id.to_string())).await;
        }
    }

    /// Removes what is written of a session that is not kept any more.
    async fn take_away(&self, stores: &Stores, session: &SessionId, place: &mut Place) -> Result<(), Trouble> {
        lock(&self.due).wanted.remove(session.as_str());
        if place.was_here
            && let Some((row, revision)) = self.written(stores, session).await?
            && row.process == self.process
        {
            let deleted = stores.rows.delete_expect_revision(session_key(session), Some(revision));
            timeout(PATIENCE, deleted).await??;
            for id in row.sounds() {
                let _ = timeout(PATIENCE, stores.sounds.delete(id.to_string())).await;
            }
            for clip in row.clips() {
                let _ = timeout(PATIENCE, stores.rows.delete(clip_key(clip))).await;
            }
        }
        lock(&self.places).remove(session);
        Ok(())
    }

    /// Tells the others which sessions have clips that are still to be made.
    pub(super) async fn list_due(&self, stores: &Stores) -> Result<(), Trouble> {
        let _listing = self.listing.lock().await;
        let wanted = {
            let due = lock(&self.due);
            if due.wanted == due.written {
                return Ok(());
            }
            due.wanted.clone()
        };
        let list = Bytes::from(serde_json::to_vec(&wanted)?);
        timeout(PATIENCE, stores.rows.put(self.due_key(&self.process), list)).await??;
        lock(&self.due).written = wanted;
        Ok(())
    }

    pub(super) fn due_key(&self, process: &str) -> String {
        format!("due.{process}")
    }

    /// Brings copies up to date that are not.
    pub(super) async fn make_up(&self, studio: &Studio, stores: &Stores, round: u32) -> Result<(), Trouble> {
        let mut sessions: HashSet<SessionId> = lock(&self.late).clone();
        if round == 0 {
            let here: HashSet<SessionId> = studio.store().session_ids().await.map_err(trouble)?.into_iter().collect();
            let known: HashSet<SessionId> = lock(&self.places).keys().cloned().collect();
            sessions.extend(known.difference(&here).cloned());
            for session in here {
                let place = self.place(&session);
                if self.revision(&*place.lock().await).is_none() {
                    sessions.insert(session);
                }
            }
        }
        for session in sessions {
            // Whoever has gone on with it has it.
            let _ = self.keep(studio.store(), &session).await;
        }
        self.list_due(stores).await
    }

    fn let_go(&self, session: &SessionId) {
        let Some(studio) = self.studio() else { return };
        let session = session.clone();
        tokio::spawn(async move {
            tracing::info!(session = session.as_str(), "another node goes on with a session");
            if let Err(error) = studio.let_go(&session).await {
                tracing::warn!(%error, session = session.as_str(), "a session that goes on elsewhere is still here");
            }
        });
    }
}

impl Copies for Homes {
    fn keep<'a>(&'a self, store: &'a Store, session: &'a SessionId) -> BoxFuture<'a, Result<(), StudioError>> {
        async move {
            let place = self.place(session);
            let mut place = place.lock().await;
            let copied = match self.stores() {
                Ok(stores) => self.copy(&stores, store, session, &mut place).await,
                Err(error) => Err(Trouble(error.to_string())),
            };
            match copied {
                Ok(Written::Done) => {
                    lock(&self.late).remove(session);
                    Ok(())
                }
                Ok(Written::Superseded) => {
                    lock(&self.late).remove(session);
                    lock(&self.due).wanted.remove(session.as_str());
                    lock(&self.places).remove(session);
                    self.let_go(session);
                    Err(StudioError::Elsewhere)
                }
                Err(Trouble(reason)) => {
                    tracing::debug!(reason, session = session.as_str(), "a session is copied later");
                    place.revision = None;
                    lock(&self.late).insert(session.clone());
                    Ok(())
                }
            }
        }
        .boxed()
    }
}
