//! One voice as the engine thread sees it: its codes, its windows in the KV pool, its codec
//! decoder, and the way back.
//!
//! A voice can be rewound to any codec snapshot that has not been played yet. That moves four
//! things together: the PCM's end (a cut of the time line), the codec state (a snapshot), the codes
//! (a truncation) and the window (an index; or the previous window, which is kept until the reader
//! has passed the place where the voice left it).

mod recover;
mod sound;
mod windows;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::recover::Guard;
pub(super) use self::recover::TURN_DRAWS;
use self::sound::{Brought, Snapshot};
use self::windows::{Window, full_window};
use super::blend::Ramp;
use super::codes::Codes;
use super::held::Held;
use super::pcm_ring::Writer;
use super::rate::Rate;
use super::texts::{Texts, VoiceTexts};
use super::{Ack, CodecState, ModelInfo, Prefix, Priority, Sampling, Slot, WeightedPrompt};
use crate::units::VoiceId;

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

/// Over how long the real-time factor of a voice is taken: short enough to follow the machine, long
/// enough to hold.
const RATE_MEMORY: Duration = Duration::from_secs(8);
/// A factor that is expected and not measured is not told as more than this.
const MOST_EXPECTED: f64 = 1000.0;

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

    /// Whether it takes part in the batch, now or once its reader has read.
    pub(super) fn generates(&self) -> bool {
        !self.paused && !self.finished
    }

    /// Whether it is complete and its reader has all of it.
    pub(super) fn is_played_out(&self) -> bool {
        self.finished && self.held.is_empty() && self.writer.shared().buffered() == 0
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
