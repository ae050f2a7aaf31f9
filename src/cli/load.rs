//! From a model's name to a backend on a device, with a progress bar for downloads.

use candle_core::Device;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, ModelArgs};
use crate::engine::{Backend, KV_BUDGET, MusicGenBackend};
use crate::model::kernels::WeightFormat;
use crate::model::weights::Target;
use crate::model::{self, Files, ModelError, MusicGen};
use crate::units::ModelId;

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum DeviceChoice {
    Auto,
    Cpu,
    Cuda,
    Metal,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum DtypeChoice {
    Auto,
    F32,
    Bf16,
    Q8,
    Q4,
}

impl DeviceChoice {
    /// # Errors
    /// A sentence when this build or this machine does not have the device.
    pub(super) fn open(self) -> Result<Device, Failure> {
        let missing = |what: &str, feature: &str| {
            Failure(format!(
                "This program cannot use {what}; build it with --features {feature}, or take --device cpu."
            ))
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if !cfg!(feature = "cuda") => Err(missing("CUDA", "cuda")),
            Self::Metal if !cfg!(feature = "metal") => Err(missing("Metal", "metal")),
            Self::Cuda => cuda(),
            Self::Metal => Device::new_metal(0).map_err(Failure::from),
            Self::Auto if cfg!(feature = "metal") => Device::new_metal(0).map_err(Failure::from),
            Self::Auto if cfg!(feature = "cuda") => Ok(cuda().unwrap_or_else(|Failure(reason)| {
                eprintln!("{reason} Continuing on the CPU.");
                Device::Cpu
            })),
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

/// Opens the first GPU. Without a driver the CUDA bindings panic instead of answering, hence the guard.
fn cuda() -> Result<Device, Failure> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(|| Device::new_cuda(0));
    std::panic::set_hook(hook);
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(Failure(format!("The GPU cannot be opened: {error}."))),
        Err(_) => Err(Failure("There is no NVIDIA driver on this machine.".into())),
    }
}

impl DtypeChoice {
    /// By the names of requests. The original's `float16` on a CPU quietly means f32 there, and so it does here.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "f32" | "float" | "float32" | "float16" => Some(Self::F32),
            "bf16" | "bfloat16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Where weights go on `device`, and the format's name.
    pub(super) fn on(self, device: &Device) -> (Target, &'static str) {
        let (format, name) = match self {
            Self::Auto | Self::F32 => (WeightFormat::F32, "f32"),
            Self::Bf16 => (WeightFormat::Bf16, "bf16"),
            Self::Q8 => (WeightFormat::Q8, "q8"),
            Self::Q4 => (WeightFormat::Q4, "q4"),
        };
        (Target { format, ..Target::new(device) }, name)
    }
}

/// Loads what the arguments name.
///
/// # Errors
/// One sentence that says what is missing and what to do.
pub(super) fn load(args: &ModelArgs) -> Result<Box<dyn Backend>, Failure> {
    let device = args.device.open()?;
    let name = match &args.model {
        Some(name) => name.as_str(),
        None if model::has_bundled() => model::BUNDLED,
        None => return Err(ModelError::NotBundled.into()),
    };
    load_named(name, args, &device)
}

/// Loads one more model beside those that are there.
pub(super) fn load_named(name: &str, args: &ModelArgs, device: &Device) -> Result<Box<dyn Backend>, Failure> {
    let (target, _) = args.dtype.on(device);
    let model = MusicGen::load(&fetch(name)?, &fetch, &target)?;
    Ok(Box::new(MusicGenBackend::new(ModelId(name.to_owned()), model, KV_BUDGET)?))
}

/// Finds a model's files, downloading what is missing with a progress bar.
pub(super) fn fetch(name: &str) -> Result<Files, ModelError> {
    let bar = ProgressBar::hidden();
    let mut current = String::new();
    let files = model::locate(name, &mut |file, done, size| {
        if file != current {
            current = file.to_owned();
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left") {
                bar.set_style(style);
            }
            bar.set_message(format!("{name} {file}"));
        }
        bar.set_length(size);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    files
}
