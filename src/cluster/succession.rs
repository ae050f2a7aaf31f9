//! Who goes on with a stream when the node that makes it is gone, or is about to go.
//!
//! Whoever misses a stream's pages and hears that nobody answers for it asks the nodes with most
//! room, one after the other, to go on. The first one that changes the stream's row in the
//! directory by its revision does, under the next generation; whoever comes later finds that it is
//! done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use metrics::{counter, histogram};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::ClusterError;
use super::directory::{Directory, Entry};
use super::hearing::ask;
use super::link::{Link, PATIENCE};
use super::nodes::{Node, Nodes};
use super::sending::{Sending, Subjects};
use super::shelf::Shelf;
use super::verbs::{Ask, Done, Refusal, What};
use crate::audio::OPUS_RATE;
use crate::cluster::Role;
use crate::station::{Station, StationError, Stream};
use crate::telemetry::{CLUSTER_TAKEOVER_SECONDS, CLUSTER_TAKEOVERS};

/// What listeners of a stream play, and when that was so.
#[derive(Clone, Copy)]
pub(super) struct Plays {
    frame: u64,
    at: Instant,
}

impl Plays {
    /// They play this frame now.
    pub(super) fn now(frame: u64) -> Self {
        Self { frame, at: Instant::now() }
    }

    /// The frame that they play by now: asking takes its time, which they go on to play in.
    fn by_now(self) -> u64 {
        self.frame + (self.at.elapsed().as_secs_f64() * f64::from(OPUS_RATE)) as u64
    }
}

/// How often it is looked for what was left behind: that a node is gone follows from its saying
/// nothing, of which nobody is told.
const ROUND: Duration = Duration::from_secs(1);

pub(super) struct Succession {
    subjects: Subjects,
    node: String,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    directory: Arc<Directory>,
    shelf: Arc<Shelf>,
    station: Weak<Station>,
    /// Streams that are being taken over: whoever wants one of them too waits for its turn.
    taking: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Succession {
    pub(super) fn new(
        (subjects, node): (Subjects, &str),
        (link, nodes): (Arc<Link>, Arc<Nodes>),
        directory: Arc<Directory>,
        shelf: Arc<Shelf>,
        station: &Arc<Station>,
    ) -> Self {
        let (node, station) = (node.to_owned(), Arc::downgrade(station));
        Self { subjects, node, link, nodes, directory, shelf, station, taking: Mutex::default() }
    }

    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        taking.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = taking.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        taking.insert(id.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Nodes that make streams, those with most room first.
    fn engines(&self) -> Vec<Node> {
        let mut engines = self.nodes.list().unwrap_or_default();
        engines.retain(|node| node.role != Role::Edge);
        engines.sort_by(|one, other| other.room.cmp(&one.room).then_with(|| one.name.cmp(&other.name)));
        engines
    }

    /// Has another node go on with a stream whose owner is gone, or `hands_over` now. Tells whether
    /// one does.
    pub(super) async fn replace(&self, entry: &Entry, plays: Option<Plays>, hands_over: bool) -> bool {
        for node in self.engines().iter().filter(|node| node.name != entry.node) {
            let by_now = plays.map(Plays::by_now);
            let what = What::TakeOver { generation: entry.generation, plays: by_now, hands_over };
            let answer = if node.name == self.node {
                self.take_over(&entry.id, entry.generation, plays, hands_over).await.map(|()| Done::Nothing)
            } else {
                match ask(&self.link, &node.name, &self.subjects, Ask::new(&entry.id, what)).await {
                    Ok(answer) => answer,
                    Err(ClusterError::Away) => return false,
                    Err(_) => continue,
                }
            };
            match answer {
                Ok(_) => return true,
                Err(Refusal::Lives) => return false,
                Err(refusal) => {
                    tracing::debug!(stream = entry.id, node = node.name, ?refusal, "it does not go on there");
                }
            }
        }
        false
    }

    /// Goes on with a stream here, unless somebody does already.
    pub(super) async fn take_over(
        &self,
        id: &str,
        generation: u64,
        plays: Option<Plays>,
        hands_over: bool,
    ) -> Result<(), Refusal> {
        let turn = self.turn(id);
        let _alone = turn.lock().await;
        self.try_take_over(id, generation, plays, hands_over).await
    }

    async fn try_take_over(
        &self,
        id: &str,
        generation: u64,
        plays: Option<Plays>,
        hands_over: bool,
    ) -> Result<(), Refusal> {
        let begun = Instant::now();
        let station = self.station.upgrade().ok_or(Refusal::NotFound)?;
        let (entry, revision) = self.directory.written(id).await.map_err(away)?.ok_or(Refusal::NotFound)?;
        if entry.generation > generation || self.directory.is_own(&entry) {
            return Ok(());
        }
        if plays.is_some() && station.room() == 0 {
            return Err(Refusal::Waiting { retry_after: 2 });
        }
        if !hands_over && !self.nodes.is_gone(&entry.node) {
            // Whoever asked may be cut off itself.
            let hello = Ask::new(id, What::Hello);
            match ask(&self.link, &entry.node, &self.subjects, hello).await {
                Err(ClusterError::Gone(_)) => {}
                Ok(Ok(_)) => return Err(Refusal::Lives),
                // A process of the same name began anew: it does not know the stream.
                Ok(Err(_)) => {}
                Err(_) if self.nodes.is_gone(&entry.node) => {}
                Err(_) => return Err(Refusal::Lives),
            }
        }
        let Some((own, revision)) = self.directory.succeed(&entry, revision).await.map_err(away)? else {
            // Another node was first.
            return Ok(());
        };
        let pieces = match self.shelf.take(id, own.generation).await {
            Ok(pieces) => pieces,
            Err(error) => {
                // It is there, and whoever listens asks again.
                self.directory.hand_back(&own, revision, &entry).await;
                return Err(away(error));
            }
        };
        match station.take_over(pieces, plays.map(Plays::by_now)).await {
            Ok(_) => {
                let seconds = begun.elapsed().as_secs_f64();
                counter!(CLUSTER_TAKEOVERS).increment(1);
                histogram!(CLUSTER_TAKEOVER_SECONDS).record(seconds);
                self.nodes.took_over(seconds);
                tracing::info!(stream = id, from = entry.node, seconds, "a stream of another node goes on here");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(stream = id, from = entry.node, %error, "a stream of another node cannot go on here");
                if matches!(error, StationError::Journal(_)) {
                    // Nobody can go on with it.
                    self.directory.give_up(&own, revision).await;
                } else {
                    self.directory.hand_back(&own, revision, &entry).await;
                }
                Err(error.into())
            }
        }
    }

    /// Goes on with what gone nodes have left that is expected to be there although nobody listens,
    /// if there is no node with more room; for as long as the process lives.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let best = self.engines().into_iter().next().filter(|best| best.name == self.node && best.room > 0);
            if best.is_none() {
                continue;
            }
            for entry in self.directory.left_behind() {
                // What does not succeed is tried again.
                let _ = self.take_over(&entry.id, entry.generation, None, false).await;
            }
        }
    }

    /// Hands this node's streams to the others: those that somebody hears there, and those that are
    /// expected to be there.
    pub(super) async fn hand_over(&self, sending: &Sending) {
        let Some(station) = self.station.upgrade() else { return };
        let wanted = |stream: &Arc<Stream>| stream.is_heard_abroad() || stream.stays();
        let streams: Vec<Arc<Stream>> = station.live().into_iter().filter(wanted).collect();
        let others = self.engines().iter().any(|node| node.name != self.node && node.room > 0);
        if self.nodes.reach().is_err() || !others {
            return;
        }
        let handed = streams.iter().map(|stream| async {
            let Some(entry) = self.directory.known(stream.id()).filter(|entry| self.directory.is_own(entry)) else {
                return;
            };
            let Ok(plays) = stream.stop().await else { return };
            let plays = plays.filter(|_| stream.is_heard_abroad()).map(Plays::now);
            // Who goes on reads all that was heard.
            self.shelf.settled().await;
            let replaced = timeout(2 * PATIENCE, self.replace(&entry, plays, true)).await;
            if replaced.unwrap_or(false) {
                sending.drop_stream(stream.id());
                station.let_go(stream.id()).await;
            }
        });
        join_all(handed).await;
    }
}

fn away(_: ClusterError) -> Refusal {
    Refusal::Waiting { retry_after: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn listeners_play_on_while_it_is_asked_who_goes_on() {
        let plays = Plays::now(96_000);
        assert_eq!(plays.by_now(), 96_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(plays.by_now(), 108_000);
    }
}
