//! What a decoding process says: blocks of PCM behind a small head each, and how it ended.

use std::io::Write;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::ChildStdout;

use super::{Failed, silence};
use crate::audio::{AudioError, MAX_SECONDS, Parts, PcmSpec, Trust};

/// Kind, rate, channels, and how many samples (of a block) or bytes (of a sentence) follow.
const HEAD: usize = 16;
/// Samples of a block at most.
const BLOCK: usize = 16 << 10;

const PCM: u32 = 0;
const WHOLE: u32 = 1;
const DOUBTFUL: u32 = 2;
const UNREADABLE: u32 = 3;
const SILENT: u32 = 4;
const TOO_LONG: u32 = 5;

/// The process's side.
pub(super) struct Writer<W> {
    out: W,
    spec: PcmSpec,
    pcm: Vec<f32>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, spec: PcmSpec { rate: 0, channels: 0 }, pcm: Vec::with_capacity(BLOCK) }
    }

    /// Adds PCM; writes whenever a block is full.
    pub(super) fn push(&mut self, spec: PcmSpec, mut pcm: &[f32]) -> std::io::Result<()> {
        if spec != self.spec {
            self.flush()?;
            self.spec = spec;
        }
        let most = BLOCK - BLOCK % spec.channels;
        while !pcm.is_empty() {
            let (now, rest) = pcm.split_at(pcm.len().min(most - self.pcm.len()));
            self.pcm.extend_from_slice(now);
            pcm = rest;
            if self.pcm.len() == most {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.pcm.is_empty() {
            return Ok(());
        }
        let mut bytes = head(PCM, self.spec, self.pcm.len());
        bytes.extend(self.pcm.drain(..).flat_map(f32::to_le_bytes));
        self.out.write_all(&bytes)
    }

    /// Says how it ended.
    pub(super) fn end(mut self, end: Result<Trust, AudioError>) -> std::io::Result<()> {
        self.flush()?;
        let (kind, text) = match end {
            Ok(Trust::Whole) => (WHOLE, String::new()),
            Ok(Trust::Doubtful) => (DOUBTFUL, String::new()),
            Err(AudioError::Silent) => (SILENT, String::new()),
            Err(AudioError::TooLong { .. }) => (TOO_LONG, String::new()),
            Err(AudioError::Unreadable(reason)) => (UNREADABLE, reason),
            Err(error) => (UNREADABLE, error.to_string()),
        };
        let mut bytes = head(kind, self.spec, text.len());
        bytes.extend(text.into_bytes());
        self.out.write_all(&bytes)?;
        self.out.flush()
    }
}

fn head(kind: u32, spec: PcmSpec, count: usize) -> Vec<u8> {
    [kind, spec.rate, spec.channels as u32, count as u32].into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The server's side: everything until the process says how it ended. The process may be in an
/// attacker's hands.
pub(super) async fn read(out: ChildStdout, parts: &mut Parts) -> Result<Trust, Failed> {
    let mut out = BufReader::with_capacity(64 << 10, out);
    let (mut bytes, mut pcm) = (Vec::new(), Vec::new());
    loop {
        let mut fields = [0; HEAD / 4];
        for field in &mut fields {
            *field = out.read_u32_le().await.map_err(|_| silence())?;
        }
        let [kind, rate, channels, count] = fields;
        let size = count as usize * if kind == PCM { 4 } else { 1 };
        if size > 4 * BLOCK {
            return Err(silence());
        }
        bytes.resize(size, 0);
        out.read_exact(&mut bytes).await.map_err(|_| silence())?;
        let error = match kind {
            PCM if channels > 0 && rate > 0 => {
                let (samples, _) = bytes.as_chunks();
                pcm.clear();
                pcm.extend(samples.iter().map(|&sample| f32::from_le_bytes(sample)));
                let spec = PcmSpec { rate, channels: channels as usize };
                parts.push(spec, &pcm).map_err(Failed::Anywhere)?;
                continue;
            }
            WHOLE => return Ok(Trust::Whole),
            DOUBTFUL => return Ok(Trust::Doubtful),
            SILENT => AudioError::Silent,
            TOO_LONG => return Err(Failed::Anywhere(AudioError::TooLong { seconds: MAX_SECONDS })),
            UNREADABLE => AudioError::Unreadable(String::from_utf8_lossy(&bytes).into_owned()),
            _ => return Err(silence()),
        };
        return Err(Failed::Here(error));
    }
}
