//! The diffusion transformer: noisy latents, a noise level and conditions in, velocities out, one
//! block at a time. Reference: `stable_audio_tools/models/{dit,transformer}.py`.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::{
    super::{
        error::{ModelError, Result},
        kernels::{Epilogue, FullAttention, Kernels, Linear, Pairing, Rotary, gate, layer_norm},
        weights::Weights,
    },
    config::{DitConfig, StableConfig},
};

/// Of the blocks' norms.
const EPS: f32 = 1e-5;
/// Of the norms per head.
const HEAD_EPS: f32 = 1e-6;
/// Frequencies of the noise level's features.
const FREQUENCIES: usize = 128;

/// Shown what is computed on the way, by the reference's names.
pub type Tap<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// Condition tokens made ready for every block: keys and values of its cross attention.
pub struct Context(Vec<(Tensor, Tensor)>);

/// What a row of the batch is conditioned on.
#[derive(Clone)]
pub struct Row {
    /// Attended to.
    pub context: Arc<Context>,
    /// The embedded global condition `[1, width]`.
    pub global: Tensor,
}

/// The transformer.
pub struct Dit {
    config: DitConfig,
    frequencies: Vec<f32>,
    step: [Linear; 2],
    cond: [Linear; 2],
    global: [Linear; 2],
    before: Linear,
    after: Linear,
    input: Linear,
    output: Linear,
    blocks: Vec<Block>,
    rotary: Rotary,
    kernels: Kernels,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

struct Block {
    norms: [Norm; 3],
    qkv: Linear,
    self_out: Linear,
    self_heads: Option<[Norm; 2]>,
    cross_query: Linear,
    cross_keys: Linear,
    cross_out: Linear,
    cross_heads: Option<[Norm; 2]>,
    first: Linear,
    second: Linear,
}

/// One evaluation on its way through the blocks.
pub struct Pass {
    x: Tensor,
    next: usize,
}

impl Dit {
    /// Reads the weights below `weights`.
    ///
    /// # Errors
    /// [`ModelError::Weight`].
    pub fn new(config: &StableConfig, weights: &Weights<'_>) -> Result<Self> {
        let (dit, latents) = (&config.dit, config.latents);
        let (width, head) = (dit.width, dit.width / dit.heads);
        let target = weights.target();
        let norm = |at: &Weights<'_>, [weight, bias]: [&str; 2], width: usize, eps: f32| {
            Ok::<_, ModelError>(Norm { weight: at.get(weight, &[width])?, bias: at.get(bias, &[width])?, eps })
        };
        let heads = |at: &Weights<'_>| match dit.head_norm {
            true => {
                let norm = |name: &str| norm(&at.at(name), ["weight", "bias"], head, HEAD_EPS);
                Ok::<_, ModelError>(Some([norm("q_norm")?, norm("k_norm")?]))
            }
            false => Ok(None),
        };
        let block = |index: usize| {
            let here = weights.at(format!("transformer.layers.{index}"));
            let block_norm = |name: &str| norm(&here.at(name), ["gamma", "beta"], width, EPS);
            let (own, cross) = (here.at("self_attn"), here.at("cross_attn"));
            Ok(Block {
                norms: [block_norm("pre_norm")?, block_norm("cross_attend_norm")?, block_norm("ff_norm")?],
                qkv: own.linear("to_qkv", 3 * width, width, false)?,
                self_out: own.linear("to_out", width, width, false)?,
                self_heads: heads(&own)?,
                cross_query: cross.linear("to_q", width, width, false)?,
                cross_keys: cross.linear("to_kv", 2 * dit.context_width(), dit.context_width(), false)?,
                cross_out: cross.linear("to_out", width, width, false)?,
                cross_heads: heads(&cross)?,
                first: here.linear("ff.ff.0.proj", 8 * width, width, true)?,
                second: here.linear("ff.ff.2", width, 4 * width, true)?,
            })
        };
        let point = |name: &str| {
            let weight = weights.get(&format!("{name}.weight"), &[latents, latents, 1])?.squeeze(2)?;
            Ok::<_, ModelError>(Linear::new(&weight, None, target.kernels, target.format)?)
        };
        let two = |name: &str, inputs: usize, outputs: usize, bias: bool| {
            let at = weights.at(name);
            Ok::<_, ModelError>([at.linear("0", outputs, inputs, bias)?, at.linear("2", outputs, outputs, bias)?])
        };
        let inverse: Vec<f32> = weights.get("transformer.rotary_pos_emb.inv_freq", &[dit.rotated() / 2])?.to_vec1()?;
        let features = weights.get("timestep_features.weight", &[FREQUENCIES, 1])?;
        Ok(Self {
            frequencies: features.flatten_all()?.to_vec1()?,
            step: two("to_timestep_embed", 2 * FREQUENCIES, width, true)?,
            cond: two("to_cond_embed", dit.cond_width, dit.context_width(), false)?,
            global: two("to_global_embed", dit.global_width, width, false)?,
            before: point("preprocess_conv")?,
            after: point("postprocess_conv")?,
            input: weights.linear("transformer.project_in", width, latents, false)?,
            output: weights.linear("transformer.project_out", latents, width, false)?,
            blocks: (0..dit.depth).map(block).collect::<Result<_>>()?,
            rotary: Rotary::new(&inverse, config.frames() + 1, Pairing::Halves, &target.device)?,
            kernels: target.kernels,
            config: dit.clone(),
        })
    }

    /// Blocks of an evaluation.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Makes conditions ready: tokens `[length, cond width]` and the global condition `[1, global
    /// width]`.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn prepare(&self, tokens: &Tensor, global: &Tensor, tap: &mut Tap<'_>) -> Result<Row> {
        let [first, second] = &self.global;
        let global = global.apply(first)?.silu()?.apply(second)?;
        tap("global_embed", &global);
        let [first, second] = &self.cond;
        let context = tokens.apply(first)?.silu()?.apply(second)?;
        tap("cond_embed", &context);
        let keys = self.blocks.iter().map(|block| {
            let both = context.apply(&block.cross_keys)?;
            let width = self.config.context_width();
            let keys = both.narrow(1, 0, width)?.contiguous()?;
            let values = both.narrow(1, width, width)?.contiguous()?;
            Ok((self.by_head(&keys, block.cross_heads.as_ref().map(|[_, keys]| keys))?, values))
        });
        Ok(Row { context: Arc::new(Context(keys.collect::<Result<_>>()?)), global })
    }

    /// Begins an evaluation of `latents` `[batch, channels, frames]` at one noise level per row.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn begin(&self, latents: &Tensor, levels: &[f32], rows: &[Row], tap: &mut Tap<'_>) -> Result<Pass> {
        let mut features = Vec::with_capacity(levels.len() * 2 * FREQUENCIES);
        for level in levels {
            let angle = |w: &f32| std::f32::consts::TAU * level * w;
            features.extend(self.frequencies.iter().map(|w| angle(w).cos()));
            features.extend(self.frequencies.iter().map(|w| angle(w).sin()));
        }
        let features = Tensor::from_vec(features, (levels.len(), 2 * FREQUENCIES), latents.device())?;
        tap("timestep_features", &features);
        let [first, second] = &self.step;
        let step = features.apply(first)?.silu()?.apply(second)?;
        tap("timestep_embed", &step);
        let globals: Vec<&Tensor> = rows.iter().map(|row| &row.global).collect();
        let token = (Tensor::cat(&globals, 0)? + step)?.unsqueeze(1)?;
        tap("prepend_token", &token);
        let x = latents.transpose(1, 2)?.contiguous()?;
        let x = self.before.forward(&x, Epilogue::Add(&x))?;
        tap("preprocess", &x.transpose(1, 2)?);
        let x = x.apply(&self.input)?;
        tap("project_in", &x);
        let x = Tensor::cat(&[token, x], 1)?;
        tap("input", &x);
        Ok(Pass { x, next: 0 })
    }

    /// Runs one block; `false` when none is left.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn advance(&self, pass: &mut Pass, rows: &[Row], tap: &mut Tap<'_>) -> Result<bool> {
        let Some(block) = self.blocks.get(pass.next) else { return Ok(false) };
        let index = pass.next;
        let mut show = |name: &str, x: &Tensor| tap(&format!("block{index}.{name}"), x);
        let mut x = pass.x.clone();
        let normed = self.normed(&x, &block.norms[0])?;
        show("pre_norm", &normed);
        let mixed = self.attend_self(block, &normed, &mut show)?;
        x = block.self_out.forward(&mixed, Epilogue::Add(&x))?;
        show("after_self", &x);

        let normed = self.normed(&x, &block.norms[1])?;
        show("cross_attend_norm", &normed);
        let query = normed.apply(&block.cross_query)?;
        let query = self.by_head(&query, block.cross_heads.as_ref().map(|[query, _]| query))?;
        let keys: Vec<_> = rows.iter().map(|row| Some(row.context.0[index].clone())).collect();
        let head = self.config.width / self.config.heads;
        let key_heads = self.config.context_width() / head;
        let mixed = FullAttention { heads: self.config.heads, key_heads, zero_key: false };
        x = block.cross_out.forward(&mixed.attend(&query, &keys, self.kernels)?, Epilogue::Add(&x))?;
        show("after_cross", &x);

        let normed = self.normed(&x, &block.norms[2])?;
        show("ff_norm", &normed);
        let gated = gate(&normed.apply(&block.first)?, self.kernels)?;
        x = block.second.forward(&gated, Epilogue::Add(&x))?;
        show("out", &x);
        pass.x = x;
        pass.next += 1;
        Ok(pass.next < self.blocks.len())
    }

    /// Ends an evaluation: velocities `[batch, channels, frames]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn finish(&self, pass: &Pass, tap: &mut Tap<'_>) -> Result<Tensor> {
        let x = pass.x.apply(&self.output)?;
        tap("project_out", &x);
        let frames = x.dim(1)? - 1;
        let x = x.narrow(1, 1, frames)?.contiguous()?;
        let out = self.after.forward(&x, Epilogue::Add(&x))?.transpose(1, 2)?.contiguous()?;
        tap("output", &out);
        Ok(out)
    }

    fn normed(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        Ok(layer_norm(x, &norm.weight, &norm.bias, norm.eps, self.kernels)?)
    }

    /// Normalises every head of `[.., heads * dim]`.
    fn by_head(&self, x: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        let Some(norm) = norm else { return Ok(x.clone()) };
        let shape = x.dims().to_vec();
        let heads = x.reshape(((), self.config.width / self.config.heads))?;
        Ok(self.normed(&heads, norm)?.reshape(shape)?)
    }

    fn attend_self(&self, block: &Block, x: &Tensor, show: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let (width, heads) = (self.config.width, self.config.heads);
        let packed = x.apply(&block.qkv)?;
        let part = |index: usize| packed.narrow(D::Minus1, index * width, width)?.contiguous();
        let turned = |index: usize| {
            let norm = block.self_heads.as_ref().map(|norms| &norms[index]);
            Ok::<_, ModelError>(self.rotary.turn(&self.by_head(&part(index)?, norm)?, heads)?)
        };
        let (query, key, value) = (turned(0)?, turned(1)?, part(2)?);
        let split = |x: &Tensor| {
            let (batch, time, _) = x.dims3()?;
            x.reshape((batch, time, heads, width / heads))?.transpose(1, 2)
        };
        show("self_attn.q_rot", &split(&query)?);
        show("self_attn.k_rot", &split(&key)?);
        let rows = (0..x.dim(0)?).map(|row| Ok(Some((key.get(row)?, value.get(row)?))));
        let rows: Vec<_> = rows.collect::<Result<_>>()?;
        let attention = FullAttention { heads, key_heads: heads, zero_key: false };
        Ok(attention.attend(&query, &rows, self.kernels)?)
    }
}
