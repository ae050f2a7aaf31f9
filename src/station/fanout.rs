//! The encoders of one stream: each format and bit rate is encoded once, while somebody listens to
//! it, and its packets are gathered into pages once per latency.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::hls::Segmenter;
use super::shared_encoder::SharedEncoder;
use super::variants::{Variant, Variants};
use crate::audio::{AudioError, OPUS_RATE};

/// Frames that an encoder hears before the packets that follow another encoder's: 0.5 s.
const WARM_UP: u64 = OPUS_RATE as u64 / 2;

/// All encoders of a stream, and the PCM with which a new one begins.
pub(super) struct Fanout {
    variants: Arc<Variants>,
    channels: usize,
    /// The last burst's worth of sound, in blocks as they came, or as much as is to be kept.
    history: VecDeque<Vec<f32>>,
    history_frames: u64,
    /// Frames that are kept for those who have heard another node until now.
    kept: u64,
    /// Media time of the next frame.
    position: u64,
    encoders: Vec<SharedEncoder>,
    segmenter: Segmenter,
    scratch: Vec<Waker>,
}

impl Fanout {
    /// The first frame that is pushed has the media time `position`.
    pub(super) fn new(variants: Arc<Variants>, channels: usize, position: u64) -> Self {
        Self {
            segmenter: Segmenter::new(variants.presentation().clone(), channels),
            variants,
            channels,
            history: VecDeque::new(),
            history_frames: 0,
            kept: 0,
            position,
            encoders: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Makes encoders for variants that found their first listener, drops those that lost their
    /// last one.
    pub(super) async fn follow_audience(&mut self) -> Result<(), AudioError> {
        let heard = self.variants.heard();
        self.encoders.retain_mut(|encoder| encoder.keep(&heard));
        for variant in heard {
            if !self.encoders.iter().any(|encoder| encoder.serves(&variant)) {
                self.serve(variant).await?;
            }
        }
        for rendition in self.segmenter.missing() {
            let mut at = self.position - self.history_frames;
            self.segmenter.begin(rendition, at);
            for block in &self.history {
                self.segmenter.catch_up(at, block)?;
                at += (block.len() / self.channels) as u64;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn serve(&mut self, variant: Variant) -> Result<(), AudioError> {
        let back = variant.from.map_or(0, |from| self.position.saturating_sub(from));
        let burst = self.variants.burst(variant.listen.low_latency).max(back);
        if let Some(encoder) = self.encoders.iter_mut().find(|encoder| encoder.makes(variant.listen)) {
            encoder.add(variant, burst, &mut self.scratch);
            return Ok(());
        }
        let mut at = self.position - self.history_frames;
        let usual = if self.kept == 0 { at } else { self.position.saturating_sub(self.variants.burst(false)).max(at) };
        let origin = match variant.from {
            Some(from) => from.saturating_sub(WARM_UP).clamp(at, usual),
            None => usual,
        };
        let packet = variant.listen.format.live().map_or(1, |live| live.packet_frames());
        // Packets of all nodes that ever make the stream lie on one grid, so that those of the next
        // one follow.
        let origin = if self.variants.is_shared() { origin.next_multiple_of(packet) } else { origin };
        let follows = variant.from.map(|_| self.position);
        let mut encoder = SharedEncoder::new(variant.listen, self.channels, origin, follows)?;
        for block in &self.history {
            let frames = (block.len() / self.channels) as u64;
            if at + frames > origin {
                encoder.push(at, block, self.variants.burst(false).max(back), &mut self.scratch)?;
                // Two seconds take a few dozen milliseconds: other tasks of this thread must not
                // wait for them.
                tokio::task::yield_now().await;
            }
            at += frames;
        }
        encoder.add(variant, burst, &mut self.scratch);
        self.encoders.push(encoder);
        Ok(())
    }

    /// Encodes the next block of finished sound for everybody. True if that made something to be
    /// heard.
    pub(super) fn push(&mut self, block: Vec<f32>) -> Result<bool, AudioError> {
        let burst = self.variants.burst(false);
        let mut made = false;
        for encoder in &mut self.encoders {
            made |= encoder.push(self.position, &block, burst, &mut self.scratch)?;
        }
        made |= self.segmenter.push(self.position, &block)?;
        let frames = (block.len() / self.channels) as u64;
        self.history_frames += frames;
        self.position += frames;
        self.history.push_back(block);
        while let Some(oldest) = self.history.front() {
            let frames = (oldest.len() / self.channels) as u64;
            if self.history_frames - frames < burst.max(self.kept) {
                break;
            }
            self.history_frames -= frames;
            self.history.pop_front();
        }
        Ok(made)
    }

    /// Frames that wait for the rest of their packet or page.
    pub(super) fn held(&self) -> u64 {
        self.encoders.iter().map(SharedEncoder::held).max().unwrap_or(0)
    }

    /// Sends the pages that wait for others to be sent with: more may be long in coming.
    pub(super) fn announce(&mut self) {
        self.encoders.iter().for_each(|encoder| encoder.announce(&mut self.scratch));
    }

    /// Keeps so many frames of sound, and forgets nothing: who heard another node until now goes on
    /// within them.
    pub(super) fn keep(&mut self, frames: u64) {
        self.kept = frames;
    }

    /// Forgets what was played, so that the next listener does not begin with it.
    pub(super) fn forget(&mut self) {
        if self.kept > 0 {
            return;
        }
        self.history.clear();
        self.history_frames = 0;
        self.encoders.iter_mut().for_each(SharedEncoder::forget);
    }

    /// Sends the last pages and ends all rings.
    pub(super) fn finish(&mut self) {
        for encoder in &mut self.encoders {
            if let Err(error) = encoder.finish(&mut self.scratch) {
                tracing::warn!(%error, format = %encoder.format, "the last packets could not be encoded");
            }
        }
        self.encoders.clear();
        if let Err(error) = self.segmenter.finish(self.position) {
            tracing::warn!(%error, "the last segment could not be encoded");
        }
        self.variants.close();
    }
}
