//! Named weights, wherever they come from, and how they are prepared for a device.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::{
    error::{ModelError, Result},
    kernels::{Kernels, Linear, WeightFormat},
};

/// Something that holds tensors by name.
pub trait TensorSource {
    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool;
    /// Reads a tensor in its stored type into CPU memory. `shape` is what the model expects; a file
    /// hands out what it has.
    ///
    /// # Errors
    /// When it is absent or the file is damaged.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor>;
}

/// Where weights go and in what form.
#[derive(Debug, Clone)]
pub struct Target {
    /// The device.
    pub device: Device,
    /// Whose operations run on it.
    pub kernels: Kernels,
    /// How the decoder's matrices are stored by native kernels.
    pub format: WeightFormat,
    /// Whether custom kernels are used where candle's operations run, if the device has any.
    pub fused: bool,
}

impl Target {
    /// f32 on a device, with the faster operations there.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), kernels: Kernels::for_device(device), format: WeightFormat::F32, fused: true }
    }
}

/// A source with a prefix: names in the code mirror those in the checkpoint.
#[derive(Clone)]
pub struct Weights<'a> {
    source: &'a dyn TensorSource,
    prefix: String,
    target: Target,
    /// Shared by all that come from the same call of [`Weights::new`].
    taken: Arc<AtomicU64>,
}

impl<'a> Weights<'a> {
    /// All weights of a source.
    pub fn new(source: &'a dyn TensorSource, target: &Target) -> Self {
        Self { source, prefix: String::new(), target: target.clone(), taken: Arc::default() }
    }

    /// The weights below a name.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: self.full(&name.to_string()), ..self.clone() }
    }

    /// The same weights, stored in another format.
    pub fn stored(&self, format: WeightFormat) -> Self {
        Self { target: Target { format, ..self.target.clone() }, ..self.clone() }
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Bytes of all weights that were handed out so far, in the form that they are kept in.
    pub fn bytes(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether there is a weight of this name.
    pub fn has(&self, name: &str) -> bool {
        self.source.has(&self.full(name))
    }

    /// Where weights go and in what form.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A weight of known shape, as f32 on the device.
    ///
    /// # Errors
    /// [`ModelError::Weight`] when it is absent or of another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let weight = self.load(name, shape)?.to_device(&self.target.device)?;
        self.taken.fetch_add(4 * weight.elem_count() as u64, Ordering::Relaxed);
        Ok(weight)
    }

    /// A matrix that was got from here, in its final form.
    fn packed(&self, weight: &Tensor, bias: Option<Tensor>) -> Result<Linear> {
        let linear = Linear::new(weight, bias, self.target.kernels, self.target.format)?;
        self.taken.fetch_sub(4 * weight.elem_count() as u64, Ordering::Relaxed);
        self.taken.fetch_add(linear.bytes() as u64, Ordering::Relaxed);
        Ok(linear)
    }

    fn load(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = self.full(name);
        let weight = |reason| ModelError::Weight { name: name.clone(), reason };
        if !self.source.has(&name) {
            return Err(weight("it is absent".into()));
        }
        let tensor = self.source.read(&name, shape)?;
        if tensor.dims() != shape {
            return Err(weight(format!("its shape is {:?} but must be {shape:?}", tensor.dims())));
        }
        Ok(tensor.to_dtype(DType::F32)?)
    }

    /// The linear layer `name`, whose weight is `[outputs, inputs]`.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn linear(&self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Linear> {
        let here = self.at(name);
        let weight = here.get("weight", &[outputs, inputs])?;
        let bias = if bias { Some(here.get("bias", &[outputs])?) } else { None };
        self.packed(&weight, bias)
    }

    /// Several linear layers without bias and with the same input as one: their outputs side by
    /// side.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn stacked(&self, names: &[String], outputs: usize, inputs: usize) -> Result<Linear> {
        let parts = names.iter().map(|name| self.get(&format!("{name}.weight"), &[outputs, inputs]));
        let weight = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?;
        self.packed(&weight, None)
    }
}

/// A checkpoint.
impl TensorSource for VarBuilder<'_> {
    fn has(&self, name: &str) -> bool {
        self.contains_tensor(name)
    }

    fn read(&self, name: &str, _: &[usize]) -> Result<Tensor> {
        Ok(self.get_unchecked(name)?)
    }
}

/// Tensors in memory.
impl TensorSource for HashMap<String, Tensor> {
    fn has(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn read(&self, name: &str, _: &[usize]) -> Result<Tensor> {
        self.get(name).cloned().ok_or_else(|| ModelError::Weight { name: name.into(), reason: "it is absent".into() })
    }
}

/// Weights made up from a seed, their name and their shape: for benchmarks and tests without a
/// checkpoint. Matrices keep the size of their input, biases are zero and norms one.
pub struct RandomSource(pub u64);

impl TensorSource for RandomSource {
    fn has(&self, name: &str) -> bool {
        !["parametrizations", "weight_g", "weight_v"].iter().any(|part| name.contains(part))
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let count: usize = shape.iter().product();
        let data = match shape {
            [_] if name.ends_with("bias") || name.contains("bias_") => vec![0f32; count],
            [_] => vec![1f32; count],
            [_, rest @ ..] => {
                let inputs = rest.iter().product::<usize>();
                let bound = if name.contains("embed") { 1.0 } else { (3.0 / inputs as f32).sqrt() };
                let seed = name.bytes().fold(self.0, |hash, byte| mix(hash ^ u64::from(byte)));
                let mut data = vec![0f32; count];
                data.par_chunks_mut(1 << 16).enumerate().for_each(|(index, chunk)| {
                    let mut state = mix(seed.wrapping_add(index as u64));
                    for value in chunk {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        *value = ((state >> 40) as f32 / 8_388_608.0 - 1.0) * bound;
                    }
                });
                data
            }
            [] => vec![0f32; 1],
        };
        Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    let value = (value ^ (value >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d);
    value ^ (value >> 33)
}
