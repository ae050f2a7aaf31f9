//! `continuo generate`: one clip from the engine into a file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::load::load;
use super::log::note;
use super::output::Output;
use super::sampling::{SamplingArgs, max_still};
use super::{Failure, ModelArgs, Outcome};
use crate::engine::{Engine, EngineConfig, MAX_STILL, Priority, Read, Voice, VoiceEnd, VoiceSpec, WeightedPrompt};
use crate::pcm::Pcm;
use crate::units::{Frames, Samples};

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// What to play; several are blended in equal parts, `text:0.7` sets a part's weight
    #[arg(required = true, value_name = "PROMPT")]
    prompts: Vec<String>,
    /// Length in seconds
    #[arg(short, long, default_value_t = 20.0)]
    seconds: f64,
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

pub(super) fn run(args: GenerateArgs) -> Outcome {
    let output = Output::at(&args.output)?;
    if !(args.seconds > 0.0 && args.seconds <= 86_400.0) {
        return Err(Failure(format!("--seconds is {} but must lie between 0 and 86400.", args.seconds)));
    }
    let sampling = args.sampling.patch();
    let prompts = args.prompts.iter().map(|prompt| weighted(prompt)).collect();
    let spec = VoiceSpec {
        prompts,
        sampling,
        lead: Duration::from_secs(60),
        // Nobody plays it while it is made.
        priority: Priority::Spare,
        max_still: Some(args.max_still),
        ..VoiceSpec::endless("")
    };
    spec.validate()?;
    let engine = Engine::start(load(&args.model)?, EngineConfig::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (piece, took) = runtime.block_on(compose(&engine, spec, args.seconds))?;
    output.write(&output.format.encode(&piece.pcm, piece.rate, piece.channels)?)?;
    note(format_args!(
        "{}: {:.1} s of music in {:.1} s ({:.1}x real time)",
        output.name(),
        args.seconds,
        took,
        args.seconds / took
    ));
    Ok(())
}

/// `text:0.7` is a text with a weight; a colon that no number follows belongs to the text.
fn weighted(prompt: &str) -> WeightedPrompt {
    match prompt.rsplit_once(':').and_then(|(text, weight)| Some((text, weight.trim().parse().ok()?))) {
        Some((text, weight)) => WeightedPrompt { text: text.to_owned(), weight },
        None => prompt.into(),
    }
}

/// The piece, and the seconds that it took.
async fn compose(engine: &Engine, mut spec: VoiceSpec, seconds: f64) -> Result<(Pcm, f64), Failure> {
    let model = engine.models().first().cloned().ok_or_else(|| Failure("No model is loaded.".into()))?;
    spec.length = Some(Frames((seconds * model.frame_rate()).ceil() as u64));
    let samples = model.sample_rate.samples(seconds).0 as usize;
    let bar = ProgressBar::new(samples as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let mut voice: Voice = engine.join(spec).await?;
    let mut pcm = Vec::with_capacity(samples * model.channels);
    loop {
        match voice.read(Samples(u64::MAX)) {
            Read::Chunk(chunk) => {
                pcm.extend(chunk.pcm);
                let made = (pcm.len() / model.channels) as f64 / f64::from(model.sample_rate.0);
                bar.set_position((pcm.len() / model.channels) as u64);
                let factor = made / begun.elapsed().as_secs_f64();
                bar.set_message(format!("{made:.0} of {seconds:.0} s, {factor:.1}x real time"));
            }
            Read::Pending => voice.ready().await,
            Read::End(VoiceEnd::Finished) => break,
            Read::End(end) => return Err(Failure(format!("The music could not be made: {end}."))),
        }
    }
    bar.finish_and_clear();
    pcm.truncate(samples * model.channels);
    Ok((Pcm { pcm, channels: model.channels, rate: model.sample_rate }, begun.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_follows_the_last_colon() {
        assert_eq!(weighted("piano:0.5"), WeightedPrompt { text: "piano".into(), weight: 0.5 });
        assert_eq!(weighted("style: lofi"), WeightedPrompt { text: "style: lofi".into(), weight: 1.0 });
    }
}
