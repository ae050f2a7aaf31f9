//! From the codes of a voice to sound that its reader has.

use super::super::codes::Codes;
use super::super::passage::Passage;
use super::super::{CodecState, ModelInfo, Priority, Slot};
use super::VoiceState;

/// Frames that one codec pass takes of a voice: what a long prefix brings must not hold the others
/// up.
const PASS: u64 = 25;

/// What the codec has heard, to go back to.
pub(super) struct Snapshot {
    pub(super) fed: u64,
    pub(super) state: Box<dyn CodecState>,
}

/// What the reader was brought of the codes.
#[derive(Default)]
pub(super) struct Brought {
    /// Counts beginnings.
    pub(super) run: u32,
    /// Frames of this run: all before this one.
    pub(super) frames: u64,
}

impl Brought {
    /// The codes that the sound before media time `end` needs and that were not brought yet; the
    /// run begins at `base` behind `unheard` samples, and `fed` of its frames are decoded.
    fn up_to(&mut self, end: u64, info: &ModelInfo, codes: &Codes, (base, unheard): (u64, u64), fed: u64) -> Passage {
        let codec = info.into();
        let origin = base as i64 - unheard as i64;
        let first = self.frames.max(codes.first_frame());
        let last = Passage::needed(&codec, origin, end).min(fed).max(first);
        let mut all = Vec::with_capacity((last - first) as usize * info.codebooks);
        (first..last).for_each(|frame| codes.frame(frame, &mut all));
        self.frames = last;
        Passage { codec, run: self.run, origin, first, codes: all }
    }
}

impl VoiceState {
    /// Frames for the codec now, if it is worth a pass: few while the reader waits, more when there
    /// is time.
    pub(in crate::engine) fn frames_due(&self) -> Option<(u64, bool)> {
        if self.paused || self.finished || !self.writer.has_room() {
            return None;
        }
        let complete = self.codes.complete_frames().min(self.end.unwrap_or(u64::MAX));
        let waiting = complete.saturating_sub(self.fed).min(PASS);
        let last = self.end == Some(self.fed + waiting);
        let ahead = self.writer.shared().buffered() as f64 / f64::from(self.info.sample_rate.0);
        let seconds = if ahead < 0.3 {
            0.0
        } else if ahead < 1.0 {
            0.1
        } else {
            0.2
        };
        let enough = ((seconds * self.info.frame_rate()) as u64).max(1);
        let first_sound = (self.skipped + self.info.lookahead as u64 + 1).saturating_sub(self.fed);
        (last || waiting >= enough.max(first_sound)).then_some((waiting, last))
    }

    /// The codec's input for [`VoiceState::frames_due`], with the state to advance.
    pub(in crate::engine) fn codec_input(&mut self, frames: u64) -> (Vec<u32>, &mut dyn CodecState) {
        let mut codes = Vec::with_capacity(frames as usize * self.info.codebooks);
        for frame in self.fed..self.fed + frames {
            self.codes.frame(frame, &mut codes);
        }
        (codes, self.codec.as_mut())
    }

    /// Takes decoded PCM. A voice that stands still goes back from here; windows that it does not
    /// need any more are returned.
    pub(in crate::engine) fn decoded(&mut self, frames: u64, last: bool, mut pcm: Vec<f32>) -> Vec<Slot> {
        let silent = self.unheard.saturating_sub(self.sounded(self.fed));
        let end = self.held.end(&self.writer);
        // A voice that was taken back to a place between two snapshots has some of its sound
        // already.
        let known = silent + end.saturating_sub(self.position(self.fed));
        pcm.drain(..(known as usize * self.info.channels).min(pcm.len()));
        self.fed += frames;
        self.finished = last;
        self.rate.made(frames as f64 / self.info.frame_rate());
        self.guard.mix(end, &mut pcm, self.info.channels);
        self.held.push(&pcm);
        // Behind its flush a codec cannot go on.
        if !last {
            self.snapshots.push_back(Snapshot { fed: self.fed, state: self.codec.snapshot() });
        }
        let freed = self.look_at(end, &pcm);
        if self.finished {
            self.offer_all();
        } else {
            self.offer();
        }
        self.forget();
        let mut freed = freed.unwrap_or_default();
        if self.finished {
            freed.extend(self.close_windows());
        }
        freed
    }

    /// Offers what need not be held any more.
    fn offer(&mut self) {
        let (live, heard) = (self.priority == Priority::Live, self.heard());
        let Self { held, writer, brought, info, codes, base, unheard, fed, .. } = self;
        held.offer(writer, live, heard, |end| Some(brought.up_to(end, info, codes, (*base, *unheard), *fed)));
    }

    pub(super) fn offer_all(&mut self) {
        let Self { held, writer, brought, info, codes, base, unheard, fed, .. } = self;
        held.offer_all(writer, |end| Some(brought.up_to(end, info, codes, (*base, *unheard), *fed)));
    }

    /// Drops what no rewind can reach any more; returns slots through
    /// [`VoiceState::release_unreachable`].
    fn forget(&mut self) {
        if self.windows.is_empty() {
            return; // A prefix is decoded before it is read: the first window may want all of it.
        }
        let committed = self.writer.shared().committed();
        // The last one before it stays: held sound may be taken back to a place between two of
        // them.
        while self.snapshots.get(1).is_some_and(|next| self.position(next.fed) <= committed) {
            self.snapshots.pop_front();
        }
        let window = self.windows.first().map_or(u64::MAX, |window| window.start);
        // After the longest rewind a new window may have to be filled from there.
        let reachable = self.codes.columns_for(self.snapshots[0].fed);
        self.guard.forget(reachable, committed, self.info.channels);
        let newest = self.newest().min(reachable);
        let resume = newest.saturating_sub(self.info.keep as u64 + self.info.window as u64 / 8);
        self.codes.forget_before(window.min(resume).min(self.snapshots[0].fed));
    }

    /// Samples that the codec has given once `fed` frames were fed to it.
    fn sounded(&self, fed: u64) -> u64 {
        fed.saturating_sub(self.info.lookahead as u64).max(self.skipped) * self.info.hop as u64
    }

    /// Media time at which the sound ends once `fed` frames were fed to the codec.
    pub(super) fn position(&self, fed: u64) -> u64 {
        self.base + self.sounded(fed).saturating_sub(self.unheard)
    }
}
