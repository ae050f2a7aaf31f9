//! Sizes of a MelodyFlow, from its training configurations; what they do not say is as published.

use super::super::{
    archive::Settings,
    config::{CodecActivation, CodecConfig, PadMode},
};

/// Everything about a checkpoint but its weights.
#[derive(Debug, Clone)]
pub struct FlowConfig {
    /// Width of the transformer.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Latent channels.
    pub latents: usize,
    /// Whether layers of the second half take in the outputs of the first.
    pub skips: bool,
    /// Whether attentions have an all-zero key beside the others.
    pub zero_key: bool,
    /// The published name of the text encoder.
    pub text: String,
    /// Classifier-free guidance scale.
    pub guidance: f32,
    /// The longest clip, in seconds.
    pub seconds: f64,
    /// The codec.
    pub codec: CodecConfig,
}

/// Features of the flow step; fixed in the original's code.
pub(super) const STEP_FEATURES: usize = 256;
/// The original never reads its configuration's `inference_coef`: this is its constructor's
/// default.
const GUIDANCE: f32 = 4.0;

impl FlowConfig {
    /// `facebook/melodyflow-t24-30secs`.
    pub fn published() -> Self {
        Self {
            width: 1536,
            heads: 24,
            layers: 24,
            ffn: 4 * 1536,
            latents: 128,
            skips: true,
            zero_key: true,
            text: "google-t5/t5-base".into(),
            guidance: GUIDANCE,
            seconds: 30.0,
            codec: CodecConfig {
                sample_rate: 48_000,
                channels: 2,
                dim: 128,
                filters: 64,
                residual_layers: 1,
                ratios: vec![8, 8, 6, 5],
                kernel: 7,
                last_kernel: 7,
                residual_kernel: 3,
                dilation: 2,
                compress: 2,
                lstm_layers: 2,
                causal: false,
                conv_shortcut: false,
                activation: CodecActivation::Snake,
                variational: true,
                pad_mode: PadMode::Reflect,
                trim_right_ratio: 1.0,
                codebooks: 0,
                card: 0,
            },
        }
    }

    /// From the configurations of the transformer and the codec.
    ///
    /// # Errors
    /// A sentence that names what this code does not implement.
    pub(super) fn read(flow: &Settings, codec: &Settings) -> Result<Self, String> {
        let published = Self::published();
        let lm = |key: &str| flow.number(&format!("transformer_lm.{key}")).map(|value| value as usize);
        let flag = |key: &str, default: bool| flow.flag(&format!("transformer_lm.{key}")).unwrap_or(default);
        for (key, wanted) in [
            ("norm_first", true),
            ("bias_proj", false),
            ("bias_ff", false),
            ("bias_attn", false),
            ("causal", false),
            ("qk_layer_norm", false),
            ("qk_layer_norm_cross", false),
            ("cross_attention", true),
        ] {
            if flag(key, wanted) != wanted {
                return Err(format!("its transformer_lm.{key} is {}; only {wanted} is known here", !wanted));
            }
        }
        for (key, wanted) in [("activation", "gelu"), ("norm", "layer_norm"), ("positional_embedding", "rope")] {
            if flow.text(&format!("transformer_lm.{key}")).is_some_and(|value| value != wanted) {
                return Err(format!("its transformer_lm.{key} is not {wanted}"));
            }
        }
        let width = lm("dim").unwrap_or(published.width);
        let scale = flow.number("transformer_lm.hidden_scale").unwrap_or(4.0);
        let text = flow.text("conditioners.description.t5.name").unwrap_or_else(|| "t5-base".into());
        let config = Self {
            width,
            heads: lm("num_heads").unwrap_or(published.heads),
            layers: lm("num_layers").unwrap_or(published.layers),
            ffn: (width as f64 * scale) as usize,
            latents: lm("latent_dim").unwrap_or(published.latents),
            skips: flag("skip_connections", published.skips),
            zero_key: flag("add_zero_attn", published.zero_key),
            text: super::super::audiocraft::t5_id(&text),
            guidance: GUIDANCE,
            seconds: flow.number("dataset.segment_duration").unwrap_or(published.seconds),
            codec: codec_config(codec, published.codec)?,
        };
        if config.heads == 0 || !config.width.is_multiple_of(2 * config.heads) || config.layers == 0 {
            return Err(format!("{} heads do not divide the width {}", config.heads, config.width));
        }
        if config.codec.dim != config.latents {
            return Err(format!("the codec has {} latent channels, the model {}", config.codec.dim, config.latents));
        }
        Ok(config)
    }

    /// Latent frames per second.
    pub fn frame_rate(&self) -> f64 {
        f64::from(self.codec.sample_rate) / self.codec.hop() as f64
    }

    /// Frames of the longest clip.
    pub fn most_frames(&self) -> usize {
        (self.seconds * self.frame_rate()) as usize
    }

    /// Matrices that join the two halves of the transformer.
    pub(super) fn skip_count(&self) -> usize {
        if self.skips { (self.layers - 1) / 2 } else { 0 }
    }
}

fn codec_config(settings: &Settings, published: CodecConfig) -> Result<CodecConfig, String> {
    let number = |key: &str, default: usize| settings.number(key).map_or(default, |value| value as usize);
    let seanet = |key: &str, default: usize| number(&format!("seanet.{key}"), default);
    let quantizer = settings.text("encodec.quantizer").unwrap_or_else(|| "no_quant".into());
    if quantizer != "no_quant" {
        return Err(format!("its codec has the quantizer `{quantizer}`; MelodyFlow's has none (no_quant)"));
    }
    if settings.flag("encodec.renormalize") == Some(true) || settings.flag("seanet.true_skip") == Some(false) {
        return Err("its codec normalises loudness or has convolutions beside its residual units".into());
    }
    let pad_mode = match settings.text("seanet.pad_mode").as_deref() {
        Some("reflect") | None => PadMode::Reflect,
        Some("constant" | "zero") => PadMode::Constant,
        Some(other) => return Err(format!("its seanet.pad_mode is `{other}`")),
    };
    let activation = match settings.text("seanet.activation").as_deref() {
        Some("snake") | None => CodecActivation::Snake,
        Some("ELU") => CodecActivation::Elu,
        Some(other) => return Err(format!("its seanet.activation is `{other}`")),
    };
    let ratios = settings.numbers("seanet.ratios");
    let ratios = ratios.map(|ratios| ratios.into_iter().map(|ratio| ratio as usize).collect());
    let config = CodecConfig {
        sample_rate: number("sample_rate", published.sample_rate as usize) as u32,
        channels: number("channels", published.channels),
        dim: seanet("dimension", published.dim),
        filters: seanet("n_filters", published.filters),
        residual_layers: seanet("n_residual_layers", published.residual_layers),
        ratios: ratios.unwrap_or(published.ratios),
        kernel: seanet("kernel_size", published.kernel),
        last_kernel: seanet("last_kernel_size", published.last_kernel),
        residual_kernel: seanet("residual_kernel_size", published.residual_kernel),
        dilation: seanet("dilation_base", published.dilation),
        compress: seanet("compress", published.compress),
        lstm_layers: seanet("lstm", published.lstm_layers),
        causal: settings.flag("seanet.causal").unwrap_or(published.causal),
        activation,
        pad_mode,
        trim_right_ratio: settings.number("seanet.decoder.trim_right_ratio").unwrap_or(1.0),
        conv_shortcut: published.conv_shortcut,
        variational: published.variational,
        codebooks: 0,
        card: 0,
    };
    if config.hop() == 0 || config.compress == 0 || config.filters < config.compress {
        return Err("its codec's ratios, filters or `compress` are empty".into());
    }
    Ok(config)
}
