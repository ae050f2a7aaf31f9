//! One turn of work for the most urgent model: a decoder step for a batch of voices, at most one
//! bounded prefill pass, and one codec pass.

use std::sync::Arc;
use std::time::Instant;

use metrics::{gauge, histogram};

use super::Worker;
use crate::engine::voice_state::{Need, VoiceState};
use crate::engine::{Decode, Fault, Lost, Prefill, Priority, StepRow, schedule};
use crate::telemetry::{ROWS, STEP_SECONDS};
use crate::units::VoiceId;

impl Worker {
    /// One turn of work. `false`: nobody wants anything.
    pub(super) fn turn(&mut self) -> Result<bool, Lost> {
        let begun = Instant::now();
        self.backend = 0.0;
        let needs: Vec<(Need, f64)> = self.voices.iter().map(|voice| (voice.need(), voice.buffered())).collect();
        let is_spare = |voice: usize| self.voices[voice].priority == Priority::Spare;
        let mut hungry: Vec<usize> = (0..needs.len()).filter(|&voice| needs[voice].0 != Need::Nothing).collect();
        let pressed =
            hungry.iter().any(|&voice| !is_spare(voice) && schedule::short(needs[voice].1, self.voices[voice].lead()));
        if pressed {
            hungry.retain(|&voice| !is_spare(voice));
        }
        let urgency = |voice: usize| if is_spare(voice) { schedule::SPARE } else { needs[voice].1 };
        let Some(&urgent) = hungry.iter().min_by(|&&a, &&b| urgency(a).total_cmp(&urgency(b))) else {
            self.voices.iter_mut().for_each(VoiceState::was_content);
            self.models.iter_mut().for_each(|model| model.was_hungry(false, begun, begun));
            return Ok(false);
        };
        let model = self.model_of(&self.voices[urgent].info);
        let info = self.models[model].info.clone();
        let own: Vec<usize> =
            hungry.iter().copied().filter(|&voice| Arc::ptr_eq(&self.voices[voice].info, &info)).collect();
        for &voice in own.iter().filter(|&&voice| needs[voice].0 == Need::Window) {
            if let Some(slot) = self.slot(model, voice) {
                self.voices[voice].open_window(slot);
            }
        }
        let mut faults = Vec::new();
        let (mut stepping, mut filling) = (Vec::new(), Vec::new());
        for &voice in &own {
            match self.voices[voice].need() {
                Need::Step if self.voices[voice].priority == Priority::Spare => stepping.push((voice, schedule::SPARE)),
                Need::Step => stepping.push((voice, needs[voice].1)),
                Need::Prefill => filling.push((voice, needs[voice].1)),
                _ => {}
            }
        }
        let mut progress = !stepping.is_empty() || !filling.is_empty();
        let batch = schedule::batch(stepping);
        if !batch.is_empty() {
            self.step(model, &batch, &mut faults)?;
        }
        if let Some(&(voice, _)) = filling.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
            self.prefill(model, voice, hungry.len() > 1, &mut faults)?;
        }
        progress |= self.decode(model, pressed, &mut faults)?;
        let now = Instant::now();
        if !batch.is_empty() {
            let rest = now.duration_since(begun).as_secs_f64() - self.backend;
            self.models[model].cost.rest(batch.len(), rest);
        }
        for (voice, (need, _)) in self.voices.iter_mut().zip(&needs) {
            if *need == Need::Nothing || (pressed && voice.priority == Priority::Spare) {
                voice.was_content();
            } else {
                voice.was_hungry(begun, now);
            }
        }
        for model in &mut self.models {
            let hungry = hungry.iter().any(|&voice| Arc::ptr_eq(&self.voices[voice].info, &model.info));
            model.was_hungry(hungry, begun, now);
        }
        self.retire(faults);
        Ok(progress)
    }

    fn step(&mut self, model: usize, batch: &[usize], faults: &mut Vec<(VoiceId, Fault)>) -> Result<(), Lost> {
        let mut ids = Vec::new();
        let mut jobs = Vec::with_capacity(batch.len());
        for &index in batch {
            let voice = &self.voices[index];
            let from = ids.len();
            if let Some((slot, position, draw)) = voice.step_ids(&mut ids) {
                let (blend, described) = voice.ramp.at(voice.codes.columns());
                let mut sampling = voice.sampling;
                if described < 1.0 {
                    sampling.guidance *= described;
                }
                jobs.push((index, slot, position, draw, blend, sampling, from..ids.len()));
            }
        }
        let rows: Vec<StepRow<'_>> = jobs
            .iter()
            .map(|(_, slot, position, draw, blend, sampling, range)| StepRow {
                slot: *slot,
                position: *position,
                ids: &ids[range.clone()],
                blend,
                sampling: *sampling,
                draw: *draw,
            })
            .collect();
        let timer = Instant::now();
        let columns = self.models[model].backend.step(&rows)?;
        let seconds = timer.elapsed().as_secs_f64();
        let in_batch = batch.iter().map(|&index| self.voices[index].rows()).sum();
        self.models[model].cost.step(in_batch, seconds);
        self.backend += seconds;
        histogram!(STEP_SECONDS).record(seconds);
        gauge!(ROWS).set(in_batch as f64);
        for (column, (index, ..)) in columns.into_iter().zip(&jobs) {
            let voice = &mut self.voices[*index];
            match column {
                Ok(column) => voice.stepped(&column),
                Err(fault) => faults.push((voice.id, fault)),
            }
        }
        Ok(())
    }

    fn prefill(
        &mut self,
        model: usize,
        voice: usize,
        others_wait: bool,
        faults: &mut Vec<(VoiceId, Fault)>,
    ) -> Result<(), Lost> {
        let model = &mut self.models[model];
        let frame = 1.0 / model.info.frame_rate();
        let most = schedule::prefill_columns(others_wait, frame, model.cost.prefill_seconds());
        let voice = &mut self.voices[voice];
        let mut ids = Vec::new();
        let Some((slot, position, columns)) = voice.prefill_ids(most, &mut ids) else { return Ok(()) };
        let (blend, _) = voice.ramp.at(voice.codes.columns());
        let job = Prefill { slot, position, ids: &ids, blend: &blend, guidance: voice.sampling.guidance };
        let timer = Instant::now();
        match model.backend.prefill(&job)? {
            Ok(()) => voice.prefilled(columns),
            Err(fault) => faults.push((voice.id, fault)),
        }
        let seconds = timer.elapsed().as_secs_f64();
        model.cost.prefill(columns, seconds);
        self.backend += seconds;
        Ok(())
    }

    /// Decodes for every voice that has enough frames, if any; spare ones not while others are
    /// `pressed`. A complete voice gives its windows up.
    fn decode(&mut self, model: usize, pressed: bool, faults: &mut Vec<(VoiceId, Fault)>) -> Result<bool, Lost> {
        let info = self.models[model].info.clone();
        let mut due = Vec::new();
        let mut inputs = Vec::new();
        for (index, voice) in self.voices.iter_mut().enumerate() {
            if Arc::ptr_eq(&voice.info, &info)
                && !(pressed && voice.priority == Priority::Spare)
                && let Some((frames, last)) = voice.frames_due()
            {
                due.push((index, frames, last));
                inputs.push((voice.codec_input(frames), last));
            }
        }
        if due.is_empty() {
            return Ok(false);
        }
        let mut jobs: Vec<Decode<'_>> = inputs
            .iter_mut()
            .map(|((codes, state), last)| Decode { state: &mut **state, codes, last: *last })
            .collect();
        let timer = Instant::now();
        let pcm = self.models[model].backend.decode(&mut jobs)?;
        let frames = due.iter().map(|&(_, frames, _)| frames as usize).sum();
        let seconds = timer.elapsed().as_secs_f64();
        self.models[model].cost.decode(frames, seconds);
        self.backend += seconds;
        let sound = frames as f64 / info.frame_rate();
        self.models[model].made(sound);
        self.made += sound;
        for (pcm, (index, frames, last)) in pcm.into_iter().zip(due) {
            let voice = &mut self.voices[index];
            match pcm {
                Ok(pcm) => {
                    let mut freed = voice.decoded(frames, last, pcm);
                    freed.extend(voice.release_unreachable());
                    self.models[model].give_back(freed);
                }
                Err(fault) => faults.push((voice.id, fault)),
            }
        }
        Ok(true)
    }
}
