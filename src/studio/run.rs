//! Making clips: who is next, and from a stored sound to a stored result.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use metrics::counter;
use tracing::Instrument;

use super::queue::Place;
use super::{ClipId, ClipRecord, ClipState, Decoded, Draft, Event, Job, Lane, Status, Studio, StudioError, shape};
use crate::engine::{EngineError, Prefix, Priority, Read, Voice, VoiceEnd, VoiceSpec, WeightedPrompt};
use crate::telemetry::CLIPS;
use crate::units::{Frames, Samples};

/// Steps between two reports, as the original counts them.
const REPORT: u64 = 50;
/// How often old sessions are looked for.
const TIDY: Duration = Duration::from_secs(600);

impl Studio {
    /// Puts an accepted clip into the queue.
    pub(super) fn enqueue(&self, record: ClipRecord) -> Arc<Job> {
        let job = Job::new(record);
        let mut desk = self.desk();
        desk.jobs.insert(job.record.id, Arc::clone(&job));
        let (queue, owner) = (desk.lanes.of_mut(job.record.kind.lane()), super::Owner(job.record.owner.clone()));
        if job.record.attempts == 0 {
            queue.push(job.record.id, owner);
        } else {
            queue.push_suspect(job.record.id, owner);
        }
        drop(desk);
        self.tell_places();
        self.wake.notify_one();
        job
    }

    /// Starts clips while there is room, until the studio stops; suspects only from the moment `trusted` on.
    pub(super) async fn dispatch(self: Arc<Self>, trusted: tokio::time::Instant) {
        loop {
            let may = trusted <= tokio::time::Instant::now();
            let next = self.desk().next(&self.config, may);
            if let Some(job) = next {
                self.tell(&job, Status::Starting);
                self.tell_places();
                let record = job.record();
                let (verb, session) = (record.kind.name(), record.session.as_str());
                let log = tracing::info_span!("clip", id = %record.id, verb, session, voice = tracing::field::Empty);
                self.tasks.spawn(Arc::clone(&self).run(job).instrument(log));
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(trusted), if !may => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    async fn run(self: Arc<Self>, job: Arc<Job>) {
        let (began, clip) = (Instant::now(), job.record.id);
        let draft = match self.store.begin(clip).await {
            Ok(()) => {
                // A panic in it is this clip's failure alone.
                let made = AssertUnwindSafe(self.make(&job)).catch_unwind();
                let stumbled = |_| Err(StudioError::Broken("the server stumbled over it; its log says more".into()));
                tokio::select! {
                    draft = made => draft.unwrap_or_else(stumbled),
                    () = job.cancel.cancelled() => Err(StudioError::Cancelled),
                    // The store still says "accepted": it is made after the next start.
                    () = self.stopping.cancelled() => {
                        if let Err(error) = self.store.pause(clip).await {
                            tracing::warn!(%error, "the clip will be made last after the next start");
                        }
                        return;
                    }
                }
            }
            Err(error) => Err(error),
        };
        // What is made is not given up half way.
        let outcome = match draft {
            Ok(draft) => self.complete(&job.record, draft).await,
            Err(error) => Err(error),
        };
        let seconds = outcome.is_ok().then(|| began.elapsed().as_secs_f64());
        let status = match outcome {
            Ok(()) => Status::Completed,
            Err(StudioError::Cancelled) => Status::Cancelled,
            Err(error) => Status::Failed(error.to_string()),
        };
        self.finish(&job, status, seconds).await;
    }

    /// Writes how a clip ended, frees its place, then tells: whoever hears of it may go on at once.
    pub(super) async fn finish(&self, job: &Job, status: Status, seconds: Option<f64>) {
        counter!(CLIPS, "verb" => job.record.kind.name(), "status" => status.name()).increment(1);
        if let Status::Failed(reason) = &status {
            tracing::warn!(clip = %job.record.id, reason, "a clip failed");
        }
        let written = self.write_end(job.record.id, &status).await;
        let mut desk = self.desk();
        if let Err(error) = written {
            tracing::error!(%error, clip = %job.record.id, "how a clip ended could not be written yet");
            desk.unwritten.insert(job.record.id, status.clone());
        }
        desk.alone.take_if(|alone| *alone == job.record.id);
        let lane = job.record.kind.lane();
        desk.lanes.of_mut(lane).remove(job.record.id, seconds);
        desk.jobs.remove(&job.record.id);
        job.record.input.and_then(|id| self.given.take(id));
        desk.busy.remove(&(job.record.session.clone(), lane));
        drop(desk);
        self.tell(job, status);
        self.touch(&job.record.session);
        self.tell_places();
        self.wake.notify_one();
    }

    async fn write_end(&self, clip: ClipId, status: &Status) -> Result<(), StudioError> {
        match status {
            Status::Failed(reason) => self.store.end(clip, ClipState::Failed, Some(reason.clone())).await,
            Status::Cancelled => self.store.end(clip, ClipState::Cancelled, None).await,
            _ => Ok(()),
        }
    }

    /// Makes a clip; gives its file.
    async fn make(&self, job: &Job) -> Result<Draft, StudioError> {
        let record = &*job.record;
        let broken = || StudioError::Broken("another version kept it in a shape that is not known here".into());
        if record.unreadable {
            return Err(broken());
        }
        let file = match (record.kind.lane(), &record.render) {
            (Lane::Pieces, _) => self.compose(job).await?,
            (_, Some(render)) => self.render(job, render).await?,
            (_, None) => return Err(broken()),
        };
        self.store.keep(file.into(), &record.session).await
    }

    async fn complete(&self, record: &ClipRecord, draft: Draft) -> Result<(), StudioError> {
        let _alone = self.edits.lock().await;
        self.store.complete(record, draft).await
    }

    /// The sound that a clip works on: as it was read when it came, or, after a restart, from disk.
    pub(super) async fn input(&self, record: &ClipRecord) -> Result<Option<Decoded>, StudioError> {
        let Some(id) = record.input else { return Ok(None) };
        if let Some(sound) = self.given.take(id) {
            return Ok(Some(sound));
        }
        let sound = self.decode_patiently(self.store.read(id).await?).await?;
        Ok(Some(work(move || sound.try_map(shape::usable)).await?))
    }

    /// Makes a piece; gives its file.
    async fn compose(&self, job: &Job) -> Result<Vec<u8>, StudioError> {
        let record = &*job.record;
        let params = record.params.clone();
        let lease = self.models.lease_voices(params.model_name().as_deref()).await?;
        let model = self.engine.models().into_iter().find(|model| model.id == lease.id);
        let model = model.ok_or_else(|| EngineError::UnknownModel(lease.id.clone()))?;
        let sound = match record.input.and_then(|id| self.given.get(id)) {
            // Previews hear it as well.
            Some(sound) => Some(sound),
            None => self.input(record).await?.map(Arc::new),
        };
        let prefix = match &sound {
            Some(sound) => {
                let (kind, sound, params, model) = (record.kind, Arc::clone(sound), params.clone(), Arc::clone(&model));
                let prompt = work(move || shape::prompt(kind, &sound, &params, &model)).await?;
                Some(Prefix { heard: true, ..self.engine.encode(Some(&lease.id), prompt.planes).await? })
            }
            None => None,
        };
        let frames = shape::piece_frames(&params, &model);
        let given = prefix.as_ref().map_or(0, |prefix| (prefix.codes.len() / model.codebooks) as u64);
        let spec = VoiceSpec {
            model: Some(lease.id.clone()),
            prompts: vec![WeightedPrompt::from(params.text())],
            sampling: params.sampling(),
            length: Some(Frames(frames)),
            prefix,
            priority: Priority::Spare,
            lead: Duration::from_secs_f64(params.seconds + 1.0),
            paused: true,
            max_still: None,
        };
        let voice = self.engine.join(spec).await?;
        tracing::Span::current().record("voice", tracing::field::display(voice.id()));
        // Live streams may hold all slots for a while.
        voice.control().resume_when_free()?.admitted().await?;
        self.play(job, voice, frames - given + model.max_delay() as u64).await?;
        let piece = job.copy();
        let kind = record.kind;
        work(move || Ok(shape::result(kind, sound.as_ref().map(|sound| &***sound), piece, &params)?.wav())).await
    }

    async fn play(&self, job: &Job, mut voice: Voice, total: u64) -> Result<(), StudioError> {
        let mut told = 0;
        self.tell(job, Status::Running { steps: 0, total });
        loop {
            let read = voice.read(Samples(u64::MAX));
            while told + REPORT <= voice.steps().min(total) {
                told += REPORT;
                self.tell(job, Status::Running { steps: told, total });
            }
            match read {
                Read::Chunk(chunk) => job.grow(&chunk.pcm, chunk.channels, chunk.sample_rate),
                Read::Pending => voice.ready().await,
                Read::End(VoiceEnd::Finished) => return Ok(()),
                Read::End(end) => return Err(StudioError::Broken(end.to_string())),
            }
        }
    }

    pub(super) fn tell(&self, job: &Job, status: Status) {
        job.status.send_replace(status.clone());
        // Nobody may be subscribed.
        let _ = self.events.send(Event { clip: Arc::clone(&job.record), status });
    }

    /// Tells everything that waits where it stands, if that has changed.
    pub(super) fn tell_places(&self) {
        let places: Vec<(Arc<Job>, Status)> = {
            let desk = self.desk();
            let of_lane = |lane| {
                let queue = desk.lanes.of(lane);
                let (total, desk) = (queue.waiting() + queue.running(), &desk);
                queue.places(self.config.places(lane)).into_iter().filter_map(move |(clip, place): (ClipId, Place)| {
                    let Place { position, seconds } = place;
                    Some((desk.jobs.get(&clip)?.clone(), Status::Queued { position, total, seconds }))
                })
            };
            Lane::ALL.into_iter().flat_map(of_lane).collect()
        };
        for (job, status) in places {
            if *job.status.borrow() != status {
                self.tell(&job, status);
            }
        }
    }

    /// Removes what is older or more than is kept; says how many sessions went.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn sweep(&self) -> Result<usize, StudioError> {
        self.store.sweep(self.config.retention).await
    }

    /// Writes what could not be written before, when the disk was full.
    async fn write_the_unwritten(&self) {
        let unwritten: Vec<(ClipId, Status)> = self.desk().unwritten.clone().into_iter().collect();
        for (clip, status) in unwritten {
            if self.write_end(clip, &status).await.is_err() {
                return;
            }
            self.desk().unwritten.remove(&clip);
        }
    }

    /// Removes old sessions now and then.
    pub(super) async fn tidy(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stopping.cancelled() => return,
            }
            self.write_the_unwritten().await;
            match self.sweep().await {
                Ok(0) => {}
                Ok(sessions) => tracing::info!(sessions, "old sessions were removed"),
                Err(error) => tracing::warn!(%error, "old sessions were not removed"),
            }
        }
    }
}

/// Work for the processor, off the runtime's threads. A panic in it is this clip's failure alone.
pub(super) async fn work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StudioError> + Send + 'static,
) -> Result<T, StudioError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StudioError::Broken(format!("the server stumbled over it ({error})")))?
}
