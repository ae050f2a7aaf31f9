//! Making transforms and loops: a model, a task of the engine, and what is told of its steps.

use super::run::work;
use super::{ClipTask, Decoded, Render, Status, Studio, StudioError};
use crate::engine::{JobHandle, RenderInfo};
use crate::pcm::Pcm;

impl Studio {
    /// Makes a transform or a loop; gives its file.
    pub(super) async fn render(&self, task: &ClipTask, render: &Render) -> Result<Vec<u8>, StudioError> {
        let (sound, _share) = self.input(&task.record).await?.map(Decoded::into_parts).unzip();
        let key = render.key();
        if !self.holds(&key)? {
            self.tell(task, Status::Loading);
        }
        let model = self.lease_render(&key).await?;
        let info = model.info();
        // The result of a transform that keeps the recording's rate is exactly as long as the
        // recording.
        let kept = match (render, &sound) {
            (Render::Transform(_), None) => return Err(StudioError::NoAudio),
            (Render::Transform(params), Some(sound)) if params.keeps_rate => Some((sound.rate, sound.frames())),
            _ => None,
        };
        let (spec, is_loop) = match render {
            Render::Transform(params) => (params.spec(), false),
            Render::Loop(params) => (params.spec(), true),
        };
        let given = match sound {
            Some(sound) => Some(work(move || given(sound, is_loop, &info)).await?),
            None => None,
        };
        let made = model.begin(spec, given).map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
        let made = self.follow(task, self.engine.submit(made)).await?;
        work(move || match kept {
            // Two conversions may differ by a sample.
            Some((rate, frames)) => Ok(made.at(rate)?.cut(0, frames).padded(frames).wav()),
            None => Ok(made.wav()),
        })
        .await
    }

    /// Waits for a task, telling every step of its solver.
    async fn follow(&self, task: &ClipTask, handle: JobHandle<Pcm>) -> Result<Pcm, StudioError> {
        let mut progress = handle.watch();
        let mut told = 0;
        let mut tell = |(done, of): (usize, usize)| {
            while told < done {
                told += 1;
                self.tell(task, Status::Running { steps: told as u64, total: of as u64 });
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
        task.grow(&rendered.pcm, rendered.channels, rendered.rate);
        Ok(rendered)
    }
}

/// A given sound as its model takes it: a recording with all that it has, a loop's beginning mixed
/// to one channel.
fn given(sound: Pcm, is_loop: bool, info: &RenderInfo) -> Result<Vec<f32>, StudioError> {
    let sound = match (is_loop, info.channels) {
        (true, _) => sound.mono().at(info.rate)?.spread(info.channels),
        (false, 2) => sound.stereo().at(info.rate)?,
        (false, channels) => sound.spread(channels).at(info.rate)?,
    };
    Ok(sound.pcm)
}
