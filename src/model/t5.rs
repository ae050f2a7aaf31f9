//! The T5 text encoder (arXiv 1910.10683; `T5EncoderModel` of transformers), with a mask for padded
//! batches.
//!
//! Runs once per prompt, so it is composed of plain operations; the results are shared by all
//! voices.

use candle_core::{D, DType, Device, Tensor};
use candle_transformers::models::t5;

use super::{
    error::{ModelError, Result},
    kernels::Linear,
    weights::Weights,
};

/// A T5 encoder stack.
pub struct T5Encoder {
    embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Tensor,
    /// `[buckets, heads]`, kept by block 0 for all blocks.
    relative: Tensor,
    config: t5::Config,
}

struct Block {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    ffn_norm: Tensor,
    ffn: FeedForward,
}

enum FeedForward {
    Plain { input: Linear, output: Linear },
    Gated { gate: Linear, input: Linear, output: Linear },
}

impl T5Encoder {
    /// Reads the weights below `encoder` and `shared`.
    ///
    /// # Errors
    /// [`ModelError::Weight`].
    pub fn new(config: &t5::Config, weights: &Weights<'_>) -> Result<Self> {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        // One table under two names; whoever saves it keeps either.
        let table = ["shared.weight", "encoder.embed_tokens.weight"].into_iter().find(|name| weights.has(name));
        let embedding = weights.get(table.unwrap_or("shared.weight"), &[config.vocab_size, width])?;
        let blocks = (0..config.num_layers).map(|index| {
            let (first, second) = (
                weights.at(format!("encoder.block.{index}.layer.0")),
                weights.at(format!("encoder.block.{index}.layer.1")),
            );
            let attention = first.at("SelfAttention");
            let dense = second.at("DenseReluDense");
            let ffn = if config.feed_forward_proj.gated {
                FeedForward::Gated {
                    gate: dense.linear("wi_0", config.d_ff, width, false)?,
                    input: dense.linear("wi_1", config.d_ff, width, false)?,
                    output: dense.linear("wo", width, config.d_ff, false)?,
                }
            } else {
                FeedForward::Plain {
                    input: dense.linear("wi", config.d_ff, width, false)?,
                    output: dense.linear("wo", width, config.d_ff, false)?,
                }
            };
            Ok(Block {
                attention_norm: first.get("layer_norm.weight", &[width])?,
                query: attention.linear("q", inner, width, false)?,
                key: attention.linear("k", inner, width, false)?,
                value: attention.linear("v", inner, width, false)?,
                output: attention.linear("o", width, inner, false)?,
                ffn_norm: second.get("layer_norm.weight", &[width])?,
                ffn,
            })
        });
        Ok(Self {
            embedding,
            blocks: blocks.collect::<Result<_>>()?,
            final_norm: weights.get("encoder.final_layer_norm.weight", &[width])?,
            relative: weights.get(
                "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                &[config.relative_attention_num_buckets, config.num_heads],
            )?,
            config: config.clone(),
        })
    }

    /// Width of the states.
    pub fn width(&self) -> usize {
        self.config.d_model
    }

    /// Hidden states `[batch, length, width]` of token ids `[batch][length]`.
    ///
    /// `mask` has 1 for every real token and 0 for padding; padding is not attended to. Without it
    /// all tokens count. `tap` is shown the embedding (`embed`) and the state after every block
    /// (`block0`, ..).
    ///
    /// # Errors
    /// [`ModelError::Input`] for rows of different length or ids beyond the vocabulary.
    pub fn forward(
        &self,
        ids: &[Vec<u32>],
        mask: Option<&[Vec<u32>]>,
        tap: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let length = ids.first().map_or(0, Vec::len);
        if length == 0 || ids.iter().any(|row| row.len() != length) {
            return Err(ModelError::Input("Token rows must have the same length, at least one.".into()));
        }
        if let Some(id) = ids.iter().flatten().find(|id| **id as usize >= self.config.vocab_size) {
            return Err(ModelError::Input(format!(
                "The token id {id} is beyond the text encoder's vocabulary of {}; tokenizer and model do not fit.",
                self.config.vocab_size
            )));
        }
        let device = self.embedding.device();
        let batch = ids.len();
        let flat: Vec<u32> = ids.iter().flatten().copied().collect();
        let mut hidden = self
            .embedding
            .index_select(&Tensor::from_vec(flat, batch * length, device)?, 0)?
            .reshape((batch, length, self.config.d_model))?;
        tap("embed", &hidden);
        let bias = self.bias(length, mask, device)?;
        for (index, block) in self.blocks.iter().enumerate() {
            hidden = self.block(block, &hidden, &bias)?;
            tap(&format!("block{index}"), &hidden);
        }
        self.norm(&hidden, &self.final_norm)
    }

    fn block(&self, block: &Block, hidden: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (batch, length, _) = hidden.dims3()?;
        let (heads, dim) = (self.config.num_heads, self.config.d_kv);
        let normed = self.norm(hidden, &block.attention_norm)?;
        let split = |x: Tensor| x.reshape((batch, length, heads, dim))?.transpose(1, 2)?.contiguous();
        let query = split(normed.apply(&block.query)?)?;
        let key = split(normed.apply(&block.key)?)?;
        let value = split(normed.apply(&block.value)?)?;
        // T5 does not scale its scores.
        let scores = query.matmul(&key.t()?.contiguous()?)?.broadcast_add(bias)?;
        let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, length, heads * dim))?;
        let hidden = (hidden + mixed.contiguous()?.apply(&block.output)?)?;
        let normed = self.norm(&hidden, &block.ffn_norm)?;
        let activate = |x: Tensor| x.apply(&self.config.feed_forward_proj.activation);
        let fed = match &block.ffn {
            FeedForward::Plain { input, output } => activate(normed.apply(input)?)?.apply(output)?,
            FeedForward::Gated { gate, input, output } => {
                (activate(normed.apply(gate)?)? * normed.apply(input)?)?.apply(output)?
            }
        };
        Ok((hidden + fed)?)
    }

    /// RMS norm without mean and bias.
    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let scaled = x.broadcast_div(&(variance + self.config.layer_norm_epsilon)?.sqrt()?)?;
        Ok(scaled.broadcast_mul(weight)?)
    }

    /// What is added to the scores: relative positions, and minus infinity for padding. `[1 or
    /// batch, heads, n, n]`.
    fn bias(&self, length: usize, mask: Option<&[Vec<u32>]>, device: &Device) -> Result<Tensor> {
        let buckets: Vec<u32> = (0..length)
            .flat_map(|query| (0..length).map(move |key| key as i64 - query as i64))
            .map(|distance| {
                bucket(
                    distance,
                    self.config.relative_attention_num_buckets,
                    self.config.relative_attention_max_distance,
                ) as u32
            })
            .collect();
        let relative = self
            .relative
            .index_select(&Tensor::from_vec(buckets, length * length, device)?, 0)?
            .reshape((length, length, self.config.num_heads))?
            .permute((2, 0, 1))?
            .unsqueeze(0)?;
        let Some(mask) = mask else { return Ok(relative) };
        let hidden: Vec<f32> = mask.iter().flatten().map(|keep| if *keep == 0 { f32::MIN } else { 0.0 }).collect();
        let hidden = Tensor::from_vec(hidden, (mask.len(), 1, 1, length), device)?.to_dtype(DType::F32)?;
        Ok(relative.broadcast_add(&hidden)?)
    }
}

/// The bucket of a relative position (key minus query): half the buckets per side, exact near the
/// query, then logarithmic up to `max_distance`.
pub fn bucket(distance: i64, buckets: usize, max_distance: usize) -> usize {
    let side = buckets / 2;
    let offset = if distance > 0 { side } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    let exact = side / 2;
    if distance < exact {
        return offset + distance;
    }
    let scale = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    offset + (exact + (scale * (side - exact) as f32) as usize).min(side - 1)
}
