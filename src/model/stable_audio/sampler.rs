//! From noise to latents, step by step, under guidance and, if wanted, pulled towards a given
//! piece.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    StableAudio,
    dit::{Pass, Row, Tap},
};
use crate::model::{
    error::{ModelError, Result},
    vae::NoiseSource,
};

/// How a step is made of a velocity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// Jumps to the clean estimate and adds fresh noise.
    PingPong,
    /// Follows the velocity.
    Euler,
    /// A second-order step in logarithmic signal-to-noise ratio (DPM-Solver++ 2M).
    Dpmpp,
}

/// How conditions are weighed against those to keep away from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// 1 is the condition alone.
    pub scale: f64,
    /// Part of the result that is brought back to the spread of the condition's own; 0 is none.
    pub rescale: f64,
}

impl Guidance {
    /// Without rescaling.
    pub fn plain(scale: f64) -> Self {
        Self { scale, rescale: 0.0 }
    }

    /// Joins the velocities `[batch, channels, frames]` of both.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn join(&self, cond: &Tensor, uncond: &Tensor) -> Result<Tensor> {
        let joined = (uncond + ((cond - uncond)? * self.scale)?)?;
        if self.rescale == 0.0 {
            return Ok(joined);
        }
        let spread = |x: &Tensor| x.var_keepdim(1)?.sqrt();
        let rescaled = joined.broadcast_mul(&(spread(cond)? / spread(&joined)?)?)?;
        Ok(((rescaled * self.rescale)? + (joined * (1.0 - self.rescale))?)?)
    }
}

/// Pulls the latents towards those of a given piece.
#[derive(Debug, Clone)]
pub struct LatentGuidance {
    /// Latents of the piece, `[1, channels, frames]`.
    pub towards: Tensor,
    /// Squared weight per frame, `[1, 1, frames]`.
    pub weights: Tensor,
    /// How strongly.
    pub strength: f64,
}

/// Noise levels between which a piece pulls.
const PULLS: std::ops::RangeInclusive<f64> = 0.2..=0.999;

impl LatentGuidance {
    /// What is taken off an estimate of the clean latents at noise level `t`.
    fn off(&self, estimate: &Tensor, t: f64) -> Result<Option<Tensor>> {
        if !PULLS.contains(&t) {
            return Ok(None);
        }
        let gain = self.strength * (1.0 - t) / t.max(1e-4);
        let away = estimate.broadcast_sub(&self.towards)?.broadcast_mul(&self.weights)?;
        Ok(Some((away * gain)?))
    }
}

/// Noise levels of `steps` steps, evenly spaced in logarithmic signal-to-noise ratio, from `start`
/// down to 0.
pub fn schedule(start: f64, steps: usize) -> Vec<f32> {
    let (first, last) = (if start < 1.0 { ((1.0 - start) / start + 1e-6).ln() } else { -6.0 }, 2.0);
    let level = |i: usize| match i {
        0 => start,
        _ if i == steps => 0.0,
        _ => 1.0 / (1.0 + (first + i as f64 * (last - first) / steps as f64).exp()),
    };
    (0..=steps).map(|i| level(i) as f32).collect()
}

/// Latents on their way from noise to music.
pub struct Diffusion {
    model: Arc<StableAudio>,
    /// The conditions of every piece, then, under guidance, what to keep away from.
    rows: Vec<Row>,
    guidance: Guidance,
    sampler: Sampler,
    levels: Vec<f32>,
    pull: Option<LatentGuidance>,
    draws: NoiseSource,
    x: Tensor,
    /// The clean estimate of the step before.
    before: Option<Tensor>,
    done: usize,
    pass: Option<Pass>,
}

impl Diffusion {
    /// From `x` `[batch, channels, frames]` at the first of `levels`. Under guidance (a scale other
    /// than 1) there are two rows per piece: what it is to be, of all pieces, then what to keep
    /// away from.
    ///
    /// # Errors
    /// [`ModelError::Input`] when numbers do not fit.
    pub fn new(
        model: &Arc<StableAudio>,
        rows: Vec<Row>,
        guidance: Guidance,
        (sampler, levels): (Sampler, Vec<f32>),
        x: Tensor,
        draws: NoiseSource,
    ) -> Result<Self> {
        let batch = x.dim(0)?;
        let wanted = if guidance.scale == 1.0 { batch } else { 2 * batch };
        if rows.len() != wanted || levels.len() < 2 {
            return Err(ModelError::Input(format!("{batch} pieces cannot be made of {} conditions.", rows.len())));
        }
        Ok(Self {
            model: model.clone(),
            rows,
            guidance,
            sampler,
            levels,
            pull: None,
            draws,
            x,
            before: None,
            done: 0,
            pass: None,
        })
    }

    /// Pulls towards a given piece from now on.
    #[must_use]
    pub fn pulled(mut self, pull: LatentGuidance) -> Self {
        self.pull = Some(pull);
        self
    }

    /// Steps made and to be made.
    pub fn progress(&self) -> (usize, usize) {
        (self.done, self.levels.len() - 1)
    }

    /// Whether all steps are made.
    pub fn is_complete(&self) -> bool {
        self.done + 1 == self.levels.len()
    }

    /// Where it is: `[batch, channels, frames]`.
    pub fn latents(&self) -> &Tensor {
        &self.x
    }

    /// Runs one block of the transformer, and what belongs to a step's beginning or end. `tap` is
    /// shown `model_x` and `model_v` of every step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self, tap: &mut Tap<'_>) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        let guided = self.guidance.scale != 1.0;
        let dit = &self.model.dit;
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => {
                tap("model_x", &self.x);
                let x = if guided { Tensor::cat(&[&self.x, &self.x], 0)? } else { self.x.clone() };
                let levels = vec![self.levels[self.done]; self.rows.len()];
                dit.begin(&x, &levels, &self.rows, &mut |_, _| {})?
            }
        };
        if dit.advance(&mut pass, &self.rows, &mut |_, _| {})? {
            self.pass = Some(pass);
            return Ok(());
        }
        let mut velocity = dit.finish(&pass, &mut |_, _| {})?;
        if guided {
            let batch = self.x.dim(0)?;
            velocity = self.guidance.join(&velocity.narrow(0, 0, batch)?, &velocity.narrow(0, batch, batch)?)?;
        }
        tap("model_v", &velocity);
        self.x = self.advance(&velocity)?;
        self.done += 1;
        Ok(())
    }

    fn advance(&mut self, velocity: &Tensor) -> Result<Tensor> {
        let (t, next) = (f64::from(self.levels[self.done]), f64::from(self.levels[self.done + 1]));
        match self.sampler {
            Sampler::PingPong => {
                let mut clean = (&self.x - (velocity * t)?)?;
                if let Some(off) = self.pull.as_ref().map(|pull| pull.off(&clean, t)).transpose()?.flatten() {
                    clean = (clean - off)?;
                }
                let fresh = (self.draws)(self.x.dims())?;
                Ok(((clean * (1.0 - next))? + (fresh * next)?)?)
            }
            Sampler::Euler => {
                let mut velocity = velocity.clone();
                // The original adds here where every other estimate subtracts; what it makes is
                // what is wanted.
                let estimate = (&self.x + (&velocity * (1.0 - t))?)?;
                if let Some(off) = self.pull.as_ref().map(|pull| pull.off(&estimate, t)).transpose()?.flatten() {
                    velocity = (velocity - off)?;
                }
                Ok((&self.x + (velocity * (next - t))?)?)
            }
            Sampler::Dpmpp => {
                let clean = (&self.x - (velocity * t)?)?;
                let ratio = |t: f64| ((1.0 - t) / t).ln();
                let h = ratio(next) - ratio(t);
                let estimate = match self.before.take() {
                    Some(before) if next != 0.0 => {
                        let r = (ratio(t) - ratio(f64::from(self.levels[self.done - 1]))) / h;
                        // Infinite after a step from pure noise: the estimate alone.
                        let part = 1.0 / (2.0 * r);
                        ((&clean * (1.0 + part))? - (before * part)?)?
                    }
                    _ => clean.clone(),
                };
                self.before = Some(clean);
                let shrink = (-h).exp() - 1.0;
                Ok(((&self.x * (next / t))? - (estimate * ((1.0 - next) * shrink))?)?)
            }
        }
    }
}
