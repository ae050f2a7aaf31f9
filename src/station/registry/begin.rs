//! How streams begin: admission, names, a voice, a journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand_chacha::rand_core::{OsRng, TryRngCore};
use tokio::time::Instant;
use tracing::Instrument;

use super::super::journal::{Journal, Origin};
use super::super::source::Source;
use super::super::stream::{Begin, Stream};
use super::super::task::{Joins, Plan, Task};
use super::super::{Idle, StationError, StreamSpec, StreamState};
use super::Station;
use crate::audio::OPUS_RATE;
use crate::engine::{EngineError, Prefix, Priority, VoiceSpec};
use crate::units::{Frames, ModelId, SampleRate};

/// What a stream begins in that was made before.
pub(in crate::station) struct Left {
    pub(in crate::station) journal: Arc<Journal>,
    /// It is heard, and goes on as if it were the same.
    pub(in crate::station) joins: Option<Joins>,
}

impl Left {
    /// Nobody hears it.
    pub(in crate::station) fn of(journal: &Arc<Journal>) -> Self {
        Self { journal: Arc::clone(journal), joins: None }
    }
}

impl Station {
    /// Starts a stream.
    ///
    /// # Errors
    /// [`StationError::NameTaken`], [`StationError::Limit`], [`StationError::Engine`].
    pub async fn create(&self, spec: StreamSpec) -> Result<Arc<Stream>, StationError> {
        self.create_from(spec, None).await
    }

    /// Starts a stream that goes on from a sound.
    ///
    /// # Errors
    /// [`StationError::NameTaken`], [`StationError::Limit`], [`StationError::Engine`].
    pub async fn create_from(&self, spec: StreamSpec, prefix: Option<Prefix>) -> Result<Arc<Stream>, StationError> {
        let left = spec.name.as_deref().filter(|_| prefix.is_none()).and_then(|name| self.config.journals.named(name));
        match left {
            Some(journal) => self.take_up(journal, spec).await,
            None => self.begin(spec, prefix, None).await,
        }
    }

    /// Starts a stream, from a sound or in a journal if there is one.
    pub(in crate::station) async fn begin(
        &self,
        spec: StreamSpec,
        prefix: Option<Prefix>,
        left: Option<Left>,
    ) -> Result<Arc<Stream>, StationError> {
        let asked = Instant::now();
        // Held until the stream is in the list: of two that come together one is refused before it
        // costs a voice.
        let _name = match &spec.name {
            Some(name) => Some(self.names.claim(name).ok_or_else(|| StationError::NameTaken(name.clone()))?),
            None => None,
        };
        self.admit(&self.streams(), spec.name.as_deref(), spec.waits())?;
        let id = match &left {
            Some(left) => left.journal.stream().to_owned(),
            None => draw_id()?,
        };
        let Some(directory) = self.directory.get() else {
            return self.begin_as(id, spec, prefix, left, asked).await;
        };
        if let Some(left) = &left
            && directory.is_elsewhere(&id)
        {
            left.journal.leave();
            return Err(StationError::Ended("another node plays it".into()));
        }
        let name = spec.name.clone();
        if let Some(name) = &name {
            directory.claim(name, &id).await?;
        }
        let begun = self.begin_as(id.clone(), spec, prefix, left, asked).await;
        match (&begun, &name) {
            (Ok(stream), _) => directory.begun(stream).await,
            (Err(_), Some(name)) => directory.release(name, &id).await,
            (Err(_), None) => {}
        }
        begun
    }

    async fn begin_as(
        &self,
        id: String,
        mut spec: StreamSpec,
        prefix: Option<Prefix>,
        left: Option<Left>,
        asked: Instant,
    ) -> Result<Arc<Stream>, StationError> {
        if spec.sampling.seed.is_none() {
            // Drawn here, so that the stream's state names the seed that would repeat it.
            spec.sampling.seed = Some(random_u64()? >> 11);
        }
        let (rate, books) = self.model_rate(&spec)?;
        let given = prefix.as_ref().map_or(0, |prefix| (prefix.codes.len() / books) as u64);
        let joins = left.as_ref().and_then(|left| left.joins.as_ref());
        // Of a stream with an end that another node has made until now.
        let before = joins.map_or(0.0, |joins| joins.seam.given);
        let sleeps = spec.idle == Idle::Wait || left.is_some();
        let voice = VoiceSpec {
            model: spec.model.clone(),
            prompts: spec.prompts.clone(),
            sampling: spec.sampling,
            length: spec.seconds.map(|seconds| Frames(given + ((seconds - before) * rate).ceil().max(1.0) as u64)),
            prefix,
            priority: Priority::Live,
            lead: Duration::from_secs_f64(self.config.lead),
            paused: sleeps && joins.is_none(),
            max_still: spec.max_still,
        };
        let patience = spec.wait.filter(|_| !voice.paused);
        // Streams that were heard already go on first.
        let behind = patience.is_some() && self.overload.queue(asked).is_some();
        let joined = self.engine.join(VoiceSpec { paused: voice.paused || behind, ..voice.clone() }).await;
        match joined {
            Ok(voice) => {
                let wait = patience.filter(|_| behind);
                self.start_in(id, voice, StreamSpec { wait, ..spec }, asked, left)
            }
            Err(EngineError::Full { .. } | EngineError::TooMany { .. }) if patience.is_some() => {
                let voice = self.engine.join(VoiceSpec { paused: true, ..voice }).await?;
                self.start_in(id, voice, spec, asked, left)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Frames per second and codebooks of the model that is asked for.
    fn model_rate(&self, spec: &StreamSpec) -> Result<(f64, usize), StationError> {
        let models = self.engine.models();
        let model = match &spec.model {
            Some(id) => models.iter().find(|model| model.id == *id),
            None => models.first(),
        };
        let wanted = || spec.model.clone().unwrap_or_else(|| ModelId("default".into()));
        let model = model.ok_or_else(|| EngineError::UnknownModel(wanted()))?;
        Ok((model.frame_rate(), model.codebooks))
    }

    /// Makes a stream of any source of PCM.
    #[cfg(test)]
    pub(in crate::station) fn start(
        &self,
        source: impl Source,
        spec: StreamSpec,
        asked: Instant,
    ) -> Result<Arc<Stream>, StationError> {
        self.start_in(draw_id()?, source, spec, asked, None)
    }

    /// The same in a journal that an earlier process has left, if there is one.
    fn start_in(
        &self,
        id: String,
        source: impl Source,
        spec: StreamSpec,
        asked: Instant,
        left: Option<Left>,
    ) -> Result<Arc<Stream>, StationError> {
        let (model, rate) = (source.model(), SampleRate(OPUS_RATE));
        let burst = self.burst();
        let length = spec.seconds.map(|seconds| rate.samples(seconds).0);
        let waits = spec.waits();
        let resumed = left.is_some();
        let (journal, joins) = match left {
            Some(Left { journal, joins }) => (journal, joins),
            None => {
                let channels = self.config.channels(model.channels);
                (self.config.journals.begin(&id, origin(&spec, self.config.room), channels), None)
            }
        };
        let asleep = (spec.idle == Idle::Wait || resumed) && joins.is_none();
        let begins = joins.as_ref().map(|joins| joins.seam.begins);
        let (stream, commands) = Stream::new(Begin {
            id: journal.stream().to_owned(),
            name: spec.name,
            model: model.id.clone(),
            channels: journal.channels(),
            rate: model.sample_rate,
            prompts: spec.prompts,
            sampling: model.sampling.patched(spec.sampling),
            burst,
            length,
            remote: source.remote(),
            engine: self.engine.clone(),
            journal,
            joins: begins,
            places: self.places(),
            kept: spec.idle == Idle::Wait || spec.keep,
            asked,
            shared: self.directory.get().is_some(),
            relayed: false,
        });
        let plan = Plan {
            idle: spec.idle,
            asleep,
            keep: spec.keep,
            grace: Duration::from_secs_f64(self.config.grace.max(0.0)),
            length: length.map(|length| length.saturating_sub(begins.unwrap_or(0))),
            burst,
            lead: self.config.lead,
            place: self.overload.join(&stream),
            patience: spec.wait,
            upkeep: self.upkeep.clone(),
            joins,
        };
        let voice = source.voice().map(tracing::field::display);
        let log = tracing::info_span!("stream", id = stream.id(), name = stream.name(), voice);
        if spec.wait.is_some() {
            stream.state().info.state = StreamState::Queued;
        }
        let task = Task::new(stream.clone(), source, commands, plan)
            .map_err(|error| EngineError::Failed(error.to_string().trim_end_matches('.').to_owned()))?;
        {
            // Asked again: others may have come while the engine admitted the voice.
            let mut streams = self.streams();
            let admitted = self.admit(&streams, stream.name(), waits);
            if admitted.is_err() && !resumed {
                stream.journal().discard();
            }
            if let Some(other) = admitted? {
                tracing::info!(stream = other.id(), name = other.name(), "an idle stream gives its place up");
                other.give_way();
            }
            streams.push(stream.clone());
        }
        let (directory, ended) = (self.directory.get().cloned(), Arc::clone(&stream));
        let run = async move {
            task.run().await;
            if let Some(directory) = directory {
                directory.ended(&ended).await;
            }
        };
        tokio::spawn(run.instrument(log));
        Ok(stream)
    }

    /// Whether one more stream may be made, and which one has to give its place up for it. A name
    /// is no reason to hold a place for ever: the stream that was idle for longest goes. One that
    /// `waits` need not begin at once.
    fn admit(
        &self,
        streams: &[Arc<Stream>],
        name: Option<&str>,
        waits: bool,
    ) -> Result<Option<Arc<Stream>>, StationError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(StationError::Ended("the server is stopping".into()));
        }
        let live = || streams.iter().filter(|stream| !stream.has_ended() && !stream.gives_way());
        if let Some(name) = name
            && live().any(|stream| stream.name() == Some(name))
        {
            return Err(StationError::NameTaken(name.to_owned()));
        }
        if !waits && let Some(retry_after) = self.overload.queue(Instant::now()) {
            return Err(StationError::Waiting { retry_after });
        }
        let limit = self.config.max_streams;
        if live().count() < limit {
            return Ok(None);
        }
        let idle = live().filter_map(|stream| Some((stream.spare_since()?, stream)));
        match idle.min_by_key(|(since, _)| *since) {
            Some((_, stream)) => Ok(Some(stream.clone())),
            None => Err(StationError::Limit { what: "streams", limit, retry_after: 30, option: "--max-streams" }),
        }
    }
}

/// How a stream came to be, for its journal.
fn origin(spec: &StreamSpec, room: bool) -> Origin {
    Origin {
        name: spec.name.clone(),
        keep: spec.keep,
        // Stations of a prompt set are made again by it.
        returns: spec.idle == Idle::Pause && spec.seconds.is_none() && (spec.keep || spec.name.is_some()),
        prompts: spec.prompts.clone(),
        max_still: spec.max_still,
        room,
        idle: Some(spec.idle),
        seconds: spec.seconds,
    }
}

/// An identity that nobody can guess.
fn draw_id() -> Result<String, StationError> {
    Ok(format!("{:016x}{:016x}", random_u64()?, random_u64()?))
}

fn random_u64() -> Result<u64, StationError> {
    let failed = |error| EngineError::Failed(format!("The system gives no random numbers: {error}"));
    Ok(OsRng.try_next_u64().map_err(failed)?)
}
