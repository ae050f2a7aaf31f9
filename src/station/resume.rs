//! Streams that go on from the journal that an earlier process has left: the same music, with the
//! same prompts, at the next media time.

use std::sync::Arc;

use super::journal::Journal;
use super::registry::Left;
use super::{Idle, Station, StationError, Stream, StreamSpec};
use crate::engine::{EngineError, Prefix, SamplingPatch};

impl Station {
    /// Lets the streams go on that an earlier process has left and that nobody else makes again. To
    /// be called once those of prompt sets have begun; what is left of a station that is in no
    /// prompt set any more is given up.
    pub async fn resume(&self) {
        for journal in self.config.journals.left() {
            let origin = journal.origin().clone();
            if !origin.returns {
                journal.discard();
                self.config.journals.settle(&journal);
                continue;
            }
            let spec = StreamSpec {
                name: origin.name,
                model: None,
                prompts: origin.prompts,
                sampling: SamplingPatch::default(),
                seconds: None,
                max_still: origin.max_still,
                wait: None,
                keep: origin.keep,
                idle: Idle::Pause,
            };
            let stream = journal.stream().to_owned();
            match self.take_up(journal, spec).await {
                Ok(_) => tracing::info!(stream, "a stream goes on from its journal"),
                Err(error) => tracing::warn!(stream, %error, "a stream cannot go on from its journal"),
            }
        }
    }

    /// Starts a stream in its journal, from the music at the end of it. If it was begun with the
    /// same prompts as before, what was asked of it since then is in force again.
    pub(super) async fn take_up(
        &self,
        journal: Arc<Journal>,
        mut spec: StreamSpec,
    ) -> Result<Arc<Stream>, StationError> {
        let end = journal.kept().end;
        // It sleeps until somebody listens.
        spec.wait = None;
        if let Some(asked) = journal.change_at(end)
            && journal.origin().prompts == spec.prompts
        {
            let sampling = asked.sampling;
            spec.prompts = asked.prompts;
            spec.model = Some(asked.model);
            spec.sampling = SamplingPatch {
                temperature: Some(sampling.temperature),
                top_k: Some(sampling.top_k),
                guidance: Some(sampling.guidance),
                seed: Some(sampling.seed),
            };
        }
        let unknown = |error: &StationError| matches!(error, StationError::Engine(EngineError::UnknownModel(_)));
        let begun = match self.music_before(&journal, end, &spec).await {
            Ok(prefix) => self.begin(spec.clone(), Some(prefix), Some(Left::of(&journal))).await,
            Err(error) => Err(error),
        };
        let stream = match begun {
            Err(error @ (StationError::NotKept { .. } | StationError::Journal(_))) => {
                self.anew(&journal, spec, error).await?
            }
            Err(error) if unknown(&error) => {
                let model = self.engine().models().first().map(|model| model.id.clone());
                self.anew(&journal, StreamSpec { model, ..spec }, error).await?
            }
            begun => begun?,
        };
        self.config.journals.settle(&journal);
        Ok(stream)
    }

    /// The codes before a media time, for the model that is to go on from them.
    async fn music_before(&self, journal: &Arc<Journal>, at: u64, spec: &StreamSpec) -> Result<Prefix, StationError> {
        let models = self.engine().models();
        let model = match &spec.model {
            Some(id) => models.iter().find(|model| model.id == *id),
            None => models.first(),
        };
        let model = model.ok_or_else(|| {
            EngineError::UnknownModel(spec.model.clone().unwrap_or_else(|| crate::units::ModelId("default".into())))
        })?;
        let keep = |fingerprint| if fingerprint == model.codec_fingerprint { model.keep } else { 0 };
        journal.codes_before(at, keep).await
    }

    /// Starts a stream whose music cannot go on: in its journal if its sound has as many channels,
    /// else in another one.
    async fn anew(
        &self,
        journal: &Arc<Journal>,
        spec: StreamSpec,
        error: StationError,
    ) -> Result<Arc<Stream>, StationError> {
        tracing::warn!(stream = journal.stream(), %error, "a stream begins anew");
        let models = self.engine().models();
        let model = match &spec.model {
            Some(id) => models.iter().find(|model| model.id == *id),
            None => models.first(),
        };
        if model.is_some_and(|model| self.config.channels(model.channels) == journal.channels()) {
            return self.begin(spec, None, Some(Left::of(journal))).await;
        }
        journal.discard();
        self.begin(spec, None, None).await
    }
}
