//! The encoders of one stream: each format and bit rate is encoded once, while somebody listens to it, and its packets
//! are gathered into pages once per latency.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use metrics::{Counter, counter};

use super::encoder::{Encoded, Encoder};
use super::page_ring::{Body, Page, PageRing};
use super::variants::{Variant, Variants};
use super::{Format, Listen};
use crate::audio::ogg::{PageBuilder, SharedPage};
use crate::audio::{AudioError, OPUS_RATE};
use crate::telemetry::PACKETS_ENCODED;

/// Longest page: 200 ms.
pub(super) const PAGE: u64 = OPUS_RATE as u64 / 5;
/// Frames that an Opus decoder needs to converge when it begins in the middle: 80 ms (RFC 7845 section 4.6).
const CONVERGENCE: u64 = 3840;

/// All encoders of a stream, and the PCM with which a new one begins.
pub(super) struct Fanout {
    variants: Arc<Variants>,
    channels: usize,
    /// The last burst's worth of sound, in blocks as they came.
    history: VecDeque<Vec<f32>>,
    history_frames: u64,
    /// Frames that were pushed.
    position: u64,
    encoders: Vec<SharedEncoder>,
    scratch: Vec<Waker>,
}

/// One encoder and the variants that share it.
struct SharedEncoder {
    format: Format,
    kbps: u32,
    channels: usize,
    encoder: Encoder,
    /// Frames that the encoder was given, and those that were put into packets; of WAV, which says how much is to come, on
    /// the stream's time line.
    fed: u64,
    position: u64,
    /// The last burst's worth of packets, for a variant that joins.
    recent: VecDeque<Packet>,
    packetizers: Vec<Packetizer>,
    encoded: Counter,
}

struct Packet {
    bytes: Bytes,
    /// What whoever begins with it must be sent first.
    lead: Bytes,
    start: u64,
    frames: u64,
}

impl Packet {
    fn new(Encoded { bytes, lead, frames }: Encoded<'_>, start: u64) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), lead: lead.into(), start, frames }
    }
}

/// A variant's page in the making.
struct Packetizer {
    listen: Listen,
    ring: Arc<PageRing>,
    pre_skip: u64,
    start: u64,
    end: u64,
    body: PageDraft,
}

enum PageDraft {
    Ogg(PageBuilder),
    Raw { lead: Bytes, bytes: BytesMut },
}

impl Fanout {
    pub(super) fn new(variants: Arc<Variants>, channels: usize) -> Self {
        Self {
            variants,
            channels,
            history: VecDeque::new(),
            history_frames: 0,
            position: 0,
            encoders: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Makes encoders for variants that found their first listener, drops those that lost their last one.
    pub(super) async fn follow_audience(&mut self) -> Result<(), AudioError> {
        let variants = self.variants.heard();
        for shared in &mut self.encoders {
            shared
                .packetizers
                .retain(|packetizer| variants.iter().any(|variant| Arc::ptr_eq(&variant.ring, &packetizer.ring)));
        }
        self.encoders.retain(|shared| !shared.packetizers.is_empty());
        for variant in variants {
            let served = |packetizer: &Packetizer| Arc::ptr_eq(&packetizer.ring, &variant.ring);
            if !self.encoders.iter().any(|shared| shared.packetizers.iter().any(served)) {
                self.serve(variant).await?;
            }
        }
        Ok(())
    }

    async fn serve(&mut self, variant: Variant) -> Result<(), AudioError> {
        let Listen { format, kbps, low_latency } = variant.listen;
        let same = |shared: &SharedEncoder| shared.format == format && shared.kbps == kbps;
        let present = self.encoders.iter().position(same);
        let index = match present {
            Some(index) => index,
            None => {
                let encoder = Encoder::new(format, kbps, self.channels)?;
                let encoded = counter!(PACKETS_ENCODED);
                let recent = VecDeque::new();
                let position = if format == Format::Wav { self.position - self.history_frames } else { 0 };
                let mut shared = SharedEncoder {
                    format,
                    kbps,
                    channels: self.channels,
                    encoder,
                    fed: position,
                    position,
                    recent,
                    packetizers: Vec::new(),
                    encoded,
                };
                for block in &self.history {
                    shared.push(block, self.variants.burst(false), &mut self.scratch)?;
                    // Two seconds take a few dozen milliseconds: other tasks of this thread must not wait for them.
                    tokio::task::yield_now().await;
                }
                self.encoders.push(shared);
                self.encoders.len() - 1
            }
        };
        let shared = &mut self.encoders[index];
        let burst = self.variants.burst(low_latency);
        let from = shared.position.saturating_sub(burst);
        let mut packetizer = Packetizer::new(variant, shared.encoder.pre_skip(), shared.position);
        for packet in shared.recent.iter().filter(|packet| packet.start >= from) {
            packetizer.push(packet, &mut self.scratch);
        }
        shared.packetizers.push(packetizer);
        Ok(())
    }

    /// Encodes the next block of finished sound for everybody. True if that made a packet.
    pub(super) fn push(&mut self, block: Vec<f32>) -> Result<bool, AudioError> {
        let burst = self.variants.burst(false);
        let mut made = false;
        for shared in &mut self.encoders {
            made |= shared.push(&block, burst, &mut self.scratch)?;
        }
        let frames = (block.len() / self.channels) as u64;
        self.history_frames += frames;
        self.position += frames;
        self.history.push_back(block);
        while let Some(oldest) = self.history.front() {
            let frames = (oldest.len() / self.channels) as u64;
            if self.history_frames - frames < burst {
                break;
            }
            self.history_frames -= frames;
            self.history.pop_front();
        }
        Ok(made)
    }

    /// Frames that wait for the rest of their packet or page.
    pub(super) fn held(&self) -> u64 {
        let waiting = |shared: &SharedEncoder| {
            shared.packetizers.iter().map(|packetizer| shared.fed.saturating_sub(packetizer.start)).max()
        };
        self.encoders.iter().filter_map(waiting).max().unwrap_or(0)
    }

    /// Sends the pages that wait for others to be sent with: more may be long in coming.
    pub(super) fn announce(&mut self) {
        for packetizer in self.encoders.iter().flat_map(|shared| &shared.packetizers) {
            packetizer.ring.announce(&mut self.scratch);
        }
    }

    /// Forgets what was played, so that the next listener does not begin with it.
    pub(super) fn forget(&mut self) {
        self.history.clear();
        self.history_frames = 0;
        self.encoders.iter_mut().for_each(|shared| shared.recent.clear());
    }

    /// Sends the last pages and ends all rings.
    pub(super) fn finish(&mut self) {
        for shared in &mut self.encoders {
            if let Err(error) = shared.finish(&mut self.scratch) {
                tracing::warn!(%error, format = ?shared.format, "the last packets could not be encoded");
            }
        }
        self.encoders.clear();
        self.variants.close();
    }
}

impl SharedEncoder {
    /// True if that made a packet.
    fn push(&mut self, pcm: &[f32], burst: u64, scratch: &mut Vec<Waker>) -> Result<bool, AudioError> {
        let before = self.position;
        self.fed += (pcm.len() / self.channels) as u64;
        let Self { encoder, position, recent, packetizers, encoded, .. } = self;
        encoder.push(pcm, &mut |packet| {
            encoded.increment(1);
            let packet = Packet::new(packet, *position);
            *position += packet.frames;
            packetizers.iter_mut().for_each(|packetizer| packetizer.push(&packet, scratch));
            recent.push_back(packet);
        })?;
        while self.recent.front().is_some_and(|packet| packet.start + packet.frames + burst <= self.position) {
            self.recent.pop_front();
        }
        Ok(self.position > before)
    }

    fn finish(&mut self, scratch: &mut Vec<Waker>) -> Result<(), AudioError> {
        let mut rest = Vec::new();
        let mut position = self.position;
        let end = self.encoder.finish(&mut |packet| {
            let packet = Packet::new(packet, position);
            position += packet.frames;
            rest.push(packet);
        })?;
        self.position = position;
        let last = rest.len().saturating_sub(1);
        for (n, packet) in rest.into_iter().enumerate() {
            self.encoded.increment(1);
            for packetizer in &mut self.packetizers {
                if n == last && end.is_some() {
                    packetizer.add(&packet);
                } else {
                    packetizer.push(&packet, scratch);
                }
            }
        }
        for packetizer in &mut self.packetizers {
            packetizer.end = end.unwrap_or(packetizer.end);
            packetizer.flush(true, scratch);
        }
        Ok(())
    }
}

impl Packetizer {
    fn new(variant: Variant, pre_skip: u64, start: u64) -> Self {
        let Variant { listen, ring } = variant;
        Self { listen, ring, pre_skip, start, end: start, body: PageDraft::new(listen.format, start, Bytes::new()) }
    }

    /// Adds a packet and sends the page if no further packet fits.
    fn push(&mut self, packet: &Packet, scratch: &mut Vec<Waker>) {
        self.add(packet);
        let longest = if self.listen.low_latency { packet.frames } else { PAGE };
        if self.end - self.start + packet.frames > longest {
            self.flush(false, scratch);
        }
    }

    fn add(&mut self, packet: &Packet) {
        if self.start == self.end {
            self.start = packet.start;
            self.body = PageDraft::new(self.listen.format, packet.start, packet.lead.clone());
        }
        self.end = packet.start + packet.frames;
        match &mut self.body {
            PageDraft::Ogg(page) => page.push(&packet.bytes),
            PageDraft::Raw { bytes, .. } => bytes.extend_from_slice(&packet.bytes),
        }
    }

    fn flush(&mut self, last: bool, scratch: &mut Vec<Waker>) {
        if self.start == self.end {
            return;
        }
        let body = match std::mem::replace(&mut self.body, PageDraft::new(Format::Wav, 0, Bytes::new())) {
            PageDraft::Ogg(page) => {
                // Before the encoder's first packet there is nothing to converge from; the last page may be shorter.
                let pre_skip = if self.start == 0 { self.pre_skip } else { CONVERGENCE.min(self.end - self.start) };
                Body::Ogg { page: page.build(), pre_skip: pre_skip as u16 }
            }
            PageDraft::Raw { lead, bytes } => Body::Raw { lead, bytes: bytes.freeze() },
        };
        self.ring.publish(Page { start: self.start, end: self.end, last, body }, scratch);
        self.start = self.end;
    }
}

impl PageDraft {
    fn new(format: Format, start: u64, lead: Bytes) -> Self {
        match format {
            Format::Ogg => Self::Ogg(SharedPage::new(start)),
            Format::Mp3 | Format::Wav => Self::Raw { lead, bytes: BytesMut::new() },
        }
    }
}
