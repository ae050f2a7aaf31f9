//! From a model's name to a backend on a device, with a progress bar for downloads.

use candle_core::Device;
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser, ValueParserFactory};
use indicatif::{ProgressBar, ProgressStyle};

use super::log::note;
use super::{Failure, ModelArgs, memory};
use crate::engine::{self, Backend, Fit, FitConstraints, KV_BUDGET, MusicGenBackend};
use crate::model::config::Config;
use crate::model::weights::Target;
use crate::model::{self, Files, ModelError, MusicGen};
use crate::units::{ModelId, WeightFormat};

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum DeviceChoice {
    Auto,
    Cpu,
    Cuda,
    Metal,
}

/// `--dtype`: a format, or none where it is to be measured.
#[derive(Clone, Copy)]
pub(super) struct DtypeChoice(pub(super) Option<WeightFormat>);

impl ValueParserFactory for DtypeChoice {
    type Parser = ValueParser;

    fn value_parser() -> ValueParser {
        let names = [AUTO].into_iter().chain(WeightFormat::ALL.map(WeightFormat::name));
        let format = |name: String| match name.as_str() {
            AUTO => Ok(Self(None)),
            name => name.parse().map(|format| Self(Some(format))),
        };
        PossibleValuesParser::new(names).try_map(format).into()
    }
}

const AUTO: &str = "auto";

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
                note(format_args!("{reason} Continuing on the CPU."));
                Device::Cpu
            })),
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

/// Opens the first GPU. Without a driver the CUDA bindings panic instead of answering, hence the
/// guard.
fn cuda() -> Result<Device, Failure> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(one_stream);
    std::panic::set_hook(hook);
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(Failure(format!("The GPU cannot be opened: {error}."))),
        Err(_) => Err(Failure("There is no NVIDIA driver on this machine.".into())),
    }
}

/// The first GPU, with one stream for all threads: a model is loaded on one thread and used on
/// others, and what they ask for must happen in that order. candle's usual device has a stream per
/// thread.
fn one_stream() -> candle_core::Result<Device> {
    let device = Device::new_cuda_with_stream(0)?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = &device {
        // SAFETY: this is the only stream on which tensors are made, used and freed, so its order
        // is that of all uses; nothing waits for the events that would say so.
        #[allow(unsafe_code)]
        unsafe {
            cuda.disable_event_tracking();
        }
    }
    Ok(device)
}

impl DtypeChoice {
    /// Where weights go on `device`, and the format's name; without a choice in f32 on a CPU, in
    /// bf16 elsewhere.
    pub(super) fn on(self, device: &Device) -> (Target, &'static str) {
        let auto = if device.is_cpu() { WeightFormat::F32 } else { WeightFormat::Bf16 };
        let format = self.0.unwrap_or(auto);
        (Target { format, ..Target::new(device) }, format.name())
    }
}

/// Seconds of the window; none where they are to be measured.
#[derive(Clone, Copy)]
pub(super) struct Context(Option<f64>);

/// Reads `--context`.
pub(super) fn context(text: &str) -> Result<Context, String> {
    match text.parse::<f64>() {
        _ if text == "auto" => Ok(Context(None)),
        Ok(seconds) if (2.0..=3600.0).contains(&seconds) => Ok(Context(Some(seconds))),
        _ => Err("it is `auto` or a number of seconds from 2".into()),
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
    let kv_memory = match args.kv_memory {
        Some(gigabytes) => (gigabytes * 1e9) as usize,
        None => memory::for_keys(&device),
    };
    load_into(name, args, &device, kv_memory).map_err(|Failure(sentence)| match &args.model {
        Some(_) => Failure(format!("--model: {sentence}")),
        None => Failure(sentence),
    })
}

/// Loads one more model beside those that are there.
pub(super) fn load_named(name: &str, args: &ModelArgs, device: &Device) -> Result<Box<dyn Backend>, Failure> {
    load_into(name, args, device, KV_BUDGET)
}

fn load_into(name: &str, args: &ModelArgs, device: &Device, kv_memory: usize) -> Result<Box<dyn Backend>, Failure> {
    let choose = |config: &mut Config| {
        let constraints = FitConstraints { format: args.dtype.0, window: args.context.0 };
        if !device.is_cpu() {
            // A GPU is fast enough for any window; only what was asked for is done.
            let frames = constraints.window.map(|seconds| (seconds * engine::frame_rate(config)) as usize);
            engine::shorten(config, frames.unwrap_or(usize::MAX));
            return Ok(args.dtype.on(device).0);
        }
        let Fit { format, window, realtime } = engine::fit(config, constraints)?;
        if let Some(realtime) = realtime {
            note(format_args!(
                "{name}, this machine: {realtime:.1}x real time with {format}, window {:.0} s.",
                window as f64 / engine::frame_rate(config)
            ));
        }
        engine::shorten(config, window);
        Ok(Target { format, ..Target::new(device) })
    };
    let model = MusicGen::load_as(&fetch(name)?, &fetch, choose)?;
    Ok(Box::new(MusicGenBackend::new(ModelId(name.to_owned()), model, kv_memory)?))
}

/// Bytes of memory that a model will take, more or less, from the size of its files, which are not
/// downloaded for it.
pub(super) fn weigh(name: &str, args: &ModelArgs) -> Result<u64, ModelError> {
    /// Text encoder and codec, which audiocraft's exports leave out and which are never rounded.
    const COMPANIONS: f64 = 0.7e9;
    let (stored, is_whole) = match model::on_hub(name)? {
        Some(there) => (there.bytes, there.has_config),
        None => {
            let files = fetch(name)?;
            (files.weight_bytes(), files.has("config.json"))
        }
    };
    let stored = stored as f64;
    // Hugging Face's files are f32 and hold everything, audiocraft's are the decoder in f16.
    let (rest, decoder) = if is_whole {
        let rest = COMPANIONS.min(0.5 * stored);
        (rest, stored - rest)
    } else {
        (COMPANIONS, 2.0 * stored)
    };
    let kept = match args.dtype.0 {
        None | Some(WeightFormat::F32) => 1.0,
        Some(WeightFormat::Bf16) => 0.5,
        Some(WeightFormat::Q8) => 0.27,
        Some(WeightFormat::Q4) => 0.15,
    };
    Ok((rest + kept * decoder) as u64)
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
