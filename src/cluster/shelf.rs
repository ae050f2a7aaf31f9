//! Copies of the journals of all streams in JetStream, so that another node can go on with what a
//! dead one played.
//!
//! A record is a message, published before the pages whose sound it holds and over the same
//! connection: whoever has heard something finds its codes. Its subject says the stream, the
//! generation of its owners and the piece. What an owner that was replaced writes afterwards does
//! not count: each message says up to where those of earlier generations do.
//!
//! NATS says of each message that it is kept. When a word of that is missing, a server that died
//! has taken some with it: all journals begin anew, so that what follows can be understood.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, LastRawMessageErrorKind};
use async_nats::{Message, StatusCode, Subscriber};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use metrics::counter;
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::ClusterError;
use super::kept::Unkept;
use super::link::{Link, PATIENCE, Trouble};
use super::sending::Subjects;
use crate::station::{Shelf as Seam, Station};
use crate::telemetry::CLUSTER_JOURNALS_BEGUN;

/// A piece is kept until the next one is so old: five to fifteen minutes of a stream, of which the
/// last one is needed.
const KEPT: Duration = Duration::from_secs(600);
/// Bytes of all streams together; the oldest go.
const MOST: i64 = 1 << 30;
/// A stream of which nothing was written for so long has no journal any more.
const AGE: Duration = Duration::from_secs(24 * 3600);
/// How long NATS may take to say that a message is kept, and how often it is looked for what it has
/// not said.
const KEPT_WITHIN: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(500);
/// Messages that are read at once.
const MANY: usize = 1000;
/// Pause before NATS is asked again after trouble.
const BREATH: Duration = Duration::from_secs(1);

/// The copies.
pub(super) struct Shelf {
    subjects: Subjects,
    link: Arc<Link>,
    station: Weak<Station>,
    runtime: Handle,
    places: Mutex<HashMap<String, Place>>,
    /// Where NATS says what is kept.
    inbox: String,
    unkept: Unkept,
}

/// Under which generation a stream is written here, and what counts before that.
struct Place {
    generation: u64,
    follows: u64,
    /// Pieces that are kept, and since when they are known here.
    pieces: VecDeque<(u64, Instant)>,
}

/// A message as it was found.
struct Found {
    sequence: u64,
    generation: u64,
    piece: u64,
    follows: u64,
    bytes: Bytes,
}

impl Shelf {
    pub(super) fn new(subjects: Subjects, link: Arc<Link>, station: &Arc<Station>) -> Self {
        let station = Arc::downgrade(station);
        let inbox = link.new_inbox();
        let (runtime, places, unkept) = (Handle::current(), Mutex::default(), Unkept::default());
        Self { subjects, link, station, runtime, places, inbox, unkept }
    }

    /// Makes the place for copies, and again where NATS has lost it, for as long as the process
    /// lives.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let connection = self.link.connected().await;
            let config = Config {
                name: self.subjects.journals(),
                subjects: vec![format!("{}.>", self.subjects.journal())],
                max_bytes: MOST,
                max_age: AGE,
                discard: DiscardPolicy::Old,
                num_replicas: self.link.replicas(),
                ..Config::default()
            };
            if let Err(error) = self.link.jetstream().get_or_create_stream(config).await {
                tracing::warn!("journals cannot be copied to NATS: {error}; trying again");
                sleep(BREATH).await;
                continue;
            }
            // From now on it is heard what is kept.
            let Ok(client) = self.link.client() else { continue };
            let Ok(words) = client.subscribe(format!("{}.*", self.inbox)).await else {
                sleep(BREATH).await;
                continue;
            };
            self.unkept.forget();
            // What was written while nobody took it is missing there.
            if let Some(station) = self.station.upgrade() {
                station.begin_journals_anew();
                counter!(CLUSTER_JOURNALS_BEGUN).increment(1);
            }
            tokio::select! {
                count = self.lost(words) => {
                    tracing::info!(count, "NATS has lost pieces of journals: they begin anew there");
                    sleep(BREATH).await;
                }
                () = self.link.lost(connection) => {}
            }
        }
    }

    /// Waits until messages are known to be lost; gives how many.
    async fn lost(&self, mut words: Subscriber) -> usize {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lost = tokio::select! {
                Some(word) = words.next() => usize::from(!self.is_kept(&word)),
                _ = tick.tick() => self.unkept.late(KEPT_WITHIN),
            };
            if lost > 0 {
                return lost;
            }
        }
    }

    /// What NATS says of a message: whether it is kept, as far as it is one of those that matter.
    fn is_kept(&self, word: &Message) -> bool {
        let number = word.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let is_known = number.is_some_and(|number| self.unkept.said(number));
        let said = || serde_json::from_slice::<serde_json::Value>(&word.payload);
        let is_refused = || said().is_ok_and(|said| said["error"].is_object());
        !is_known || (word.status != Some(StatusCode::NO_RESPONDERS) && !is_refused())
    }

    /// Waits until NATS has said that all that was written is kept: whoever asks for the copies
    /// before may be given them without the last one.
    pub(super) async fn settled(&self) {
        if !self.unkept.settled(KEPT_WITHIN).await {
            tracing::warn!("NATS does not say that the last pieces of journals are kept");
        }
    }

    /// The last pieces of a stream's journal; from now on they are gone on with here, under this
    /// generation.
    pub(super) async fn take(&self, id: &str, generation: u64) -> Result<Vec<(u64, Vec<u8>)>, ClusterError> {
        let found = self.link.answered(PATIENCE, || self.read_all(id)).await?;
        let follows = found.last().map_or(0, |last| last.sequence);
        let (found, now) = (pieces(found), Instant::now());
        let pieces = found.iter().map(|(piece, _)| (*piece, now)).collect();
        self.places().insert(id.to_owned(), Place { generation, follows, pieces });
        Ok(found)
    }

    async fn read_all(&self, id: &str) -> Result<Vec<Found>, Trouble> {
        let stream = self.link.jetstream().get_stream_no_info(self.subjects.journals()).await?;
        let config = pull::Config {
            filter_subject: format!("{}.{id}.>", self.subjects.journal()),
            ack_policy: AckPolicy::None,
            inactive_threshold: PATIENCE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        // Of several servers this asks the one that orders what is kept; the one that reads it out
        // may be behind.
        let last = match stream.get_last_raw_message_by_subject(&config.filter_subject).await {
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(Vec::new()),
            last => last?.sequence,
        };
        let consumer = stream.create_consumer(config).await?;
        let (mut found, mut reached) = (Vec::new(), 0);
        while reached < last {
            let mut messages = consumer.batch().max_messages(MANY).expires(LOOK).messages().await?;
            while reached < last
                && let Some(message) = messages.next().await
            {
                let message = message.map_err(|error| Trouble(error.to_string()))?;
                reached = message.info().map_err(|error| Trouble(error.to_string()))?.stream_sequence;
                found.push(Found::read(reached, &message.subject, message.payload.clone()));
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn purge(&self, subject: String) {
        let (link, journals) = (Arc::clone(&self.link), self.subjects.journals());
        self.runtime.spawn(async move {
            let purged = async {
                let stream = link.jetstream().get_stream_no_info(journals).await?;
                stream.purge().filter(subject).await?;
                Ok::<_, Trouble>(())
            };
            // What does not succeed grows old.
            let _ = timeout(PATIENCE, purged).await;
        });
    }
}

impl Seam for Shelf {
    fn append(&self, stream: &str, piece: u64, bytes: Vec<u8>) {
        let (generation, follows) = {
            let mut places = self.places();
            let place = places.entry(stream.to_owned()).or_insert_with(Place::new);
            place.begin(piece).for_each(|old| {
                self.purge(format!("{}.{stream}.*.{old}", self.subjects.journal()));
            });
            (place.generation, place.follows)
        };
        let Ok(client) = self.link.client() else { return };
        let subject = format!("{}.{stream}.{}.{piece}", self.subjects.journal(), generation);
        let mut message = BytesMut::with_capacity(8 + bytes.len());
        message.put_u64(follows);
        message.extend_from_slice(&bytes);
        let reply = format!("{}.{}", self.inbox, self.unkept.send());
        // In order with the pages that follow, and without waiting for a connection that is busy.
        let sent = unconstrained(client.publish_with_reply(subject, reply, message.freeze())).now_or_never();
        if !matches!(sent, Some(Ok(()))) {
            tracing::debug!(stream, "a piece of a journal did not get to NATS");
        }
    }

    fn read(&self, _stream: &str, _piece: u64) -> io::Result<Vec<u8>> {
        Err(io::Error::other("copies are read as a whole"))
    }

    fn remove(&self, _stream: &str, _piece: u64) {}

    fn forget(&self, stream: &str) {
        self.places().remove(stream);
        self.purge(format!("{}.{stream}.>", self.subjects.journal()));
    }
}

impl Place {
    /// Of a stream that begins here.
    fn new() -> Self {
        Self { generation: 1, follows: 0, pieces: VecDeque::new() }
    }

    /// Notes a piece, and gives those that are not kept any more.
    fn begin(&mut self, piece: u64) -> impl Iterator<Item = u64> + use<> {
        let mut old = Vec::new();
        if self.pieces.back().is_none_or(|(last, _)| *last != piece) {
            self.pieces.push_back((piece, Instant::now()));
            while self.pieces.get(1).is_some_and(|(_, since)| since.elapsed() > KEPT) {
                old.extend(self.pieces.pop_front().map(|(piece, _)| piece));
            }
        }
        old.into_iter()
    }
}

impl Found {
    fn read(sequence: u64, subject: &str, mut bytes: Bytes) -> Option<Self> {
        let mut parts = subject.rsplit('.');
        let piece = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let follows = bytes.try_get_u64().ok()?;
        Some(Self { sequence, generation, piece, follows, bytes })
    }
}

/// What counts of the messages, as pieces in order.
fn pieces(found: Vec<Found>) -> Vec<(u64, Vec<u8>)> {
    let (mut counts, mut until, mut below) = (Vec::new(), u64::MAX, u64::MAX);
    // From the newest generation back: each says how far the earlier ones count.
    while let Some(generation) = found
        .iter()
        .filter(|found| found.generation < below && found.sequence <= until)
        .map(|found| found.generation)
        .max()
    {
        let of_it = found.iter().filter(|found| found.generation == generation && found.sequence <= until);
        let mut follows = until;
        of_it.for_each(|found| {
            follows = follows.min(found.follows);
            counts.push((found.sequence, found.piece, &found.bytes));
        });
        (until, below) = (follows, generation);
    }
    counts.sort_unstable_by_key(|(sequence, ..)| *sequence);
    let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
    for (_, piece, bytes) in counts {
        match pieces.last_mut() {
            Some((last, all)) if *last == piece => all.extend_from_slice(bytes),
            _ => pieces.push((piece, bytes.to_vec())),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sequence: u64, generation: u64, piece: u64, follows: u64, text: &'static str) -> Found {
        Found { sequence, generation, piece, follows, bytes: Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn what_an_owner_writes_that_was_replaced_does_not_count() {
        let all = vec![
            found(1, 1, 0, 0, "a"),
            found(2, 1, 0, 0, "b"),
            found(5, 1, 0, 0, "late"),
            found(6, 2, 1, 2, "c"),
            found(7, 1, 0, 0, "later"),
            found(8, 2, 1, 2, "d"),
            found(9, 3, 2, 8, "e"),
            found(10, 2, 1, 2, "latest"),
        ];
        let pieces: Vec<(u64, String)> =
            pieces(all).into_iter().map(|(piece, bytes)| (piece, String::from_utf8_lossy(&bytes).into())).collect();
        assert_eq!(pieces, [(0, "ab".into()), (1, "cd".into()), (2, "e".into())]);
    }
}
