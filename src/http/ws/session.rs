//! One open socket: commands are obeyed and sound is sent beside each other until either has a
//! reason to stop.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::{Either, pending};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::Socket;
use super::command::{Answer, Heard, obeyed, refusal};
use super::sound::Sound;
use crate::http::HttpError;
use crate::http::exchange::Exchange;
use crate::station::Events;

const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(45);
const STALL: Duration = Duration::from_secs(30);
/// How long a client may take to answer our close.
const GOODBYE: Duration = Duration::from_secs(2);
/// Replies that wait for a client that does not read; then its commands wait too.
const REPLIES: usize = 16;

/// Why the socket closes.
pub(super) struct Goodbye(CloseCode, Cow<'static, str>);

impl Goodbye {
    fn new(code: CloseCode, reason: &'static str) -> Self {
        Self(code, reason.into())
    }

    pub(super) fn too_slow() -> Self {
        Self::new(CloseCode::Again, "too slow for this stream; connect again")
    }

    pub(super) fn gone() -> Self {
        Self::new(CloseCode::Again, "the node that played this is gone; connect again")
    }
}

/// Serves one socket to its end. Reading and writing go on beside each other, so that a client
/// whose sound is stuck can still be heard; replies are bounded, so that one that never reads is
/// not listened to for ever.
pub(super) async fn converse(
    socket: Socket,
    exchange: &Exchange,
    heard: &Heard,
    sound: Option<Sound>,
    stopping: impl Fn() -> bool,
) {
    let (mut sink, source) = socket.split();
    let (replies, answers) = mpsc::channel(REPLIES);
    let goodbye = tokio::select! {
        goodbye = obey(source, exchange, heard, replies) => goodbye,
        goodbye = play(&mut sink, sound, heard.stream.events(), answers) => goodbye,
    };
    // Without one the client has gone or closed already; the pending answer to its close is still
    // sent.
    let close = async {
        if let Some(Goodbye(code, reason)) = goodbye {
            let code = if stopping() { CloseCode::Away } else { code };
            let frame = CloseFrame { code, reason: reason.as_ref().into() };
            let _ = sink.send(Message::Close(Some(frame))).await;
        }
        let _ = sink.close().await;
    };
    let _ = timeout(GOODBYE, close).await;
}

/// Closes a socket that cannot be served now, and says why and for how long.
pub(super) async fn refuse(socket: Socket, error: &HttpError) {
    let (mut sink, _source) = socket.split();
    let reason = match error.retry_after() {
        Some(seconds) => format!("the machine has no room for this stream; try again in {seconds} s"),
        None => "this stream cannot be heard".into(),
    };
    let close = async {
        let _ = sink.send(Message::text(refusal(None, error).to_string())).await;
        let frame = CloseFrame { code: CloseCode::Again, reason: reason.as_str().into() };
        let _ = sink.send(Message::Close(Some(frame))).await;
        let _ = sink.close().await;
    };
    let _ = timeout(GOODBYE, close).await;
}

/// Carries out commands in order until the client closes, breaks the rules or falls silent.
async fn obey(
    mut source: SplitStream<Socket>,
    exchange: &Exchange,
    heard: &Heard,
    replies: mpsc::Sender<Answer>,
) -> Option<Goodbye> {
    loop {
        let answer = match timeout(SILENCE, source.next()).await {
            Err(_) if exchange.is_half_closed() => continue,
            Err(_) => return Some(Goodbye::new(CloseCode::Policy, "nothing heard for 45 s; answer pings")),
            Ok(None | Some(Ok(Message::Close(_)))) => return None,
            Ok(Some(Ok(Message::Text(text)))) => obeyed(heard, text.as_str()).await,
            Ok(Some(Ok(Message::Binary(_)))) => {
                return Some(Goodbye::new(CloseCode::Unsupported, "commands are text messages"));
            }
            Ok(Some(Ok(_))) => continue,
            Ok(Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. })))) => {
                return Some(Goodbye::new(CloseCode::Size, "commands have at most 65536 bytes"));
            }
            Ok(Some(Err(Error::Protocol(_) | Error::Utf8(_)))) => {
                return Some(Goodbye::new(CloseCode::Protocol, "this is not WebSocket"));
            }
            Ok(Some(Err(_))) => return None,
        };
        if replies.send(answer).await.is_err() {
            return None;
        }
    }
}

/// Sends sound, events and answers until the stream is over or the client takes nothing any more.
async fn play(
    sink: &mut SplitSink<Socket, Message>,
    mut sound: Option<Sound>,
    mut events: Events,
    mut answers: mpsc::Receiver<Answer>,
) -> Option<Goodbye> {
    let control_only = sound.is_none();
    let mut pings = interval_at(Instant::now() + PING, PING);
    let mut eventful = true;
    while eventful || sound.is_some() {
        let message = tokio::select! {
            biased;
            Some(Answer { text, sound: other }) = answers.recv() => {
                sound = other.or(sound);
                Message::text(text.to_string())
            }
            event = events.recv(), if eventful => match event {
                Some(event) => match serde_json::to_string(&event) {
                    Ok(event) => Message::text(event),
                    Err(_) => continue,
                },
                None => { eventful = false; continue }
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
            piece = next(&mut sound), if sound.is_some() => match piece {
                Ok(Some(piece)) => Message::Binary(piece),
                Ok(None) => { sound = None; continue }
                Err(goodbye) => return Some(goodbye),
            },
        };
        let sent = tokio::select! {
            sent = timeout(STALL, sink.send(message)) => sent,
            () = given_up(sound.as_ref()) => return Some(Goodbye::too_slow()),
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some(Goodbye::new(CloseCode::Again, "nothing was taken for 30 s")),
        }
    }
    let reason = if control_only { "the stream is over" } else { "the sound is over" };
    Some(Goodbye::new(CloseCode::Normal, reason))
}

/// Completes when the station gives up whoever listens.
fn given_up(sound: Option<&Sound>) -> impl Future<Output = ()> + Send + use<> {
    match sound {
        Some(sound) => Either::Left(sound.given_up()),
        None => Either::Right(pending()),
    }
}

/// Cancel safe.
async fn next(sound: &mut Option<Sound>) -> Result<Option<Bytes>, Goodbye> {
    match sound {
        Some(sound) => sound.next().await,
        None => Ok(None),
    }
}
