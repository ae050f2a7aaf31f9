//! Sentences and objects that the original's clients show or look into.

use serde_json::{Value, json};

use crate::studio::{ClipId, Kind, SessionId, Status, StudioError};

/// A time as the original says it.
pub(crate) fn about(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0) as u64;
    let plural = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (seconds / 60, seconds % 60) {
        (0, rest) => format!("about {}", plural(rest, "second")),
        (minutes, 0) => format!("about {}", plural(minutes, "minute")),
        (minutes, rest) => format!("about {} and {}", plural(minutes, "minute"), plural(rest, "second")),
    }
}

/// The `queue_status` of a clip; all fields are always there. `load` is clips that wait and clips
/// that are made.
pub(crate) fn queue_status(session: &SessionId, clip: ClipId, status: &Status, load: (usize, usize)) -> Value {
    let (name, position, seconds, message) = match status {
        Status::Queued { position, seconds, .. } => {
            let message = format!("you are number {position} in line, it starts in {}", about(*seconds));
            ("queued", *position, *seconds, message)
        }
        Status::Starting => ("ready", 0, 0.0, "it is your turn".to_owned()),
        Status::Loading => ("warming", 0, 0.0, "the model is being loaded, which takes a while".to_owned()),
        Status::Running { .. } => ("processing", 0, 0.0, "your music is being made".to_owned()),
        Status::Completed => ("completed", 0, 0.0, "your music is ready".to_owned()),
        Status::Failed(_) | Status::Cancelled => ("failed", 0, 0.0, "it has ended without music".to_owned()),
    };
    json!({
        "message": message,
        "position": position,
        "total_queued": load.0 + load.1,
        "estimated_time": about(seconds),
        "estimated_seconds": seconds.round() as u64,
        "status": name,
        "session_id": session,
        "notification_id": format!("{clip}-{name}-{position}"),
        "priority": true,
    })
}

/// How a failure begins, by what was asked.
pub(crate) fn failure(kind: Kind, reason: &str) -> String {
    match kind {
        Kind::Continue | Kind::Retry => format!("Music continuation failed: {reason}"),
        Kind::Transform => format!("Audio transformation failed: {reason}"),
        _ => format!("Audio processing failed: {reason}"),
    }
}

/// An error in the original's words, where its clients look for them or know the fields by them.
pub(crate) fn said(error: &StudioError) -> String {
    match error {
        StudioError::NoSession(_) => format!("Session not found. {error}"),
        StudioError::Busy => "Generation already in progress".into(),
        StudioError::TransformBusy => "Transform already in progress".into(),
        StudioError::NoInput => "No last input audio available for retry".into(),
        StudioError::NothingToUndo => "No previous audio found to undo to".into(),
        StudioError::NoAudio => format!("No audio data available. {error}"),
        &StudioError::OutOfBounds { field, value, least, most } => {
            let field = match field {
                "prompt_seconds" => "prompt_duration",
                "guidance" => "cfg_coef",
                other => other,
            };
            StudioError::OutOfBounds { field, value, least, most }.to_string()
        }
        error => error.to_string(),
    }
}

/// Why there is no transform: clients look for the words that the original had when its other half
/// was down.
pub(crate) fn no_transform(error: &StudioError) -> String {
    match error {
        StudioError::Absent(reason) => format!("Connection refused: {reason}"),
        error => said(error),
    }
}

/// The event that carries a result.
pub(crate) fn result_event(kind: Kind) -> &'static str {
    match kind {
        Kind::Continue => "music_continued",
        Kind::Retry => "music_retried",
        Kind::Transform => "audio_transformed",
        _ => "audio_processed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_the_original_says_them() {
        for (seconds, text) in [
            (0.4, "about 0 seconds"),
            (1.0, "about 1 second"),
            (30.0, "about 30 seconds"),
            (60.0, "about 1 minute"),
            (121.0, "about 2 minutes and 1 second"),
            (200.0, "about 3 minutes and 20 seconds"),
        ] {
            assert_eq!(about(seconds), text);
        }
    }

    #[test]
    fn errors_are_said_in_the_originals_words() {
        let bounds = StudioError::OutOfBounds { field: "prompt_seconds", value: 30.0, least: 0.5, most: 29.0 };
        assert_eq!(said(&bounds), "`prompt_duration` is 30 but must lie between 0.5 and 29.");
        assert_eq!(said(&StudioError::Busy), "Generation already in progress");
        assert_ne!(StudioError::Busy.to_string(), said(&StudioError::Busy));
    }

    #[test]
    fn a_queue_status_never_lacks_a_field() {
        let (session, clip) = (SessionId::random(), ClipId::random());
        for status in [Status::Queued { position: 2, total: 3, seconds: 61.0 }, Status::Starting, Status::Loading] {
            let object = queue_status(&session, clip, &status, (2, 1));
            for field in ["message", "position", "total_queued", "estimated_seconds", "estimated_time", "status"] {
                assert!(!object[field].is_null(), "{field}");
            }
        }
    }
}
