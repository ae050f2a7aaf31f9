//! The stations that a description asks for, kept in step with it: changed prompts glide in, new stations begin,
//! removed ones end.

use std::collections::HashMap;
use std::sync::Arc;

use super::prompt_sets::Entry;
use super::{Idle, Station, StationError, Stream, StreamSpec};
use crate::engine::Steer;

/// Seconds over which an edited prompt replaces the old one.
const RAMP: f32 = 4.0;

/// What plays, beside the entry that it was started or last steered with. Dropping it ends no station.
pub struct Lineup {
    station: Arc<Station>,
    streams: HashMap<String, (Entry, Arc<Stream>)>,
}

impl Lineup {
    /// Nothing yet.
    pub fn new(station: Arc<Station>) -> Self {
        Self { station, streams: HashMap::new() }
    }

    /// Makes the stations those of `entries`. One that the machine has no room for now is reported in the log, and tried
    /// again at the next change. Must be called within a tokio runtime.
    pub async fn follow(&mut self, entries: Vec<Entry>) {
        let gone: Vec<String> =
            self.streams.keys().filter(|name| !entries.iter().any(|entry| entry.name == **name)).cloned().collect();
        for name in gone {
            if let Some((_, stream)) = self.streams.remove(&name) {
                tracing::info!(station = name, "the station is no longer in the prompt set; it ends");
                let _ = self.station.delete(stream.id()).await;
            }
        }
        for entry in entries {
            let name = entry.name.clone();
            let outcome = match self.streams.get(&name) {
                Some((old, _)) if *old == entry => continue,
                Some((old, stream)) => match steer(old, &entry, stream).await {
                    Err(StationError::Ended(_)) => self.begin(&entry).await,
                    outcome => outcome.map(|()| Arc::clone(stream)),
                },
                None => self.begin(&entry).await,
            };
            match outcome {
                Ok(stream) => {
                    tracing::info!(station = name, prompts = entry.prompts.len(), "the station follows its prompt set");
                    self.streams.insert(name, (entry, stream));
                }
                Err(error) => tracing::warn!(station = name, "{error}"),
            }
        }
    }

    async fn begin(&self, entry: &Entry) -> Result<Arc<Stream>, StationError> {
        let spec = StreamSpec {
            name: Some(entry.name.clone()),
            model: entry.model.clone(),
            prompts: entry.prompts.clone(),
            sampling: entry.sampling,
            seconds: None,
            max_still: None,
            wait: None,
            idle: Idle::Wait,
        };
        self.station.create(spec).await
    }
}

async fn steer(old: &Entry, new: &Entry, stream: &Stream) -> Result<(), StationError> {
    if let Some(model) = new.model.as_ref().filter(|model| old.model.as_ref() != Some(*model)) {
        stream.set_model(model).await?;
    }
    stream.steer(Steer { prompts: Some(new.prompts.clone()), ramp: RAMP, sampling: new.sampling }).await?;
    Ok(())
}
