//! A player that fetches as hls.js does, and plays nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::super::Failure;
use super::super::client::Client;
use super::playlist::{Listed, read, variant};

/// Seconds of a segment and of a part.
const SEGMENT: f64 = 3.0;
const PART: f64 = 0.6;
/// Segments, or parts, that a player keeps away from the end.
const HOLD_BACK: usize = 3;

/// What all players did together.
#[derive(Default)]
pub(super) struct Tally {
    playing: AtomicUsize,
    requests: AtomicU64,
    bytes: AtomicU64,
    stalls: AtomicU64,
}

#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    /// Times that a player had nothing left to play.
    pub(super) stalls: u64,
}

impl Count {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            bytes: self.bytes - before.bytes,
            stalls: self.stalls - before.stalls,
        }
    }
}

impl Tally {
    /// Players that have what they begin with.
    pub(super) fn playing(&self) -> usize {
        self.playing.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> Count {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count { requests: read(&self.requests), bytes: read(&self.bytes), stalls: read(&self.stalls) }
    }
}

pub(super) struct Player {
    pub(super) address: String,
    pub(super) path: String,
    pub(super) low_latency: bool,
    pub(super) save: Option<PathBuf>,
    pub(super) tally: Arc<Tally>,
}

impl Player {
    /// Plays until the playlist ends or something fails.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut client = Client::open(&self.address).await?;
        let first = self.text(&mut client, &self.path).await?;
        let place = variant(&first).unwrap_or(&self.path).to_owned();
        let folder = place.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut wants: Option<(u64, u64)> = None;
        let mut ends: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let text = self.text(&mut client, &self.question(&place, wants)).await?;
            let listed = read(&text)?;
            let began = wants.is_none();
            if began && let Some(init) = &listed.init {
                self.file(&mut client, &folder, init).await?;
            }
            let (fetched, seconds) = self.wanted(&listed, wants);
            wants = Some(listed.next);
            let count = fetched.len();
            for name in fetched {
                self.file(&mut client, &folder, name).await?;
                self.count_in(&mut ends, seconds);
            }
            if let Some(folder) = &self.save {
                replace(&folder.join("index.m3u8"), text.as_bytes())?;
            }
            if began {
                self.tally.playing.fetch_add(1, Ordering::Relaxed);
            }
            if text.contains("#EXT-X-ENDLIST") {
                return Ok(());
            }
            if !self.low_latency {
                // A playlist that has not changed is asked for again sooner (RFC 8216 section
                // 6.3.4).
                let pause = if count > 0 { listed.target } else { listed.target / 2.0 };
                sleep_until(asked + Duration::from_secs_f64(pause)).await;
            }
        }
    }

    /// The address of a playlist: as of what comes next, or as it is.
    fn question(&self, place: &str, wants: Option<(u64, u64)>) -> String {
        let joint = if place.contains('?') { '&' } else { '?' };
        match wants {
            Some((segment, part)) if self.low_latency => {
                format!("{place}{joint}_HLS_msn={segment}&_HLS_part={part}&_HLS_skip=YES")
            }
            Some(_) if self.save.is_none() => format!("{place}{joint}_HLS_skip=YES"),
            _ => place.to_owned(),
        }
    }

    /// The names of what is to be fetched now, and how long each of it lasts.
    fn wanted<'a>(&self, listed: &'a Listed, wants: Option<(u64, u64)>) -> (Vec<&'a str>, f64) {
        let wants = wants.map(|(segment, part)| (segment, if self.low_latency { part } else { 0 }));
        let named = |files: Vec<((u64, u64), &'a str)>| {
            let first = match wants {
                None if self.save.is_some() => 0,
                None => files.len().saturating_sub(HOLD_BACK),
                Some(wants) => files.iter().take_while(|(at, _)| *at < wants).count(),
            };
            files.into_iter().skip(first).map(|(_, name)| name).collect()
        };
        if self.low_latency {
            (named(listed.parts.iter().map(|(at, name)| (*at, name.as_str())).collect()), PART)
        } else {
            (named(listed.segments.iter().map(|(number, name)| ((*number, 0), name.as_str())).collect()), SEGMENT)
        }
    }

    /// So many seconds more can be played; `ends` is when all would be.
    fn count_in(&self, ends: &mut Option<Instant>, seconds: f64) {
        let now = Instant::now();
        let end = ends.get_or_insert(now);
        if *end < now {
            self.tally.stalls.fetch_add(1, Ordering::Relaxed);
            *end = now;
        }
        *end += Duration::from_secs_f64(seconds);
    }

    async fn text(&self, client: &mut Client, path: &str) -> Result<String, Failure> {
        Ok(String::from_utf8(self.get(client, path).await?)?)
    }

    async fn file(&self, client: &mut Client, folder: &str, name: &str) -> Result<(), Failure> {
        let bytes = self.get(client, &format!("{folder}/{name}")).await?;
        match &self.save {
            Some(place) => replace(&place.join(name.split('?').next().unwrap_or(name)), &bytes),
            None => Ok(()),
        }
    }

    async fn get(&self, client: &mut Client, path: &str) -> Result<Vec<u8>, Failure> {
        let bytes = client.get(path).await?;
        self.tally.requests.fetch_add(1, Ordering::Relaxed);
        self.tally.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Writes a file so that nobody reads half of it.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, bytes)?;
    Ok(std::fs::rename(draft, path)?)
}
