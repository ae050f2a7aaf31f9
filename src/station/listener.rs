//! One receiver: a cursor into a ring, and what it was sent so far.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use metrics::{Counter, counter, gauge};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::page_ring::{Page, PageRing};
use super::sessions::Session;
use super::stream::Stream;
use crate::audio::{About, Received};
use crate::telemetry::{BYTES_SENT, LISTENERS};

/// One receiver. Dropping it leaves.
///
/// It is a `futures_util::Stream<Item = Bytes>` that ends after the stream's proper last bytes.
pub struct Listener {
    stream: Arc<Stream>,
    ring: Arc<PageRing>,
    seat: usize,
    received: Received,
    /// Goes out before the next page is taken.
    next: Option<Bytes>,
    given_up: CancellationToken,
    sent: Counter,
    /// It hears the past: titles are those of its place.
    shifted: bool,
    /// Its place among all listeners of the station.
    _place: OwnedSemaphorePermit,
    _session: Session,
}

impl Listener {
    pub(super) fn new(
        stream: Arc<Stream>,
        (ring, seat): (Arc<PageRing>, usize),
        given_up: CancellationToken,
        place: OwnedSemaphorePermit,
        session: Session,
    ) -> Self {
        gauge!(LISTENERS).increment(1.0);
        let received = Received::nothing(rand_serial());
        Self {
            stream,
            ring,
            seat,
            received,
            next: None,
            given_up,
            sent: counter!(BYTES_SENT),
            shifted: false,
            _place: place,
            _session: session,
        }
    }

    /// The same of somebody who hears the past.
    pub(super) fn shifted(mut self) -> Self {
        self.shifted = true;
        self
    }

    /// What plays where it is, in words.
    pub fn title(&self) -> String {
        let place = self.received.end.filter(|_| self.shifted);
        place.and_then(|frame| self.stream.journal().title_at(frame)).unwrap_or_else(|| self.stream.title())
    }

    /// Times that it was too slow and was moved to the live edge.
    pub fn skips(&self) -> u64 {
        self.ring.skips(self.seat)
    }

    /// Whether what was given last is the beginning of a page and the rest of it is there already.
    pub fn mid_page(&self) -> bool {
        self.next.is_some()
    }

    /// Whether it took nothing for so long that it gets no more.
    pub fn is_given_up(&self) -> bool {
        self.given_up.is_cancelled()
    }

    /// Completes when the station gave this listener up because nothing was taken from it for too
    /// long: close its connection then (its body is not polled while the socket is full, so it
    /// cannot tell by itself).
    pub fn given_up(&self) -> WaitForCancellationFutureOwned {
        self.given_up.clone().cancelled_owned()
    }

    /// Bytes of this page for this listener; what must follow them is put into `next`.
    fn render(&mut self, Page { at, body, .. }: &Page) -> Bytes {
        let head = if self.received.pages == 0 { body.head(*at, &self.received, &self.about()) } else { None };
        let (first, rest) = body.bytes(*at, &self.received);
        self.received.count(*at);
        self.next = rest;
        match head {
            None => first,
            // At most once per listener: headers and the first page's head go out as one piece.
            Some(head) => [head, first].concat().into(),
        }
    }

    fn about(&self) -> About {
        About {
            channels: self.stream.channels(),
            input_rate: self.stream.voice_rate(),
            title: self.title(),
            length: self.stream.length(),
        }
    }
}

fn rand_serial() -> u32 {
    use rand_chacha::rand_core::{OsRng, TryRngCore};
    // Any number will do if the system has no randomness: a player sees one stream per connection.
    OsRng.try_next_u32().unwrap_or(1)
}

impl futures_util::Stream for Listener {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = &mut *self;
        let bytes = match this.next.take() {
            Some(bytes) => bytes,
            None => match this.ring.poll_next(this.seat, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(page)) => this.render(&page),
            },
        };
        this.sent.increment(bytes.len() as u64);
        Poll::Ready(Some(bytes))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        gauge!(LISTENERS).decrement(1.0);
        self.ring.leave(self.seat);
        self.stream.nudge();
    }
}
