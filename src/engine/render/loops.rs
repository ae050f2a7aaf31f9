//! Loops, and other pieces of a window, made by Stable Audio.

use std::sync::Arc;

use candle_core::Tensor;

use super::super::{DeviceKind, Job, Step};
use super::spec::FADE;
use super::{
    Given, LoopSettings, LoopSpec, Mask, RenderBackend, RenderInfo, RenderJob, RenderSpec, Sampler, Shape,
    other_family, sentence,
};
use crate::bars::tempo;
use crate::model::ModelError;
use crate::model::stable_audio::{self, DenoiseTask, Init, Objective, PieceSettings, StableAudio, loops};
use crate::model::vae::seeded;
use crate::pcm::Pcm;
use crate::units::SampleRate;

impl LoopSettings {
    fn on(self, model: &StableAudio) -> PieceSettings {
        let (sampler, steps) = match model.config.objective {
            Objective::RfDenoiser => (self.sampler.unwrap_or(Sampler::PingPong), 8),
            Objective::RectifiedFlow => (Sampler::Euler, 50),
        };
        let (steps, guidance) = (self.steps.unwrap_or(steps), self.guidance.unwrap_or(6.0));
        PieceSettings { sampler: sampler.into(), steps, guidance }
    }
}

impl From<Sampler> for stable_audio::Sampler {
    fn from(sampler: Sampler) -> Self {
        match sampler {
            Sampler::PingPong => Self::PingPong,
            Sampler::Euler => Self::Euler,
            Sampler::Dpmpp => Self::Dpmpp,
        }
    }
}

impl From<Mask> for loops::Mask {
    fn from(mask: Mask) -> Self {
        match mask {
            Mask::FirstBar => Self::FirstBar,
            Mask::Full => Self::Full,
            Mask::Fade => Self::Fade,
        }
    }
}

impl RenderBackend for StableAudio {
    fn info(&self) -> RenderInfo {
        RenderInfo {
            rate: SampleRate(self.config.sample_rate),
            channels: self.config.channels,
            window: self.config.window,
            objective: match self.config.objective {
                Objective::RfDenoiser => "rf_denoiser",
                Objective::RectifiedFlow => "rectified_flow",
            },
            steps: LoopSettings::default().on(self).steps,
            device: DeviceKind::from(&self.target().device),
        }
    }

    fn check(&self, spec: &RenderSpec) -> Result<(), String> {
        match spec {
            RenderSpec::Loop(spec, _) => self.info().fits(spec.shape),
            RenderSpec::Transform(_) => Err(other_family("loops")),
        }
    }

    fn begin(self: Arc<Self>, spec: RenderSpec, given: Option<Vec<f32>>) -> Result<RenderJob, String> {
        self.check(&spec)?;
        let RenderSpec::Loop(spec, settings) = spec else { return Err(other_family("loops")) };
        let settings = settings.on(&self);
        Ok(Box::new(MakeLoop { model: self, spec, settings, given, piece: None }))
    }
}

/// A piece of a window's length at most: a loop, a beginning, or all of it.
struct MakeLoop {
    model: Arc<StableAudio>,
    spec: LoopSpec,
    settings: PieceSettings,
    /// Interleaved, at the model's rate.
    given: Option<Vec<f32>>,
    piece: Option<DenoiseTask>,
}

impl MakeLoop {
    fn begin(&mut self) -> Result<DenoiseTask, ModelError> {
        let device = self.model.target().device.clone();
        let config = &self.model.config;
        let text = match (self.spec.shape, tempo(&self.spec.text)) {
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
                        Init::LatentGuidance(loops::pull_weights(mask.into(), config.frames(), bars, ramp), strength)
                    }
                };
                Some((Tensor::from_vec(pcm, (frames, config.channels), &device)?, init))
            }
            _ => None,
        };
        DenoiseTask::new(&self.model, rows, self.settings, init, seeded(self.spec.seed, &device))
    }

    fn finish(&self, piece: &DenoiseTask) -> Result<Pcm, ModelError> {
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
            let spec = spec(Shape::Loop { bpm: 120.0, bars: 2 }, seed);
            run(Arc::clone(&model).begin(RenderSpec::Loop(spec, settings), None).unwrap()).0
        };
        let (a, b, c) = (make(1), make(1), make(2));
        assert_eq!(a.pcm.len(), 2 * 4000);
        assert!(a == b && a != c);
        let long = spec(Shape::Loop { bpm: 60.0, bars: 4 }, 0);
        let refused = model.check(&RenderSpec::Loop(long, LoopSettings::default())).unwrap_err();
        assert!(refused.contains("take 2 bars"), "{refused}");
    }

    #[test]
    fn a_given_sound_is_varied_or_pulls_and_the_shape_says_what_is_handed_out() {
        let model = standin::looper(1000).unwrap();
        let given: Vec<f32> = (0..2 * 3000).map(|i| (i as f32 * 0.05).sin() * 0.4).collect();
        let make = |shape, given_for: Option<Given>| {
            let settings = LoopSettings { steps: Some(2), guidance: Some(1.0), sampler: Some(Sampler::Euler) };
            let spec = LoopSpec { given: given_for, ..spec(shape, 4) };
            run(Arc::clone(&model).begin(RenderSpec::Loop(spec, settings), Some(given.clone())).unwrap()).0.pcm
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
