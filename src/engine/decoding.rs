//! Codes that were heard into sound again, on the engine's thread: a job that gives way to the
//! voices there.

use std::panic::AssertUnwindSafe;

use tokio::sync::oneshot;

use super::jobs::AnyJob;
use super::loaded_model::LoadedModel;
use super::{CodecState, Decode, Engine, EngineError, Fault, Lost};

/// Frames of a step: half a second of most codecs.
const STEP: usize = 25;

/// A codec decoder of one's own. It works with any loaded model that understands the same codes.
pub struct Decoding {
    engine: Engine,
    fingerprint: u64,
    /// `None` before the first codes, and while they are being decoded.
    state: Option<Box<dyn CodecState>>,
    begun: bool,
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
        if std::mem::replace(&mut self.begun, true) && self.state.is_none() {
            return Err(EngineError::Failed("this sound could not be decoded up to here".into()));
        }
        let (reply, answer) = oneshot::channel();
        let work = Work {
            fingerprint: self.fingerprint,
            state: self.state.take(),
            codes,
            done: 0,
            last,
            pcm: Vec::new(),
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
    state: Option<Box<dyn CodecState>>,
    codes: Vec<u32>,
    /// Codes that were decoded.
    done: usize,
    last: bool,
    pcm: Vec<f32>,
    reply: Option<oneshot::Sender<Answer>>,
}

impl Work {
    /// Decodes a step; the end of it, if that was the last one.
    fn decode(&mut self, models: &mut [LoadedModel]) -> Result<bool, EngineError> {
        let model = models.iter_mut().find(|model| model.info.codec_fingerprint == self.fingerprint);
        let unknown = "the model that played this is not loaded any more, nor is another one with its codec";
        let model = model.ok_or_else(|| EngineError::Failed(unknown.into()))?;
        let state = self.state.get_or_insert_with(|| model.backend.codec_state());
        let end = self.codes.len().min(self.done + STEP * model.info.codebooks);
        let last = self.last && end == self.codes.len();
        let mut pass = [Decode { state: state.as_mut(), codes: &self.codes[self.done..end], last }];
        let decoded = model.backend.decode(&mut pass).map_err(|Lost(reason)| EngineError::DeviceLost(reason))?;
        let pcm = decoded.into_iter().next().unwrap_or_else(|| Err(Fault("the codec gave nothing".into())));
        self.pcm.append(&mut pcm.map_err(|Fault(reason)| EngineError::Failed(reason))?);
        self.done = end;
        Ok(end == self.codes.len())
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
                let pcm = std::mem::take(&mut self.pcm);
                let state = self.state.take().ok_or_else(|| EngineError::Failed("the codec has no state".into()));
                self.answer(state.map(|state| (state, pcm)));
            }
            Err(error) => self.answer(Err(error)),
        }
        false
    }

    fn refuse(&mut self, error: EngineError) {
        self.answer(Err(error));
    }
}
