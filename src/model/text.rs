//! From a text to the states of a T5 encoder.

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::t5;
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::{
    Files,
    error::{ModelError, Result},
    kernels::WeightFormat,
    t5::T5Encoder,
    weights::{Target, Weights},
};

/// Tokens of a text that the encoder reads; what lies beyond is cut.
const MAX_TOKENS: usize = 512;

/// Tokenizer and T5.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// The network.
    pub t5: T5Encoder,
}

impl TextEncoder {
    /// From its parts.
    pub fn new(tokenizer: Tokenizer, t5: T5Encoder) -> Self {
        Self { tokenizer, t5 }
    }

    /// Loads a published T5: `config.json`, `model.safetensors` and `tokenizer.json`; its decoder
    /// is left out.
    ///
    /// # Errors
    /// A [`ModelError`] that names the file.
    pub fn load(files: &Files, target: &Target) -> Result<Self> {
        let wrong = |file: &str, reason: String| files.wrong(file, reason);
        let mut config = files.json("config.json")?;
        // Old exports leave out what is as in T5 1.0, and the library's defaults are others.
        if let Some(config) = config.as_object_mut() {
            config.entry("feed_forward_proj").or_insert_with(|| "relu".into());
            config.entry("relative_attention_max_distance").or_insert_with(|| 128.into());
        }
        let config = t5::Config::deserialize(config);
        let config = config.map_err(|error| wrong("config.json", error.to_string()))?;
        let tokenizer = Tokenizer::from_bytes(files.read("tokenizer.json")?);
        let tokenizer = tokenizer.map_err(|error| wrong("tokenizer.json", error.to_string()))?;
        let source = files.weights(DType::F32, &Device::Cpu)?;
        // It runs once per text: nothing is gained by rounding its weights.
        let exact = Target { format: WeightFormat::F32, ..target.clone() };
        Ok(Self::new(tokenizer, T5Encoder::new(&config, &Weights::new(&source, &exact))?))
    }

    /// Width of the states.
    pub fn width(&self) -> usize {
        self.t5.width()
    }

    /// Token ids of a text, the end token included.
    ///
    /// # Errors
    /// [`ModelError::Input`].
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokens_within(text, MAX_TOKENS)
    }

    /// Token ids of a text, the end token included; what lies beyond `most` is cut, the end token
    /// never.
    ///
    /// # Errors
    /// [`ModelError::Input`].
    pub fn tokens_within(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, true);
        let encoding =
            encoding.map_err(|error| ModelError::Input(format!("The text cannot be tokenised: {error}.")))?;
        let mut ids = encoding.get_ids().to_vec();
        if ids.len() > most {
            let end = ids[ids.len() - 1];
            ids.truncate(most - 1);
            ids.push(end);
        }
        Ok(ids)
    }

    /// States `[length, width]` of a text.
    ///
    /// # Errors
    /// [`ModelError::Input`], [`ModelError::Tensor`].
    pub fn encode(&self, text: &str) -> Result<Tensor> {
        Ok(self.t5.forward(&[self.tokens(text)?], None, &mut |_, _| {})?.squeeze(0)?)
    }
}
