//! Moments of a stream as requests name them: `-300` (seconds before now), `81.5` (seconds of media
//! time), or a wall-clock time such as `2026-11-28T20:15:00Z`.

use std::time::SystemTime;

use super::HttpError;
use crate::audio::OPUS_RATE;
use crate::station::{Journal, parse_rfc3339};

/// The seconds of media time at which a frame lies.
pub(super) fn seconds(frame: u64) -> f64 {
    frame as f64 / f64::from(OPUS_RATE)
}

/// The frame of media time that a text names. Before the beginning of what is kept is its
/// beginning, where the text counts from now.
pub(super) fn frame(journal: &Journal, name: &str, text: &str) -> Result<u64, HttpError> {
    let text = text.trim();
    let kept = journal.kept();
    let rate = f64::from(OPUS_RATE);
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        if seconds < 0.0 || text.starts_with('-') {
            let now = journal.frame_at(SystemTime::now()).unwrap_or(kept.end).min(kept.end);
            return Ok(now.saturating_sub((-seconds * rate).round() as u64).max(kept.start));
        }
        return Ok((seconds * rate).round() as u64);
    }
    let wall = parse_rfc3339(text).ok_or_else(|| {
        let brief: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
        HttpError::BadRequest(format!(
            "`{name}` is `{brief}`; send seconds before now (-300), seconds of media time (81.5) or a time \
             (2026-11-28T20:15:00Z)."
        ))
    })?;
    let not_played = || HttpError::Unprocessable(format!("Nothing was played of this stream at `{name}`."));
    journal.frame_at(wall).ok_or_else(not_played)
}
