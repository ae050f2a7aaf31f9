//! Pages of a stream for listeners of other nodes: each is sent once, whoever hears it there.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::page_ring::{Page, PageRing};
use super::{Event, Events, Listen, Stream, StreamInfo};
use crate::audio::{Format, Packet, Span};
use crate::units::SampleRate;

/// How long a page waits for what it is made of to be written down.
const WRITTEN: Duration = Duration::from_millis(400);

/// What whoever plays a stream for other listeners has to know of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// Its state.
    pub info: StreamInfo,
    /// What plays, in words.
    pub title: String,
    /// 1 or 2.
    pub channels: usize,
    /// Of the voice.
    pub rate: SampleRate,
    /// Frames that it will have, if it has an end.
    pub length: Option<u64>,
}

/// Pages of one way to listen, as they are made. While this lives, it is a listener of the stream.
pub struct Sent {
    stream: Arc<Stream>,
    ring: Arc<PageRing>,
    seat: usize,
    /// Whoever hears it has no time to wait.
    low_latency: bool,
}

impl Stream {
    /// What others have to know of it.
    pub fn facts(&self) -> Facts {
        Facts {
            info: self.info(),
            title: self.title(),
            channels: self.channels(),
            rate: self.voice_rate(),
            length: self.length(),
        }
    }

    /// The pages that are made from now on, and those that somebody who joins now has to be sent
    /// first; none of a stream that is over. `from` is where those go on who have heard another
    /// node until now.
    pub fn send_abroad(self: &Arc<Self>, listen: Listen, from: Option<u64>) -> Option<Sent> {
        let (ring, seat) = self.variants().join_abroad(listen.normal(), from)?;
        self.heard();
        Some(Sent { stream: Arc::clone(self), ring, seat, low_latency: listen.low_latency })
    }

    /// What somebody who joins now has to be sent first; who goes on `from` a media time, all from
    /// there on.
    pub fn recent(&self, listen: Listen, from: Option<u64>) -> Vec<Bytes> {
        let listen = listen.normal();
        let seat = match from {
            Some(_) => self.variants().join_at_once(listen),
            None => self.variants().join(listen, CancellationToken::new()),
        };
        let Some((ring, seat)) = seat else { return Vec::new() };
        let mut pages = Vec::new();
        while let Poll::Ready(Some(page)) = ring.poll_next(seat, &mut Context::from_waker(Waker::noop())) {
            if page.at.end > from.unwrap_or(0) {
                pages.push(write(&page));
            }
        }
        ring.leave(seat);
        pages
    }

    /// So many listen at other nodes.
    pub fn set_listeners_abroad(&self, count: usize) {
        self.variants().set_abroad(count);
    }

    /// What happens to it next; `None` behind its end, and once another node goes on with it.
    pub async fn next_event_abroad(&self, events: &mut Events) -> Option<Event> {
        events.recv().await.filter(|_| !self.is_handed_over())
    }
}

impl Sent {
    /// The next page; `None` behind the last one, and once another node goes on with the stream:
    /// how it ends here is not its end. It comes once all of it is written down, so that
    /// whoever makes the stream when this process has died knows it.
    pub async fn next(&mut self) -> Option<Bytes> {
        let page = poll_fn(|context| self.ring.poll_next(self.seat, context)).await?;
        let journal = self.stream.journal();
        if journal.keeps() && !self.low_latency {
            let mut grown = journal.grown();
            let written = grown.wait_for(|grown| grown.over || grown.end >= page.at.end);
            // What is written down late, or never, is heard all the same.
            let _ = timeout(WRITTEN, written).await;
        }
        (!self.stream.is_handed_over()).then(|| write(&page))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.stream.variants().leave_abroad(&self.ring, self.seat);
        self.stream.nudge();
    }
}

/// As [`read`] takes it: the page's place and its packets.
fn write(Page { at, packets, .. }: &Page) -> Bytes {
    let size: usize = packets.iter().map(|packet| packet.bytes.len() + packet.lead.len() + 24).sum();
    let mut bytes = BytesMut::with_capacity(size + 17);
    bytes.put_u64(at.start);
    bytes.put_u64(at.end);
    bytes.put_u8(at.last.into());
    for packet in packets {
        bytes.put_u32(packet.frames as u32);
        bytes.put_u32(packet.skip as u32);
        for part in [&packet.lead, &packet.bytes] {
            bytes.put_u32(part.len() as u32);
            bytes.extend_from_slice(part);
        }
    }
    bytes.freeze()
}

/// A page as another node has sent it, without what lies before media time `from`; `None` of what
/// is none.
pub(super) fn read(format: Format, mut bytes: Bytes, from: u64) -> Option<Page> {
    let live = format.live()?;
    let (start, end, last) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?, bytes.try_get_u8().ok()? != 0);
    let (mut packets, mut position) = (Vec::new(), start);
    while bytes.has_remaining() {
        let (frames, skip) = (bytes.try_get_u32().ok()?.into(), bytes.try_get_u32().ok()?.into());
        let mut part = || {
            let length = bytes.try_get_u32().ok()? as usize;
            (length <= bytes.len()).then(|| bytes.split_to(length))
        };
        let (lead, bytes) = (part()?, part()?);
        let packet = Packet { bytes, lead, skip, start: position, frames };
        position += frames;
        if position > from {
            let over = from.saturating_sub(packet.start);
            packets.push(if over > 0 { live.cut(&packet, over).unwrap_or(packet) } else { packet });
        }
    }
    let at = Span { start: packets.first()?.start, end, last };
    if end < at.start {
        return None;
    }
    Some(Page { at, body: live.page(&packets, at), packets: Vec::new() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_sent_and_what_is_cut_off_is_none() {
        let packet = |start, bytes: &'static [u8]| Packet {
            bytes: Bytes::from_static(bytes),
            lead: Bytes::from_static(b"lead"),
            skip: 3,
            start,
            frames: 960,
        };
        let packets = vec![packet(4800, b"first"), packet(5760, b"second")];
        let at = Span { start: 4800, end: 6720, last: true };
        let body = Format::ALL[0].live().unwrap().page(&packets, at);
        let sent = write(&Page { at, body, packets });
        let page = read(Format::ALL[0], sent.clone(), 0).unwrap();
        assert_eq!((page.at.start, page.at.end, page.at.last), (4800, 6720, true));
        let listener = crate::audio::Received::nothing(1);
        let first = Format::ALL[0].live().unwrap().page(&[packet(4800, b"first"), packet(5760, b"second")], at);
        assert_eq!(page.body.bytes(at, &listener), first.bytes(at, &listener));
        let whole: Vec<usize> =
            (0..sent.len()).filter(|cut| read(Format::ALL[0], sent.slice(..*cut), 0).is_some()).collect();
        // Only between two packets.
        assert_eq!(whole, [17 + 16 + 4 + 5]);
    }
}
