//! One voice as the engine thread sees it: its codes, its windows in the KV pool, its codec
//! decoder, and the way back.
//!
//! A voice can be rewound to any codec snapshot that has not been played yet. That moves four
//! things together: the PCM's end (a cut of the time line), the codec state (a snapshot), the codes
//! (a truncation) and the window (an index; or the previous window, which is kept until the reader
//! has passed the place where the voice left it).

mod recover;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::recover::Guard;
pub(super) use self::recover::TURN_DRAWS;
use super::blend::Ramp;
use super::codes::Codes;
use super::held::Held;
use super::passage::Passage;
use super::pcm_ring::Writer;
use super::rate::Rate;
use super::texts::{Texts, VoiceTexts};
use super::{Ack, CodecState, ModelInfo, Prefix, Priority, Sampling, Slot, WeightedPrompt};
use crate::units::VoiceId;

/// A place in the KV pool that holds the voice's recent columns.
pub(super) struct Window {
    pub(super) slot: Slot,
    /// Column at position 0.
    pub(super) start: u64,
    /// Positions whose keys and values are there.
    pub(super) filled: u64,
    /// The voice had this many columns when the window took over.
    since: u64,
}

struct Snapshot {
    fed: u64,
    state: Box<dyn CodecState>,
}

/// What a voice needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it is paused, far enough ahead, or complete.
    Nothing,
    /// A window in the KV pool.
    Window,
    /// Columns read into its window.
    Prefill,
    /// The next column.
    Step,
    /// Only what is left for the codec.
    Flush,
}

/// What a voice is to become.
pub(super) struct Plan {
    pub(super) length: Option<u64>,
    pub(super) lead: Duration,
    pub(super) prefix: Option<Prefix>,
    pub(super) priority: Priority,
    /// Seconds of nothing new that are too many; 0 never are.
    pub(super) max_still: f64,
}

/// What the reader was brought of the codes.
#[derive(Default)]
struct Brought {
    /// Counts beginnings.
    run: u32,
    /// Frames of this run: all before this one.
    frames: u64,
}

/// Over how long the real-time factor of a voice is taken: short enough to follow the machine, long
/// enough to hold.
const RATE_MEMORY: Duration = Duration::from_secs(8);
/// A factor that is expected and not measured is not told as more than this.
const MOST_EXPECTED: f64 = 1000.0;

/// Frames that one codec pass takes of a voice: what a long prefix brings must not hold the others
/// up.
const PASS: u64 = 25;

/// A voice in the engine.
pub(super) struct VoiceState {
    pub(super) id: VoiceId,
    pub(super) info: Arc<ModelInfo>,
    pub(super) writer: Writer,
    pub(super) prompts: Vec<WeightedPrompt>,
    pub(super) texts: Arc<VoiceTexts>,
    pub(super) sampling: Sampling,
    pub(super) ramp: Ramp,
    pub(super) codes: Codes,
    pub(super) paused: bool,
    pub(super) priority: Priority,
    /// Current window last; the one before it stays reachable for a rewind.
    windows: Vec<Window>,
    /// Media time of frame 0 of the present run (the codes since the last reset).
    base: u64,
    /// Samples of the present run that nobody hears: the sound of a prefix.
    unheard: u64,
    /// Frames of the present run that the codec was not given.
    skipped: u64,
    /// Frames of the present run at which the voice is complete.
    end: Option<u64>,
    /// Draws used by earlier runs, so that a reset does not play the same again.
    draw_base: u64,
    codec: Box<dyn CodecState>,
    fed: u64,
    finished: bool,
    snapshots: VecDeque<Snapshot>,
    /// Columns at which a window counts as full: earlier than the trained window by up to an
    /// eighth, by seed, so that voices which started together do not all refill at once.
    full: u64,
    rate: Rate,
    /// What was made and is not offered to the reader yet.
    held: Held,
    brought: Brought,
    guard: Guard,
}

impl VoiceState {
    pub(super) fn new(
        id: VoiceId,
        info: Arc<ModelInfo>,
        writer: Writer,
        (prompts, ramp, texts): (Vec<WeightedPrompt>, Ramp, Arc<Texts>),
        sampling: Sampling,
        codec: Box<dyn CodecState>,
        Plan { length, lead, prefix, priority, max_still }: Plan,
    ) -> Self {
        let full = full_window(&info, sampling.seed, length);
        let skipped = prefix.as_ref().map_or(0, |prefix| prefix.skipped as u64);
        let unheard = match &prefix {
            Some(prefix) if !prefix.heard => (prefix.codes.len() / info.codebooks) as u64,
            _ => skipped,
        };
        let unheard = unheard * info.hop as u64;
        writer.shared().set_lead((lead.as_secs_f64() * f64::from(info.sample_rate.0)) as u64);
        let first = Snapshot { fed: skipped, state: codec.snapshot() };
        let mut voice = Self {
            id,
            held: Held::new(info.sample_rate, info.channels),
            brought: Brought { run: 0, frames: skipped },
            guard: Guard::new(max_still),
            codes: Codes::new(&info, prefix.map_or_else(|| Arc::new([]) as Arc<[u32]>, |prefix| prefix.codes)),
            info,
            writer,
            texts: VoiceTexts::new(texts, ramp.texts()),
            prompts,
            sampling,
            ramp,
            paused: false,
            priority,
            windows: Vec::new(),
            base: 0,
            unheard,
            skipped,
            end: length,
            draw_base: 0,
            codec,
            fed: skipped,
            finished: false,
            snapshots: VecDeque::from([first]),
            full,
            rate: Rate::new(RATE_MEMORY),
        };
        voice.watch_from(voice.end_of_given());
        voice
    }

    /// Rows of the batch that one step of this voice takes.
    pub(super) fn rows(&self) -> usize {
        let described = self.prompts.iter().any(|prompt| !prompt.text.is_empty() && prompt.weight > 0.0);
        if described && self.sampling.guidance != 1.0 { 2 } else { 1 }
    }

    /// Seconds ahead of the reader, frames that wait for the codec included.
    pub(super) fn buffered(&self) -> f64 {
        let waiting = self.codes.complete_frames().saturating_sub(self.fed) * self.info.hop as u64;
        (self.writer.shared().buffered() + waiting) as f64 / f64::from(self.info.sample_rate.0)
    }

    /// Seconds that it is to have ahead of its reader.
    pub(super) fn lead(&self) -> f64 {
        self.writer.shared().lead() as f64 / f64::from(self.info.sample_rate.0)
    }

    /// Seconds until all of a voice with an end is made, as fast as it is made now.
    pub(super) fn seconds_to_make(&self) -> Option<f64> {
        let left = self.end?.saturating_sub(self.codes.complete_frames()) as f64 / self.info.frame_rate();
        let factor = f64::from(f32::from_bits(self.writer.shared().realtime.load(Ordering::Relaxed)));
        // Somebody listens to a live one while it is made: its lead is all that it can gain.
        let speed = if self.priority == Priority::Live { factor.min(1.0) } else { factor };
        Some(left / speed.max(1e-3))
    }

    /// Seconds of sound that the reader could take without another turn of the engine.
    pub(super) fn lead_left(&self) -> f64 {
        self.writer.shared().buffered() as f64 / f64::from(self.info.sample_rate.0)
    }

    pub(super) fn need(&self) -> Need {
        let satisfied = self.writer.shared().buffered() >= self.writer.shared().lead();
        if self.paused || self.finished || satisfied || !self.writer.has_room() {
            return Need::Nothing;
        }
        if self.end.is_some_and(|end| self.codes.complete_frames() >= end) {
            return Need::Flush;
        }
        match self.windows.last() {
            None => Need::Window,
            Some(window) if self.newest() - window.start >= self.full => Need::Window,
            Some(window) if window.filled < self.newest() - window.start => Need::Prefill,
            Some(_) => Need::Step,
        }
    }

    /// The newest known column: the one to feed next.
    fn newest(&self) -> u64 {
        self.codes.columns() - 1
    }

    /// Begins a window in `slot` over the last `keep` frames, or over the whole run while that is
    /// short. A piece that has not begun is given as much of its prefix as leaves room for the
    /// rest.
    pub(super) fn open_window(&mut self, slot: Slot) {
        let newest = self.newest();
        let mut start = newest.saturating_sub(self.info.keep as u64).max(self.guard.fence());
        if let (Some(end), 0) = (self.end, self.codes.sampled()) {
            start = start.min((self.codes.columns_for(end) - 1).saturating_sub(self.full));
        }
        self.windows.push(Window { slot, start, filled: 0, since: self.codes.columns() });
    }

    /// Gives up every window: slots to return to the pool.
    pub(super) fn close_windows(&mut self) -> impl Iterator<Item = Slot> + use<> {
        std::mem::take(&mut self.windows).into_iter().map(|window| window.slot)
    }

    /// Gives up a window that only a rewind could still need.
    pub(super) fn close_old_window(&mut self) -> Option<Slot> {
        (self.windows.len() > 1).then(|| self.windows.remove(0).slot)
    }

    /// The next columns to read into the window: their first position and their ids.
    pub(super) fn prefill_ids(&self, most: usize, out: &mut Vec<u32>) -> Option<(Slot, usize, usize)> {
        let window = self.windows.last()?;
        let missing = (self.newest() - window.start - window.filled).min(most as u64);
        for column in window.start + window.filled..window.start + window.filled + missing {
            self.codes.window_column(column, window.start, out);
        }
        Some((window.slot, window.filled as usize, missing as usize))
    }

    pub(super) fn prefilled(&mut self, columns: usize) {
        if let Some(window) = self.windows.last_mut() {
            window.filled += columns as u64;
        }
    }

    /// The column to feed: slot, position, draw; ids are appended to `out`.
    pub(super) fn step_ids(&self, out: &mut Vec<u32>) -> Option<(Slot, usize, u64)> {
        let window = self.windows.last()?;
        self.codes.window_column(self.newest(), window.start, out);
        Some((
            window.slot,
            (self.newest() - window.start) as usize,
            self.guard.draw(self.draw_base + self.codes.columns()),
        ))
    }

    /// Takes the sampled column.
    pub(super) fn stepped(&mut self, column: &[u32]) {
        self.codes.push(column, self.end);
        self.writer.shared().steps.store(self.codes.sampled(), Ordering::Relaxed);
        let newest = self.newest();
        if let Some(window) = self.windows.last_mut() {
            window.filled = newest - window.start;
        }
    }

    /// Frames for the codec now, if it is worth a pass: few while the reader waits, more when there
    /// is time.
    pub(super) fn frames_due(&self) -> Option<(u64, bool)> {
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
    pub(super) fn codec_input(&mut self, frames: u64) -> (Vec<u32>, &mut dyn CodecState) {
        let mut codes = Vec::with_capacity(frames as usize * self.info.codebooks);
        for frame in self.fed..self.fed + frames {
            self.codes.frame(frame, &mut codes);
        }
        (codes, self.codec.as_mut())
    }

    /// Takes decoded PCM. A voice that stands still goes back from here; windows that it does not
    /// need any more are returned.
    pub(super) fn decoded(&mut self, frames: u64, last: bool, mut pcm: Vec<f32>) -> Vec<Slot> {
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

    fn offer_all(&mut self) {
        let Self { held, writer, brought, info, codes, base, unheard, fed, .. } = self;
        held.offer_all(writer, |end| Some(brought.up_to(end, info, codes, (*base, *unheard), *fed)));
    }

    /// Whether it takes part in the batch, now or once its reader has read.
    pub(super) fn generates(&self) -> bool {
        !self.paused && !self.finished
    }

    /// Whether it is complete and its reader has all of it.
    pub(super) fn is_played_out(&self) -> bool {
        self.finished && self.held.is_empty() && self.writer.shared().buffered() == 0
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

    /// A window that no rewind can reach any more.
    pub(super) fn release_unreachable(&mut self) -> Option<Slot> {
        let reachable = self.codes.columns_for(self.snapshots[0].fed);
        (self.windows.len() > 1 && self.windows[1].since <= reachable).then(|| self.windows.remove(0).slot)
    }

    /// Samples that the codec has given once `fed` frames were fed to it.
    fn sounded(&self, fed: u64) -> u64 {
        fed.saturating_sub(self.info.lookahead as u64).max(self.skipped) * self.info.hop as u64
    }

    /// Media time at which the sound ends once `fed` frames were fed to the codec.
    fn position(&self, fed: u64) -> u64 {
        self.base + self.sounded(fed).saturating_sub(self.unheard)
    }

    /// Goes back to the earliest place at least `margin` seconds after what the reader has, and
    /// returns the windows that are not needed any more. Everything from the acknowledged time on
    /// is generated anew.
    pub(super) fn rewind(&mut self, margin: f64) -> (Ack, Vec<Slot>) {
        let margin = (margin * f64::from(self.info.sample_rate.0)) as u64;
        self.offer_all();
        let end = self.writer.end();
        // Where the ring has no room, what is held is given up.
        self.held.take_back(end, &self.writer);
        let places = self.snapshots.iter().map(|snapshot| self.position(snapshot.fed));
        let places: Vec<u64> = places.take_while(|place| *place <= end).collect();
        let choose = |committed: u64| places.iter().copied().find(|&place| place >= (committed + margin).min(end));
        let cut = self.writer.cut(choose);
        let Some((at, index)) = cut.and_then(|at| Some((at, places.iter().position(|&place| place == at)?))) else {
            // Complete, and too little is left to be heard.
            return (self.ack(end), Vec::new());
        };
        self.return_to(index);
        self.codes.truncate(self.codes.columns_for(self.fed));
        // Where nothing of the run is left with the reader, its beginning is brought again.
        self.brought.frames = if at == self.base { self.skipped } else { self.brought.frames.min(self.fed) };
        self.was_rewound(at);
        (self.ack(at), self.rewind_windows())
    }

    fn rewind_windows(&mut self) -> Vec<Slot> {
        let columns = self.codes.columns();
        let mut freed = Vec::new();
        while self.windows.len() > 1 && self.windows.last().is_some_and(|window| window.since > columns) {
            freed.extend(self.windows.pop().map(|window| window.slot));
        }
        let newest = self.newest();
        match self.windows.last_mut() {
            Some(window) if window.start <= newest => window.filled = window.filled.min(newest - window.start),
            _ => freed.extend(self.close_windows()),
        }
        freed
    }

    fn ack(&self, at: u64) -> Ack {
        Ack { at: at as f64 / f64::from(self.info.sample_rate.0), epoch: self.writer.epoch() }
    }

    /// Rewinds, then forgets the music: the next column is the first of a new run on `info`.
    pub(super) fn restart(
        &mut self,
        margin: f64,
        info: Arc<ModelInfo>,
        codec: Box<dyn CodecState>,
    ) -> (Ack, Vec<Slot>) {
        let (ack, mut freed) = self.rewind(margin);
        freed.extend(self.close_windows());
        let place = (ack.at * f64::from(self.info.sample_rate.0)).round() as u64;
        let done = (place - self.base + self.unheard) / self.info.hop as u64;
        self.draw_base += self.codes.columns();
        self.ramp = self.ramp.rebased(self.codes.columns());
        self.end = self.end.map(|end| {
            let left = end.saturating_sub(done) * self.info.hop as u64;
            left.div_ceil(info.hop as u64)
        });
        self.brought = Brought { run: self.brought.run + 1, frames: 0 };
        self.base = place;
        (self.unheard, self.skipped) = (0, 0);
        self.codes = Codes::new(&info, Arc::new([]));
        self.fed = 0;
        self.full = full_window(&info, self.sampling.seed, self.end);
        self.snapshots = VecDeque::from([Snapshot { fed: 0, state: codec.snapshot() }]);
        self.codec = codec;
        self.info = info;
        self.begins_again(place);
        (ack, freed)
    }

    /// Rewinds, then goes on with another model that understands the same codes.
    pub(super) fn move_to(&mut self, margin: f64, info: Arc<ModelInfo>) -> (Ack, Vec<Slot>) {
        let (ack, mut freed) = self.rewind(margin);
        freed.extend(self.close_windows());
        self.full = full_window(&info, self.sampling.seed, self.end);
        self.info = info;
        (ack, freed)
    }

    /// Notes that the voice wanted sound in a turn that began at `begun`; publishes its real-time
    /// factor now and then.
    pub(super) fn was_hungry(&mut self, begun: Instant, now: Instant) {
        if let Some(factor) = self.rate.wants(begun, now) {
            self.publish_factor(factor);
        }
    }

    /// Notes that it has what it wants.
    pub(super) fn was_content(&mut self) {
        self.rate.rests();
    }

    /// It begins, or goes on after a pause: until it has been measured, the factor is what
    /// admission expects.
    pub(super) fn expect_factor(&mut self, factor: f64) {
        self.rate = Rate::new(RATE_MEMORY);
        self.publish_factor(factor.min(MOST_EXPECTED));
    }

    fn publish_factor(&self, factor: f64) {
        self.writer.shared().realtime.store((factor as f32).to_bits(), Ordering::Relaxed);
    }
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

/// See [`VoiceState::full`]; a voice with an end has all of the window, so that a piece of its
/// length is read once.
fn full_window(info: &ModelInfo, seed: u64, end: Option<u64>) -> u64 {
    let window = info.window as u64;
    let stagger = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    if end.is_some() { window - 1 } else { window - 1 - stagger % (window / 8).max(1) }
}
