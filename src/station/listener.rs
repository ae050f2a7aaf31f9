//! One receiver: a cursor into a ring, and what its own copy of the stream needs (headers, serial, granule position).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use metrics::{Counter, counter, gauge};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::page_ring::{Body, Page, PageRing};
use super::stream::Stream;
use super::{Format, Listen};
use crate::audio::ogg::StreamHead;
use crate::audio::{OPUS_RATE, wav_header, wav_header_of};
use crate::telemetry::{BYTES_SENT, LISTENERS};

/// One receiver. Dropping it leaves.
///
/// It is a `futures_util::Stream<Item = Bytes>` that ends after the stream's proper last bytes.
pub struct Listener {
    stream: Arc<Stream>,
    ring: Arc<PageRing>,
    seat: usize,
    shape: Shape,
    /// Goes out before the next page is taken.
    next: Option<Bytes>,
    given_up: CancellationToken,
    sent: Counter,
    /// Its place among all listeners of the station.
    _place: OwnedSemaphorePermit,
}

/// What is this listener's alone.
enum Shape {
    /// Nothing was sent yet.
    Unbegun(Format),
    Ogg {
        serial: u32,
        sequence: u32,
        granule: u64,
    },
    Raw {
        /// Where the last page ended.
        end: u64,
    },
}

impl Listener {
    pub(super) fn new(
        stream: Arc<Stream>,
        listen: Listen,
        (ring, seat): (Arc<PageRing>, usize),
        given_up: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        gauge!(LISTENERS).increment(1.0);
        let shape = Shape::Unbegun(listen.format);
        Self { stream, ring, seat, shape, next: None, given_up, sent: counter!(BYTES_SENT), _place: place }
    }

    /// Times that it was too slow and was moved to the live edge.
    pub fn skips(&self) -> u64 {
        self.ring.skips(self.seat)
    }

    /// Whether what was given last is the beginning of a page and the rest of it is there already.
    pub fn mid_page(&self) -> bool {
        self.next.is_some()
    }

    /// Completes when the station gave this listener up because nothing was taken from it for too long: close
    /// its connection then (its body is not polled while the socket is full, so it cannot tell by itself).
    pub fn given_up(&self) -> WaitForCancellationFutureOwned {
        self.given_up.clone().cancelled_owned()
    }

    /// Bytes of this page for this listener; what must follow them is put into `next`.
    fn render(&mut self, page: &Page) -> Bytes {
        if let Shape::Unbegun(format) = self.shape {
            let (shape, header) = self.begin(format, page);
            self.shape = shape;
            let first = self.render(page);
            return match header {
                None => first,
                // At most once per listener: headers and the first page's head go out as one piece.
                Some(header) => [&header[..], &first[..]].concat().into(),
            };
        }
        match (&page.body, &mut self.shape) {
            (Body::Ogg { page: shared, .. }, Shape::Ogg { serial, sequence, granule }) => {
                *granule += page.end - page.start;
                *sequence += 1;
                self.next = Some(shared.body().clone());
                shared.header(*granule, *serial, *sequence, page.last)
            }
            (Body::Raw { lead, bytes }, Shape::Raw { end }) => {
                let follows = std::mem::replace(end, page.end) == page.start;
                if follows || lead.is_empty() {
                    return bytes.clone();
                }
                self.next = Some(bytes.clone());
                lead.clone()
            }
            // A ring holds pages of one format only.
            (Body::Ogg { page: shared, .. }, _) => shared.body().clone(),
            (Body::Raw { bytes, .. }, _) => bytes.clone(),
        }
    }

    fn begin(&self, format: Format, page: &Page) -> (Shape, Option<Bytes>) {
        match (format, &page.body) {
            (Format::Ogg, &Body::Ogg { pre_skip, .. }) => {
                let serial = rand_serial();
                let (channels, input_rate) = (self.stream.channels() as u8, self.stream.voice_rate().0);
                let head = StreamHead { serial, channels, pre_skip, input_rate };
                let header = head.pages(&[("TITLE", &self.stream.title())]);
                (Shape::Ogg { serial, sequence: 1, granule: 0 }, Some(header))
            }
            (Format::Wav, _) => {
                let channels = self.stream.channels() as u16;
                let header = match self.stream.length() {
                    Some(frames) => wav_header_of(OPUS_RATE, channels, frames.saturating_sub(page.start)),
                    None => wav_header(OPUS_RATE, channels),
                };
                (Shape::Raw { end: page.start }, Some(Bytes::copy_from_slice(&header)))
            }
            // Nothing was sent before this page.
            _ => (Shape::Raw { end: u64::MAX }, None),
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
