//! The columns of a voice in the KV pool: which are read, and which is fed next.

use std::sync::atomic::Ordering;

use super::super::{ModelInfo, Slot};
use super::VoiceState;

/// A place in the KV pool that holds the voice's recent columns.
pub(in crate::engine) struct Window {
    pub(in crate::engine) slot: Slot,
    /// Column at position 0.
    pub(in crate::engine) start: u64,
    /// Positions whose keys and values are there.
    pub(in crate::engine) filled: u64,
    /// The voice had this many columns when the window took over.
    pub(super) since: u64,
}

impl VoiceState {
    /// The newest known column: the one to feed next.
    pub(super) fn newest(&self) -> u64 {
        self.codes.columns() - 1
    }

    /// Begins a window in `slot` over the last `keep` frames, or over the whole run while that is
    /// short. A piece that has not begun is given as much of its prefix as leaves room for the
    /// rest.
    pub(in crate::engine) fn open_window(&mut self, slot: Slot) {
        let newest = self.newest();
        let mut start = newest.saturating_sub(self.info.keep as u64).max(self.guard.fence());
        if let (Some(end), 0) = (self.end, self.codes.sampled()) {
            start = start.min((self.codes.columns_for(end) - 1).saturating_sub(self.full));
        }
        self.windows.push(Window { slot, start, filled: 0, since: self.codes.columns() });
    }

    /// Gives up every window: slots to return to the pool.
    pub(in crate::engine) fn close_windows(&mut self) -> impl Iterator<Item = Slot> + use<> {
        std::mem::take(&mut self.windows).into_iter().map(|window| window.slot)
    }

    /// Gives up a window that only a rewind could still need.
    pub(in crate::engine) fn close_old_window(&mut self) -> Option<Slot> {
        (self.windows.len() > 1).then(|| self.windows.remove(0).slot)
    }

    /// The next columns to read into the window: their first position and their ids.
    pub(in crate::engine) fn prefill_ids(&self, most: usize, out: &mut Vec<u32>) -> Option<(Slot, usize, usize)> {
        let window = self.windows.last()?;
        let missing = (self.newest() - window.start - window.filled).min(most as u64);
        for column in window.start + window.filled..window.start + window.filled + missing {
            self.codes.window_column(column, window.start, out);
        }
        Some((window.slot, window.filled as usize, missing as usize))
    }

    pub(in crate::engine) fn prefilled(&mut self, columns: usize) {
        if let Some(window) = self.windows.last_mut() {
            window.filled += columns as u64;
        }
    }

    /// The column to feed: slot, position, draw; ids are appended to `out`.
    pub(in crate::engine) fn step_ids(&self, out: &mut Vec<u32>) -> Option<(Slot, usize, u64)> {
        let window = self.windows.last()?;
        self.codes.window_column(self.newest(), window.start, out);
        Some((
            window.slot,
            (self.newest() - window.start) as usize,
            self.guard.draw(self.draw_base + self.codes.columns()),
        ))
    }

    /// Takes the sampled column.
    pub(in crate::engine) fn stepped(&mut self, column: &[u32]) {
        self.codes.push(column, self.end);
        self.writer.shared().steps.store(self.codes.sampled(), Ordering::Relaxed);
        let newest = self.newest();
        if let Some(window) = self.windows.last_mut() {
            window.filled = newest - window.start;
        }
    }

    /// A window that no rewind can reach any more.
    pub(in crate::engine) fn release_unreachable(&mut self) -> Option<Slot> {
        let reachable = self.codes.columns_for(self.snapshots[0].fed);
        (self.windows.len() > 1 && self.windows[1].since <= reachable).then(|| self.windows.remove(0).slot)
    }

    pub(super) fn rewind_windows(&mut self) -> Vec<Slot> {
        let columns = self.codes.columns();
        let mut freed = Vec::new();
        while self.windows.len() > 1 && self.windows.last().is_some_and(|window| window.since > columns) {
            freed.extend(self.windows.pop().map(|window| window.slot));
        }
        let newest = self.newest();
        match self.windows.last_mut() {
            Some(window) if window.start <= newest => window.filled = window.filled.min(newest - window.start),
            _ => freed.extend(self.close_windows()),
        }
        freed
    }
}

/// See [`VoiceState::full`]; a voice with an end has all of the window, so that a piece of its
/// length is read once.
pub(super) fn full_window(info: &ModelInfo, seed: u64, end: Option<u64>) -> u64 {
    let window = info.window as u64;
    let stagger = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    if end.is_some() { window - 1 } else { window - 1 - stagger % (window / 8).max(1) }
}
