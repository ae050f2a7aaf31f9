//! The way of PCM from the engine thread to one reader: a lock-free ring of chunks whose unread
//! tail can be cut off.
//!
//! The writer owns the future, the reader owns the past, and one atomic word says where the border
//! is: it packs the epoch (raised by every cut) with the number of samples that the reader
//! has *committed* to. The reader commits by compare-and-swap before it hands samples out; the
//! writer cuts by compare-and-swap at a place that is not yet committed. Whoever comes second sees
//! the other's change and tries again, so no sample is both cut and played. A cut needs no scan of
//! the ring: chunks carry their start, and a chunk that starts before the end of an older one
//! replaces the older one's tail.

mod border;
/// Where [`border`] takes its atomics from; its proof takes others.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};
use tokio::sync::Notify;

use self::border::Border;
use super::{Chunk, Freeze, Passage, Read, VoiceEnd};
use crate::units::{SampleRate, Samples};

/// Freezes remembered for a reader that has not asked.
const FREEZES_KEPT: usize = 64;

/// What both ends see.
pub(super) struct Shared {
    border: Border,
    /// End of what has been pushed in the present epoch.
    end_of_pcm: AtomicU64,
    /// Columns sampled in the present run.
    pub(super) steps: AtomicU64,
    /// Seconds of audio per second of waiting for it, as `f32` bits.
    pub(super) realtime: AtomicU32,
    /// Samples that the writer is to keep ahead of the reader.
    lead: AtomicU64,
    /// The reader is gone.
    abandoned: AtomicBool,
    ended: OnceLock<VoiceEnd>,
    /// What nobody has asked for yet.
    freezes: Mutex<VecDeque<Freeze>>,
    wake_reader: Notify,
    engine: Thread,
}

impl Shared {
    /// Samples that the reader can no longer be denied.
    pub(super) fn committed(&self) -> u64 {
        self.border.committed()
    }

    /// Samples pushed and not yet committed.
    pub(super) fn buffered(&self) -> u64 {
        self.end_of_pcm.load(Ordering::Acquire).saturating_sub(self.committed())
    }

    pub(super) fn lead(&self) -> u64 {
        self.lead.load(Ordering::Relaxed)
    }

    pub(super) fn set_lead(&self, samples: u64) {
        self.lead.store(samples, Ordering::Relaxed);
        self.engine.unpark();
    }

    pub(super) fn ended(&self) -> Option<&VoiceEnd> {
        self.ended.get()
    }

    /// Keeps it for [`Shared::take_freezes`]; a reader that never asks misses the oldest.
    pub(super) fn note(&self, freeze: Freeze) {
        let mut freezes = self.freezes.lock().unwrap_or_else(PoisonError::into_inner);
        if freezes.len() == FREEZES_KEPT {
            freezes.pop_front();
        }
        freezes.push_back(freeze);
    }

    /// See [`super::Voice::freezes`].
    pub(super) fn take_freezes(&self) -> VecDeque<Freeze> {
        std::mem::take(&mut self.freezes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`super::Voice::ready`].
    pub(super) async fn ready(&self) {
        loop {
            let notified = self.wake_reader.notified();
            if self.buffered() > 0 || self.ended.get().is_some() {
                return;
            }
            notified.await;
        }
    }
}

/// Both ends of a new time line. `chunks` bounds the ring; `engine` is the thread to wake when
/// samples were taken.
pub(super) fn pcm_ring(chunks: usize, engine: Thread) -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        border: Border::new(),
        end_of_pcm: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        realtime: AtomicU32::new(0),
        lead: AtomicU64::new(0),
        abandoned: AtomicBool::new(false),
        ended: OnceLock::new(),
        freezes: Mutex::default(),
        wake_reader: Notify::new(),
        engine,
    });
    let (producer, consumer) = HeapRb::new(chunks).split();
    (
        Writer { ring: producer, shared: shared.clone(), epoch: 0, end: 0 },
        Reader { ring: consumer, shared, queue: VecDeque::new() },
    )
}

/// The engine's end.
pub(super) struct Writer {
    ring: HeapProd<Chunk>,
    shared: Arc<Shared>,
    epoch: u32,
    end: u64,
}

impl Writer {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Media time at which the next pushed chunk begins.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Acquire)
    }

    /// Whether one more chunk fits; only a reader that never reads while its voice is steered over
    /// and over fills it.
    pub(super) fn has_room(&self) -> bool {
        !self.ring.is_full()
    }

    /// Appends interleaved samples and the codes that they are made of. The caller has asked
    /// [`Writer::has_room`].
    pub(super) fn push(&mut self, pcm: Vec<f32>, channels: usize, sample_rate: SampleRate, passage: Option<Passage>) {
        let samples = (pcm.len() / channels) as u64;
        if samples == 0 {
            return;
        }
        let chunk = Chunk { start: Samples(self.end), epoch: self.epoch, sample_rate, channels, pcm, passage };
        let pushed = self.ring.try_push(chunk).is_ok();
        debug_assert!(pushed, "the engine pushes only where there is room");
        self.end += samples;
        self.shared.end_of_pcm.store(self.end, Ordering::Release);
        self.shared.wake_reader.notify_one();
    }

    /// Takes back everything from a place that `choose` picks: it is given the committed position,
    /// and returns one at or after it, or `None` to cut nothing. Returns the cut.
    pub(super) fn cut(&mut self, mut choose: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let end = self.end;
        let (epoch, at) = self.shared.border.cut(|committed| {
            let at = choose(committed)?;
            debug_assert!(at >= committed && at <= end, "a cut lies between the reader and the end");
            Some(at)
        })?;
        (self.epoch, self.end) = (epoch, at);
        self.shared.end_of_pcm.store(at, Ordering::Release);
        Some(at)
    }

    /// Nothing follows. Only the first reason counts.
    pub(super) fn finish(&self, end: VoiceEnd) {
        let _ = self.shared.ended.set(end);
        self.shared.wake_reader.notify_one();
    }
}

/// The listener's end.
pub(super) struct Reader {
    ring: HeapCons<Chunk>,
    shared: Arc<Shared>,
    queue: VecDeque<Chunk>,
}

impl Reader {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// See [`super::Voice::read`].
    pub(super) fn read(&mut self, max: Samples) -> Read {
        loop {
            let ended = self.shared.ended.get().cloned();
            let Some(seen) = self.shared.border.look() else { continue };
            self.drain(seen.epoch, seen.cut);
            let Some(front) = self.queue.front() else {
                return ended.map_or(Read::Pending, Read::End);
            };
            if max.0 == 0 {
                return Read::Pending;
            }
            let take = (front.pcm.len() / front.channels).min(usize::try_from(max.0).unwrap_or(usize::MAX));
            if self.shared.border.commit(&seen, take as u64)
                && let Some(chunk) = self.take_front(take)
            {
                self.shared.engine.unpark();
                return Read::Chunk(chunk);
            }
        }
    }

    /// Moves the ring into the queue and drops what was cut off.
    fn drain(&mut self, epoch: u32, cut: u64) {
        while let Some(chunk) = self.ring.try_pop() {
            truncate(&mut self.queue, chunk.start.0, |_| true);
            self.queue.push_back(chunk);
        }
        // What is in the ring may be newer than the border that was read: that is another cut's
        // business.
        truncate(&mut self.queue, cut, |chunk| older(chunk.epoch, epoch));
    }

    fn take_front(&mut self, take: usize) -> Option<Chunk> {
        let front = self.queue.front_mut()?;
        if take * front.channels == front.pcm.len() {
            return self.queue.pop_front();
        }
        let rest = front.pcm.split_off(take * front.channels);
        let pcm = std::mem::replace(&mut front.pcm, rest);
        let start = front.start;
        front.start.0 += take as u64;
        let later = front.passage.as_mut().map(|passage| passage.split_off(front.start.0));
        let passage = std::mem::replace(&mut front.passage, later);
        let Chunk { epoch, sample_rate, channels, .. } = *front;
        Some(Chunk { start, epoch, sample_rate, channels, pcm, passage })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
        self.shared.engine.unpark();
    }
}

/// Whether epoch `a` came before `b`; they are counted in sixteen bits.
fn older(a: u32, b: u32) -> bool {
    (1..0x8000).contains(&(b.wrapping_sub(a) & 0xffff))
}

/// Removes the samples at and after `at` from those chunks at the back that `concerns` picks.
fn truncate(queue: &mut VecDeque<Chunk>, at: u64, concerns: impl Fn(&Chunk) -> bool) {
    queue.retain_mut(|chunk| {
        if concerns(chunk) {
            let keep = at.saturating_sub(chunk.start.0);
            let samples = (chunk.pcm.len() / chunk.channels) as u64;
            if keep < samples {
                chunk.pcm.truncate(keep as usize * chunk.channels);
                if let Some(passage) = &mut chunk.passage {
                    passage.split_off(at);
                }
            }
        }
        !chunk.pcm.is_empty()
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RATE: SampleRate = SampleRate(32_000);

    fn ramp(from: u64, count: u64, offset: f32) -> Vec<f32> {
        (from..from + count).map(|i| i as f32 + offset).collect()
    }

    fn pcm(read: Read) -> (u64, Vec<f32>) {
        match read {
            Read::Chunk(chunk) => (chunk.start.0, chunk.pcm),
            other => panic!("no chunk but {other:?}"),
        }
    }

    #[test]
    fn reads_what_was_written_in_pieces_of_any_size() {
        let (mut writer, mut reader) = pcm_ring(8, std::thread::current());
        writer.push(ramp(0, 10, 0.0), 1, RATE, None);
        writer.push(ramp(10, 5, 0.0), 1, RATE, None);
        assert_eq!(pcm(reader.read(Samples(4))), (0, ramp(0, 4, 0.0)));
        assert_eq!(pcm(reader.read(Samples(99))), (4, ramp(4, 6, 0.0)));
        assert_eq!(pcm(reader.read(Samples(99))), (10, ramp(10, 5, 0.0)));
        assert_eq!(reader.read(Samples(1)), Read::Pending);
        writer.finish(VoiceEnd::Finished);
        assert_eq!(reader.read(Samples(1)), Read::End(VoiceEnd::Finished));
    }

    #[test]
    fn a_cut_takes_back_only_what_was_not_read() {
        let (mut writer, mut reader) = pcm_ring(8, std::thread::current());
        writer.push(ramp(0, 10, 0.0), 1, RATE, None);
        writer.push(ramp(10, 10, 0.0), 1, RATE, None);
        assert_eq!(pcm(reader.read(Samples(5))).0, 0);
        let at = writer.cut(|committed| {
            assert_eq!(committed, 5);
            Some(12)
        });
        assert_eq!(at, Some(12));
        assert_eq!(pcm(reader.read(Samples(99))), (5, ramp(5, 5, 0.0)));
        assert_eq!(pcm(reader.read(Samples(99))), (10, ramp(10, 2, 0.0)));
        assert_eq!(reader.read(Samples(99)), Read::Pending);
        writer.push(ramp(12, 4, 0.5), 1, RATE, None);
        assert_eq!(pcm(reader.read(Samples(99))), (12, ramp(12, 4, 0.5)));
    }

    #[test]
    fn two_cuts_before_a_read_leave_each_epoch_its_part() {
        let (mut writer, mut reader) = pcm_ring(8, std::thread::current());
        writer.push(ramp(0, 10, 0.0), 1, RATE, None);
        writer.cut(|_| Some(4));
        writer.push(ramp(4, 10, 0.25), 1, RATE, None);
        writer.cut(|_| Some(8));
        writer.push(ramp(8, 2, 0.5), 1, RATE, None);
        let mut all = Vec::new();
        while let Read::Chunk(chunk) = reader.read(Samples(3)) {
            assert_eq!(chunk.start.0 as usize, all.len());
            all.extend(chunk.pcm);
        }
        assert_eq!(all, [ramp(0, 4, 0.0), ramp(4, 4, 0.25), ramp(8, 2, 0.5)].concat());
    }

    #[test]
    fn a_dropped_reader_is_noticed() {
        let (writer, reader) = pcm_ring(2, std::thread::current());
        assert!(!writer.abandoned());
        drop(reader);
        assert!(writer.abandoned());
    }

    /// Two threads race: whatever the interleaving, the reader sees an unbroken line, and every
    /// sample it sees after a cut's place belongs to that cut's epoch or a later one.
    #[test]
    fn what_is_newer_than_the_border_that_was_read_is_kept() {
        let (mut writer, mut reader) = pcm_ring(8, std::thread::current());
        writer.push(ramp(0, 10, 0.0), 1, RATE, None);
        assert_eq!(writer.cut(|_| Some(4)), Some(4));
        writer.push(ramp(4, 7, 0.0), 1, RATE, None);
        // The reader has read the border here, and goes on after this.
        assert_eq!(writer.cut(|_| Some(8)), Some(8));
        writer.push(ramp(8, 7, 0.0), 1, RATE, None);
        reader.drain(1, 4);
        let mut heard = Vec::new();
        while let Read::Chunk(chunk) = reader.read(Samples(100)) {
            assert_eq!(chunk.start.0 as usize, heard.len());
            heard.extend(chunk.pcm);
        }
        assert_eq!(heard, ramp(0, 15, 0.0));
        assert!(older(0xffff, 0) && older(3, 4) && !older(4, 4) && !older(5, 4) && !older(0, 0xffff));
    }

    #[test]
    fn racing_cuts_never_touch_committed_samples() {
        let (mut writer, mut reader) = pcm_ring(4096, std::thread::current());
        let writing = std::thread::spawn(move || {
            let mut cuts = vec![0u64];
            for round in 0..2000u64 {
                if writer.has_room() {
                    writer.push(vec![writer.epoch() as f32; 7], 1, RATE, None);
                }
                if round % 5 == 0 {
                    let end = writer.end();
                    if let Some(at) =
                        writer.cut(|committed| (committed < end).then(|| committed + (end - committed) / 2))
                    {
                        cuts.push(at);
                    }
                }
            }
            writer.finish(VoiceEnd::Finished);
            cuts
        });
        let mut seen = Vec::new();
        loop {
            match reader.read(Samples(3)) {
                Read::Chunk(chunk) => {
                    assert_eq!(chunk.start.0 as usize, seen.len());
                    assert!(chunk.pcm.iter().all(|&sample| sample == chunk.epoch as f32));
                    seen.extend(chunk.pcm.iter().map(|&sample| sample as usize));
                }
                Read::Pending => std::thread::yield_now(),
                Read::End(_) => break,
            }
        }
        let cuts = writing.join().unwrap();
        for (epoch, &at) in cuts.iter().enumerate() {
            assert!(seen.iter().skip(at as usize).all(|&sample| sample >= epoch));
        }
    }
}
