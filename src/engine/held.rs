//! Sound that was made but is not offered to the reader yet: until it is, it can be taken back
//! whatever the reader does.
//!
//! How much is held depends on nothing but how much was made, so that a voice is taken back at the
//! same places whoever listens; only on a machine below about three times real time a live reader
//! that has little left is given what is held. A voice begins without holding anything back, so
//! that its first sound is not late; after that all that is made is held until it is enough, or half
//! of it where that is to be much.

use std::collections::VecDeque;
use std::time::Instant;

use super::Passage;
use super::pcm_ring::Writer;
use crate::units::SampleRate;

/// Seconds that are given out at once when a voice begins or was steered.
const HEAD_START: f64 = 3.0;
/// Seconds of what follows that are held whole: a voice that stands still from its beginning on is always taken back to
/// the same place.
const WHOLE: f64 = 4.5;
/// So far ahead of real time a live reader is kept whatever is held: the machine may be busy for a
/// moment. Less than the head start, so that it plays no part where the machine is fast.
const AHEAD: f64 = 2.0;
/// A live reader with more than so many seconds left needs nothing of what is held.
const SHORT: f64 = 1.0;

/// What goes with a piece of sound.
type Codes = Option<Passage>;

pub(super) struct Held {
    pcm: VecDeque<f32>,
    channels: usize,
    rate: SampleRate,
    /// Samples to hold back in the long run.
    most: u64,
    /// Media time from which on sound is held back.
    origin: u64,
    /// When the first sound behind the origin was offered.
    offered: Option<Instant>,
}

impl Held {
    /// Holds nothing back before [`Held::hold`].
    pub(super) fn new(rate: SampleRate, channels: usize) -> Self {
        Self { pcm: VecDeque::new(), channels, rate, most: 0, origin: 0, offered: None }
    }

    /// Holds back up to `seconds`, beginning anew at media time `origin`.
    pub(super) fn hold(&mut self, seconds: f64, origin: u64) {
        self.most = self.rate.samples(seconds).0;
        (self.origin, self.offered) = (origin, None);
    }

    /// The format of what is pushed from now on; nothing of another format is held.
    pub(super) fn format(&mut self, rate: SampleRate, channels: usize) {
        (self.rate, self.channels) = (rate, channels);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pcm.is_empty()
    }

    /// Media time at which all sound ends, offered or not.
    pub(super) fn end(&self, writer: &Writer) -> u64 {
        writer.end() + (self.pcm.len() / self.channels) as u64
    }

    pub(super) fn push(&mut self, pcm: &[f32]) {
        self.pcm.extend(pcm);
    }

    /// Takes back what lies behind media time `at`; gives it away.
    pub(super) fn take_back(&mut self, at: u64, writer: &Writer) -> Vec<f32> {
        let keep = at.saturating_sub(writer.end()) as usize * self.channels;
        self.pcm.split_off(keep.min(self.pcm.len())).into()
    }

    /// Media time up to which sound need not be held once it was heard up to `heard`.
    pub(super) fn free(&self, heard: u64) -> u64 {
        let head_start = self.origin + self.rate.samples(HEAD_START).0;
        let made = heard.saturating_sub(head_start);
        let held = made.min(self.rate.samples(WHOLE).0).max(made / 2).min(self.most);
        (heard - held).max(head_start)
    }

    /// Offers what need not be held any more; `live` if somebody listens while it is made. `codes`
    /// gives those that are to go with it, up to a media time.
    pub(super) fn offer(&mut self, writer: &mut Writer, live: bool, heard: u64, codes: impl FnOnce(u64) -> Codes) {
        let all = self.most == 0 || (live && self.is_short(writer));
        self.offer_until(if all { u64::MAX } else { self.free(heard) }, writer, codes);
    }

    /// Offers everything.
    pub(super) fn offer_all(&mut self, writer: &mut Writer, codes: impl FnOnce(u64) -> Codes) {
        self.offer_until(u64::MAX, writer, codes);
    }

    fn offer_until(&mut self, at: u64, writer: &mut Writer, codes: impl FnOnce(u64) -> Codes) {
        if !writer.has_room() {
            return;
        }
        let samples = usize::try_from(at.saturating_sub(writer.end())).unwrap_or(usize::MAX);
        let count = samples.saturating_mul(self.channels).min(self.pcm.len());
        if count > 0 {
            self.offered.get_or_insert_with(Instant::now);
            let codes = codes(writer.end() + (count / self.channels) as u64);
            writer.push(self.pcm.drain(..count).collect(), self.channels, self.rate, codes);
        }
    }

    /// Whether a reader that plays in real time has little left: the machine is too slow to hold
    /// sound back.
    fn is_short(&self, writer: &Writer) -> bool {
        let seconds = |samples: u64| samples as f64 / f64::from(self.rate.0);
        let given = seconds(writer.end().saturating_sub(self.origin));
        let wanted = self.offered.map_or(0.0, |at| at.elapsed().as_secs_f64()) + AHEAD;
        given < wanted && seconds(writer.shared().buffered()) < SHORT
    }
}

#[cfg(test)]
mod tests {
    use super::super::pcm_ring::pcm_ring;
    use super::super::{Chunk, Read};
    use super::*;
    use crate::units::Samples;

    const RATE: SampleRate = SampleRate(1000);

    /// Pushes `count` samples, a hundred at a time, as a spare voice does.
    fn make(held: &mut Held, writer: &mut Writer, count: usize) {
        for _ in 0..count / 100 {
            let end = held.end(writer);
            held.push(&(end..end + 100).map(|n| n as f32).collect::<Vec<_>>());
            let heard = held.end(writer);
            held.offer(writer, false, heard, |_| None);
        }
    }

    #[test]
    fn a_head_start_is_offered_at_once_and_then_nothing_or_half_until_enough_is_held() {
        let (mut writer, _reader) = pcm_ring(999, std::thread::current());
        let mut held = Held::new(RATE, 1);
        held.hold(8.0, 0);
        make(&mut held, &mut writer, 3000);
        assert_eq!(writer.end(), 3000);
        make(&mut held, &mut writer, 4500);
        assert_eq!((writer.end(), held.end(&writer)), (3000, 7500));
        make(&mut held, &mut writer, 7500);
        assert_eq!((writer.end(), held.end(&writer)), (9000, 15_000));
        make(&mut held, &mut writer, 7000);
        assert_eq!((writer.end(), held.end(&writer)), (14_000, 22_000));
        held.offer_all(&mut writer, |_| None);
        assert_eq!((writer.end(), held.is_empty()), (22_000, true));
    }

    #[test]
    fn what_is_held_can_be_taken_back_and_what_was_offered_cannot() {
        let (mut writer, mut reader) = pcm_ring(999, std::thread::current());
        let mut held = Held::new(RATE, 1);
        held.hold(4.5, 0);
        make(&mut held, &mut writer, 10_000);
        assert_eq!(writer.end(), 5500);
        let back = held.take_back(7000, &writer);
        assert_eq!((back.len(), back[0], held.end(&writer)), (3000, 7000.0, 7000));
        make(&mut held, &mut writer, 3000);
        held.offer_all(&mut writer, |_| None);
        let mut seen = 0;
        while let Read::Chunk(Chunk { start, epoch, pcm, .. }) = reader.read(Samples(u64::MAX)) {
            assert_eq!((start.0, epoch), (seen, 0));
            assert!(pcm.iter().zip(seen..).all(|(&sample, n)| sample == n as f32));
            seen += pcm.len() as u64;
        }
        assert_eq!(seen, 10_000);
    }

    #[test]
    fn a_live_reader_that_has_nothing_left_is_given_what_is_held() {
        let (mut writer, mut reader) = pcm_ring(999, std::thread::current());
        let mut held = Held::new(RATE, 1);
        held.hold(4.5, 0);
        make(&mut held, &mut writer, 5000);
        while let Read::Chunk(_) = reader.read(Samples(u64::MAX)) {}
        // So much was given out: who plays in real time has enough for now.
        held.offer(&mut writer, true, 5000, |_| None);
        assert_eq!(writer.end(), 3000);
        held.offered = Instant::now().checked_sub(std::time::Duration::from_secs(3));
        held.offer(&mut writer, false, 5000, |_| None);
        assert_eq!(writer.end(), 3000);
        held.offer(&mut writer, true, 5000, |_| None);
        assert_eq!(writer.end(), 5000);
    }
}
