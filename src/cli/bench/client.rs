//! As much of an HTTP client as measuring takes: one connection, one request at a time.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::cli::Failure;

pub(super) struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    /// Connects to `host:port`.
    pub(super) async fn open(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket: BufReader::new(socket) })
    }

    /// The body of an answer that has a length.
    pub(super) async fn get(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        let length = self.ask(path).await?.ok_or_else(|| Failure(format!("{path} has no length.")))?;
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await?;
        Ok(body)
    }

    /// Returns as soon as so many bytes of an answer without end have come.
    pub(super) async fn hear(&mut self, path: &str, bytes: usize) -> Result<(), Failure> {
        self.ask(path).await?;
        let mut body = vec![0; bytes];
        self.socket.read_exact(&mut body).await?;
        Ok(())
    }

    /// Sends a request and reads the head of its answer; gives the length of its body.
    async fn ask(&mut self, path: &str) -> Result<Option<usize>, Failure> {
        self.socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes()).await?;
        let (mut length, mut line) = (None, String::new());
        self.socket.read_line(&mut line).await?;
        if line.split(' ').nth(1) != Some("200") {
            return Err(Failure(format!("The server answers `{}` to {path}.", line.trim_end())));
        }
        loop {
            line.clear();
            self.socket.read_line(&mut line).await?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok()
                }
                Some(_) => {}
                None => return Ok(length),
            }
        }
    }
}
