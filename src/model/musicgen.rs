//! A whole MusicGen: text encoder, decoder and codec, loaded from any layout.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use tokenizers::Tokenizer;

use super::{
    Checkpoint, Files,
    config::Config,
    decoder::{Decoder, Prompt},
    encodec::Codec,
    error::{ModelError, Result},
    kernels::WeightFormat,
    t5::T5Encoder,
    text::TextEncoder,
    weights::{RandomSource, Target, TensorSource, Weights},
};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// A MusicGen with its weights.
pub struct MusicGen {
    /// Everything but the weights.
    pub config: Config,
    /// Texts to states; absent in a model of random weights made without it.
    pub text: Option<Arc<TextEncoder>>,
    /// Columns to logits.
    pub decoder: Arc<Decoder>,
    /// Codes to sound and back.
    pub codec: Arc<Codec>,
    /// How the decoder's weights are kept.
    pub format: WeightFormat,
    /// Bytes of all its weights in memory.
    pub bytes: u64,
}

impl MusicGen {
    /// Loads a checkpoint. `companion` finds a published model by its Hugging Face id: audiocraft
    /// exports leave out the text encoder and often the codec.
    ///
    /// # Errors
    /// A [`ModelError`] that names the file.
    pub fn load(files: &Files, companion: &dyn Fn(&str) -> Result<Files>, target: &Target) -> Result<Self> {
        Self::load_as(files, companion, |_| Ok(target.clone()))
    }

    /// [`MusicGen::load`] where the sizes say how: `choose` may shorten the window.
    ///
    /// # Errors
    /// As [`MusicGen::load`], and those of `choose`.
    pub fn load_as(
        files: &Files,
        companion: &dyn Fn(&str) -> Result<Files>,
        choose: impl FnOnce(&mut Config) -> Result<Target>,
    ) -> Result<Self> {
        let Checkpoint { config, generation, weights, tokenizer } =
            Checkpoint::open(files, companion, DType::F32, &Device::Cpu)?;
        let mut config = Config::from_hf(&config, &generation).map_err(|reason| files.wrong(CONFIG, reason))?;
        let tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|error| files.wrong(TOKENIZER, error))?;
        let target = choose(&mut config)?;
        Self::build(config, &weights, Some(tokenizer), &target)
    }

    /// From one source that holds everything under Hugging Face names.
    fn build(config: Config, source: &dyn TensorSource, tokenizer: Option<Tokenizer>, target: &Target) -> Result<Self> {
        let weights = Weights::new(source, target);
        let mut bytes = 0;
        let text = match tokenizer {
            Some(tokenizer) => {
                // It runs once per text: nothing is gained by rounding its weights.
                let exact = Target { format: WeightFormat::F32, ..target.clone() };
                let exact = Weights::new(source, &exact);
                let t5 = T5Encoder::new(&config.text, &exact.at("text_encoder"))?;
                bytes = exact.bytes();
                Some(Arc::new(TextEncoder::new(tokenizer, t5)))
            }
            None => None,
        };
        let decoder = Arc::new(Decoder::new(&config.decoder, &weights)?);
        let codec = Arc::new(Codec::new(&config.codec, &weights.at("audio_encoder"))?);
        bytes += weights.bytes();
        Ok(Self { config, text, decoder, codec, format: target.format, bytes })
    }

    /// A model of random weights at any size, without a text encoder: for benchmarks.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn random(config: Config, seed: u64, target: &Target) -> Result<Self> {
        Self::build(config, &RandomSource(seed), None, target)
    }

    /// What stands for a text in a model of random weights: one state per word, made up from its
    /// letters.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn made_up_states(&self, text: &str) -> Result<Tensor> {
        self.texts().made_up(text)
    }

    /// One line for people: family and size.
    pub fn description(&self) -> String {
        let decoder = &self.config.decoder;
        let layout = if self.config.channels() == 2 { "stereo" } else { "mono" };
        format!(
            "MusicGen, {layout}, {} layers of {}, {} codebooks of {}, {} Hz",
            decoder.layers, decoder.hidden, decoder.codebooks, decoder.card, self.config.codec.sample_rate
        )
    }

    /// Codes `[frames][codebooks]` of a voice as a batch for the codec: `[streams, frames, books per
    /// stream]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for codes that the codec does not have.
    pub fn to_channels(&self, codes: &[u32]) -> Result<Tensor> {
        let (books, channels) = (self.config.decoder.codebooks, self.config.decoder.channels);
        if let Some(code) = codes.iter().find(|code| **code as usize >= self.config.codec.card) {
            return Err(ModelError::Input(format!("{code} is not a code of the codec.")));
        }
        let frames = codes.len() / books;
        let mut split: Vec<u32> = Vec::with_capacity(codes.len());
        for channel in 0..channels {
            for frame in codes.chunks_exact(books) {
                split.extend(frame.iter().skip(channel).step_by(channels));
            }
        }
        Ok(Tensor::from_vec(split, (channels, frames, books / channels), self.device())?)
    }

    /// The way from sound to codes, for other threads.
    pub fn encoder(&self) -> WaveEncoder {
        let decoder = &self.config.decoder;
        WaveEncoder {
            codec: self.codec.clone(),
            books: decoder.codebooks,
            streams: decoder.channels,
            device: self.device().clone(),
        }
    }

    /// The way from texts to what the decoder is conditioned on, for other threads.
    pub fn texts(&self) -> TextConditioner {
        TextConditioner { text: self.text.clone(), width: self.config.text.d_model, decoder: self.decoder.clone() }
    }

    /// Encodes sound `[channels][samples]` at the codec's rate to codes `[frames][codebooks]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another number of channels.
    pub fn encode(&self, channels: &[Vec<f32>]) -> Result<Vec<u32>> {
        self.encoder().codes(channels)
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Device {
        &self.decoder.target().device
    }
}

/// The half of a MusicGen that turns sound into codes; clones of weights are shared.
pub struct WaveEncoder {
    codec: Arc<Codec>,
    books: usize,
    /// Streams of codes.
    streams: usize,
    device: Device,
}

impl WaveEncoder {
    /// See [`MusicGen::encode`].
    ///
    /// # Errors
    /// [`ModelError::Input`] for another number of channels.
    pub fn codes(&self, channels: &[Vec<f32>]) -> Result<Vec<u32>> {
        let (streams, sides) = (self.streams, self.codec.config.channels);
        let count = streams * sides;
        let samples = channels.first().map_or(0, Vec::len);
        if channels.len() != count || samples == 0 || channels.iter().any(|channel| channel.len() != samples) {
            return Err(ModelError::Input(format!("The model needs {count} channels of equal, positive length.")));
        }
        let waves = Tensor::from_vec(channels.concat(), (streams, sides, samples), &self.device)?;
        let waves = waves.transpose(1, 2)?.contiguous()?;
        let codes = self.codec.encode(&waves)?.narrow(2, 0, self.books / streams)?;
        // [streams, frames, books] to [frames, books, streams]: left before right in every pair.
        Ok(codes.permute((1, 2, 0))?.flatten_all()?.to_vec1()?)
    }
}

/// The part of a MusicGen that reads texts; clones of weights are shared.
pub struct TextConditioner {
    text: Option<Arc<TextEncoder>>,
    width: usize,
    decoder: Arc<Decoder>,
}

impl TextConditioner {
    /// A text as the decoder's cross-attention takes it.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn prompt(&self, text: &str) -> Result<Arc<Prompt>> {
        let states = match &self.text {
            Some(encoder) => encoder.encode(text)?,
            None => self.made_up(text)?,
        };
        self.decoder.prepare(&states, 0)
    }

    fn made_up(&self, text: &str) -> Result<Tensor> {
        let width = self.width;
        let words: Vec<u32> = text.split(' ').map(|word| word.bytes().map(u32::from).sum()).collect();
        let value = |i: usize| ((words[i / width] as usize + i * 7919) % 2003) as f32 / 1001.5 - 1.0;
        let states: Vec<f32> = (0..words.len() * width).map(value).collect();
        Ok(Tensor::from_vec(states, (words.len(), width), &self.decoder.target().device)?)
    }
}
