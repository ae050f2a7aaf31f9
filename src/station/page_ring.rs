//! The bounded ring of pages from which all listeners of one variant read.
//!
//! A listener is a seat: a cursor and a waker. The writer never waits for anyone: it appends, drops
//! what is too old, and wakes the seats that sleep, once per batch of pages: players have seconds
//! in store, and a write of three pages costs the machine little more than a write of one. A seat
//! whose page is gone goes on at the live edge; one that takes nothing for too long is given up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audio::{Packet, PageBody, Span};
use crate::telemetry::LISTENER_SKIPS;

/// A piece of the stream that is sent as a whole.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) at: Span,
    pub(super) body: Box<dyn PageBody>,
    /// What it is made of, where other nodes may want it.
    pub(super) packets: Vec<Packet>,
}

/// Pages and the seats that read them.
pub(super) struct PageRing {
    /// Frames kept for listeners that are behind.
    capacity: u64,
    /// Frames that may wait for company before the seats are woken.
    batch: u64,
    /// Whether pages keep their packets.
    pub(super) keeps_packets: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pages: VecDeque<Arc<Page>>,
    /// Number of the page at the front.
    first: u64,
    closed: bool,
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    /// Seats that are taken and not given up.
    listening: usize,
    /// Frames for which nobody was woken yet.
    unannounced: u64,
}

struct Seat {
    /// Number of the next page to take.
    cursor: u64,
    waker: Option<Waker>,
    /// Since when a page waits for this seat without its taking any.
    behind_since: Option<Instant>,
    skips: u64,
    given_up: CancellationToken,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.pages.len() as u64
    }

    /// Takes the wakers of all seats that sleep.
    fn sleepers(&mut self, scratch: &mut Vec<Waker>) {
        self.unannounced = 0;
        scratch.extend(self.seats.iter_mut().flatten().filter_map(|seat| seat.waker.take()));
    }
}

impl PageRing {
    pub(super) fn new(capacity: u64, batch: u64, keeps_packets: bool) -> Self {
        Self { capacity, batch, keeps_packets, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat that begins `burst` frames before the live edge.
    pub(super) fn join(&self, burst: u64, given_up: CancellationToken) -> usize {
        let mut state = self.lock();
        let from = state.pages.back().map_or(0, |page| page.at.end.saturating_sub(burst));
        let behind = state.pages.iter().take_while(|page| page.at.end <= from).count();
        let cursor = state.first + behind as u64;
        let behind_since = (cursor < state.next()).then(Instant::now);
        let seat = Some(Seat { cursor, waker: None, behind_since, skips: 0, given_up });
        state.listening += 1;
        match state.free.pop() {
            Some(index) => {
                state.seats[index] = seat;
                index
            }
            None => {
                state.seats.push(seat);
                state.seats.len() - 1
            }
        }
    }

    /// Gives a seat back.
    pub(super) fn leave(&self, seat: usize) {
        let mut state = self.lock();
        if let Some(left) = state.seats[seat].take() {
            state.free.push(seat);
            state.listening -= usize::from(!left.given_up.is_cancelled());
        }
    }

    /// Seats that are taken, without those that were given up.
    pub(super) fn listening(&self) -> usize {
        self.lock().listening
    }

    /// Appends a page, and wakes everybody who waits for one if that completes a batch. `scratch`
    /// is kept to spare allocations.
    pub(super) fn publish(&self, page: Page, scratch: &mut Vec<Waker>) {
        let oldest = page.at.end.saturating_sub(self.capacity);
        {
            let mut state = self.lock();
            state.closed |= page.at.last;
            state.unannounced += page.at.frames();
            state.pages.push_back(Arc::new(page));
            // The newest page always stays, so that whoever skips finds one.
            while state.pages.len() > 1 && state.pages[0].at.end <= oldest {
                state.pages.pop_front();
                state.first += 1;
            }
            let now = Instant::now();
            for seat in state.seats.iter_mut().flatten() {
                seat.behind_since.get_or_insert(now);
            }
            if state.closed || state.unannounced >= self.batch {
                state.sleepers(scratch);
            }
        }
        scratch.drain(..).for_each(Waker::wake);
    }

    /// Wakes everybody for what is there: more may be long in coming.
    pub(super) fn announce(&self, scratch: &mut Vec<Waker>) {
        {
            let mut state = self.lock();
            if state.unannounced > 0 {
                state.sleepers(scratch);
            }
        }
        scratch.drain(..).for_each(Waker::wake);
    }

    /// Ends the ring: listeners end after the last page.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut sleepers = Vec::new();
        state.sleepers(&mut sleepers);
        drop(state);
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// Whether nothing follows.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The next page for `seat`; `None` when nothing follows.
    pub(super) fn poll_next(&self, seat: usize, context: &mut Context<'_>) -> Poll<Option<Arc<Page>>> {
        let mut state = self.lock();
        let (first, next, closed) = (state.first, state.next(), state.closed);
        let State { seats, pages, .. } = &mut *state;
        let Some(seat) = seats[seat].as_mut().filter(|seat| !seat.given_up.is_cancelled()) else {
            return Poll::Ready(None);
        };
        if seat.cursor < first {
            seat.cursor = next - 1;
            seat.skips += 1;
            counter!(LISTENER_SKIPS).increment(1);
        }
        if let Some(page) = pages.get((seat.cursor - first) as usize) {
            seat.cursor += 1;
            seat.behind_since = (seat.cursor < next).then(Instant::now);
            return Poll::Ready(Some(page.clone()));
        }
        if closed {
            return Poll::Ready(None);
        }
        match &mut seat.waker {
            Some(waker) => waker.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Times that `seat` was moved to the live edge.
    pub(super) fn skips(&self, seat: usize) -> u64 {
        self.lock().seats[seat].as_ref().map_or(0, |seat| seat.skips)
    }

    /// Gives up every seat that has taken nothing for `patience`, although there was something.
    /// Returns how many.
    pub(super) fn give_up_stuck(&self, patience: Duration) -> usize {
        let now = Instant::now();
        let mut state = self.lock();
        let stuck: Vec<_> = state
            .seats
            .iter_mut()
            .flatten()
            .filter(|seat| seat.behind_since.is_some_and(|since| now.duration_since(since) > patience))
            .filter(|seat| !seat.given_up.is_cancelled())
            .map(|seat| (seat.given_up.clone(), seat.waker.take()))
            .collect();
        state.listening -= stuck.len();
        // Cancelled under the lock, so that `leave` counts each seat once; the tokens' wakers only
        // schedule tasks.
        for (token, _) in &stuck {
            token.cancel();
        }
        drop(state);
        let count = stuck.len();
        stuck.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
        count
    }
}

#[cfg(test)]
impl PageRing {
    /// Pages now held.
    pub(super) fn held(&self) -> usize {
        self.lock().pages.len()
    }
}
