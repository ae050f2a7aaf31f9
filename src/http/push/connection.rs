//! What a source client says to an Icecast server: `PUT` with sound without end, and titles beside
//! it.
//!
//! The sound has no length and comes in no chunks, which no HTTP client sends and Icecast expects.

use std::io;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Push, PushError, tls};

/// Time for a server to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for it to take what it is sent.
const STUCK: Duration = Duration::from_secs(30);
/// Bytes of an answer's head at most.
const HEAD: u64 = 16 << 10;

/// A connection, encrypted or not.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Answers = BufReader<ReadHalf<Box<dyn Wire>>>;
type Requests = WriteHalf<Box<dyn Wire>>;

/// A connection that carries a station's sound.
pub(super) struct Source {
    answers: Answers,
    sound: Requests,
}

impl Source {
    /// Asks a server to take sound.
    pub(super) async fn open(push: &Push) -> Result<Self, PushError> {
        let about: String = push.about.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let kind = push.listen.format.media_type();
        let head = format!("PUT {} HTTP/1.1\r\nContent-Type: {kind}\r\nExpect: 100-continue\r\n{about}", push.mount);
        let (answers, sound) = ask(push, &head).await?;
        Ok(Self { answers, sound })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        let sent = async {
            self.sound.write_all(bytes).await?;
            self.sound.flush().await
        };
        match timeout(STUCK, sent).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(PushError::Stuck),
        }
    }

    /// Completes when the server has closed the connection. Cancel safe.
    pub(super) async fn hung_up(&mut self) -> PushError {
        // Servers that were expected to say 100 say 200 too, some day.
        let mut said = [0; 512];
        loop {
            match self.answers.read(&mut said).await {
                Ok(0) => return PushError::HungUp,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    }
}

/// Tells a server what plays.
pub(super) async fn tell_title(push: &Push, title: &str) -> Result<(), PushError> {
    let pairs = [("mode", "updinfo"), ("mount", push.mount.as_str()), ("charset", "UTF-8"), ("song", title)];
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    ask(push, &format!("GET /admin/metadata?{query} HTTP/1.1\r\nConnection: close\r\n")).await.map(drop)
}

async fn connect(push: &Push) -> io::Result<Box<dyn Wire>> {
    let socket = TcpStream::connect((push.host.as_str(), push.port)).await?;
    socket.set_nodelay(true)?;
    match push.encrypted {
        true => Ok(Box::new(tls::connect(&push.host, push.ca.as_deref(), socket).await?)),
        false => Ok(Box::new(socket)),
    }
}

/// Sends the head of a request, to which who we are is added, and reads that of the answer.
async fn ask(push: &Push, head: &str) -> Result<(Answers, Requests), PushError> {
    let asked = async {
        let (answers, mut requests) = split(connect(push).await?);
        let (host, port, version) = (&push.host, push.port, env!("CARGO_PKG_VERSION"));
        let us =
            format!("Host: {host}:{port}\r\nUser-Agent: continuo/{version}\r\nAuthorization: {}", push.authorization);
        requests.write_all(format!("{head}{us}\r\n\r\n").as_bytes()).await?;
        requests.flush().await?;
        let mut answers = BufReader::new(answers);
        let status = status(&mut answers).await?;
        Ok((answers, requests, status))
    };
    let asked: io::Result<_> = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (answers, requests, status) = asked?;
    match status.split(' ').next() {
        Some("100" | "200") => Ok((answers, requests)),
        _ => Err(PushError::Refused(status)),
    }
}

/// The status of an answer and its reason, as in `200 OK`.
async fn status(answers: &mut Answers) -> io::Result<String> {
    let (mut lines, mut status) = (answers.take(HEAD).lines(), None);
    while let Some(line) = lines.next_line().await? {
        if line.is_empty() {
            break;
        }
        status
            .get_or_insert_with(|| line.split_once(' ').map_or(String::new(), |(_, status)| status.trim().to_owned()));
    }
    status.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
