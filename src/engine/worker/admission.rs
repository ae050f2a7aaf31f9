//! Who comes in: as many voices as the machine carries in real time.

use std::sync::Arc;

use super::Worker;
use crate::engine::voice_state::VoiceState;
use crate::engine::{EngineError, ModelInfo, Priority};

/// Part of real time that admission may plan with.
const HEADROOM: f64 = 0.95;
/// A sensible wait for whoever is refused, in seconds.
const RETRY_AFTER: u64 = 10;

/// Why a voice cannot generate now.
pub(super) enum NoRoom {
    /// The configured number is reached.
    Voices { limit: usize },
    /// So many voices would need so much of real time, with this one.
    Load { voices: usize, load: f64 },
    /// Its model has no slot left.
    Slots { voices: usize, load: f64 },
}

impl From<NoRoom> for EngineError {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Voices { limit } => Self::TooMany { limit, retry_after: RETRY_AFTER },
            NoRoom::Load { voices, load } | NoRoom::Slots { voices, load } => {
                Self::Full { voices, load: 100.0 * load, retry_after: RETRY_AFTER }
            }
        }
    }
}

impl Worker {
    /// Whether the machine can carry one more voice in real time, what the station does for each of
    /// them included, and the real-time factor that it can expect. The first voice always comes in:
    /// a slow machine plays below real time and says so.
    pub(super) fn room_for(&self, new: &VoiceState) -> Result<f64, NoRoom> {
        let spare = |voice: &VoiceState| voice.priority == Priority::Spare;
        let generating = self.voices.iter().filter(|voice| voice.generates()).count();
        if generating >= self.config.max_voices {
            return Err(NoRoom::Voices { limit: self.config.max_voices });
        }
        // Spare voices give way to live ones; they only need a slot.
        let playing: Vec<&VoiceState> =
            self.voices.iter().filter(|voice| voice.generates() && (spare(new) || !spare(voice))).collect();
        let work: f64 = self
            .models
            .iter()
            .map(|model| {
                let own = playing.iter().filter(|voice| Arc::ptr_eq(&voice.info, &model.info));
                let (mut voices, mut all) = own.fold((0, 0), |(n, r), voice| (n + 1, r + voice.rows()));
                if Arc::ptr_eq(&new.info, &model.info) {
                    voices += 1;
                    all += new.rows();
                }
                model.cost.load(&model.info, voices, all)
            })
            .sum();
        let live = playing.iter().filter(|voice| !spare(voice)).count() + usize::from(!spare(new));
        let load = work + live as f64 * self.shared.upkeep();
        if !playing.is_empty() {
            if load > HEADROOM && !spare(new) {
                return Err(NoRoom::Load { voices: playing.len(), load });
            }
            let slots = self.models[self.model_of(&new.info)].backend.slots();
            if playing.iter().filter(|voice| Arc::ptr_eq(&voice.info, &new.info)).count() >= slots {
                return Err(NoRoom::Slots { voices: playing.len(), load });
            }
        }
        Ok(1.0 / load.max(1e-9))
    }

    /// Voices of the default model, with guidance, that would come in beside those that play.
    pub(super) fn room(&self) -> usize {
        let default = self.shared.default_model();
        let model = self.models.iter().find(|model| model.info.id == default);
        let Some(model) = model.filter(|_| self.lost.is_none()) else { return 0 };
        let playing: Vec<&VoiceState> =
            self.voices.iter().filter(|voice| voice.generates() && voice.priority == Priority::Live).collect();
        let rows = |own: &Arc<ModelInfo>| {
            let own = playing.iter().filter(|voice| Arc::ptr_eq(&voice.info, own));
            own.fold((0, 0), |(voices, rows), voice| (voices + 1, rows + voice.rows()))
        };
        let others = self.models.iter().filter(|other| !Arc::ptr_eq(&other.info, &model.info));
        let others: f64 = others
            .map(|other| {
                let (voices, rows) = rows(&other.info);
                other.cost.load(&other.info, voices, rows)
            })
            .sum();
        let (voices, taken) = rows(&model.info);
        let most = self.config.max_voices.saturating_sub(playing.len());
        let most = most.min(model.backend.slots().saturating_sub(voices));
        let fits = |more: &usize| {
            let upkeep = (playing.len() + more) as f64 * self.shared.upkeep();
            others + model.cost.load(&model.info, voices + more, taken + 2 * more) + upkeep <= HEADROOM
        };
        let more = (1..=most).take_while(fits).last().unwrap_or(0);
        // The first one always comes in.
        if playing.is_empty() { more.max(most.min(1)) } else { more }
    }

    /// Lets a paused voice generate.
    pub(super) fn let_in(&mut self, index: usize) -> Result<(), NoRoom> {
        if self.voices[index].paused {
            let factor = self.room_for(&self.voices[index])?;
            self.voices[index].paused = false;
            self.voices[index].expect_factor(factor);
        }
        Ok(())
    }
}
