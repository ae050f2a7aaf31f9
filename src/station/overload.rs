//! What happens when the machine falls behind: the newest streams wait until the others are whole
//! again.
//!
//! Admission plans with what was measured, and other programs may take the machine afterwards. So
//! every stream reports how it stands, once a second and when its players run dry. While together
//! they get less sound than they play, those that came last stop generating: what they have plays
//! out, and then they wait. As soon as all others have most of their lead again, the oldest of
//! those that wait goes on, if the engine admits it; each time that was too early, it waits twice
//! as long.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::event::Waiting;
use super::stream::Stream;

/// A stream is whole with so much of its lead.
const WHOLE: f64 = 0.75;
/// It is in trouble when it falls from the first of these shares to the second.
const AFLOAT: f64 = 0.5;
const SUNK: f64 = 0.25;
/// With so much of its lead a stream gets what it plays and no more.
const CONTENT: f64 = 0.9;
/// Part of the sound that the machine makes which streams may plan with.
const HEADROOM: f64 = 0.95;
/// What was decided takes so long to be seen in the reports.
const EFFECT: Duration = Duration::from_secs(3);
/// Stops so long ago are over.
const RECENT: Duration = Duration::from_secs(10);
/// A machine that stood still for a moment stops all its streams together: that is one event.
const TOGETHER: Duration = Duration::from_secs(1);
/// Stops in [`RECENT`] that are too many, even if the engine seems fast enough.
const MANY: usize = 3;
/// How long a stream waits at least, the first time and at most.
const WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Reports closer together say nothing about speed.
const SPAN: f64 = 0.25;

/// The streams of a station in the order in which they came to be heard.
#[derive(Default)]
pub(super) struct Overload {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seats: Vec<Seat>,
    next: u64,
    /// When players ran dry, lately.
    dry: VecDeque<Instant>,
    /// Since when they do so again and again.
    behind_since: Option<Instant>,
    decided: Option<Instant>,
}

/// One stream.
struct Seat {
    id: u64,
    stream: Weak<Stream>,
    standing: Standing,
    last: Option<(Instant, f64)>,
    /// Seconds of sound that it gets per second.
    rate: Option<f64>,
    busy: bool,
    whole: bool,
    afloat: bool,
    /// Times that it had to wait.
    waits: u32,
    /// Since when it waits, and how long at least while others play.
    since: Instant,
    pause: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It generates nothing and wants nothing.
    Away,
    Playing,
    Waiting,
}

/// How a stream stands.
pub(super) struct Report {
    /// Seconds of its voice that were made, read or not.
    pub(super) made: f64,
    /// Seconds that are not read yet, and how many of them there are to be.
    pub(super) buffered: f64,
    pub(super) lead: f64,
    /// Its sound is being played, or will be as soon as there is enough.
    pub(super) plays: bool,
}

impl Overload {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream in, which at first generates nothing.
    pub(super) fn join(self: &Arc<Self>, stream: &Arc<Stream>) -> Place {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.seats.push(Seat {
            id,
            stream: Arc::downgrade(stream),
            standing: Standing::Away,
            last: None,
            rate: None,
            busy: false,
            whole: false,
            afloat: false,
            waits: 0,
            since: Instant::now(),
            pause: WAIT,
        });
        Place { overload: Arc::clone(self), id }
    }

    /// Seconds that a newcomer should wait, because others wait already.
    pub(super) fn queue(&self, now: Instant) -> Option<u64> {
        self.lock().with(Standing::Waiting).map(|seat| seat.seconds_left(now)).max()
    }

    /// How long players have run dry again and again, and how many streams wait.
    pub(super) fn standing(&self, now: Instant) -> (Duration, usize) {
        let state = self.lock();
        let lately = state.dry.back().is_some_and(|&last| now.duration_since(last) < RECENT);
        let since = state.behind_since.filter(|_| lately);
        let waiting = state.seats.iter().filter(|seat| seat.standing == Standing::Waiting).count();
        (since.map_or(Duration::ZERO, |since| now.duration_since(since)), waiting)
    }
}

impl State {
    fn seat(&mut self, id: u64) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.id == id)
    }

    fn with(&self, standing: Standing) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(move |seat| seat.standing == standing)
    }

    fn playing(&self) -> impl Iterator<Item = &Seat> {
        self.with(Standing::Playing).filter(|seat| seat.busy)
    }

    /// Makes the newest wait, as many as it takes.
    fn relieve(&mut self, now: Instant) {
        if self.decided.is_some_and(|at| now.duration_since(at) < EFFECT) {
            return;
        }
        let playing = self.playing().count();
        let supply: f64 = self.playing().map(|seat| seat.rate.unwrap_or(1.0)).sum();
        let first = self.dry.front().copied().unwrap_or(now);
        let stops = self.dry.iter().filter(|at| at.duration_since(first) > TOGETHER).count();
        if playing < 2 || (supply >= playing as f64 && stops < MANY) {
            return;
        }
        let surplus = playing - ((HEADROOM * supply) as usize).clamp(1, playing - 1);
        self.decided = Some(now);
        tracing::warn!(playing, waits = surplus, "the machine has fallen behind: the newest streams wait");
        let newest = self.seats.iter_mut().rev().filter(|seat| seat.standing == Standing::Playing && seat.busy);
        for seat in newest.take(surplus) {
            seat.wait(now);
        }
    }
}

impl Seat {
    fn wait(&mut self, now: Instant) {
        (self.since, self.pause) = (now, (WAIT * 2u32.pow(self.waits.min(8))).min(LONGEST_WAIT));
        self.waits += 1;
        self.stand(Standing::Waiting);
    }

    /// Seconds after which it is worth asking again; at least one.
    fn seconds_left(&self, now: Instant) -> u64 {
        (self.since + self.pause).saturating_duration_since(now).as_secs() + 1
    }

    fn stand(&mut self, standing: Standing) {
        self.standing = standing;
        (self.last, self.rate) = (None, None);
        (self.whole, self.afloat) = (false, false);
        if let Some(stream) = self.stream.upgrade() {
            stream.nudge();
        }
    }
}

/// A stream's place among the others; dropping it gives it up.
pub(super) struct Place {
    overload: Arc<Overload>,
    id: u64,
}

impl Place {
    /// The stream generates from now on: after a wait where it was, otherwise as the newest.
    pub(super) fn plays(&self) {
        let mut state = self.overload.lock();
        let Some(index) = state.seats.iter().position(|seat| seat.id == self.id) else { return };
        match state.seats[index].standing {
            Standing::Playing => {}
            Standing::Waiting => state.seats[index].stand(Standing::Playing),
            Standing::Away => {
                let mut seat = state.seats.remove(index);
                seat.waits = 0;
                seat.busy = true;
                seat.stand(Standing::Playing);
                state.seats.push(seat);
            }
        }
    }

    /// The stream wants nothing for the time being.
    pub(super) fn leaves(&self) {
        let mut state = self.overload.lock();
        if let Some(seat) = state.seat(self.id).filter(|seat| seat.standing != Standing::Away) {
            seat.stand(Standing::Away);
        }
    }

    /// The engine has no room for the stream.
    pub(super) fn waits(&self, now: Instant) {
        if let Some(seat) = self.overload.lock().seat(self.id) {
            seat.wait(now);
        }
    }

    /// Whether the stream has to wait, what for, and for about how long.
    pub(super) fn waiting(&self, now: Instant) -> Option<Waiting> {
        let mut state = self.overload.lock();
        let seat = state.seat(self.id).filter(|seat| seat.standing == Standing::Waiting)?;
        Some(Waiting::for_others(seat.seconds_left(now)))
    }

    /// Seconds that a stream which was idle should wait, because others wait already.
    pub(super) fn queue(&self, now: Instant) -> Option<u64> {
        self.overload.queue(now)
    }

    /// Whether a stream that waits may try to go on.
    pub(super) fn may_go(&self, now: Instant) -> bool {
        let state = self.overload.lock();
        let Some(seat) = state.with(Standing::Waiting).next().filter(|seat| seat.id == self.id) else { return false };
        let mut playing = state.playing().peekable();
        if playing.peek().is_none() {
            return now >= seat.since + WAIT;
        }
        let calm = state.dry.back().is_none_or(|&last| now.duration_since(last) > WAIT);
        calm && now >= seat.since + seat.pause && playing.all(|seat| seat.whole)
    }

    /// How the stream stands, about once a second.
    pub(super) fn report(&self, now: Instant, report: &Report) {
        let mut state = self.overload.lock();
        let Some(seat) = state.seat(self.id).filter(|seat| seat.standing == Standing::Playing) else { return };
        let mut steered = false;
        match seat.last {
            Some((at, made)) if report.made >= made => {
                let span = now.duration_since(at).as_secs_f64();
                if span >= SPAN {
                    let rate = (report.made - made) / span;
                    seat.rate = Some(seat.rate.map_or(rate, |before| 0.5 * (before + rate)));
                    seat.last = Some((now, report.made));
                }
            }
            // What a steer took back is no sign of a slow machine.
            Some(_) => (seat.last, steered) = (Some((now, report.made)), true),
            None => seat.last = Some((now, report.made)),
        }
        seat.busy = report.plays || report.buffered < CONTENT * report.lead;
        let share = report.buffered / report.lead;
        let sunk = seat.afloat && share < SUNK && !steered;
        seat.whole = share >= WHOLE || (seat.whole && share >= SUNK);
        seat.afloat = share >= AFLOAT || (seat.afloat && share >= SUNK);
        if sunk {
            state.relieve(now);
        }
    }

    /// The stream's players have nothing more to play.
    pub(super) fn ran_dry(&self, now: Instant) {
        let mut state = self.overload.lock();
        if state.seat(self.id).is_none_or(|seat| seat.standing != Standing::Playing) {
            return;
        }
        if state.dry.back().is_none_or(|&last| now.duration_since(last) >= RECENT) {
            state.behind_since = Some(now);
        }
        state.dry.push_back(now);
        while state.dry.front().is_some_and(|&first| now.duration_since(first) > RECENT) {
            state.dry.pop_front();
        }
        state.relieve(now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.overload.lock().seats.retain(|seat| seat.id != self.id);
    }
}
