//! Signals that change nothing: what they would do by default is end the process, and every stream
//! with it.

use tokio::signal::unix::{SignalKind, signal};

/// A terminal that closes, a log rotator or a habit of other servers sends these.
const IGNORED: [(SignalKind, &str); 4] = [
    (SignalKind::hangup(), "SIGHUP"),
    (SignalKind::user_defined1(), "SIGUSR1"),
    (SignalKind::user_defined2(), "SIGUSR2"),
    (SignalKind::alarm(), "SIGALRM"),
];

/// From now on they are only told. Must be called within a tokio runtime.
pub(super) fn outlive() {
    for (kind, name) in IGNORED {
        match signal(kind) {
            Ok(mut signals) => {
                tokio::spawn(async move {
                    while signals.recv().await.is_some() {
                        tracing::info!("{name} changes nothing: prompt sets are followed without it, SIGTERM ends");
                    }
                });
            }
            Err(error) => tracing::warn!("{name} would end the server: {error}"),
        }
    }
}
