//! Messages of which NATS has not said yet that they are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Messages are known by their numbers, in the order in which they were sent.
#[derive(Default)]
pub(super) struct Unkept {
    state: Mutex<State>,
    said: Notify,
}

#[derive(Default)]
struct State {
    sent: u64,
    since: BTreeMap<u64, Instant>,
}

impl Unkept {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more message is about to be sent; gives its number.
    pub(super) fn send(&self) -> u64 {
        let mut state = self.lock();
        state.sent += 1;
        let number = state.sent;
        state.since.insert(number, Instant::now());
        number
    }

    /// NATS has said what became of a message; tells whether that was waited for.
    pub(super) fn said(&self, number: u64) -> bool {
        let was_waited_for = self.lock().since.remove(&number).is_some();
        self.said.notify_waiters();
        was_waited_for
    }

    /// Nothing more will be said of what was sent before.
    pub(super) fn forget(&self) {
        self.lock().since.clear();
        self.said.notify_waiters();
    }

    /// How many were sent so long ago.
    pub(super) fn late(&self, patience: Duration) -> usize {
        self.lock().since.values().take_while(|since| since.elapsed() > patience).count()
    }

    /// Waits until of all that was sent before now is said that it is kept; tells whether it was
    /// within that time.
    pub(super) async fn settled(&self, patience: Duration) -> bool {
        let until = self.lock().sent;
        let settled = async {
            loop {
                let said = self.said.notified();
                if self.lock().since.range(..=until).next().is_none() {
                    return;
                }
                said.await;
            }
        };
        timeout(patience, settled).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_what_was_sent_before_and_for_nothing_else() {
        let unkept = Unkept::default();
        assert!(unkept.settled(PATIENCE).await);
        let (one, two) = (unkept.send(), unkept.send());
        let begun = Instant::now();
        let (settled, ()) = tokio::join!(unkept.settled(PATIENCE), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            unkept.send();
            assert!(unkept.said(two));
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(unkept.said(one));
        });
        assert!(settled);
        assert_eq!(begun.elapsed(), Duration::from_millis(200));
        assert!(!unkept.said(one), "it was said before");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nats_says_nothing_of_is_not_waited_for_for_ever() {
        let unkept = Unkept::default();
        unkept.send();
        assert!(!unkept.settled(PATIENCE).await);
        assert_eq!((unkept.late(2 * PATIENCE), unkept.late(Duration::from_secs(2))), (0, 1));
        let (settled, ()) = tokio::join!(unkept.settled(PATIENCE), async { unkept.forget() });
        assert!(settled);
    }
}
