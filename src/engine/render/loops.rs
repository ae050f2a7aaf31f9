//! Loops, and other pieces of a window, made by Stable Audio.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::super::jobs::{Job, Step};
use super::sentence;
use crate::model::ModelError;
use crate::model::stable_audio::{Init, Objective, Piece, PieceSettings, StableAudio, loops};
use crate::model::vae::seeded;
use crate::pcm::Pcm;
use crate::units::SampleRate;

/// The weights of a loop model.
pub type LoopModel = Arc<StableAudio>;
pub use crate::model::stable_audio::Sampler;
pub use crate::model::stable_audio::loops::{BARS, Mask, bar_seconds, fitting_bars, tempo};

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

impl LoopSettings {
    fn on(self, model: &LoopModel) -> PieceSettings {
        let (sampler, steps) = match model.config.objective {
            Objective::RfDenoiser => (self.sampler.unwrap_or(Sampler::PingPong), 8),
            Objective::RectifiedFlow => (Sampler::Euler, 50),
        };
        PieceSettings { sampler, steps: self.steps.unwrap_or(steps), guidance: self.guidance.unwrap_or(6.0) }
    }
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

/// What a loop model is.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopInfo {
    /// Frames per second of what it makes.
    pub rate: SampleRate,
    /// Frames of its window.
    pub window: usize,
    /// Channels.
    pub channels: usize,
    /// What it was trained to do, in the words of its configuration.
    pub objective: &'static str,
    /// Steps when nothing is said.
    pub steps: usize,
    /// `cpu`, `cuda` or `metal`.
    pub device: &'static str,
}

impl LoopInfo {
    /// Of a loaded model.
    pub fn of(model: &LoopModel) -> Self {
        let config = &model.config;
        Self {
            rate: SampleRate(config.sample_rate),
            window: config.window,
            channels: config.channels,
            objective: match config.objective {
                Objective::RfDenoiser => "rf_denoiser",
                Objective::RectifiedFlow => "rectified_flow",
            },
            steps: LoopSettings::default().on(model).steps,
            device: match model.target().device {
                Device::Cpu => "cpu",
                Device::Cuda(_) => "cuda",
                Device::Metal(_) => "metal",
            },
        }
    }

    /// Length of its window in seconds.
    pub fn seconds(&self) -> f64 {
        self.window as f64 / f64::from(self.rate.0)
    }

    /// Seconds of the longest loop.
    pub fn longest_loop(&self) -> f64 {
        self.seconds() - FADE
    }
}

/// Seconds of a loop's end that are faded into its beginning.
const FADE: f64 = 0.03;

/// A piece of a window's length at most: a loop, a beginning, or all of it.
pub struct MakeLoop {
    model: Arc<StableAudio>,
    spec: LoopSpec,
    settings: PieceSettings,
    /// Interleaved, at the model's rate.
    given: Option<Vec<f32>>,
    piece: Option<Piece>,
}

impl MakeLoop {
    /// Whether a piece fits into the model's window.
    ///
    /// # Errors
    /// A sentence that says what would fit.
    pub fn check(model: &LoopModel, shape: Shape) -> Result<(), String> {
        let Shape::Loop { bpm, bars } = shape else { return Ok(()) };
        let seconds = loops::bar_seconds(bpm) * f64::from(bars);
        let most = model.config.seconds() - FADE;
        if !(30.0..=400.0).contains(&bpm) || bars == 0 {
            return Err(format!("{bars} bars at {bpm} bpm make no loop; take 30 to 400 bpm"));
        }
        if seconds > most {
            return Err(format!(
                "{bars} bars at {bpm} bpm are {seconds:.1} s, but the model makes {most:.1} s; take {} bars or a \
                 faster tempo",
                loops::fitting_bars(bpm, most)
            ));
        }
        Ok(())
    }

    /// `given` is interleaved at the model's rate and channels; it counts only if the spec says for what.
    ///
    /// # Errors
    /// A sentence when it does not fit into the model's window.
    pub fn new(
        model: &Arc<StableAudio>,
        spec: LoopSpec,
        settings: LoopSettings,
        given: Option<Vec<f32>>,
    ) -> Result<Self, String> {
        Self::check(model, spec.shape)?;
        Ok(Self { model: model.clone(), spec, settings: settings.on(model), given, piece: None })
    }

    fn begin(&mut self) -> Result<Piece, ModelError> {
        let device = self.model.target().device.clone();
        let config = &self.model.config;
        let text = match (self.spec.shape, loops::tempo(&self.spec.text)) {
            (Shape::Loop { bpm, .. }, None) => format!("{} {bpm}bpm", self.spec.text),
            _ => self.spec.text.clone(),
        };
        let seconds = self.spec.seconds.unwrap_or_else(|| config.seconds().floor().max(1.0));
        let numbers = [("seconds_total", seconds as f32)];
        let conditioner = &self.model.conditioner;
        let wanted = conditioner.conditions(&text, &numbers)?;
        let avoided = match self.spec.avoid.as_str() {
            "" => wanted.nothing()?,
            avoid => wanted.against(&conditioner.conditions(avoid, &numbers)?),
        };
        let rows = (self.model.prepare(&wanted)?, self.model.prepare(&avoided)?);
        let init = match (self.given.take(), self.spec.given) {
            (Some(pcm), Some(given)) => {
                let frames = pcm.len() / config.channels;
                let init = match given {
                    Given::Vary(level) => Init::Vary(level),
                    Given::Pull { mask, strength, ramp } => {
                        let bars = match self.spec.shape {
                            Shape::Loop { bars, .. } => bars,
                            _ => 1,
                        };
                        Init::Pull(loops::pull_weights(mask, config.frames(), bars, ramp), strength)
                    }
                };
                Some((Tensor::from_vec(pcm, (frames, config.channels), &device)?, init))
            }
            _ => None,
        };
        Piece::new(&self.model, rows, self.settings, init, seeded(self.spec.seed, &device))
    }

    fn finish(&self, piece: &Piece) -> Result<Pcm, ModelError> {
        let sound = piece.sound()?;
        let (peak, channels) = (loops::peak(&sound)?, self.model.config.channels);
        let mut pcm: Vec<f32> = sound.flatten_all()?.to_vec1()?;
        loops::normalise(&mut pcm, peak);
        let rate = self.model.config.sample_rate;
        let samples = |seconds: f64| (seconds * f64::from(rate)) as usize;
        match self.spec.shape {
            Shape::Loop { bpm, bars } => {
                pcm = loops::seamless(&pcm, channels, loops::loop_samples(bpm, bars, rate), samples(FADE));
            }
            Shape::First(seconds) => pcm.truncate(samples(seconds) * channels),
            Shape::Window => {}
        }
        Ok(Pcm { pcm, channels, rate: SampleRate(rate) })
    }
}

impl Job for MakeLoop {
    type Output = Pcm;

    fn step(&mut self) -> Result<Step<Pcm>, String> {
        let mut piece = match self.piece.take() {
            Some(piece) => piece,
            None => self.begin().map_err(sentence)?,
        };
        piece.step().map_err(sentence)?;
        if piece.is_complete() {
            return self.finish(&piece).map(Step::Done).map_err(sentence);
        }
        let (done, of) = piece.progress();
        self.piece = Some(piece);
        Ok(Step::Working(done, of))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{standin, tests::run};
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_loop_of_exact_length() {
        let model = standin::looper(1000).unwrap();
        let make = |seed| {
            let settings = LoopSettings { steps: Some(3), guidance: Some(2.0), sampler: None };
            run(MakeLoop::new(&model, spec(Shape::Loop { bpm: 120.0, bars: 2 }, seed), settings, None).unwrap()).0
        };
        let (a, b, c) = (make(1), make(1), make(2));
        assert_eq!(a.pcm.len(), 2 * 4000);
        assert!(a == b && a != c);
        let long = spec(Shape::Loop { bpm: 60.0, bars: 4 }, 0);
        let refused = MakeLoop::new(&model, long, LoopSettings::default(), None).err().unwrap();
        assert!(refused.contains("take 2 bars"), "{refused}");
    }

    #[test]
    fn a_given_sound_is_varied_or_pulls_and_the_shape_says_what_is_handed_out() {
        let model = standin::looper(1000).unwrap();
        let given: Vec<f32> = (0..2 * 3000).map(|i| (i as f32 * 0.05).sin() * 0.4).collect();
        let make = |shape, given_for: Option<Given>| {
            let settings = LoopSettings { steps: Some(2), guidance: Some(1.0), sampler: Some(Sampler::Euler) };
            let spec = LoopSpec { given: given_for, ..spec(shape, 4) };
            run(MakeLoop::new(&model, spec, settings, Some(given.clone())).unwrap()).0.pcm
        };
        let plain = make(Shape::Window, None);
        assert_eq!(plain.len(), 2 * 8192);
        assert_eq!(make(Shape::First(2.5), None), plain[..2 * 2500]);
        let varied = make(Shape::Window, Some(Given::Vary(0.7)));
        let pull = Given::Pull { mask: Mask::Fade, strength: 1.0, ramp: (1.0, 1.0) };
        let pulled = make(Shape::Loop { bpm: 120.0, bars: 2 }, Some(pull));
        assert!(varied != plain && pulled.len() == 2 * 4000);
        assert!(pulled[..2000] != plain[..2000]);
    }

    fn spec(shape: Shape, seed: u64) -> LoopSpec {
        LoopSpec { text: "pads".into(), avoid: String::new(), shape, seconds: None, given: None, seed }
    }
}
