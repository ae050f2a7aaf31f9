//! The kernels between a layer's products as operations on tensors.

use candle_core::{
    CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Tensor,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, PushKernelArg},
    },
};
use half::bf16;

use super::{Beside, Fused, THREADS, grid, on_gpu, range, view, written};

impl Fused {
    /// Adds a product to the residual stream `[rows, width]` in f32, in place; what comes back is
    /// the stream's layer norm in the type that weights are multiplied in.
    pub(in super::super) fn add_norm(
        &self,
        residual: &Tensor,
        product: Option<&Tensor>,
        (weight, bias): (&Tensor, &Tensor),
        eps: f32,
    ) -> Result<Tensor> {
        let op = AddNorm { fused: self, product, weight, bias, eps, out: Beside::new() };
        residual.inplace_op1(&op)?;
        written(op.out, residual.dims2()?)
    }

    /// The exact GELU of a product, in its own memory.
    pub(in super::super) fn gelu(&self, product: Tensor) -> Result<Tensor> {
        product.inplace_op1(&Gelu(self))?;
        Ok(product)
    }
}

struct AddNorm<'a> {
    fused: &'a Fused,
    product: Option<&'a Tensor>,
    weight: &'a Tensor,
    bias: &'a Tensor,
    eps: f32,
    out: Beside,
}

impl AddNorm<'_> {
    fn run<T: CudaDType + DeviceRepr>(&self, residual: &mut CudaStorage, layout: &Layout) -> Result<CudaStorage> {
        let (rows, width) = layout.shape().dims2()?;
        let mut residual = residual.as_cuda_slice_mut::<f32>()?.slice_mut(range("add_norm", layout)?);
        let product_storage = self.product.map(|product| product.storage_and_layout());
        let product = match &product_storage {
            Some((storage, layout)) => Some(view::<T>(on_gpu(storage)?, layout)?),
            None => None,
        };
        let (weight_storage, weight_layout) = self.weight.storage_and_layout();
        let weight = view::<f32>(on_gpu(&weight_storage)?, weight_layout)?;
        let (bias_storage, bias_layout) = self.bias.storage_and_layout();
        let bias = view::<f32>(on_gpu(&bias_storage)?, bias_layout)?;
        if [self.fused.width, weight.len(), bias.len()].iter().any(|own| *own != width) {
            candle_core::bail!("a layer norm of {} numbers was given rows of {width}", weight.len());
        }
        if product.as_ref().is_some_and(|product| product.len() != rows * width) {
            candle_core::bail!("what is added to a residual stream of {rows} rows of {width} has another shape");
        }
        let device = &self.fused.device;
        // SAFETY: the kernel writes all of it.
        #[allow(unsafe_code)]
        let mut out = unsafe { device.alloc::<T>(rows * width) }?;
        let (row_width, nothing) = (width as i32, 0u64);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&self.fused.add_norm);
        launch.arg(&mut residual);
        match &product {
            Some(product) => launch.arg(product),
            None => launch.arg(&nothing),
        };
        launch.arg(&weight).arg(&bias).arg(&mut out).arg(&row_width).arg(&self.eps);
        // SAFETY: these are the kernel's parameters in their order and types, of the lengths that
        // were checked.
        #[allow(unsafe_code)]
        let launched = unsafe { launch.launch(grid(rows, 1)) };
        launched.w()?;
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

impl InplaceOp1 for AddNorm<'_> {
    fn name(&self) -> &'static str {
        "add_norm"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("a GPU's kernel was given a tensor of the CPU")
    }

    fn cuda_fwd(&self, residual: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let out = match self.fused.dtype {
            DType::BF16 => self.run::<bf16>(residual, layout)?,
            _ => self.run::<f32>(residual, layout)?,
        };
        let _ = self.out.set(out);
        Ok(())
    }
}

struct Gelu<'a>(&'a Fused);

impl Gelu<'_> {
    fn run<T: CudaDType + DeviceRepr>(&self, x: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let mut x = x.as_cuda_slice_mut::<T>()?.slice_mut(range("gelu", layout)?);
        let (count, pack) = (x.len(), 16 / size_of::<T>());
        let all = count as i64;
        let stream = self.0.device.cuda_stream();
        let mut launch = stream.launch_builder(&self.0.gelu);
        launch.arg(&mut x).arg(&all);
        // SAFETY: these are the kernel's parameters in their order and types.
        #[allow(unsafe_code)]
        let launched = unsafe { launch.launch(grid(count.div_ceil(pack * THREADS as usize), 1)) };
        launched.w()?;
        Ok(())
    }
}

impl InplaceOp1 for Gelu<'_> {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("a GPU's kernel was given a tensor of the CPU")
    }

    fn cuda_fwd(&self, x: &mut CudaStorage, layout: &Layout) -> Result<()> {
        match self.0.dtype {
            DType::BF16 => self.run::<bf16>(x, layout),
            _ => self.run::<f32>(x, layout),
        }
    }
}
