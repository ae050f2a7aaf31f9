//! A recording turned into another sound by MelodyFlow.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;

use super::super::{DeviceKind, Job, Step};
use super::{
    RenderBackend, RenderInfo, RenderJob, RenderSpec, TransformMethod, TransformSettings, TransformSpec, other_family,
    sentence,
};
use crate::model::ModelError;
use crate::model::melodyflow::{EditSettings, EditTask, MelodyFlow, Method};
use crate::model::vae::seeded;
use crate::pcm::Pcm;
use crate::units::SampleRate;

/// Seconds that two parts of a long recording share, to be faded over.
const OVERLAP: f64 = 2.0;

impl TransformSettings {
    /// What the original service does with a solver's name.
    pub fn of(method: TransformMethod) -> Self {
        let EditSettings { steps, flowstep, .. } = EditSettings::of(method.into());
        Self { method, steps, flowstep }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// A sentence that says which value to change.
    pub fn check(&self) -> Result<(), String> {
        self.edit().check().map_err(|error| error.to_string())
    }

    fn edit(&self) -> EditSettings {
        EditSettings { steps: self.steps, flowstep: self.flowstep, ..EditSettings::of(self.method.into()) }
    }
}

impl From<TransformMethod> for Method {
    fn from(method: TransformMethod) -> Self {
        match method {
            TransformMethod::Euler => Self::Euler,
            TransformMethod::Midpoint => Self::Midpoint,
        }
    }
}

impl RenderBackend for MelodyFlow {
    fn info(&self) -> RenderInfo {
        let codec = &self.config.codec;
        RenderInfo {
            rate: SampleRate(codec.sample_rate),
            channels: codec.channels,
            window: self.config.most_frames() * codec.hop(),
            objective: "flow_matching",
            steps: TransformSettings::of(TransformMethod::Euler).steps,
            device: DeviceKind::from(&self.target().device),
        }
    }

    fn check(&self, spec: &RenderSpec) -> Result<(), String> {
        match spec {
            RenderSpec::Transform(spec) => spec.settings.edit().check().map_err(sentence),
            RenderSpec::Loop(..) => Err(other_family("transforms")),
        }
    }

    fn begin(self: Arc<Self>, spec: RenderSpec, given: Option<Vec<f32>>) -> Result<RenderJob, String> {
        self.check(&spec)?;
        let RenderSpec::Transform(spec) = spec else { return Err(other_family("transforms")) };
        Ok(Box::new(Transform::new(self, spec, &given.unwrap_or_default())?))
    }
}

/// A recording turned into another sound. One that is longer than the model's longest clip is done
/// in parts.
struct Transform {
    model: Arc<MelodyFlow>,
    spec: TransformSpec,
    channels: usize,
    /// Parts to be done: first frame and interleaved samples.
    parts: VecDeque<(usize, Vec<f32>)>,
    count: usize,
    edit: Option<(usize, usize, EditTask)>,
    done: Vec<f32>,
}

impl Transform {
    /// Turns interleaved `pcm` into a sound of the same length.
    fn new(model: Arc<MelodyFlow>, spec: TransformSpec, pcm: &[f32]) -> Result<Self, String> {
        let codec = &model.config.codec;
        let frames = pcm.len() / codec.channels;
        if frames == 0 {
            return Err("the recording has no sound in it".into());
        }
        let most = model.config.most_frames() * codec.hop();
        let overlap = ((OVERLAP * f64::from(codec.sample_rate)) as usize).min(most / 4);
        let parts = parts(frames, most, overlap)
            .into_iter()
            .map(|(from, to)| (from, pcm[from * codec.channels..to * codec.channels].to_vec()));
        let parts: VecDeque<_> = parts.collect();
        let (channels, count) = (codec.channels, parts.len());
        Ok(Self { model, spec, channels, count, parts, edit: None, done: Vec::new() })
    }

    fn begin(&mut self) -> Result<Option<(usize, usize, EditTask)>, ModelError> {
        let Some((from, pcm)) = self.parts.pop_front() else { return Ok(None) };
        let device = &self.model.target().device;
        let frames = pcm.len() / self.channels;
        let sound = Tensor::from_vec(pcm, (frames, self.channels), device)?;
        let target = self.model.prepare(&self.spec.text)?;
        // One seed for all parts: what they share begins from the same noise.
        let draws = seeded(self.spec.seed, device);
        let edit = EditTask::new(&self.model, sound, (None, vec![target]), self.spec.settings.edit(), draws)?;
        Ok(Some((from, frames, edit)))
    }
}

/// Equal spans of at most `most` frames over `frames`, neighbours sharing at least `overlap`.
fn parts(frames: usize, most: usize, overlap: usize) -> Vec<(usize, usize)> {
    if frames <= most {
        return vec![(0, frames)];
    }
    let count = (frames - overlap).div_ceil(most - overlap);
    let start = |index: usize| (frames - most) * index / (count - 1);
    (0..count).map(|index| (start(index), start(index) + most)).collect()
}

/// Appends a part that begins at frame `from`; where it overlaps what is there it is faded in.
fn join(done: &mut Vec<f32>, part: &[f32], from: usize, channels: usize) {
    let overlap = (done.len() / channels).saturating_sub(from).min(part.len() / channels);
    for frame in 0..overlap {
        let share = (frame as f32 + 0.5) / overlap as f32;
        for channel in 0..channels {
            let (old, new) = (&mut done[(from + frame) * channels + channel], part[frame * channels + channel]);
            *old = *old * (1.0 - share) + new * share;
        }
    }
    done.extend_from_slice(&part[overlap * channels..]);
}

impl Job for Transform {
    type Output = Pcm;

    fn step(&mut self) -> Result<Step<Pcm>, String> {
        if self.edit.is_none() {
            self.edit = self.begin().map_err(sentence)?;
        }
        let Some((from, frames, edit)) = &mut self.edit else {
            let rate = SampleRate(self.model.config.codec.sample_rate);
            let pcm = std::mem::take(&mut self.done);
            return Ok(Step::Done(Pcm { pcm, channels: self.channels, rate }));
        };
        let progress = edit.step().map_err(sentence)?;
        let before = self.count - self.parts.len() - 1;
        if edit.is_complete() {
            let pcm = edit.sound().and_then(|sound| Ok(sound.flatten_all()?.to_vec1::<f32>()?)).map_err(sentence)?;
            // The model fills up its last frame; the recording's end is the result's.
            join(&mut self.done, &pcm[..*frames * self.channels], *from, self.channels);
            self.edit = None;
        }
        Ok(Step::Working(before * progress.of + progress.done, self.count * progress.of))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{standin, tests::run};
    use super::*;

    #[test]
    fn a_transform_is_as_long_as_its_recording_however_long_that_is() {
        let model = standin::transformer().unwrap();
        let settings = TransformSettings { steps: 2, ..TransformSettings::of(TransformMethod::Euler) };
        let spec = RenderSpec::Transform(TransformSpec { text: String::new(), settings, seed: 5 });
        for frames in [1000, 7680 * 3, 7680 * 5 + 17] {
            let pcm: Vec<f32> = (0..frames * 2).map(|i| (i as f32 * 0.01).sin() * 0.3).collect();
            let (rendered, steps) = run(Arc::clone(&model).begin(spec.clone(), Some(pcm.clone())).unwrap());
            assert_eq!((rendered.pcm.len(), rendered.channels), (pcm.len(), 2));
            assert!(rendered.pcm.iter().all(|sample| sample.is_finite()));
            // One layer at a time: nobody waits for a whole evaluation.
            assert!(steps > 4 * 6, "{steps} steps");
        }
    }

    #[test]
    fn parts_cover_everything_and_overlap() {
        assert_eq!(parts(900, 1000, 100), [(0, 900)]);
        for (frames, most, overlap) in [(1001, 1000, 100), (1500, 1000, 100), (5000, 1000, 100)] {
            let found = parts(frames, most, overlap);
            assert_eq!((found[0].0, found[found.len() - 1].1), (0, frames));
            assert!(found.windows(2).all(|pair| pair[1].0 + overlap <= pair[0].1), "{found:?}");
        }
    }
}
