//! gary: the back end that the Ableton device and its relatives speak to
//! (betweentwomidnights/gary-backend-combined, `g4lwebsockets.py`). Its events and texts are kept;
//! its defects are not: every request is answered, results reach sockets that reconnect, a retried
//! or malformed request leaves nothing behind.

mod asker;
mod chunks;
mod events;
mod far;
mod juce;
mod members;
mod models;
mod payload;
mod push;
mod service;
mod socket;
mod texts;

use std::sync::Arc;

use warp::Filter;

pub(super) use far::PATH as FAR;
pub(super) use payload::Payload;
pub(super) use socket::Sockets;

use super::router::Paths;
use super::{App, Routes};

/// Paths of [`routes`]; Socket.IO stands in front of them.
pub(super) const PATHS: Paths = &[
    ("/api/juce/process_audio", "POST"),
    ("/api/juce/continue_music", "POST"),
    ("/api/juce/retry_music", "POST"),
    ("/api/juce/transform_audio", "POST"),
    ("/api/juce/undo_transform", "POST"),
    ("/api/juce/update_cropped_audio", "POST"),
    ("/api/juce/poll_status/{}", "GET, HEAD"),
    ("/api/latest_generated_audio/{}", "GET, HEAD"),
    ("/api/models", "GET, HEAD"),
    ("/api/cleanup_old_sessions", "POST"),
    ("/api/warmup", "POST"),
    ("/api/warmup/status", "GET, HEAD"),
    ("/task_notification", "POST"),
    ("/health", "GET, HEAD"),
];

/// All routes of gary.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    juce::routes(app).or(service::routes(app)).unify().boxed()
}
