//! Calls from node to node: a head and a body, answered by a head and a body in pieces.
//!
//! An answer comes as messages of one kind each. Whoever answers says that it is still at work, so
//! that one that died is noticed soon, and sends a few pieces at most that the caller has not said
//! to have taken; a caller that wants nothing more says that too. A body that is too large for one
//! message is fetched from the caller piece by piece, by whoever answers and as fast as it reads.
//!
//! A call of which nothing is heard is sent once more: whoever has got it already knows it.

mod answering;
mod asking;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};

pub(super) use self::answering::answer;
pub(super) use self::asking::ask;
use super::ClusterError;

/// Pieces that the caller need not have taken yet.
const WINDOW: usize = 16;
/// Whoever answers says so often that it is at work.
const PULSE: Duration = Duration::from_secs(1);
/// Whoever said nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// What a caller says that wants nothing more, instead of nothing.
const ENOUGH: Bytes = Bytes::from_static(b".");

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

fn message(kind: u8, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + payload.len());
    message.put_u8(kind);
    message.extend_from_slice(payload);
    message.freeze()
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
