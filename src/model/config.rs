//! What a checkpoint says about itself, whatever layout it came in.
//!
//! Parsed from the Hugging Face `config.json` (audiocraft's YAML is turned into one before). Values
//! that the code does not implement are refused by name.

use candle_transformers::models::t5;
use serde::Deserialize;
use serde_json::Value;

/// Sizes of a MusicGen decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Codebooks of all channels together.
    pub codebooks: usize,
    /// Codes per codebook; the id of this value is the pad id.
    pub card: usize,
    /// Streams of codes, each of them sound of its own for the codec: 1 or 2.
    pub channels: usize,
    /// Width of the text encoder's states.
    pub text_width: usize,
}

/// How a convolution fills up what lies outside the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// Mirrors the signal without repeating its edge.
    Reflect,
    /// Zeros.
    #[serde(alias = "zero")]
    Constant,
}

/// What lies between a codec's convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecActivation {
    /// ELU.
    Elu,
    /// Snake with a learned factor per channel.
    Snake,
}

/// Sizes of an EnCodec codec, or of one like it.
#[derive(Debug, Clone, PartialEq)]
pub struct CodecConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels of the sound of one stream of codes.
    pub channels: usize,
    /// Width of a latent frame.
    pub dim: usize,
    /// Channels of the outermost level.
    pub filters: usize,
    /// Residual units per level.
    pub residual_layers: usize,
    /// Upsampling ratios, from the latent rate outwards.
    pub ratios: Vec<usize>,
    /// Kernel of the first convolution.
    pub kernel: usize,
    /// Kernel of the last convolution.
    pub last_kernel: usize,
    /// Kernel of the residual units.
    pub residual_kernel: usize,
    /// Growth of the residual units' dilation.
    pub dilation: usize,
    /// Narrowing inside residual units.
    pub compress: usize,
    /// LSTM layers.
    pub lstm_layers: usize,
    /// Nothing looks ahead.
    pub causal: bool,
    /// Whether residual units have a convolution beside them instead of the identity.
    pub conv_shortcut: bool,
    /// Between convolutions.
    pub activation: CodecActivation,
    /// The encoder makes a mean and a scale for every latent value.
    pub variational: bool,
    /// Padding of convolutions.
    pub pad_mode: PadMode,
    /// Part of a causal transposed convolution's surplus that is cut on the right.
    pub trim_right_ratio: f64,
    /// Codebooks of one run of the codec.
    pub codebooks: usize,
    /// Codes per codebook.
    pub card: usize,
}

impl CodecConfig {
    /// Samples per frame.
    pub fn hop(&self) -> usize {
        self.ratios.iter().product()
    }

    /// Values of a frame as the encoder makes them.
    pub fn encoder_dim(&self) -> usize {
        if self.variational { 2 * self.dim } else { self.dim }
    }

    /// The 32 kHz codec of the published MusicGen models.
    pub fn encodec_32khz() -> Self {
        Self {
            sample_rate: 32_000,
            channels: 1,
            dim: 128,
            filters: 64,
            residual_layers: 1,
            ratios: vec![8, 5, 4, 4],
            kernel: 7,
            last_kernel: 7,
            residual_kernel: 3,
            dilation: 2,
            compress: 2,
            lstm_layers: 2,
            causal: false,
            conv_shortcut: false,
            activation: CodecActivation::Elu,
            variational: false,
            pad_mode: PadMode::Reflect,
            trim_right_ratio: 1.0,
            codebooks: 4,
            card: 2048,
        }
    }
}

/// Sampling defaults and the window, from `generation_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Classifier-free guidance scale.
    pub guidance: f32,
    /// Softmax temperature.
    pub temperature: f32,
    /// The largest logits kept.
    pub top_k: u32,
    /// Positions that the decoder was trained on.
    pub window: usize,
    /// Frames kept when a full window is read again.
    pub keep: usize,
}

/// Everything about a checkpoint but its weights.
#[derive(Debug, Clone)]
pub struct Config {
    /// The decoder.
    pub decoder: DecoderConfig,
    /// The codec.
    pub codec: CodecConfig,
    /// The text encoder.
    pub text: t5::Config,
    /// Defaults of generation.
    pub generation: Generation,
}

#[derive(Deserialize)]
struct HfDecoder {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    ffn_dim: usize,
    num_codebooks: usize,
    vocab_size: usize,
    /// Old exports have none: they are mono.
    #[serde(default = "one")]
    audio_channels: usize,
    #[serde(default)]
    activation_function: Option<String>,
    #[serde(default)]
    pad_token_id: Option<usize>,
}

fn one() -> usize {
    1
}

/// `audio_encoder` of a MusicGen configuration, or the whole of an EnCodec one.
#[derive(Deserialize)]
struct HfCodec {
    sampling_rate: u32,
    audio_channels: usize,
    hidden_size: usize,
    num_filters: usize,
    num_residual_layers: usize,
    upsampling_ratios: Vec<usize>,
    kernel_size: usize,
    last_kernel_size: usize,
    residual_kernel_size: usize,
    dilation_growth_rate: usize,
    compress: usize,
    num_lstm_layers: usize,
    use_causal_conv: bool,
    use_conv_shortcut: bool,
    pad_mode: String,
    trim_right_ratio: f64,
    codebook_size: usize,
    target_bandwidths: Vec<f64>,
    #[serde(default)]
    normalize: bool,
    #[serde(default)]
    chunk_length_s: Option<f64>,
    norm_type: String,
}

impl CodecConfig {
    /// Reads an EnCodec `config.json`, or the part `audio_encoder` of a MusicGen's.
    ///
    /// # Errors
    /// A sentence that names what is absent or not supported.
    pub fn from_hf(json: &Value) -> Result<Self, String> {
        let raw: HfCodec = parse(json)?;
        if raw.normalize || raw.chunk_length_s.is_some() {
            return Err(
                "the codec normalises loudness or works in chunks (the 48 kHz EnCodec); use a 32 kHz one".into()
            );
        }
        if raw.norm_type != "weight_norm" {
            return Err(format!("the codec's `norm_type` is `{}` but must be `weight_norm`", raw.norm_type));
        }
        let pad_mode = match raw.pad_mode.as_str() {
            "reflect" => PadMode::Reflect,
            "constant" | "zero" => PadMode::Constant,
            other => return Err(format!("the codec's `pad_mode` is `{other}` but must be `reflect` or `constant`")),
        };
        let hop: usize = raw.upsampling_ratios.iter().product();
        let bandwidth = raw.target_bandwidths.last().copied().unwrap_or(0.0);
        if hop == 0 || raw.codebook_size < 2 || bandwidth <= 0.0 {
            return Err("the codec's ratios, `codebook_size` or `target_bandwidths` are empty".into());
        }
        let frame_rate = (raw.sampling_rate as usize).div_ceil(hop);
        let bits = (raw.codebook_size as f64).log2().ceil();
        Ok(Self {
            sample_rate: raw.sampling_rate,
            channels: raw.audio_channels,
            dim: raw.hidden_size,
            filters: raw.num_filters,
            residual_layers: raw.num_residual_layers,
            ratios: raw.upsampling_ratios,
            kernel: raw.kernel_size,
            last_kernel: raw.last_kernel_size,
            residual_kernel: raw.residual_kernel_size,
            dilation: raw.dilation_growth_rate,
            compress: raw.compress,
            lstm_layers: raw.num_lstm_layers,
            causal: raw.use_causal_conv,
            conv_shortcut: raw.use_conv_shortcut,
            activation: CodecActivation::Elu,
            variational: false,
            pad_mode,
            trim_right_ratio: raw.trim_right_ratio,
            codebooks: (1000.0 * bandwidth / (frame_rate as f64 * bits)).floor() as usize,
            card: raw.codebook_size,
        })
    }
}

#[derive(Deserialize, Default)]
struct HfGeneration {
    guidance_scale: Option<f32>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    max_length: Option<f64>,
    continuo: Option<OwnGeneration>,
}

/// Our addition to `generation_config.json`, for models that were trained on another window.
#[derive(Deserialize, Default)]
struct OwnGeneration {
    window_frames: Option<usize>,
    keep_frames: Option<usize>,
}

/// The window of a decoder that says nothing: 30 seconds at 50 Hz, as the published models.
const DEFAULT_WINDOW: usize = 1500;
/// A window below this holds no music worth continuing.
const MIN_WINDOW: usize = 32;
/// Seconds kept when a window is full (audiocraft keeps as much).
const KEEP_SECONDS: f64 = 12.0;

impl Generation {
    /// Reads `generation_config.json`; what it does not say is as in audiocraft.
    ///
    /// # Errors
    /// A sentence when a value has the wrong type.
    pub fn parse(json: &Value, codec: &CodecConfig) -> Result<Self, String> {
        let raw: HfGeneration = parse(json)?;
        let own = raw.continuo.unwrap_or_default();
        let limit = raw.max_length.map_or(DEFAULT_WINDOW, |length| length as usize).max(MIN_WINDOW);
        let window = own.window_frames.unwrap_or(limit).min(limit).max(MIN_WINDOW);
        let rate = f64::from(codec.sample_rate) / codec.hop() as f64;
        let keep = (KEEP_SECONDS * rate).round().min(0.4 * window as f64) as usize;
        Ok(Self {
            guidance: raw.guidance_scale.unwrap_or(3.0),
            temperature: raw.temperature.unwrap_or(1.0),
            top_k: raw.top_k.unwrap_or(250),
            window,
            keep: own.keep_frames.unwrap_or(keep).min(window / 2),
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &Value) -> Result<T, String> {
    T::deserialize(json).map_err(|error| error.to_string())
}

impl DecoderConfig {
    /// Reads the part `decoder` of a MusicGen `config.json`.
    ///
    /// # Errors
    /// A sentence that names what is absent or not supported.
    pub fn from_hf(json: &Value, text_width: usize) -> Result<Self, String> {
        let raw: HfDecoder = parse(json)?;
        if raw.activation_function.as_deref().is_some_and(|name| name != "gelu") {
            return Err("the decoder's `activation_function` must be `gelu`".into());
        }
        if raw.pad_token_id.is_some_and(|pad| pad != raw.vocab_size) {
            return Err("the decoder's `pad_token_id` must equal its `vocab_size`".into());
        }
        Ok(Self {
            hidden: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            ffn: raw.ffn_dim,
            codebooks: raw.num_codebooks,
            card: raw.vocab_size,
            channels: raw.audio_channels,
            text_width,
        })
    }
}

impl Config {
    /// Reads a MusicGen `config.json` and `generation_config.json` in the Hugging Face layout.
    ///
    /// # Errors
    /// A sentence that names what is absent or not supported.
    pub fn from_hf(config: &Value, generation: &Value) -> Result<Self, String> {
        match config["model_type"].as_str() {
            Some("musicgen") | None => {}
            Some(other) => return Err(format!("it describes a model of type `{other}`, not `musicgen`")),
        }
        let codec = CodecConfig::from_hf(&config["audio_encoder"])?;
        let text: t5::Config = parse(&config["text_encoder"])?;
        let decoder = DecoderConfig::from_hf(&config["decoder"], text.d_model)?;
        let generation = Generation::parse(generation, &codec)?;
        let config = Self { decoder, codec, text, generation };
        config.check()?;
        Ok(config)
    }

    /// Channels of the sound: of all streams of codes, each of which the codec turns into as many as
    /// it has.
    pub fn channels(&self) -> usize {
        self.decoder.channels * self.codec.channels
    }

    /// Checks that the parts fit together.
    fn check(&self) -> Result<(), String> {
        let Self { decoder, codec, .. } = self;
        if decoder.heads == 0 || !decoder.hidden.is_multiple_of(decoder.heads) || !decoder.hidden.is_multiple_of(2) {
            return Err(format!("{} heads do not divide the width {}", decoder.heads, decoder.hidden));
        }
        if !(1..=2).contains(&decoder.channels) || !decoder.codebooks.is_multiple_of(decoder.channels) {
            return Err(format!("{} codebooks for {} channels", decoder.codebooks, decoder.channels));
        }
        if !(1..=2).contains(&self.channels()) {
            return Err(format!(
                "the codec has {} channels but must have one, or two for a decoder with one stream of codes",
                codec.channels
            ));
        }
        if codec.codebooks < decoder.codebooks / decoder.channels || codec.card != decoder.card {
            return Err(format!(
                "the codec has {} codebooks of {} codes, the decoder {} of {} for {} channels",
                codec.codebooks, codec.card, decoder.codebooks, decoder.card, decoder.channels
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn window_and_defaults_follow_the_generation_config() {
        let codec = CodecConfig::encodec_32khz();
        let read = |json: Value| Generation::parse(&json, &codec).unwrap();
        let plain = read(json!({"max_length": 1500, "guidance_scale": 3.0}));
        assert_eq!((plain.window, plain.keep, plain.top_k), (1500, 600, 250));
        let own = read(json!({"max_length": 1500, "continuo": {"window_frames": 750, "keep_frames": 200}}));
        assert_eq!((own.window, own.keep), (750, 200));
        assert_eq!(read(json!({"max_length": 500})).keep, 200);
        assert_eq!(read(json!({})).window, 1500);
    }

    #[test]
    fn another_kind_of_model_is_refused_by_name() {
        let error = Config::from_hf(&json!({"model_type": "bert"}), &json!({})).unwrap_err();
        assert!(error.contains("bert"), "{error}");
    }
}
