//! The engine thread: takes commands, then makes one turn of work for the most urgent model, and sleeps when nobody
//! wants sound. A turn is a decoder step for a batch of voices, at most one bounded prefill pass, and one codec pass.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use metrics::{counter, gauge, histogram};
use tokio::sync::oneshot;

use super::blend::Ramp;
use super::deck::Deck;
use super::handle::{Board, Mailbox, Voice};
use super::jobs::{AnyJob, JobQueue};
use super::live::{Live, Need, Plan};
use super::schedule;
use super::timeline::timeline;
use super::{
    Ack, Decode, EngineConfig, EngineError, Fault, Lost, ModelInfo, Prefill, Priority, Slot, Steer, StepRow, VoiceEnd,
    VoiceSpec,
};
use crate::telemetry::{ROWS, STEP_SECONDS, VOICE_FAULTS, VOICES};
use crate::units::{ModelId, VoiceId};

/// Seconds between what the reader has taken and the earliest place of a rewind: time to make the new sound.
const MARGIN: f64 = 0.1;
/// Part of real time that admission may plan with.
const HEADROOM: f64 = 0.95;

type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// What a handle may ask of the engine thread.
pub(super) enum Command {
    Join { spec: VoiceSpec, mailbox: Arc<Mailbox>, reply: Reply<Voice> },
    Steer { voice: VoiceId, steer: Steer, reply: Reply<Ack> },
    Reset { voice: VoiceId, reply: Reply<Ack> },
    SetModel { voice: VoiceId, model: ModelId, reply: Reply<Ack> },
    Pause { voice: VoiceId, reply: Reply<()> },
    Resume { voice: VoiceId, reply: Reply<()> },
    AddModel { deck: Box<Deck>, reply: Reply<()> },
    RemoveModel { model: ModelId, reply: Reply<()> },
    Submit { job: Box<dyn AnyJob> },
    Quit,
}

pub(super) struct Worker {
    commands: Receiver<Command>,
    board: Arc<Board>,
    config: EngineConfig,
    decks: Vec<Deck>,
    voices: Vec<Live>,
    next_voice: u64,
    lost: Option<String>,
    /// Voices that the gauge counts for this engine; others of the process add theirs.
    gauged: usize,
    made: f64,
    worked: f64,
    /// Seconds that backends have worked in this turn.
    backend: f64,
    jobs: JobQueue,
}

impl Worker {
    pub(super) fn new(commands: Receiver<Command>, board: Arc<Board>, config: EngineConfig, deck: Deck) -> Self {
        Self {
            commands,
            board,
            config,
            decks: vec![deck],
            voices: Vec::new(),
            next_voice: 1,
            lost: None,
            gauged: 0,
            made: 0.0,
            worked: 0.0,
            backend: 0.0,
            jobs: JobQueue::default(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Quit) | Err(TryRecvError::Disconnected) => {
                        self.end_all(&VoiceEnd::Stopped);
                        self.publish();
                        return;
                    }
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.reap();
            let begun = Instant::now();
            let turn = std::panic::catch_unwind(AssertUnwindSafe(|| self.turn()))
                .unwrap_or_else(|panic| Err(Lost(panic_text(panic.as_ref()))));
            let elapsed = begun.elapsed().as_secs_f64();
            match turn {
                Ok(true) => {
                    self.note_work(elapsed);
                    self.jobs.work(self.least_lead(), Some(elapsed));
                }
                Ok(false) if self.jobs.work(self.least_lead(), None) => {}
                Ok(false) => std::thread::park(),
                Err(Lost(reason)) => self.lose(reason),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // A reply that nobody waits for any more is no error.
        match command {
            Command::Join { spec, mailbox, reply } => drop(reply.send(self.join(spec, mailbox))),
            Command::Steer { voice, steer, reply } => drop(reply.send(self.steer(voice, steer))),
            Command::Reset { voice, reply } => drop(reply.send(self.reset(voice))),
            Command::SetModel { voice, model, reply } => drop(reply.send(self.set_model(voice, &model))),
            Command::Pause { voice, reply } => drop(reply.send(self.pause(voice))),
            Command::Resume { voice, reply } => drop(reply.send(self.resume(voice))),
            Command::AddModel { deck, reply } => drop(reply.send(self.add_model(*deck))),
            Command::RemoveModel { model, reply } => drop(reply.send(self.remove_model(&model))),
            Command::Submit { mut job } => match &self.lost {
                Some(reason) => job.refuse(EngineError::DeviceLost(reason.clone())),
                None => self.jobs.push(job),
            },
            Command::Quit => {}
        }
        self.publish();
    }

    fn join(&mut self, spec: VoiceSpec, mailbox: Arc<Mailbox>) -> Result<Voice, EngineError> {
        if let Some(reason) = &self.lost {
            return Err(EngineError::DeviceLost(reason.clone()));
        }
        let id = spec.model.unwrap_or_else(|| self.board.default_model());
        let deck = self.deck(&id)?;
        let parts = self.decks[deck].prepare(&spec.prompts)?;
        let deck = &self.decks[deck];
        let info = deck.info.clone();
        let length = spec.length.map(|frames| frames.0.max(1));
        if let Some(prefix) = &spec.prefix {
            prefix.check(&info, length)?;
        }
        let ring = ring_chunks(&info, spec.lead);
        let plan = Plan { length, lead: spec.lead, prefix: spec.prefix, priority: spec.priority };
        let (writer, reader) = timeline(ring, std::thread::current());
        let mut voice = Live::new(
            VoiceId(self.next_voice),
            info.clone(),
            writer,
            (spec.prompts, Ramp::constant(parts)),
            info.sampling.patched(spec.sampling),
            deck.backend.codec_state(),
            plan,
        );
        voice.paused = spec.paused;
        self.admit(&info, &mut voice)?;
        self.next_voice += 1;
        let handle = Voice::new(&voice, reader, mailbox);
        self.voices.push(voice);
        Ok(handle)
    }

    /// Whether the machine can carry one more voice in real time, what the station does for each of them included. The
    /// first voice always comes in: a slow machine plays below real time and says so. A voice that generates is told the
    /// factor that it can expect.
    fn admit(&self, info: &Arc<ModelInfo>, new: &mut Live) -> Result<(), EngineError> {
        let spare = |voice: &Live| voice.priority == Priority::Spare;
        if new.paused {
            return Ok(());
        }
        let generating = self.voices.iter().filter(|voice| voice.generates()).count();
        if generating >= self.config.max_voices {
            return Err(EngineError::TooMany { limit: self.config.max_voices, retry_after: 10 });
        }
        // Spare voices give way to live ones; they only need a slot.
        let playing: Vec<&Live> =
            self.voices.iter().filter(|voice| voice.generates() && (spare(new) || !spare(voice))).collect();
        let work: f64 = self
            .decks
            .iter()
            .map(|deck| {
                let own = playing.iter().filter(|voice| Arc::ptr_eq(&voice.info, &deck.info));
                let (mut voices, mut all) = own.fold((0, 0), |(n, r), voice| (n + 1, r + voice.rows()));
                if Arc::ptr_eq(info, &deck.info) {
                    voices += 1;
                    all += new.rows();
                }
                deck.cost.load(&deck.info, voices, all)
            })
            .sum();
        let live = playing.iter().filter(|voice| !spare(voice)).count() + usize::from(!spare(new));
        let load = work + live as f64 * self.board.upkeep();
        let slots = self.decks.iter().find(|deck| Arc::ptr_eq(info, &deck.info)).map_or(0, |deck| deck.backend.slots());
        let own = playing.iter().filter(|voice| Arc::ptr_eq(&voice.info, info)).count();
        if !playing.is_empty() && ((load > HEADROOM && !spare(new)) || own >= slots) {
            return Err(EngineError::Full { voices: playing.len(), load: 100.0 * load, retry_after: 10 });
        }
        new.expect(1.0 / load.max(1e-9));
        Ok(())
    }

    fn deck(&self, id: &ModelId) -> Result<usize, EngineError> {
        self.decks
            .iter()
            .position(|deck| deck.info.id == *id && !deck.retired)
            .ok_or_else(|| EngineError::UnknownModel(id.clone()))
    }

    fn deck_of(&self, info: &Arc<ModelInfo>) -> usize {
        // A deck is removed only after its last voice.
        self.decks.iter().position(|deck| Arc::ptr_eq(&deck.info, info)).unwrap_or(0)
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
        let deck = self.deck_of(&self.voices[index].info);
        let parts = steer.prompts.as_ref().map(|prompts| self.decks[deck].prepare(prompts)).transpose()?;
        let voice = &mut self.voices[index];
        let (ack, freed) = voice.rewind(MARGIN);
        if let (Some(parts), Some(prompts)) = (parts, steer.prompts) {
            let columns = (f64::from(steer.ramp) * voice.info.frame_rate()).round() as u64;
            voice.ramp = voice.ramp.towards(parts, voice.codes.columns(), columns);
            voice.prompts = prompts;
        }
        voice.sampling = voice.sampling.patched(steer.sampling);
        self.decks[deck].give_back(freed);
        Ok(ack)
    }

    fn reset(&mut self, id: VoiceId) -> Result<Ack, EngineError> {
        let index = self.voice(id)?;
        let deck = self.deck_of(&self.voices[index].info);
        let deck = &mut self.decks[deck];
        let (ack, freed) = self.voices[index].restart(MARGIN, deck.info.clone(), deck.backend.codec_state());
        deck.give_back(freed);
        Ok(ack)
    }

    fn set_model(&mut self, id: VoiceId, model: &ModelId) -> Result<Ack, EngineError> {
        let index = self.voice(id)?;
        let (old, new) = (self.deck_of(&self.voices[index].info), self.deck(model)?);
        let info = self.decks[new].info.clone();
        let voice = &mut self.voices[index];
        if info.sample_rate != voice.info.sample_rate {
            return Err(EngineError::Invalid(format!(
                "`{model}` makes {} Hz but the stream runs at {} Hz; start a new stream with it.",
                info.sample_rate.0, voice.info.sample_rate.0
            )));
        }
        for part in voice.ramp.parts_mut() {
            part.condition = self.decks[new].condition(&part.prompt.text)?;
        }
        let (ack, freed) = if info.codec_fingerprint == voice.info.codec_fingerprint {
            voice.move_to(MARGIN, info)
        } else {
            let codec = self.decks[new].backend.codec_state();
            voice.restart(MARGIN, info, codec)
        };
        self.decks[old].give_back(freed);
        Ok(ack)
    }

    fn pause(&mut self, id: VoiceId) -> Result<(), EngineError> {
        let index = self.voice(id)?;
        let deck = self.deck_of(&self.voices[index].info);
        self.voices[index].paused = true;
        let freed = self.voices[index].close_windows();
        self.decks[deck].give_back(freed);
        self.decks[deck].tidy();
        Ok(())
    }

    fn resume(&mut self, id: VoiceId) -> Result<(), EngineError> {
        let index = self.voice(id)?;
        if !self.voices[index].paused {
            return Ok(());
        }
        self.voices[index].paused = false;
        let mut voice = self.voices.swap_remove(index);
        let admitted = self.admit(&voice.info.clone(), &mut voice);
        self.voices.push(voice);
        if admitted.is_err()
            && let Some(voice) = self.voices.last_mut()
        {
            voice.paused = true;
        }
        admitted
    }

    fn add_model(&mut self, deck: Deck) -> Result<(), EngineError> {
        if let Some(reason) = &self.lost {
            return Err(EngineError::DeviceLost(reason.clone()));
        }
        for old in self.decks.iter_mut().filter(|old| old.info.id == deck.info.id) {
            old.retired = true;
        }
        self.decks.push(deck);
        self.drop_retired();
        self.board.set_models(self.decks.iter().filter(|deck| !deck.retired).map(Deck::listed).collect());
        Ok(())
    }

    fn remove_model(&mut self, id: &ModelId) -> Result<(), EngineError> {
        let deck = self.deck(id)?;
        if self.board.default_model() == *id {
            return Err(EngineError::Invalid(format!("`{id}` is the default model; choose another one first.")));
        }
        let info = &self.decks[deck].info;
        if self.voices.iter().any(|voice| Arc::ptr_eq(&voice.info, info)) {
            return Err(EngineError::Invalid(format!("`{id}` is playing; it can be removed when nobody uses it.")));
        }
        self.decks[deck].retired = true;
        self.drop_retired();
        self.board.set_models(self.decks.iter().filter(|deck| !deck.retired).map(Deck::listed).collect());
        Ok(())
    }

    fn drop_retired(&mut self) {
        let voices = &self.voices;
        self.decks.retain(|deck| !deck.retired || voices.iter().any(|voice| Arc::ptr_eq(&voice.info, &deck.info)));
    }

    /// Removes voices whose reader is gone, or has taken the whole of a complete voice: until then it can be steered.
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

    fn remove(&mut self, index: usize) -> Live {
        let mut voice = self.voices.swap_remove(index);
        let deck = self.deck_of(&voice.info);
        self.decks[deck].give_back(voice.close_windows());
        self.decks[deck].tidy();
        self.drop_retired();
        voice
    }

    /// Seconds of sound that the live voice with the least of it has; frames that are not decoded do not count.
    fn least_lead(&self) -> f64 {
        let live = self.voices.iter().filter(|voice| voice.generates() && voice.priority == Priority::Live);
        live.map(Live::lead_left).fold(f64::INFINITY, f64::min)
    }

    /// One turn of work. `false`: nobody wants anything.
    fn turn(&mut self) -> Result<bool, Lost> {
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
            self.voices.iter_mut().for_each(Live::was_content);
            self.decks.iter_mut().for_each(|deck| deck.was_hungry(false, begun, begun));
            return Ok(false);
        };
        let deck = self.deck_of(&self.voices[urgent].info);
        let info = self.decks[deck].info.clone();
        let own: Vec<usize> =
            hungry.iter().copied().filter(|&voice| Arc::ptr_eq(&self.voices[voice].info, &info)).collect();
        for &voice in own.iter().filter(|&&voice| needs[voice].0 == Need::Window) {
            if let Some(slot) = self.slot(deck, voice) {
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
            self.step(deck, &batch, &mut faults)?;
        }
        if let Some(&(voice, _)) = filling.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
            self.prefill(deck, voice, hungry.len() > 1, &mut faults)?;
        }
        progress |= self.decode(deck, pressed, &mut faults)?;
        let now = Instant::now();
        if !batch.is_empty() {
            let rest = now.duration_since(begun).as_secs_f64() - self.backend;
            self.decks[deck].cost.rest(batch.len(), rest);
        }
        for (voice, (need, _)) in self.voices.iter_mut().zip(&needs) {
            if *need == Need::Nothing || (pressed && voice.priority == Priority::Spare) {
                voice.was_content();
            } else {
                voice.was_hungry(begun, now);
            }
        }
        for deck in &mut self.decks {
            let hungry = hungry.iter().any(|&voice| Arc::ptr_eq(&self.voices[voice].info, &deck.info));
            deck.was_hungry(hungry, begun, now);
        }
        self.retire(faults);
        Ok(progress)
    }

    /// A free slot, if need be from a window that only a rewind could still want, then from a voice that gives way, in
    /// the last resort the voice's own.
    fn slot(&mut self, deck: usize, voice: usize) -> Option<Slot> {
        if let Some(slot) = self.decks[deck].take_slot() {
            return Some(slot);
        }
        let info = &self.decks[deck].info;
        let old = self.voices.iter_mut().filter(|other| Arc::ptr_eq(&other.info, info));
        if let Some(slot) = old.into_iter().find_map(Live::close_old_window) {
            return Some(slot);
        }
        if let Some(slot) = self.voices[voice].close_windows().last() {
            return Some(slot);
        }
        if self.voices[voice].priority == Priority::Spare {
            return None;
        }
        let info = &self.decks[deck].info;
        let mut spare =
            self.voices.iter_mut().filter(|other| other.priority == Priority::Spare && Arc::ptr_eq(&other.info, info));
        spare.find_map(|other| other.close_windows().last())
    }

    fn step(&mut self, deck: usize, batch: &[usize], faults: &mut Vec<(VoiceId, Fault)>) -> Result<(), Lost> {
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
        let columns = self.decks[deck].backend.step(&rows)?;
        let seconds = timer.elapsed().as_secs_f64();
        let in_batch = batch.iter().map(|&index| self.voices[index].rows()).sum();
        self.decks[deck].cost.step(in_batch, seconds);
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
        deck: usize,
        voice: usize,
        others_wait: bool,
        faults: &mut Vec<(VoiceId, Fault)>,
    ) -> Result<(), Lost> {
        let deck = &mut self.decks[deck];
        let frame = 1.0 / deck.info.frame_rate();
        let most = schedule::prefill_columns(others_wait, frame, deck.cost.prefill_seconds());
        let voice = &mut self.voices[voice];
        let mut ids = Vec::new();
        let Some((slot, position, columns)) = voice.prefill_ids(most, &mut ids) else { return Ok(()) };
        let (blend, _) = voice.ramp.at(voice.codes.columns());
        let job = Prefill { slot, position, ids: &ids, blend: &blend, guidance: voice.sampling.guidance };
        let timer = Instant::now();
        match deck.backend.prefill(&job)? {
            Ok(()) => voice.prefilled(columns),
            Err(fault) => faults.push((voice.id, fault)),
        }
        let seconds = timer.elapsed().as_secs_f64();
        deck.cost.prefill(columns, seconds);
        self.backend += seconds;
        Ok(())
    }

    /// Decodes for every voice that has enough frames, if any; spare ones not while others are `pressed`. A complete
    /// voice gives its windows up.
    fn decode(&mut self, deck: usize, pressed: bool, faults: &mut Vec<(VoiceId, Fault)>) -> Result<bool, Lost> {
        let info = self.decks[deck].info.clone();
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
        let pcm = self.decks[deck].backend.decode(&mut jobs)?;
        let frames = due.iter().map(|&(_, frames, _)| frames as usize).sum();
        let seconds = timer.elapsed().as_secs_f64();
        self.decks[deck].cost.decode(frames, seconds);
        self.backend += seconds;
        let sound = frames as f64 / info.frame_rate();
        self.decks[deck].made(sound);
        self.made += sound;
        for (pcm, (index, frames, last)) in pcm.into_iter().zip(due) {
            let voice = &mut self.voices[index];
            match pcm {
                Ok(pcm) => {
                    voice.decoded(frames, last, pcm);
                    let freed = voice.release_unreachable();
                    self.decks[deck].give_back(freed);
                    if last {
                        let freed = voice.close_windows();
                        self.decks[deck].give_back(freed);
                    }
                }
                Err(fault) => faults.push((voice.id, fault)),
            }
        }
        Ok(true)
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
        let steps = self.decks.first().map_or(0.0, |deck| deck.cost.step_seconds());
        let factor = if self.worked > 0.0 { self.made / self.worked } else { 0.0 };
        self.board.set_status(self.lost.clone(), self.voices.len(), steps, factor);
    }
}

/// Chunks that a lead can be made of: one per frame at worst, and as many again for a rewind's replacement, or a longer
/// lead, whose chunks are longer.
fn ring_chunks(info: &ModelInfo, lead: std::time::Duration) -> usize {
    2 * (lead.as_secs_f64() * info.frame_rate()).ceil() as usize + 256
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the engine stumbled: {}", text.unwrap_or("no reason given"))
}
