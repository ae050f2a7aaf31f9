//! The flow transformer: noisy latents, a flow step and texts in, velocities out, one layer at a
//! time.
//!
//! Pre-norm layers with self attention (rotary positions), cross attention and a feed-forward part;
//! the embedding of the flow step is added to the input of both attentions. Outputs of the first
//! half come back in the second, last in first out, joined by a matrix each. Reference:
//! audiocraft's `modules/transformer.py` and `models/flow.py`.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::{
    super::{
        error::{ModelError, Result},
        kernels::{Epilogue, FullAttention, Kernels, Linear, Pairing, Rotary, layer_norm},
        weights::Weights,
    },
    config::{FlowConfig, STEP_FEATURES},
};

const EPS: f32 = 1e-5;

/// Shown what is computed on the way, by the reference's names.
pub type Tap<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// A text made ready for every layer: keys and values of its cross attention.
pub struct Prompt(Vec<(Tensor, Tensor)>);

/// What a row of the batch is conditioned on; `None` is the empty text.
pub type Row = Option<Arc<Prompt>>;

/// The transformer.
pub struct Transformer {
    step_in: Linear,
    step_out: Linear,
    input: Linear,
    output: Linear,
    output_norm: Norm,
    layers: Vec<Layer>,
    skips: Vec<Linear>,
    rotary: Rotary,
    attention: FullAttention,
    kernels: Kernels,
    heads: usize,
    width: usize,
}

struct Norm(Tensor, Tensor);

struct Layer {
    norm: [Norm; 3],
    qkv: Linear,
    self_out: Linear,
    cross_query: Linear,
    cross_keys: Linear,
    cross_values: Linear,
    cross_out: Linear,
    first: Linear,
    second: Linear,
}

/// One evaluation on its way through the layers.
pub struct Pass {
    x: Tensor,
    step: Tensor,
    stack: Vec<Tensor>,
    next: usize,
}

impl Transformer {
    /// Reads the weights by the names of the checkpoint.
    ///
    /// # Errors
    /// [`ModelError::Weight`].
    pub fn new(config: &FlowConfig, weights: &Weights<'_>) -> Result<Self> {
        let (width, target) = (config.width, weights.target());
        let norm = |name: &str| {
            let here = weights.at(name);
            Ok::<_, ModelError>(Norm(here.get("weight", &[width])?, here.get("bias", &[width])?))
        };
        let linear = |weight: &Tensor| Linear::new(weight, None, target.kernels, target.format);
        let layer = |index: usize| {
            let at = |name: &str| format!("transformer.layers.{index}.{name}");
            let packed = weights.get(&at("cross_attention.in_proj_weight"), &[3 * width, width])?;
            let part = |index: usize| linear(&packed.narrow(0, index * width, width)?.contiguous()?);
            Ok(Layer {
                norm: [norm(&at("norm1"))?, norm(&at("norm_cross"))?, norm(&at("norm2"))?],
                qkv: linear(&weights.get(&at("self_attn.in_proj_weight"), &[3 * width, width])?)?,
                self_out: weights.linear(&at("self_attn.out_proj"), width, width, false)?,
                cross_query: part(0)?,
                cross_keys: part(1)?,
                cross_values: part(2)?,
                cross_out: weights.linear(&at("cross_attention.out_proj"), width, width, false)?,
                first: weights.linear(&at("linear1"), config.ffn, width, false)?,
                second: weights.linear(&at("linear2"), width, config.ffn, false)?,
            })
        };
        let skip =
            |index: usize| weights.linear(&format!("transformer.skip_projections.{index}"), width, 2 * width, false);
        // Stored rounded; the model was trained with the rounded ones.
        let frequencies = weights.get("transformer.rope.frequencies", &[width / config.heads / 2])?;
        let frequencies: Vec<f32> = frequencies.to_vec1()?;
        Ok(Self {
            step_in: weights.linear("timestep_embedder.mlp.0", width, STEP_FEATURES, false)?,
            step_out: weights.linear("timestep_embedder.mlp.2", width, width, false)?,
            input: weights.linear("in_proj", width, config.latents, false)?,
            output: weights.linear("out_proj", config.latents, width, false)?,
            output_norm: norm("out_norm")?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            skips: (0..config.skip_count()).map(skip).collect::<Result<_>>()?,
            rotary: Rotary::new(&frequencies, config.most_frames(), Pairing::Neighbours, &target.device)?,
            attention: FullAttention { heads: config.heads, key_heads: config.heads, zero_key: config.zero_key },
            kernels: target.kernels,
            heads: config.heads,
            width,
        })
    }

    /// Layers of an evaluation.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Makes a text's states `[length, width]` ready.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn prepare(&self, states: &Tensor) -> Result<Arc<Prompt>> {
        let keys = self.layers.iter().map(|layer| {
            let part = |linear: &Linear| linear.forward(states, Epilogue::None);
            Ok((part(&layer.cross_keys)?, part(&layer.cross_values)?))
        });
        Ok(Arc::new(Prompt(keys.collect::<Result<_>>()?)))
    }

    /// The embedding `[batch, 1, width]` of flow steps between 0 and 1.
    ///
    /// # Errors
    /// When the device fails.
    pub fn embed_steps(&self, steps: &[f32], tap: &mut Tap<'_>) -> Result<Tensor> {
        let half = STEP_FEATURES / 2;
        let frequency = |i: usize| (-(10_000f32.ln()) * i as f32 / half as f32).exp();
        let mut features = Vec::with_capacity(steps.len() * STEP_FEATURES);
        for step in steps {
            features.extend((0..half).map(|i| (step * frequency(i)).cos()));
            features.extend((0..half).map(|i| (step * frequency(i)).sin()));
        }
        let device = self.output_norm.0.device();
        let features = Tensor::from_vec(features, (steps.len(), 1, STEP_FEATURES), device)?;
        tap("sincos", &features);
        let embedded = features.apply(&self.step_in)?.silu()?.apply(&self.step_out)?;
        tap("temb", &embedded);
        Ok(embedded)
    }

    /// Begins an evaluation of `latents` `[batch, channels, frames]` at one flow step per row.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a clip that is too long.
    pub fn begin(&self, latents: &Tensor, steps: &[f32], tap: &mut Tap<'_>) -> Result<Pass> {
        let step = self.embed_steps(steps, tap)?;
        let scales: Vec<f32> = steps.iter().map(|t| (t * t + (1.0 - t) * (1.0 - t)).sqrt()).collect();
        let scales = Tensor::from_vec(scales, (steps.len(), 1, 1), latents.device())?;
        let scaled = latents.broadcast_div(&scales)?.transpose(1, 2)?.contiguous()?;
        tap("scaled_in", &scaled);
        let x = scaled.apply(&self.input)?;
        tap("in_proj", &x);
        Ok(Pass { x, step, stack: Vec::new(), next: 0 })
    }

    /// Runs one layer; `false` when none is left.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn advance(&self, pass: &mut Pass, rows: &[Row], tap: &mut Tap<'_>) -> Result<bool> {
        let Some(layer) = self.layers.get(pass.next) else { return Ok(false) };
        let (index, count) = (pass.next, self.layers.len());
        let mut x = pass.x.clone();
        // Twice the layer against the count: the middle of an odd number lies between two layers.
        if !self.skips.is_empty() && 2 * index > count {
            let stored = pass.stack.pop().ok_or_else(|| ModelError::Input("The skip connections ran out.".into()))?;
            let joined = Tensor::cat(&[&x, &stored], D::Minus1)?;
            let which = index - count / 2 - 1;
            tap(&format!("skip_use{which}.in"), &joined);
            x = joined.apply(&self.skips[index % self.skips.len()])?;
            tap(&format!("skip_use{which}.out"), &x);
        }
        let mut show = |name: &str, x: &Tensor| tap(&format!("layer{index:02}.{name}"), x);
        let normed = self.normed(&x, &layer.norm[0])?.broadcast_add(&pass.step)?;
        show("self_attn.in", &normed);
        let mixed = self.attend_self(layer, &normed, &mut show)?;
        x = layer.self_out.forward(&mixed, Epilogue::Add(&x))?;
        show("after_self", &x);
        x = self.attend_texts(layer, index, &x, &pass.step, rows, &mut show)?;
        show("after_cross", &x);
        let normed = self.normed(&x, &layer.norm[2])?;
        let inner = layer.first.forward(&normed, Epilogue::Gelu)?;
        x = layer.second.forward(&inner, Epilogue::Add(&x))?;
        show("out", &x);
        if !self.skips.is_empty() && 2 * (index + 1) < count {
            pass.stack.push(x.clone());
        }
        pass.x = x;
        pass.next += 1;
        Ok(pass.next < count)
    }

    /// Ends an evaluation: velocities `[batch, channels, frames]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn finish(&self, pass: &Pass, tap: &mut Tap<'_>) -> Result<Tensor> {
        let normed = self.normed(&pass.x, &self.output_norm)?;
        tap("out_norm", &normed);
        let out = normed.apply(&self.output)?.transpose(1, 2)?.contiguous()?;
        let velocity = (out * std::f64::consts::SQRT_2)?;
        tap("velocity", &velocity);
        Ok(velocity)
    }

    fn normed(&self, x: &Tensor, Norm(weight, bias): &Norm) -> Result<Tensor> {
        Ok(layer_norm(x, weight, bias, EPS, self.kernels)?)
    }

    /// Empty texts come last in a batch; their rows have nothing to attend to.
    fn attend_texts(
        &self,
        layer: &Layer,
        index: usize,
        x: &Tensor,
        step: &Tensor,
        rows: &[Row],
        show: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let described = rows.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if described == 0 {
            return Ok(x.clone());
        }
        let (part, step) = (x.narrow(0, 0, described)?, step.narrow(0, 0, described)?);
        let normed = self.normed(&part, &layer.norm[1])?.broadcast_add(&step)?;
        show("cross_attn.in", &normed);
        let queries = normed.apply(&layer.cross_query)?;
        let keys = rows.iter().take(described).map(|row| row.as_ref().map(|prompt| prompt.0[index].clone()));
        let mixed = self.attention.attend(&queries, &keys.collect::<Vec<_>>(), self.kernels)?;
        let part = layer.cross_out.forward(&mixed, Epilogue::Add(&part))?;
        let others = rows.len() - described;
        if others == 0 {
            return Ok(part);
        }
        Ok(Tensor::cat(&[&part, &x.narrow(0, described, others)?], 0)?)
    }

    fn attend_self(&self, layer: &Layer, x: &Tensor, show: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let packed = x.apply(&layer.qkv)?;
        let part = |index: usize| packed.narrow(D::Minus1, index * self.width, self.width)?.contiguous();
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let by_head = |x: &Tensor| {
            let (batch, time, width) = x.dims3()?;
            x.reshape((batch, time, self.heads, width / self.heads))?.transpose(1, 2)
        };
        show("q", &by_head(&query)?);
        show("k", &by_head(&key)?);
        let (query, key) = (self.rotary.turn(&query, self.heads)?, self.rotary.turn(&key, self.heads)?);
        show("q_rot", &by_head(&query)?);
        show("k_rot", &by_head(&key)?);
        let rows = (0..x.dim(0)?).map(|row| Ok(Some((key.get(row)?, value.get(row)?))));
        let rows: Vec<_> = rows.collect::<Result<_>>()?;
        Ok(self.attention.attend(&query, &rows, self.kernels)?)
    }
}
