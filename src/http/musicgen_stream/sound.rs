//! From voices to the original's bytes, as fast as the client reads: 32 kHz mono in blocks of two
//! seconds.

use std::io;

use bytes::Bytes;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warp::Reply;

use super::sets::Running;
use crate::audio::{AudioError, StreamResampler, remix};
use crate::engine::{Chunk, EngineError, Read, Voice, VoiceControl, VoiceEnd};
use crate::http::HttpError;
use crate::units::{SampleRate, Samples};

/// Rate of the wire.
const RATE: SampleRate = SampleRate(32_000);
/// Samples of a block. The original's rounds are 100 tokens, two seconds.
const BLOCK: usize = 64_000;
/// How blocks become bytes.
pub(super) enum Format {
    /// Every block after its length in bytes, prompt by prompt.
    Frames,
    /// One MP3 stream that stays with each prompt for as many blocks.
    #[cfg(feature = "mp3")]
    Mp3 { encoder: Box<crate::audio::Mp3Encoder>, blocks: usize },
}

impl Format {
    /// # Errors
    /// When this build has no MP3 encoder.
    pub fn new(mp3: bool, buffer_seconds: f64) -> Result<Self, HttpError> {
        if !mp3 {
            return Ok(Self::Frames);
        }
        #[cfg(feature = "mp3")]
        {
            let encoder = crate::audio::Mp3Encoder::original();
            let encoder = encoder.map_err(|error| HttpError::NotReady(error.to_string()))?;
            let blocks = (buffer_seconds * f64::from(RATE.0) / BLOCK as f64).ceil().max(1.0) as usize;
            Ok(Self::Mp3 { encoder: Box::new(encoder), blocks })
        }
        #[cfg(not(feature = "mp3"))]
        {
            let _ = buffer_seconds;
            Err(crate::station::StationError::NotSent(crate::audio::Format::MP3).into())
        }
    }
}

impl Format {
    /// Only one voice is heard at a time; the others rest, so that a machine for one carries them
    /// all.
    pub fn takes_turns(&self) -> bool {
        !matches!(self, Self::Frames)
    }
}

/// Why no further block follows.
enum Stop {
    /// The client has gone, or the server shuts down.
    Quiet,
    /// A voice failed: the body must not look complete.
    Failed(String),
}

impl From<AudioError> for Stop {
    fn from(error: AudioError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// One prompt's voice, and what of it is ready to be sent.
pub(super) struct Track {
    voice: Voice,
    resampler: Option<StreamResampler>,
    mono: Vec<f32>,
    ready: Vec<f32>,
}

impl Track {
    pub fn new(voice: Voice) -> Self {
        Self { voice, resampler: None, mono: Vec::new(), ready: Vec::new() }
    }

    pub fn control(&self) -> VoiceControl {
        self.voice.control()
    }

    /// The next block. Takes from the voice no more than it needs, so that a change of prompt
    /// reaches the rest.
    async fn block(&mut self) -> Result<Vec<f32>, Stop> {
        while self.ready.len() < BLOCK {
            let missing = RATE.samples(1.0).0.min((BLOCK - self.ready.len()) as u64);
            let rate = self.voice.model().sample_rate;
            let wanted = Samples((missing * u64::from(rate.0)).div_ceil(u64::from(RATE.0)));
            match self.voice.read(wanted) {
                Read::Chunk(chunk) => self.take(&chunk)?,
                Read::Pending => self.voice.ready().await,
                Read::End(VoiceEnd::Failed(reason)) => return Err(Stop::Failed(reason)),
                Read::End(VoiceEnd::Finished | VoiceEnd::Stopped) => return Err(Stop::Quiet),
            }
        }
        let rest = self.ready.split_off(BLOCK);
        Ok(std::mem::replace(&mut self.ready, rest))
    }

    fn take(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        self.mono.clear();
        remix(&chunk.pcm, chunk.channels, 1, &mut self.mono);
        // The rate changes with the model.
        if self.resampler.as_ref().is_none_or(|resampler| resampler.from() != chunk.sample_rate) {
            if let Some(mut old) = self.resampler.take() {
                old.finish(&mut self.ready)?;
            }
            self.resampler = Some(StreamResampler::new(chunk.sample_rate, RATE, 1)?);
        }
        if let Some(resampler) = &mut self.resampler {
            resampler.push(&self.mono, &mut self.ready)?;
        }
        Ok(())
    }
}

/// The body: made only as far as the client reads, ended at a block's end, and gone when the client
/// is.
pub(super) fn play(tracks: Vec<Track>, format: Format, running: Running, stopping: CancellationToken) -> impl Reply {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let id = running.set.id;
        let outlet = Outlet { sender, stopping };
        let outcome = match format {
            Format::Frames => frames(tracks, &running, &outlet).await,
            #[cfg(feature = "mp3")]
            Format::Mp3 { encoder, blocks } => mp3(tracks, encoder, blocks, &running, &outlet).await,
        };
        if let Err(Stop::Failed(reason)) = outcome {
            tracing::warn!(set = id, reason, "a set of prompts broke off");
            let _ = outlet.sender.send(Err(io::Error::other(reason))).await;
        }
    });
    warp::reply::stream(poll_fn(move |context| receiver.poll_recv(context)))
}

/// Where blocks leave.
struct Outlet {
    sender: mpsc::Sender<io::Result<Bytes>>,
    stopping: CancellationToken,
}

impl Outlet {
    /// Waits until the client wants more, makes it and sends it.
    async fn send(&self, make: impl Future<Output = Result<Bytes, Stop>>) -> Result<(), Stop> {
        let place = self.sender.reserve().await.map_err(|_| Stop::Quiet)?;
        tokio::select! {
            biased;
            () = self.sender.closed() => Err(Stop::Quiet),
            () = self.stopping.cancelled() => Err(Stop::Quiet),
            bytes = make => {
                place.send(Ok(bytes?));
                Ok(())
            }
        }
    }
}

async fn frames(mut tracks: Vec<Track>, running: &Running, outlet: &Outlet) -> Result<(), Stop> {
    while !running.set.over.is_cancelled() {
        for track in &mut tracks {
            outlet.send(async { Ok(frame(&track.block().await?)) }).await?;
        }
    }
    Ok(())
}

/// Four bytes of length, then the samples, all little-endian.
fn frame(block: &[f32]) -> Bytes {
    let mut bytes = Vec::with_capacity(4 + 4 * block.len());
    bytes.extend_from_slice(&(4 * block.len() as u32).to_le_bytes());
    bytes.extend(block.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes.into()
}

/// The listener hears `blocks` of the first prompt, then of the second, ... The original collects
/// them all before it sends the first byte; here the other voices rest, and the music begins at
/// once.
#[cfg(feature = "mp3")]
async fn mp3(
    mut tracks: Vec<Track>,
    encoder: Box<crate::audio::Mp3Encoder>,
    blocks: usize,
    running: &Running,
    outlet: &Outlet,
) -> Result<(), Stop> {
    let mut encoder = Some(encoder);
    let mut awake = 0;
    let mut turns = (0..tracks.len()).cycle().flat_map(|place| std::iter::repeat_n(place, blocks));
    while !running.set.over.is_cancelled()
        && let Some(place) = turns.next()
    {
        if place != awake {
            tracks[awake].control().pause().await?;
        }
        let track = &mut tracks[place];
        let make = async {
            if place != awake {
                track.control().resume_when_free()?.admitted().await?;
                awake = place;
            }
            encode(&mut encoder, Some(track.block().await?)).await
        };
        outlet.send(make).await?;
    }
    outlet.send(encode(&mut encoder, None)).await
}

/// Encodes a block, or the end. LAME needs some tens of milliseconds for a block: too long for a
/// thread that others wait for.
#[cfg(feature = "mp3")]
async fn encode(encoder: &mut Option<Box<crate::audio::Mp3Encoder>>, block: Option<Vec<f32>>) -> Result<Bytes, Stop> {
    let Some(mut lame) = encoder.take() else { return Err(Stop::Quiet) };
    let work = move || {
        let mut bytes = Vec::new();
        let outcome = match block {
            Some(block) => lame.push(&block, &mut bytes),
            None => lame.finish(&mut bytes),
        };
        (lame, outcome.map(|()| bytes))
    };
    let (lame, bytes) = tokio::task::spawn_blocking(work).await.map_err(|error| Stop::Failed(error.to_string()))?;
    *encoder = Some(lame);
    Ok(bytes?.into())
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn a_frame_is_its_length_in_bytes_and_little_endian_floats() {
        assert_eq!(frame(&[1.0, -0.5])[..], [8, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf]);
    }
}
