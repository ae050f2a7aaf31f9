//! `bench stillness`: how long sound files stand still, heard as the engine hears its voices.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Row;
use crate::audio::decode;
use crate::cli::Failure;
use crate::cli::sampling::max_still;
use crate::engine::{MAX_STILL, Stillness};

/// Samples that are heard at once.
const PIECE: usize = 512;

#[derive(Args)]
pub(super) struct StillnessArgs {
    /// Sound files: WAV, AIFF, FLAC, MP3, Ogg or M4A
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Seconds of nothing new that count as an alarm
    #[arg(long, default_value_t = MAX_STILL, value_name = "SECONDS", value_parser = max_still)]
    max_still: f32,
}

pub(super) fn run(args: &StillnessArgs) -> Result<Vec<Row>, Failure> {
    let limit = f64::from(if args.max_still > 0.0 { args.max_still } else { f32::INFINITY });
    let row = |path: &PathBuf| {
        let bytes =
            std::fs::read(path).map_err(|error| Failure(format!("{} cannot be read: {error}.", path.display())))?;
        let sound = decode(bytes)?;
        let mut watch = Stillness::new(sound.rate, f64::INFINITY);
        let (mut longest, mut alarms, mut before, mut at) = (0.0f64, 0, 0.0, 0);
        for part in sound.pcm.chunks(sound.channels * PIECE) {
            watch.push(at as u64, part, sound.channels);
            at += part.len() / sound.channels;
            let still = watch.seconds();
            longest = longest.max(still);
            alarms += usize::from(before < limit && still >= limit);
            before = still;
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(vec![
            ("file", json!(name)),
            ("seconds", json!(at as f64 / f64::from(sound.rate.0))),
            ("longest_still_s", json!(longest)),
            ("alarms", json!(alarms)),
        ])
    };
    args.files.iter().map(row).collect()
}
