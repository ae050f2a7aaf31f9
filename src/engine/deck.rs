//! A loaded model with its KV slots, its prepared texts, and what its work costs on this machine.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::blend::Part;
use super::handle::Listed;
use super::rate::Rate;
use super::{Backend, Condition, Decode, Encoder, EngineError, Lost, ModelInfo, Slot, StepRow, WeightedPrompt};

/// Over how long a model's real-time factor is taken.
const RATE_MEMORY: Duration = Duration::from_secs(20);
/// Prepared texts kept for reuse, at most.
const TEXTS: usize = 256;

pub(super) struct Deck {
    pub(super) backend: Box<dyn Backend>,
    pub(super) info: Arc<ModelInfo>,
    pub(super) encoder: Arc<dyn Encoder>,
    /// The lowest is given first: a device takes the rows between the first and the last as one batch.
    free: BTreeSet<Slot>,
    /// Those of them that still hold what was.
    stale: BTreeSet<Slot>,
    texts: HashMap<String, (Condition, u64)>,
    clock: u64,
    pub(super) cost: Cost,
    rate: Rate,
    /// Seconds of sound that all its voices together get per second, lately, as `f64` bits.
    speed: Arc<AtomicU64>,
    /// A newer model of the same id has replaced it: it goes when its last voice has left.
    pub(super) retired: bool,
}

impl Deck {
    pub(super) fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            info: Arc::new(backend.info().clone()),
            encoder: backend.encoder(),
            free: (0..backend.slots()).map(Slot).collect(),
            stale: BTreeSet::new(),
            texts: HashMap::new(),
            clock: 0,
            cost: Cost::default(),
            rate: Rate::new(RATE_MEMORY),
            speed: Arc::default(),
            retired: false,
            backend,
        }
    }

    /// Runs a few steps so that the first voice does not pay for first use and admission has a measure.
    ///
    /// # Errors
    /// [`Lost`] when the device fails at once.
    pub(super) fn warm_up(&mut self) -> Result<(), Lost> {
        let begun = Instant::now();
        let start = vec![self.info.card; self.info.codebooks];
        // What is done for the first time touches memory and code for the first time: it is no measure, unless it was so
        // slow that one must do.
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

    pub(super) fn listed(&self) -> Listed {
        Listed { info: self.info.clone(), encoder: self.encoder.clone(), speed: self.speed.clone() }
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

    /// A voice has ended or rests: what its windows held, and those that others moved out of, goes. Not at every move:
    /// the next one would fill the same memory again.
    pub(super) fn tidy(&mut self) {
        for slot in std::mem::take(&mut self.stale) {
            self.backend.forget(slot);
        }
    }

    /// Prepares texts, each once while it is in use.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when the model cannot encode one.
    pub(super) fn prepare(&mut self, prompts: &[WeightedPrompt]) -> Result<Vec<Part>, EngineError> {
        prompts
            .iter()
            .map(|prompt| Ok(Part { prompt: prompt.clone(), condition: self.condition(&prompt.text)? }))
            .collect()
    }

    pub(super) fn condition(&mut self, text: &str) -> Result<Option<Condition>, EngineError> {
        if text.is_empty() {
            return Ok(None);
        }
        self.clock += 1;
        if let Some((condition, used)) = self.texts.get_mut(text) {
            *used = self.clock;
            return Ok(Some(condition.clone()));
        }
        let condition = self.backend.prepare(text).map_err(|fault| {
            EngineError::Invalid(format!("The prompt cannot be encoded: {}. Change its wording.", fault.0))
        })?;
        if self.texts.len() >= TEXTS
            && let Some(oldest) = self.texts.iter().min_by_key(|(_, (_, used))| *used).map(|(text, _)| text.clone())
        {
            self.texts.remove(&oldest);
        }
        self.texts.insert(text.to_owned(), (condition.clone(), self.clock));
        Ok(Some(condition))
    }
}

/// Measured cost of a model's work: a step takes `fixed + row * rows` seconds. All figures fade slowly, so that a
/// machine that becomes busy or free is noticed.
#[derive(Default)]
pub(super) struct Cost {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_squared: f64,
    rows_seconds: f64,
    decode_frame: f64,
    prefill_column: f64,
    /// What the thread does per voice of a step besides.
    voice: f64,
}

const FADE: f64 = 0.995;

impl Cost {
    pub(super) fn step(&mut self, rows: usize, seconds: f64) {
        let rows = rows as f64;
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.seconds, seconds),
            (&mut self.rows_squared, rows * rows),
            (&mut self.rows_seconds, rows * seconds),
        ] {
            *sum = *sum * FADE + value;
        }
    }

    pub(super) fn decode(&mut self, frames: usize, seconds: f64) {
        fade(&mut self.decode_frame, seconds / frames.max(1) as f64);
    }

    pub(super) fn prefill(&mut self, columns: usize, seconds: f64) {
        fade(&mut self.prefill_column, seconds / columns.max(1) as f64);
    }

    /// Notes what a turn with a step of `voices` took beyond the backend's work.
    pub(super) fn rest(&mut self, voices: usize, seconds: f64) {
        fade(&mut self.voice, seconds.max(0.0) / voices.max(1) as f64);
    }

    /// Mean seconds of a step, lately.
    pub(super) fn step_seconds(&self) -> f64 {
        if self.weight > 0.0 { self.seconds / self.weight } else { 0.0 }
    }

    /// Mean seconds of reading one column ahead, lately; 0 before it is known.
    pub(super) fn prefill_seconds(&self) -> f64 {
        self.prefill_column
    }

    /// Predicted seconds of a step with this many rows.
    fn predict(&self, rows: f64) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let (mean_rows, mean) = (self.rows / self.weight, self.seconds / self.weight);
        let spread = self.rows_squared / self.weight - mean_rows * mean_rows;
        if spread < 0.05 {
            // Only one batch size was seen: the truth lies between "all fixed" and "all per row".
            return mean * (0.5 + 0.5 * rows / mean_rows);
        }
        let per_row = ((self.rows_seconds / self.weight - mean * mean_rows) / spread).clamp(0.0, mean / mean_rows);
        mean + per_row * (rows - mean_rows)
    }

    /// Share of real time that `voices` voices with `rows` rows in all need; 1 is the limit.
    pub(super) fn load(&self, info: &ModelInfo, voices: usize, rows: usize) -> f64 {
        if voices == 0 {
            return 0.0;
        }
        let refill = info.keep as f64 / (info.window - info.keep).max(1) as f64;
        let per_voice = self.decode_frame + refill * self.prefill_column + self.voice;
        info.frame_rate() * (self.predict(rows as f64) + voices as f64 * per_voice)
    }
}

fn fade(mean: &mut f64, value: f64) {
    *mean = if *mean == 0.0 { value } else { 0.95 * *mean + 0.05 * value };
}

#[cfg(test)]
mod tests {
    use super::super::Prefill;
    use super::super::standin::Standin;
    use super::*;

    #[test]
    fn the_cost_of_a_row_is_learnt_from_batches_of_different_size() {
        let mut cost = Cost::default();
        for rows in [1, 2, 4, 8, 2, 4] {
            cost.step(rows, 0.004 + 0.001 * rows as f64);
        }
        let info = Standin::default().info().clone();
        // 50 steps of 4 + 12 ms.
        assert!((cost.load(&info, 6, 12) - 0.8).abs() < 1e-6, "{}", cost.load(&info, 6, 12));
    }

    #[test]
    fn what_free_slots_hold_is_forgotten_when_a_voice_has_ended() {
        let mut deck = Deck::new(Box::new(Standin::default()));
        let ids = vec![0; deck.info.codebooks];
        let reads = |deck: &mut Deck, slot, position| {
            let job = Prefill { slot, position, ids: &ids, blend: &[], guidance: 1.0 };
            deck.backend.prefill(&job).is_ok_and(|read| read.is_ok())
        };
        let slots = [(); 3].map(|()| deck.take_slot().expect("a free slot"));
        assert!(slots.iter().all(|&slot| reads(&mut deck, slot, 0)));
        deck.give_back([slots[0], slots[1]]);
        // A window that begins in the memory of another.
        assert_eq!(deck.take_slot(), Some(slots[0]));
        deck.tidy();
        assert_eq!(slots.map(|slot| reads(&mut deck, slot, 1)), [true, false, true]);
    }

    #[test]
    fn texts_are_encoded_once_and_the_oldest_is_forgotten() {
        let mut deck = Deck::new(Box::new(Standin::default()));
        let first = deck.condition("piano").ok().flatten();
        let again = deck.condition("piano").ok().flatten();
        assert!(first.zip(again).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)));
        for i in 0..2 * TEXTS {
            assert!(deck.condition(&format!("text {i}")).is_ok());
        }
        assert_eq!(deck.texts.len(), TEXTS);
    }
}
