//! The accept loop and the end of it: our own, because warp's sets no timeouts, no buffers and no
//! limits.
//!
//! A stalled client holds little (small send buffer, small write buffer, and no `pipeline_flush`,
//! which would switch back-pressure off); a vanished one is noticed by TCP; one that says nothing
//! loses its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::exchange::Exchange;
use super::front::Front;
use super::places::Places;
use super::socket::Socket;
use super::{App, Port};

/// Bytes of sound that the kernel may hold for a client that does not read: seconds, not minutes,
/// of Opus.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes that hyper may hold for one connection.
const WRITE_BUFFER: usize = 64 << 10;
/// Bytes that an HTTP/2 client may send on a stream before they are read.
const STREAM_WINDOW: u32 = 256 << 10;
/// How long bytes may stay unacknowledged, or a window closed, before the connection is given up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the metrics recorder tidies its histograms, and memory of voices that have ended is
/// given back.
const UPKEEP: Duration = Duration::from_secs(5);
/// Pauses after failed accepts grow from the first to the second.
const MIN_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// Time between two lines of the log about them.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Serves until `shutdown` completes, then ends every stream with a proper last page and closes
/// within [`super::Limits::drain`] (twice that if listeners do not take their last bytes).
///
/// # Errors
/// None at present: listeners that fail are tried again.
pub async fn serve(
    app: Arc<App>,
    ports: Vec<impl Into<Port>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), io::Error> {
    let front = Front::new(Arc::clone(&app));
    let places = Places::new(app.limits.connections);
    let graceful = Arc::new(GracefulShutdown::new());
    let closing = CancellationToken::new();
    let mut accepting = JoinSet::new();
    for port in ports {
        let door = Door { front: front.clone(), app: Arc::clone(&app), places: Arc::clone(&places) };
        accepting.spawn(door.accept(port.into(), Arc::clone(&graceful), closing.clone()));
    }
    tokio::select! {
        () = shutdown => {}
        () = upkeep(&app) => {}
    }
    tracing::info!("shutting down: streams end with a proper last page");
    accepting.shutdown().await;
    app.stopping.cancel();
    app.tasks.close();
    let drain = app.limits.drain;
    // Side by side: a stuck listener must not keep the studio from writing where its clips are.
    let studio = async {
        if let Some(studio) = &app.studio {
            studio.stop().await;
        }
    };
    let ended = timeout(drain, async { tokio::join!(app.station.shutdown(), studio) });
    if ended.await.is_err() {
        tracing::warn!("some listeners did not take their last page in time");
    }
    let closed = timeout(drain, async {
        // Only the accept loops, which are over, held the other handles.
        if let Some(graceful) = Arc::into_inner(graceful) {
            graceful.shutdown().await;
        }
        app.tasks.wait().await;
    });
    if closed.await.is_err() {
        tracing::warn!("some connections were cut off");
    }
    closing.cancel();
    Ok(())
}

/// Completes when the process is asked to end from now on: Ctrl-C, or SIGTERM as service managers
/// send it. Whoever is told that a server is ready may ask it to end at once: this comes before.
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the system refuses to tell about signals.
#[cfg(unix)]
pub fn terminated() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = term.recv() => {}
        }
    })
}

/// Completes when the process is asked to end by Ctrl-C.
///
/// # Errors
/// Never here.
#[cfg(not(unix))]
pub fn terminated() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        // Where nothing can be waited for, the system ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Never ends.
async fn upkeep(app: &App) {
    let mut tick = interval(UPKEEP);
    let mut voices = 0;
    loop {
        tick.tick().await;
        let before = std::mem::replace(&mut voices, app.engine().status().voices);
        if voices < before {
            tokio::task::spawn_blocking(crate::heap::give_back);
        }
        if let Some(metrics) = &app.metrics {
            metrics.run_upkeep();
        }
    }
}

/// Where connections come in.
struct Door {
    front: Front,
    app: Arc<App>,
    places: Arc<Places>,
}

impl Door {
    /// Never ends; aborted at shutdown. Connections live on in tasks of their own, until `closing`
    /// at the latest.
    async fn accept(self, port: Port, graceful: Arc<GracefulShutdown>, closing: CancellationToken) {
        let (mut backoff, mut complained) = (MIN_BACKOFF, None::<Instant>);
        loop {
            match port.listener.accept().await {
                Ok((socket, peer)) => {
                    backoff = MIN_BACKOFF;
                    let (ends, close) = ((peer, socket.local_addr().ok()), closing.child_token());
                    let exchange = Arc::<Exchange>::default();
                    let place = self.places.enter(peer.ip(), Arc::clone(&exchange), close.clone());
                    let connection = Connection::new(ends, port.surface, place, exchange, close);
                    let (front, patience) = (self.front.clone(), self.app.limits.request);
                    tokio::spawn(converse(socket, connection, front, patience, graceful.watcher()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    let made_room = self.places.make_room();
                    if complained.is_none_or(|at| at.elapsed() >= COMPLAINTS) {
                        complained = Some(Instant::now());
                        tracing::warn!(%error, made_room, "cannot accept connections; trying again");
                    }
                    // Who makes room is gone in a moment.
                    sleep(if made_room { MIN_BACKOFF } else { backoff }).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }
}

/// Errors of a connection that died while it waited; everything else (no file handles left)
/// concerns all.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection until it closes, is closed by [`Connection::close`], or never says
/// anything.
async fn converse(socket: TcpStream, connection: Connection, front: Front, patience: Duration, watcher: Watcher) {
    let peer = connection.peer;
    let (socket, exchange) = (Arc::new(socket), Arc::clone(&connection.exchange));
    let meter = Arc::clone(&connection.meter);
    meter.of(&socket);
    if let Err(error) = tune(&socket) {
        tracing::debug!(%peer, %error, "socket options were refused");
    }
    let service = {
        let connection = connection.clone();
        service_fn(move |request: Request<Incoming>| front.clone().answer(connection.clone(), request))
    };
    let mut builder = Builder::new(TokioExecutor::new());
    // Who has left is noticed by the exchange.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(WRITE_BUFFER).half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(256)
        // What a client may send before it is asked for: on all streams together little more than
        // on one.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_send_buf_size(WRITE_BUFFER);
    let io = TokioIo::new(Socket::new(Arc::clone(&socket), Arc::clone(&exchange), meter));
    let served = builder.serve_connection_with_upgrades(io, service).into_owned();
    let mut served = std::pin::pin!(watcher.watch(served));
    // hyper's own header timeout starts only once it knows which version is spoken.
    let silent = async {
        sleep(patience).await;
        if exchange.has_spoken() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = &mut served => if let Err(error) = result {
            tracing::debug!(%peer, %error, "connection ended");
        },
        () = connection.close.cancelled() => tracing::debug!(%peer, "connection closed"),
        () = exchange.left(&socket) => tracing::debug!(%peer, "client left"),
        () = silent => tracing::debug!(%peer, "connection said nothing"),
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(socket);
    options.set_send_buffer_size(SEND_BUFFER)?;
    options.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3),
    )?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}
