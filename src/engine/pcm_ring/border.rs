//! The border between what the reader has taken and what the writer may still take back, in one
//! atomic word. `tests/loom.rs` includes this file and tries every order of its steps.

use super::sync::{AtomicU64, Ordering};

const EPOCH_SHIFT: u32 = 48;
const SAMPLES_MASK: u64 = (1 << EPOCH_SHIFT) - 1;

pub(super) struct Border {
    /// Epoch in the upper 16 bits, committed samples in the lower 48 (280 years at 32 kHz).
    word: AtomicU64,
    /// First sample that the cut which began epoch `e` took away, at index `e % 2`: the writer
    /// prepares the next epoch's place while the reader may still use the present one's.
    cuts: [AtomicU64; 2],
}

/// What the reader saw at one moment.
pub(super) struct Seen {
    word: u64,
    pub(super) epoch: u32,
    /// Where the cut that began this epoch lies.
    pub(super) cut: u64,
}

fn pack(epoch: u32, committed: u64) -> u64 {
    (u64::from(epoch) << EPOCH_SHIFT) | (committed & SAMPLES_MASK)
}

fn unpack(word: u64) -> (u32, u64) {
    ((word >> EPOCH_SHIFT) as u32, word & SAMPLES_MASK)
}

impl Border {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), cuts: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)] }
    }

    /// Samples that the reader can no longer be denied.
    pub(super) fn committed(&self) -> u64 {
        unpack(self.word.load(Ordering::Acquire)).1
    }

    /// The writer's: raises the epoch, with a cut at a place that `choose` picks at or after the
    /// committed position that it is given. Returns the new epoch and the cut; `None` when nothing
    /// was chosen.
    pub(super) fn cut(&self, mut choose: impl FnMut(u64) -> Option<u64>) -> Option<(u32, u64)> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let (epoch, committed) = unpack(word);
            let at = choose(committed)?;
            let next = (epoch + 1) & 0xffff;
            self.cuts[next as usize % 2].store(at, Ordering::Release);
            match self.word.compare_exchange(word, pack(next, committed), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((next, at)),
                Err(seen) => word = seen,
            }
        }
    }

    /// The reader's: the present epoch and its cut. `None` while the writer changes them.
    pub(super) fn look(&self) -> Option<Seen> {
        let word = self.word.load(Ordering::Acquire);
        let epoch = unpack(word).0;
        let cut = self.cuts[epoch as usize % 2].load(Ordering::Acquire);
        // Else the place may already belong to the epoch after the next.
        let same = unpack(self.word.load(Ordering::Acquire)).0 == epoch;
        same.then_some(Seen { word, epoch, cut })
    }

    /// The reader's: commits to `take` more samples, unless the writer has cut since `seen`.
    pub(super) fn commit(&self, seen: &Seen, take: u64) -> bool {
        let (epoch, committed) = unpack(seen.word);
        let next = pack(epoch, committed + take);
        self.word.compare_exchange(seen.word, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
