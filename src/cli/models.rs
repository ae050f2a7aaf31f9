//! `continuo models`: what can be used without a download.

use clap::Args;

use super::Outcome;
use super::log::{note, print};
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
        return print(serde_json::json!({ "models": models }));
    }
    for model in &models {
        print(model)?;
    }
    if models.is_empty() {
        print("No model is on this machine yet.")?;
    }
    note(
        "Any other MusicGen checkpoint: --model OWNER/NAME downloads it from the Hugging Face hub, --model FOLDER reads it from disk.",
    );
    Ok(())
}
