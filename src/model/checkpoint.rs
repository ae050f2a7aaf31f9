//! A checkpoint in the Hugging Face layout, whatever layout it was stored in.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde_json::Value;

use super::{Files, ModelError, audiocraft};

/// Configuration, weights and tokenizer of a MusicGen model.
pub struct Checkpoint {
    /// As `config.json`: `text_encoder`, `audio_encoder`, `decoder`.
    pub config: Value,
    /// As `generation_config.json`; an empty object when there is none.
    pub generation: Value,
    /// Tensors by their Hugging Face names (`text_encoder.`, `audio_encoder.`, `decoder.`,
    /// `enc_to_dec_proj.`).
    pub weights: VarBuilder<'static>,
    /// Bytes of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
}

impl Checkpoint {
    /// Opens a checkpoint of either family. `companion` finds a published model by its Hugging Face
    /// id: audiocraft exports leave out the text encoder and often the codec.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Wrong`], and what `companion` answers.
    pub fn open(
        files: &Files,
        companion: &dyn Fn(&str) -> Result<Files, ModelError>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        if !files.has("config.json") && files.has(audiocraft::LM) {
            return audiocraft::open(files, companion, dtype, device);
        }
        let config = files.json("config.json")?;
        for part in ["text_encoder", "audio_encoder", "decoder"] {
            if !config[part].is_object() {
                return Err(files.wrong("config.json", format!("it has no `{part}`: this is no MusicGen checkpoint")));
            }
        }
        let generation = if files.has("generation_config.json") {
            files.json("generation_config.json")?
        } else {
            Value::Object(serde_json::Map::new())
        };
        Ok(Self {
            config,
            generation,
            weights: files.weights(dtype, device)?,
            tokenizer: files.read("tokenizer.json")?.into_owned(),
        })
    }
}
