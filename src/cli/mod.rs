//! The command line: arguments in, exit code out. It puts the rooms together and holds no logic of
//! their own.

mod bench;
mod bounds;
mod check;
mod cluster;
mod config;
mod edge;
mod extend;
mod generate;
mod listen;
mod load;
mod log;
mod memory;
mod models;
mod on_request;
mod output;
mod ports;
mod render;
mod sampling;
mod serve;
#[cfg(unix)]
mod signals;
mod sockets;
mod token;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::config::{CONFIG, Config};
use crate::sandbox;

const EXAMPLES: &str = "\
Examples:
  continuo serve                                     the bundled model on http://127.0.0.1:8765/
  continuo serve --model facebook/musicgen-small     a published model, downloaded once
  continuo generate \"lofi piano\" --seconds 20 -o lofi.wav
  continuo continue riff.wav --prompt-seconds 6 --seconds 30 -o longer.wav
  ffplay \"http://localhost:8765/generate?prompt=lofi%20piano\"";

/// Continuo: endless, steerable AI music from one machine.
#[derive(Parser)]
#[command(version, about, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve endless streams over HTTP and WebSocket, with a player page
    Serve(Box<serve::ServeArgs>),
    /// Tell what is wrong with a file for `serve --config`, line by line
    Check(check::CheckArgs),
    /// Make a token for `[[tokens]]` of `serve --config`
    Token(token::TokenArgs),
    /// Sign the address of a station, for a listener without a token
    Sign(token::SignArgs),
    /// Make one piece of music and write it to a file
    Generate(generate::GenerateArgs),
    /// Add new music to the end of a sound file
    Continue(extend::ContinueArgs),
    /// Turn a recording into another sound, keeping tempo and chords
    Transform(render::TransformArgs),
    /// Make a loop of exact length
    Loop(render::LoopArgs),
    /// List the models that can be used without a download
    Models(models::ModelsArgs),
    /// Measure this machine: decoder steps, codec, first sound, fan-out
    Bench(bench::BenchArgs),
    /// Decode the sound on the standard input: what the server starts for every sound that it is
    /// sent
    #[command(name = sandbox::COMMAND, hide = true)]
    Decode {
        /// Bytes of the file, or of several behind each other
        #[arg(required = true)]
        lengths: Vec<u64>,
        /// Let this program do it
        #[arg(long)]
        ffmpeg: Option<PathBuf>,
    },
}

/// Which model, where it runs, and in which number format.
#[derive(Args, Clone)]
struct ModelArgs {
    /// A folder, a Hugging Face id such as facebook/musicgen-small, or `bundled`
    #[arg(long, env = "CONTINUO_MODEL", value_name = "NAME")]
    model: Option<String>,
    /// Where to compute: auto takes a GPU if this build can use one
    #[arg(long, env = "CONTINUO_DEVICE", default_value = "auto")]
    device: load::DeviceChoice,
    /// Number format of the decoder's weights on a CPU: auto measures which is fast enough; bf16,
    /// q8 and q4 read a half, a quarter and an eighth of f32
    #[arg(long, env = "CONTINUO_DTYPE", default_value = "auto")]
    dtype: load::DtypeChoice,
    /// Seconds that the model remembers, at most as many as it was trained on; fewer are faster.
    /// Auto measures
    #[arg(long, env = "CONTINUO_CONTEXT", value_name = "SECONDS", default_value = "auto", value_parser = load::context)]
    context: load::Context,
    /// Gigabytes for the keys and values of voices, which limit their number [default: 4, two
    /// fifths of a GPU's memory]
    #[arg(long, env = "CONTINUO_KV_MEMORY", value_name = "GIGABYTES", value_parser = bounds::gigabytes(0.01))]
    kv_memory: Option<f64>,
}

/// Why a command failed: one sentence for a person.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// The command line, with what the file of `serve --config` says where neither it nor the
/// environment says anything.
fn command_line() -> Result<(Cli, Option<Config>), Failure> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let read = |matches: &ArgMatches| Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let matches = Cli::command().get_matches_from(&arguments);
    let serve = matches.subcommand_matches("serve");
    let Some((serve, path)) = serve.and_then(|serve| Some((serve, serve.get_one::<PathBuf>(CONFIG)?))) else {
        return Ok((read(&matches), None));
    };
    let config = Config::read(path)?;
    // Behind the name of the command, before which there are no arguments.
    arguments.splice(2..2, config.arguments(serve).map(OsString::from));
    Ok((read(&Cli::command().get_matches_from(&arguments)), Some(config)))
}

/// Parses the arguments and runs the command.
pub fn run() -> ExitCode {
    let (cli, config) = match command_line() {
        Ok(read) => read,
        Err(failure) => return failed(&failure),
    };
    if !matches!(cli.command, Command::Decode { .. }) {
        crate::heap::keep();
    }
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(*args, config),
        Command::Check(args) => check::run(&args),
        Command::Token(args) => token::make(&args),
        Command::Sign(args) => token::sign(&args),
        Command::Generate(args) => generate::run(args),
        Command::Continue(args) => extend::run(args),
        Command::Transform(args) => render::transform(args),
        Command::Loop(args) => render::make_loop(args),
        Command::Models(args) => models::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Decode { lengths, ffmpeg } => return sandbox::run(&lengths, ffmpeg.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(Failure(sentence): &Failure) -> ExitCode {
    // The log is over, and nobody may be there to read.
    let _ = writeln!(std::io::stderr(), "continuo: {sentence}");
    ExitCode::FAILURE
}
