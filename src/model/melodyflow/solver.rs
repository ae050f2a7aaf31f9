//! Generation and editing, step by step.
//!
//! A [`OdeSolver`] follows velocities along a grid of flow steps: from noise to music under
//! guidance, or backwards from a recording towards noise, where a regulariser keeps the way close
//! to one that the model would have gone. An edit is a walk back and a walk forth. One
//! [`OdeSolver::step`] runs one layer of the transformer, so that others need not wait long.

use std::sync::Arc;

use candle_core::Tensor;

use super::{
    super::{
        error::{ModelError, Result},
        vae::NoiseSource,
    },
    MelodyFlow,
    regulariser::regularise,
    schedule::grid,
    transformer::{Pass, Row, Tap},
};

/// How a grid's points are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One velocity per step.
    Euler,
    /// A step takes the velocity of its middle; it needs an even number of evaluations.
    Midpoint,
}

/// How the way back is kept straight. Euler only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regularise {
    /// Evaluations per step.
    pub iterations: usize,
    /// The last ones, which are regularised and averaged.
    pub keep: usize,
    /// Size of the gradient steps.
    pub lambda: f64,
}

/// What an edit is asked to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EditSettings {
    /// How the grid is used.
    pub method: Method,
    /// Evaluations of the way forth.
    pub steps: usize,
    /// Where the way back ends: 0 is noise, 1 the recording itself.
    pub flowstep: f32,
    /// How the way back is kept straight.
    pub regularise: Option<Regularise>,
}

impl EditSettings {
    /// What the original service does with a solver's name.
    pub fn of(method: Method) -> Self {
        let regularise = Regularise { iterations: 2, keep: 1, lambda: 0.2 };
        match method {
            Method::Euler => Self { method, steps: 25, flowstep: 0.12, regularise: Some(regularise) },
            Method::Midpoint => Self { method, steps: 64, flowstep: 0.12, regularise: None },
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`ModelError::Input`] with a sentence that says which value to change.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(ModelError::Input(text));
        if !(0.0..1.0).contains(&self.flowstep) {
            return refuse(format!("The flow step is {} but must be at least 0 and below 1.", self.flowstep));
        }
        if self.steps == 0 || self.steps > 1000 {
            return refuse(format!("{} steps were asked for; take 1 to 1000.", self.steps));
        }
        if self.method == Method::Midpoint && !self.steps.is_multiple_of(2) {
            return refuse(format!("The midpoint solver needs an even number of steps, not {}.", self.steps));
        }
        match self.regularise {
            Some(_) if self.method == Method::Midpoint => {
                refuse("The midpoint solver cannot be regularised; take euler.".into())
            }
            Some(Regularise { iterations, keep, .. }) if keep == 0 || keep > iterations || iterations < 2 => {
                refuse(format!("{keep} of {iterations} iterations cannot be kept; keep at least one of two."))
            }
            _ => Ok(()),
        }
    }
}

/// How far a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Evaluations made, counted as the original counts them.
    pub done: usize,
    /// Evaluations to be made.
    pub of: usize,
}

impl Progress {
    /// Whether nothing is left to do.
    pub fn is_complete(&self) -> bool {
        self.done >= self.of
    }
}

/// Follows velocities from one flow step to another.
pub struct OdeSolver {
    model: Arc<MelodyFlow>,
    /// Rows of the evaluated batch: those of the texts, then as many empty ones under guidance.
    rows: Vec<Row>,
    guided: bool,
    method: Method,
    grid: Vec<f32>,
    x: Tensor,
    back: Option<Back>,
    /// Evaluations done within the grid.
    k: usize,
    /// The half-step point of the midpoint scheme.
    half: Option<Tensor>,
    pass: Option<(Pass, Vec<Row>)>,
}

/// The regularised way back.
struct Back {
    settings: Regularise,
    /// The latent of the recording.
    origin: Tensor,
    draws: NoiseSource,
    iteration: usize,
    y: Tensor,
    average: Option<Tensor>,
}

impl OdeSolver {
    /// From noise `[rows, channels, frames]` at flow step `from` up to music; one row per text.
    /// Guided.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a clip that is too long.
    pub fn generation(
        model: &Arc<MelodyFlow>,
        texts: &[Row],
        from: f32,
        start: Tensor,
        (method, steps): (Method, usize),
    ) -> Result<Self> {
        let mut rows = texts.to_vec();
        rows.resize(2 * texts.len(), None);
        Self::new(model, rows, true, grid(from, 1.0, steps), start, method, None)
    }

    /// From the latent of a recording `[rows, channels, frames]` down to `settings.flowstep`; one
    /// row per text that describes the recording. Not guided.
    ///
    /// # Errors
    /// [`ModelError::Input`] for settings out of bounds or a clip that is too long.
    pub fn inversion(
        model: &Arc<MelodyFlow>,
        texts: &[Row],
        origin: &Tensor,
        settings: &EditSettings,
        draws: NoiseSource,
    ) -> Result<Self> {
        settings.check()?;
        let back = settings.regularise.map(|regularise| Back {
            settings: regularise,
            origin: origin.clone(),
            draws,
            iteration: 0,
            y: origin.clone(),
            average: None,
        });
        let grid = grid(1.0, settings.flowstep, settings.steps);
        Self::new(model, texts.to_vec(), false, grid, origin.clone(), settings.method, back)
    }

    fn new(
        model: &Arc<MelodyFlow>,
        rows: Vec<Row>,
        guided: bool,
        grid: Vec<f32>,
        x: Tensor,
        method: Method,
        back: Option<Back>,
    ) -> Result<Self> {
        let (batch, _, frames) = x.dims3()?;
        let most = model.config.most_frames();
        if frames > most || frames == 0 {
            let seconds = model.config.seconds;
            return Err(ModelError::Input(format!(
                "{frames} latent frames were given; up to {most} ({seconds} s) fit."
            )));
        }
        if batch * if guided { 2 } else { 1 } != rows.len() {
            return Err(ModelError::Input(format!("{batch} clips cannot be described by {} rows.", rows.len())));
        }
        Ok(Self { model: model.clone(), rows, guided, method, grid, x, back, k: 0, half: None, pass: None })
    }

    /// Counted as the original counts: every iteration of the way back, every evaluation of the way
    /// forth.
    pub fn progress(&self) -> Progress {
        let per = self.back.as_ref().map_or(1, |back| back.settings.iterations);
        let now = self.back.as_ref().map_or(0, |back| back.iteration);
        Progress { done: self.k * per + now, of: (self.grid.len() - 1) * per }
    }

    /// Where the walk is: `[rows, channels, frames]`.
    pub fn latents(&self) -> &Tensor {
        &self.x
    }

    /// Runs one layer of the transformer, and what belongs to an evaluation's beginning or end.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self) -> Result<Progress> {
        self.step_shown(&mut |_, _| {})
    }

    /// [`OdeSolver::step`] that shows what the reference records: `z` and `t` of every evaluation,
    /// `v_cond` and `v_null`, and of a regularised one `iter_z`, `iter_v`, `reg_z`, `reg_v`,
    /// `reg_out` and `avg_v`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step_shown(&mut self, tap: &mut Tap<'_>) -> Result<Progress> {
        if self.progress().is_complete() {
            return Ok(self.progress());
        }
        let (mut pass, rows) = match self.pass.take() {
            Some(running) => running,
            None => self.begin(tap)?,
        };
        let more = self.model.transformer.advance(&mut pass, &rows, &mut |_, _| {})?;
        if more {
            self.pass = Some((pass, rows));
        } else {
            let velocity = self.model.transformer.finish(&pass, &mut |_, _| {})?;
            self.take(&velocity, tap)?;
        }
        Ok(self.progress())
    }

    /// The step that is being made, from its beginning to its end.
    fn delta(&self) -> f64 {
        f64::from(self.grid[self.k + 1]) - f64::from(self.grid[self.k])
    }

    fn begin(&mut self, tap: &mut Tap<'_>) -> Result<(Pass, Vec<Row>)> {
        let mut rows = self.rows.clone();
        let (latents, at) = match &mut self.back {
            None => {
                let z = self.half.clone().unwrap_or_else(|| self.x.clone());
                tap("z", &z);
                (if self.guided { Tensor::cat(&[&z, &z], 0)? } else { z }, self.grid[self.k])
            }
            Some(back) => {
                // A regularised step looks at its end.
                let end = self.grid[self.k + 1];
                if back.iteration == 0 {
                    tap("z", &self.x);
                    back.y = self.x.clone();
                    back.average = None;
                }
                tap("iter_z", &back.y);
                if back.contributes() {
                    let shape = back.origin.dims().to_vec();
                    let noise = (back.draws)(&shape)?;
                    let trace = (back.draws)(&shape)?;
                    let mixed = ((noise * f64::from(1.0 - end))? + (&back.origin * f64::from(end))?)?;
                    let reference = (mixed + (trace * 1e-5)?)?;
                    tap("reg_z", &reference);
                    rows.extend(self.rows.iter().cloned());
                    (Tensor::cat(&[&back.y, &reference], 0)?, end)
                } else {
                    (back.y.clone(), end)
                }
            }
        };
        let steps = vec![at; rows.len()];
        Ok((self.model.transformer.begin(&latents, &steps, &mut |_, _| {})?, rows))
    }

    fn take(&mut self, velocity: &Tensor, tap: &mut Tap<'_>) -> Result<()> {
        let delta = self.delta();
        let count = self.x.dim(0)?;
        if let Some(back) = &mut self.back {
            let complete = back.take(&self.x, velocity, delta, tap)?;
            if let Some(average) = complete {
                tap("avg_v", &average);
                self.x = (&self.x + (average * delta)?)?;
                self.k += 1;
            }
            return Ok(());
        }
        let velocity = if self.guided {
            let (text, empty) = (velocity.narrow(0, 0, count)?, velocity.narrow(0, count, count)?);
            tap("v_cond", &text);
            tap("v_null", &empty);
            let scale = f64::from(self.model.config.guidance);
            ((text * (1.0 + scale))? - (empty * scale)?)?
        } else {
            tap("v_cond", velocity);
            velocity.clone()
        };
        match (self.method, self.half.take()) {
            (Method::Euler, _) => self.x = (&self.x + (velocity * delta)?)?,
            (Method::Midpoint, None) => self.half = Some((&self.x + (velocity * delta)?)?),
            (Method::Midpoint, Some(_)) => {
                let whole = f64::from(self.grid[self.k + 1]) - f64::from(self.grid[self.k - 1]);
                self.x = (&self.x + (velocity * whole)?)?;
            }
        }
        self.k += 1;
        Ok(())
    }
}

impl Back {
    fn contributes(&self) -> bool {
        self.iteration >= self.settings.iterations - self.settings.keep
    }

    /// Takes an iteration's velocity; after the last gives the weighted average of those that were
    /// kept.
    fn take(&mut self, x: &Tensor, velocity: &Tensor, delta: f64, tap: &mut Tap<'_>) -> Result<Option<Tensor>> {
        let count = x.dim(0)?;
        let mut own = velocity.narrow(0, 0, count)?.contiguous()?;
        tap("iter_v", &own);
        let Regularise { iterations, keep, lambda } = self.settings;
        if self.contributes() {
            let reference = velocity.narrow(0, count, count)?.contiguous()?;
            tap("reg_v", &reference);
            own = regularise(&own, &reference, lambda)?;
            tap("reg_out", &own);
            let total: usize = (iterations - keep..iterations).sum();
            let part = (&own * (self.iteration as f64 / total as f64))?;
            self.average = Some(match self.average.take() {
                Some(average) => (average + part)?,
                None => part,
            });
        }
        self.y = (x + (own * delta)?)?;
        self.iteration += 1;
        if self.iteration < iterations {
            return Ok(None);
        }
        self.iteration = 0;
        Ok(self.average.take())
    }
}
