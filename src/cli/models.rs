//! `continuo models`: what can be used without a download.

use clap::Args;

use super::Outcome;
use crate::model;

#[derive(Args)]
pub(super) struct ModelsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ModelsArgs) -> Outcome {
    let models = model::on_disk();
    if args.json {
        println!("{}", serde_json::json!({ "models": models }));
        return Ok(());
    }
    for model in &models {
        println!("{model}");
    }
    if models.is_empty() {
        println!("No model is on this machine yet.");
    }
    eprintln!(
        "Any other MusicGen checkpoint: --model OWNER/NAME downloads it from the Hugging Face hub, --model FOLDER reads it from disk."
    );
    Ok(())
}
