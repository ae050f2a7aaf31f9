//! A voice that stands still is taken back before anybody hears it, and goes on differently.
//!
//! All sound is watched as it is made ([`Stillness`]) and held back long enough ([`super::Held`])
//! for the place where it stopped moving to be still at hand. From there the voice goes on with
//! other draws; if it stops at the same place again, it is also made to forget most of what it
//! played, and then all of it, under a cross-fade. Everything depends on the voice's own sound
//! alone, so a seed gives the same music whoever else plays and whoever listens.

use std::f32::consts::FRAC_PI_2;

use metrics::counter;

use super::{Codes, Slot, VoiceState};
use crate::engine::spec::asks_for_stillness;
use crate::engine::stillness::Stillness;
use crate::engine::{Freeze, Remedy};
use crate::telemetry::FREEZES;

/// What is tried in turn at one place.
const REMEDIES: [Remedy; 7] =
    [Remedy::Draws, Remedy::Context, Remedy::Anew, Remedy::Anew, Remedy::Anew, Remedy::Anew, Remedy::Anew];
/// Seconds that are held back beyond the longest stillness: the place is found at the end of a
/// block.
const SLACK: f64 = 0.5;
/// Seconds of the cross-fade to music that begins anew: no click, and its first chord is heard to begin.
const FADE: f64 = 0.25;
/// A voice that nothing helped is tried again at the next place. If nothing helps there either, it is left alone for
/// so many times the longest stillness, at first and when it has not moved again and again.
const REST: f64 = 0.5;
const LONGEST_REST: f64 = 8.0;
/// A shorter context is this part of what a full window keeps.
const SHORTER: usize = 4;
/// Draws of different turns lie so far apart that no voice plays long enough to reach the next.
pub(in crate::engine) const TURN_DRAWS: u32 = 40;

/// What one voice needs for it.
pub(super) struct Guard {
    /// Seconds of nothing new that are too many; 0 never are.
    limit: f64,
    /// `None` while stillness is what was asked for.
    watch: Option<Stillness>,
    /// Frame at which the voice was last taken back, and how often at that place.
    place: u64,
    tries: usize,
    /// How long it was last left alone, in times of the longest stillness, and until when.
    rest: f64,
    rested: u64,
    turns: Vec<Turn>,
    segue: Option<Segue>,
}

/// From a column on the voice goes on differently than it did.
#[derive(Clone, Copy)]
struct Turn {
    column: u64,
    number: u64,
    /// No window begins before this column.
    fence: u64,
}

/// The sound that the voice leaves while it begins anew.
struct Segue {
    /// Media time at which it begins.
    from: u64,
    pcm: Vec<f32>,
}

impl Guard {
    pub(super) fn new(limit: f64) -> Self {
        Self { limit, watch: None, place: 0, tries: 0, rest: 0.0, rested: 0, turns: Vec::new(), segue: None }
    }

    /// The column before which no window begins.
    pub(super) fn fence(&self) -> u64 {
        self.turns.last().map_or(0, |turn| turn.fence)
    }

    /// The number of the draw for a column, so that a turn is not what was played before it.
    pub(super) fn draw(&self, draw: u64) -> u64 {
        draw + (self.turns.last().map_or(0, |turn| turn.number) << TURN_DRAWS)
    }

    /// Nothing from `columns` on is left, nor any sound from media time `at` on.
    fn truncate(&mut self, columns: u64, at: u64) {
        self.turns.retain(|turn| turn.column <= columns);
        self.segue.take_if(|segue| segue.from >= at);
    }

    /// Drops what no rewind reaches: it comes to `columns` and media time `at` at most.
    pub(super) fn forget(&mut self, columns: u64, at: u64, channels: usize) {
        while self.turns.get(1).is_some_and(|next| next.column <= columns) {
            self.turns.remove(0);
        }
        self.segue.take_if(|segue| segue.from + ((segue.pcm.len() / channels) as u64) < at);
    }

    /// Mixes the sound that is left into that which begins at media time `at`.
    pub(super) fn mix(&self, at: u64, pcm: &mut [f32], channels: usize) {
        let Some(Segue { from, pcm: old }) = &self.segue else { return };
        let length = old.len() / channels;
        for (time, frame) in (at..).zip(pcm.chunks_exact_mut(channels)) {
            let Some(place) = time.checked_sub(*from).filter(|place| *place < length as u64) else { continue };
            let (fade_out, fade_in) = (FRAC_PI_2 * (place as f32 / length as f32)).sin_cos();
            let place = place as usize * channels;
            for (new, old) in frame.iter_mut().zip(&old[place..place + channels]) {
                *new = fade_out * *new + fade_in * old;
            }
        }
    }

    /// What is tried about a stillness from `frame` on, which is there `again` after what was tried before.
    fn remedy(&mut self, frame: u64, again: bool, possible: impl Fn(Remedy) -> bool) -> Remedy {
        self.tries = if again { self.tries } else { 0 };
        self.place = frame;
        while let Some(&remedy) = REMEDIES.get(self.tries) {
            self.tries += 1;
            if possible(remedy) {
                return remedy;
            }
        }
        self.tries = 0;
        Remedy::Left
    }
}

impl VoiceState {
    /// Watches the voice from media time `at` on, where its sound ends, unless its prompts ask for
    /// stillness.
    pub(in crate::engine) fn watch_from(&mut self, at: u64) {
        (self.guard.tries, self.guard.rested) = (0, 0);
        if self.guard.limit <= 0.0 || asks_for_stillness(&self.prompts) {
            self.guard.watch = None;
            self.held.hold(0.0, at);
            return;
        }
        let (rate, limit) = (self.info.sample_rate, self.guard.limit);
        self.guard.watch.get_or_insert_with(|| Stillness::new(rate, limit)).restart(at);
        self.held.hold(limit + SLACK, at);
    }

    /// The same where the sound ends now: the prompts have changed.
    pub(in crate::engine) fn watch(&mut self) {
        self.watch_from(self.held.end(&self.writer));
    }

    /// Looks at sound that was just made and begins at media time `from`; takes the voice back if
    /// it stands still.
    pub(super) fn look_at(&mut self, from: u64, pcm: &[f32]) -> Option<Vec<Slot>> {
        let since = self.guard.watch.as_mut()?.push(from, pcm, self.info.channels)?;
        self.take_back(since)
    }

    /// Goes back to media time `since`, or to the first sound that is held, and on from there in
    /// another way.
    fn take_back(&mut self, since: u64) -> Option<Vec<Slot>> {
        let (hop, limit) = (self.info.hop as u64, self.guard.limit);
        // What was free before the last block is offered by now, or may be: passes of the codec
        // decide.
        let before = self.guard.watch.as_ref()?;
        let before = before.heard().saturating_sub(before.block());
        let earliest = self.held.free(before).max(self.writer.end());
        // The first frame that the sound up to there does not depend on.
        let frame = |at: u64| (at - self.base + self.unheard).div_ceil(hop) + self.info.lookahead as u64;
        let reached = |frame: u64| frame.max(self.codes.given_frames()).max(self.snapshots[0].fed);
        let (frame, earliest) = (reached(frame(since.max(earliest))), reached(frame(earliest)));
        // What was tried at a place and did not help is not kept, not even its beginning.
        let (place, near) = (self.guard.place, (0.5 * limit * self.info.frame_rate()) as u64);
        let again = self.guard.tries > 0 && (place..place + near).contains(&frame);
        let frame = if again { place.max(earliest) } else { frame };
        let (greedy, continues) = (self.sampling.temperature == 0.0, self.codes.given_frames() > 0);
        let remedy = self.guard.remedy(frame, again, |remedy| match remedy {
            Remedy::Draws => !greedy,
            // Whoever gave a sound wants to hear how it goes on.
            Remedy::Anew => !continues,
            Remedy::Context | Remedy::Left => true,
        });
        let at = self.position(frame);
        let seconds = |samples: u64| samples as f64 / f64::from(self.info.sample_rate.0);
        self.writer.shared().note(Freeze { at: seconds(at), remedy });
        counter!(FREEZES, "remedy" => remedy.name()).increment(1);
        tracing::debug!(voice = %self.id, at = seconds(at), remedy = remedy.name(), "the voice stood still");
        if remedy == Remedy::Left {
            let second = self.info.sample_rate.samples(1.0).0;
            let moved = since > self.guard.rested + second;
            self.guard.rest = if moved { 0.0 } else { (2.0 * self.guard.rest).clamp(REST, LONGEST_REST) };
            let rest = self.info.sample_rate.samples(self.guard.rest * limit).0;
            self.guard.rested = self.held.end(&self.writer) + rest;
            self.guard.watch.as_mut()?.restart(self.guard.rested);
            return None;
        }
        let index = self.snapshots.iter().rposition(|snapshot| snapshot.fed <= frame)?;
        let mut old = self.held.take_back(at, &self.writer);
        // What nobody hears does not count as made.
        self.rate.unmade(seconds((old.len() / self.info.channels) as u64));
        if remedy == Remedy::Anew {
            self.codes.cut_square(frame);
        } else {
            self.codes.truncate(self.codes.columns_for(frame));
        }
        let number = 1 + self.guard.turns.last().map_or(0, |turn| turn.number);
        self.guard.truncate(self.codes.columns(), at + 1);
        self.return_to(index);
        let mut freed = self.rewind_windows();
        if remedy != Remedy::Draws {
            freed.extend(self.close_windows());
        }
        let newest = self.codes.columns() - 1;
        let turn = Turn {
            column: self.codes.columns(),
            number,
            fence: match remedy {
                Remedy::Anew => newest,
                Remedy::Context => newest.saturating_sub((self.info.keep / SHORTER) as u64),
                Remedy::Draws | Remedy::Left => 0,
            }
            .max(self.guard.fence()),
        };
        self.guard.turns.retain(|turn| turn.column < self.codes.columns());
        self.guard.turns.push(turn);
        if remedy == Remedy::Anew {
            // Of several beginnings at one place each is under the end of what was there at first.
            if self.guard.segue.as_ref().is_none_or(|segue| segue.from != at) {
                old.truncate(self.info.sample_rate.samples(FADE).0 as usize * self.info.channels);
                self.guard.segue = Some(Segue { from: at, pcm: old });
            }
        }
        self.guard.watch.as_mut()?.restart(at);
        Some(freed)
    }

    /// Media time up to which the sound was watched.
    pub(super) fn heard(&self) -> u64 {
        self.guard.watch.as_ref().map_or(0, Stillness::heard)
    }

    /// Goes back to a snapshot; codes and sound are the caller's business.
    pub(super) fn return_to(&mut self, index: usize) {
        self.snapshots.truncate(index + 1);
        let snapshot = &self.snapshots[index];
        self.fed = snapshot.fed;
        self.codec = snapshot.state.snapshot();
        self.finished = false;
    }

    /// A rewind has brought the voice to where its codes and its sound end now.
    pub(super) fn was_rewound(&mut self, at: u64) {
        self.guard.truncate(self.codes.columns(), at);
        self.watch_from(at);
    }

    /// Its music begins anew at media time `at`, in another run.
    pub(super) fn begins_again(&mut self, at: u64) {
        self.guard.truncate(0, 0);
        self.guard.watch = None;
        self.held.format(self.info.sample_rate, self.info.channels);
        self.watch_from(at);
    }

    /// Where the sound ends once what was given has been heard.
    pub(super) fn end_of_given(&self) -> u64 {
        self.position(Codes::given_frames(&self.codes))
    }
}
