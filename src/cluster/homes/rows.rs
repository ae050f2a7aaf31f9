//! What is written of sessions, under which keys, and by which revision.

use std::collections::HashSet;

use async_nats::jetstream::kv::{CreateErrorKind, Operation, UpdateErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::super::link::{PATIENCE, Trouble};
use super::{Homes, Stores};
use crate::studio::{AudioId, ClipId, SessionId};

/// What is written of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) node: String,
    /// Tells processes of that name apart.
    pub(super) process: String,
    /// Raised at every change of the process that has it.
    pub(super) generation: u64,
    pub(super) is_unfinished: bool,
    pub(super) sounds: Vec<String>,
    pub(super) clips: Vec<String>,
    /// What the studio's table has of it.
    pub(super) rows: String,
}

impl Row {
    pub(super) fn sounds(&self) -> HashSet<AudioId> {
        self.sounds.iter().filter_map(|id| id.parse().ok()).collect()
    }

    pub(super) fn clips(&self) -> HashSet<ClipId> {
        self.clips.iter().filter_map(|id| id.parse().ok()).collect()
    }
}

/// Ids of sessions may have dots, keys have a meaning for them.
pub(super) fn session_key(session: &SessionId) -> String {
    format!("session.{}", URL_SAFE_NO_PAD.encode(session.as_str()))
}

pub(super) fn clip_key(clip: ClipId) -> String {
    format!("clip.{clip}")
}

impl Homes {
    pub(super) async fn read(&self, stores: &Stores, key: &str) -> Result<Option<(Bytes, u64)>, Trouble> {
        let entry = timeout(PATIENCE, stores.rows.entry(key)).await??;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.map(|entry| (entry.value, entry.revision)))
    }

    pub(super) async fn written(&self, stores: &Stores, session: &SessionId) -> Result<Option<(Row, u64)>, Trouble> {
        let Some((value, revision)) = self.read(stores, &session_key(session)).await? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&value)?, revision)))
    }

    /// Writes a session's row; gives its revision, or nothing if the row is another one by now.
    pub(super) async fn write(
        &self,
        stores: &Stores,
        session: &SessionId,
        row: &Row,
        revision: Option<u64>,
    ) -> Result<Option<u64>, Trouble> {
        let (key, value) = (session_key(session), Bytes::from(serde_json::to_vec(row)?));
        match revision {
            Some(revision) => match timeout(PATIENCE, stores.rows.update(&key, value, revision)).await? {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(error) => Err(error.into()),
            },
            None => match timeout(PATIENCE, stores.rows.create(&key, value)).await? {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }
}
