//! How far a connection is with its request, and whether the client is still there.
//!
//! A client may close its sending half as soon as its request is out and wait for the answer; one
//! that leaves looks just the same, until it is sent something: then its system answers with a
//! reset. So when the end of what a client sends is seen while nothing is being sent to it, bytes
//! go out that change no answer: the beginning of the status line before the head, and zeros before
//! the length of a chunk in a body that is not finished. Clients over HTTP/1.0 have no chunks; of
//! them a quiet one is noticed when the sound goes on. Over a WebSocket the bytes are a pong that
//! nobody asked for, which clients take and leave unanswered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::BodyDataStream;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;
use warp::Reply;
use warp::reply::Response;

/// What every answer over HTTP/1 begins with.
const BEGINNING: &[u8] = b"HTTP/1.";
/// Zeros before the length of one chunk; parsers take sixteen digits.
const ZEROS: usize = 7;
/// Time until the first byte that asks whether the client is there; it doubles with every further
/// one.
const PAUSE: Duration = Duration::from_millis(250);

const IDLE: u8 = 0;
/// A handler is at work and nothing of its answer has been written.
const ASKED: u8 = 1;
/// A body of chunks is being sent.
const CHUNKS: u8 = 2;
/// It has become a WebSocket.
const SOCKET: u8 = 3;
/// The frame of a pong without content.
const PONG: [u8; 2] = [0x8a, 0];

/// Shared by a connection's socket, its requests and [`Exchange::left`].
#[derive(Default)]
pub(super) struct Exchange {
    phase: AtomicU8,
    /// Some of what was to be sent may not have been given to the system.
    unsent: AtomicBool,
    /// Bytes that were sent since the last that were to be sent: of the head or before a chunk.
    early: AtomicUsize,
    /// See [`Exchange::may_wait`].
    unhurried: AtomicBool,
    /// Set by the first request: until then the connection is on probation.
    spoken: AtomicBool,
    /// Handlers and bodies of sound and events that are at work, and sockets.
    at_work: AtomicUsize,
    /// Requests whose body is on its way.
    uploads: AtomicUsize,
    /// See [`Exchange::is_half_closed`].
    half_closed: AtomicBool,
}

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing: no request has come, or the last one is done.
    Idle,
    /// Its client sends.
    Uploads,
    /// Its client has not yet taken an answer that is there.
    Fetches,
    /// The server works for it, or its client listens.
    Works,
}

/// Counts for as long as it lives.
pub(super) struct Counted(Arc<Exchange>, fn(&Exchange) -> &AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange {
    /// From now on the client may stop reading for minutes without being given up: the original's
    /// player does so.
    pub fn may_wait(&self) {
        self.unhurried.store(true, Ordering::Relaxed);
    }

    pub fn is_unhurried(&self) -> bool {
        self.unhurried.load(Ordering::Relaxed)
    }

    pub fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    pub fn stage(&self) -> Stage {
        let has = |count: &AtomicUsize| count.load(Ordering::Relaxed) > 0;
        match (has(&self.uploads), has(&self.at_work)) {
            (true, _) => Stage::Uploads,
            (false, true) => Stage::Works,
            (false, false) if self.unsent.load(Ordering::Relaxed) => Stage::Fetches,
            (false, false) => Stage::Idle,
        }
    }

    /// The server is at work for this connection until the result is dropped.
    pub fn works(self: &Arc<Self>) -> Counted {
        self.count(|exchange| &exchange.at_work)
    }

    /// Its client sends until the result is dropped.
    pub fn uploads(self: &Arc<Self>) -> Counted {
        self.count(|exchange| &exchange.uploads)
    }

    /// It is a WebSocket from now on, which is work as long as it is open.
    pub fn upgraded(&self) {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        self.phase.store(SOCKET, Ordering::Relaxed);
    }

    pub fn is_upgraded(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == SOCKET
    }

    /// The client of a WebSocket has closed its sending half: it will never answer, and may listen.
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed)
    }

    fn count(self: &Arc<Self>, which: fn(&Exchange) -> &AtomicUsize) -> Counted {
        which(self).fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self), which)
    }

    /// A request has come; over HTTP/1 it is the only one.
    pub fn asked(&self, alone: bool) {
        self.spoken.store(true, Ordering::Relaxed);
        if alone {
            self.phase.store(ASKED, Ordering::Relaxed);
        }
    }

    /// Its answer goes out.
    pub fn answered(&self) {
        self.phase.store(IDLE, Ordering::Relaxed);
    }

    /// The same answer, with a body that counts as work until it ends; `in_chunks` is how HTTP/1.1
    /// sends it.
    pub fn watched(self: &Arc<Self>, response: Response, in_chunks: bool) -> Response {
        struct Watched(Arc<Exchange>, bool);
        impl Watched {
            fn is_in(&self, phase: u8) {
                if self.1 {
                    self.0.phase.store(phase, Ordering::Relaxed);
                }
            }
        }
        impl Drop for Watched {
            fn drop(&mut self) {
                self.is_in(IDLE);
            }
        }
        let (parts, body) = response.into_parts();
        let mut body = BodyDataStream::new(body);
        let (work, watched) = (self.works(), Watched(Arc::clone(self), in_chunks));
        let body = futures_util::stream::poll_fn(move |context| {
            let _counts = &work;
            let piece = body.poll_next_unpin(context);
            // The head is written before the body is asked for, the last chunk after it has ended.
            watched.is_in(if matches!(piece, Poll::Ready(None)) { IDLE } else { CHUNKS });
            piece
        });
        Response::from_parts(parts, warp::reply::stream(body).into_response().into_body())
    }

    /// The server writes: how many of these bytes have been sent already.
    pub fn writes(&self, bytes: &[u8]) -> usize {
        self.unsent.store(true, Ordering::Relaxed);
        let early = self.early.load(Ordering::Relaxed);
        if early > 0 && bytes.starts_with(&BEGINNING[..early.min(BEGINNING.len())]) { early } else { 0 }
    }

    /// Bytes of [`Exchange::writes`] have been written.
    pub fn wrote(&self) {
        self.early.store(0, Ordering::Relaxed);
    }

    pub fn flushed(&self) {
        self.unsent.store(false, Ordering::Relaxed);
    }

    /// Completes when the client has gone while it is being answered.
    pub async fn left(&self, tcp: &TcpStream) {
        loop {
            let Ok(ready) = tcp.ready(Interest::READABLE | Interest::ERROR).await else { return };
            if ready.is_error() {
                return;
            }
            if ready.is_read_closed() {
                break;
            }
            // There are bytes that the server has yet to take.
            sleep(PAUSE).await;
        }
        let mut pause = PAUSE;
        loop {
            tokio::select! {
                _ = tcp.ready(Interest::ERROR) => return,
                () = sleep(pause) => {}
            }
            pause = match self.next_byte() {
                None => PAUSE,
                Some(byte) => match tcp.try_write(&[byte]) {
                    Ok(_) => {
                        self.early.fetch_add(1, Ordering::Relaxed);
                        pause * 2
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => PAUSE,
                    Err(_) => return,
                },
            };
        }
    }

    /// Completes when the client of a WebSocket that has closed its sending half has gone.
    pub async fn hung_up(&self, tcp: &TcpStream) {
        self.half_closed.store(true, Ordering::Relaxed);
        loop {
            tokio::select! {
                _ = tcp.ready(Interest::ERROR) => return,
                () = sleep(PAUSE) => {}
            }
            // Between two frames, or what asks would be part of one.
            if self.unsent.load(Ordering::Relaxed) {
                continue;
            }
            match tcp.try_write(&PONG) {
                Ok(written) if written == PONG.len() => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    fn next_byte(&self) -> Option<u8> {
        let early = self.early.load(Ordering::Relaxed);
        if self.unsent.load(Ordering::Relaxed) {
            return None;
        }
        match self.phase.load(Ordering::Relaxed) {
            ASKED => BEGINNING.get(early).copied(),
            CHUNKS => (early < ZEROS).then_some(b'0'),
            _ => None,
        }
    }
}
