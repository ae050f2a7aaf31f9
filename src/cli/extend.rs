//! `continuo continue`: a sound file with a new piece at its end.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::load::load;
use super::output::Output;
use super::sampling::{SamplingArgs, max_still};
use super::{Failure, ModelArgs, Outcome};
use crate::audio::{Format, decode};
use crate::engine::{Engine, EngineConfig, MAX_STILL};
use crate::sandbox::Sandbox;
use crate::studio::{ClipRequest, Owner, Status, Store, Studio, StudioConfig};

#[derive(Args)]
pub(super) struct ContinueArgs {
    /// The sound to continue: WAV, AIFF, FLAC, MP3, Ogg, M4A, WebM or CAF
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Seconds at the end of it that the music goes on from
    #[arg(long, default_value_t = 6.0, value_name = "SECONDS")]
    prompt_seconds: f64,
    /// Seconds of the piece that takes the place of those: so many less the prompt's are new
    #[arg(short, long, default_value_t = 30.0)]
    seconds: f64,
    /// What it should sound like
    #[arg(long, default_value = "", value_name = "TEXT")]
    prompt: String,
    #[arg(short, long, help = Output::help(), value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Seconds of nothing new after which the music goes back before anybody hears it, and on
    /// differently; 0 never
    #[arg(long, default_value_t = MAX_STILL, value_name = "SECONDS", value_parser = max_still)]
    max_still: f32,
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(args: ContinueArgs) -> Outcome {
    let output = Output::at(&args.output)?;
    let bytes = std::fs::read(&args.input)
        .map_err(|error| Failure(format!("{} cannot be read: {error}.", args.input.display())))?;
    let request = ClipRequest {
        prompt_seconds: Some(args.prompt_seconds),
        seconds: Some(args.seconds),
        top_k: args.sampling.top_k,
        temperature: args.sampling.temperature,
        guidance: args.sampling.guidance,
        description: Some(args.prompt.clone()),
        seed: args.sampling.seed,
        ..ClipRequest::default()
    };
    // A mistake is said before a model is loaded for minutes.
    request.clone().resolve(None).validate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sandbox = Sandbox::of_this_program(Some("ffmpeg".into()))?;
    runtime.block_on(sandbox.decode(bytes.clone().into()))?;
    let backend = load(&args.model)?;
    let file = runtime.block_on(async {
        let engine = Engine::start(backend, EngineConfig { max_still: args.max_still, ..EngineConfig::default() })?;
        let studio =
            Studio::start(engine, Store::ephemeral()?, None, StudioConfig { sandbox, ..StudioConfig::default() })
                .await?;
        let made = make(&studio, request, bytes).await;
        studio.stop().await;
        made
    })?;
    if output.format == Format::WAV {
        return output.write(&file);
    }
    let sound = decode(&file)?;
    output.write(&output.format.encode(&sound.pcm, sound.rate, sound.channels)?)
}

async fn make(studio: &Arc<Studio>, request: ClipRequest, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let accepted = studio.extend(Owner("command line".into()), None, request, Some(bytes.into())).await?;
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent} %, {eta} left") {
        bar.set_style(style);
    }
    if let Some(task) = studio.task(accepted.clip) {
        let mut status = task.status();
        while !status.borrow_and_update().is_final() && status.changed().await.is_ok() {
            bar.set_position(status.borrow().percent());
        }
    }
    bar.finish_and_clear();
    match studio.clip(accepted.clip).await?.status {
        Status::Failed(reason) => Err(Failure(reason)),
        _ => Ok(studio.sound_of_clip(accepted.clip).await?.to_vec()),
    }
}
