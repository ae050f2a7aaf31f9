//! A stream that goes on from a moment of another one.

use std::sync::Arc;
use std::time::Duration;

use super::{Idle, Station, StationError, Stream, StreamSpec};
use crate::engine::{EngineError, SamplingPatch, WeightedPrompt};

/// What a fork does otherwise than the stream that it leaves.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// Name of the new stream.
    pub name: Option<String>,
    /// The blend; without, what plays at that moment.
    pub prompts: Option<Vec<WeightedPrompt>>,
    /// Sampling values that differ from those at that moment; the seed is drawn anew.
    pub sampling: SamplingPatch,
    /// How long it may wait for room on a full machine.
    pub wait: Option<Duration>,
}

impl Station {
    /// Starts a stream that goes on from what `stream` played at a media time, in frames of 48 kHz.
    ///
    /// # Errors
    /// [`StationError::NotKept`] when that moment is not in the journal, and those of
    /// [`Station::create`].
    pub async fn fork(&self, stream: &Stream, at: u64, fork: Fork) -> Result<Arc<Stream>, StationError> {
        let journal = stream.journal();
        let asked = journal.change_at(at).ok_or_else(|| StationError::not_kept(journal.kept()))?;
        let models = self.engine().models();
        if models.iter().all(|model| model.id != asked.model) {
            return Err(EngineError::UnknownModel(asked.model).into());
        }
        let keep = |fingerprint| {
            let known = models.iter().find(|model| model.codec_fingerprint == fingerprint);
            known.map_or(0, |model| model.keep)
        };
        let prefix = journal.codes_before(at, keep).await?;
        let sampling = SamplingPatch {
            temperature: fork.sampling.temperature.or(Some(asked.sampling.temperature)),
            top_k: fork.sampling.top_k.or(Some(asked.sampling.top_k)),
            guidance: fork.sampling.guidance.or(Some(asked.sampling.guidance)),
            seed: fork.sampling.seed,
        };
        let spec = StreamSpec {
            name: fork.name,
            model: Some(asked.model),
            prompts: fork.prompts.unwrap_or(asked.prompts),
            sampling,
            seconds: None,
            max_still: None,
            wait: fork.wait,
            keep: false,
            idle: Idle::Pause,
        };
        self.create_from(spec, Some(prefix)).await
    }
}
