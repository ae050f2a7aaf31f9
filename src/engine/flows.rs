//! Transforms and loops as jobs for the engine's thread, on the models of `model/melodyflow` and `model/stable_audio`.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;

use super::solve::{Job, Step};
use crate::model::ModelError;
use crate::model::melodyflow::{Edit, EditSettings, MelodyFlow};
use crate::model::stable_audio::{Init, Objective, Piece, PieceSettings, Sampler, StableAudio, loops};
use crate::model::vae::seeded;
use crate::units::SampleRate;

/// Sound as a job hands it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Interleaved samples, nominally within -1..1 but not clipped.
    pub pcm: Vec<f32>,
    /// Channels.
    pub channels: usize,
    /// Frames per second.
    pub rate: SampleRate,
}

/// The weights of a transform model.
pub type TransformModel = Arc<MelodyFlow>;
/// The weights of a loop model.
pub type LoopModel = Arc<StableAudio>;
pub use crate::model::melodyflow::{EditSettings as FlowSettings, Method as FlowMethod};

/// How a loop is made; what is `None` is as the model was trained.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoopSettings {
    /// Steps of denoising.
    pub steps: Option<usize>,
    /// How strongly to follow the text; 1 takes half the time.
    pub guidance: Option<f64>,
}

impl LoopSettings {
    /// With every value decided.
    pub fn on(self, model: &LoopModel) -> PieceSettings {
        let (sampler, steps) = match model.config.objective {
            Objective::RfDenoiser => (Sampler::PingPong, 8),
            Objective::RectifiedFlow => (Sampler::Euler, 50),
        };
        PieceSettings { sampler, steps: self.steps.unwrap_or(steps), guidance: self.guidance.unwrap_or(6.0) }
    }
}

/// Seconds that two parts of a long recording share, to be faded over.
const OVERLAP: f64 = 2.0;

fn sentence(error: ModelError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

/// A recording turned into another sound. One that is longer than the model's longest clip is done in parts.
pub struct Transform {
    model: Arc<MelodyFlow>,
    text: String,
    settings: EditSettings,
    seed: u64,
    channels: usize,
    /// Parts to be done: first frame and interleaved samples.
    parts: VecDeque<(usize, Vec<f32>)>,
    count: usize,
    edit: Option<(usize, usize, Edit)>,
    done: Vec<f32>,
}

impl Transform {
    /// Turns interleaved `pcm` at the model's rate and channels into what `text` says. The same seed gives the same
    /// sound; the result is as long as the recording.
    ///
    /// # Errors
    /// A sentence for settings out of bounds or a recording without sound.
    pub fn new(
        model: &Arc<MelodyFlow>,
        pcm: &[f32],
        text: &str,
        settings: EditSettings,
        seed: u64,
    ) -> Result<Self, String> {
        settings.check().map_err(sentence)?;
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
        Ok(Self {
            model: model.clone(),
            text: text.to_owned(),
            settings,
            seed,
            channels: codec.channels,
            count: parts.len(),
            parts,
            edit: None,
            done: Vec::new(),
        })
    }

    fn begin(&mut self) -> Result<Option<(usize, usize, Edit)>, ModelError> {
        let Some((from, pcm)) = self.parts.pop_front() else { return Ok(None) };
        let device = &self.model.target().device;
        let frames = pcm.len() / self.channels;
        let sound = Tensor::from_vec(pcm, (frames, self.channels), device)?;
        let target = self.model.prepare(&self.text)?;
        // One seed for all parts: what they share begins from the same noise.
        let draws = seeded(self.seed, device);
        let edit = Edit::new(&self.model, sound, (None, vec![target]), self.settings, draws)?;
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
    type Output = Rendered;

    fn step(&mut self) -> Result<Step<Rendered>, String> {
        if self.edit.is_none() {
            self.edit = self.begin().map_err(sentence)?;
        }
        let Some((from, frames, edit)) = &mut self.edit else {
            let rate = SampleRate(self.model.config.codec.sample_rate);
            let pcm = std::mem::take(&mut self.done);
            return Ok(Step::Done(Rendered { pcm, channels: self.channels, rate }));
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

/// What a loop is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopSpec {
    /// What to play; the tempo need not be in it.
    pub text: String,
    /// What to keep away from; it counts with guidance only.
    pub avoid: String,
    /// Beats per minute.
    pub bpm: f64,
    /// Bars of four beats.
    pub bars: u32,
    /// The same seed gives the same loop.
    pub seed: u64,
}

/// Seconds of a loop's end that are faded into its beginning.
const FADE: f64 = 0.03;

/// A loop of exact length whose end goes on into its beginning.
pub struct MakeLoop {
    model: Arc<StableAudio>,
    spec: LoopSpec,
    settings: PieceSettings,
    /// A sound to start from, interleaved at the model's rate, and how.
    init: Option<(Vec<f32>, Init)>,
    piece: Option<Piece>,
}

impl MakeLoop {
    /// # Errors
    /// A sentence when the loop does not fit into the model's window.
    pub fn new(
        model: &Arc<StableAudio>,
        spec: LoopSpec,
        settings: PieceSettings,
        init: Option<(Vec<f32>, Init)>,
    ) -> Result<Self, String> {
        let seconds = loops::bar_seconds(spec.bpm) * f64::from(spec.bars);
        let most = model.config.seconds() - FADE;
        if !(30.0..=400.0).contains(&spec.bpm) || spec.bars == 0 {
            return Err(format!("{} bars at {} bpm make no loop; take 30 to 400 bpm", spec.bars, spec.bpm));
        }
        if seconds > most {
            return Err(format!(
                "{} bars at {} bpm are {seconds:.1} s, but the model makes {most:.1} s; take {} bars or a faster tempo",
                spec.bars,
                spec.bpm,
                loops::fitting_bars(spec.bpm, most)
            ));
        }
        Ok(Self { model: model.clone(), spec, settings, init, piece: None })
    }

    fn begin(&mut self) -> Result<Piece, ModelError> {
        let device = self.model.target().device.clone();
        let text = match loops::tempo(&self.spec.text) {
            Some(_) => self.spec.text.clone(),
            None => format!("{} {}bpm", self.spec.text, self.spec.bpm),
        };
        let numbers = [("seconds_total", self.model.config.seconds().floor() as f32)];
        let conditioner = &self.model.conditioner;
        let wanted = conditioner.conditions(&text, &numbers)?;
        let avoided = match self.spec.avoid.as_str() {
            "" => wanted.nothing()?,
            avoid => wanted.against(&conditioner.conditions(avoid, &numbers)?),
        };
        let rows = (self.model.prepare(&wanted)?, self.model.prepare(&avoided)?);
        let channels = self.model.config.channels;
        let init = match self.init.take() {
            Some((pcm, init)) => {
                let frames = pcm.len() / channels;
                Some((Tensor::from_vec(pcm, (frames, channels), &device)?, init))
            }
            None => None,
        };
        Piece::new(&self.model, rows, self.settings, init, seeded(self.spec.seed, &device))
    }

    fn finish(&self, piece: &Piece) -> Result<Rendered, ModelError> {
        let sound = piece.sound()?;
        let (peak, channels) = (loops::peak(&sound)?, self.model.config.channels);
        let mut pcm: Vec<f32> = sound.flatten_all()?.to_vec1()?;
        loops::normalise(&mut pcm, peak);
        let rate = self.model.config.sample_rate;
        let frames = loops::loop_samples(self.spec.bpm, self.spec.bars, rate);
        let fade = (FADE * f64::from(rate)) as usize;
        Ok(Rendered { pcm: loops::seamless(&pcm, channels, frames, fade), channels, rate: SampleRate(rate) })
    }
}

impl Job for MakeLoop {
    type Output = Rendered;

    fn step(&mut self) -> Result<Step<Rendered>, String> {
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

    use candle_core::Device;

    use super::*;
    use crate::model::melodyflow::FlowConfig;
    use crate::model::stable_audio::{DitConfig, OobleckConfig, StableConfig};
    use crate::model::weights::Target;

    fn run<J: Job>(mut job: J) -> (J::Output, usize) {
        for steps in 1.. {
            if let Step::Done(output) = job.step().unwrap() {
                return (output, steps);
            }
        }
        unreachable!("a job ends")
    }

    fn flow() -> Arc<MelodyFlow> {
        let published = FlowConfig::published();
        let mut codec = published.codec.clone();
        (codec.dim, codec.filters, codec.sample_rate) = (4, 2, 1920 * 4);
        let config =
            FlowConfig { width: 16, heads: 2, layers: 4, ffn: 32, latents: 4, seconds: 3.0, codec, ..published };
        MelodyFlow::random(config, 3, &Target::new(&Device::Cpu)).unwrap()
    }

    fn looper() -> Arc<StableAudio> {
        let dit = DitConfig {
            width: 64,
            depth: 2,
            heads: 2,
            cond_width: 8,
            global_width: 8,
            project_cond: true,
            head_norm: true,
        };
        let vae = OobleckConfig { channels: 2, multiples: vec![1, 2], strides: vec![2, 4], tanh: false };
        let published = StableConfig::published();
        let config = StableConfig {
            sample_rate: 1000,
            window: 8192,
            latents: 4,
            cond_width: 8,
            tokens: 4,
            dit,
            vae,
            ..published
        };
        StableAudio::random(config, 3, &Target::new(&Device::Cpu)).unwrap()
    }

    #[test]
    fn a_transform_is_as_long_as_its_recording_however_long_that_is() {
        let model = flow();
        let settings = EditSettings { steps: 2, ..EditSettings::of(crate::model::melodyflow::Method::Euler) };
        for frames in [1000, 7680 * 3, 7680 * 5 + 17] {
            let pcm: Vec<f32> = (0..frames * 2).map(|i| (i as f32 * 0.01).sin() * 0.3).collect();
            let (rendered, steps) = run(Transform::new(&model, &pcm, "", settings, 5).unwrap());
            assert_eq!((rendered.pcm.len(), rendered.channels), (pcm.len(), 2));
            assert!(rendered.pcm.iter().all(|sample| sample.is_finite()));
            // One layer at a time: nobody waits for a whole evaluation.
            assert!(steps > 4 * 6, "{steps} steps");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_loop_of_exact_length() {
        let model = looper();
        let make = |seed| {
            let spec = LoopSpec { text: "pads".into(), avoid: String::new(), bpm: 120.0, bars: 2, seed };
            let settings = PieceSettings { sampler: Sampler::PingPong, steps: 3, guidance: 2.0 };
            run(MakeLoop::new(&model, spec, settings, None).unwrap()).0
        };
        let (a, b, c) = (make(1), make(1), make(2));
        assert_eq!(a.pcm.len(), 2 * 4000);
        assert!(a == b && a != c);
        let spec = LoopSpec { text: "pads".into(), avoid: String::new(), bpm: 60.0, bars: 4, seed: 0 };
        let settings = PieceSettings { sampler: Sampler::Euler, steps: 3, guidance: 1.0 };
        let refused = MakeLoop::new(&model, spec, settings, None).err().unwrap();
        assert!(refused.contains("take 2 bars"), "{refused}");
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
