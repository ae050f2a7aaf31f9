//! Prompt sets: named stations described by files, kept in step with them while the server runs.
//!
//! An edited file takes effect without a restart: changed prompts glide in, new stations begin, removed ones end. A
//! mistake in an edit is reported in the log and changes nothing.

mod parse;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use parse::PromptSetError;
use parse::{Entry, read};

use super::{Idle, Station, StationError, Stream, StreamSpec};
use crate::engine::Steer;

/// Seconds over which an edited prompt replaces the old one.
const RAMP: f32 = 4.0;
/// Editors write a file in several steps; what follows within this time belongs to the same edit.
const SETTLE: Duration = Duration::from_millis(250);

/// Stations that follow a file or folder. Dropping it stops following; the stations play on.
pub struct PromptSets {
    task: JoinHandle<()>,
    _watcher: RecommendedWatcher,
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
    /// [`PromptSetError`] when the prompts cannot be read, are wrong, or cannot be watched.
    pub async fn start(station: Arc<Station>, path: &Path) -> Result<Self, PromptSetError> {
        let entries = read(path)?;
        let (changed, mut changes) = mpsc::channel(1);
        let watcher = watch(path, changed).map_err(|error| PromptSetError::Unwatchable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let mut running = Running { station, streams: HashMap::new() };
        running.follow(entries).await;
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            while changes.recv().await.is_some() {
                while let Ok(Some(())) = timeout(SETTLE, changes.recv()).await {}
                match read(&path) {
                    Ok(entries) => running.follow(entries).await,
                    Err(error) => tracing::warn!("{error} The stations stay as they were."),
                }
            }
        });
        Ok(Self { task, _watcher: watcher })
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

/// Watches the folder, not the file: editors put a new file in the old one's place.
fn watch(path: &Path, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let path = path.canonicalize()?;
    let (folder, file) = match path.parent() {
        Some(parent) if !path.is_dir() => (parent.to_owned(), Some(path.clone())),
        _ => (path.clone(), None),
    };
    let concerns = move |paths: &[PathBuf]| file.as_ref().is_none_or(|file| paths.iter().any(|path| path == file));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A full channel is fine: a change is already waiting to be seen.
        if event.is_ok_and(|event| !event.kind.is_access() && concerns(&event.paths)) {
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
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
