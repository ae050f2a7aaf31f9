//! Stands where the GPU's kernels would be in a program that is built without them: the same by
//! plain loops on the CPU, so that tests reach what lies around the kernels. No device offers it.
//! It takes the types that the kernels take, and no others.

use candle_core::{DType, Device, Result, Tensor};

use super::{
    Kernels,
    attention::{Draw, Lines},
    layer_norm,
};
use crate::model::sampler::{self, Shaping};

/// Custom kernels on a GPU; here their stand-in.
#[derive(Debug, Clone)]
pub struct Fused {
    /// Of what is multiplied, and of keys and values.
    dtype: DType,
}

impl Fused {
    pub(super) fn new(_: &Device, _: DType, _: (usize, usize)) -> Option<Self> {
        None
    }

    /// The stand-in for weights of this format.
    #[cfg(test)]
    pub(crate) fn plain(format: super::WeightFormat) -> Self {
        Self { dtype: format.dtype(&Device::Cpu) }
    }

    fn check(&self, tensors: &[&Tensor]) -> Result<()> {
        match tensors.iter().find(|tensor| tensor.dtype() != self.dtype || !tensor.is_contiguous()) {
            Some(tensor) => candle_core::bail!("a kernel for {:?} was given {tensor:?}", self.dtype),
            None => Ok(()),
        }
    }

    pub(super) fn store(&self, pool: &Tensor, qkv: &Tensor, places: &Tensor, lines: Lines) -> Result<()> {
        self.check(&[pool, qkv])?;
        let (Lines { row, head, position, heads, dim }, places) = (lines, places.to_vec2::<u32>()?);
        let pool = pool.flatten_all()?;
        for (token, (at, seen)) in places[0].iter().zip(&places[1]).enumerate() {
            for (own, side) in (0..heads).flat_map(|head| [(head, 0), (head, 1)]) {
                let from = qkv.get(token)?.narrow(0, ((side + 1) * heads + own) * dim, dim)?;
                let to = *at as usize * row + own * head + (*seen as usize - 1) * position;
                pool.slice_set(&from, 0, side * pool.elem_count() / 2 + to)?;
            }
        }
        Ok(())
    }

    pub(super) fn attend(
        &self,
        queries: &Tensor,
        pool: &Tensor,
        places: &Tensor,
        bias: Option<&Tensor>,
        lines: Lines,
        stores: bool,
    ) -> Result<Tensor> {
        self.check(&[pool, queries])?;
        if stores {
            self.store(pool, queries, places, lines)?;
        }
        let (Lines { row, head, position, heads, dim }, places) = (lines, places.to_vec2::<u32>()?);
        let pool: Vec<f32> = pool.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        let (keys, values) = pool.split_at(pool.len() / 2);
        let bias = bias.map(Tensor::to_vec2::<f32>).transpose()?;
        let mut out = Vec::new();
        for (token, query) in queries.to_dtype(DType::F32)?.to_vec2::<f32>()?.iter().enumerate() {
            for own in 0..heads {
                let start = places[0][token] as usize * row + own * head;
                let score = |at: usize| {
                    let key = &keys[start + at * position..][..dim];
                    let dot: f32 = query[own * dim..][..dim].iter().zip(key).map(|(a, b)| a * b).sum();
                    dot / (dim as f32).sqrt() + bias.as_ref().map_or(0.0, |bias| bias[token][at])
                };
                let scores: Vec<f32> = (0..places[1][token] as usize).map(score).collect();
                let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = scores.iter().map(|score| (score - top).exp()).collect();
                let total = if weights.is_empty() { 1.0 } else { weights.iter().sum::<f32>() };
                out.extend((0..dim).map(|i| {
                    let value = |at: usize| values[start + at * position + i];
                    weights.iter().enumerate().map(|(at, weight)| weight * value(at)).sum::<f32>() / total
                }));
            }
        }
        Tensor::from_vec(out, (places[0].len(), heads * dim), queries.device())?.to_dtype(self.dtype)
    }

    pub(super) fn add_norm(
        &self,
        residual: &Tensor,
        product: Option<&Tensor>,
        (weight, bias): (&Tensor, &Tensor),
        eps: f32,
    ) -> Result<Tensor> {
        if let Some(product) = product {
            self.check(&[product])?;
            residual.slice_set(&(residual + product.to_dtype(DType::F32)?)?, 0, 0)?;
        }
        layer_norm(residual, weight, bias, eps, Kernels::Composed)?.to_dtype(self.dtype)
    }

    pub(super) fn gelu(&self, product: Tensor) -> Result<Tensor> {
        self.check(&[&product])?;
        product.to_dtype(DType::F32)?.gelu_erf()?.to_dtype(self.dtype)
    }

    pub(super) fn choose(&self, logits: &Tensor, voices: &[Draw]) -> Result<Vec<u32>> {
        let logits = logits.to_vec3::<f32>()?;
        let code = |draw: &Draw, book: usize| {
            let cond = logits[draw.row][book].clone();
            let guided = draw.null.map(|null| sampler::guide(&cond, &logits[null][book], draw.guidance));
            let shaping = Shaping { temperature: draw.temperature, top_k: draw.top_k as usize, top_p: 1.0 };
            sampler::choose_at(&guided.unwrap_or(cond), shaping, draw.targets[book]).unwrap_or(u32::MAX)
        };
        Ok(voices.iter().flat_map(|draw| (0..draw.targets.len()).map(move |book| code(draw, book))).collect())
    }
}
