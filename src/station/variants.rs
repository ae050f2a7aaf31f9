//! Who listens to a stream, and to which variant: the meeting point of listeners and the stream's
//! task.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Listen;
use super::hls::Presentation;
use super::page_ring::PageRing;
use crate::audio::OPUS_RATE;

/// Sound that a low-latency listener gets at once, in frames: enough for a page's jitter, little
/// enough to steer by.
pub(super) const LOW_LATENCY_BURST: u64 = OPUS_RATE as u64 * 6 / 25;

/// How far behind a listener may be beyond the burst before it skips, in frames.
const SLACK: u64 = OPUS_RATE as u64 * 10;

/// Sound that is written to a listener at once, in frames: three full pages.
const BATCH: u64 = OPUS_RATE as u64 * 3 / 5;

/// The rings of a stream, one per variant that somebody listens to.
pub(super) struct Variants {
    burst: u64,
    /// Everybody waits for sound: who comes now must not begin with what was played before.
    still: AtomicBool,
    variants: Mutex<Option<Vec<Variant>>>,
    /// For those who listen by HLS.
    presentation: Arc<Presentation>,
    /// Those who hear the stream in another way.
    guests: AtomicUsize,
    /// Pages keep what other nodes need.
    shared: bool,
    /// Seats that stand for the listeners of other nodes, and how many those are.
    sent: AtomicUsize,
    abroad: AtomicUsize,
}

/// One way to listen, and its pages.
#[derive(Clone)]
pub(super) struct Variant {
    pub(super) listen: Listen,
    pub(super) ring: Arc<PageRing>,
    /// Where those go on who have heard another node until now.
    pub(super) from: Option<u64>,
}

/// Somebody who counts as a listener until this is dropped.
pub(super) struct Guest(Arc<Variants>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many listen, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audience {
    pub(super) listeners: usize,
    /// Somebody wants low latency.
    pub(super) low_latency: bool,
    /// Somebody wants the full burst.
    pub(super) full_burst: bool,
}

impl Variants {
    /// `burst` is in frames.
    pub(super) fn new(burst: u64, presentation: Presentation, shared: bool) -> Self {
        Self {
            burst,
            still: AtomicBool::new(false),
            variants: Mutex::new(Some(Vec::new())),
            guests: AtomicUsize::new(0),
            presentation: Arc::new(presentation),
            shared,
            sent: AtomicUsize::new(0),
            abroad: AtomicUsize::new(0),
        }
    }

    pub(super) fn presentation(&self) -> &Arc<Presentation> {
        &self.presentation
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Variant>>> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames that a new listener gets at once.
    pub(super) fn burst(&self, low_latency: bool) -> u64 {
        if low_latency { self.burst.min(LOW_LATENCY_BURST) } else { self.burst }
    }

    /// Sound stands still, or is played again.
    pub(super) fn set_still(&self, still: bool) {
        self.still.store(still, Ordering::Relaxed);
    }

    /// Takes a seat at a variant's ring, which comes into being with its first listener. `None`
    /// once closed.
    pub(super) fn join(&self, listen: Listen, given_up: CancellationToken) -> Option<(Arc<PageRing>, usize)> {
        let burst = if self.still.load(Ordering::Relaxed) { 0 } else { self.burst(listen.low_latency) };
        self.seat(listen, burst, given_up, None)
    }

    /// Takes a seat for the listeners of other nodes, who are sent separately what they begin with.
    pub(super) fn join_abroad(&self, listen: Listen, from: Option<u64>) -> Option<(Arc<PageRing>, usize)> {
        let seat = self.seat(listen, 0, CancellationToken::new(), from)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Some(seat)
    }

    pub(super) fn leave_abroad(&self, ring: &PageRing, seat: usize) {
        ring.leave(seat);
        self.sent.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn set_abroad(&self, count: usize) {
        self.abroad.store(count, Ordering::Relaxed);
    }

    /// Listeners, wherever they are.
    pub(super) fn listeners(&self) -> usize {
        let sent = self.sent.load(Ordering::Relaxed);
        self.audience().listeners.saturating_sub(sent) + self.abroad.load(Ordering::Relaxed)
    }

    /// Whether nothing more comes for anybody who listens.
    pub(super) fn is_over(&self) -> bool {
        self.lock().iter().flatten().all(|variant| variant.ring.is_closed())
    }

    /// Takes a seat that begins with all that is there.
    pub(super) fn join_at_once(&self, listen: Listen) -> Option<(Arc<PageRing>, usize)> {
        self.seat(listen, u64::MAX, CancellationToken::new(), None)
    }

    /// Whether somebody listens at another node.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > 0
    }

    /// Whether other nodes may want its pages.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    fn seat(
        &self,
        listen: Listen,
        burst: u64,
        given_up: CancellationToken,
        from: Option<u64>,
    ) -> Option<(Arc<PageRing>, usize)> {
        let mut variants = self.lock();
        let variants = variants.as_mut()?;
        let ring = match variants.iter().find(|variant| variant.listen == listen) {
            Some(variant) => variant.ring.clone(),
            None => {
                let batch = if listen.low_latency { 0 } else { BATCH.min(self.burst / 3) };
                let ring = Arc::new(PageRing::new(self.burst + SLACK, batch, self.shared));
                variants.push(Variant { listen, ring: ring.clone(), from });
                ring
            }
        };
        let seat = ring.join(burst, given_up);
        Some((ring, seat))
    }

    /// Counts somebody who hears the stream in another way than by its rings.
    pub(super) fn guest(self: &Arc<Self>) -> Guest {
        self.guests.fetch_add(1, Ordering::Relaxed);
        Guest(Arc::clone(self))
    }

    pub(super) fn audience(&self) -> Audience {
        let followers = self.presentation.followers();
        let variants = self.lock();
        let guests = self.guests.load(Ordering::Relaxed);
        let mut audience = Audience { listeners: guests + followers, low_latency: false, full_burst: followers > 0 };
        for variant in variants.iter().flatten() {
            let listening = variant.ring.listening();
            audience.listeners += listening;
            audience.low_latency |= listening > 0 && variant.listen.low_latency;
            audience.full_burst |= listening > 0 && !variant.listen.low_latency;
        }
        audience
    }

    /// The variants that somebody listens to; forgets the others.
    pub(super) fn heard(&self) -> Vec<Variant> {
        let mut variants = self.lock();
        let Some(variants) = variants.as_mut() else { return Vec::new() };
        variants.retain(|variant| variant.ring.listening() > 0);
        variants.clone()
    }

    /// Gives up listeners that have taken nothing for `patience`. Returns how many.
    pub(super) fn give_up_stuck(&self, patience: Duration) -> usize {
        self.lock().iter().flatten().map(|variant| variant.ring.give_up_stuck(patience)).sum()
    }

    /// Ends every ring and lets nobody in any more.
    pub(super) fn close(&self) {
        for variant in self.lock().take().into_iter().flatten() {
            variant.ring.close();
        }
        self.presentation.close();
    }
}
