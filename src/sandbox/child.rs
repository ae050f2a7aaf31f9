//! The process that decodes: limits first, then the file.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use super::ffmpeg;
use super::wire::Writer;
use crate::audio::{AudioError, PcmSpec, decode_to};

/// The hidden command that a [`Sandbox`](super::Sandbox) starts this program with.
pub const COMMAND: &str = "decode";

/// Bytes of memory besides the file itself.
const MEMORY: u64 = 200 << 20;
/// Bytes of a file whose reading may take another second.
const BYTES_A_SECOND: u64 = 2 << 20;
/// Seconds of sound whose decoding may take another second.
const SOUND_A_SECOND: f64 = 15.0;

/// Decodes files of these lengths, one behind the other on the standard input, to the standard
/// output, with `ffmpeg` if one is named. The server gives one; `scripts/mutate` gives many small
/// ones, as a process costs more than they do.
pub fn run(lengths: &[u64], ffmpeg: Option<&Path>) -> ExitCode {
    let mut limits = Limits::set(lengths.iter().sum());
    if let Some(program) = ffmpeg {
        // Does not come back if the program is there.
        return ffmpeg::become_it(program);
    }
    // A parser that stumbles is answered in a sentence.
    std::panic::set_hook(Box::new(|_| {}));
    match lengths.iter().try_for_each(|length| one(*length, &mut limits)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn one(length: u64, limits: &mut Limits) -> std::io::Result<()> {
    let mut file = Vec::with_capacity(length.try_into().unwrap_or(0));
    std::io::stdin().lock().take(length).read_to_end(&mut file)?;
    let mut writer = Writer::new(std::io::stdout().lock());
    let end = decode_to(&file, &mut |spec: PcmSpec, pcm: &[f32]| {
        limits.made((pcm.len() / spec.channels) as f64 / f64::from(spec.rate));
        // Nobody listens any more.
        writer.push(spec, pcm).map_err(|error| AudioError::NoDecoder(error.to_string()))
    });
    writer.end(end)
}

struct Limits {
    /// Seconds of a processor before the first sound, and with what was earned since.
    seconds: u64,
    allowed: u64,
    /// Seconds of sound.
    made: f64,
}

impl Limits {
    /// Puts limits on this process. Where the system has none it runs without.
    fn set(length: u64) -> Self {
        let seconds = 1 + length / BYTES_A_SECOND;
        #[cfg(unix)]
        {
            use rlimit::Resource;
            // No trace of a crash, no file longer than the one that was given.
            for (resource, limit) in [(Resource::CORE, 0), (Resource::FSIZE, length), (Resource::DATA, MEMORY + length)]
            {
                let _ = resource.set(limit, limit);
            }
        }
        limit_time(seconds);
        Self { seconds, allowed: seconds, made: 0.0 }
    }

    /// More sound earns more time.
    fn made(&mut self, seconds: f64) {
        self.made += seconds;
        let earned = self.seconds + (self.made / SOUND_A_SECOND) as u64;
        if earned > self.allowed {
            self.allowed = earned;
            limit_time(earned);
        }
    }
}

fn limit_time(seconds: u64) {
    // The hard limit cannot be raised again.
    #[cfg(unix)]
    let _ = rlimit::Resource::CPU.set(seconds, rlimit::INFINITY);
    #[cfg(not(unix))]
    let _ = seconds;
}
