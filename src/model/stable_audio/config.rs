//! Sizes of a Stable Audio model, from its `model_config.json`.

use serde::Deserialize;
use serde_json::Value;

/// What the network was trained to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Distilled for few steps with fresh noise in each.
    RfDenoiser,
    /// Plain velocities.
    RectifiedFlow,
}

/// A number that conditions the model.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberConfig {
    /// Its name, for example `seconds_total`.
    pub id: String,
    /// Smaller values count as this one.
    pub min: f32,
    /// Larger values count as this one.
    pub max: f32,
}

/// The diffusion transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct DitConfig {
    /// Width.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of condition tokens.
    pub cond_width: usize,
    /// Width of the global condition.
    pub global_width: usize,
    /// Whether condition tokens are brought to the transformer's width.
    pub project_cond: bool,
    /// Whether queries and keys are normalised per head.
    pub head_norm: bool,
}

impl DitConfig {
    /// Width of condition tokens inside the network.
    pub fn context_width(&self) -> usize {
        if self.project_cond { self.width } else { self.cond_width }
    }

    /// Values of a head that are turned by its position.
    pub fn rotated(&self) -> usize {
        (self.width / self.heads / 2).max(32)
    }
}

/// The autoencoder.
#[derive(Debug, Clone, PartialEq)]
pub struct OobleckConfig {
    /// Channels of the outermost level.
    pub channels: usize,
    /// Their multiples, from the outermost level inwards.
    pub multiples: Vec<usize>,
    /// Strides, from the outermost level inwards.
    pub strides: Vec<usize>,
    /// Whether the decoder ends in a tanh.
    pub tanh: bool,
}

/// Everything about a checkpoint but its weights.
#[derive(Debug, Clone)]
pub struct StableConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Samples of the window that the model always fills.
    pub window: usize,
    /// Audio channels.
    pub channels: usize,
    /// Latent channels.
    pub latents: usize,
    /// Latents are divided by this after encoding.
    pub scale: f64,
    /// What the network was trained to do.
    pub objective: Objective,
    /// Width of all conditions.
    pub cond_width: usize,
    /// The text condition's name.
    pub prompt: String,
    /// The published name of the text encoder.
    pub text: String,
    /// Tokens of a text.
    pub tokens: usize,
    /// Numbers.
    pub numbers: Vec<NumberConfig>,
    /// Conditions attended to, in order.
    pub cross: Vec<String>,
    /// Numbers that make up the global condition, in order.
    pub global: Vec<String>,
    /// The transformer.
    pub dit: DitConfig,
    /// The autoencoder.
    pub vae: OobleckConfig,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    sample_size: usize,
    sample_rate: u32,
    audio_channels: usize,
    model: RawModel,
}

#[derive(Deserialize)]
struct RawModel {
    pretransform: RawPretransform,
    conditioning: RawConditioning,
    diffusion: RawDiffusion,
}

#[derive(Deserialize)]
struct RawPretransform {
    #[serde(default = "one")]
    scale: f64,
    config: RawAutoencoder,
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct RawAutoencoder {
    encoder: RawSide,
    decoder: RawSide,
    bottleneck: RawType,
    latent_dim: usize,
}

#[derive(Deserialize)]
struct RawType {
    r#type: String,
}

#[derive(Deserialize)]
struct RawSide {
    r#type: String,
    config: RawOobleck,
}

#[derive(Deserialize, PartialEq)]
struct RawOobleck {
    channels: usize,
    c_mults: Vec<usize>,
    strides: Vec<usize>,
    #[serde(default)]
    use_snake: bool,
    #[serde(default = "yes")]
    final_tanh: bool,
}

#[derive(Deserialize)]
struct RawConditioning {
    configs: Vec<RawCondition>,
    cond_dim: usize,
}

#[derive(Deserialize)]
struct RawCondition {
    id: String,
    r#type: String,
    config: Value,
}

#[derive(Deserialize)]
struct RawDiffusion {
    cross_attention_cond_ids: Vec<String>,
    #[serde(default)]
    global_cond_ids: Vec<String>,
    diffusion_objective: Objective,
    config: RawDit,
}

#[derive(Deserialize)]
struct RawDit {
    io_channels: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    cond_token_dim: usize,
    global_cond_dim: usize,
    #[serde(default = "yes")]
    project_cond_tokens: bool,
    #[serde(default = "yes")]
    project_global_cond: bool,
    #[serde(default)]
    attn_kwargs: RawAttention,
    #[serde(default)]
    global_cond_type: Option<String>,
    #[serde(default)]
    timestep_cond_type: Option<String>,
}

#[derive(Deserialize, Default)]
struct RawAttention {
    #[serde(default)]
    qk_norm: Option<String>,
}

impl StableConfig {
    /// Reads a `model_config.json`.
    ///
    /// # Errors
    /// A sentence that names what is absent or not supported.
    pub fn parse(json: &Value) -> Result<Self, String> {
        let raw = Raw::deserialize(json).map_err(|error| error.to_string())?;
        let RawModel { pretransform, conditioning, diffusion } = raw.model;
        let RawAutoencoder { encoder, decoder, bottleneck, latent_dim } = pretransform.config;
        let dit = diffusion.config;
        let only = |what: &str, found: &str, wanted: &str| match found == wanted {
            true => Ok(()),
            false => Err(format!("its {what} is `{found}`; only `{wanted}` is known here")),
        };
        only("model_type", &raw.model_type, "diffusion_cond")?;
        only("encoder", &encoder.r#type, "oobleck")?;
        only("decoder", &decoder.r#type, "oobleck")?;
        only("bottleneck", &bottleneck.r#type, "vae")?;
        only("global_cond_type", dit.global_cond_type.as_deref().unwrap_or("prepend"), "prepend")?;
        only("timestep_cond_type", dit.timestep_cond_type.as_deref().unwrap_or("global"), "global")?;
        let qk_norm = dit.attn_kwargs.qk_norm.as_deref().filter(|norm| *norm != "none");
        only("qk_norm", qk_norm.unwrap_or("ln"), "ln")?;
        if !dit.project_global_cond || !encoder.config.use_snake || !decoder.config.use_snake {
            return Err("it does without `project_global_cond` or `use_snake`; that is not known here".into());
        }
        let shape = |side: &RawOobleck| (side.channels, side.c_mults.clone(), side.strides.clone());
        if shape(&encoder.config) != shape(&decoder.config) || dit.io_channels != latent_dim {
            return Err("its encoder, decoder and transformer do not fit together".into());
        }
        let (mut prompt, mut numbers) = (None, Vec::new());
        for condition in conditioning.configs {
            let number = |key: &str, default: f64| condition.config[key].as_f64().unwrap_or(default);
            match condition.r#type.as_str() {
                "t5" => {
                    let name = condition.config["t5_model_name"].as_str().unwrap_or("t5-base");
                    prompt = Some((condition.id, super::super::audiocraft::t5_id(name), number("max_length", 128.0)));
                }
                "number" => {
                    let (min, max) = (number("min_val", 0.0) as f32, number("max_val", 1.0) as f32);
                    numbers.push(NumberConfig { id: condition.id, min, max });
                }
                other => return Err(format!("its condition `{}` has the type `{other}`", condition.id)),
            }
        }
        let Some((prompt, text, tokens)) = prompt else { return Err("it has no text condition".into()) };
        let known = |id: &String| *id == prompt || numbers.iter().any(|number| number.id == *id);
        let is_number = |id: &String| numbers.iter().any(|number| number.id == *id);
        if !diffusion.cross_attention_cond_ids.iter().all(known) || !diffusion.global_cond_ids.iter().all(is_number) {
            return Err("its transformer is conditioned on something that it does not describe".into());
        }
        let config = Self {
            sample_rate: raw.sample_rate,
            window: raw.sample_size,
            channels: raw.audio_channels,
            latents: latent_dim,
            scale: pretransform.scale,
            objective: diffusion.diffusion_objective,
            cond_width: conditioning.cond_dim,
            prompt,
            text,
            tokens: tokens as usize,
            numbers,
            cross: diffusion.cross_attention_cond_ids,
            global: diffusion.global_cond_ids,
            dit: DitConfig {
                width: dit.embed_dim,
                depth: dit.depth,
                heads: dit.num_heads,
                cond_width: dit.cond_token_dim,
                global_width: dit.global_cond_dim,
                project_cond: dit.project_cond_tokens,
                head_norm: qk_norm.is_some(),
            },
            vae: OobleckConfig {
                channels: encoder.config.channels,
                multiples: encoder.config.c_mults,
                strides: encoder.config.strides,
                tanh: decoder.config.final_tanh,
            },
        };
        config.check()?;
        Ok(config)
    }

    /// `stabilityai/stable-audio-open-small`.
    pub fn published() -> Self {
        Self {
            sample_rate: 44_100,
            window: 524_288,
            channels: 2,
            latents: 64,
            scale: 1.0,
            objective: Objective::RfDenoiser,
            cond_width: 768,
            prompt: "prompt".into(),
            text: "google-t5/t5-base".into(),
            tokens: 64,
            numbers: vec![NumberConfig { id: "seconds_total".into(), min: 0.0, max: 256.0 }],
            cross: vec!["prompt".into(), "seconds_total".into()],
            global: vec!["seconds_total".into()],
            dit: DitConfig {
                width: 1024,
                depth: 16,
                heads: 8,
                cond_width: 768,
                global_width: 768,
                project_cond: true,
                head_norm: true,
            },
            vae: OobleckConfig {
                channels: 128,
                multiples: vec![1, 2, 4, 8, 16],
                strides: vec![2, 4, 4, 8, 8],
                tanh: false,
            },
        }
    }

    fn check(&self) -> Result<(), String> {
        let Self { dit, vae, .. } = self;
        let head = dit.width.checked_div(dit.heads).unwrap_or(0);
        if head == 0 || !dit.width.is_multiple_of(dit.heads) || dit.rotated() > head {
            return Err(format!("{} heads do not divide the width {}", dit.heads, dit.width));
        }
        if !dit.context_width().is_multiple_of(head) || !dit.heads.is_multiple_of((dit.context_width() / head).max(1)) {
            return Err(format!("condition tokens of width {} make no heads of {head}", dit.context_width()));
        }
        if vae.strides.is_empty() || vae.strides.len() != vae.multiples.len() || vae.strides.contains(&0) {
            return Err("the autoencoder's strides and multiples differ in number".into());
        }
        if dit.cond_width != self.cond_width || dit.global_width != self.cond_width * self.global.len() {
            return Err("the widths of its conditions do not fit together".into());
        }
        if self.hop() == 0 || self.window / self.hop() == 0 || self.channels != 2 || self.tokens == 0 {
            return Err("its window, its channels or its number of tokens cannot be used".into());
        }
        Ok(())
    }

    /// Samples per latent frame.
    pub fn hop(&self) -> usize {
        self.vae.strides.iter().product()
    }

    /// Latent frames of the window.
    pub fn frames(&self) -> usize {
        self.window / self.hop()
    }

    /// Length of the window in seconds.
    pub fn seconds(&self) -> f64 {
        self.window as f64 / f64::from(self.sample_rate)
    }
}
