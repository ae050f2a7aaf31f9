//! The `continuo` program: see `continuo --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    continuo::cli::run()
}
