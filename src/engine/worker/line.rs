//! Voices that wait for room, in the order in which they came. Live ones have a line of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Worker;
use super::admission::NoRoom;
use crate::engine::command::Reply;
use crate::engine::voice_state::VoiceState;
use crate::engine::{EngineError, ModelInfo, Place, Priority};
use crate::units::VoiceId;

/// How often it is looked whether the machine has become faster; that a voice has left is seen at
/// once.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Waiter {
    voice: VoiceId,
    place: watch::Sender<Place>,
    reply: Reply<()>,
}

/// The line, and when it was last served.
#[derive(Default)]
pub(super) struct Line {
    waiters: Vec<Waiter>,
    served: Option<(Instant, usize)>,
}

impl Worker {
    /// Lets a paused voice generate as soon as there is room.
    pub(super) fn resume_when_free(&mut self, voice: VoiceId, place: watch::Sender<Place>, reply: Reply<()>) {
        self.line.waiters.push(Waiter { voice, place, reply });
        self.line.served = None;
        self.serve_line();
    }

    /// Room for a newcomer: those who wait came before.
    pub(super) fn room_behind_others(&self, new: &VoiceState) -> Result<f64, NoRoom> {
        let room = self.room_for(new)?;
        let awaited = self.line.waiters.iter().any(|waiter| {
            let same = |index: usize| self.voices[index].priority == new.priority;
            !waiter.reply.is_closed() && self.voice(waiter.voice).is_ok_and(same)
        });
        let voices = self.voices.iter().filter(|voice| voice.generates()).count();
        if awaited { Err(NoRoom::Load { voices, load: 1.0 / room }) } else { Ok(room) }
    }

    /// Lets those come in for whom there is room.
    pub(super) fn serve_line(&mut self) {
        if self.line.waiters.is_empty() {
            return;
        }
        let (now, generating) = (Instant::now(), self.voices.iter().filter(|voice| voice.generates()).count());
        if self.line.served.is_some_and(|(at, then)| generating >= then && now.duration_since(at) < LOOK) {
            return;
        }
        let mut full = Vec::new();
        for waiter in std::mem::take(&mut self.line.waiters) {
            if waiter.reply.is_closed() {
                continue;
            }
            match self.try_waiter(waiter.voice, &mut full) {
                None => self.line.waiters.push(waiter),
                // Who waits may have gone this moment; then the voice goes with its reader.
                Some(answer) => drop(waiter.reply.send(answer)),
            }
        }
        self.line.served = Some((now, self.voices.iter().filter(|voice| voice.generates()).count()));
        self.tell_places();
    }

    /// `None` if there is no room; what is full then holds for those behind it too.
    fn try_waiter(&mut self, id: VoiceId, full: &mut Vec<Full>) -> Option<Result<(), EngineError>> {
        let index = match self.voice(id) {
            Ok(index) => index,
            Err(error) => return Some(Err(error)),
        };
        let voice = &self.voices[index];
        let (priority, model) = (voice.priority, voice.info.clone());
        if full.iter().any(|full| full.holds_for(priority, &model)) {
            return None;
        }
        match self.let_in(index) {
            Ok(()) => Some(Ok(())),
            Err(NoRoom::Slots { .. }) => {
                full.push(Full { priority, model: Some(model) });
                None
            }
            Err(NoRoom::Voices { .. } | NoRoom::Load { .. }) => {
                full.push(Full { priority, model: None });
                None
            }
        }
    }

    fn tell_places(&self) {
        let leaving = self.leaving();
        for priority in [Priority::Live, Priority::Spare] {
            let mut before = 0;
            for waiter in &self.line.waiters {
                if !self.voice(waiter.voice).is_ok_and(|index| self.voices[index].priority == priority) {
                    continue;
                }
                let place = Place { before, estimate: leaving.get(before).copied() };
                waiter.place.send_if_modified(|told| {
                    let moved = told.before != place.before || told.estimate.is_some() != place.estimate.is_some();
                    *told = place;
                    moved
                });
                before += 1;
            }
        }
    }

    /// Seconds after which voices with an end will have made all of it, the soonest first.
    fn leaving(&self) -> Vec<f64> {
        let generating = self.voices.iter().filter(|voice| voice.generates());
        let mut leaving: Vec<f64> = generating.filter_map(VoiceState::seconds_to_make).collect();
        leaving.sort_by(f64::total_cmp);
        leaving
    }
}

/// There is no room for voices of this priority, on one model or at all.
struct Full {
    priority: Priority,
    model: Option<Arc<ModelInfo>>,
}

impl Full {
    fn holds_for(&self, priority: Priority, model: &Arc<ModelInfo>) -> bool {
        self.priority == priority && self.model.as_ref().is_none_or(|own| Arc::ptr_eq(own, model))
    }
}
