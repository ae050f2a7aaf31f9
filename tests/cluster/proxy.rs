//! A line to a NATS server that can be cut without either end being told.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub addr: SocketAddr,
    passes: watch::Sender<bool>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (passes, line) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, line.clone()));
                tokio::spawn(pass(far_in, near_out, line.clone()));
            }
        });
        Self { addr, passes }
    }

    /// Nothing passes any more.
    pub fn cut(&self) {
        self.passes.send_replace(false);
    }

    /// All that has gathered passes, and what follows.
    pub fn heal(&self) {
        self.passes.send_replace(true);
    }

    /// As `--cluster` takes it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if line.wait_for(|passes| *passes).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
