//! What a producer has made. Every command answers once its effect is on disk, or leaves nothing
//! behind.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::given::Kept;
use super::render_params::random_seed;
use super::run::work;
use super::splice;
use super::{
    ClipId, ClipRecord, ClipRequest, Draft, GivenSound, Kind, Lane, Owner, Params, Render, SessionId, SessionRecord,
    Status, Studio, StudioError,
};
use crate::engine::{EngineError, Prefix};

/// Work was taken on.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The session that the result goes to.
    pub session: SessionId,
    /// What to watch, to fetch, to cancel.
    pub clip: ClipId,
}

/// A place in the queue, and a session's lane that nothing else may work in; given back unless the
/// work is on disk.
struct Reservation {
    studio: Arc<Studio>,
    place: (SessionId, Lane),
    owner: Owner,
    is_kept: bool,
}

impl Reservation {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut queue = self.studio.queue();
        queue.lanes.of_mut(self.place.1).came(&self.owner);
        if !self.is_kept {
            queue.busy.remove(&self.place);
            self.studio.room.notify_waiters();
        }
    }
}

/// What is to be made.
pub(super) enum Work {
    Piece(Params),
    Render(Render),
}

impl Studio {
    /// A new piece from text alone, in a session of its own.
    ///
    /// # Errors
    /// [`StudioError::Invalid`], [`StudioError::QueueFull`], [`StudioError::TooManyOfYours`],
    /// [`StudioError::Store`].
    pub async fn generate(self: &Arc<Self>, owner: Owner, request: ClipRequest) -> Result<Accepted, StudioError> {
        self.generate_in(None, owner, request).await
    }

    /// As [`Studio::generate`], in a session that exists if one is named.
    ///
    /// # Errors
    /// As [`Studio::generate`], and [`StudioError::NoSession`], [`StudioError::Busy`].
    pub async fn generate_in(
        self: &Arc<Self>,
        session: Option<SessionId>,
        owner: Owner,
        request: ClipRequest,
    ) -> Result<Accepted, StudioError> {
        let wait = request.wait;
        let mut params = request.resolve(None);
        // There is no prompt; its default must not refuse a short piece.
        params.prompt_seconds = params.prompt_seconds.min((params.seconds - 1.0).max(0.5));
        let session = match session {
            Some(id) => self.store.session(&id).await?,
            None => SessionRecord::new(SessionId::random(), "generate", params.clone()),
        };
        self.begin(owner, Kind::Generate, session, Work::Piece(params), (None, wait)).await
    }

    /// A new piece that goes on from the first seconds of `audio`, in a new session, under an id
    /// that the caller has made if it must know it before.
    ///
    /// # Errors
    /// As [`Studio::generate`], and [`StudioError::Audio`].
    pub async fn bang(
        self: &Arc<Self>,
        owner: Owner,
        session: Option<SessionId>,
        request: ClipRequest,
        audio: Bytes,
    ) -> Result<Accepted, StudioError> {
        let wait = request.wait;
        let params = request.resolve(None);
        params.validate()?;
        let audio = self.read(audio).await?;
        let session = SessionRecord::new(session.unwrap_or_else(SessionId::random), "bang", params.clone());
        self.begin(owner, Kind::Bang, session, Work::Piece(params), (Some(audio), wait)).await
    }

    /// As [`Studio::bang`], in a session that remembers where its sound came from.
    ///
    /// # Errors
    /// As [`Studio::bang`].
    pub async fn bang_of(
        self: &Arc<Self>,
        owner: Owner,
        session: SessionId,
        origin: &str,
        request: ClipRequest,
        audio: GivenSound,
    ) -> Result<Accepted, StudioError> {
        let wait = request.wait;
        let params = request.resolve(None);
        let audio = self.read(audio).await?;
        let session = SessionRecord::new(session, origin, params.clone());
        self.begin(owner, Kind::Bang, session, Work::Piece(params), (Some(audio), wait)).await
    }

    /// The session's sound, or `audio` in its place, with a piece at its end. Without a session
    /// there is a new one; an unknown one is made if there is `audio`.
    ///
    /// # Errors
    /// As [`Studio::bang`], and [`StudioError::NoSession`], [`StudioError::NoAudio`],
    /// [`StudioError::Busy`].
    pub async fn extend(
        self: &Arc<Self>,
        owner: Owner,
        session: Option<SessionId>,
        request: ClipRequest,
        audio: Option<Bytes>,
    ) -> Result<Accepted, StudioError> {
        let known = match &session {
            Some(id) => self.known(id).await?,
            None => None,
        };
        let record = match (known, session, &audio) {
            (Some(record), ..) => record,
            (None, None, None) => {
                return Err(StudioError::Invalid("No session ID provided and no audio data to create session".into()));
            }
            (None, Some(id), None) => return Err(StudioError::NoSession(id.to_string())),
            (None, id, Some(_)) => {
                SessionRecord::new(id.unwrap_or_else(SessionId::random), "continue", Params::default())
            }
        };
        let wait = request.wait;
        let params = resolved(request, &record)?;
        params.validate()?;
        if audio.is_none() && record.current.is_none() {
            return Err(StudioError::NoAudio);
        }
        let audio = self.read_any(audio).await?;
        self.begin(owner, Kind::Continue, record, Work::Piece(params), (audio, wait)).await
    }

    /// The last continue, retry or transform of a session once more, from the same sound.
    ///
    /// # Errors
    /// [`StudioError::NoInput`] when there was none, and as [`Studio::extend`].
    pub async fn retry(
        self: &Arc<Self>,
        owner: Owner,
        session: &SessionId,
        request: ClipRequest,
    ) -> Result<Accepted, StudioError> {
        let record = self.store.session(session).await?;
        let wait = request.wait;
        let params = resolved(request, &record)?;
        params.validate()?;
        self.is_free(session, Lane::Pieces)?;
        if record.input.is_none() {
            return Err(StudioError::NoInput);
        }
        self.begin(owner, Kind::Retry, record, Work::Piece(params), (None, wait)).await
    }

    pub(super) async fn begin(
        self: &Arc<Self>,
        owner: Owner,
        kind: Kind,
        session: SessionRecord,
        mut work: Work,
        (audio, wait): (Option<GivenSound>, Duration),
    ) -> Result<Accepted, StudioError> {
        if let Work::Piece(params) = &mut work {
            params.validate()?;
            if let Some(name) = params.model_name() {
                let known = self.permit(&owner, &name)?;
                // Clients are told the name that they sent, unless it is only another spelling.
                if known != name {
                    params.model = known;
                }
            }
            // Drawn here, so that a clip that is made again after a restart is the same.
            params.seed = params.seed.or_else(|| Some(random_seed()));
        }
        let reservation = self.reserve(&session.id, kind.lane(), &owner, wait).await?;
        let given = match audio.map(GivenSound::into_parts) {
            Some((file, sound)) => Some((self.store.keep(file, &session.id).await?, self.to_be_kept(sound).await)),
            None => None,
        };
        let studio = Arc::clone(self);
        // What is written is put into the queue, also when whoever asked for it leaves in between.
        self.apart(async move { studio.take_on(reservation, owner, kind, session, work, given).await }).await
    }

    async fn take_on(
        &self,
        reservation: Reservation,
        owner: Owner,
        kind: Kind,
        session: SessionRecord,
        work: Work,
        given: Option<(Draft, Option<Kept>)>,
    ) -> Result<Accepted, StudioError> {
        let (id, (given, kept)) = (session.id.clone(), given.unzip());
        let alone = self.edits.lock().await;
        // Between the first look and now it may have been cropped, undone or removed.
        let mut session = self.present(session).await?;
        let (params, render) = match work {
            Work::Piece(params) => {
                (session.params, session.unreadable) = (params.clone(), None);
                (params, None)
            }
            // A session's parameters are those of its pieces.
            Work::Render(render) => (session.params.clone(), Some(render)),
        };
        let sound = given.as_ref().map(Draft::id);
        let input = match kind {
            Kind::Generate => None,
            Kind::Loop => sound,
            Kind::Transform => {
                session.transform_input = sound.or(session.current);
                session.transform_input
            }
            Kind::Bang => {
                session.initial = sound;
                session.initial
            }
            Kind::Continue => {
                session.current = sound.or(session.current);
                session.current
            }
            Kind::Retry => session.input,
            // These are never made.
            Kind::Upload | Kind::Crop => session.current,
        };
        if kind == Kind::Transform && input.is_none() {
            return Err(StudioError::NoAudio);
        }
        let mut clip = ClipRecord {
            params,
            render,
            parent: self.maker(&id, input).await?,
            input,
            ..ClipRecord::new(id.clone(), owner, kind)
        };
        clip.created = self.store.accept(session, given, Some(clip.clone())).await?;
        drop(alone);
        self.copied(&id).await?;
        if let Some(file) = sound {
            self.given.keep(file, kept.flatten());
        }
        let accepted = Accepted { session: id, clip: clip.id };
        self.touch(&accepted.session);
        self.enqueue(clip);
        reservation.keep();
        Ok(accepted)
    }

    /// A session as it is now. One that was not kept before is as it is given; one that was and is
    /// gone is not made again from what is remembered of it.
    async fn present(&self, session: SessionRecord) -> Result<SessionRecord, StudioError> {
        let is_new = session.updated == 0;
        match self.known(&session.id).await? {
            Some(known) => Ok(known),
            None if is_new => Ok(session),
            None => Err(StudioError::NoSession(session.id.to_string())),
        }
    }

    /// A place in the queue, if there is one within `wait`. A session's lane is free at once or
    /// not.
    async fn reserve(
        self: &Arc<Self>,
        session: &SessionId,
        lane: Lane,
        owner: &Owner,
        wait: Duration,
    ) -> Result<Reservation, StudioError> {
        let mut late = pin!(tokio::time::sleep(wait));
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            match self.reserve_now((session.clone(), lane), owner) {
                Err(full @ (StudioError::QueueFull { .. } | StudioError::TooManyOfYours { .. })) if !wait.is_zero() => {
                    tokio::select! {
                        () = room => {}
                        () = &mut late => return Err(full),
                        () = self.stopping.cancelled() => return Err(full),
                    }
                }
                reserved => return reserved,
            }
        }
    }

    fn reserve_now(self: &Arc<Self>, place: (SessionId, Lane), owner: &Owner) -> Result<Reservation, StudioError> {
        let mut queue = self.queue();
        if queue.busy.contains(&place) {
            return Err(busy(place.1));
        }
        queue.lanes.of_mut(place.1).admit(owner, self.config.places(place.1))?;
        queue.busy.insert(place.clone());
        Ok(Reservation { studio: Arc::clone(self), place, owner: owner.clone(), is_kept: false })
    }

    /// Whether nothing waits or runs in a session's lane.
    ///
    /// # Errors
    /// [`StudioError::Busy`], [`StudioError::TransformBusy`].
    pub(super) fn is_free(&self, session: &SessionId, lane: Lane) -> Result<(), StudioError> {
        if self.queue().busy.contains(&(session.clone(), lane)) { Err(busy(lane)) } else { Ok(()) }
    }

    /// The end of a clip, as codes for a stream to go on from on a loaded `model` (`None`: the
    /// default).
    ///
    /// # Errors
    /// [`StudioError::NotReady`], [`StudioError::NoClip`], [`StudioError::Engine`].
    pub async fn prefix(&self, owner: &Owner, clip: ClipId, model: Option<&str>) -> Result<Prefix, StudioError> {
        let model = model.map(|name| self.permit(owner, name)).transpose()?;
        let sound = self.decode(self.sound_of_clip(clip).await?).await?;
        let lease = self.models.lease_voices(model.as_deref()).await?;
        let info = self.engine.models().into_iter().find(|info| info.id == lease.id);
        let info = info.ok_or_else(|| EngineError::UnknownModel(lease.id.clone()))?;
        let prompt = work(move || {
            let seconds = info.keep as f64 / info.frame_rate();
            let params = Params { prompt_seconds: seconds, ..Params::default() };
            splice::prompt(Kind::Continue, &*sound.try_map(splice::usable)?, &params, &info)
        });
        Ok(self.engine.encode(Some(&lease.id), prompt.await?.planes).await?)
    }

    /// The spelling that a model's name is known under, if `owner` may name it.
    ///
    /// # Errors
    /// [`StudioError::NotYours`].
    pub fn permit(&self, owner: &Owner, name: &str) -> Result<String, StudioError> {
        self.config.naming.permit(&self.engine, owner, name)
    }

    /// Loads a model, or does nothing if it is there.
    ///
    /// # Errors
    /// [`StudioError::Model`] when it cannot be loaded.
    pub async fn warm_up(&self, model: &str) -> Result<(), StudioError> {
        self.models.lease_voices(Some(model)).await?;
        Ok(())
    }

    /// Gives a clip up: at once if it waits, within a step if it is being made. One that has ended
    /// stays as it is.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::Store`].
    pub async fn cancel(self: &Arc<Self>, clip: ClipId) -> Result<Status, StudioError> {
        let (task, running) = {
            let mut queue = self.queue();
            let task = queue.tasks.get(&clip).cloned();
            let line = task.as_ref().map(|task| queue.lanes.of_mut(task.record.kind.lane()));
            let waiting = line.filter(|line| line.order().contains(&clip));
            let running = waiting.is_none();
            if let Some(line) = waiting {
                line.remove(clip, None);
                self.room.notify_waiters();
            }
            (task, running)
        };
        let Some(task) = task else { return Ok(self.clip(clip).await?.status) };
        let mut status = task.status();
        if running {
            task.cancel.cancel();
            // The run answers; if it has just ended otherwise, so be it.
            let ended = status.wait_for(Status::is_final).await;
            return Ok(ended.map_or(Status::Cancelled, |status| status.clone()));
        }
        let studio = Arc::clone(self);
        self.apart(async move {
            studio.finish(&task, Status::Cancelled, None).await;
            Ok(Status::Cancelled)
        })
        .await
    }
}

fn busy(lane: Lane) -> StudioError {
    match lane {
        Lane::Pieces | Lane::Loops => StudioError::Busy,
        Lane::Transforms => StudioError::TransformBusy,
    }
}

/// Decides what a request leaves out by the session's last parameters.
///
/// # Errors
/// [`StudioError::Invalid`] when they are needed and cannot be read.
fn resolved(request: ClipRequest, session: &SessionRecord) -> Result<Params, StudioError> {
    if session.unreadable.is_some() && (request.model.is_none() || request.prompt_seconds.is_none()) {
        return Err(StudioError::Invalid(
            "Another version kept what this session was made with in a shape that is not known here; name the model and \
             the prompt's seconds."
                .into(),
        ));
    }
    Ok(request.resolve(Some(&session.params)))
}
