//! Somebody who listens, and how near to silence he comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::cli::Failure;

/// Bytes of a WAV head, and where in it the bytes of a second are.
const HEAD: usize = 44;
const BYTE_RATE: std::ops::Range<usize> = 28..32;

/// Ends when dropped.
pub(super) struct Ear {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

/// What was heard since the last mark.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    /// The longest wait for sound.
    pub(super) silence: Duration,
    /// The least sound in store, in seconds, of a player that began with the first byte; below zero
    /// it had stopped.
    pub(super) least: f64,
    last: Instant,
}

impl Ear {
    /// Listens in WAV, of which every second has the same bytes.
    pub(super) async fn open(address: &str, path: &str) -> Result<Self, Failure> {
        let mut socket = BufReader::new(TcpStream::connect(address).await?);
        // As an old client: nothing but sound comes behind the head.
        socket.get_mut().write_all(format!("GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n").as_bytes()).await?;
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        if line.split(' ').nth(1) != Some("200") {
            return Err(Failure(format!("The server answers `{}` to {path}.", line.trim_end())));
        }
        while !line.trim_end().is_empty() {
            line.clear();
            socket.read_line(&mut line).await?;
        }
        let mut head = [0; HEAD];
        socket.read_exact(&mut head).await?;
        let rate = head[BYTE_RATE].try_into().map(u32::from_le_bytes).unwrap_or_default();
        let mut begun = Instant::now();
        let heard = Arc::new(Mutex::new(Heard { silence: Duration::ZERO, least: f64::MAX, last: begun }));
        let (told, mut bytes) = (Arc::clone(&heard), 0_u64);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read) = socket.read(&mut buffer).await {
                let now = Instant::now();
                let mut heard = lock(&told);
                heard.silence = heard.silence.max(now - heard.last);
                // The first sound is not late.
                if bytes > 0 {
                    let store = bytes as f64 / f64::from(rate) - (now - begun).as_secs_f64();
                    heard.least = heard.least.min(store);
                    // A player that has stopped goes on that much later from then on.
                    begun += Duration::from_secs_f64(-store.min(0.0));
                }
                heard.last = now;
                bytes += read as u64;
                if read == 0 {
                    return;
                }
            }
        });
        Ok(Self { heard, task })
    }

    /// From now on.
    pub(super) fn mark(&self) {
        let mut heard = lock(&self.heard);
        (heard.silence, heard.least) = (Duration::ZERO, f64::MAX);
    }

    /// Since the mark.
    ///
    /// # Errors
    /// It hears nothing more.
    pub(super) fn heard(&self) -> Result<Heard, Failure> {
        if self.task.is_finished() {
            return Err(Failure("The stream ended.".into()));
        }
        let heard = *lock(&self.heard);
        Ok(Heard { silence: heard.silence.max(heard.last.elapsed()), ..heard })
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}
