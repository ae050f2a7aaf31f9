//! Streams that go on here when the node that made them is gone: from their journal, at the next
//! media time, so that those who heard it there hear nothing of it.

use std::sync::Arc;

use tokio::time::Instant;

use super::clock::Clock;
use super::journal::{Journal, Shelf};
use super::registry::Left;
use super::task::Joins;
use super::{Idle, Station, StationError, Stream, StreamSpec};
use crate::engine::{Prefix, SamplingPatch};

impl Station {
    /// From now on a copy of all journals goes to this place, from which another node can take
    /// them. The first one counts.
    pub fn copy_journals_to(&self, place: Arc<dyn Shelf>) {
        self.config.journals.copy_to(place);
    }

    /// What follows in all journals is to be understood without what was written before: a copy has
    /// lost that.
    pub fn begin_journals_anew(&self) {
        self.live().iter().for_each(|stream| stream.journal().begin_anew());
    }

    /// Goes on with a stream of another node, by the last pieces of its journal. `plays` is the
    /// frame that its listeners play now, if there are any: they hear it go on.
    ///
    /// # Errors
    /// [`StationError::Journal`] when the pieces are none, and those of [`Station::create`].
    pub async fn take_over(
        &self,
        pieces: Vec<(u64, Vec<u8>)>,
        plays: Option<u64>,
    ) -> Result<Arc<Stream>, StationError> {
        let now = Instant::now();
        let lost = || StationError::Journal("nothing can be read of it".into());
        let journal = self.config.journals.of_others(pieces).ok_or_else(lost)?;
        let asked = journal.change_at(journal.kept().end).ok_or_else(lost)?;
        let (origin, sampling) = (journal.origin().clone(), asked.sampling);
        let spec = StreamSpec {
            name: origin.name,
            model: Some(asked.model),
            prompts: asked.prompts,
            sampling: SamplingPatch {
                temperature: Some(sampling.temperature),
                top_k: Some(sampling.top_k),
                guidance: Some(sampling.guidance),
                seed: Some(sampling.seed),
            },
            seconds: origin.seconds,
            max_still: origin.max_still,
            wait: None,
            keep: origin.keep,
            idle: origin.idle.unwrap_or(Idle::Pause),
        };
        let paused = journal.ends_silent();
        let begun = match self.joins(&journal, &spec, plays.filter(|_| !paused), now).await? {
            Some((prefix, joins)) => {
                let left = Left { journal: Arc::clone(&journal), joins: Some(joins) };
                self.begin(spec, Some(prefix), Some(left)).await
            }
            None => self.take_up(Arc::clone(&journal), spec).await,
        };
        match &begun {
            Ok(stream) if paused => stream.pause().await?,
            Ok(_) => {}
            Err(_) => journal.leave(),
        }
        begun
    }

    /// How the stream's voice goes on as if it were the same; `None` where nobody hears that, or it
    /// cannot be.
    async fn joins(
        &self,
        journal: &Arc<Journal>,
        spec: &StreamSpec,
        plays: Option<u64>,
        now: Instant,
    ) -> Result<Option<(Prefix, Joins)>, StationError> {
        let models = self.engine().models();
        let model = models.iter().find(|model| Some(&model.id) == spec.model.as_ref());
        let (Some(plays), Some(model)) = (plays, model) else { return Ok(None) };
        let keep = |fingerprint| if fingerprint == model.codec_fingerprint { model.keep } else { 0 };
        let seam = journal.seam(keep).await?.filter(|_| model.channels <= journal.channels());
        Ok(seam.map(|seam| {
            let ahead = self.burst();
            let clock = Clock::start(now, plays.clamp(seam.at.saturating_sub(ahead), seam.at), ahead);
            (seam.prefix.clone(), Joins { seam, clock: Some(clock) })
        }))
    }
}
