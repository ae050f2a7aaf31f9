//! Transforms and loops as clips: taken on, made by the engine's solvers, told about step by step.

use std::sync::Arc;

use bytes::Bytes;

use super::flows::{Shared, Shelf};
use super::run::work;
use super::verbs::Work;
use super::{
    Accepted, Decoded, FineTune, Flow, Job, Kind, Lane, LoopParams, Owner, Params, SessionId, SessionRecord, Status,
    Studio, StudioError, TransformWish,
};
use crate::engine::{LoopInfo, LoopModel, MakeLoop, Solving, Transform};
use crate::pcm::Pcm;
use crate::units::SampleRate;

impl Studio {
    /// The session's sound, or `audio`, turned into another. Without a session there is a new one; an unknown one is
    /// made if there is `audio`.
    ///
    /// # Errors
    /// [`StudioError::Absent`] without the model, [`StudioError::TransformBusy`], [`StudioError::NoSession`],
    /// [`StudioError::NoAudio`], and as [`Studio::generate`].
    pub async fn transform(
        self: &Arc<Self>,
        owner: Owner,
        session: Option<SessionId>,
        wish: TransformWish,
        audio: Option<Bytes>,
    ) -> Result<Accepted, StudioError> {
        let flows = self.flows();
        let params = wish.over(flows.variations())?;
        flows.transform.loader()?;
        if let Some(session) = &session {
            self.is_free(session, Lane::Transforms)?;
        }
        let known = match &session {
            Some(id) => self.known(id).await?,
            None => None,
        };
        let record = match (known, session, &audio) {
            (Some(record), _, Some(_)) => record,
            (Some(record), _, None) if record.current.is_some() => record,
            (_, None, None) | (Some(_), _, None) => return Err(StudioError::NoAudio),
            (None, Some(id), None) => return Err(StudioError::NoSession(id.to_string())),
            (None, id, Some(_)) => {
                SessionRecord::new(id.unwrap_or_else(SessionId::random), "transform", Params::default())
            }
        };
        if let Some(audio) = &audio {
            self.check(audio).await?;
        }
        self.begin(owner, Kind::Transform, record, Work::Flow(Flow::Transform(params)), audio).await
    }

    /// A loop, or another piece of the loop model's window, in a session of its own; `given` is the sound that the
    /// parameters speak of.
    ///
    /// # Errors
    /// [`StudioError::Absent`] without the model, [`StudioError::Invalid`] for what does not fit into its window, and
    /// as [`Studio::generate`].
    pub async fn make_loop(
        self: &Arc<Self>,
        owner: Owner,
        params: LoopParams,
        given: Option<Bytes>,
    ) -> Result<Accepted, StudioError> {
        if let Some(tune) = &params.model {
            self.permit_tune(&owner, tune)?;
        }
        let model = self.models.flow(&self.flows().loop_shelf(params.model.as_ref())?).await?;
        MakeLoop::check(&model, params.spec.shape).map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
        if let Some(given) = &given {
            self.check(given).await?;
        }
        let session = SessionRecord::new(SessionId::random(), "loop", Params::default());
        self.begin(owner, Kind::Loop, session, Work::Flow(Flow::Loop(params)), given).await
    }

    /// Whether `owner` may name a fine-tune: one that is loaded, or a repository as [`Studio::permit`] has it.
    ///
    /// # Errors
    /// [`StudioError::NotYours`].
    pub fn permit_tune(&self, owner: &Owner, tune: &FineTune) -> Result<(), StudioError> {
        let held = self.flows().held_loops().unwrap_or_default();
        if held.iter().any(|(which, _)| which.as_ref() == Some(tune)) {
            return Ok(());
        }
        self.permit(owner, &tune.repo).map(drop)
    }

    /// What a loop model is, loaded if need be.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Invalid`], [`StudioError::Model`].
    pub async fn loop_info(&self, which: Option<&FineTune>) -> Result<LoopInfo, StudioError> {
        Ok(LoopInfo::of(&self.models.flow(&self.flows().loop_shelf(which)?).await?))
    }

    /// Makes a transform or a loop; gives its file.
    pub(super) async fn solve(&self, job: &Job, flow: &Flow) -> Result<Vec<u8>, StudioError> {
        let (sound, _share) = self.input(&job.record).await?.map(Decoded::into_parts).unzip();
        match flow {
            Flow::Transform(params) => {
                let model = self.warm(job, &self.flows().transform).await?;
                let sound = sound.ok_or(StudioError::NoAudio)?;
                let (frames, kept) = (sound.frames(), if params.keeps_rate { Some(sound.rate) } else { None });
                let rate = SampleRate(model.config.codec.sample_rate);
                let sound = work(move || Ok(sound.stereo().at(rate)?)).await?;
                let made = Transform::new(&model, &sound.pcm, &params.prompt, params.settings(), params.seed);
                let made = made.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
                drop(sound);
                let made = self.follow(job, self.engine.solve(made)).await?;
                work(move || match kept {
                    // Two conversions may differ by a sample; the recording's length counts.
                    Some(rate) => Ok(made.at(rate)?.cut(0, frames).padded(frames).wav()),
                    None => Ok(made.wav()),
                })
                .await
            }
            Flow::Loop(params) => {
                let model = self.warm(job, &self.flows().loop_shelf(params.model.as_ref())?).await?;
                let given = match sound {
                    Some(sound) => {
                        let model = Arc::clone(&model);
                        Some(work(move || fitting(sound, &model)).await?)
                    }
                    None => None,
                };
                let made = MakeLoop::new(&model, params.spec.clone(), params.settings, given);
                let made = made.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
                let made = self.follow(job, self.engine.solve(made)).await?;
                work(move || Ok(made.wav())).await
            }
        }
    }

    /// A model; that it must be loaded first is told.
    async fn warm<T: Shared>(&self, job: &Job, shelf: &Arc<Shelf<T>>) -> Result<T, StudioError> {
        if !shelf.is_held() {
            self.tell(job, Status::Loading);
        }
        self.models.flow(shelf).await
    }

    /// Waits for a job, telling every step of its solver.
    async fn follow(&self, job: &Job, solving: Solving<Pcm>) -> Result<Pcm, StudioError> {
        let mut progress = solving.watch();
        let mut told = 0;
        let mut tell = |(done, of): (usize, usize)| {
            while told < done {
                told += 1;
                self.tell(job, Status::Running { steps: told as u64, total: of as u64 });
            }
        };
        let mut end = std::pin::pin!(solving.finish());
        let rendered = loop {
            tokio::select! {
                biased;
                changed = progress.changed() => {
                    let now = *progress.borrow_and_update();
                    tell(now);
                    if changed.is_err() {
                        break end.await?;
                    }
                }
                rendered = &mut end => break rendered?,
            }
        };
        let last = *progress.borrow_and_update();
        tell((last.1, last.1));
        job.grow(&rendered.pcm, rendered.channels, rendered.rate);
        Ok(rendered)
    }
}

/// A given sound as the loop model takes it: mixed, at its rate, on all of its channels.
fn fitting(sound: Pcm, model: &LoopModel) -> Result<Vec<f32>, StudioError> {
    let config = &model.config;
    Ok(sound.mono().at(SampleRate(config.sample_rate))?.spread(config.channels).pcm)
}
