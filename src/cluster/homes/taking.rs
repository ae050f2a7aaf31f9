//! Sessions of processes that are gone, gone on with here.

use std::collections::HashMap;

use async_nats::jetstream::object_store::ObjectStore;
use bytes::Bytes;
use metrics::counter;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::super::link::{PATIENCE, Trouble};
use super::rows::Row;
use super::{Homes, Place, SOUND, Stores, lock, trouble};
use crate::studio::{AudioId, SessionCopy, SessionId};
use crate::telemetry::CLUSTER_SESSIONS_TAKEN;

impl Homes {
    /// Goes on with a session whose process is gone; with `is_unfinished` only if there is
    /// something to be made. Says whether it is here.
    pub(in super::super) async fn take(&self, session: &SessionId, is_unfinished: bool) -> Result<bool, Trouble> {
        let Some(studio) = self.studio() else { return Ok(false) };
        let stores = self.stores().map_err(|error| Trouble(error.to_string()))?;
        let place = self.place(session);
        let mut place = place.lock().await;
        if studio.session(session).await.is_ok() {
            return Ok(true);
        }
        let Some((row, revision)) = self.written(&stores, session).await? else { return Ok(false) };
        let is_left = row.process == self.process || self.nodes.has_ended(&row.process);
        if !is_left || (is_unfinished && !row.is_unfinished) {
            return Ok(false);
        }
        if row.is_unfinished {
            // Whoever finds it here without an end looks for it where this process lists it.
            lock(&self.due).wanted.insert(session.to_string());
            self.list_due(&stores).await?;
        }
        let generation = row.generation + 1;
        let own = Row { node: self.node.clone(), process: self.process.clone(), generation, ..row.clone() };
        let Some(revision) = self.write(&stores, session, &own, Some(revision)).await? else { return Ok(false) };
        let mut drafts = Vec::new();
        for id in row.sounds() {
            let bytes = timeout(SOUND, fetch(&stores.sounds, id)).await??;
            drafts.push(studio.store().keep_as(id, bytes, session).await.map_err(trouble)?);
        }
        let copy = SessionCopy {
            session: session.clone(),
            rows: row.rows.clone(),
            clips: row.clips().into_iter().collect(),
            sounds: row.sounds().into_iter().collect(),
            is_unfinished: row.is_unfinished,
            generation,
        };
        studio.store().import(copy, drafts).await.map_err(trouble)?;
        *place = Place {
            revision: self.own(revision),
            generation,
            sounds: row.sounds(),
            clips: row.clips(),
            was_here: true,
        };
        drop(place);
        counter!(CLUSTER_SESSIONS_TAKEN).increment(1);
        tracing::info!(session = session.as_str(), from = row.node, "a session of another node goes on here");
        studio.take_up(session).await.map_err(trouble)?;
        Ok(true)
    }

    /// Goes on with what gone processes have left unfinished.
    pub(super) async fn take_left(&self, stores: &Stores, left: &HashMap<String, Vec<SessionId>>) {
        for (process, sessions) in left.iter().filter(|(process, _)| self.nodes.has_ended(process)) {
            // The others do the same: each begins elsewhere.
            let from = usize::from(self.process.bytes().last().unwrap_or_default()) % sessions.len().max(1);
            let mut is_done = true;
            for session in sessions[from..].iter().chain(&sessions[..from]) {
                if let Err(Trouble(reason)) = self.take(session, true).await {
                    tracing::warn!(session = session.as_str(), "a session cannot go on here yet: {reason}");
                    is_done = false;
                }
            }
            if is_done {
                // Whoever is next finds nothing to do.
                let _ = timeout(PATIENCE, stores.rows.delete(self.due_key(process))).await;
            }
        }
    }

    /// Nothing is made here any more.
    pub(in super::super) async fn leave(&self) {
        let is_empty = lock(&self.due).wanted.is_empty();
        if let Ok(stores) = self.stores()
            && is_empty
        {
            let _ = timeout(PATIENCE, stores.rows.delete(self.due_key(&self.process))).await;
        }
    }
}

async fn fetch(sounds: &ObjectStore, id: AudioId) -> Result<Bytes, Trouble> {
    let mut object = sounds.get(id.to_string()).await?;
    let mut bytes = Vec::with_capacity(object.info().size);
    object.read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}
