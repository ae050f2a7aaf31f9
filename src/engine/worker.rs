//! The engine thread: takes commands, then makes one turn of work for the most urgent model, and
//! sleeps when nobody wants sound. A turn is a decoder step for a batch of voices, at most one
//! bounded prefill pass, and one codec pass.

mod admission;
mod line;
mod models;
mod slots;
mod turn;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use metrics::{counter, gauge};

use self::line::Line;
use super::blend::Ramp;
use super::command::{Command, Joined};
use super::jobs::JobQueue;
use super::loaded_model::LoadedModel;
use super::pcm_ring::pcm_ring;
use super::shared::EngineShared;
use super::voice_state::{Plan, VoiceState};
use super::{
    Ack, EngineConfig, EngineError, EngineStatus, Fault, Lost, ModelInfo, Priority, Steer, VoiceEnd, VoiceSpec,
};
use crate::telemetry::{VOICE_FAULTS, VOICES};
use crate::units::{ModelId, VoiceId};

/// Seconds between what the reader has taken and the earliest place of a rewind: time to make the
/// new sound.
const MARGIN: f64 = 0.1;

pub(super) struct Worker {
    commands: Receiver<Command>,
    shared: Arc<EngineShared>,
    config: EngineConfig,
    models: Vec<LoadedModel>,
    voices: Vec<VoiceState>,
    next_voice: u64,
    lost: Option<String>,
    /// Voices that the gauge counts for this engine; others of the process add theirs.
    gauged: usize,
    made: f64,
    worked: f64,
    /// Seconds that backends have worked in this turn.
    backend: f64,
    jobs: JobQueue,
    line: Line,
}

impl Worker {
    pub(super) fn new(
        commands: Receiver<Command>,
        shared: Arc<EngineShared>,
        config: EngineConfig,
        models: Vec<LoadedModel>,
    ) -> Self {
        Self {
            commands,
            shared,
            config,
            models,
            voices: Vec::new(),
            next_voice: 1,
            lost: None,
            gauged: 0,
            made: 0.0,
            worked: 0.0,
            backend: 0.0,
            jobs: JobQueue::default(),
            line: Line::default(),
        }
    }

    pub(super) fn run(mut self) {
        self.publish();
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Quit) | Err(TryRecvError::Disconnected) => {
                        self.end_all(&VoiceEnd::Stopped);
                        self.publish();
                        return;
                    }
                    Ok(command) => self.handle_command(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.reap();
            self.serve_line();
            let begun = Instant::now();
            let turn = std::panic::catch_unwind(AssertUnwindSafe(|| self.turn()))
                .unwrap_or_else(|panic| Err(Lost(panic_text(panic.as_ref()))));
            let elapsed = begun.elapsed().as_secs_f64();
            match turn {
                Ok(true) => {
                    self.note_work(elapsed);
                    self.work_on_jobs(Some(elapsed));
                }
                Ok(false) if self.work_on_jobs(None) => {}
                Ok(false) => std::thread::park(),
                Err(Lost(reason)) => self.lose(reason),
            }
        }
    }

    /// See [`JobQueue::work`].
    fn work_on_jobs(&mut self, turn: Option<f64>) -> bool {
        let lead = self.least_lead();
        self.jobs.work(lead, turn, &mut self.models)
    }

    fn handle_command(&mut self, command: Command) {
        // A reply that nobody waits for any more is no error.
        match command {
            Command::Join { spec, reply } => drop(reply.send(self.join(spec))),
            Command::Steer { voice, steer, reply } => drop(reply.send(self.steer(voice, steer))),
            Command::Reset { voice, reply } => drop(reply.send(self.reset(voice))),
            Command::SetModel { voice, model, reply } => drop(reply.send(self.set_model(voice, &model))),
            Command::Pause { voice, reply } => drop(reply.send(self.pause(voice))),
            Command::Resume { voice, reply } => drop(reply.send(self.resume(voice))),
            Command::ResumeWhenFree { voice, place, reply } => self.resume_when_free(voice, place, reply),
            Command::AddModel { model, reply } => drop(reply.send(self.add_model(*model))),
            Command::RemoveModel { model, reply } => drop(reply.send(self.remove_model(&model))),
            Command::Submit { mut job } => match &self.lost {
                Some(reason) => job.refuse(EngineError::DeviceLost(reason.clone())),
                None => self.jobs.push(job),
            },
            Command::Quit => {}
        }
        self.publish();
    }

    fn join(&mut self, spec: VoiceSpec) -> Result<Joined, EngineError> {
        if let Some(reason) = &self.lost {
            return Err(EngineError::DeviceLost(reason.clone()));
        }
        let id = spec.model.unwrap_or_else(|| self.shared.default_model());
        let model = self.model(&id)?;
        let parts = self.models[model].texts.parts(&spec.prompts)?;
        let model = &self.models[model];
        let info = model.info.clone();
        let length = spec.length.map(|frames| frames.0.max(1));
        if let Some(prefix) = &spec.prefix {
            prefix.check(&info, length)?;
        }
        let ring = ring_chunks(&info, spec.lead);
        let max_still = f64::from(spec.max_still.unwrap_or(self.config.max_still));
        let plan = Plan { length, lead: spec.lead, prefix: spec.prefix, priority: spec.priority, max_still };
        let (writer, reader) = pcm_ring(ring, std::thread::current());
        let mut voice = VoiceState::new(
            VoiceId(self.next_voice),
            info.clone(),
            writer,
            (spec.prompts, Ramp::constant(parts), model.texts.clone()),
            info.sampling.patched(spec.sampling),
            model.backend.codec_state(),
            plan,
        );
        voice.paused = spec.paused;
        if !spec.paused {
            voice.expect_factor(self.room_behind_others(&voice)?);
        }
        self.next_voice += 1;
        let joined = Joined { id: voice.id, model: info, reader, texts: voice.texts.clone() };
        self.voices.push(voice);
        Ok(joined)
    }

    fn voice(&self, id: VoiceId) -> Result<usize, EngineError> {
        if let Some(reason) = &self.lost {
            return Err(EngineError::DeviceLost(reason.clone()));
        }
        self.voices
            .iter()
            .position(|voice| voice.id == id)
            .ok_or_else(|| EngineError::Gone("it was left or is complete".into()))
    }

    fn steer(&mut self, id: VoiceId, steer: Steer) -> Result<Ack, EngineError> {
        let index = self.voice(id)?;
        let model = self.model_of(&self.voices[index].info);
        let parts = steer.prompts.as_ref().map(|prompts| self.models[model].texts.parts(prompts)).transpose()?;
        let voice = &mut self.voices[index];
        let (ack, freed) = voice.rewind(MARGIN);
        if let (Some(parts), Some(prompts)) = (parts, steer.prompts) {
            let columns = (f64::from(steer.ramp) * voice.info.frame_rate()).round() as u64;
            voice.ramp = voice.ramp.towards(parts, voice.codes.columns(), columns);
            voice.prompts = prompts;
            voice.texts.set(self.models[model].texts.clone(), voice.ramp.texts());
            voice.watch();
        }
        voice.sampling = voice.sampling.patched(steer.sampling);
        self.models[model].give_back(freed);
        Ok(ack)
    }

    fn reset(&mut self, id: VoiceId) -> Result<Ack, EngineError> {
        let index = self.voice(id)?;
        let model = self.model_of(&self.voices[index].info);
        let model = &mut self.models[model];
        let (ack, freed) = self.voices[index].restart(MARGIN, model.info.clone(), model.backend.codec_state());
        model.give_back(freed);
        Ok(ack)
    }

    fn set_model(&mut self, id: VoiceId, model: &ModelId) -> Result<Ack, EngineError> {
        let index = self.voice(id)?;
        let (old, new) = (self.model_of(&self.voices[index].info), self.model(model)?);
        let info = self.models[new].info.clone();
        let voice = &mut self.voices[index];
        if info.sample_rate != voice.info.sample_rate {
            return Err(EngineError::Invalid(format!(
                "`{model}` makes {} Hz but the stream runs at {} Hz; start a new stream with it.",
                info.sample_rate.0, voice.info.sample_rate.0
            )));
        }
        for part in voice.ramp.parts_mut() {
            part.condition = self.models[new].texts.condition(&part.prompt.text)?;
        }
        let (ack, freed) = if info.codec_fingerprint == voice.info.codec_fingerprint {
            voice.move_to(MARGIN, info)
        } else {
            let codec = self.models[new].backend.codec_state();
            voice.restart(MARGIN, info, codec)
        };
        voice.texts.set(self.models[new].texts.clone(), voice.ramp.texts());
        self.models[old].give_back(freed);
        Ok(ack)
    }

    fn pause(&mut self, id: VoiceId) -> Result<(), EngineError> {
        let index = self.voice(id)?;
        let model = self.model_of(&self.voices[index].info);
        self.voices[index].paused = true;
        let freed = self.voices[index].close_windows();
        self.models[model].give_back(freed);
        self.models[model].tidy();
        Ok(())
    }

    fn resume(&mut self, id: VoiceId) -> Result<(), EngineError> {
        let index = self.voice(id)?;
        Ok(self.let_in(index)?)
    }

    /// Removes voices whose reader is gone, or has taken the whole of a complete voice: until then
    /// it can be steered.
    fn reap(&mut self) {
        let before = self.voices.len();
        for index in (0..before).rev() {
            if self.voices[index].writer.abandoned() {
                self.remove(index);
            } else if self.voices[index].is_played_out() {
                self.remove(index).writer.finish(VoiceEnd::Finished);
            }
        }
        if self.voices.len() != before {
            self.publish();
        }
    }

    fn remove(&mut self, index: usize) -> VoiceState {
        let mut voice = self.voices.swap_remove(index);
        let model = self.model_of(&voice.info);
        self.models[model].give_back(voice.close_windows());
        self.models[model].tidy();
        self.drop_retired();
        voice
    }

    /// Seconds of sound that the live voice with the least of it has; frames that are not decoded
    /// do not count.
    fn least_lead(&self) -> f64 {
        let live = self.voices.iter().filter(|voice| voice.generates() && voice.priority == Priority::Live);
        live.map(VoiceState::lead_left).fold(f64::INFINITY, f64::min)
    }

    /// Drops faulty voices with their reason; the others go on.
    fn retire(&mut self, faults: Vec<(VoiceId, Fault)>) {
        if faults.is_empty() {
            return;
        }
        for (id, Fault(reason)) in faults {
            counter!(VOICE_FAULTS).increment(1);
            tracing::warn!(voice = %id, %reason, "a voice was dropped");
            if let Some(index) = self.voices.iter().position(|voice| voice.id == id) {
                self.remove(index).writer.finish(VoiceEnd::Failed(reason));
            }
        }
        self.publish();
    }

    fn end_all(&mut self, end: &VoiceEnd) {
        for voice in self.voices.drain(..) {
            voice.writer.finish(end.clone());
        }
    }

    fn lose(&mut self, reason: String) {
        tracing::error!(%reason, "the device was lost");
        let end = VoiceEnd::Failed(format!("the device was lost: {reason}"));
        self.jobs.end_all(&EngineError::DeviceLost(reason.clone()));
        self.lost = Some(reason);
        self.publish(); // Whoever sees a voice end because of it can already read why.
        self.end_all(&end);
    }

    fn note_work(&mut self, seconds: f64) {
        self.worked += seconds;
        if self.worked > 1.0 {
            self.publish();
            self.worked /= 2.0;
            self.made /= 2.0;
        }
    }

    fn publish(&mut self) {
        gauge!(VOICES).increment(self.voices.len() as f64 - self.gauged as f64);
        self.gauged = self.voices.len();
        let steps = self.models.first().map_or(0.0, |model| model.cost.step_seconds());
        let factor = if self.worked > 0.0 { self.made / self.worked } else { 0.0 };
        self.shared.set_status(EngineStatus {
            lost: self.lost.clone(),
            voices: self.voices.len(),
            step_seconds: steps,
            realtime_factor: factor,
            room: self.room(),
        });
    }
}

/// Chunks that a lead can be made of: one per frame at worst, and as many again for a rewind's
/// replacement, or a longer lead, whose chunks are longer.
fn ring_chunks(info: &ModelInfo, lead: std::time::Duration) -> usize {
    2 * (lead.as_secs_f64() * info.frame_rate()).ceil() as usize + 256
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the engine stumbled: {}", text.unwrap_or("no reason given"))
}
