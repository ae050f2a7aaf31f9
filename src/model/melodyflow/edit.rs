//! A whole edit: encode the recording, walk back, walk forth with other words, decode.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    super::{
        error::{ModelError, Result},
        latent::{Decoding, Encoding},
        vae::{NoiseSource, sample},
    },
    EditSettings, MelodyFlow, OdeSolver, Progress, Row,
    transformer::Tap,
};

/// An edit in progress. The length of the result is that of the recording, filled up to a whole
/// latent frame.
pub struct EditTask {
    model: Arc<MelodyFlow>,
    settings: EditSettings,
    source: Row,
    targets: Vec<Row>,
    stage: Stage,
    sound: Vec<Tensor>,
}

enum Stage {
    Encoding(Encoding<MelodyFlow>, NoiseSource),
    Back(OdeSolver),
    Forth(OdeSolver),
    Decoding(Decoding<MelodyFlow>),
    Done,
}

impl EditTask {
    /// An edit of `sound` `[samples, channels]` at the codec's rate. `source` describes it (nobody
    /// does), `targets` what it is to become, a row of the result each. `draws` is asked for the
    /// posterior's noise, then for two of each regularised iteration.
    ///
    /// # Errors
    /// [`ModelError::Input`] for settings or a length out of bounds.
    pub fn new(
        model: &Arc<MelodyFlow>,
        sound: Tensor,
        (source, targets): (Row, Vec<Row>),
        settings: EditSettings,
        draws: NoiseSource,
    ) -> Result<Self> {
        settings.check()?;
        let (samples, channels) = sound.dims2()?;
        let codec = &model.config.codec;
        let most = model.config.most_frames() * codec.hop();
        if samples == 0 || samples > most || channels != codec.channels || targets.is_empty() {
            let seconds = |samples: usize| samples as f64 / f64::from(codec.sample_rate);
            return Err(ModelError::Input(format!(
                "A recording of {:.2} s with {channels} channels was given; the model takes up to {:.0} s with {}.",
                seconds(samples),
                seconds(most),
                codec.channels
            )));
        }
        let stage = Stage::Encoding(model.encoding(sound), draws);
        Ok(Self { model: model.clone(), settings, source, targets, stage, sound: Vec::new() })
    }

    /// Evaluations made and to be made, as the original counts them; encoding and decoding do not
    /// count.
    pub fn progress(&self) -> Progress {
        let steps = self.settings.steps;
        let back = steps * self.settings.regularise.map_or(1, |regularise| regularise.iterations);
        let done = match &self.stage {
            Stage::Encoding(..) => 0,
            Stage::Back(walk) => walk.progress().done,
            Stage::Forth(walk) => back + walk.progress().done,
            Stage::Decoding(_) | Stage::Done => back + steps,
        };
        Progress { done, of: back + steps }
    }

    /// Whether the sound is there.
    pub fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Does a bounded piece of work: a piece of sound or one layer of the transformer.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self) -> Result<Progress> {
        self.step_shown(&mut |_, _| {})
    }

    /// [`EditTask::step`] that shows what the reference records: what the walks show with `inv.` or
    /// `fwd.` before it, and `prompt_latent`, `intermediate` and `tokens`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step_shown(&mut self, tap: &mut Tap<'_>) -> Result<Progress> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Encoding(mut encoding, mut draws) => match encoding.step()? {
                None => Stage::Encoding(encoding, draws),
                Some((mean, scale)) => {
                    let noise = draws(mean.dims())?;
                    let origin = self.model.statistics.normalise(&sample(&mean, &scale, &noise)?)?;
                    tap("prompt_latent", &origin);
                    let source = std::slice::from_ref(&self.source);
                    Stage::Back(OdeSolver::inversion(&self.model, source, &origin, &self.settings, draws)?)
                }
            },
            Stage::Back(mut walk) => {
                if walk.step_shown(&mut |name, x| tap(&format!("inv.{name}"), x))?.is_complete() {
                    tap("intermediate", walk.latents());
                    let start = walk.latents().repeat((self.targets.len(), 1, 1))?;
                    let EditSettings { method, steps, flowstep, .. } = self.settings;
                    Stage::Forth(OdeSolver::generation(&self.model, &self.targets, flowstep, start, (method, steps))?)
                } else {
                    Stage::Back(walk)
                }
            }
            Stage::Forth(mut walk) => {
                if walk.step_shown(&mut |name, x| tap(&format!("fwd.{name}"), x))?.is_complete() {
                    tap("tokens", walk.latents());
                    Stage::Decoding(self.model.decoding(&self.model.statistics.denormalise(walk.latents())?)?)
                } else {
                    Stage::Forth(walk)
                }
            }
            Stage::Decoding(mut decoding) => {
                self.sound.extend(decoding.step()?);
                if decoding.is_complete() { Stage::Done } else { Stage::Decoding(decoding) }
            }
            Stage::Done => Stage::Done,
        };
        Ok(self.progress())
    }

    /// The sound so far: `[targets, samples, channels]`.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn sound(&self) -> Result<Tensor> {
        Ok(Tensor::cat(&self.sound, 1)?)
    }
}
