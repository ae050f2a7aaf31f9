//! What the program tells people: the server's log, and the sentences of the other commands.
//!
//! Nothing here can fail or block whoever tells something. A reader of the standard error that went
//! away, stopped reading, or is a file on a full disk costs log lines, never a request.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::{Failure, Outcome};

/// Targets of the libraries that read clients' files. What is wrong with such a file is told to its
/// client.
const READERS: &str = "symphonia";
/// Target of the library that speaks to NATS. What matters of its events is told by the cluster.
const NATS: &str = "async_nats";

/// How the server's log is written.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// Starts the server's log on the standard error, at the levels of `RUST_LOG` or `info`. Lines that
/// are still queued are written when the guard is dropped.
pub(super) fn start(format: LogFormat) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let levels = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let debugging = levels.max_level_hint().is_none_or(|most| most >= LevelFilter::DEBUG);
    let lines = fmt::layer()
        .with_target(false)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .with_writer(writer)
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(filter_fn(move |event| {
        debugging || !(event.target().starts_with(READERS) || event.target().starts_with(NATS))
    }));
    tracing_subscriber::registry().with(levels).with(lines).init();
    // The standard hook writes to the standard error itself, and would wait for its reader.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked: {}", panic.payload_as_str().unwrap_or("without a sentence"));
    }));
    guard
}

/// Tells a person something beside the result: in the log once it has begun, else on the standard
/// error.
pub(super) fn note(line: impl std::fmt::Display) {
    if tracing::dispatcher::has_been_set() {
        tracing::info!("{line}");
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Writes a line of a command's result to the standard output. Whoever closes it (`| head`) has
/// read enough.
///
/// # Errors
/// When the line could not be written for another reason: a full disk, say.
pub(super) fn print(line: impl std::fmt::Display) -> Outcome {
    match writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(format!("The standard output cannot be written ({error}).")))
        }
        _ => Ok(()),
    }
}
