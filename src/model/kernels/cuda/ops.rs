//! The attention kernels as operations on tensors.

use candle_core::{
    CpuStorage, CudaStorage, DType, InplaceOp2, Layout, Result, Tensor,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, PushKernelArg},
    },
};
use half::bf16;

use super::{Beside, Fused, Lines, THREADS, grid, on_gpu, range, view, written};

impl Fused {
    /// Copies the keys and values of `qkv` `[tokens, 3 * heads * dim]` into `pool`. `places` is
    /// `[2, tokens]`: the row of every token, and the positions that it sees, of which it is the
    /// last.
    pub(in super::super) fn store(&self, pool: &Tensor, qkv: &Tensor, places: &Tensor, lines: Lines) -> Result<()> {
        pool.inplace_op2(qkv, &Store { fused: self, places, lines })
    }

    /// What every token of `queries` `[tokens, heads * dim or more]` sees in `pool`, `[tokens,
    /// heads * dim]`. `bias` is `[tokens, positions]`. With `stores`, `queries` are a qkv whose
    /// keys and values are copied into the pool first; no row has two tokens then.
    pub(in super::super) fn attend(
        &self,
        queries: &Tensor,
        pool: &Tensor,
        places: &Tensor,
        bias: Option<&Tensor>,
        lines: Lines,
        stores: bool,
    ) -> Result<Tensor> {
        let attend = Attend { fused: self, places, bias, lines, stores, out: Beside::new() };
        pool.inplace_op2(queries, &attend)?;
        written(attend.out, (queries.dim(0)?, lines.heads * lines.dim))
    }
}

struct Store<'a> {
    fused: &'a Fused,
    places: &'a Tensor,
    lines: Lines,
}

impl Store<'_> {
    fn run<T: CudaDType + DeviceRepr>(
        &self,
        (pool, layout): (&mut CudaStorage, &Layout),
        (qkv, qkv_layout): (&CudaStorage, &Layout),
    ) -> Result<()> {
        let Lines { row, head, heads, dim, .. } = self.lines;
        let mut pool = pool.as_cuda_slice_mut::<T>()?.slice_mut(range("store", layout)?);
        let half = pool.len() / 2;
        let (mut keys, mut values) = pool.split_at_mut(half);
        let qkv = view::<T>(qkv, qkv_layout)?;
        let (storage, layout) = self.places.storage_and_layout();
        let places = view::<u32>(on_gpu(&storage)?, layout)?;
        let tokens = places.len() / 2;
        if qkv.len() != tokens * 3 * heads * dim {
            candle_core::bail!("{tokens} tokens do not have {} keys and values", qkv.len());
        }
        let (rows, seen) = (places.slice(..tokens), places.slice(tokens..));
        let (row, head, all_heads, all_dim) = (row as i64, head as i64, heads as i32, dim as i32);
        let stream = self.fused.device.cuda_stream();
        let mut launch = stream.launch_builder(&self.fused.store);
        launch.arg(&qkv).arg(&mut keys).arg(&mut values).arg(&rows).arg(&seen);
        launch.arg(&row).arg(&head).arg(&all_heads).arg(&all_dim);
        // SAFETY: these are the kernel's parameters in their order and types; rows and positions
        // lie in the pool, which the decoder checks for every pass.
        #[allow(unsafe_code)]
        let launched = unsafe { launch.launch(grid((heads * dim).div_ceil(THREADS as usize), tokens)) };
        launched.w()?;
        Ok(())
    }
}

impl InplaceOp2 for Store<'_> {
    fn name(&self) -> &'static str {
        "store"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("a GPU's kernel was given a tensor of the CPU")
    }

    fn cuda_fwd(&self, pool: &mut CudaStorage, layout: &Layout, qkv: &CudaStorage, other: &Layout) -> Result<()> {
        match pool.dtype() {
            DType::BF16 => self.run::<bf16>((pool, layout), (qkv, other)),
            _ => self.run::<f32>((pool, layout), (qkv, other)),
        }
    }
}

struct Attend<'a> {
    fused: &'a Fused,
    places: &'a Tensor,
    bias: Option<&'a Tensor>,
    lines: Lines,
    stores: bool,
    out: Beside,
}

impl Attend<'_> {
    fn run<T: CudaDType + DeviceRepr>(
        &self,
        (pool, layout): (&mut CudaStorage, &Layout),
        (queries, queries_layout): (&CudaStorage, &Layout),
    ) -> Result<CudaStorage> {
        let Lines { row, head, position, heads, dim } = self.lines;
        let mut pool = pool.as_cuda_slice_mut::<T>()?.slice_mut(range("attend", layout)?);
        let half = pool.len() / 2;
        let (mut keys, mut values) = pool.split_at_mut(half);
        let (tokens, stride) = queries_layout.shape().dims2()?;
        let queries = view::<T>(queries, queries_layout)?;
        let (storage, layout) = self.places.storage_and_layout();
        let places = view::<u32>(on_gpu(&storage)?, layout)?;
        let parts = if self.stores { 3 } else { 1 };
        // Queries are read 16 bytes at once.
        if places.len() != 2 * tokens || stride < parts * heads * dim || !stride.is_multiple_of(dim) {
            candle_core::bail!("{tokens} queries of {stride} numbers have {} places", places.len() / 2);
        }
        let (rows, seen) = (places.slice(..tokens), places.slice(tokens..));
        let bias_storage = self.bias.map(|bias| bias.storage_and_layout());
        let bias = match &bias_storage {
            Some((storage, layout)) => Some(view::<f32>(on_gpu(storage)?, layout)?),
            None => None,
        };
        let bias_stride = bias.as_ref().map_or(0, |bias| bias.len() / tokens) as i32;
        let device = &self.fused.device;
        // SAFETY: the kernel writes all of it.
        #[allow(unsafe_code)]
        let mut out = unsafe { device.alloc::<T>(tokens * heads * dim) }?;
        let (row, head, position, stride) = (row as i64, head as i64, position as i32, stride as i32);
        let (all_heads, all_dim, stores, nothing) = (heads as i32, dim as i32, i32::from(self.stores), 0u64);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&self.fused.attend);
        launch.arg(&queries).arg(&mut keys).arg(&mut values).arg(&rows).arg(&seen);
        match &bias {
            Some(bias) => launch.arg(bias),
            None => launch.arg(&nothing),
        };
        launch.arg(&mut out).arg(&row).arg(&head).arg(&position).arg(&stride).arg(&bias_stride);
        launch.arg(&all_heads).arg(&all_dim).arg(&stores);
        // SAFETY: these are the kernel's parameters in their order and types; rows and positions
        // lie in the pool, which the decoder checks for every pass, and slots and lengths in the
        // memory of texts, whose plan they come from.
        #[allow(unsafe_code)]
        let launched = unsafe { launch.launch(grid(heads, tokens)) };
        launched.w()?;
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

impl InplaceOp2 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("a GPU's kernel was given a tensor of the CPU")
    }

    fn cuda_fwd(&self, pool: &mut CudaStorage, layout: &Layout, queries: &CudaStorage, other: &Layout) -> Result<()> {
        let out = match pool.dtype() {
            DType::BF16 => self.run::<bf16>((pool, layout), (queries, other))?,
            _ => self.run::<f32>((pool, layout), (queries, other))?,
        };
        let _ = self.out.set(out);
        Ok(())
    }
}
