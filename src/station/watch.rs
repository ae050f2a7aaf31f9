//! Something outside of the program that is read again and again, until it is another.
//!
//! Systems that tell of changes tell of folders: not of what a link leads to (a configuration map
//! is links to a folder behind a link that is swapped), not of network disks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Editors write a file in several steps; what follows within this time belongs to the same edit.
const SETTLE: Duration = Duration::from_millis(250);

/// What was seen last, and how to look again.
pub struct Watch<T> {
    look: Arc<dyn Fn() -> T + Send + Sync>,
    seen: T,
    /// It was another at the last look.
    settles: bool,
}

impl<T: PartialEq + Send + 'static> Watch<T> {
    /// Looks for the first time. `look` may block: later it is called where that holds up nobody
    /// else.
    pub fn begin(look: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { seen: look(), look: Arc::new(look), settles: false }
    }

    /// What was seen last.
    pub fn seen(&self) -> &T {
        &self.seen
    }

    /// Waits until there is something else to be seen, and it has stopped changing. Cancel safe.
    pub async fn changed(&mut self) -> &T {
        loop {
            sleep(if self.settles { SETTLE } else { LOOK }).await;
            let is_another = self.is_another().await;
            if std::mem::replace(&mut self.settles, is_another) && !is_another {
                return &self.seen;
            }
        }
    }

    /// Looks again. A look that panics has seen nothing new.
    async fn is_another(&mut self) -> bool {
        let look = Arc::clone(&self.look);
        match tokio::task::spawn_blocking(move || look()).await {
            Ok(now) if now != self.seen => {
                self.seen = now;
                true
            }
            _ => false,
        }
    }
}
