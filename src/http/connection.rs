//! What a request may know of the connection that it came on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use warp::Filter;

use super::Surface;

/// In every request's extensions; a WebSocket keeps a clone, and with it the connection's place.
#[derive(Clone)]
pub(super) struct Connection {
    /// The client, or the proxy in front of us.
    pub peer: SocketAddr,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// Who alone is spoken on its port; `None` is everything.
    pub surface: Option<&'static Surface>,
    /// Cancel it to close the connection at once, whatever is in flight.
    pub close: CancellationToken,
    /// Other requests may be in flight on it (HTTP/2).
    pub multiplexed: bool,
    /// See [`Connection::may_wait`].
    pub unhurried: Arc<AtomicBool>,
    /// Set by the first request: until then the connection is on probation.
    spoken: Arc<AtomicBool>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Connection {
    pub fn new(
        (peer, local): (SocketAddr, Option<SocketAddr>),
        surface: Option<&'static Surface>,
        place: OwnedSemaphorePermit,
        close: CancellationToken,
    ) -> Self {
        Self {
            peer,
            local,
            surface,
            close,
            multiplexed: false,
            unhurried: Arc::new(AtomicBool::new(false)),
            spoken: Arc::new(AtomicBool::new(false)),
            _place: Arc::new(place),
        }
    }

    /// From now on the client may stop reading for minutes without being given up: the original's player does so.
    pub fn may_wait(&self) {
        self.unhurried.store(true, Ordering::Relaxed);
    }

    pub fn speaks(&self) {
        self.spoken.store(true, Ordering::Relaxed);
    }

    pub fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }
}

/// The connection of a request that came through the front.
pub(super) fn of_request() -> impl Filter<Extract = (Connection,), Error = warp::Rejection> + Copy {
    warp::ext::get::<Connection>()
}
