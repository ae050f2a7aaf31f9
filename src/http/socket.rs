//! A client's socket whose patience can change: most clients that stop reading are given up, some may take their time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP stream that looks at its connection's wish before it writes.
pub(super) struct Socket {
    tcp: TcpStream,
    /// The client may leave bytes unread for as long as it likes; set while it is served.
    unhurried: Arc<AtomicBool>,
    done: bool,
}

impl Socket {
    pub fn new(tcp: TcpStream, unhurried: Arc<AtomicBool>) -> Self {
        Self { tcp, unhurried, done: false }
    }

    /// Takes back TCP_USER_TIMEOUT, which counts a closed window as silence. A client that has gone without a word is
    /// then noticed by the kernel's own, longer time.
    fn attend(&mut self) {
        if self.done || !self.unhurried.load(Ordering::Relaxed) {
            return;
        }
        self.done = true;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Err(error) = socket2::SockRef::from(&self.tcp).set_tcp_user_timeout(None) {
            tracing::debug!(%error, "the socket keeps its time limit");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.attend();
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.attend();
        Pin::new(&mut self.tcp).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use socket2::SockRef;
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
        let unhurried = Arc::new(AtomicBool::new(false));
        let mut socket = Socket::new(tcp, Arc::clone(&unhurried));
        socket.write_all(b"head").await.unwrap();
        assert_eq!(SockRef::from(&socket.tcp).tcp_user_timeout().unwrap(), limit);
        unhurried.store(true, Ordering::Relaxed);
        socket.write_all(b"body").await.unwrap();
        assert_eq!(SockRef::from(&socket.tcp).tcp_user_timeout().unwrap(), None);
    }
}
