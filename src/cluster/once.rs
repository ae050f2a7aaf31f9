//! Questions that come once more when whoever asks has heard nothing for a while: a NATS server that
//! died may have had the question, or the answer. Each is carried out once, and answered as often as
//! it comes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// On its way or found, and since when.
type Answer<A> = (Instant, Shared<BoxFuture<'static, A>>);

/// Answers, by what whoever asks calls the question.
pub(super) struct Once<A: Clone>(Mutex<HashMap<String, Answer<A>>>);

impl<A: Clone> Default for Once<A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A: Clone> Once<A> {
    /// The answer to a question, which `carry_out` finds unless that is being done or was done within
    /// `known`.
    pub(super) async fn answer<F>(&self, call: String, known: Duration, carry_out: impl FnOnce() -> F) -> A
    where
        F: Future<Output = A> + Send + 'static,
    {
        let answer = {
            let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            asked.retain(|_, (since, _)| since.elapsed() < known);
            let (_, answer) = asked.entry(call).or_insert_with(|| (Instant::now(), carry_out().boxed().shared()));
            answer.clone()
        };
        answer.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    const KNOWN: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_twice_is_done_once_and_answered_twice() {
        let (once, done) = (Once::default(), Arc::new(AtomicU32::new(0)));
        let ask = async |call: &str| {
            let done = Arc::clone(&done);
            let carry_out = || async move {
                sleep(Duration::from_secs(2)).await;
                done.fetch_add(1, Ordering::Relaxed) + 1
            };
            once.answer(call.to_owned(), KNOWN, carry_out).await
        };
        // While the first is at work, and when it has been answered.
        assert_eq!(tokio::join!(ask("a"), ask("a"), ask("b")), (1, 1, 2));
        assert_eq!(ask("a").await, 1);
        advance(KNOWN).await;
        assert_eq!(ask("a").await, 3);
    }
}
