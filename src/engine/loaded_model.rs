//! A loaded model with its KV slots, its prepared texts, and what its work costs on this machine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cost::CostModel;
use super::rate::Rate;
use super::texts::Texts;
use super::{Backend, Decode, Encoder, Lost, ModelInfo, Slot, StepRow};

/// Over how long a model's real-time factor is taken.
const RATE_MEMORY: Duration = Duration::from_secs(20);

/// A loaded model as handles see it.
#[derive(Clone)]
pub(super) struct ListedModel {
    pub(super) info: Arc<ModelInfo>,
    pub(super) encoder: Arc<dyn Encoder>,
    pub(super) texts: Arc<Texts>,
    /// Its real-time factor, as `f64` bits.
    pub(super) speed: Arc<AtomicU64>,
}

pub(super) struct LoadedModel {
    pub(super) backend: Box<dyn Backend>,
    pub(super) info: Arc<ModelInfo>,
    pub(super) encoder: Arc<dyn Encoder>,
    /// The lowest is given first: a device takes the rows between the first and the last as one
    /// batch.
    free: BTreeSet<Slot>,
    /// Those of them that still hold what was.
    stale: BTreeSet<Slot>,
    pub(super) texts: Arc<Texts>,
    pub(super) cost: CostModel,
    rate: Rate,
    /// Seconds of sound that all its voices together get per second, lately, as `f64` bits.
    speed: Arc<AtomicU64>,
    /// A newer model of the same id has replaced it: it goes when its last voice has left.
    pub(super) retired: bool,
}

impl LoadedModel {
    pub(super) fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            info: Arc::new(backend.info().clone()),
            encoder: backend.encoder(),
            free: (0..backend.slots()).map(Slot).collect(),
            stale: BTreeSet::new(),
            texts: Texts::new(backend.conditioner()),
            cost: CostModel::default(),
            rate: Rate::new(RATE_MEMORY),
            speed: Arc::default(),
            retired: false,
            backend,
        }
    }

    /// Runs a few steps so that the first voice does not pay for first use and admission has a
    /// measure.
    ///
    /// # Errors
    /// [`Lost`] when the device fails at once.
    pub(super) fn warm_up(&mut self) -> Result<(), Lost> {
        let begun = Instant::now();
        let start = vec![self.info.card; self.info.codebooks];
        // What is done for the first time touches memory and code for the first time: it is no
        // measure, unless it was so slow that one must do.
        let counts = [4, 4, 2, 4].map(|voices: usize| voices.min(self.free.len()));
        for (pass, voices) in counts.into_iter().enumerate() {
            let row = |slot| StepRow {
                slot: Slot(slot),
                position: 0,
                ids: &start,
                blend: &[],
                sampling: self.info.sampling,
                draw: 0,
            };
            let rows: Vec<StepRow<'_>> = (0..voices).map(row).collect();
            let timer = Instant::now();
            self.backend.step(&rows)?;
            if pass > 0 || begun.elapsed().as_secs_f64() > 1.0 {
                self.cost.step(voices, timer.elapsed().as_secs_f64());
            }
            if begun.elapsed().as_secs_f64() > 2.0 {
                break;
            }
        }
        let frames = self.info.lookahead + 6;
        let codes = vec![0; frames * self.info.codebooks];
        let mut decode = || -> Result<f64, Lost> {
            let mut state = self.backend.codec_state();
            let timer = Instant::now();
            self.backend.decode(&mut [Decode { state: state.as_mut(), codes: &codes, last: true }])?;
            Ok(timer.elapsed().as_secs_f64())
        };
        let cold = decode()?;
        let seconds = if cold < 1.0 { decode()? } else { cold };
        self.cost.decode(frames, seconds);
        self.tell_speed(self.alone());
        Ok(())
    }

    pub(super) fn listed(&self) -> ListedModel {
        ListedModel {
            info: self.info.clone(),
            encoder: self.encoder.clone(),
            texts: self.texts.clone(),
            speed: self.speed.clone(),
        }
    }

    /// The real-time factor of a single voice with guidance, by what was measured of the work.
    pub(super) fn alone(&self) -> f64 {
        1.0 / self.cost.load(&self.info, 1, 2).max(1e-9)
    }

    fn tell_speed(&self, factor: f64) {
        self.speed.store(factor.to_bits(), Ordering::Relaxed);
    }

    /// So much sound was decoded.
    pub(super) fn made(&mut self, seconds: f64) {
        self.rate.made(seconds);
    }

    /// Some of its voices wanted sound in a turn that began at `begun`, or none did.
    pub(super) fn was_hungry(&mut self, hungry: bool, begun: Instant, now: Instant) {
        if !hungry {
            self.rate.rests();
        } else if let Some(factor) = self.rate.wants(begun, now) {
            self.tell_speed(factor);
        }
    }

    pub(super) fn take_slot(&mut self) -> Option<Slot> {
        let slot = self.free.pop_first()?;
        self.stale.remove(&slot);
        Some(slot)
    }

    pub(super) fn give_back(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            self.free.insert(slot);
            self.stale.insert(slot);
        }
    }

    /// A voice has ended or rests: what its windows held, and those that others moved out of, goes.
    /// Not at every move: the next one would fill the same memory again.
    pub(super) fn tidy(&mut self) {
        for slot in std::mem::take(&mut self.stale) {
            self.backend.forget(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::super::Prefill;
    use super::super::standin::Standin;
    use super::*;

    #[test]
    fn what_free_slots_hold_is_forgotten_when_a_voice_has_ended() {
        let mut model = LoadedModel::new(Box::new(Standin::default()));
        let ids = vec![0; model.info.codebooks];
        let reads = |model: &mut LoadedModel, slot, position| {
            let job = Prefill { slot, position, ids: &ids, blend: &[], guidance: 1.0 };
            model.backend.prefill(&job).is_ok_and(|read| read.is_ok())
        };
        let slots = [(); 3].map(|()| model.take_slot().expect("a free slot"));
        assert!(slots.iter().all(|&slot| reads(&mut model, slot, 0)));
        model.give_back([slots[0], slots[1]]);
        // A window that begins in the memory of another.
        assert_eq!(model.take_slot(), Some(slots[0]));
        model.tidy();
        assert_eq!(slots.map(|slot| reads(&mut model, slot, 1)), [true, false, true]);
    }
}
