//! The stations that a description asks for, kept in step with it: changed prompts glide in, new
//! stations begin, removed ones end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::schedule::RAMP;
use super::{Airing, Idle, Station, StationError, Stream, StreamSpec, Timetable};
use crate::engine::Steer;

/// Pause before a station is tried again whose name another node of the cluster has.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// What plays, beside what it was started or last steered with. Dropping it ends no station.
pub struct Lineup {
    station: Arc<Station>,
    streams: HashMap<String, (Airing, Arc<Stream>)>,
    wanted: Vec<Airing>,
    /// Stations that somebody else plays: they begin here when that ends.
    taken: HashSet<String>,
}

impl Lineup {
    /// Nothing yet.
    pub fn new(station: Arc<Station>) -> Self {
        Self { station, streams: HashMap::new(), wanted: Vec::new(), taken: HashSet::new() }
    }

    /// Keeps the stations as the newest timetable has them at each time, until nobody can send
    /// another.
    pub async fn keep(mut self, mut timetables: watch::Receiver<Timetable>, clock: impl Fn() -> Timestamp + Send) {
        let mut before = None;
        loop {
            let (airings, pause) = {
                let (timetable, now) = (timetables.borrow_and_update(), clock());
                (timetable.airings(now), timetable.pause(now))
            };
            if before.as_ref() != Some(&airings) {
                self.follow(airings.clone()).await;
                before = Some(airings);
            }
            tokio::select! {
                changed = timetables.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // An edit tries again what there was no room for.
                    before = None;
                }
                () = sleep(AGAIN), if self.waits() => before = None,
                () = sleep(pause) => {}
            }
        }
    }

    /// Whether there are stations that somebody else plays.
    pub(super) fn waits(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Begins those that nobody else plays any more.
    pub(super) async fn again(&mut self) {
        self.follow(self.wanted.clone()).await;
    }

    /// Makes the stations those of `airings`. One that the machine has no room for now is reported
    /// in the log, and tried again at the next change. Must be called within a tokio runtime.
    pub async fn follow(&mut self, airings: Vec<Airing>) {
        self.wanted.clone_from(&airings);
        self.taken.retain(|name| airings.iter().any(|airing| airing.entry.name == *name));
        let gone: Vec<String> = self
            .streams
            .keys()
            .filter(|name| !airings.iter().any(|airing| airing.entry.name == **name))
            .cloned()
            .collect();
        for name in gone {
            if let Some((_, stream)) = self.streams.remove(&name) {
                tracing::info!(station = name, "the station is no longer in the prompt set; it ends");
                let _ = self.station.delete(stream.id()).await;
            }
        }
        for airing in airings {
            let name = airing.entry.name.clone();
            let outcome = match self.streams.get(&name) {
                Some((old, _)) if *old == airing => continue,
                Some((old, stream)) => match steer(old, &airing, stream).await {
                    Err(StationError::Ended(_)) => self.begin(&airing).await,
                    outcome => outcome.map(|()| Arc::clone(stream)),
                },
                None => self.begin(&airing).await,
            };
            match outcome {
                Ok(stream) => {
                    let prompts = airing.entry.prompts.len();
                    tracing::info!(station = name, prompts, "the station follows its prompt set");
                    self.taken.remove(&name);
                    self.streams.insert(name, (airing, stream));
                }
                Err(error) => {
                    let was_taken = self.taken.remove(&name);
                    let is_taken = matches!(error, StationError::NameTaken(_));
                    if !(is_taken && was_taken) {
                        tracing::warn!(station = name, "{error}");
                    }
                    if is_taken {
                        self.taken.insert(name);
                    }
                }
            }
        }
    }

    async fn begin(&self, Airing { entry, .. }: &Airing) -> Result<Arc<Stream>, StationError> {
        let spec = StreamSpec {
            name: Some(entry.name.clone()),
            model: entry.model.clone(),
            prompts: entry.prompts.clone(),
            sampling: entry.sampling,
            seconds: None,
            max_still: None,
            wait: None,
            keep: false,
            idle: Idle::Wait,
        };
        let begun = self.station.create(spec).await;
        // It may have come here from a node that is gone.
        match (begun, self.station.named(&entry.name)) {
            (Err(StationError::NameTaken(_)), Ok(stream)) if stream.joins_lineup() => {
                let (prompts, ramp, sampling) = (Some(entry.prompts.clone()), RAMP, entry.sampling);
                stream.steer(Steer { prompts, ramp, sampling }).await?;
                Ok(stream)
            }
            (begun, _) => begun,
        }
    }
}

async fn steer(old: &Airing, new: &Airing, stream: &Stream) -> Result<(), StationError> {
    let entry = &new.entry;
    if let Some(model) = entry.model.as_ref().filter(|model| old.entry.model.as_ref() != Some(*model)) {
        stream.set_model(model).await?;
    }
    // What was edited is not what the clock brings.
    let ramp = if old.since == new.since { RAMP } else { new.ramp };
    stream.steer(Steer { prompts: Some(entry.prompts.clone()), ramp, sampling: entry.sampling }).await?;
    Ok(())
}
