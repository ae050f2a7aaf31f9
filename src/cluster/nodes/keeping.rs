//! What this node writes down, and reads of the others, for as long as the process lives.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, UpdateErrorKind};
use async_nats::jetstream::stream::StorageType;
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::super::ClusterError;
use super::super::link::Trouble;
use super::{FRESH, Nodes, Seen, Word};

/// How often a node says how it is.
const REFRESH: Duration = Duration::from_secs(1);
/// How long a word may take; the next one follows.
const SAY: Duration = Duration::from_millis(1500);
/// Pause before NATS is asked again after trouble.
const BREATH: Duration = Duration::from_secs(1);
/// Time between two lines of the log about the same trouble.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// How long a last word may take.
const FAREWELL: Duration = Duration::from_secs(1);

impl Nodes {
    /// Reads and writes for as long as the process lives.
    pub(in crate::cluster) async fn keep(self: Arc<Self>) {
        let mut complained = None::<Instant>;
        loop {
            let connection = self.link.connected().await;
            let trouble = tokio::select! {
                trouble = self.converse() => trouble,
                () = self.link.lost(connection) => continue,
            };
            if let Err(Trouble(reason)) = trouble
                && complained.is_none_or(|at| at.elapsed() >= COMPLAINTS)
            {
                complained = Some(Instant::now());
                tracing::warn!("the cluster cannot be kept up with: {reason}; trying again");
            }
            sleep(BREATH).await;
        }
    }

    async fn converse(&self) -> Result<(), Trouble> {
        let bucket = self.link.bucket(kv::Config {
            bucket: self.bucket.clone(),
            description: "the nodes of a cluster of Continuo".into(),
            max_age: FRESH,
            storage: StorageType::Memory,
            ..kv::Config::default()
        });
        let bucket = bucket.await?;
        let words = bucket.watch_with_history(">").await?;
        tokio::select! {
            trouble = self.read(words) => trouble,
            trouble = self.write(&bucket) => trouble,
        }
    }

    async fn read(&self, mut words: kv::Watch) -> Result<(), Trouble> {
        while let Some(entry) = words.next().await {
            let entry = entry?;
            let said = match entry.operation {
                // A word of a version that says it otherwise is none.
                Operation::Put => serde_json::from_slice::<Word>(&entry.value).ok(),
                Operation::Delete | Operation::Purge => None,
            };
            let mut seen = self.seen();
            match said {
                Some(Word { process, making, node }) => {
                    let is_this = process == self.process;
                    let said = Seen { node, making, process, is_this, at: Instant::now() };
                    let before = seen.insert(entry.key, said);
                    if is_this {
                        let before = before.filter(|before| before.is_this).map(|before| before.at);
                        self.heard_own(before);
                        if before.is_none() {
                            tracing::info!("this node is `{}` of its cluster", self.name);
                        }
                        self.heard.notify_waiters();
                    }
                }
                None => drop(seen.remove(&entry.key)),
            }
        }
        Err(Trouble("nothing more is told of the nodes".into()))
    }

    async fn write(&self, bucket: &kv::Store) -> Result<(), Trouble> {
        let mut tick = interval(REFRESH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        // A process of the same name may have died a moment ago: its word is gone in some seconds.
        let mut warn_at = begun + COMPLAINTS;
        loop {
            tick.tick().await;
            self.count_turns();
            // One that takes too long may have been heard: the next one finds its revision.
            if let Ok(said) = timeout(SAY, self.say(bucket)).await {
                said?;
            }
            if self.written().is_none() && Instant::now() >= warn_at {
                warn_at = Instant::now() + COMPLAINTS;
                tracing::warn!("{}", ClusterError::NameTaken(self.name.clone()));
            }
            // A word that does not come back was written where nobody reads: a bucket that is
            // another one by now.
            let heard = self.seen().get(&self.name).map(|seen| seen.at);
            if self.written().is_some() && heard.unwrap_or(begun).max(begun).elapsed() > FRESH {
                return Err(Trouble("this node does not hear its own word".into()));
            }
        }
    }

    async fn say(&self, bucket: &kv::Store) -> Result<(), Trouble> {
        let word = Word { process: self.process.clone(), making: self.making(), node: self.node() };
        let word = serde_json::to_vec(&word)?;
        let last = self.written().as_ref().map(|(_, revision)| *revision);
        let revision = match last {
            Some(revision) => match bucket.update(&self.name, word.into(), revision).await {
                Ok(revision) => Some(revision),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => self.revision(bucket).await?,
                Err(error) => return Err(error.into()),
            },
            None => match bucket.create(&self.name, word.into()).await {
                Ok(revision) => Some(revision),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => self.revision(bucket).await?,
                Err(error) => return Err(error.into()),
            },
        };
        *self.written() = revision.map(|revision| (bucket.clone(), revision));
        Ok(())
    }

    /// The revision of this node's word, if the name is its own.
    async fn revision(&self, bucket: &kv::Store) -> Result<Option<u64>, Trouble> {
        let Some(entry) = bucket.entry(&self.name).await? else { return Ok(None) };
        let own = serde_json::from_slice::<Word>(&entry.value).is_ok_and(|word| word.process == self.process);
        Ok((own && entry.operation == Operation::Put).then_some(entry.revision))
    }

    /// Takes this node's word away.
    pub(in crate::cluster) async fn leave(&self) {
        let written = self.written().take();
        if let Some((bucket, revision)) = written.filter(|_| self.link.is_up()) {
            // What does not succeed grows old.
            let _ = timeout(FAREWELL, bucket.delete_expect_revision(&self.name, Some(revision))).await;
        }
    }
}
