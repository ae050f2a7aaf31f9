//! Making clips: who is next, and from a stored sound to a stored result.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use metrics::counter;
use tracing::Instrument;

use super::queue::Place;
use super::{
    ClipId, ClipRecord, ClipState, ClipTask, Decoded, Draft, Event, Lane, Status, Studio, StudioError, splice,
};
use crate::engine::{EngineError, Prefix, Priority, Read, Voice, VoiceEnd, VoiceSpec, WeightedPrompt};
use crate::telemetry::CLIPS;
use crate::units::{Frames, Samples};

/// Steps between two reports, as the original counts them.
const REPORT: u64 = 50;
/// How often old sessions are looked for.
const TIDY: Duration = Duration::from_secs(600);

impl Studio {
    /// Puts an accepted clip into the queue.
    pub(super) fn enqueue(&self, record: ClipRecord) -> Arc<ClipTask> {
        let task = ClipTask::new(record);
        let mut queue = self.queue();
        queue.tasks.insert(task.record.id, Arc::clone(&task));
        let (line, owner) = (queue.lanes.of_mut(task.record.kind.lane()), super::Owner(task.record.owner.clone()));
        if task.record.attempts == 0 {
            line.push(task.record.id, owner);
        } else {
            line.push_suspect(task.record.id, owner);
        }
        drop(queue);
        self.tell_places();
        self.wake.notify_one();
        task
    }

    /// Starts clips while there is room, until the studio stops; suspects only from the moment
    /// `trusted` on.
    pub(super) async fn dispatch(self: Arc<Self>, trusted: tokio::time::Instant) {
        loop {
            let may = trusted <= tokio::time::Instant::now();
            let next = self.queue().next(&self.config, may);
            if let Some(task) = next {
                self.room.notify_waiters();
                self.tell(&task, Status::Starting);
                self.tell_places();
                let record = task.record();
                let (verb, session) = (record.kind.name(), record.session.as_str());
                let log = tracing::info_span!("clip", id = %record.id, verb, session, voice = tracing::field::Empty);
                self.tasks.spawn(Arc::clone(&self).run(task).instrument(log));
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(trusted), if !may => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    async fn run(self: Arc<Self>, task: Arc<ClipTask>) {
        let (began, clip) = (Instant::now(), task.record.id);
        let draft = match self.begun(&task.record).await {
            Ok(()) => {
                // A panic in it is this clip's failure alone.
                let made = AssertUnwindSafe(self.make(&task)).catch_unwind();
                let stumbled = |_| Err(StudioError::Broken("the server stumbled over it; its log says more".into()));
                tokio::select! {
                    draft = made => draft.unwrap_or_else(stumbled),
                    () = task.cancel.cancelled() => Err(StudioError::Cancelled),
                    // The store still says "accepted": it is made after the next start.
                    () = self.stopping.cancelled() => {
                        if let Err(error) = self.store.pause(clip).await {
                            tracing::warn!(%error, "the clip will be made last after the next start");
                        }
                        // Whoever goes on with it need not hold it back.
                        let _ = self.copied(&task.record.session).await;
                        return;
                    }
                }
            }
            Err(error) => Err(error),
        };
        // What is made is not given up half way.
        let outcome = match draft {
            Ok(draft) => match self.complete(&task.record, draft).await {
                Ok(()) => self.copied(&task.record.session).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let seconds = outcome.is_ok().then(|| began.elapsed().as_secs_f64());
        let status = match outcome {
            Ok(()) => Status::Completed,
            Err(StudioError::Cancelled | StudioError::Elsewhere) => Status::Cancelled,
            Err(error) => Status::Failed(error.to_string()),
        };
        self.finish(&task, status, seconds).await;
    }

    /// Writes that a clip begins, unless another process has gone on with it.
    async fn begun(&self, record: &ClipRecord) -> Result<(), StudioError> {
        self.store.begin(record.id).await?;
        self.copied(&record.session).await
    }

    /// Writes how a clip ended, frees its place, then tells: whoever hears of it may go on at once.
    pub(super) async fn finish(&self, task: &ClipTask, status: Status, seconds: Option<f64>) {
        counter!(CLIPS, "verb" => task.record.kind.name(), "status" => status.name()).increment(1);
        if let Status::Failed(reason) = &status {
            tracing::warn!(clip = %task.record.id, reason, "a clip failed");
        }
        let written = self.write_end(task.record.id, &status).await;
        if written.is_ok() && status != Status::Completed {
            // Whoever has gone on with it ends it in his own way.
            let _ = self.copied(&task.record.session).await;
        }
        let mut queue = self.queue();
        if let Err(error) = written {
            tracing::error!(%error, clip = %task.record.id, "how a clip ended could not be written yet");
            queue.unwritten.insert(task.record.id, status.clone());
        }
        queue.alone.take_if(|alone| *alone == task.record.id);
        let lane = task.record.kind.lane();
        queue.lanes.of_mut(lane).remove(task.record.id, seconds);
        queue.tasks.remove(&task.record.id);
        task.record.input.and_then(|id| self.given.take(id));
        queue.busy.remove(&(task.record.session.clone(), lane));
        drop(queue);
        self.tell(task, status);
        self.touch(&task.record.session);
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
    async fn make(&self, task: &ClipTask) -> Result<Draft, StudioError> {
        let record = &*task.record;
        let broken = || StudioError::Broken("another version kept it in a shape that is not known here".into());
        if record.unreadable {
            return Err(broken());
        }
        let file = match (record.kind.lane(), &record.render) {
            (Lane::Pieces, _) => self.compose(task).await?,
            (_, Some(render)) => self.render(task, render).await?,
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
        Ok(Some(work(move || sound.try_map(splice::usable)).await?))
    }

    /// Makes a piece; gives its file.
    async fn compose(&self, task: &ClipTask) -> Result<Vec<u8>, StudioError> {
        let record = &*task.record;
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
                let prompt = work(move || splice::prompt(kind, &sound, &params, &model)).await?;
                Some(Prefix { heard: true, ..self.engine.encode(Some(&lease.id), prompt.planes).await? })
            }
            None => None,
        };
        let frames = splice::piece_frames(&params, &model);
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
        self.play(task, voice, frames - given + model.max_delay() as u64).await?;
        let piece = task.copy();
        let kind = record.kind;
        work(move || Ok(splice::result(kind, sound.as_ref().map(|sound| &***sound), piece, &params)?.wav())).await
    }

    async fn play(&self, task: &ClipTask, mut voice: Voice, total: u64) -> Result<(), StudioError> {
        let mut told = 0;
        self.tell(task, Status::Running { steps: 0, total });
        loop {
            let read = voice.read(Samples(u64::MAX));
            while told + REPORT <= voice.steps().min(total) {
                told += REPORT;
                self.tell(task, Status::Running { steps: told, total });
            }
            match read {
                Read::Chunk(chunk) => task.grow(&chunk.pcm, chunk.channels, chunk.sample_rate),
                Read::Pending => voice.ready().await,
                Read::End(VoiceEnd::Finished) => return Ok(()),
                Read::End(end) => return Err(StudioError::Broken(end.to_string())),
            }
        }
    }

    pub(super) fn tell(&self, task: &ClipTask, status: Status) {
        task.status.send_replace(status.clone());
        // Nobody may be subscribed.
        let _ = self.events.send(Event { clip: Arc::clone(&task.record), status });
    }

    /// Tells everything that waits where it stands, if that has changed.
    pub(super) fn tell_places(&self) {
        let places: Vec<(Arc<ClipTask>, Status)> = {
            let queue = self.queue();
            let of_lane = |lane| {
                let line = queue.lanes.of(lane);
                let (total, queue) = (line.waiting() + line.running(), &queue);
                line.places(self.config.places(lane)).into_iter().filter_map(move |(clip, place): (ClipId, Place)| {
                    let Place { position, seconds } = place;
                    Some((queue.tasks.get(&clip)?.clone(), Status::Queued { position, total, seconds }))
                })
            };
            Lane::ALL.into_iter().flat_map(of_lane).collect()
        };
        for (task, status) in places {
            if *task.status.borrow() != status {
                self.tell(&task, status);
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
        let unwritten: Vec<(ClipId, Status)> = self.queue().unwritten.clone().into_iter().collect();
        for (clip, status) in unwritten {
            if self.write_end(clip, &status).await.is_err() {
                return;
            }
            self.queue().unwritten.remove(&clip);
            let _ = self.copied_of(clip).await;
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
