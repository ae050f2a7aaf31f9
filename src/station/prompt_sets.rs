//! Prompt sets: named stations described by files, kept in step with them while the server runs.
//!
//! An edited file takes effect without a restart: changed prompts glide in, new stations begin, removed ones end. A
//! mistake in an edit is reported in the log and changes nothing.
//!
//! The files are read again and again and compared. Systems that tell of changes tell of folders: not of what a link
//! leads to (a configuration map is links to a folder behind a link that is swapped), not of network disks.

mod parse;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use parse::PromptSetError;
use parse::{Entry, Texts, entries, texts};

use super::{Idle, Station, StationError, Stream, StreamSpec};
use crate::engine::Steer;

/// Seconds over which an edited prompt replaces the old one.
const RAMP: f32 = 4.0;
/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);
/// Editors write a file in several steps; what follows within this time belongs to the same edit.
const SETTLE: Duration = Duration::from_millis(250);

/// Stations that follow a file or folder. Dropping it stops following; the stations play on.
pub struct PromptSets {
    task: JoinHandle<()>,
}

impl Drop for PromptSets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PromptSets {
    /// Starts the stations of `path` and follows its changes. Must be called within a tokio runtime.
    ///
    /// A station that the machine has no room for now is reported in the log, and tried again at the next change.
    ///
    /// # Errors
    /// [`PromptSetError`] when the prompts cannot be read or are wrong.
    pub async fn start(station: Arc<Station>, path: &Path) -> Result<Self, PromptSetError> {
        let first = texts(path)?;
        let mut running = Running { station, streams: HashMap::new() };
        running.follow(entries(path, &first)?).await;
        let mut seen = Ok(first);
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            loop {
                sleep(LOOK).await;
                let mut now = look(&path).await;
                if now == seen {
                    continue;
                }
                while now != seen {
                    seen = now;
                    sleep(SETTLE).await;
                    now = look(&path).await;
                }
                match seen.clone().and_then(|texts| entries(&path, &texts)) {
                    Ok(entries) => running.follow(entries).await,
                    Err(error) => tracing::warn!("{error} The stations stay as they were."),
                }
            }
        });
        Ok(Self { task })
    }

    /// Starts the stations that come with the program; they follow nothing.
    ///
    /// # Errors
    /// None that a build with sound prompt sets can have.
    pub async fn start_bundled(station: Arc<Station>) -> Result<(), PromptSetError> {
        let entries = parse::parse(Path::new("stations.json"), BUNDLED)?;
        Running { station, streams: HashMap::new() }.follow(entries).await;
        Ok(())
    }
}

/// The stations that come with the program.
const BUNDLED: &str = include_str!("../../prompts/stations.json");

/// What the files hold now. A disk that does not answer holds up nobody else.
async fn look(path: &Path) -> Result<Texts, PromptSetError> {
    let (given, path) = (path.to_owned(), path.to_owned());
    let read = tokio::task::spawn_blocking(move || texts(&path)).await;
    read.unwrap_or_else(|error| {
        Err(PromptSetError::Unreadable { path: given.display().to_string(), reason: error.to_string() })
    })
}

/// What plays, beside the entry that it was started or last steered with.
struct Running {
    station: Arc<Station>,
    streams: HashMap<String, (Entry, Arc<Stream>)>,
}

impl Running {
    /// Makes the stations those of `entries`.
    async fn follow(&mut self, entries: Vec<Entry>) {
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
