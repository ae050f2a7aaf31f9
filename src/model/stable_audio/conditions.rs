//! What a piece is to be: a text, and numbers such as its length in seconds.

use candle_core::{D, Device, Tensor};

use super::{
    super::{
        error::{ModelError, Result},
        kernels::Linear,
        text::TextEncoder,
        weights::Weights,
    },
    config::{NumberConfig, StableConfig},
};

/// Frequencies of a number's features.
const FREQUENCIES: usize = 128;

/// Conditions of one piece before the transformer prepares them.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Attended to: `[tokens, width]`, zeros where a text has ended.
    pub tokens: Tensor,
    /// `[1, width * numbers]`.
    pub global: Tensor,
}

impl Conditions {
    /// What takes the place of a text that one wants to keep away from: nothing at all, with the
    /// same global condition.
    ///
    /// # Errors
    /// When the device fails.
    pub fn nothing(&self) -> Result<Self> {
        Ok(Self { tokens: self.tokens.zeros_like()?, global: self.global.clone() })
    }

    /// Another text's tokens with this one's global condition.
    pub fn against(&self, other: &Self) -> Self {
        Self { tokens: other.tokens.clone(), global: self.global.clone() }
    }
}

/// Turns texts and numbers into [`Conditions`].
pub struct Conditioner {
    text: Option<TextEncoder>,
    project: Option<Linear>,
    numbers: Vec<(NumberConfig, Vec<f32>, Linear)>,
    tokens: usize,
    width: usize,
    prompt: String,
    cross: Vec<String>,
    global: Vec<String>,
    device: Device,
}

impl Conditioner {
    /// Reads the weights below `weights`; without a text encoder texts are made up.
    ///
    /// # Errors
    /// [`ModelError::Weight`].
    pub fn new(config: &StableConfig, weights: &Weights<'_>, text: Option<TextEncoder>) -> Result<Self> {
        let width = config.cond_width;
        let numbers = config.numbers.iter().map(|number| {
            let here = weights.at(format!("{}.embedder.embedding", number.id));
            let frequencies: Vec<f32> = here.get("0.weights", &[FREQUENCIES])?.to_vec1()?;
            Ok((number.clone(), frequencies, here.linear("1", width, 2 * FREQUENCIES + 1, true)?))
        });
        let project = match &text {
            Some(text) if text.width() != width => {
                Some(weights.linear(&format!("{}.proj_out", config.prompt), width, text.width(), true)?)
            }
            _ => None,
        };
        Ok(Self {
            numbers: numbers.collect::<Result<_>>()?,
            project,
            text,
            tokens: config.tokens,
            width,
            prompt: config.prompt.clone(),
            cross: config.cross.clone(),
            global: config.global.clone(),
            device: weights.target().device.clone(),
        })
    }

    /// The text encoder.
    pub fn encoder(&self) -> Option<&TextEncoder> {
        self.text.as_ref()
    }

    /// Token ids of a text, filled up with 0 to the model's number, and 1 for each that is real.
    ///
    /// # Errors
    /// [`ModelError::Input`].
    pub fn tokens(&self, text: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        let encoder = self.text.as_ref().ok_or_else(|| ModelError::Input("This model has no text encoder.".into()))?;
        let mut ids = encoder.tokens_within(text, self.tokens)?;
        let mut mask = vec![1; ids.len()];
        ids.resize(self.tokens, 0);
        mask.resize(self.tokens, 0);
        Ok((ids, mask))
    }

    /// The text condition `[tokens, width]`.
    ///
    /// # Errors
    /// [`ModelError::Input`].
    pub fn text(&self, text: &str, tap: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let Some(encoder) = &self.text else {
            // Random weights: zeros do as well as anything.
            return Ok(Tensor::zeros((self.tokens, self.width), candle_core::DType::F32, &self.device)?);
        };
        let (ids, mask) = self.tokens(text)?;
        let keep: Vec<f32> = mask.iter().map(|keep| *keep as f32).collect();
        let states = encoder.t5.forward(&[ids], Some(&[mask]), &mut |_, _| {})?;
        tap("t5_hidden", &states);
        let states = match &self.project {
            Some(project) => states.apply(project)?,
            None => states,
        };
        let keep = Tensor::from_vec(keep, (self.tokens, 1), states.device())?;
        Ok(states.squeeze(0)?.broadcast_mul(&keep)?)
    }

    /// The condition `[1, width]` that a number makes.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a name that the model does not know.
    pub fn number(&self, id: &str, value: f32) -> Result<Tensor> {
        let found = self.numbers.iter().find(|(number, ..)| number.id == id);
        let (number, frequencies, linear) =
            found.ok_or_else(|| ModelError::Input(format!("The model knows no number `{id}`.")))?;
        let x = (value.clamp(number.min, number.max) - number.min) / (number.max - number.min);
        let angle = |w: &f32| std::f32::consts::TAU * x * w;
        let mut features = vec![x];
        features.extend(frequencies.iter().map(|w| angle(w).sin()));
        features.extend(frequencies.iter().map(|w| angle(w).cos()));
        let features = Tensor::from_vec(features, (1, 2 * FREQUENCIES + 1), &self.device)?;
        Ok(features.apply(linear)?)
    }

    /// Everything together; a number that is not among `values` counts as 0.
    ///
    /// # Errors
    /// [`ModelError::Input`].
    pub fn conditions(&self, text: &str, values: &[(&str, f32)]) -> Result<Conditions> {
        let number = |id: &String| {
            let value = values.iter().find(|(name, _)| name == id).map_or(0.0, |(_, value)| *value);
            self.number(id, value)
        };
        let part = |id: &String| if *id == self.prompt { self.text(text, &mut |_, _| {}) } else { number(id) };
        let tokens = self.cross.iter().map(part).collect::<Result<Vec<_>>>()?;
        let global = self.global.iter().map(number).collect::<Result<Vec<_>>>()?;
        Ok(Conditions { tokens: Tensor::cat(&tokens, 0)?, global: Tensor::cat(&global, D::Minus1)? })
    }
}
