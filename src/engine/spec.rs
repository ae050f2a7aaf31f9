//! What a caller may ask of a voice: prompts, sampling, steering. Parsed and bounded here once; the
//! engine trusts these types.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{EngineError, ModelInfo};
use crate::units::{Frames, ModelId};

/// The longest prompt text accepted, in characters. T5 was trained on 512 tokens; music prompts are
/// short.
pub const MAX_PROMPT_CHARS: usize = 1000;
/// The most prompts blended in one voice.
pub const MAX_PROMPTS: usize = 8;

/// Seconds of nothing new that a voice may have, unless somebody says otherwise.
pub const MAX_STILL: f32 = 4.0;
/// The most that can be asked for: as much sound is held back.
const MOST_STILL: f32 = 30.0;

/// Words by which a prompt asks for a sound that does not move.
const STILL_WORDS: [&str; 12] = [
    "silence",
    "silent",
    "drone",
    "drones",
    "droning",
    "static",
    "motionless",
    "sustained",
    "noise",
    "hum",
    "humming",
    "sine",
];

/// Whether one of the prompts that are heard asks for a sound that does not move.
pub(super) fn asks_for_stillness(prompts: &[WeightedPrompt]) -> bool {
    prompts.iter().filter(|prompt| prompt.weight > 0.0).any(|prompt| {
        let words = prompt.text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
        words.into_iter().any(|word| STILL_WORDS.contains(&word.as_str()))
    })
}

/// One description and its share of the blend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WeightedPrompt {
    /// Free text. Empty means "no description": the voice then generates without guidance.
    pub text: String,
    /// Relative share, at least 0; shares are normalised over the voice's prompts.
    #[serde(default = "one")]
    pub weight: f32,
}

fn one() -> f32 {
    1.0
}

impl From<&str> for WeightedPrompt {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), weight: 1.0 }
    }
}

/// Sampling parameters; what is `None` keeps the voice's present value, or the checkpoint's default
/// for a new voice.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SamplingPatch {
    /// Softmax temperature, 0 (greedy) to 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Keep the `top_k` largest logits; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Classifier-free guidance scale, 0 to 20; 1 means no guidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// Seed of the voice's own random numbers; a random one is drawn when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Sampling parameters with every value decided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sampling {
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// Keep the `top_k` largest logits; 0 keeps all.
    pub top_k: u32,
    /// Classifier-free guidance scale; 1 means no guidance.
    pub guidance: f32,
    /// Seed of the voice's own random numbers.
    pub seed: u64,
}

impl Sampling {
    /// These values with everything that `patch` sets replaced.
    pub fn patched(self, patch: SamplingPatch) -> Self {
        Self {
            temperature: patch.temperature.unwrap_or(self.temperature),
            top_k: patch.top_k.unwrap_or(self.top_k),
            guidance: patch.guidance.unwrap_or(self.guidance),
            seed: patch.seed.unwrap_or(self.seed),
        }
    }
}

/// Sound that a voice continues from, as codes; made by [`super::Engine::encode`].
#[derive(Debug, Clone, PartialEq)]
pub struct Prefix {
    /// `[frames][codebooks]` codes, flattened.
    pub codes: Arc<[u32]>,
    /// [`super::ModelInfo::codec_fingerprint`] of the codec that made them.
    pub fingerprint: u64,
    /// Whether the voice's sound begins with the prefix (decoded again), or behind it.
    pub heard: bool,
    /// Frames at its beginning that are remembered and that the codec is not given: of a prefix
    /// that is heard the sound begins behind them, without what they leave in the codec.
    pub skipped: usize,
}

impl Prefix {
    /// Whether a voice of `info` can continue from it and be `length` frames long.
    pub(super) fn check(&self, info: &ModelInfo, length: Option<u64>) -> Result<(), EngineError> {
        let fits = self.fingerprint == info.codec_fingerprint
            && self.codes.len().is_multiple_of(info.codebooks)
            && self.codes.iter().all(|&code| code < info.card);
        if !fits {
            return Err(EngineError::Invalid(format!("The sound to continue was not encoded for `{}`.", info.id)));
        }
        if length.is_some_and(|length| length <= (self.codes.len() / info.codebooks) as u64) {
            let sentence = "The piece is no longer than the sound that it continues; ask for more.";
            return Err(EngineError::Invalid(sentence.into()));
        }
        Ok(())
    }
}

/// Whom a voice makes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody listens while it is made: it has its share of real time.
    Live,
    /// It takes what live voices leave, as fast as that is.
    Spare,
}

/// A new voice.
#[derive(Debug, Clone)]
pub struct VoiceSpec {
    /// Which loaded model; `None` is the engine's default.
    pub model: Option<ModelId>,
    /// What to play; at least one entry.
    pub prompts: Vec<WeightedPrompt>,
    /// Sampling parameters that differ from the checkpoint's defaults.
    pub sampling: SamplingPatch,
    /// A voice with an end (a clip) has a length, the prefix included; a stream has none.
    pub length: Option<Frames>,
    /// What the voice continues from.
    pub prefix: Option<Prefix>,
    /// Whom it makes wait.
    pub priority: Priority,
    /// How much audio to generate ahead of the reader.
    pub lead: Duration,
    /// Generates nothing before [`super::VoiceControl::resume`].
    pub paused: bool,
    /// Seconds of nothing new after which it goes back and on differently, 1 to 30; 0 never. `None`
    /// is the engine's.
    pub max_still: Option<f32>,
}

impl VoiceSpec {
    /// An endless voice of one prompt with the default lead of eight seconds.
    pub fn endless(prompt: &str) -> Self {
        Self {
            model: None,
            prompts: vec![prompt.into()],
            sampling: SamplingPatch::default(),
            length: None,
            prefix: None,
            priority: Priority::Live,
            lead: Duration::from_secs(8),
            paused: false,
            max_still: None,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with a sentence that says which value to change.
    pub fn validate(&self) -> Result<(), EngineError> {
        validate_prompts(&self.prompts)?;
        validate_sampling(&self.sampling)?;
        self.max_still.map_or(Ok(()), validate_max_still)
    }
}

/// Checks how long a voice may stand still.
///
/// # Errors
/// [`EngineError::Invalid`].
pub fn validate_max_still(seconds: f32) -> Result<(), EngineError> {
    if seconds == 0.0 || (1.0..=MOST_STILL).contains(&seconds) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "`max_still` is {seconds} but must lie between 1 and {MOST_STILL} seconds, or be 0 for never."
    )))
}

/// A change to a running voice; `None` keeps what there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Steer {
    /// The new blend.
    pub prompts: Option<Vec<WeightedPrompt>>,
    /// Seconds over which the new blend replaces the old one; 0 switches at once.
    pub ramp: f32,
    /// New sampling values.
    pub sampling: SamplingPatch,
}

impl Steer {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with a sentence that says which value to change.
    pub fn validate(&self) -> Result<(), EngineError> {
        if let Some(prompts) = &self.prompts {
            validate_prompts(prompts)?;
        }
        if !(0.0..=600.0).contains(&self.ramp) {
            return Err(EngineError::Invalid(format!(
                "`ramp` is {} but must lie between 0 and 600 seconds.",
                self.ramp
            )));
        }
        validate_sampling(&self.sampling)
    }
}

fn validate_prompts(prompts: &[WeightedPrompt]) -> Result<(), EngineError> {
    let invalid = |text: String| Err(EngineError::Invalid(text));
    if prompts.is_empty() {
        return invalid("There is no prompt; send at least one (an empty text means \"no description\").".into());
    }
    if prompts.len() > MAX_PROMPTS {
        return invalid(format!("{} prompts were sent; blend at most {MAX_PROMPTS}.", prompts.len()));
    }
    for prompt in prompts {
        let chars = prompt.text.chars().count();
        if chars > MAX_PROMPT_CHARS {
            return invalid(format!("A prompt has {chars} characters; shorten it to {MAX_PROMPT_CHARS}."));
        }
        if !prompt.weight.is_finite() || prompt.weight < 0.0 {
            return invalid(format!("A prompt's weight is {} but must be a number of at least 0.", prompt.weight));
        }
    }
    if prompts.iter().all(|prompt| prompt.weight == 0.0) {
        return invalid("All prompts have weight 0; give at least one a positive weight.".into());
    }
    Ok(())
}

fn validate_sampling(sampling: &SamplingPatch) -> Result<(), EngineError> {
    let check = |name: &str, value: Option<f32>, low: f32, high: f32| match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(EngineError::Invalid(format!("`{name}` is {value} but must lie between {low} and {high}.")))
        }
        _ => Ok(()),
    };
    check("temperature", sampling.temperature, 0.0, 4.0)?;
    check("guidance", sampling.guidance, 0.0, 20.0)?;
    match sampling.top_k {
        Some(top_k) if top_k > 65_536 => {
            Err(EngineError::Invalid(format!("`top_k` is {top_k} but must be at most 65536; 0 keeps every code.")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_asks_for_stillness_by_a_whole_word() {
        for text in ["a dark drone", "Silence", "white-noise, soft", "low hum"] {
            assert!(asks_for_stillness(&[text.into()]), "{text}");
        }
        for text in ["calm ambient", "human voices", "drum and bass", "still waters, piano", ""] {
            assert!(!asks_for_stillness(&[text.into()]), "{text}");
        }
        let unheard = WeightedPrompt { text: "drone".into(), weight: 0.0 };
        assert!(!asks_for_stillness(&[unheard, "piano".into()]));
    }
}
