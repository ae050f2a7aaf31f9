//! The running sets: one per `POST /generate`, so that two clients never meet in one list of
//! prompts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::engine::{EngineError, Steer, VoiceControl};
use crate::http::HttpError;
use crate::http::client::Client;

/// All sets that play now.
#[derive(Default)]
pub(super) struct Sets {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last_id: u64,
    running: BTreeMap<u64, Arc<Set>>,
}

/// The voices of one request.
pub(super) struct Set {
    pub id: u64,
    /// Who asked for it.
    client: IpAddr,
    prompts: tokio::sync::Mutex<Vec<String>>,
    controls: Vec<VoiceControl>,
    /// Cancelled by an empty list of prompts: the set ends after its round.
    pub over: CancellationToken,
}

/// Keeps a set in the list while it plays.
pub(super) struct Running {
    sets: Arc<Sets>,
    pub set: Arc<Set>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sets.lock().running.remove(&self.set.id);
    }
}

impl Sets {
    /// Enters a set; it leaves the list when the result is dropped.
    pub fn add(self: &Arc<Self>, client: &Client, prompts: Vec<String>, controls: Vec<VoiceControl>) -> Running {
        let mut inner = self.lock();
        inner.last_id += 1;
        let prompts = tokio::sync::Mutex::new(prompts);
        let set = Arc::new(Set {
            id: inner.last_id,
            client: client.address,
            prompts,
            controls,
            over: CancellationToken::new(),
        });
        inner.running.insert(set.id, Arc::clone(&set));
        Running { sets: Arc::clone(self), set }
    }

    pub fn get(&self, id: u64) -> Option<Arc<Set>> {
        self.lock().running.get(&id).cloned()
    }

    /// The set begun last, by `client` if it has one.
    pub fn newest(&self, client: &Client) -> Option<Arc<Set>> {
        let inner = self.lock();
        let own = inner.running.values().rev().find(|set| set.client == client.address);
        own.or_else(|| inner.running.values().next_back()).cloned()
    }

    /// The voices of every set.
    pub fn voices(&self) -> Vec<VoiceControl> {
        self.lock().running.values().flat_map(|set| set.controls.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The list is consistent between any two statements under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    /// Replaces prompts in place, as the original does: extra ones are ignored, missing ones keep
    /// the old text, and none at all ends the set after its round.
    pub async fn change(&self, wanted: &[String]) -> Result<(), HttpError> {
        if wanted.is_empty() {
            self.over.cancel();
            return Ok(());
        }
        let mut prompts = self.prompts.lock().await;
        let places = prompts.iter_mut().zip(wanted).zip(&self.controls);
        let changed: Vec<_> = places.filter(|((old, new), _)| old != new).collect();
        let steers = changed.into_iter().map(|((old, new), control)| async move {
            let steer = Steer { prompts: Some(vec![new.as_str().into()]), ..Steer::default() };
            match control.steer(steer).await {
                // The client has just gone away; nobody hears the difference.
                Err(EngineError::Gone(_)) => Ok(()),
                Err(error) => Err(error),
                Ok(_) => {
                    old.clone_from(new);
                    Ok(())
                }
            }
        });
        join_all(steers).await.into_iter().collect::<Result<(), EngineError>>().map_err(super::bad_prompt)
    }
}
