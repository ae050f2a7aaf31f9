//! Which models were loaded for leases, who holds them, and which goes next.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::super::{ModelInfo, RenderInfo, RenderKey, RenderModel};
use crate::units::ModelId;

/// A model's name, whatever it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Voices(ModelId),
    Render(RenderKey),
}

struct Entry {
    key: Key,
    users: usize,
    /// It is being unloaded, or will be once nobody holds it.
    leaving: bool,
    /// A voices' model lies in the engine, which knows its size.
    model: Option<RenderModel>,
    bytes: u64,
    wanted: Instant,
}

/// What had to go.
pub(super) enum Evicted {
    /// The engine has yet to remove it.
    Voices(ModelId),
    /// It is gone.
    Render(RenderKey),
}

/// The latest wanted last.
#[derive(Default)]
pub(super) struct Shelf(Mutex<Vec<Entry>>);

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Every change is one statement: a panicking holder leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a model that was just loaded in, held once.
    pub(super) fn add(&self, key: Key, model: Option<RenderModel>, bytes: u64) {
        let entry = Entry { key, users: 1, leaving: false, model, bytes, wanted: Instant::now() };
        self.entries().push(entry);
    }

    /// One more user of a voices' model; `false` when it is about to leave. One that is not here is
    /// the operator's.
    pub(super) fn hold_voices(&self, key: &Key) -> bool {
        let mut entries = self.entries();
        let Some(at) = entries.iter().position(|entry| entry.key == *key) else { return true };
        if entries[at].leaving {
            return false;
        }
        touch(&mut entries, at);
        true
    }

    /// One more user of a model that renders, if it is here. It stays, if it was to go with its
    /// last user.
    pub(super) fn hold_render(&self, key: &Key) -> Option<RenderModel> {
        let mut entries = self.entries();
        let at = entries.iter().position(|entry| entry.key == *key)?;
        let entry = touch(&mut entries, at);
        entry.leaving = false;
        entry.model.clone()
    }

    /// A voices' model is its operator's from now on, and stays whoever wants memory.
    pub(super) fn hand_over(&self, key: &Key) {
        self.entries().retain(|entry| entry.key != *key);
    }

    /// One user less.
    pub(super) fn let_go(&self, key: &Key) {
        let mut entries = self.entries();
        let Some(at) = entries.iter().position(|entry| entry.key == *key) else { return };
        let entry = &mut entries[at];
        entry.users = entry.users.saturating_sub(1);
        let gone = (entry.users == 0 && entry.leaving && entry.model.is_some()).then(|| entries.remove(at));
        // Freeing gigabytes takes a moment.
        drop(entries);
        drop(gone);
    }

    /// Lets a model that renders go, now or with its last user.
    pub(super) fn release(&self, key: &Key) {
        let mut entries = self.entries();
        let Some(at) = entries.iter().position(|entry| entry.key == *key) else { return };
        entries[at].leaving = true;
        let gone = (entries[at].users == 0).then(|| entries.remove(at));
        drop(entries);
        drop(gone);
    }

    /// Takes the model out that nobody holds and that was not wanted for longest, but for those
    /// that play.
    pub(super) fn evict(&self, playing: &HashSet<ModelId>) -> Option<Evicted> {
        let mut entries = self.entries();
        let free = |entry: &Entry| entry.users == 0 && !matches!(&entry.key, Key::Voices(id) if playing.contains(id));
        let at = entries.iter().position(free)?;
        match entries[at].key.clone() {
            Key::Voices(id) => {
                entries[at].leaving = true;
                Some(Evicted::Voices(id))
            }
            Key::Render(key) => {
                let gone = entries.remove(at);
                drop(entries);
                drop(gone);
                Some(Evicted::Render(key))
            }
        }
    }

    /// Forgets the voices' models that are not loaded any more; those that are stay.
    pub(super) fn keep_loaded(&self, loaded: &[Arc<ModelInfo>]) {
        let mut entries = self.entries();
        let is_loaded = |id: &ModelId| loaded.iter().any(|model| model.id == *id);
        entries.retain(|entry| !matches!(&entry.key, Key::Voices(id) if entry.users == 0 && !is_loaded(id)));
        let voices = entries.iter_mut().filter(|entry| matches!(entry.key, Key::Voices(_)));
        voices.for_each(|entry| entry.leaving = false);
    }

    /// Bytes of the voices' models that are not for anybody here to unload.
    pub(super) fn fixed(&self, loaded: &[Arc<ModelInfo>], playing: &HashSet<ModelId>) -> u64 {
        let entries = self.entries();
        let ours = |id: &ModelId| {
            let is = |entry: &Entry| matches!(&entry.key, Key::Voices(known) if known == id);
            !playing.contains(id) && entries.iter().any(is)
        };
        loaded.iter().filter(|model| !ours(&model.id)).map(|model| model.bytes).sum()
    }

    /// Bytes of the models that render.
    pub(super) fn render_bytes(&self) -> u64 {
        self.entries().iter().map(|entry| entry.bytes).sum()
    }

    /// The models that render and stay.
    pub(super) fn renders(&self) -> Vec<(RenderKey, RenderInfo)> {
        let entries = self.entries();
        let staying = entries.iter().filter(|entry| !entry.leaving);
        staying
            .filter_map(|entry| match (&entry.key, &entry.model) {
                (Key::Render(key), Some(model)) => Some((key.clone(), model.info())),
                _ => None,
            })
            .collect()
    }

    /// When a model was last wanted.
    pub(super) fn wanted(&self, key: &Key) -> Option<Instant> {
        self.entries().iter().find(|entry| entry.key == *key).map(|entry| entry.wanted)
    }
}

/// Counts a user of the entry, which is the latest wanted now.
fn touch(entries: &mut Vec<Entry>, at: usize) -> &mut Entry {
    let mut entry = entries.remove(at);
    entry.users += 1;
    entry.wanted = Instant::now();
    let last = entries.len();
    entries.push(entry);
    &mut entries[last]
}
