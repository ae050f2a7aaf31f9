//! The few operations in which the models spend their time.
//!
//! Each is one function on candle tensors with two bodies: a native one for the CPU, whose result
//! for a row is the same bit for bit whatever else is in the batch, and one composed of candle's
//! own operations for other devices (and, in tests, to compare the native one with). What a
//! decoder's step consists of has a third one on NVIDIA GPUs, [`Fused`]: [`Stream`] and [`KvLayer`]
//! choose it where a [`Pass`] is made for it.

mod attention;
#[cfg_attr(not(feature = "cuda"), path = "cuda/plain.rs")]
mod cuda;
mod gemm;
mod kernel_pool;
mod linear;
mod lstm;
mod math;
mod memory;
mod norm;
mod quant;
mod stream;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Storage, Tensor};

pub use attention::{AttendRow, CrossKeys, CrossPart, Draw, FullAttention, KvLayer, Pairing, Pass, Rotary, TextSlots};
pub use cuda::Fused;
pub use linear::{Epilogue, Linear};

pub use crate::units::WeightFormat;
pub use lstm::{LstmLayer, LstmState};
pub use memory::Probe;
pub use norm::{elu, gate, join, layer_norm, snake};
pub use stream::Stream;

/// Which body of the operations is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Our own loops on CPU memory.
    Native,
    /// candle's operations, on any device.
    Composed,
}

impl Kernels {
    /// The faster choice for a device.
    pub fn for_device(device: &Device) -> Self {
        if device.is_cpu() { Self::Native } else { Self::Composed }
    }
}

/// A closure over the CPU memory of a contiguous f32 tensor as a candle operation.
struct Native<F>(&'static str, F);

impl<F: Fn(&[f32], &Shape) -> Result<(Vec<f32>, Shape)>> CustomOp1 for Native<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (out, shape) = (self.1)(floats(self.0, storage, layout)?, layout.shape())?;
        Ok((CpuStorage::F32(out), shape))
    }
}

fn range(name: &str, layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => candle_core::bail!("{name} needs a contiguous tensor, got {layout:?}"),
    }
}

fn floats<'a>(name: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        CpuStorage::F32(data) => Ok(&data[range(name, layout)?]),
        other => {
            candle_core::bail!("{name} needs f32 tensors, got {:?}", candle_core::backend::BackendStorage::dtype(other))
        }
    }
}

/// Lends the CPU memory of a contiguous f32 tensor.
fn with_floats<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(floats("native operation", storage, layout)?),
        _ => candle_core::bail!("a native operation was given a tensor of another device"),
    }
}
