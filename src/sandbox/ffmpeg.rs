//! The last resort: an installed ffmpeg, between two pipes.

use std::path::Path;
use std::process::{Command, ExitCode};

use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::ChildStdout;

use super::{Failed, silence};
use crate::audio::{AudioError, MAX_SECONDS, Parts, PcmSpec, Trust};

/// Bytes of a WAV's head at most, as ffmpeg writes it.
const HEAD: usize = 4096;

/// Becomes ffmpeg, with the limits that this process has: standard input to a WAV on the standard
/// output. It may read nothing but that pipe, and write nothing but the other and a nameless file
/// in which it can go back: the index of a recording is often at its end.
pub(super) fn become_it(program: &Path) -> ExitCode {
    let mut command = Command::new(program);
    command
        .args(["-nostdin", "-v", "quiet", "-threads", "1", "-max_alloc", "150000000"])
        .args(["-protocol_whitelist", "pipe,cache", "-i", "cache:pipe:0"])
        .args(["-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1", "-threads", "1"])
        .args(["-t", &(MAX_SECONDS + 1.0).to_string()])
        .args(["-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]);
    replace(command)
}

#[cfg(unix)]
fn replace(mut command: Command) -> ExitCode {
    use std::os::unix::process::CommandExt;
    // Comes back only with an error: there is no such program.
    let _ = command.exec();
    ExitCode::FAILURE
}

#[cfg(not(unix))]
fn replace(mut command: Command) -> ExitCode {
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Reads the WAV.
pub(super) async fn read(out: ChildStdout, parts: &mut Parts) -> Result<Trust, Failed> {
    let mut out = BufReader::with_capacity(64 << 10, out);
    let mut head = Vec::new();
    let spec = loop {
        if head.len() > HEAD {
            return Err(silence());
        }
        head.push(out.read_u8().await.map_err(|_| silence())?);
        if let Some(spec) = spec(&head) {
            break spec;
        }
    };
    let (mut bytes, mut have, mut pcm, mut seconds) = (vec![0; 64 << 10], 0, Vec::new(), 0.0);
    loop {
        let read = out.read(&mut bytes[have..]).await.map_err(|_| silence())?;
        have += read;
        let whole = have - have % (4 * spec.channels);
        let (samples, _) = bytes[..whole].as_chunks();
        pcm.clear();
        pcm.extend(samples.iter().map(|&sample| finite(f32::from_le_bytes(sample))));
        parts.push(spec, &pcm).map_err(Failed::Anywhere)?;
        seconds += (pcm.len() / spec.channels) as f64 / f64::from(spec.rate);
        if seconds > MAX_SECONDS + 0.1 {
            return Err(Failed::Anywhere(AudioError::TooLong { seconds: MAX_SECONDS }));
        }
        bytes.copy_within(whole..have, 0);
        have -= whole;
        if read == 0 {
            return if seconds > 0.0 { Ok(Trust::Whole) } else { Err(silence()) };
        }
    }
}

fn finite(sample: f32) -> f32 {
    if sample.is_finite() { sample.clamp(-64.0, 64.0) } else { 0.0 }
}

/// Rate and channels, once the head is complete: it ends with the data's name and size.
fn spec(head: &[u8]) -> Option<PcmSpec> {
    let data = head.len().checked_sub(8)?;
    if head[data..].first_chunk() != Some(b"data") {
        return None;
    }
    let format = head.windows(4).position(|four| four == b"fmt ")?;
    let &[c0, c1, r0, r1, r2, r3] = head.get(format + 10..)?.first_chunk()?;
    let (rate, channels) = (u32::from_le_bytes([r0, r1, r2, r3]), usize::from(u16::from_le_bytes([c0, c1])));
    ((4_000..=384_000).contains(&rate) && (1..=64).contains(&channels)).then_some(PcmSpec { rate, channels })
}
