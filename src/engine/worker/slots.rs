//! Who has a place in the KV pool.

use std::sync::Arc;

use super::Worker;
use crate::engine::voice_state::VoiceState;
use crate::engine::{Priority, Slot};

impl Worker {
    /// A free slot, if need be from a window that only a rewind could still want, then from a voice
    /// that gives way, in the last resort the voice's own.
    pub(super) fn slot(&mut self, model: usize, voice: usize) -> Option<Slot> {
        if let Some(slot) = self.models[model].take_slot() {
            return Some(slot);
        }
        let info = &self.models[model].info;
        let old = self.voices.iter_mut().filter(|other| Arc::ptr_eq(&other.info, info));
        if let Some(slot) = old.into_iter().find_map(VoiceState::close_old_window) {
            return Some(slot);
        }
        if let Some(slot) = self.voices[voice].close_windows().last() {
            return Some(slot);
        }
        if self.voices[voice].priority == Priority::Spare {
            return None;
        }
        let info = &self.models[model].info;
        let mut spare =
            self.voices.iter_mut().filter(|other| other.priority == Priority::Spare && Arc::ptr_eq(&other.info, info));
        spare.find_map(|other| other.close_windows().last())
    }
}
