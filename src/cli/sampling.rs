//! How codes are drawn, as options of a command.

use clap::Args;

use crate::engine::{SamplingPatch, validate_max_still};

/// Reads `--max-still`.
pub(super) fn max_still(text: &str) -> Result<f32, String> {
    let seconds = text.parse().map_err(|_| "it is a number of seconds".to_owned())?;
    validate_max_still(seconds).map_err(|_| "it is a number of seconds from 1 to 30, or 0 for never".to_owned())?;
    Ok(seconds)
}

#[derive(Args)]
pub(super) struct SamplingArgs {
    /// The same seed makes the same music
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Softmax temperature, 0 (greedy) to 4
    #[arg(long)]
    pub(super) temperature: Option<f32>,
    /// Keep the K likeliest codes; 0 keeps all
    #[arg(long, value_name = "K")]
    pub(super) top_k: Option<u32>,
    /// How strongly to follow the prompt, 0 to 20; 1 is not at all more than sampling does
    #[arg(long)]
    pub(super) guidance: Option<f32>,
}

impl SamplingArgs {
    /// As the engine takes them, which draws a seed where there is none.
    pub(super) fn patch(&self) -> SamplingPatch {
        SamplingPatch { temperature: self.temperature, top_k: self.top_k, guidance: self.guidance, seed: self.seed }
    }
}
