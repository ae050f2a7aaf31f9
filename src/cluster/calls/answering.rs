//! The side of whoever is called.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message};
use bytes::{BufMut, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::super::link::{Link, Trouble};
use super::super::nodes::Nodes;
use super::{AT_WORK, Answer, BODY, BROKEN, END, ENOUGH, Envelope, HEAD, PULSE, Respond, SILENCE, WINDOW, message};

/// Bytes of a body that are sent as one message.
const PIECE: usize = 64 << 10;
/// Calls that are answered at the same time.
const AT_ONCE: usize = 1024;
/// How long a caller may take for its pieces.
const STALLED: Duration = Duration::from_secs(30);

/// Answers what comes to `subject` for as long as the process lives.
pub(in crate::cluster) async fn answer(link: Arc<Link>, subject: String, respond: Respond, nodes: Arc<Nodes>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut known = Known::default();
    loop {
        link.connected().await;
        let Ok(client) = link.client() else { continue };
        let Ok(mut calls) = client.subscribe(subject.clone()).await else { continue };
        if client.flush().await.is_ok() {
            nodes.answers();
        }
        // It outlives the connection.
        while let Some(asked) = calls.next().await {
            let (Some(reply), Some(call)) = (asked.reply, Envelope::read(asked.payload)) else { continue };
            if !known.is_new(reply.as_str()) {
                continue;
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let answering = respond(call.received(&client));
            let client = client.clone();
            tokio::spawn(async move {
                let _place = place;
                if let Err(Trouble(reason)) = send(&client, reply.to_string(), answering).await {
                    tracing::debug!(reason, "an answer to another node was not taken");
                }
            });
        }
    }
}

/// Calls that have come lately, by where they are answered: a caller that hears nothing sends his
/// once more.
#[derive(Default)]
struct Known {
    calls: HashSet<String>,
    since: VecDeque<(Instant, String)>,
}

impl Known {
    fn is_new(&mut self, call: &str) -> bool {
        while let Some((since, _)) = self.since.front()
            && since.elapsed() > 2 * SILENCE
            && let Some((_, old)) = self.since.pop_front()
        {
            self.calls.remove(&old);
        }
        let is_new = self.calls.insert(call.to_owned());
        if is_new {
            self.since.push_back((Instant::now(), call.to_owned()));
        }
        is_new
    }
}

async fn send(client: &Client, to: String, answering: BoxFuture<'static, Answer>) -> Result<(), Trouble> {
    let credit = client.new_inbox();
    let mut credits = client.subscribe(credit.clone()).await?;
    let Answer { head, mut body } = at_work(client, &to, answering).await?;
    let mut first = BytesMut::with_capacity(1 + credit.len() + head.len());
    first.put_u8(u8::try_from(credit.len()).unwrap_or_default());
    first.extend_from_slice(credit.as_bytes());
    first.extend_from_slice(&head);
    client.publish(to.clone(), message(HEAD, &first)).await?;
    let mut left = WINDOW;
    loop {
        let bytes = tokio::select! {
            bytes = at_work(client, &to, body.next()) => match bytes? {
                Some(Ok(bytes)) => bytes,
                Some(Err(_)) => {
                    client.publish(to, message(BROKEN, b"")).await?;
                    return Ok(());
                }
                None => break,
            },
            credit = credits.next() => {
                left += credited(credit)?;
                continue;
            }
        };
        for piece in bytes.chunks(PIECE) {
            if left == 0 {
                left += credited(timeout(STALLED, credits.next()).await.ok().flatten())?;
            }
            client.publish(to.clone(), message(BODY, piece)).await?;
            left -= 1;
        }
    }
    client.publish(to, message(END, b"")).await?;
    Ok(())
}

/// Pieces that a caller has taken.
fn credited(credit: Option<Message>) -> Result<usize, Trouble> {
    let has_taken = credit.is_some_and(|credit| credit.payload != ENOUGH);
    has_taken.then_some(WINDOW / 2).ok_or_else(|| Trouble("the caller takes nothing more".into()))
}

/// Waits, and says meanwhile that it does.
async fn at_work<T>(client: &Client, to: &str, work: impl Future<Output = T>) -> Result<T, Trouble> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = sleep(PULSE) => client.publish(to.to_owned(), message(AT_WORK, b"")).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_sent_twice_is_answered_once() {
        let mut known = Known::default();
        assert_eq!(["a", "b", "a"].map(|call| known.is_new(call)), [true, true, false]);
        tokio::time::advance(3 * SILENCE).await;
        assert!(known.is_new("c"));
        assert_eq!((known.calls.len(), known.since.len()), (1, 1));
    }
}
