//! What a request may know of the connection that it came on.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use warp::Filter;

use super::Surface;
use super::exchange::Exchange;
use super::meter::Meter;
use super::places::Place;

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
    /// How far it is with its request.
    pub exchange: Arc<Exchange>,
    /// Counts what goes over it.
    pub meter: Arc<Meter>,
    pub place: Arc<Place>,
}

impl Connection {
    pub fn new(
        (peer, local): (SocketAddr, Option<SocketAddr>),
        surface: Option<&'static Surface>,
        place: Place,
        exchange: Arc<Exchange>,
        close: CancellationToken,
    ) -> Self {
        let meter = Arc::default();
        Self { peer, local, surface, close, multiplexed: false, exchange, meter, place: Arc::new(place) }
    }
}

/// The connection of a request that came through the front.
pub(super) fn of_request() -> impl Filter<Extract = (Connection,), Error = warp::Rejection> + Copy {
    warp::ext::get::<Connection>()
}
