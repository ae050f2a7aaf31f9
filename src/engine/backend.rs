//! What the engine asks of a model, free of tensors: the seam at which a stand-in replaces the real
//! thing.
//!
//! A backend generates *columns* of the delay pattern. Column 0 is the start column (every id is
//! the pad id); column `c` holds, for codebook `k`, the code of frame `c - 1 - delay[k]`, or the
//! pad id outside the voice.

use std::sync::Arc;

use super::{DeviceKind, Sampling};
use crate::units::{ModelId, SampleRate, WeightFormat};

/// Fixed facts of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Its name in requests.
    pub id: ModelId,
    /// One line for people: family, size, dtype, device.
    pub description: String,
    /// Where it computes.
    pub device: DeviceKind,
    /// How its decoder's weights are kept.
    pub format: WeightFormat,
    /// PCM rate of the codec.
    pub sample_rate: SampleRate,
    /// 1 or 2.
    pub channels: usize,
    /// PCM samples per channel and frame.
    pub hop: usize,
    /// Rows of a column.
    pub codebooks: usize,
    /// Codes per codebook; also the pad id.
    pub card: u32,
    /// Delay of every codebook, in columns.
    pub delays: Vec<usize>,
    /// Positions that the decoder was trained on: the window is full at this many columns.
    pub window: usize,
    /// Frames kept when a full window is prefilled again.
    pub keep: usize,
    /// Frames after `f` that the codec needs before it can emit frame `f`.
    pub lookahead: usize,
    /// Sampling defaults of the checkpoint (its seed is not used).
    pub sampling: Sampling,
    /// Memory that it takes: its weights, and keys and values for a few voices.
    pub bytes: u64,
    /// Equal for models whose codes mean the same sound, so that a voice can move between them.
    pub codec_fingerprint: u64,
}

impl ModelInfo {
    /// Frames per second.
    pub fn frame_rate(&self) -> f64 {
        f64::from(self.sample_rate.0) / self.hop as f64
    }

    /// The largest delay of a codebook, in columns.
    pub fn max_delay(&self) -> usize {
        self.delays.iter().copied().max().unwrap_or(0)
    }
}

/// A text made ready for the decoder by [`Conditioner::condition`]; opaque to the engine, cheap to
/// share.
pub type Condition = Arc<dyn std::any::Any + Send + Sync>;

/// One part of a blend: a prepared, non-empty text and its share (shares of a voice sum to 1). A
/// voice whose blend is the empty slice has no description: it runs on its unconditional row alone,
/// without guidance.
#[derive(Clone)]
pub struct Blend {
    /// From [`Conditioner::condition`].
    pub condition: Condition,
    /// Share of this part, above 0.
    pub share: f32,
}

/// A place in the KV pool for one voice (its conditional and its unconditional row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// One voice's part of a step: feed `ids` at `position`, get the next column.
pub struct StepRow<'a> {
    /// Where its keys and values live.
    pub slot: Slot,
    /// Position of `ids` in the window: everything at and after it is overwritten.
    pub position: usize,
    /// The column to feed, `codebooks` ids.
    pub ids: &'a [u32],
    /// What it is conditioned on.
    pub blend: &'a [Blend],
    /// How to choose codes.
    pub sampling: Sampling,
    /// Index of the random draw: with the seed it fixes the outcome, whoever else is in the batch.
    pub draw: u64,
}

/// One voice's columns to be read without sampling.
pub struct Prefill<'a> {
    /// Where its keys and values live.
    pub slot: Slot,
    /// Position of the first column.
    pub position: usize,
    /// `[columns][codebooks]` ids, flattened.
    pub ids: &'a [u32],
    /// What it is conditioned on.
    pub blend: &'a [Blend],
    /// Guidance scale: with 1 the unconditional row is not needed.
    pub guidance: f32,
}

/// Why one voice's part of a batch failed; the other voices are not affected.
#[derive(Debug, Clone)]
pub struct Fault(pub String);

/// The whole device failed; no voice can go on.
#[derive(Debug, Clone)]
pub struct Lost(pub String);

/// State of one voice's streaming codec decoder: a snapshot is a clone.
pub trait CodecState: Send {
    /// A copy to return to when the voice is rewound.
    fn snapshot(&self) -> Box<dyn CodecState>;
    /// For the backend that made it.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// One voice's part of a codec pass.
pub struct Decode<'a> {
    /// The voice's decoder state, advanced by the call.
    pub state: &'a mut dyn CodecState,
    /// `[frames][codebooks]` codes, flattened.
    pub codes: &'a [u32],
    /// No frame follows: flush what the look-ahead held back.
    pub last: bool,
}

/// Sound to codes, beside the engine's thread: a clip's prompt must not make a stream wait.
pub trait Encoder: Send + Sync {
    /// Encodes sound `[channels][samples]` at the model's rate to codes `[frames][codebooks]`,
    /// flattened. The last frame is filled up with silence.
    ///
    /// # Errors
    /// [`Fault`] when this sound cannot be encoded.
    fn encode(&self, channels: &[Vec<f32>]) -> Result<Vec<u32>, Fault>;
}

/// Texts to conditions, beside the engine's thread: a new prompt must not make a stream wait.
pub trait Conditioner: Send + Sync {
    /// Encodes a text that is not empty; the result may be used by any number of voices.
    ///
    /// # Errors
    /// [`Fault`] when this text cannot be encoded.
    fn condition(&self, text: &str) -> Result<Condition, Fault>;
}

/// A model on a device. All calls come from the engine's thread.
pub trait Backend: Send {
    /// Fixed facts.
    fn info(&self) -> &ModelInfo;

    /// Slots of the KV pool.
    fn slots(&self) -> usize;

    /// The way from sound to this model's codes; may be used on any thread, also after the backend
    /// is gone.
    fn encoder(&self) -> Arc<dyn Encoder>;

    /// The way from texts to what this model is conditioned on; may be used on any thread, also
    /// after the backend is gone.
    fn conditioner(&self) -> Arc<dyn Conditioner>;

    /// Reads columns into a slot without sampling. The engine bounds the size of a call.
    ///
    /// # Errors
    /// [`Lost`] when the device failed.
    fn prefill(&mut self, job: &Prefill<'_>) -> Result<Result<(), Fault>, Lost>;

    /// One decoder pass for all rows; returns `codebooks` codes per row, in order.
    ///
    /// # Errors
    /// [`Lost`] when the device failed; a [`Fault`] concerns its row alone.
    fn step(&mut self, rows: &[StepRow<'_>]) -> Result<Vec<Result<Vec<u32>, Fault>>, Lost>;

    /// What a slot holds is not needed any more: its memory may go until the slot is filled anew.
    fn forget(&mut self, slot: Slot) {
        let _ = slot;
    }

    /// The state of a codec decoder that has seen nothing.
    fn codec_state(&self) -> Box<dyn CodecState>;

    /// Decodes frames of several voices in one pass. Returns interleaved PCM per voice: all samples
    /// that became final, that is `lookahead` frames less than were fed so far (all of them after
    /// `last`).
    ///
    /// # Errors
    /// [`Lost`] when the device failed; a [`Fault`] concerns its voice alone.
    fn decode(&mut self, jobs: &mut [Decode<'_>]) -> Result<Vec<Result<Vec<f32>, Fault>>, Lost>;
}
