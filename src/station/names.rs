//! Names of streams that are about to be: each belongs to whoever asked first.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names that are taken, but not by a stream yet.
#[derive(Default)]
pub(super) struct Names(Mutex<HashSet<String>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name until the claim is dropped; `None` if somebody else is about to have it.
    pub(super) fn claim(&self, name: &str) -> Option<Claim<'_>> {
        self.lock().insert(name.to_owned()).then(|| Claim { names: self, name: name.to_owned() })
    }
}

/// A name that is taken.
pub(super) struct Claim<'a> {
    names: &'a Names,
    name: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.names.lock().remove(&self.name);
    }
}
