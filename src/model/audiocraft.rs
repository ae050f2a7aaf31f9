//! Checkpoints as audiocraft exports them: `state_dict.bin` and `compression_state_dict.bin`.
//!
//! Both are zip archives with a pickle. The tensors are renamed to the Hugging Face layout and the
//! training configuration (YAML text with unresolved references) is turned into a Hugging Face
//! `config.json`, so that the rest of this room knows one layout. Reference: audiocraft's
//! `models/loaders.py` and `utils/export.py`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde_json::{Value, json};

use super::archive::{Archive, Settings};
use super::checkpoint::Checkpoint;
use super::{Files, ModelError};

/// File of the language model.
pub(super) const LM: &str = "state_dict.bin";
pub(super) const CODEC: &str = "compression_state_dict.bin";

/// A part of a checkpoint, brought to the Hugging Face layout.
pub struct Part {
    /// As the part's object in `config.json`.
    pub config: Value,
    /// As `generation_config.json`, as far as the part knows.
    pub generation: Value,
    /// Tensors by their Hugging Face names, f32 in CPU memory.
    pub tensors: HashMap<String, Tensor>,
}

/// The language model alone, without the text encoder that it needs.
///
/// # Errors
/// [`ModelError::Missing`], [`ModelError::Wrong`].
pub fn decoder(files: &Files) -> Result<Part, ModelError> {
    let lm = Archive::open(files, folder(files)?, LM)?;
    let settings = lm.settings()?;
    let config = decoder_config(&lm, &settings)?;
    let generation = json!({ "guidance_scale": guidance(&settings) });
    Ok(Part { config, generation, tensors: language_model(&lm, DType::F32, &Device::Cpu)? })
}

/// A codec that was exported with its weights.
///
/// # Errors
/// [`ModelError::Missing`], [`ModelError::Wrong`].
pub fn codec(files: &Files) -> Result<Part, ModelError> {
    let archive = Archive::open(files, folder(files)?, CODEC)?;
    let (config, tensors) = own_codec(&archive, DType::F32, &Device::Cpu)?;
    Ok(Part { config, generation: json!({}), tensors })
}

fn guidance(settings: &Settings) -> f64 {
    settings.number("classifier_free_guidance.inference_coef").unwrap_or(3.0)
}

pub(super) fn folder(files: &Files) -> Result<&Path, ModelError> {
    match files {
        Files::Folder(folder) => Ok(folder),
        Files::Embedded(_) => Err(files.wrong(LM, "audiocraft checkpoints are read from folders")),
    }
}

/// Reads the pair; what audiocraft does not export (the frozen text encoder, often the codec) comes
/// from `companion`, which is asked for Hugging Face ids.
pub(super) fn open(
    files: &Files,
    companion: &dyn Fn(&str) -> Result<Files, ModelError>,
    dtype: DType,
    device: &Device,
) -> Result<Checkpoint, ModelError> {
    let folder = folder(files)?;
    let lm = Archive::open(files, folder, LM)?;
    let settings = lm.settings()?;
    let mut tensors = language_model(&lm, dtype, device)?;
    let (codec, weights) = codec_or_companion(files, folder, companion, dtype, device)?;
    tensors.extend(weights);

    let text = settings.text("conditioners.description.t5.name").unwrap_or_else(|| "t5-base".into());
    let t5 = companion(&t5_id(&text))?;
    let prefixed = |name: &str| {
        (name.starts_with("shared.")
            || name.starts_with("encoder.block.")
            || name.starts_with("encoder.final_layer_norm"))
        .then(|| format!("text_encoder.{name}"))
    };
    tensors.extend(t5.tensors(prefixed, dtype, device)?);
    let frame_rate = frame_rate(&codec);
    Ok(Checkpoint {
        config: json!({
            "model_type": "musicgen",
            "text_encoder": t5.json("config.json")?,
            "audio_encoder": codec,
            "decoder": decoder_config(&lm, &settings)?,
        }),
        generation: json!({
            "guidance_scale": guidance(&settings),
            "max_length": settings.number("dataset.segment_duration").unwrap_or(30.0) * frame_rate,
            "top_k": settings.number("generate.lm.top_k").unwrap_or(250.0) as u64,
            "temperature": settings.number("generate.lm.temp").unwrap_or(1.0),
        }),
        tokenizer: t5.read("tokenizer.json")?.into_owned(),
        weights: VarBuilder::from_tensors(tensors, dtype, device),
    })
}

pub(super) fn t5_id(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("google-t5/{name}") }
}

/// Renames the parameters of audiocraft's `LMModel`. Packed projections are split into three.
pub(crate) fn language_model(
    archive: &Archive<'_>,
    dtype: DType,
    device: &Device,
) -> Result<HashMap<String, Tensor>, ModelError> {
    let mut renamed = HashMap::new();
    for (name, tensor) in archive.tensors(dtype, device)? {
        if let Some(base) = name.strip_suffix(".in_proj_weight") {
            let base = layer_name(base).ok_or_else(|| archive.unknown(&name))?;
            let rows = tensor.dim(0)? / 3;
            for (index, part) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                let part_of = tensor.narrow(0, index * rows, rows)?.contiguous()?;
                renamed.insert(format!("{base}.{part}.weight"), part_of);
            }
        } else {
            let new = lm_name(&name).ok_or_else(|| archive.unknown(&name))?;
            renamed.insert(new, tensor);
        }
    }
    Ok(renamed)
}

fn lm_name(name: &str) -> Option<String> {
    const DECODER: &str = "decoder.model.decoder";
    if let Some(rest) = name.strip_prefix("emb.") {
        return Some(format!("{DECODER}.embed_tokens.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("linears.") {
        return Some(format!("decoder.lm_heads.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("out_norm.") {
        return Some(format!("{DECODER}.layer_norm.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("condition_provider.conditioners.description.output_proj.") {
        return Some(format!("enc_to_dec_proj.{rest}"));
    }
    layer_name(name)
}

fn layer_name(name: &str) -> Option<String> {
    let rest = name.strip_prefix("transformer.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let (module, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let module = match module {
        "self_attn" => "self_attn",
        "cross_attention" => "encoder_attn",
        "norm1" => "self_attn_layer_norm",
        "norm_cross" => "encoder_attn_layer_norm",
        "norm2" => "final_layer_norm",
        "linear1" => "fc1",
        "linear2" => "fc2",
        _ => return None,
    };
    let dot = if rest.is_empty() { "" } else { "." };
    Some(format!("decoder.model.decoder.layers.{layer}.{module}{dot}{rest}"))
}

fn decoder_config(archive: &Archive<'_>, settings: &Settings) -> Result<Value, ModelError> {
    let lm = |key: &str| {
        settings
            .number(&format!("transformer_lm.{key}"))
            .ok_or_else(|| archive.wrong(format!("its configuration has no transformer_lm.{key}")))
    };
    let channels = settings.number("channels").unwrap_or(1.0);
    let (dim, card, codebooks) = (lm("dim")?, lm("card")?, lm("n_q")?);
    let modeling = settings.text("codebooks_pattern.modeling").unwrap_or_else(|| "delay".into());
    if modeling != "delay" {
        return Err(archive.wrong(format!("its codebook pattern is `{modeling}`; only `delay` can be streamed")));
    }
    let pairs = if channels > 1.0 { 2 } else { 1 };
    let expected: Vec<f64> = (0..codebooks as u64).map(|k| (k / pairs) as f64).collect();
    if settings.numbers("codebooks_pattern.delay.delays").is_some_and(|delays| delays != expected) {
        return Err(archive.wrong("its codebook delays are not those of MusicGen (0, 1, 2, 3; stereo in pairs)"));
    }
    Ok(json!({
        "model_type": "musicgen_decoder",
        "hidden_size": dim as u64,
        "num_attention_heads": lm("num_heads")? as u64,
        "num_hidden_layers": lm("num_layers")? as u64,
        "ffn_dim": (dim * lm("hidden_scale")?) as u64,
        "num_codebooks": codebooks as u64,
        "vocab_size": card as u64,
        "pad_token_id": card as u64,
        "bos_token_id": card as u64,
        "audio_channels": channels as u64,
        "activation_function": settings.text("transformer_lm.activation").unwrap_or_else(|| "gelu".into()),
        "max_position_embeddings": 2048,
        "scale_embedding": false,
    }))
}

/// The codec: its own weights, or a pointer to a published one. Names get the prefix
/// `audio_encoder.`.
fn codec_or_companion(
    files: &Files,
    folder: &Path,
    companion: &dyn Fn(&str) -> Result<Files, ModelError>,
    dtype: DType,
    device: &Device,
) -> Result<(Value, HashMap<String, Tensor>), ModelError> {
    let archive = Archive::open(files, folder, CODEC)?;
    if let Some(id) = archive.text("pretrained") {
        let published = companion(&id)?;
        let rename = |name: &str| Some(format!("audio_encoder.{name}"));
        return Ok((published.json("config.json")?, published.tensors(rename, dtype, device)?));
    }
    own_codec(&archive, dtype, device)
}

/// A codec exported with its weights.
pub(crate) fn own_codec(
    archive: &Archive<'_>,
    dtype: DType,
    device: &Device,
) -> Result<(Value, HashMap<String, Tensor>), ModelError> {
    let settings = archive.settings()?;
    let mut renamed = HashMap::new();
    for (name, tensor) in archive.tensors(dtype, device)? {
        let new = codec_name(&name).ok_or_else(|| archive.unknown(&name))?;
        renamed.insert(format!("audio_encoder.{new}"), tensor);
    }
    let number =
        |key: &str| settings.number(key).ok_or_else(|| archive.wrong(format!("its configuration has no {key}")));
    let ratios =
        settings.numbers("seanet.ratios").ok_or_else(|| archive.wrong("its configuration has no seanet.ratios"))?;
    let hop: f64 = ratios.iter().product();
    let (rate, books, bins) = (number("sample_rate")?, number("rvq.n_q")?, number("rvq.bins")?);
    let kilobits = (rate / hop).ceil() * books * bins.log2().ceil() / 1000.0;
    let ratios: Vec<u64> = ratios.into_iter().map(|ratio| ratio as u64).collect();
    let causal = settings.flag("seanet.causal").or_else(|| settings.flag("encodec.causal")).unwrap_or(false);
    Ok((
        json!({
            "model_type": "encodec",
            "audio_channels": number("channels")? as u64,
            "sampling_rate": rate as u64,
            "hidden_size": number("seanet.dimension")? as u64,
            "codebook_dim": number("seanet.dimension")? as u64,
            "codebook_size": bins as u64,
            "num_filters": number("seanet.n_filters")? as u64,
            "num_residual_layers": number("seanet.n_residual_layers")? as u64,
            "upsampling_ratios": ratios,
            "kernel_size": number("seanet.kernel_size")? as u64,
            "residual_kernel_size": number("seanet.residual_kernel_size")? as u64,
            "last_kernel_size": number("seanet.last_kernel_size")? as u64,
            "dilation_growth_rate": number("seanet.dilation_base")? as u64,
            "compress": number("seanet.compress")? as u64,
            "num_lstm_layers": number("seanet.lstm")? as u64,
            "pad_mode": settings.text("seanet.pad_mode").unwrap_or_else(|| "constant".into()),
            "norm_type": settings.text("seanet.norm").unwrap_or_else(|| "weight_norm".into()),
            "use_conv_shortcut": !settings.flag("seanet.true_skip").unwrap_or(false),
            "use_causal_conv": causal,
            "normalize": settings.flag("encodec.renormalize").unwrap_or(false),
            "trim_right_ratio": settings.number("seanet.decoder.trim_right_ratio").unwrap_or(1.0),
            "target_bandwidths": [kilobits],
            "chunk_length_s": null,
            "overlap": null,
        }),
        renamed,
    ))
}

fn codec_name(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("quantizer.vq.layers.") {
        return Some(format!("quantizer.layers.{}", rest.replace("._codebook.", ".codebook.")));
    }
    let (side, rest) = name.split_once(".model.")?;
    let rest = rest.replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.");
    matches!(side, "encoder" | "decoder").then(|| format!("{side}.layers.{rest}"))
}

fn frame_rate(codec: &Value) -> f64 {
    let hop: u64 = codec["upsampling_ratios"].as_array().into_iter().flatten().filter_map(Value::as_u64).product();
    codec["sampling_rate"].as_f64().unwrap_or(32_000.0) / hop.max(1) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_the_hugging_face_layout() {
        assert_eq!(lm_name("emb.2.weight").unwrap(), "decoder.model.decoder.embed_tokens.2.weight");
        assert_eq!(
            lm_name("transformer.layers.1.norm_cross.bias").unwrap(),
            "decoder.model.decoder.layers.1.encoder_attn_layer_norm.bias"
        );
        assert_eq!(
            layer_name("transformer.layers.0.cross_attention").unwrap(),
            "decoder.model.decoder.layers.0.encoder_attn"
        );
        assert_eq!(codec_name("decoder.model.3.convtr.convtr.weight_g").unwrap(), "decoder.layers.3.conv.weight_g");
        assert_eq!(codec_name("encoder.model.1.block.3.conv.conv.bias").unwrap(), "encoder.layers.1.block.3.conv.bias");
        assert_eq!(codec_name("quantizer.vq.layers.0._codebook.embed").unwrap(), "quantizer.layers.0.codebook.embed");
        assert_eq!(lm_name("something.else"), None);
    }

    fn case(name: &str) -> Files {
        Files::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name))
    }

    fn archive<'a>(files: &'a Files, name: &'static str) -> Archive<'a> {
        let Files::Folder(folder) = files else { panic!("a folder") };
        Archive::open(files, folder, name).unwrap()
    }

    #[test]
    fn every_parameter_arrives_under_the_name_and_shape_of_the_reference_map() {
        for name in ["audiocraft-lm", "audiocraft-lm-stereo"] {
            let files = case(name);
            let mut tensors = language_model(&archive(&files, LM), DType::F32, &Device::Cpu).unwrap();
            let map = files.json("name_map.json").unwrap();
            for entry in map["lm"].as_array().unwrap() {
                let tensor = tensors.remove(entry["hf"].as_str().unwrap()).unwrap();
                let shape: Vec<u64> = entry["shape"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
                assert_eq!(tensor.dims().iter().map(|&dim| dim as u64).collect::<Vec<_>>(), shape, "{entry}");
            }
            assert_eq!(tensors.keys().collect::<Vec<_>>(), Vec::<&String>::new());
        }
    }

    #[test]
    fn a_pointer_and_a_codec_of_its_own_are_told_apart() {
        let files = case("audiocraft-lm");
        assert_eq!(archive(&files, CODEC).text("pretrained").as_deref(), Some("facebook/encodec_32khz"));
        for (name, pad_mode) in [("own-codec-constant", "constant"), ("own-codec-reflect", "reflect")] {
            let files = case(&format!("audiocraft-lm/{name}"));
            let (config, tensors) = own_codec(&archive(&files, CODEC), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(config["pad_mode"], pad_mode);
            assert_eq!((config["codebook_size"].as_u64(), frame_rate(&config)), (Some(64), 50.0));
            assert!(tensors.contains_key("audio_encoder.decoder.layers.3.conv.bias"), "{:?}", tensors.keys());
        }
    }
}
