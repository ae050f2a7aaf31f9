//! What is written is compared with what plays, for as long as the process lives.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::kv::{self, CreateErrorKind, Operation};
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::super::link::{PATIENCE, Trouble};
use super::{Directory, Entry, Row, id_key};
use crate::station::Stream;

/// How often what is written is compared with what plays.
const ROUND: Duration = Duration::from_secs(1);
/// Pause before NATS is asked again after trouble.
const BREATH: Duration = Duration::from_secs(1);
/// What a node that is gone has left is kept so long: its listeners elsewhere have another node go
/// on with it.
const LEFT: Duration = Duration::from_secs(30);

impl Directory {
    /// Reads and writes for as long as the process lives.
    pub(in crate::cluster) async fn keep(self: Arc<Self>) {
        loop {
            let connection = self.link.connected().await;
            let trouble = tokio::select! {
                trouble = self.converse() => trouble,
                () = self.link.lost(connection) => Ok(()),
            };
            *self.store.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.is_current.store(false, Ordering::Relaxed);
            if let Err(Trouble(reason)) = trouble {
                tracing::warn!("the directory of streams cannot be kept up with: {reason}; trying again");
                sleep(BREATH).await;
            }
        }
    }

    async fn converse(&self) -> Result<(), Trouble> {
        let bucket = self.link.bucket(kv::Config {
            bucket: self.bucket.clone(),
            description: "where the streams of a cluster of Continuo play".into(),
            ..kv::Config::default()
        });
        let bucket = bucket.await?;
        let words = bucket.watch_with_history("id.>").await?;
        let is_empty = bucket.status().await?.values() == 0;
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(bucket);
        if is_empty {
            // NATS has begun anew.
            self.rows().clear();
            self.is_current.store(true, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
        tokio::select! {
            trouble = self.read(words) => trouble,
            trouble = self.write() => trouble,
        }
    }

    async fn read(&self, mut words: kv::Watch) -> Result<(), Trouble> {
        // What is known from before counts until all that is written has been read.
        let mut unread: HashSet<String> = self.rows().keys().cloned().collect();
        while let Some(entry) = words.next().await {
            let entry = entry?;
            let is_last = entry.delta == 0;
            self.note(&mut unread, &entry);
            if is_last && !self.is_current.swap(true, Ordering::Relaxed) {
                let mut rows = self.rows();
                unread.drain().for_each(|id| drop(rows.remove(&id)));
            }
            self.changed.notify_waiters();
        }
        Err(Trouble("nothing more is told of the streams".into()))
    }

    fn note(&self, unread: &mut HashSet<String>, entry: &kv::Entry) {
        let Some(id) = entry.key.strip_prefix("id.") else { return };
        unread.remove(id);
        let is_current = self.is_current.load(Ordering::Relaxed);
        let mut rows = self.rows();
        match serde_json::from_slice(&entry.value) {
            // A row that was written again after this was sent stays.
            _ if is_current && rows.get(id).is_some_and(|row| row.revision > entry.revision) => {}
            Ok(said) if entry.operation == Operation::Put => {
                rows.insert(id.to_owned(), Row { entry: said, revision: entry.revision });
            }
            _ => drop(rows.remove(id)),
        }
    }

    async fn write(&self) -> Result<(), Trouble> {
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // Who does not know the others, or what is written, does not know who is gone.
            if self.nodes.reach().is_ok() && self.is_current.load(Ordering::Relaxed) {
                self.compare().await?;
            }
        }
    }

    /// Writes down what plays here and is not written, and takes away what does not play any more.
    async fn compare(&self) -> Result<(), Trouble> {
        let Some(station) = self.station.upgrade() else { return Ok(()) };
        for stream in station.live() {
            let written = self.known(stream.id());
            if let Some(entry) = written.as_ref().filter(|entry| self.is_succeeded(entry)) {
                tracing::info!(stream = entry.id, node = entry.node, "another node goes on with a stream");
                self.own().remove(&entry.id);
                station.let_go(&entry.id).await;
                continue;
            }
            if !written.is_some_and(|entry| self.is_own(&entry)) {
                let name = match stream.name() {
                    Some(name) if self.take(name, stream.id()).await.is_err() => {
                        tracing::warn!(station = name, "another node has a station of this name");
                        None
                    }
                    name => name,
                };
                self.write_down(&stream, name).await?;
            }
        }
        let forgotten = self.forgotten();
        // What has ended is known here for a while.
        let is_over = |entry: &Entry| match entry.node == self.node {
            // What is about to go on here is not there yet.
            true => station.get(&entry.id).is_err() && !self.own().contains_key(&entry.id),
            false => !entry.stays && forgotten.contains(&entry.node),
        };
        let over: Vec<(Entry, u64)> = {
            let rows = self.rows();
            let over = rows.values().filter(|row| is_over(&row.entry));
            over.map(|row| (row.entry.clone(), row.revision)).collect()
        };
        for (entry, revision) in over {
            self.take_away(&entry, revision).await?;
        }
        Ok(())
    }

    /// Nodes that have been gone for so long that nobody waits for what they have left.
    fn forgotten(&self) -> HashSet<String> {
        let nodes: HashSet<String> = self.rows().values().map(|row| row.entry.node.clone()).collect();
        let gone: HashSet<String> = nodes.into_iter().filter(|node| self.nodes.is_gone(node)).collect();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|node, _| gone.contains(node));
        for node in gone {
            left.entry(node).or_insert_with(Instant::now);
        }
        left.iter().filter(|(_, since)| since.elapsed() > LEFT).map(|(node, _)| node.clone()).collect()
    }

    pub(super) async fn write_down(&self, stream: &Stream, name: Option<&str>) -> Result<(), Trouble> {
        let _writing = self.writing.lock().await;
        if stream.has_ended() || self.known(stream.id()).is_some_and(|entry| entry.process == self.process) {
            return Ok(());
        }
        let Ok(store) = self.store() else { return Ok(()) };
        let now = SystemTime::now().checked_sub(stream.age()).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let mut entry = Entry {
            id: stream.id().to_owned(),
            name: name.map(str::to_owned),
            node: self.node.clone(),
            process: self.process.clone(),
            generation: self.own().get(stream.id()).copied().unwrap_or(1),
            stays: stream.stays(),
            begun: now.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        };
        let key = id_key(stream.id());
        let revision = match store.create(&key, serde_json::to_vec(&entry)?.into()).await {
            Ok(revision) => revision,
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                // What an earlier process of this node left.
                let Some(written) = store.entry(&key).await? else { return Ok(()) };
                let before: Entry = serde_json::from_slice(&written.value)?;
                if self.is_succeeded(&before) {
                    // It is let go in the next round.
                    self.keep_row(before, written.revision);
                    return Ok(());
                }
                if before.process == self.process {
                    self.keep_row(before, written.revision);
                    return Ok(());
                }
                if before.node != self.node && !self.nodes.is_gone(&before.node) {
                    return Err(Trouble(format!("the stream {} plays on `{}` too", entry.id, before.node)));
                }
                entry.generation = before.generation + 1;
                store.update(&key, serde_json::to_vec(&entry)?.into(), written.revision).await?
            }
            Err(error) => return Err(error.into()),
        };
        self.own().insert(entry.id.clone(), entry.generation);
        self.keep_row(entry, revision);
        Ok(())
    }

    pub(super) async fn take_away(&self, entry: &Entry, revision: u64) -> Result<(), Trouble> {
        let _writing = self.writing.lock().await;
        let Ok(store) = self.store() else { return Ok(()) };
        let taken = store.delete_expect_revision(id_key(&entry.id), Some(revision)).await;
        // Somebody else may have been first, and whoever goes on with it has its name.
        let goes_on = taken.is_err() && matches!(self.written(&entry.id).await, Ok(Some(_)));
        if let Some(name) = entry.name.as_ref().filter(|_| !goes_on) {
            self.give_back(name, &entry.id).await?;
        }
        let mut rows = self.rows();
        if rows.get(&entry.id).is_some_and(|row| row.revision == revision) {
            rows.remove(&entry.id);
        }
        drop(rows);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Leaves the row of a stream that has ended, without its name.
    pub(super) async fn take_name(&self, mut entry: Entry, revision: u64) -> Result<(), Trouble> {
        let _writing = self.writing.lock().await;
        let (Ok(store), Some(name)) = (self.store(), entry.name.take()) else { return Ok(()) };
        let revision = store.update(id_key(&entry.id), serde_json::to_vec(&entry)?.into(), revision).await?;
        let id = entry.id.clone();
        self.keep_row(entry, revision);
        self.give_back(&name, &id).await
    }

    /// Nothing plays here any more: whatever is written of it goes.
    pub(in crate::cluster) async fn leave(&self) {
        let own: Vec<(Entry, u64)> = {
            let rows = self.rows();
            let own = rows.values().filter(|row| row.entry.process == self.process);
            own.map(|row| (row.entry.clone(), row.revision)).collect()
        };
        for (entry, revision) in own {
            // What does not succeed is removed by the others.
            let _ = timeout(PATIENCE, self.take_away(&entry, revision)).await;
        }
    }
}
