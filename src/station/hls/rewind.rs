//! Segments of long ago, made again from the stream's journal when somebody asks for them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::super::journal::{Journal, Replay};
use super::super::{StationError, Stream};
use super::track::Track;
use crate::audio::hls::{Muxed, Part, Rendition, SEGMENT, SegmentEncoder};
use crate::audio::{AudioError, OPUS_RATE};
use crate::engine::EngineError;

/// Frames behind a segment that its encoder wants to hear at most.
const BEYOND: u64 = OPUS_RATE as u64 / 10;
/// Frames that are encoded before other tasks get a turn.
const TURN: usize = OPUS_RATE as usize / 10;
/// Segments that are remembered: players come for the same ones, and for those that follow.
const REMEMBERED: usize = 32;

/// Those that were made lately, or are being made.
#[derive(Default)]
pub(super) struct Rewind(Mutex<VecDeque<Made>>);

struct Made {
    rendition: Rendition,
    number: u64,
    bytes: Arc<OnceCell<Bytes>>,
}

/// The numbers of the segments that can be made again; of a stream that is over the last one may be
/// short.
pub(super) fn numbers(journal: &Journal, rendition: Rendition, ended: bool) -> Range<u64> {
    let kept = journal.kept();
    let first = SegmentEncoder::first_from(rendition, kept.start);
    let end = if ended { kept.end.div_ceil(SEGMENT) } else { kept.end.saturating_sub(BEYOND) / SEGMENT };
    first..end.max(first)
}

impl Rewind {
    /// A segment of [`numbers`]. However many ask for it, it is made once.
    pub(super) async fn bytes(
        &self,
        stream: &Stream,
        rendition: Rendition,
        number: u64,
        mux: impl Fn(&Part) -> Muxed,
    ) -> Result<Bytes, StationError> {
        let bytes = self.cell(rendition, number);
        bytes.get_or_try_init(|| make(stream, rendition, number, mux)).await.cloned()
    }

    fn cell(&self, rendition: Rendition, number: u64) -> Arc<OnceCell<Bytes>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.iter().find(|made| (made.rendition, made.number) == (rendition, number)) {
            return Arc::clone(&known.bytes);
        }
        if made.len() == REMEMBERED {
            made.pop_front();
        }
        let bytes = Arc::default();
        made.push_back(Made { rendition, number, bytes: Arc::clone(&bytes) });
        bytes
    }
}

async fn make(
    stream: &Stream,
    rendition: Rendition,
    number: u64,
    mux: impl Fn(&Part) -> Muxed,
) -> Result<Bytes, StationError> {
    let (mut at, channels) = (SegmentEncoder::begins(rendition, number), stream.channels());
    let end = stream.journal().kept().end;
    let mut encoder = SegmentEncoder::new(rendition, channels, number).map_err(failed)?;
    let mut replay = Replay::open(stream, at..end.min((number + 1) * SEGMENT + BEYOND))?;
    let mut track = Track::default();
    while let Some(block) = replay.next().await? {
        for pcm in block.chunks(TURN * channels) {
            encoder.push(at, pcm, &mut |part| track.add(&part, mux(&part))).map_err(failed)?;
            at += (pcm.len() / channels) as u64;
            tokio::task::yield_now().await;
        }
    }
    encoder.finish(end, &mut |part| track.add(&part, mux(&part))).map_err(failed)?;
    Ok(track.joined())
}

fn failed(error: AudioError) -> StationError {
    EngineError::Failed(error.to_string()).into()
}
