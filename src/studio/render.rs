//! Making transforms and loops: a model, a job of the engine, and what is told of its steps.

use std::sync::Arc;

use super::render_models::{Shared, Shelf};
use super::run::work;
use super::{Decoded, Job, Render, Status, Studio, StudioError};
use crate::engine::{JobHandle, LoopModel, MakeLoop, Transform};
use crate::pcm::Pcm;
use crate::units::SampleRate;

impl Studio {
    /// Makes a transform or a loop; gives its file.
    pub(super) async fn render(&self, job: &Job, render: &Render) -> Result<Vec<u8>, StudioError> {
        let (sound, _share) = self.input(&job.record).await?.map(Decoded::into_parts).unzip();
        match render {
            Render::Transform(params) => {
                let model = self.warm(job, &self.renders().transform).await?;
                let sound = sound.ok_or(StudioError::NoAudio)?;
                let (frames, kept) = (sound.frames(), if params.keeps_rate { Some(sound.rate) } else { None });
                let rate = SampleRate(model.config.codec.sample_rate);
                let sound = work(move || Ok(sound.stereo().at(rate)?)).await?;
                let made = Transform::new(&model, &sound.pcm, &params.prompt, params.settings(), params.seed);
                let made = made.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
                drop(sound);
                let made = self.follow(job, self.engine.submit(made)).await?;
                work(move || match kept {
                    // Two conversions may differ by a sample; the recording's length counts.
                    Some(rate) => Ok(made.at(rate)?.cut(0, frames).padded(frames).wav()),
                    None => Ok(made.wav()),
                })
                .await
            }
            Render::Loop(params) => {
                let model = self.warm(job, &self.renders().loop_shelf(params.model.as_ref())?).await?;
                let given = match sound {
                    Some(sound) => {
                        let model = Arc::clone(&model);
                        Some(work(move || fitting(sound, &model)).await?)
                    }
                    None => None,
                };
                let made = MakeLoop::new(&model, params.spec.clone(), params.settings, given);
                let made = made.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
                let made = self.follow(job, self.engine.submit(made)).await?;
                work(move || Ok(made.wav())).await
            }
        }
    }

    /// A model; that it must be loaded first is told.
    async fn warm<T: Shared>(&self, job: &Job, shelf: &Arc<Shelf<T>>) -> Result<T, StudioError> {
        if !shelf.is_held() {
            self.tell(job, Status::Loading);
        }
        self.models.lease_render(shelf).await
    }

    /// Waits for a job, telling every step of its solver.
    async fn follow(&self, job: &Job, handle: JobHandle<Pcm>) -> Result<Pcm, StudioError> {
        let mut progress = handle.watch();
        let mut told = 0;
        let mut tell = |(done, of): (usize, usize)| {
            while told < done {
                told += 1;
                self.tell(job, Status::Running { steps: told as u64, total: of as u64 });
            }
        };
        let mut end = std::pin::pin!(handle.finish());
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
