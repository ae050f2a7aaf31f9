//! What a render is to be, free of tensors: made of requests, kept by the studio, carried out by a
//! backend.
//!
//! Clips that wait on disk hold these types as JSON: fields are added with a default, never renamed
//! (`studio/store/fixtures` has rows of older versions).

use serde::{Deserialize, Serialize};

use super::super::DeviceKind;
use crate::bars::{bar_seconds, fitting_bars};
use crate::units::SampleRate;

/// What a backend is asked to make.
#[derive(Debug, Clone, PartialEq)]
pub enum RenderSpec {
    /// A recording turned into another sound.
    Transform(TransformSpec),
    /// A loop, or another piece of the model's window.
    Loop(LoopSpec, LoopSettings),
}

/// What a recording becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformSpec {
    /// In words.
    pub text: String,
    /// How.
    pub settings: TransformSettings,
    /// The same seed makes the same sound.
    pub seed: u64,
}

/// How the model's differential equation is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransformMethod {
    /// Euler's, with a regularised way back.
    Euler,
    /// The midpoint rule: slower.
    Midpoint,
}

/// How a recording is transformed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransformSettings {
    /// How the grid is used.
    pub method: TransformMethod,
    /// Evaluations of the way forth.
    pub steps: usize,
    /// Where the way back ends: 0 is noise, 1 the recording itself.
    pub flowstep: f32,
}

/// How a step of a loop's diffusion is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Jumps to the clean estimate and adds fresh noise.
    PingPong,
    /// Follows the velocity.
    Euler,
    /// A second-order step in logarithmic signal-to-noise ratio (DPM-Solver++ 2M).
    Dpmpp,
}

/// How the pull of a given sound is spread over a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// The first bar alone.
    FirstBar,
    /// All of it.
    Full,
    /// The first bar fully, then less and less.
    Fade,
}

/// How a loop is made; what is `None` is as the model was trained.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LoopSettings {
    /// Steps of denoising.
    pub steps: Option<usize>,
    /// How strongly to follow the text; 1 takes half the time.
    pub guidance: Option<f64>,
    /// How a step is made; a model of the rectified-flow kind knows one way alone.
    pub sampler: Option<Sampler>,
}

/// What of the model's window is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A loop of exact length whose end goes on into its beginning.
    Loop {
        /// Beats per minute.
        bpm: f64,
        /// Bars of four beats.
        bars: u32,
    },
    /// So many seconds from the beginning.
    First(f64),
    /// All of it.
    Window,
}

/// What a given sound is used for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// Denoising begins with it, at this noise level: 1 leaves nothing of it.
    Vary(f64),
    /// It pulls the piece towards itself.
    Pull {
        /// Where.
        mask: Mask,
        /// How strongly.
        strength: f64,
        /// Weights at the beginning and at the end, times the mask's.
        ramp: (f64, f64),
    },
}

/// What a loop is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoopSpec {
    /// What to play; the tempo of a loop need not be in it.
    pub text: String,
    /// What to keep away from; it counts with guidance only.
    pub avoid: String,
    /// What is handed out.
    pub shape: Shape,
    /// Seconds that the model is told; `None` is its window.
    pub seconds: Option<f64>,
    /// What a given sound is used for.
    pub given: Option<Given>,
    /// The same seed gives the same loop.
    pub seed: u64,
}

/// Seconds of a loop's end that are faded into its beginning.
pub(super) const FADE: f64 = 0.03;

/// What a model that renders is.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderInfo {
    /// Frames per second of what it makes, and of what it is given.
    pub rate: SampleRate,
    /// Channels of both.
    pub channels: usize,
    /// Frames of its window.
    pub window: usize,
    /// What it was trained to do, in the words of its configuration.
    pub objective: &'static str,
    /// Steps when nothing is said.
    pub steps: usize,
    /// Where it computes.
    pub device: DeviceKind,
}

impl RenderInfo {
    /// Length of its window in seconds.
    pub fn seconds(&self) -> f64 {
        self.window as f64 / f64::from(self.rate.0)
    }

    /// Seconds of the longest loop.
    pub fn longest_loop(&self) -> f64 {
        self.seconds() - FADE
    }

    /// Whether a piece fits into its window.
    ///
    /// # Errors
    /// A sentence without its full stop that says what would fit.
    pub fn fits(&self, shape: Shape) -> Result<(), String> {
        let Shape::Loop { bpm, bars } = shape else { return Ok(()) };
        let (seconds, most) = (bar_seconds(bpm) * f64::from(bars), self.longest_loop());
        if !(30.0..=400.0).contains(&bpm) || bars == 0 {
            return Err(format!("{bars} bars at {bpm} bpm make no loop; take 30 to 400 bpm"));
        }
        if seconds > most {
            return Err(format!(
                "{bars} bars at {bpm} bpm are {seconds:.1} s, but the model makes {most:.1} s; take {} bars or a \
                 faster tempo",
                fitting_bars(bpm, most)
            ));
        }
        Ok(())
    }
}
