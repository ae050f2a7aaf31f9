//! Signals that change nothing, where by default they would end the process and every stream with
//! it, and those that end it at once; and what the service manager is told in turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
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

/// From now on the second Ctrl-C or SIGTERM ends the process at once, whatever its threads are busy
/// with.
pub(super) fn end_at_the_second() {
    if let Err(error) = register() {
        tracing::warn!("a second Ctrl-C will not be heard ({error})");
    }
}

/// Tells systemd how the server is. Where nobody asked to be told (`NOTIFY_SOCKET`), nothing
/// happens.
pub(super) fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

fn register() -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal finds the flag down.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
    }
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(())
}
