//! How many connections the system allows.

/// Connections at most: listeners and those who ask for other things, as far as there are file
/// handles for them.
pub(super) fn places(listeners: usize, handles: Option<u64>) -> usize {
    /// Handles for sounds, models, the store and whoever is told that there is no place.
    const OTHERS: u64 = 128;
    let wanted = listeners + 2000;
    let most = handles.map(|handles| (handles.saturating_sub(OTHERS)).max(handles / 2));
    most.map_or(wanted, |most| wanted.min(usize::try_from(most).unwrap_or(wanted)))
}

/// A listener is a file handle, and many systems begin with 1024 of them. How many there are.
pub(super) fn allow_many_sockets(listeners: usize) -> Option<u64> {
    #[cfg(unix)]
    match rlimit::increase_nofile_limit(listeners as u64 + 2048) {
        Ok(handles) => {
            if handles < listeners as u64 + 64 {
                tracing::warn!("the system allows {handles} open files: raise `ulimit -n` for {listeners} listeners");
            }
            Some(handles)
        }
        Err(error) => {
            tracing::warn!("the limit of open files cannot be raised: {error}");
            None
        }
    }
    #[cfg(not(unix))]
    None
}
