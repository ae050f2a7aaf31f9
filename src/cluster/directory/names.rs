//! Names: of two streams that want the same one, one gets it.

use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, UpdateErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::link::{PATIENCE, Trouble};
use super::{Directory, SETTLING};
use crate::station::{Directory as _, StationError};

/// Who has a name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) id: String,
    node: String,
    process: String,
}

/// Names have any letters, keys have not.
pub(super) fn name_key(name: &str) -> String {
    format!("name.{}", URL_SAFE_NO_PAD.encode(name))
}

impl Directory {
    pub(super) async fn give_back(&self, name: &str, id: &str) -> Result<(), Trouble> {
        let Ok(store) = self.store() else { return Ok(()) };
        let key = name_key(name);
        let claim = store.entry(&key).await?.filter(|entry| entry.operation == Operation::Put);
        let is_this = |value: &[u8]| serde_json::from_slice::<Claim>(value).is_ok_and(|claim| claim.id == id);
        if let Some(claim) = claim.filter(|claim| is_this(&claim.value)) {
            let _ = store.delete_expect_revision(&key, Some(claim.revision)).await;
        }
        Ok(())
    }

    /// Takes a name for a stream.
    pub(super) async fn take(&self, name: &str, id: &str) -> Result<(), StationError> {
        // Without the others it is taken when they are there again.
        let Ok(store) = self.store() else { return Ok(()) };
        let taken = self.try_take(&store, name, id);
        match timeout(PATIENCE, taken).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(StationError::NameTaken(name.to_owned())),
            Ok(Err(Trouble(reason))) => {
                tracing::warn!(station = name, "the name cannot be taken now: {reason}");
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    async fn try_take(&self, store: &kv::Store, name: &str, id: &str) -> Result<bool, Trouble> {
        let (key, until) = (name_key(name), Instant::now() + SETTLING);
        let claim = Claim { id: id.to_owned(), node: self.node.clone(), process: self.process.clone() };
        let claim: bytes::Bytes = serde_json::to_vec(&claim)?.into();
        let mut claims = None;
        loop {
            match store.create(&key, claim.clone()).await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            let held = store.entry(&key).await?.filter(|entry| entry.operation == Operation::Put);
            let Some(held) = held else { continue };
            let holder: Claim = serde_json::from_slice(&held.value)?;
            if holder.id == id && holder.process == self.process {
                return Ok(true);
            }
            let is_left = match holder.node == self.node {
                true => holder.process != self.process || holder.id == id,
                false => holder.id == id || self.nodes.is_gone(&holder.node),
            };
            // What a node that is gone has left may go on at another one.
            if is_left && !self.is_elsewhere(&holder.id) {
                match store.update(&key, claim.clone(), held.revision).await {
                    Ok(_) => return Ok(true),
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            // Its stream plays, or is about to begin or has just ended.
            if self.known(&holder.id).is_some() || Instant::now() >= until {
                return Ok(false);
            }
            let claims = match &mut claims {
                Some(claims) => claims,
                // What changed before this is looked at once more.
                none => {
                    *none = Some(store.watch(&key).await?);
                    continue;
                }
            };
            tokio::select! {
                Some(_) = claims.next() => {}
                () = self.until(|| self.known(&holder.id).is_some()) => {}
                () = sleep_until(until) => {}
            }
        }
    }
}
