//! `continuo check`: whether `serve --config` would take a file.

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::config::Config;
use super::log::print;

#[derive(Args)]
pub(super) struct CheckArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &CheckArgs) -> Outcome {
    print(Config::read(&args.file)?.summary())
}
