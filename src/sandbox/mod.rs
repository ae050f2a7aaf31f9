//! Sound that clients send is decoded in a process of its own, so that no file can take the
//! server's memory, its time or its life.
//!
//! The process is this program again, with a hidden command: it sets its own limits, reads the file
//! from its standard input and writes PCM block by block to its standard output, so that both sides
//! hold little. It is killed when whoever waits for the sound goes away. What it does not
//! understand, or only in part, an installed ffmpeg is asked for, in the same way and within the
//! same limits.

mod child;
mod ffmpeg;
mod wire;

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use child::{COMMAND, run};

use crate::audio::{AudioError, Parts, Trust, decode};
use crate::pcm::Pcm;

/// Time for a place to come free.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for a whole file: far beyond the limits on the processor's time, which end what is hostile.
const LONGEST: Duration = Duration::from_secs(300);

/// Decodes sound away from the server. Clones share their places.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// This program; `None` decodes within the process.
    program: Option<PathBuf>,
    ffmpeg: Option<PathBuf>,
    places: Semaphore,
    /// Files so far.
    decoded: AtomicU64,
}

/// What a process gave.
struct Heard {
    parts: Parts,
    trust: Trust,
}

/// Why it gave nothing.
enum Failed {
    /// Another decoder may understand the file.
    Here(AudioError),
    /// No other will help.
    Anywhere(AudioError),
}

impl From<Failed> for AudioError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Here(error) | Failed::Anywhere(error) => error,
        }
    }
}

impl Sandbox {
    /// Decodes in processes of `program`, which must answer to the hidden command, and asks
    /// `ffmpeg` for the rest.
    pub fn new(program: PathBuf, ffmpeg: Option<PathBuf>) -> Self {
        Self::with(Some(program), ffmpeg)
    }

    /// Decodes in processes of the running program, whatever becomes of its file.
    ///
    /// # Errors
    /// [`AudioError::NoDecoder`] when the system does not say which program that is.
    pub fn of_this_program(ffmpeg: Option<PathBuf>) -> Result<Self, AudioError> {
        let this = PathBuf::from("/proc/self/exe");
        let program = if this.exists() { this } else { std::env::current_exe().map_err(no_decoder)? };
        Ok(Self::new(program, ffmpeg))
    }

    /// Decodes within the process: for files that nobody sent, and for tests without a program.
    pub fn in_process() -> Self {
        Self::with(None, None)
    }

    fn with(program: Option<PathBuf>, ffmpeg: Option<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Live streams need the rest of the machine.
        let places = Semaphore::new((cores / 2).clamp(2, 8));
        Self(Arc::new(Inner { program, ffmpeg, places, decoded: AtomicU64::new(0) }))
    }

    /// Files that were given to it so far.
    pub fn decoded(&self) -> u64 {
        self.0.decoded.load(Ordering::Relaxed)
    }

    /// Decodes a whole file.
    ///
    /// # Errors
    /// As [`decode`], and [`AudioError::Busy`], [`AudioError::NoDecoder`].
    pub async fn decode(&self, file: Bytes) -> Result<Pcm, AudioError> {
        let place = timeout(PATIENCE, self.0.places.acquire()).await;
        let _place = place.map_err(|_| AudioError::Busy)?.map_err(|_| AudioError::Busy)?;
        self.0.decoded.fetch_add(1, Ordering::Relaxed);
        let Some(program) = &self.0.program else {
            return tokio::task::spawn_blocking(move || decode(&file)).await.map_err(no_decoder)?;
        };
        let length = file.len().to_string();
        let mut command = Command::new(program);
        let ours = hear(command.args([COMMAND, length.as_str()]), &file).await;
        let needs_more = match &ours {
            Ok(heard) => heard.trust == Trust::Doubtful,
            Err(failed) => matches!(failed, Failed::Here(_)),
        };
        let heard = match (&self.0.ffmpeg, needs_more) {
            (Some(ffmpeg), true) => {
                let mut command = Command::new(program);
                command.args([COMMAND, length.as_str(), "--ffmpeg"]).arg(ffmpeg);
                better(ours, hear_wav(&mut command, &file).await)
            }
            _ => ours,
        };
        let parts = heard?.parts;
        tokio::task::spawn_blocking(move || parts.join()).await.map_err(no_decoder)?
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::in_process()
    }
}

/// Ours, unless ffmpeg hears as much or more.
fn better(ours: Result<Heard, Failed>, theirs: Result<Heard, Failed>) -> Result<Heard, Failed> {
    match (ours, theirs) {
        (Err(_), Ok(theirs)) => Ok(theirs),
        (Ok(ours), Ok(theirs)) if theirs.parts.seconds() >= 0.99 * ours.parts.seconds() => Ok(theirs),
        (ours, _) => ours,
    }
}

/// Runs a process that speaks [`wire`].
async fn hear(command: &mut Command, file: &Bytes) -> Result<Heard, Failed> {
    converse(command, file, wire::read).await
}

/// Runs a process that writes a WAV.
async fn hear_wav(command: &mut Command, file: &Bytes) -> Result<Heard, Failed> {
    converse(command, file, ffmpeg::read).await
}

/// Gives a process the file while it answers; it is killed when this is dropped.
async fn converse<T>(command: &mut Command, file: &Bytes, read: T) -> Result<Heard, Failed>
where
    T: AsyncFnOnce(ChildStdout, &mut Parts) -> Result<Trust, Failed>,
{
    // What an operator keeps in the environment is none of its concern; libraries may lie in
    // unusual places.
    let kept = ["PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"];
    command.env_clear().envs(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.kill_on_drop(true).spawn().map_err(|error| Failed::Anywhere(no_decoder(error)))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failed::Anywhere(no_decoder("it has no pipes")));
    };
    let give = async {
        // A process that has heard enough, or has died, takes no more.
        let _ = stdin.write_all(file).await;
        drop(stdin);
    };
    let mut parts = Parts::default();
    let conversation = async { tokio::join!(read(stdout, &mut parts), give).0 };
    let trust = match timeout(LONGEST, conversation).await {
        Ok(Err(Failed::Here(AudioError::Unreadable(reason)))) if reason.is_empty() => Err(died(&mut child).await),
        Ok(result) => result,
        Err(_) => Err(too_slow()),
    }?;
    // The rest of its end is nobody's concern, but it must not stay as a zombie.
    let _ = timeout(Duration::from_secs(1), child.wait()).await;
    Ok(Heard { parts, trust })
}

/// A process ended without a word: the limits' doing, or a crash.
fn silence() -> Failed {
    Failed::Here(AudioError::Unreadable(String::new()))
}

async fn died(child: &mut Child) -> Failed {
    let status = timeout(Duration::from_secs(5), child.wait()).await;
    tracing::debug!(?status, "a decoder ended without an answer");
    match status {
        Ok(Ok(status)) if ran_out_of_time(status) => too_slow(),
        _ => {
            Failed::Here(AudioError::Unreadable("it needs more memory than a sound of its size, or is damaged".into()))
        }
    }
}

fn too_slow() -> Failed {
    Failed::Here(AudioError::Unreadable("it takes far longer to read than a sound of its size".into()))
}

#[cfg(unix)]
fn ran_out_of_time(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    // SIGXCPU, or SIGKILL at the hard limit.
    matches!(status.signal(), Some(24 | 9))
}

#[cfg(not(unix))]
fn ran_out_of_time(_status: ExitStatus) -> bool {
    false
}

fn no_decoder(error: impl std::fmt::Display) -> AudioError {
    AudioError::NoDecoder(error.to_string())
}
