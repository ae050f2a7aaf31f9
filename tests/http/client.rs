//! A small HTTP/1.1 client over a plain socket, so that every byte on the wire is ours to send and
//! to see.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer than this unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A response whose body has not been read yet.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    socket: BufReader<TcpStream>,
    /// Bytes of the present chunk that are still to be read.
    chunk_left: usize,
    over: bool,
}

/// Sends `head` (request line and headers, lines ended by `\n` here) and `body` as they are.
pub async fn send(addr: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let head = format!("{}\r\nHost: test\r\n\r\n", head.trim_end().replace('\n', "\r\n"));
    socket.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses a body may hang up before it is all sent.
    let _ = socket.write_all(body).await;
    answer(socket).await
}

/// Sends bytes as they are.
pub async fn raw(addr: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let _ = socket.write_all(request).await;
    answer(socket).await
}

/// Reads the head of a response.
pub async fn answer(socket: TcpStream) -> Answer {
    timeout(PATIENCE, async {
        let mut socket = BufReader::new(socket);
        let status_line = line(&mut socket).await.expect("a status line");
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line(&mut socket).await.unwrap();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Answer { status, headers, socket, chunk_left: 0, over: false }
    })
    .await
    .expect("the server answers in time")
}

pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    send(addr, &format!("GET {path} HTTP/1.1"), b"").await
}

/// A request with a JSON body, sent as curl's `-d` would: under a form's Content-Type.
pub async fn call(addr: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\nContent-Type: application/x-www-form-urlencoded\nContent-Length: {}",
        body.len()
    );
    send(addr, &head, body.as_bytes()).await
}

async fn line(socket: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    (socket.read_line(&mut line).await.unwrap() > 0).then(|| line.trim_end().to_owned())
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    /// The next piece of the body; `None` at its proper end.
    pub async fn piece(&mut self) -> Option<Vec<u8>> {
        timeout(PATIENCE, self.next_piece()).await.expect("the body goes on in time")
    }

    async fn next_piece(&mut self) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        let chunked = self.header("transfer-encoding") == Some("chunked");
        if chunked && self.chunk_left == 0 {
            let size = line(&mut self.socket).await.expect("a chunk or the last chunk");
            self.chunk_left = usize::from_str_radix(&size, 16).unwrap();
            if self.chunk_left == 0 {
                line(&mut self.socket).await;
                self.over = true;
                return None;
            }
        }
        let length = match self.header("content-length") {
            Some(length) if !chunked => length.parse().unwrap(),
            _ => self.chunk_left,
        };
        let mut piece = vec![0; length];
        self.socket.read_exact(&mut piece).await.expect("the body is not cut off");
        if chunked {
            self.chunk_left = 0;
            line(&mut self.socket).await;
        } else {
            self.over = true;
        }
        (length > 0).then_some(piece)
    }

    /// The whole body, to its proper end.
    pub async fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await {
            body.extend_from_slice(&piece);
        }
        body
    }

    /// At least `enough` bytes of an endless body.
    pub async fn some(&mut self, enough: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < enough {
            body.extend_from_slice(&self.piece().await.expect("an endless body goes on"));
        }
        body
    }

    pub async fn text(&mut self) -> String {
        String::from_utf8(self.body().await).unwrap()
    }

    pub async fn json(&mut self) -> Value {
        let body = self.body().await;
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)))
    }

    /// Checks that this is an error as RFC 9457 wants it, and gives its sentence.
    pub async fn problem(&mut self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let status = self.status;
        let problem = self.json().await;
        assert_eq!(problem["status"], status);
        assert!(problem["type"].is_string() && problem["title"].is_string());
        problem["detail"].as_str().unwrap().to_owned()
    }

    /// Whether the server has closed the connection.
    pub async fn closed(&mut self) -> bool {
        let mut rest = [0; 1];
        matches!(timeout(PATIENCE, self.socket.read(&mut rest)).await, Ok(Ok(0) | Err(_)))
    }
}
