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

/// Decodes `length` bytes from the standard input to the standard output, with `ffmpeg` if one is
/// named.
pub fn run(length: u64, ffmpeg: Option<&Path>) -> ExitCode {
    let Limits { seconds } = Limits::set(length);
    if let Some(program) = ffmpeg {
        // Does not come back if the program is there.
        return ffmpeg::become_it(program);
    }
    // A parser that stumbles is answered in a sentence.
    std::panic::set_hook(Box::new(|_| {}));
    let mut file = Vec::with_capacity(length.try_into().unwrap_or(0));
    if std::io::stdin().lock().take(length).read_to_end(&mut file).is_err() {
        return ExitCode::FAILURE;
    }
    let mut writer = Writer::new(std::io::stdout().lock());
    let (mut made, mut allowed) = (0.0, seconds);
    let end = decode_to(&file, &mut |spec: PcmSpec, pcm: &[f32]| {
        made += (pcm.len() / spec.channels) as f64 / f64::from(spec.rate);
        let earned = seconds + (made / SOUND_A_SECOND) as u64;
        if earned > allowed {
            allowed = earned;
            limit_time(allowed);
        }
        // Nobody listens any more.
        writer.push(spec, pcm).map_err(|error| AudioError::NoDecoder(error.to_string()))
    });
    match writer.end(end) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

struct Limits {
    /// Seconds of a processor before the first sound.
    seconds: u64,
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
        Self { seconds }
    }
}

fn limit_time(seconds: u64) {
    // The hard limit cannot be raised again.
    #[cfg(unix)]
    let _ = rlimit::Resource::CPU.set(seconds, rlimit::INFINITY);
    #[cfg(not(unix))]
    let _ = seconds;
}
