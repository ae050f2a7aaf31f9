//! One encoder of a stream, and all who listen to its packets.

use std::collections::VecDeque;
use std::task::Waker;

use metrics::{Counter, counter};

use super::Listen;
use super::packetizer::Packetizer;
use super::variants::Variant;
use crate::audio::{AudioError, Format, LiveEncoder, LiveFormat, Packet};
use crate::telemetry::PACKETS_ENCODED;

/// An encoder and the variants that share it.
pub(super) struct SharedEncoder {
    pub(super) format: Format,
    live: &'static dyn LiveFormat,
    kbps: u32,
    channels: usize,
    encoder: Box<dyn LiveEncoder>,
    /// Media time at which it began.
    origin: u64,
    /// Media time of the end of what it was given, and of what it put into packets.
    fed: u64,
    position: u64,
    /// The last burst's worth of packets, for a variant that joins.
    recent: VecDeque<Packet>,
    packetizers: Vec<Packetizer>,
    encoded: Counter,
}

impl SharedEncoder {
    /// An encoder whose first frame has the media time `origin`; those of its packets that begin
    /// before `follows` may follow another encoder's.
    pub(super) fn new(listen: Listen, channels: usize, origin: u64, follows: Option<u64>) -> Result<Self, AudioError> {
        let Listen { format, kbps, .. } = listen;
        let live = format.live().ok_or(AudioError::NoEncoder(format))?;
        let encoder = match follows {
            Some(until) => live.follower(channels, kbps, until.saturating_sub(origin)),
            None => live.encoder(channels, kbps),
        };
        Ok(Self {
            format,
            live,
            kbps,
            channels,
            encoder: encoder?,
            origin,
            fed: origin,
            position: origin,
            recent: VecDeque::new(),
            packetizers: Vec::new(),
            encoded: counter!(PACKETS_ENCODED),
        })
    }

    /// Whether it makes what is to be heard like this.
    pub(super) fn makes(&self, listen: Listen) -> bool {
        self.format == listen.format && self.kbps == listen.kbps
    }

    /// Whether it serves a variant.
    pub(super) fn serves(&self, variant: &Variant) -> bool {
        self.packetizers.iter().any(|packetizer| packetizer.serves(variant))
    }

    /// Lets a variant share it, from the last `burst` frames on.
    pub(super) fn add(&mut self, variant: Variant, burst: u64, scratch: &mut Vec<Waker>) {
        let from = self.position.saturating_sub(burst);
        let mut packetizer = Packetizer::new(variant, self.live, self.position);
        for packet in self.recent.iter().filter(|packet| packet.start >= from) {
            packetizer.push(packet, scratch);
        }
        self.packetizers.push(packetizer);
    }

    /// Drops variants that are not among those `heard`. True while there are others.
    pub(super) fn keep(&mut self, heard: &[Variant]) -> bool {
        self.packetizers.retain(|packetizer| heard.iter().any(|variant| packetizer.serves(variant)));
        !self.packetizers.is_empty()
    }

    /// Encodes a block that begins at media time `at`, and remembers the last `burst` frames of
    /// packets. What lies before its origin is passed over. True if that made a packet.
    pub(super) fn push(
        &mut self,
        at: u64,
        pcm: &[f32],
        burst: u64,
        scratch: &mut Vec<Waker>,
    ) -> Result<bool, AudioError> {
        let over = self.fed.saturating_sub(at) as usize * self.channels;
        let pcm = pcm.get(over..).unwrap_or_default();
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

    /// Frames that wait for the rest of their packet or page.
    pub(super) fn held(&self) -> u64 {
        self.packetizers.iter().map(|packetizer| self.fed.saturating_sub(packetizer.start())).max().unwrap_or(0)
    }

    /// Sends the pages that wait for others to be sent with.
    pub(super) fn announce(&self, scratch: &mut Vec<Waker>) {
        self.packetizers.iter().for_each(|packetizer| packetizer.announce(scratch));
    }

    /// Forgets what was played, so that the next variant does not begin with it.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }

    /// Sends the last pages.
    pub(super) fn finish(&mut self, scratch: &mut Vec<Waker>) -> Result<(), AudioError> {
        let Self { encoder, origin, position, packetizers, encoded, .. } = self;
        let mut rest = Vec::new();
        let end = encoder.finish(&mut |packet| {
            let packet = Packet::new(packet, *position);
            *position += packet.frames;
            rest.push(packet);
        })?;
        let end = end.map(|frames| *origin + frames);
        let last = rest.len().saturating_sub(1);
        for (n, packet) in rest.iter().enumerate() {
            encoded.increment(1);
            for packetizer in packetizers.iter_mut() {
                // The page of the last packet waits for the exact end.
                if n == last && end.is_some() { packetizer.add(packet) } else { packetizer.push(packet, scratch) }
            }
        }
        packetizers.iter_mut().for_each(|packetizer| packetizer.finish(end, scratch));
        Ok(())
    }
}
