//! Who comes in: as many voices as the machine carries in real time.

use std::sync::Arc;

use super::Worker;
use crate::engine::voice_state::VoiceState;
use crate::engine::{EngineError, ModelInfo, Priority};

/// Part of real time that admission may plan with.
const HEADROOM: f64 = 0.95;

impl Worker {
    /// Whether the machine can carry one more voice in real time, what the station does for each of them included. The
    /// first voice always comes in: a slow machine plays below real time and says so. A voice that generates is told the
    /// factor that it can expect.
    pub(super) fn admit(&self, info: &Arc<ModelInfo>, new: &mut VoiceState) -> Result<(), EngineError> {
        let spare = |voice: &VoiceState| voice.priority == Priority::Spare;
        if new.paused {
            return Ok(());
        }
        let generating = self.voices.iter().filter(|voice| voice.generates()).count();
        if generating >= self.config.max_voices {
            return Err(EngineError::TooMany { limit: self.config.max_voices, retry_after: 10 });
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
                if Arc::ptr_eq(info, &model.info) {
                    voices += 1;
                    all += new.rows();
                }
                model.cost.load(&model.info, voices, all)
            })
            .sum();
        let live = playing.iter().filter(|voice| !spare(voice)).count() + usize::from(!spare(new));
        let load = work + live as f64 * self.shared.upkeep();
        let slots =
            self.models.iter().find(|model| Arc::ptr_eq(info, &model.info)).map_or(0, |model| model.backend.slots());
        let own = playing.iter().filter(|voice| Arc::ptr_eq(&voice.info, info)).count();
        if !playing.is_empty() && ((load > HEADROOM && !spare(new)) || own >= slots) {
            return Err(EngineError::Full { voices: playing.len(), load: 100.0 * load, retry_after: 10 });
        }
        new.expect(1.0 / load.max(1e-9));
        Ok(())
    }
}
