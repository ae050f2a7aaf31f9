//! Gathers an encoder's packets into the pages of one variant.

use std::sync::Arc;
use std::task::Waker;

use super::page_ring::{Page, PageRing};
use super::variants::Variant;
use crate::audio::{LiveFormat, OPUS_RATE, Packet, Span};

/// Longest page: 200 ms.
pub(super) const PAGE: u64 = OPUS_RATE as u64 / 5;

/// A variant's page in the making.
pub(super) struct Packetizer {
    live: &'static dyn LiveFormat,
    low_latency: bool,
    ring: Arc<PageRing>,
    packets: Vec<Packet>,
    start: u64,
    end: u64,
}

impl Packetizer {
    /// Pages from the media time `start` on.
    pub(super) fn new(variant: Variant, live: &'static dyn LiveFormat, start: u64) -> Self {
        let Variant { listen, ring, .. } = variant;
        Self { live, low_latency: listen.low_latency, ring, packets: Vec::new(), start, end: start }
    }

    pub(super) fn serves(&self, variant: &Variant) -> bool {
        Arc::ptr_eq(&self.ring, &variant.ring)
    }

    /// Media time of the page's first frame.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn announce(&self, scratch: &mut Vec<Waker>) {
        self.ring.announce(scratch);
    }

    /// Adds a packet and sends the page if no further packet fits.
    pub(super) fn push(&mut self, packet: &Packet, scratch: &mut Vec<Waker>) {
        self.add(packet);
        let longest = if self.low_latency { packet.frames } else { PAGE };
        if self.end - self.start + packet.frames > longest {
            self.flush(false, scratch);
        }
    }

    pub(super) fn add(&mut self, packet: &Packet) {
        if self.packets.is_empty() {
            self.start = packet.start;
        }
        self.end = packet.start + packet.frames;
        self.packets.push(packet.clone());
    }

    /// Sends the last page, whose sound stops at `end` if that is known.
    pub(super) fn finish(&mut self, end: Option<u64>, scratch: &mut Vec<Waker>) {
        self.end = end.unwrap_or(self.end);
        self.flush(true, scratch);
    }

    fn flush(&mut self, last: bool, scratch: &mut Vec<Waker>) {
        if !self.packets.is_empty() {
            let at = Span { start: self.start, end: self.end, last };
            let body = self.live.page(&self.packets, at);
            let packets = if self.ring.keeps_packets { std::mem::take(&mut self.packets) } else { Vec::new() };
            self.ring.publish(Page { at, body, packets }, scratch);
            self.packets.clear();
        }
        self.start = self.end;
    }
}
