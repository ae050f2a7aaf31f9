//! What transforms and loops are asked for, parsed and bounded once, as the store keeps it.

use serde::{Deserialize, Serialize};

use super::{Preset, Presets, StudioError};
use crate::engine::{
    FineTune, LoopSettings, LoopSpec, MAX_PROMPT_CHARS, RenderKey, RenderSpec, TransformMethod, TransformSettings,
    TransformSpec,
};

/// Work of the models that render.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Render {
    /// A recording turned into another sound.
    Transform(TransformParams),
    /// A loop, or another piece of the loop model's window.
    Loop(LoopParams),
}

impl Render {
    /// The seed that makes it again.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Transform(params) => params.seed,
            Self::Loop(params) => params.spec.seed,
        }
    }

    /// The model that makes it.
    pub fn key(&self) -> RenderKey {
        match self {
            Self::Transform(_) => RenderKey::Transform,
            Self::Loop(params) => RenderKey::Loop(params.model.clone()),
        }
    }

    /// What it is asked to become.
    pub fn text(&self) -> &str {
        match self {
            Self::Transform(params) => &params.prompt,
            Self::Loop(params) => &params.spec.text,
        }
    }
}

/// How a loop is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoopParams {
    /// Weights in place of those that the server was started with.
    pub model: Option<FineTune>,
    /// What it is to be.
    pub spec: LoopSpec,
    /// How it is made.
    pub settings: LoopSettings,
}

impl LoopParams {
    /// As the engine takes it.
    pub fn spec(&self) -> RenderSpec {
        RenderSpec::Loop(self.spec.clone(), self.settings)
    }
}

/// How a recording is transformed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransformParams {
    /// The preset's name; empty is none.
    pub variation: String,
    /// What it becomes, in words.
    pub prompt: String,
    /// Where the way back ends; higher stays closer to the recording.
    pub flowstep: f32,
    /// Whether the midpoint solver is used, rather than Euler's.
    pub midpoint: bool,
    /// Evaluations of the way forth.
    pub steps: usize,
    /// The same seed makes the same sound.
    pub seed: u64,
    /// Whether the result has the recording's rate, rather than the model's.
    pub keeps_rate: bool,
}

impl TransformParams {
    /// As the engine takes it.
    pub fn spec(&self) -> RenderSpec {
        let (text, settings, seed) = (self.prompt.clone(), self.settings(), self.seed);
        RenderSpec::Transform(TransformSpec { text, settings, seed })
    }

    /// How the equation is solved.
    pub fn settings(&self) -> TransformSettings {
        let method = if self.midpoint { TransformMethod::Midpoint } else { TransformMethod::Euler };
        TransformSettings { flowstep: self.flowstep, steps: self.steps, ..TransformSettings::of(method) }
    }
}

/// What a request says of a transform; what it leaves out is the preset's, or the original's
/// default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TransformRequest {
    /// A preset's name; `custom` is none, and wants a prompt.
    pub variation: Option<String>,
    /// Words in place of the preset's.
    pub prompt: Option<String>,
    /// See [`TransformParams::flowstep`].
    pub flowstep: Option<f32>,
    /// `euler` or `midpoint`.
    pub solver: Option<String>,
    /// See [`TransformParams::steps`].
    pub steps: Option<usize>,
    /// A random one when absent.
    pub seed: Option<u64>,
    /// See [`TransformParams::keeps_rate`].
    pub keeps_rate: bool,
}

impl TransformRequest {
    /// Decides what is left out.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] with a sentence that says which value to change.
    pub fn resolve(self, variations: &Presets) -> Result<TransformParams, StudioError> {
        let invalid = |sentence: String| Err(StudioError::Invalid(sentence));
        let midpoint = match self.solver.as_deref() {
            None | Some("euler") => false,
            Some("midpoint") => true,
            Some(other) => return invalid(format!("`solver` is `{other}` but must be `euler` or `midpoint`.")),
        };
        let has_words = self.prompt.as_ref().is_some_and(|prompt| !prompt.trim().is_empty());
        let preset: Option<&Preset> = match self.variation.as_deref() {
            None | Some("" | "custom") if has_words => None,
            None | Some("") => {
                return invalid("Say what the recording is to become: preset=NAME or prompt=TEXT.".into());
            }
            Some("custom") => return invalid("`custom` wants words of your own; send a prompt with it.".into()),
            Some(name) => Some(variations.get(name)?),
        };
        let default = TransformSettings::of(if midpoint { TransformMethod::Midpoint } else { TransformMethod::Euler });
        let prompt = self.prompt.or_else(|| preset.map(|preset| preset.prompt.clone())).unwrap_or_default();
        let chars = prompt.chars().count();
        if chars > MAX_PROMPT_CHARS {
            return invalid(format!("The prompt has {chars} characters; shorten it to {MAX_PROMPT_CHARS}."));
        }
        let steps = match preset {
            Some(preset) if !midpoint => preset.steps,
            _ => default.steps,
        };
        let params = TransformParams {
            variation: self.variation.unwrap_or_default(),
            prompt,
            flowstep: self.flowstep.unwrap_or(preset.map_or(default.flowstep, |preset| preset.flowstep)),
            midpoint,
            steps: self.steps.unwrap_or(steps),
            seed: self.seed.unwrap_or_else(random_seed),
            keeps_rate: self.keeps_rate,
        };
        params.settings().check().map_err(StudioError::Invalid)?;
        Ok(params)
    }
}

/// A seed that JSON keeps exactly, also where numbers are floating-point.
pub fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 11
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resolved(request: TransformRequest) -> Result<TransformParams, StudioError> {
        request.resolve(&Presets::built_in().unwrap())
    }

    #[test]
    fn a_preset_gives_what_the_request_leaves_out() {
        let request = TransformRequest { variation: Some("celtic".into()), ..TransformRequest::default() };
        let params = resolved(request.clone()).unwrap();
        assert_eq!((params.flowstep, params.steps, params.midpoint), (0.12, 25, false));
        assert!(params.prompt.contains("fiddle"));
        let slow = TransformRequest { solver: Some("midpoint".into()), flowstep: Some(0.05), ..request.clone() };
        let slow = resolved(slow).unwrap();
        assert_eq!((slow.flowstep, slow.steps, slow.midpoint), (0.05, 64, true));
        // Any name with words of one's own takes the words; so does `custom`.
        for name in ["celtic", "custom"] {
            let own = TransformRequest {
                variation: Some(name.into()),
                prompt: Some("a choir".into()),
                ..TransformRequest::default()
            };
            assert_eq!(resolved(own).unwrap().prompt, "a choir");
        }
        // Empty words take the place of the preset's, as in the original.
        assert_eq!(resolved(TransformRequest { prompt: Some(String::new()), ..request }).unwrap().prompt, "");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let named = |name: &str| TransformRequest { variation: Some(name.into()), ..TransformRequest::default() };
        for (request, word) in [
            (TransformRequest::default(), "preset=NAME"),
            (named("kazoo"), "no preset `kazoo`"),
            (named("custom"), "words of your own"),
            (TransformRequest { solver: Some("rk4".into()), ..named("celtic") }, "`rk4`"),
            (TransformRequest { flowstep: Some(1.0), ..named("celtic") }, "flow step is 1"),
            (TransformRequest { steps: Some(3), solver: Some("midpoint".into()), ..named("celtic") }, "even number"),
            (TransformRequest { prompt: Some("x".repeat(2000)), ..named("celtic") }, "2000 characters"),
        ] {
            let error = resolved(request).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
