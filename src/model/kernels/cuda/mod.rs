//! Custom kernels for NVIDIA GPUs: keys and values into the pool, attention straight out of it,
//! what lies between a layer's products, the choice of codes.
//!
//! Their text is compiled when a model is put to work, by the NVRTC library of the machine's CUDA,
//! for that GPU and that model. `tests/cuda.rs` runs the same text on a CPU.

mod layer;
mod ops;

use std::{
    cell::OnceCell,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Layout, Result, Storage, Tensor,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::{
            driver::{CudaFunction, CudaView, LaunchConfig, PushKernelArg},
            nvrtc::{CompileOptions, compile_ptx_with_opts},
        },
    },
    op::BackpropOp,
};

use super::{
    attention::{Draw, Lines},
    range,
};

/// What all kernels need, which stand in one text.
const TEXT: &str = concat!(include_str!("attend.cu"), include_str!("layer.cu"), include_str!("sample.cu"));
/// Threads of a block of every kernel.
const THREADS: u32 = 256;
/// As in `attend.cu`.
const MOST_DIM: usize = 128;
/// Numbers of a row that a thread of `add_norm` holds in registers, at most.
const MOST_EACH: usize = 16;

/// Custom kernels on a GPU, for a decoder's type, head size and width.
#[derive(Debug, Clone)]
pub struct Fused {
    device: CudaDevice,
    /// Of what is multiplied, and of keys and values.
    dtype: DType,
    /// Of the residual stream.
    width: usize,
    store: CudaFunction,
    attend: CudaFunction,
    add_norm: CudaFunction,
    gelu: CudaFunction,
    sample: CudaFunction,
}

impl Fused {
    /// Compiles the kernels and tries them; says in the log why if they cannot be used.
    pub(super) fn new(device: &Device, dtype: DType, heads: (usize, usize)) -> Option<Self> {
        let Device::Cuda(cuda) = device else { return None };
        match Self::compile(cuda, dtype, heads).and_then(|fused| fused.tried(device, heads)) {
            Ok(fused) => Some(fused),
            Err(error) => {
                tracing::warn!(%error, "the kernels for this GPU cannot be used; slower operations take their place");
                None
            }
        }
    }

    fn compile(device: &CudaDevice, dtype: DType, (heads, dim): (usize, usize)) -> Result<Self> {
        let (pool, pack) = match dtype {
            DType::F32 => ("float", 4),
            DType::BF16 => ("bf16", 8),
            other => candle_core::bail!("there is no kernel for weights of {other:?}"),
        };
        if !dim.is_multiple_of(pack) || dim > MOST_DIM {
            candle_core::bail!("there is no kernel for heads of {dim} numbers");
        }
        let (lanes, each) = ((dim / pack).next_power_of_two().max(2), (heads * dim).div_ceil(THREADS as usize));
        if each > MOST_EACH {
            candle_core::bail!("there is no kernel for layers of {} numbers", heads * dim);
        }
        let (major, minor) = device.cuda_stream().context().compute_capability().w()?;
        let options = vec![
            format!("--gpu-architecture=compute_{major}{minor}"),
            format!("-DPOOL={pool}"),
            format!("-DPOOL_LANES={lanes}"),
            format!("-DNORM_EACH={each}"),
        ];
        let (module, ptx) = (format!("continuo_{pool}_{lanes}_{each}"), ptx(options)?);
        let function = |name| -> Result<CudaFunction> {
            Ok(device.get_or_load_custom_func(name, &module, &ptx)?.into_cuda_function())
        };
        Ok(Self {
            device: device.clone(),
            dtype,
            width: heads * dim,
            store: function("store")?,
            attend: function("attend")?,
            add_norm: function("add_norm")?,
            gelu: function("gelu")?,
            sample: function("sample")?,
        })
    }

    /// A first launch of every kernel, with results that are known: what one position sees is its
    /// own value, and the layer norm of two numbers that come in turns is one of two, too.
    fn tried(self, device: &Device, (heads, dim): (usize, usize)) -> Result<Self> {
        let near = |found: &Tensor, expected: &[f32]| -> Result<bool> {
            let found = found.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 0.01 * expected.abs();
            Ok(found.len() == expected.len() && found.iter().zip(expected).all(near))
        };
        let qkv: Vec<f32> = (0..3 * dim).map(|i| i as f32 / 256.0).collect();
        let values = qkv[2 * dim..].to_vec();
        let qkv = Tensor::from_vec(qkv, (1, 3 * dim), device)?.to_dtype(self.dtype)?;
        let places = Tensor::new(&[[0u32], [1]], device)?;
        let lines = Lines { row: 2 * dim, head: 2 * dim, position: dim, heads: 1, dim };
        let pool = || Tensor::zeros((2, 1, 1, 2, dim), self.dtype, device);
        let (one, other) = (pool()?, pool()?);
        self.store(&one, &qkv, &places, lines)?;
        let attends = near(&self.attend(&qkv, &one, &places, None, lines, false)?, &values)?
            && near(&self.attend(&qkv, &other, &places, None, lines, true)?, &values)?;

        let width = heads * dim;
        let turns = |even: f32, odd: f32| (0..width).map(|i| if i % 2 == 0 { even } else { odd }).collect::<Vec<_>>();
        let row = |x: Vec<f32>| Tensor::from_vec(x, (1, width), device);
        let (stream, product) = (row(turns(2.0, 1.0))?, row(turns(3.0, 0.0))?.to_dtype(self.dtype)?);
        let (weight, bias) = (Tensor::new(vec![2f32; width], device)?, Tensor::new(vec![3f32; width], device)?);
        let normed = self.add_norm(&stream, Some(&product), (&weight, &bias), 0.0)?;
        let adds = near(&stream, &turns(5.0, 1.0))? && near(&normed, &turns(5.0, 1.0))?;
        let bends = near(&self.gelu(product)?, &turns(2.996, 0.0))?;

        let draw = Draw { row: 0, null: None, guidance: 1.0, temperature: 1.0, top_k: 2, targets: vec![0.999] };
        let codes = self.choose(&Tensor::new(&[[[1f32, -9.0, 1.0, 0.5]]], device)?, &[draw])?;
        if !attends || !adds || !bends || codes != [2] {
            candle_core::bail!("a first try gave wrong results");
        }
        Ok(self)
    }
}

/// Compiles the text once per set of options.
fn ptx(options: Vec<String>) -> Result<String> {
    static DONE: Mutex<Option<HashMap<Vec<String>, String>>> = Mutex::new(None);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let done = done.get_or_insert_default();
    if let Some(ptx) = done.get(&options) {
        return Ok(ptx.clone());
    }
    // Without the library the bindings panic instead of answering; that is told once, in the log.
    let compile =
        || compile_ptx_with_opts(TEXT, CompileOptions { options: options.clone(), ..CompileOptions::default() });
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let compiled = catch_unwind(AssertUnwindSafe(compile));
    std::panic::set_hook(hook);
    match compiled {
        Ok(Ok(ptx)) => Ok(done.entry(options).or_insert(ptx.to_src()).clone()),
        Ok(Err(error)) => candle_core::bail!("NVRTC does not compile them: {error}"),
        Err(_) => candle_core::bail!("there is no NVRTC library (libnvrtc) on this machine"),
    }
}

fn grid(x: usize, y: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (x as u32, y as u32, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A contiguous tensor's memory.
fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    Ok(storage.as_cuda_slice::<T>()?.slice(range("a kernel", layout)?))
}

/// What a kernel writes beside the tensor that it changes: candle's in-place operations have no
/// result of their own.
type Beside = OnceCell<CudaStorage>;

/// The tensor that a kernel wrote.
fn written(out: Beside, shape: (usize, usize)) -> Result<Tensor> {
    match out.into_inner() {
        Some(out) => Ok(Tensor::from_storage(Storage::Cuda(out), shape, BackpropOp::none(), false)),
        None => candle_core::bail!("a GPU's kernel was given a tensor of another device"),
    }
}

/// The memory behind a tensor on a GPU.
fn on_gpu(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        _ => candle_core::bail!("a GPU's kernel was given a tensor of another device"),
    }
}

impl Fused {
    /// See [`Fused::sample`].
    pub(super) fn choose(&self, logits: &Tensor, voices: &[Draw]) -> Result<Vec<u32>> {
        let (_, books, card) = logits.dims3()?;
        let logits = logits.contiguous()?;
        let (storage, layout) = logits.storage_and_layout();
        let logits = view::<f32>(on_gpu(&storage)?, layout)?;
        let word = |draw: &Draw| {
            let null = draw.null.map_or(u32::MAX, |row| row as u32);
            [draw.row as u32, null, draw.guidance.to_bits(), draw.temperature.to_bits(), draw.top_k, 0]
        };
        let words = self.device.clone_htod(&voices.iter().flat_map(word).collect::<Vec<u32>>())?;
        let targets: Vec<f64> = voices.iter().flat_map(|draw| draw.targets.iter().copied()).collect();
        let targets = self.device.clone_htod(&targets)?;
        let mut codes = self.device.alloc_zeros::<u32>(voices.len() * books)?;
        let (stream, card) = (self.device.cuda_stream(), card as i32);
        let mut launch = stream.launch_builder(&self.sample);
        launch.arg(&logits).arg(&words).arg(&targets).arg(&mut codes).arg(&card);
        // SAFETY: these are the kernel's parameters in their order and types; `Fused::sample` has
        // checked that every row is one of the logits, that every voice has a target per codebook,
        // and that `card` fits the kernel's memory.
        #[allow(unsafe_code)]
        let launched = unsafe { launch.launch(grid(books, voices.len())) };
        launched.w()?;
        self.device.clone_dtoh(&codes)
    }
}
