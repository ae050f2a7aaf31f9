//! Calls from node to node: a head and a body, answered by a head and a body in pieces.
//!
//! An answer comes as messages of one kind each. Whoever answers says that it is still at work, so
//! that one that died is noticed soon, and sends a few pieces at most that the caller has not said
//! to have taken; a caller that wants nothing more says that too. A body that is too large for one
//! message is fetched from the caller piece by piece, by whoever answers and as fast as it reads.
//!
//! A call of which nothing is heard is sent once more: whoever has got it already knows it.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use metrics::counter;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::ClusterError;
use super::link::{Link, PATIENCE, Trouble, UNHEARD};
use super::nodes::Nodes;
use crate::telemetry::CLUSTER_CALLS;

/// Bytes of a body that are sent as one message.
const PIECE: usize = 64 << 10;
/// Pieces that the caller need not have taken yet.
const WINDOW: usize = 16;
/// Whoever answers says so often that it is at work.
const PULSE: Duration = Duration::from_secs(1);
/// Whoever said nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a caller may take for its pieces.
const STALLED: Duration = Duration::from_secs(30);
/// What a caller says that wants nothing more, instead of nothing.
const ENOUGH: Bytes = Bytes::from_static(b".");
/// Calls that are answered at the same time.
const AT_ONCE: usize = 1024;
/// Bytes of a body that go with the call itself, and of a piece that is fetched.
const ALONG: usize = 256 << 10;

/// The kinds of messages, as their first byte.
const HEAD: u8 = b'H';
const BODY: u8 = b'B';
const END: u8 = b'E';
const BROKEN: u8 = b'X';
const AT_WORK: u8 = b'P';

/// What a node is asked.
#[derive(Debug, Clone)]
pub struct Call {
    /// As the one who answers understands it.
    pub head: Bytes,
    /// What goes with it.
    pub body: Bytes,
}

/// What another node asks.
pub struct Received {
    /// As it was sent.
    pub head: Bytes,
    /// As it comes.
    pub body: BoxStream<'static, Result<Bytes, ClusterError>>,
}

/// What it answers.
pub struct Answer {
    /// As the caller understands it.
    pub head: Bytes,
    /// As it comes.
    pub body: BoxStream<'static, Result<Bytes, ClusterError>>,
}

/// Answers the calls of other nodes.
pub type Respond = Arc<dyn Fn(Received) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A call as one message: its head, where the body is to be fetched if it is not here, and the
/// body.
struct Envelope {
    head: Bytes,
    from: String,
    body: Bytes,
}

impl Envelope {
    fn message(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(5 + self.head.len() + self.from.len() + self.body.len());
        message.put_u32(u32::try_from(self.head.len()).unwrap_or(u32::MAX));
        message.put_u8(u8::try_from(self.from.len()).unwrap_or_default());
        message.extend_from_slice(&self.head);
        message.extend_from_slice(self.from.as_bytes());
        message.extend_from_slice(&self.body);
        message.freeze()
    }

    fn read(mut message: Bytes) -> Option<Self> {
        let (head, from) = (message.try_get_u32().ok()? as usize, usize::from(message.try_get_u8().ok()?));
        if message.len() < head + from {
            return None;
        }
        let (head, from) = (message.split_to(head), message.split_to(from));
        Some(Self { head, from: String::from_utf8(from.into()).ok()?, body: message })
    }

    fn received(self, client: &Client) -> Received {
        let body = if self.from.is_empty() {
            stream::iter([Ok(self.body)]).boxed()
        } else {
            fetched(client.clone(), self.from)
        };
        Received { head: self.head, body }
    }
}

/// The body of a caller who keeps it until it is fetched.
fn fetched(client: Client, from: String) -> BoxStream<'static, Result<Bytes, ClusterError>> {
    let pieces = stream::try_unfold(0u64, move |at| {
        let (client, from) = (client.clone(), from.clone());
        async move {
            let piece = client.request(from, Bytes::copy_from_slice(&at.to_be_bytes())).await;
            let piece = piece.map_err(|_| ClusterError::Silent("that asked".into()))?.payload;
            let next = at + piece.len() as u64;
            Ok((!piece.is_empty()).then_some((piece, next)))
        }
    });
    pieces.boxed()
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

fn message(kind: u8, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + payload.len());
    message.put_u8(kind);
    message.extend_from_slice(payload);
    message.freeze()
}

/// Asks `node`, which listens at `subject`.
pub(super) async fn ask(link: &Link, node: &str, subject: String, call: &Call) -> Result<Answer, ClusterError> {
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

/// Answers what comes to `subject` for as long as the process lives.
pub(super) async fn answer(link: Arc<Link>, subject: String, respond: Respond, nodes: Arc<Nodes>) {
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

/// The whole of a body.
pub async fn whole(body: impl Stream<Item = Result<Bytes, ClusterError>>) -> Result<Bytes, ClusterError> {
    let mut body = pin!(body);
    let mut all = BytesMut::new();
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_sent_twice_is_answered_once() {
        let mut known = Known::default();
        assert_eq!(["a", "b", "a"].map(|call| known.is_new(call)), [true, true, false]);
        tokio::time::advance(3 * SILENCE).await;
        assert!(known.is_new("c"));
        assert_eq!((known.calls.len(), known.since.len()), (1, 1));
    }

    #[test]
    fn a_call_is_read_as_it_was_written_and_nonsense_is_none() {
        let call = Envelope {
            head: Bytes::from_static(b"head"),
            from: "_INBOX.x".into(),
            body: Bytes::from_static(b"the body"),
        };
        let read = Envelope::read(call.message()).unwrap();
        assert_eq!((read.head, read.from, read.body), (call.head.clone(), call.from.clone(), call.body.clone()));
        let whole = call.message();
        for cut in 0..17 {
            assert!(Envelope::read(whole.slice(..cut)).is_none(), "{cut}");
        }
        assert!(Envelope::read(Bytes::from_static(b"\xff\xff\xff\xffx")).is_none());
    }
}
