//! Prompt sets: named stations described by files, kept in step with them while the server runs.
//!
//! An edited file takes effect without a restart. A mistake in an edit is reported in the log and
//! changes nothing.

mod parse;

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(super) use parse::Prompt;
pub use parse::{Entry, PromptSetError};
use parse::{Texts, entries, texts};

use super::lineup::AGAIN;
use super::{Airing, Lineup, Station, Watch};

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
    /// Starts the stations of `path` and follows its changes. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`PromptSetError`] when the prompts cannot be read or are wrong.
    pub async fn start(station: Arc<Station>, path: &Path) -> Result<Self, PromptSetError> {
        let path = path.to_owned();
        let mut watch = Watch::begin({
            let path = path.clone();
            move || texts(&path)
        });
        let read = move |seen: &Result<Texts, PromptSetError>| match seen {
            Ok(texts) => entries(&path, texts),
            Err(error) => Err(error.clone()),
        };
        let mut lineup = Lineup::new(station);
        lineup.follow(airings(read(watch.seen())?)).await;
        let task = tokio::spawn(async move {
            loop {
                let seen = tokio::select! {
                    seen = watch.changed() => seen,
                    () = sleep(AGAIN), if lineup.waits() => {
                        lineup.again().await;
                        continue;
                    }
                };
                match read(seen) {
                    Ok(entries) => lineup.follow(airings(entries)).await,
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
        let mut lineup = Lineup::new(station);
        lineup.follow(airings(entries)).await;
        tokio::spawn(async move {
            while lineup.waits() {
                sleep(AGAIN).await;
                lineup.again().await;
            }
        });
        Ok(())
    }
}

fn airings(entries: Vec<Entry>) -> Vec<Airing> {
    entries.into_iter().map(Airing::from).collect()
}

/// The stations that come with the program.
const BUNDLED: &str = include_str!("../../prompts/stations.json");
