//! A client's socket: what it writes is told to the connection's [`Exchange`], and its patience can
//! change. Most clients that stop reading are given up, some may take their time. A WebSocket has
//! no end before its client has left: what reads it would write no more.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::exchange::Exchange;
use super::meter::Meter;

/// A TCP stream that looks at its connection's wish before it writes.
pub(super) struct Socket {
    /// Shared with who watches whether the client is there.
    tcp: Arc<TcpStream>,
    exchange: Arc<Exchange>,
    meter: Arc<Meter>,
    /// The client may leave bytes unread for as long as it likes.
    is_patient: bool,
    /// Watches a client that has closed its sending half.
    hung_up: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Socket {
    pub fn new(tcp: Arc<TcpStream>, exchange: Arc<Exchange>, meter: Arc<Meter>) -> Self {
        Self { tcp, exchange, meter, is_patient: false, hung_up: None }
    }

    /// Takes back TCP_USER_TIMEOUT, which counts a closed window as silence. A client that has gone
    /// without a word is then noticed by the kernel's own, longer time.
    fn attend(&mut self) {
        if self.is_patient || !self.exchange.is_unhurried() {
            return;
        }
        self.is_patient = true;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Err(error) = SockRef::from(&*self.tcp).set_tcp_user_timeout(None) {
            tracing::debug!(%error, "the socket keeps its time limit");
        }
    }

    /// Nothing more will be read; completes when nothing more can be written either.
    fn half_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (tcp, exchange) = (&self.tcp, &self.exchange);
        let hung_up = self.hung_up.get_or_insert_with(|| {
            let (tcp, exchange) = (Arc::clone(tcp), Arc::clone(exchange));
            Box::pin(async move { exchange.hung_up(&tcp).await })
        });
        ready!(hung_up.as_mut().poll(context));
        self.hung_up = None;
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Writes what the exchange has not sent early.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        first: &[u8],
        write: impl Fn(&TcpStream, usize) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.attend();
        let early = self.exchange.writes(first);
        loop {
            ready!(self.tcp.poll_write_ready(context))?;
            match write(&self.tcp, early) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(written) => {
                    self.exchange.wrote();
                    self.meter.wrote(written);
                    return Poll::Ready(Ok(early + written));
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(context))?;
            match self.tcp.try_read_buf(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) if self.exchange.is_upgraded() && into.remaining() > 0 => return self.half_closed(context),
                read => return Poll::Ready(read.and_then(|bytes| self.meter.read(bytes))),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(context, bytes, |tcp, early| tcp.try_write(&bytes[early..]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        self.write(context, first, |tcp, early| match early {
            0 => tcp.try_write_vectored(parts),
            early => tcp.try_write(&first[early..]),
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is with the system.
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.tcp).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_time_limit_is_taken_back_when_the_client_may_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let limit = Some(Duration::from_secs(30));
        SockRef::from(&tcp).set_tcp_user_timeout(limit).unwrap();
        let exchange = Arc::new(Exchange::default());
        let mut socket = Socket::new(Arc::new(tcp), Arc::clone(&exchange), Arc::default());
        socket.write_all(b"head").await.unwrap();
        assert_eq!(SockRef::from(&*socket.tcp).tcp_user_timeout().unwrap(), limit);
        exchange.may_wait();
        socket.write_all(b"body").await.unwrap();
        assert_eq!(SockRef::from(&*socket.tcp).tcp_user_timeout().unwrap(), None);
    }
}
