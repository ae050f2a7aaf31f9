//! The engine as other rooms see it: handles that send commands to its thread and read its notice
//! shared.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::command::{Command, CommandSender, Joined};
use super::decoding::Decoding;
use super::jobs::{self, AnyJob, Job, JobHandle};
use super::loaded_model::{ListedModel, LoadedModel};
use super::pcm_ring::{Reader, Shared};
use super::shared::{EngineShared, lock};
use super::texts::VoiceTexts;
use super::worker::Worker;
use super::{
    Ack, Backend, EngineConfig, EngineError, EngineStatus, Fault, Freeze, InLine, ModelInfo, Place, Prefix, Read,
    Steer, VoiceSpec, WeightedPrompt,
};
use crate::units::{ModelId, Samples, VoiceId};

/// A handle to the engine thread; clones are cheap.
#[derive(Clone)]
pub struct Engine {
    commands: Arc<CommandSender>,
    shared: Arc<EngineShared>,
}

impl Engine {
    /// Warms `backend` up, then starts a thread that owns it as its default model. Blocks while
    /// warming up.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`] when the first steps fail or no thread can be started.
    pub fn start(backend: Box<dyn Backend>, config: EngineConfig) -> Result<Self, EngineError> {
        let mut model = LoadedModel::new(backend);
        model.warm_up().map_err(|lost| EngineError::DeviceLost(lost.0))?;
        let status = EngineStatus {
            lost: None,
            voices: 0,
            step_seconds: model.cost.step_seconds(),
            realtime_factor: model.alone(),
            room: 0,
        };
        Self::begin(vec![model], status, config)
    }

    /// Starts a thread that has nothing to make yet, of a server that plays what others make.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`] when no thread can be started.
    pub fn without_models(config: EngineConfig) -> Result<Self, EngineError> {
        let status = EngineStatus { lost: None, voices: 0, step_seconds: 0.0, realtime_factor: 0.0, room: 0 };
        Self::begin(Vec::new(), status, config)
    }

    fn begin(models: Vec<LoadedModel>, status: EngineStatus, config: EngineConfig) -> Result<Self, EngineError> {
        let shared = Arc::new(EngineShared {
            models: Mutex::new(models.iter().map(LoadedModel::listed).collect()),
            status: Mutex::new(status),
            seeds: AtomicU64::new(0),
            upkeep: AtomicU64::new(0),
        });
        #[expect(clippy::disallowed_methods, reason = "each command is answered before its sender goes on")]
        let (commands, inbox) = std::sync::mpsc::channel();
        let worker = Worker::new(inbox, shared.clone(), config, models);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.run())
            .map_err(|error| EngineError::DeviceLost(format!("no thread can be started: {error}")))?;
        let commands = Arc::new(CommandSender { commands, thread: thread.thread().clone() });
        Ok(Self { commands, shared })
    }

    /// Admits a voice, which begins to generate at once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EngineError::Invalid`], [`EngineError::Full`], [`EngineError::TooMany`],
    /// [`EngineError::UnknownModel`], [`EngineError::DeviceLost`].
    pub async fn join(&self, mut spec: VoiceSpec) -> Result<Voice, EngineError> {
        spec.validate()?;
        spec.sampling.seed.get_or_insert_with(|| {
            let sequence = self.shared.seeds.fetch_add(1, Ordering::Relaxed);
            RandomState::new().hash_one(sequence)
        });
        self.shared.model(spec.model.as_ref())?.texts.prepare(texts_of(&spec.prompts)).await?;
        let Joined { id, model, reader, texts } = self.commands.ask(|reply| Command::Join { spec, reply }).await?;
        Ok(Voice { id, model, reader, texts, engine: self.clone() })
    }

    /// Adds a model under its id, warmed up on a thread of its own so that no voice waits for it;
    /// an older one of the same id is replaced once its last voice has left it. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`] when its first steps fail.
    pub async fn add_model(&self, backend: Box<dyn Backend>) -> Result<(), EngineError> {
        let warm = tokio::task::spawn_blocking(move || {
            let mut model = Box::new(LoadedModel::new(backend));
            model.warm_up().map(|()| model)
        });
        let model = warm
            .await
            .map_err(|error| EngineError::DeviceLost(format!("the model failed to start: {error}")))?
            .map_err(|lost| EngineError::DeviceLost(lost.0))?;
        self.commands.ask(|reply| Command::AddModel { model, reply }).await
    }

    /// Makes a loaded model the default for new voices.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`].
    pub fn set_default_model(&self, id: &ModelId) -> Result<(), EngineError> {
        let mut models = lock(&self.shared.models);
        let index = models
            .iter()
            .position(|model| model.info.id == *id)
            .ok_or_else(|| EngineError::UnknownModel(id.clone()))?;
        models[..=index].rotate_right(1);
        Ok(())
    }

    /// Hands over a job: it is worked on between the steps of voices.
    pub fn submit<J: Job>(&self, job: J) -> JobHandle<J::Output> {
        let (job, handle) = jobs::slot(job);
        self.submit_any(job);
        handle
    }

    pub(super) fn submit_any(&self, job: Box<dyn AnyJob>) {
        // A stopped engine drops the job, which is what its handle then says.
        let _ = self.commands.send(Command::Submit { job });
    }

    /// A decoder for codes that were heard, of the codec with this
    /// [`ModelInfo::codec_fingerprint`]: its work is done between the steps of voices.
    pub fn decoding(&self, fingerprint: u64) -> Decoding {
        Decoding::new(self.clone(), fingerprint)
    }

    /// The loaded models, the default first.
    pub fn models(&self) -> Vec<Arc<ModelInfo>> {
        lock(&self.shared.models).iter().map(|model| model.info.clone()).collect()
    }

    /// Seconds of sound that a model makes per second for all its voices together while they want
    /// some: measured over the last seconds of work, before that as its first steps promise. `None`
    /// if it is not loaded.
    pub fn realtime_factor(&self, id: &ModelId) -> Option<f64> {
        let models = lock(&self.shared.models);
        let model = models.iter().find(|model| model.info.id == *id)?;
        Some(f64::from_bits(model.speed.load(Ordering::Relaxed)))
    }

    /// Tells admission what a live voice costs the machine beyond the engine's work: the share of
    /// the whole machine's time that levelling, encoding and sending it takes.
    pub fn set_upkeep(&self, share: f64) {
        self.shared.upkeep.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Removes a model that no voice uses, other than the default one.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::Invalid`] for the default model and for one
    /// that plays.
    pub async fn remove_model(&self, id: &ModelId) -> Result<(), EngineError> {
        let model = id.clone();
        self.commands.ask(|reply| Command::RemoveModel { model, reply }).await
    }

    /// Encodes sound `[channels][samples]` at the model's rate, for a voice to continue from. The
    /// work is done on a thread of its own. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::Invalid`] when the model cannot encode it.
    pub async fn encode(&self, model: Option<&ModelId>, channels: Vec<Vec<f32>>) -> Result<Prefix, EngineError> {
        let ListedModel { info, encoder, .. } = self.shared.model(model)?;
        let codes = tokio::task::spawn_blocking(move || encoder.encode(&channels))
            .await
            .map_err(|error| EngineError::Failed(format!("The sound could not be encoded: {error}")))?
            .map_err(|Fault(reason)| EngineError::Invalid(format!("The sound cannot be encoded: {reason}")))?;
        Ok(Prefix { codes: codes.into(), fingerprint: info.codec_fingerprint, heard: false, skipped: 0 })
    }

    /// The state of the whole engine at this moment; never waits for the engine thread.
    pub fn status(&self) -> EngineStatus {
        lock(&self.shared.status).clone()
    }
}

/// The receiving end of a voice. Dropping it makes the voice leave the engine.
pub struct Voice {
    id: VoiceId,
    model: Arc<ModelInfo>,
    reader: Reader,
    texts: Arc<VoiceTexts>,
    engine: Engine,
}

impl Voice {
    /// Its identity.
    pub fn id(&self) -> VoiceId {
        self.id
    }

    /// The facts of the model that it was started on.
    pub fn model(&self) -> &Arc<ModelInfo> {
        &self.model
    }

    /// Takes at most `max` samples (per channel) without waiting. What is taken can no longer be
    /// rewound.
    pub fn read(&mut self, max: Samples) -> Read {
        self.reader.read(max)
    }

    /// Waits until [`Voice::read`] would not answer [`Read::Pending`]. Cancel safe; does not borrow
    /// the voice.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.reader.shared().clone();
        async move { shared.ready().await }
    }

    /// Decoder steps made so far. A clip of `n` frames with a prefix of `p` takes `n - p` and the
    /// largest delay.
    pub fn steps(&self) -> u64 {
        self.reader.shared().steps.load(Ordering::Relaxed)
    }

    /// Seconds generated and not yet read.
    pub fn buffered(&self) -> f64 {
        Samples(self.reader.shared().buffered()).seconds(self.model.sample_rate)
    }

    /// Changes how much is generated ahead of the reader.
    pub fn keep_ahead(&self, lead: Duration) {
        let samples = self.model.sample_rate.samples(lead.as_secs_f64());
        self.reader.shared().set_lead(samples.0);
    }

    /// Whether it is over: what is buffered is all that comes.
    pub fn is_over(&self) -> bool {
        self.reader.shared().ended().is_some()
    }

    /// Times that it stood still and was taken back, since this was last asked.
    pub fn freezes(&self) -> Vec<Freeze> {
        self.reader.shared().take_freezes().into()
    }

    /// A handle to change it; clones are cheap and do not keep the voice alive.
    pub fn control(&self) -> VoiceControl {
        VoiceControl {
            id: self.id,
            shared: self.reader.shared().clone(),
            texts: self.texts.clone(),
            engine: self.engine.clone(),
        }
    }
}

/// Changes a running voice. Every method returns once the engine thread has made the change.
#[derive(Clone)]
pub struct VoiceControl {
    id: VoiceId,
    shared: Arc<Shared>,
    texts: Arc<VoiceTexts>,
    engine: Engine,
}

impl VoiceControl {
    /// Seconds of sound made per second while the voice wants sound; below 1 it will run dry. 0
    /// before it is known.
    pub fn realtime_factor(&self) -> f32 {
        f32::from_bits(self.shared.realtime.load(Ordering::Relaxed))
    }

    fn alive(&self) -> Result<(), EngineError> {
        match self.shared.ended() {
            Some(end) => Err(EngineError::Gone(end.to_string())),
            None => Ok(()),
        }
    }

    /// Changes prompts or sampling: what is not yet played is generated anew.
    ///
    /// # Errors
    /// [`EngineError::Invalid`], [`EngineError::Gone`], [`EngineError::DeviceLost`].
    pub async fn steer(&self, steer: Steer) -> Result<Ack, EngineError> {
        steer.validate()?;
        self.alive()?;
        if let Some(prompts) = &steer.prompts {
            self.texts.reader().prepare(texts_of(prompts)).await?;
        }
        self.engine.commands.ask(|reply| Command::Steer { voice: self.id, steer, reply }).await
    }

    /// Forgets what was played: the music starts anew from the prompts.
    ///
    /// # Errors
    /// [`EngineError::Gone`], [`EngineError::DeviceLost`].
    pub async fn reset(&self) -> Result<Ack, EngineError> {
        self.alive()?;
        self.engine.commands.ask(|reply| Command::Reset { voice: self.id, reply }).await
    }

    /// Goes on with another loaded model: from its codes when both share the codec, else from
    /// nothing.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::Invalid`] when the sample rates differ,
    /// [`EngineError::Gone`], [`EngineError::DeviceLost`].
    pub async fn set_model(&self, id: &ModelId) -> Result<Ack, EngineError> {
        self.alive()?;
        self.engine.shared.model(Some(id))?.texts.prepare(self.texts.needed()).await?;
        let model = id.clone();
        self.engine.commands.ask(|reply| Command::SetModel { voice: self.id, model, reply }).await
    }

    /// Stops generating and frees the voice's place in the batch; what is buffered can still be
    /// read.
    ///
    /// # Errors
    /// [`EngineError::Gone`].
    pub async fn pause(&self) -> Result<(), EngineError> {
        self.alive()?;
        self.engine.commands.ask(|reply| Command::Pause { voice: self.id, reply }).await
    }

    /// Goes on from the voice's codes.
    ///
    /// # Errors
    /// [`EngineError::Full`], [`EngineError::Gone`].
    pub async fn resume(&self) -> Result<(), EngineError> {
        self.alive()?;
        self.engine.commands.ask(|reply| Command::Resume { voice: self.id, reply }).await
    }

    /// Has the voice go on as soon as the machine has room for it, behind those that wait already.
    /// Voices that ask without waiting do not come before it.
    ///
    /// # Errors
    /// [`EngineError::Gone`].
    pub fn resume_when_free(&self) -> Result<InLine, EngineError> {
        self.alive()?;
        let ((reply, admitted), (sender, place)) = (oneshot::channel(), watch::channel(Place::default()));
        self.engine.commands.send(Command::ResumeWhenFree { voice: self.id, place: sender, reply })?;
        Ok(InLine::new(admitted, place))
    }
}

fn texts_of(prompts: &[WeightedPrompt]) -> impl Iterator<Item = String> + '_ {
    prompts.iter().map(|prompt| prompt.text.clone())
}
