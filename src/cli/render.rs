//! `continuo transform` and `continuo loop`: one recording or one loop, from a model that renders
//! into a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::load::{DeviceChoice, DtypeChoice, fetch};
use super::log::note;
use super::output::Output;
use super::{Failure, ModelArgs, Outcome};
use crate::engine::{FineTune, LoopSettings, LoopSpec, RenderJob, RenderLoader, RenderModel, RenderSpec, Shape, Step};
use crate::model::melodyflow::MelodyFlow;
use crate::model::stable_audio::StableAudio;
use crate::model::weights::Target;
use crate::model::{ModelError, hub_file, hub_files};
use crate::sandbox::Sandbox;
use crate::studio::{FineTunes, Presets, RenderModels, Riffs, TransformRequest, random_seed};

#[derive(Clone, Copy, clap::ValueEnum)]
enum Solver {
    Euler,
    Midpoint,
}

#[derive(Args)]
pub(super) struct TransformArgs {
    /// Recording to transform
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// What it becomes, by name; a name that is none shows them all
    #[arg(long, value_name = "NAME", required_unless_present = "prompt")]
    preset: Option<String>,
    /// What it becomes, in words
    #[arg(long)]
    prompt: Option<String>,
    /// How close to stay: 0 is not at all, 0.05 to 0.15 is useful
    #[arg(long)]
    flowstep: Option<f32>,
    /// midpoint takes longer
    #[arg(long, default_value = "euler")]
    solver: Solver,
    /// Evaluations of the way forth
    #[arg(long)]
    steps: Option<usize>,
    /// The same seed makes the same sound
    #[arg(long)]
    seed: Option<u64>,
    /// File of presets
    #[arg(long, value_name = "FILE")]
    variations: Option<PathBuf>,
    #[arg(short, long, help = Output::help(), value_name = "FILE")]
    output: PathBuf,
    /// A folder with state_dict.bin and compression_state_dict.bin, or a Hugging Face id
    #[arg(
        long,
        env = "CONTINUO_TRANSFORM_MODEL",
        default_value = "facebook/melodyflow-t24-30secs",
        value_name = "NAME"
    )]
    model: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Place {
    /// Where to compute
    #[arg(long, env = "CONTINUO_DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Number format of the transformer's weights
    #[arg(long, env = "CONTINUO_DTYPE", default_value = "auto")]
    dtype: DtypeChoice,
}

#[derive(Args)]
pub(super) struct LoopArgs {
    /// What to play
    prompt: String,
    /// Beats per minute
    #[arg(long)]
    bpm: f64,
    /// Bars of four beats
    #[arg(long, default_value_t = 4)]
    bars: u32,
    /// What to keep away from
    #[arg(long, default_value = "")]
    avoid: String,
    /// How strongly to follow the prompt; 1 takes half the time
    #[arg(long, default_value_t = 6.0)]
    guidance: f64,
    /// Steps of denoising
    #[arg(long)]
    steps: Option<usize>,
    /// The same seed makes the same loop
    #[arg(long)]
    seed: Option<u64>,
    #[arg(short, long, help = Output::help(), value_name = "FILE")]
    output: PathBuf,
    /// A folder with model_config.json and model.safetensors, or a Hugging Face id
    #[arg(
        long,
        env = "CONTINUO_LOOP_MODEL",
        default_value = "stabilityai/stable-audio-open-small",
        value_name = "NAME"
    )]
    model: String,
    #[command(flatten)]
    place: Place,
}

/// Weights that cannot be had are the first thing that most people meet here.
fn advise(error: impl std::fmt::Display, model: &str, terms: &str) -> Failure {
    let error = error.to_string();
    Failure(format!(
        "{} The weights of {model} are not part of Continuo: {terms}, or name a folder that holds them with --model.",
        if error.ends_with('.') { error } else { format!("{error}.") }
    ))
}

pub(super) fn transform(args: TransformArgs) -> Outcome {
    let solver = match args.solver {
        Solver::Euler => "euler",
        Solver::Midpoint => "midpoint",
    };
    let request = TransformRequest {
        variation: args.preset,
        prompt: args.prompt,
        flowstep: args.flowstep,
        solver: Some(solver.into()),
        steps: args.steps,
        seed: args.seed,
        keeps_rate: false,
    };
    let params = request.resolve(&variations(&args.variations)?)?;
    let output = Output::at(&args.output)?;
    let bytes = std::fs::read(&args.input)
        .map_err(|error| Failure(format!("{} cannot be read: {error}.", args.input.display())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sandbox = Sandbox::of_this_program(Some("ffmpeg".into()))?;
    let sound = runtime.block_on(sandbox.decode(bytes.into()))?;

    let (target, _) = args.place.dtype.on(&args.place.device.open()?);
    let advice = "let Continuo download them once from the Hugging Face hub (4 GB, CC-BY-NC)";
    let model = load_transform(&args.model, &target).map_err(|error| advise(error, &args.model, advice))?;
    let sound = sound.stereo().at(model.info().rate)?;
    let seconds = sound.seconds();
    write(model.begin(params.spec(), Some(sound.pcm)).map_err(Failure)?, &output, seconds)
}

pub(super) fn make_loop(args: LoopArgs) -> Outcome {
    let output = Output::at(&args.output)?;
    let (target, _) = args.place.dtype.on(&args.place.device.open()?);
    let advice =
        "accept their licence on huggingface.co, log in with `hf auth login` and let Continuo download them once";
    let model = load_loop(&args.model, &target).map_err(|error| advise(error, &args.model, advice))?;
    let settings = LoopSettings { steps: args.steps, guidance: Some(args.guidance), sampler: None };
    let spec = LoopSpec {
        text: args.prompt,
        avoid: args.avoid,
        shape: Shape::Loop { bpm: args.bpm, bars: args.bars },
        seconds: None,
        given: None,
        seed: args.seed.unwrap_or_else(random_seed),
    };
    let spec = RenderSpec::Loop(spec, settings);
    let job = model.begin(spec, None).map_err(|reason| Failure(format!("{reason}.")))?;
    write(job, &output, 240.0 / args.bpm * f64::from(args.bars))
}

fn load_transform(name: &str, target: &Target) -> Result<RenderModel, ModelError> {
    Ok(MelodyFlow::load(&fetch(name)?, &fetch, target)?)
}

fn load_loop(name: &str, target: &Target) -> Result<RenderModel, ModelError> {
    Ok(StableAudio::load(&fetch(name)?, &fetch, target)?)
}

fn variations(file: &Option<PathBuf>) -> Result<Presets, Failure> {
    match file {
        Some(file) => Presets::read(file).map_err(|error| Failure(format!("--variations: {error}"))),
        None => Ok(Presets::built_in()?),
    }
}

/// The models of transforms and loops of a server, loaded when they are first wanted.
pub(super) fn service(
    place: &ModelArgs,
    (transform, looper): (&Option<String>, &Option<String>),
    (presets, riffs): (&Option<PathBuf>, &Option<PathBuf>),
) -> Result<RenderModels, Failure> {
    let mut renders = RenderModels::new(
        variations(presets)?,
        later(place, transform, load_transform),
        later(place, looper, load_loop),
    );
    if let Some(base) = looper {
        renders = renders.with_fine_tunes(base, Arc::new(Hub { base: base.clone(), place: place.clone() }));
    }
    Ok(match riffs {
        Some(folder) => renders.with_riffs(Riffs::of(folder).map_err(|error| Failure(format!("--riffs: {error}")))?),
        None => renders,
    })
}

/// What a model's files and its text encoder take in memory: solvers hold f32 whatever the files
/// hold.
fn weight(name: &str) -> u64 {
    const TEXT: u64 = 440_000_000;
    // What cannot be fetched cannot be loaded either, and says so then.
    fetch(name).map_or(0, |files| files.weight_bytes() + TEXT)
}

/// Fine-tunes of the loop model on the Hugging Face hub.
struct Hub {
    base: String,
    place: ModelArgs,
}

impl Hub {
    fn json(&self, repo: &str, file: &str) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(hub_file(repo, file).ok()?).ok()?).ok()
    }
}

impl FineTunes for Hub {
    fn load(&self, which: &FineTune) -> Result<RenderModel, String> {
        let FineTune { repo, checkpoint } = which;
        // Names come from clients: they must not lead out of the repository.
        if !checkpoint.ends_with(".ckpt") || checkpoint.split('/').any(|part| part.is_empty() || part.starts_with('.'))
        {
            return Err(format!("`{checkpoint}` is no name of a .ckpt file."));
        }
        let (target, _) = self.place.dtype.on(&self.place.device.open().map_err(|Failure(sentence)| sentence)?);
        let load = || {
            let path = hub_file(repo, checkpoint)?;
            let config = ["base_model_config.json", "model_config.json"].iter().find_map(|name| self.json(repo, name));
            let base = fetch(&self.base)?;
            let model: RenderModel = StableAudio::load_tuned(&base, (&path, config.as_ref()), &fetch, &target)?;
            Ok(model)
        };
        load().map_err(|error: ModelError| error.to_string())
    }

    fn checkpoints(&self, repo: &str) -> Result<Vec<String>, String> {
        let files = hub_files(repo).map_err(|error| error.to_string())?;
        Ok(files.into_iter().filter(|file| file.ends_with(".ckpt")).collect())
    }

    fn prompts(&self, repo: &str) -> Option<serde_json::Value> {
        self.json(repo, "prompts.json")
    }
}

/// A way to load a model on the device of the others.
fn later(
    place: &ModelArgs,
    name: &Option<String>,
    load: fn(&str, &Target) -> Result<RenderModel, ModelError>,
) -> Option<RenderLoader> {
    let (name, device, dtype) = (name.clone()?, place.device, place.dtype);
    let weighed = name.clone();
    let loader = RenderLoader::new(move || {
        let (target, _) = dtype.on(&device.open().map_err(|Failure(sentence)| sentence)?);
        load(&name, &target).map_err(|error| error.to_string())
    });
    Some(loader.weighed(move || weight(&weighed)))
}

/// Works on a job until it is done, and writes what came out.
fn write(mut job: RenderJob, output: &Output, seconds: f64) -> Outcome {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} step {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let rendered = loop {
        match job.step().map_err(|reason| Failure(format!("{reason}.")))? {
            Step::Working(done, of) => {
                bar.set_length(of as u64);
                bar.set_position(done as u64);
            }
            Step::Done(rendered) => break rendered,
        }
    };
    bar.finish_and_clear();
    output.write(&output.format.encode(&rendered.pcm, rendered.rate, rendered.channels)?)?;
    note(format_args!("{}: {seconds:.1} s of sound in {:.1} s", output.name(), begun.elapsed().as_secs_f64()));
    Ok(())
}
