//! Codes that were heard into sound again, on the engine's thread: a job that gives way to the
//! voices there.

use std::ops::Range;
use std::panic::AssertUnwindSafe;

use tokio::sync::oneshot;

use super::jobs::AnyJob;
use super::loaded_model::LoadedModel;
use super::{CodecState, Decode, Engine, EngineError, Fault, Lost};

/// Frames of a step, of all parts together: half a second of most codecs.
const STEP: usize = 25;
/// Of a part in a step at least: below, what a step costs by itself is felt.
const LEAST: usize = 10;

/// A codec decoder of one's own. It works with any loaded model that understands the same codes.
pub struct Decoding {
    engine: Engine,
    fingerprint: u64,
    /// `None` before the first codes, and while they are being decoded.
    state: Option<Box<dyn CodecState>>,
    begun: bool,
}

/// How a long row of frames is cut up.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// How many of about equal length.
    pub count: usize,
    /// Frames that all parts but the first hear ahead of them, no fewer than the codec's
    /// look-ahead.
    pub warm_up: usize,
}

impl Parts {
    const ONE: Self = Self { count: 1, warm_up: 0 };
}

impl Decoding {
    pub(super) fn new(engine: Engine, fingerprint: u64) -> Self {
        Self { engine, fingerprint, state: None, begun: false }
    }

    /// Takes the next frames `[frames][codebooks]`, flattened, and gives the interleaved sound that
    /// became final: that of all frames so far but the codec's look-ahead, and of these too after
    /// the `last` ones.
    ///
    /// # Errors
    /// [`EngineError::Failed`] when no model is loaded that understands the codes, or it fails over
    /// them.
    pub async fn push(&mut self, codes: Vec<u32>, last: bool) -> Result<Vec<f32>, EngineError> {
        self.decode(codes, Parts::ONE, last).await
    }

    /// As [`Decoding::push`], with the frames in parts that are decoded side by side: the codec's
    /// recurrent weights, more than a processor's cache holds, are then read once for all parts. A
    /// part begins as exactly as what it hears ahead of it makes it.
    ///
    /// # Errors
    /// As [`Decoding::push`].
    pub async fn push_in_parts(&mut self, codes: Vec<u32>, parts: Parts) -> Result<Vec<f32>, EngineError> {
        self.decode(codes, parts, false).await
    }

    async fn decode(&mut self, codes: Vec<u32>, parts: Parts, last: bool) -> Result<Vec<f32>, EngineError> {
        if std::mem::replace(&mut self.begun, true) && self.state.is_none() {
            return Err(EngineError::Failed("this sound could not be decoded up to here".into()));
        }
        let (reply, answer) = oneshot::channel();
        let work = Work {
            fingerprint: self.fingerprint,
            state: self.state.take(),
            codes,
            parts,
            tracks: Vec::new(),
            last,
            reply: Some(reply),
        };
        self.engine.submit_any(Box::new(work));
        let stopped = |_| EngineError::Gone("the engine has stopped".into());
        let (state, pcm) = answer.await.map_err(stopped)??;
        self.state = Some(state);
        Ok(pcm)
    }
}

type Answer = Result<(Box<dyn CodecState>, Vec<f32>), EngineError>;

struct Work {
    fingerprint: u64,
    /// What the first part goes on from.
    state: Option<Box<dyn CodecState>>,
    codes: Vec<u32>,
    parts: Parts,
    /// The parts, as soon as the model is known.
    tracks: Vec<Track>,
    last: bool,
    reply: Option<oneshot::Sender<Answer>>,
}

/// A part on its way.
struct Track {
    state: Box<dyn CodecState>,
    /// Frames that are still to be decoded.
    left: Range<usize>,
    /// Values of its sound that only lead to it.
    early: usize,
    pcm: Vec<f32>,
}

impl Work {
    fn begin(&mut self, model: &LoadedModel) {
        let info = &model.info;
        let frames = self.codes.len() / info.codebooks;
        let warm_up = self.parts.warm_up.max(info.lookahead);
        // A part that is shorter than what leads to it is not worth its own.
        let count = self.parts.count.min(frames / (warm_up + 1)).max(1);
        let mut first = self.state.take();
        self.tracks = (0..count)
            .map(|part| {
                let (from, to) = (part * frames / count, (part + 1) * frames / count);
                let before = if part == 0 { 0 } else { warm_up };
                Track {
                    state: first.take().unwrap_or_else(|| model.backend.codec_state()),
                    left: from - before..to,
                    // It owes the look-ahead, which the part before it leaves to it.
                    early: before.saturating_sub(info.lookahead) * info.hop * info.channels,
                    pcm: Vec::new(),
                }
            })
            .collect();
    }

    /// Decodes a step; whether that was the last one.
    fn decode(&mut self, models: &mut [LoadedModel]) -> Result<bool, EngineError> {
        let model = models.iter_mut().find(|model| model.info.codec_fingerprint == self.fingerprint);
        let unknown = "the model that played this is not loaded any more, nor is another one with its codec";
        let model = model.ok_or_else(|| EngineError::Failed(unknown.into()))?;
        if self.tracks.is_empty() {
            self.begin(model);
        }
        // All end together: those with most to do go first, until the others are as far.
        let most = self.tracks.iter().map(|track| track.left.len()).max().unwrap_or(0);
        let next = self.tracks.iter().map(|track| track.left.len()).filter(|&left| left < most).max();
        let together = self.tracks.iter().filter(|track| track.left.len() == most).count();
        let step = (STEP / together.max(1)).max(LEAST).min(most - next.unwrap_or(0));
        let last = self.last && step == most;
        let books = model.info.codebooks;
        let (mut pass, mut sounds) = (Vec::with_capacity(together), Vec::with_capacity(together));
        for Track { state, left, early, pcm } in self.tracks.iter_mut().filter(|track| track.left.len() == most) {
            let codes = &self.codes[left.start * books..(left.start + step) * books];
            left.start += step;
            pass.push(Decode { state: state.as_mut(), codes, last });
            sounds.push((early, pcm));
        }
        let decoded = model.backend.decode(&mut pass).map_err(|Lost(reason)| EngineError::DeviceLost(reason))?;
        for ((early, pcm), sound) in sounds.into_iter().zip(decoded) {
            let sound = sound.map_err(|Fault(reason)| EngineError::Failed(reason))?;
            let known = (*early).min(sound.len());
            *early -= known;
            pcm.extend_from_slice(&sound[known..]);
        }
        Ok(step == most)
    }

    /// The sound of all parts, and where the last one stands.
    fn end(&mut self) -> Answer {
        let pcm = self.tracks.iter_mut().flat_map(|track| std::mem::take(&mut track.pcm)).collect();
        let last = self.tracks.pop().ok_or_else(|| EngineError::Failed("the codec has no state".into()))?;
        Ok((last.state, pcm))
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            // Who asked may have gone.
            let _ = reply.send(answer);
        }
    }
}

impl AnyJob for Work {
    fn step(&mut self, models: &mut [LoadedModel]) -> bool {
        if self.reply.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return false;
        }
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| self.decode(models)));
        let stumbled = |_| Err(EngineError::Failed("the codec stumbled; the server's log says where".into()));
        match decoded.unwrap_or_else(stumbled) {
            Ok(false) => return true,
            Ok(true) => {
                let end = self.end();
                self.answer(end);
            }
            Err(error) => self.answer(Err(error)),
        }
        false
    }

    fn refuse(&mut self, error: EngineError) {
        self.answer(Err(error));
    }
}
