//! One window of sound: encode what it starts from, denoise, decode.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Diffusion, Guidance, LatentGuidance, Row, Sampler, StableAudio, dit::Tap, sampler::schedule};
use crate::model::{
    error::{ModelError, Result},
    latent::{Decoding, Encoding},
    vae::NoiseSource,
};

/// What a given sound is used for.
#[derive(Debug, Clone)]
pub enum Init {
    /// The beginning of denoising, at this noise level: 1 leaves nothing of it.
    Vary(f64),
    /// A piece that pulls with these squared weights per latent frame and this strength.
    LatentGuidance(Vec<f32>, f64),
}

/// How a window is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PieceSettings {
    /// How a step is made.
    pub sampler: Sampler,
    /// Steps.
    pub steps: usize,
    /// Weight of the conditions against those to keep away from; 1 needs half the work.
    pub guidance: f64,
}

/// A window in progress.
pub struct DenoiseTask {
    model: Arc<StableAudio>,
    settings: PieceSettings,
    rows: Vec<Row>,
    noise: Option<Tensor>,
    stage: Stage,
    sound: Vec<Tensor>,
}

enum Stage {
    Encoding(Encoding<StableAudio>, Init, NoiseSource),
    Diffusion(Diffusion),
    Decoding(Decoding<StableAudio>),
    Done,
}

impl DenoiseTask {
    /// A window that is to be `wanted` and not `avoided` (nothing, when absent). A given sound
    /// `[samples, channels]` is cut or filled up to the window. NoiseSource are asked for the first
    /// noise, the posterior's noise of a given sound and a noise per step; of a sound that pulls,
    /// the posterior's noise comes first.
    ///
    /// # Errors
    /// [`ModelError::Input`] for settings out of bounds.
    pub fn new(
        model: &Arc<StableAudio>,
        (wanted, avoided): (Row, Row),
        settings: PieceSettings,
        init: Option<(Tensor, Init)>,
        mut draws: NoiseSource,
    ) -> Result<Self> {
        if settings.steps == 0 || settings.steps > 1000 {
            return Err(ModelError::Input(format!("{} steps were asked for; take 1 to 1000.", settings.steps)));
        }
        let rows = if settings.guidance == 1.0 { vec![wanted] } else { vec![wanted, avoided] };
        let shape = [1, model.config.latents, model.config.frames()];
        let pulls = matches!(init, Some((_, Init::LatentGuidance(..))));
        let noise = if pulls { None } else { Some(draws(&shape)?) };
        let stage = match (init, &noise) {
            (Some((sound, init)), _) => Stage::Encoding(model.encoding(fit(&sound, model.config.window)?), init, draws),
            (None, Some(noise)) => {
                let levels = schedule(1.0, settings.steps);
                let guidance = Guidance::plain(settings.guidance);
                let way = (settings.sampler, levels);
                Stage::Diffusion(Diffusion::new(model, rows.clone(), guidance, way, noise.clone(), draws)?)
            }
            (None, None) => Stage::Done,
        };
        Ok(Self { model: model.clone(), settings, rows, noise, stage, sound: Vec::new() })
    }

    /// Steps of denoising made and to be made.
    pub fn progress(&self) -> (usize, usize) {
        let all = self.settings.steps;
        match &self.stage {
            Stage::Encoding(..) => (0, all),
            Stage::Diffusion(diffusion) => diffusion.progress(),
            Stage::Decoding(_) | Stage::Done => (all, all),
        }
    }

    /// Whether the sound is there.
    pub fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Does a bounded piece of work: a piece of sound or one block of the transformer.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self) -> Result<()> {
        self.step_shown(&mut |_, _| {})
    }

    /// [`DenoiseTask::step`] that shows `init_latents`, `latents` and what [`Diffusion::step`]
    /// shows.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step_shown(&mut self, tap: &mut Tap<'_>) -> Result<()> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Encoding(mut encoding, init, draws) => match encoding.step()? {
                None => Stage::Encoding(encoding, init, draws),
                Some((mean, scale)) => self.begin(&mean, &scale, init, draws, tap)?,
            },
            Stage::Diffusion(mut diffusion) => {
                diffusion.step(tap)?;
                if diffusion.is_complete() {
                    tap("latents", diffusion.latents());
                    Stage::Decoding(self.model.decoding(diffusion.latents())?)
                } else {
                    Stage::Diffusion(diffusion)
                }
            }
            Stage::Decoding(mut decoding) => {
                self.sound.extend(decoding.step()?);
                if decoding.is_complete() { Stage::Done } else { Stage::Decoding(decoding) }
            }
            Stage::Done => Stage::Done,
        };
        Ok(())
    }

    fn begin(
        &mut self,
        mean: &Tensor,
        scale: &Tensor,
        init: Init,
        mut draws: NoiseSource,
        tap: &mut Tap<'_>,
    ) -> Result<Stage> {
        let latents = self.model.vae.draw(mean, scale, &draws(mean.dims())?)?;
        tap("init_latents", &latents);
        let noise = match self.noise.take() {
            Some(noise) => noise,
            None => draws(mean.dims())?,
        };
        let (start, x, pull) = match init {
            Init::Vary(level) => {
                let level = level.min(1.0);
                (level, ((latents * (1.0 - level))? + (noise * level)?)?, None)
            }
            Init::LatentGuidance(weights, strength) => {
                let frames = weights.len();
                let weights = Tensor::from_vec(weights, (1, 1, frames), latents.device())?;
                (1.0, noise, Some(LatentGuidance { towards: latents, weights, strength }))
            }
        };
        let way = (self.settings.sampler, schedule(start, self.settings.steps));
        let guidance = Guidance::plain(self.settings.guidance);
        let diffusion = Diffusion::new(&self.model, self.rows.clone(), guidance, way, x, draws)?;
        Ok(Stage::Diffusion(match pull {
            Some(pull) => diffusion.pulled(pull),
            None => diffusion,
        }))
    }

    /// The sound so far: `[samples, channels]`.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn sound(&self) -> Result<Tensor> {
        Ok(Tensor::cat(&self.sound, 1)?.squeeze(0)?)
    }
}

/// Cuts or fills up a sound to the window.
fn fit(sound: &Tensor, window: usize) -> Result<Tensor> {
    let samples = sound.dim(0)?;
    Ok(match samples < window {
        true => sound.pad_with_zeros(0, 0, window - samples)?,
        false => sound.narrow(0, 0, window)?.contiguous()?,
    })
}
