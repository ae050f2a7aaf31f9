//! The door through which members come to a kernel and behind which the caller waits for them.
//! `tests/loom.rs` includes this file and tries every order of its steps.

use super::sync::{AtomicBool, AtomicUsize, Ordering, fence};

/// While it is open, members may enter and use what the caller has laid out; it is laid out and
/// taken away while the door is closed and nobody is inside.
pub(super) struct Door {
    /// Odd while it is open.
    round: AtomicUsize,
    /// Members that may be inside.
    inside: AtomicUsize,
}

impl Door {
    pub(super) fn new() -> Self {
        Self { round: AtomicUsize::new(0), inside: AtomicUsize::new(0) }
    }

    /// The caller's: lets members in. Whoever has to be woken says so by [`Asleep::is`] afterwards.
    pub(super) fn open(&self) {
        self.round.fetch_add(1, Ordering::Release);
        // Before the caller asks who is asleep: see `Asleep::fall`.
        fence(Ordering::SeqCst);
    }

    /// The caller's: lets nobody in any more, and calls `wait` until those inside have left.
    pub(super) fn close(&self, mut wait: impl FnMut()) {
        self.round.fetch_add(1, Ordering::Release);
        // Either this sees a member inside, or that one sees the door closed.
        fence(Ordering::SeqCst);
        while self.inside.load(Ordering::Acquire) != 0 {
            wait();
        }
    }

    /// A glance, not to be relied on: whether it is open for a member that has been inside in round
    /// `done`.
    pub(super) fn is_open(&self, done: usize) -> bool {
        let round = self.round.load(Ordering::Relaxed);
        round % 2 == 1 && round != done
    }

    /// A member's: the round, if it is inside now. Either way it has to [`leave`](Self::leave).
    pub(super) fn enter(&self) -> Option<usize> {
        self.inside.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let round = self.round.load(Ordering::Acquire);
        (round % 2 == 1).then_some(round)
    }

    /// A member's.
    pub(super) fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::Release);
    }
}

/// Whether a member sleeps, or is about to.
pub(super) struct Asleep(AtomicBool);

impl Asleep {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The member's: it looks at the door once more behind this, before it parks.
    pub(super) fn fall(&self) {
        self.0.store(true, Ordering::Relaxed);
        // Either the member sees the door open, or the caller sees it asleep.
        fence(Ordering::SeqCst);
    }

    /// The member's.
    pub(super) fn wake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// The caller's, behind [`Door::open`].
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
