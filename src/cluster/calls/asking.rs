//! The caller's side.

use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use metrics::counter;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::ClusterError;
use super::super::link::{Link, PATIENCE, Trouble, UNHEARD};
use super::{AT_WORK, Answer, BODY, BROKEN, Call, END, ENOUGH, Envelope, HEAD, PULSE, SILENCE, WINDOW};
use crate::telemetry::CLUSTER_CALLS;

/// Bytes of a body that go with the call itself, and of a piece that is fetched.
const ALONG: usize = 256 << 10;

/// Asks `node`, which listens at `subject`.
pub(in crate::cluster) async fn ask(
    link: &Link,
    node: &str,
    subject: String,
    call: &Call,
) -> Result<Answer, ClusterError> {
    let answer = asked(link, node, subject, call).await;
    let outcome = if answer.is_ok() { "answered" } else { "failed" };
    counter!(CLUSTER_CALLS, "outcome" => outcome).increment(1);
    answer
}

async fn asked(link: &Link, node: &str, subject: String, call: &Call) -> Result<Answer, ClusterError> {
    let client = link.client_soon().await?;
    let mut handing_out = JoinSet::new();
    let mut envelope = Envelope { head: call.head.clone(), from: String::new(), body: call.body.clone() };
    if call.body.len() > ALONG {
        (envelope.from, envelope.body) = (client.new_inbox(), Bytes::new());
    }
    let (inbox, message) = (client.new_inbox(), envelope.message());
    let sent = async {
        let messages = client.subscribe(inbox.clone()).await?;
        if !envelope.from.is_empty() {
            let asked = client.subscribe(envelope.from.clone()).await?;
            handing_out.spawn(hand_out(client.clone(), asked, call.body.clone()));
        }
        client.publish_with_reply(subject.clone(), inbox.clone(), message.clone()).await?;
        Ok::<_, Trouble>(messages)
    };
    let messages = timeout(PATIENCE, sent).await.ok().and_then(Result::ok).ok_or(ClusterError::Away)?;
    let (node, credit) = (node.to_owned(), String::new());
    let mut taking = Taking { node, client, messages, credit, taken: 0, is_over: false, _handing_out: handing_out };
    let until = Instant::now() + SILENCE;
    let mut is_repeated = false;
    let mut said = loop {
        match timeout(UNHEARD, taking.next()).await {
            // It may have been done before its node was gone, or is away for a moment.
            Ok(Err(ClusterError::Gone(_))) if is_repeated => sleep(PULSE).await,
            Ok(said) => break said?,
            Err(_) => {}
        }
        if Instant::now() >= until {
            return Err(ClusterError::Silent(taking.node.clone()));
        }
        // A NATS server that died may have had it, or not any more: whoever has got it knows it.
        is_repeated = true;
        let again = taking.client.publish_with_reply(subject.clone(), inbox.clone(), message.clone());
        let _ = timeout(PATIENCE, again).await;
    };
    loop {
        let (kind, payload) = said;
        match kind {
            HEAD => {
                let length = payload.first().map_or(0, |length| usize::from(*length));
                let credit = payload.get(1..=length).and_then(|text| std::str::from_utf8(text).ok());
                credit.unwrap_or_default().clone_into(&mut taking.credit);
                let head = payload.slice((1 + length).min(payload.len())..);
                return Ok(Answer { head, body: taking.body() });
            }
            AT_WORK => said = taking.next().await?,
            _ => return Err(ClusterError::Silent(taking.node.clone())),
        }
    }
}

/// The caller's side of an answer.
struct Taking {
    node: String,
    client: Client,
    messages: Subscriber,
    /// Where it is said what was taken.
    credit: String,
    taken: usize,
    /// Nothing more comes.
    is_over: bool,
    /// Of the call's own body, for as long as the answer is taken.
    _handing_out: JoinSet<()>,
}

impl Taking {
    async fn next(&mut self) -> Result<(u8, Bytes), ClusterError> {
        let silent = || ClusterError::Silent(self.node.clone());
        let message = timeout(SILENCE, self.messages.next()).await.ok().flatten().ok_or_else(silent)?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(ClusterError::Gone(self.node.clone()));
        }
        if message.payload.is_empty() {
            return Err(silent());
        }
        let mut payload = message.payload;
        let kind = payload.split_to(1)[0];
        self.is_over = [END, BROKEN].contains(&kind);
        Ok((kind, payload))
    }

    fn body(self) -> BoxStream<'static, Result<Bytes, ClusterError>> {
        stream::unfold(Some(self), |taking| async move {
            let mut taking = taking?;
            loop {
                return match taking.next().await {
                    Ok((BODY, piece)) => {
                        taking.taken += 1;
                        if taking.taken.is_multiple_of(WINDOW / 2) && !taking.credit.is_empty() {
                            // What does not arrive is noticed by the silence that follows.
                            let said = taking.client.publish(taking.credit.clone(), Bytes::new());
                            let _ = timeout(PATIENCE, said).await;
                        }
                        Some((Ok(piece), Some(taking)))
                    }
                    Ok((AT_WORK, _)) => continue,
                    Ok((END, _)) => None,
                    Ok(_) => Some((Err(ClusterError::Silent(taking.node.clone())), None)),
                    Err(error) => Some((Err(error), None)),
                };
            }
        })
        .boxed()
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if !self.is_over && !self.credit.is_empty() {
            // What does not get there is noticed by what is not taken.
            let _ = self.client.publish(std::mem::take(&mut self.credit), ENOUGH).now_or_never();
        }
    }
}

/// Hands out a body, piece by piece, to whoever asks.
async fn hand_out(client: Client, mut asked: Subscriber, body: Bytes) {
    while let Some(message) = asked.next().await {
        let (Some(reply), Ok(at)) = (message.reply, message.payload.as_ref().try_into().map(u64::from_be_bytes)) else {
            continue;
        };
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
        let piece = body.slice(from..(from + ALONG).min(body.len()));
        // What does not arrive is missed by whoever asked.
        let _ = client.publish(reply, piece).await;
    }
}
