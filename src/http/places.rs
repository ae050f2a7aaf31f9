//! Places for connections: there are only so many, and nobody keeps one by doing nothing.
//!
//! When all are taken, a newcomer gets the place of a connection that is idle, else of one whose
//! upload is still on its way, else of one that takes its time to fetch an answer; of these, one of
//! the client that has most of them. Listeners, sockets and requests that are being worked on keep
//! theirs. When there is nobody else, the newcomer gets one of a few spare places, where probes are
//! answered and everything else is told to come back.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::exchange::{Exchange, Stage};

/// Places beyond the limit.
const SPARE: usize = 32;

/// All connections of the server.
pub(super) struct Places {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    /// In order of their coming.
    guests: BTreeMap<u64, Guest>,
}

struct Guest {
    address: IpAddr,
    exchange: Arc<Exchange>,
    close: CancellationToken,
    is_spare: bool,
}

/// A connection's place; free again when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().guests.remove(&self.number);
    }
}

impl Place {
    /// Whether there is no place but a spare one for this connection.
    pub fn is_spare(&self) -> bool {
        let mut inner = self.places.lock();
        if !inner.guests.get(&self.number).is_some_and(|guest| guest.is_spare) {
            return false;
        }
        // Somebody may have left since it came.
        let is_spare = inner.count(false) >= self.places.limit;
        if let Some(guest) = inner.guests.get_mut(&self.number) {
            guest.is_spare = is_spare;
        }
        is_spare
    }
}

impl Places {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in; another one may have to go for it.
    pub fn enter(self: &Arc<Self>, address: IpAddr, exchange: Arc<Exchange>, close: CancellationToken) -> Place {
        let mut inner = self.lock();
        let mut is_spare = false;
        if inner.guests.len() >= self.limit && inner.count(false) >= self.limit {
            is_spare = !inner.make_room(|guest| !guest.is_spare);
            if is_spare && inner.count(true) >= SPARE {
                inner.make_room(|guest| guest.is_spare);
            }
        }
        inner.last += 1;
        let number = inner.last;
        inner.guests.insert(number, Guest { address: address.to_canonical(), exchange, close, is_spare });
        Place { places: Arc::clone(self), number }
    }

    /// Closes a connection that can be spared: the system has no room for more. Whether there was
    /// one.
    pub fn make_room(&self) -> bool {
        self.lock().make_room(|_| true)
    }
}

impl Inner {
    /// How many have a spare place, or how many a real one.
    fn count(&self, is_spare: bool) -> usize {
        self.guests.values().filter(|guest| guest.is_spare == is_spare).count()
    }

    fn make_room(&mut self, among: impl Fn(&Guest) -> bool) -> bool {
        for stage in [Stage::Idle, Stage::Uploads, Stage::Fetches] {
            let here = || self.guests.iter().filter(|(_, guest)| among(guest) && guest.exchange.stage() == stage);
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            for (_, guest) in here() {
                *counts.entry(guest.address).or_default() += 1;
            }
            // Of equal ones the first that came.
            let Some(number) = here().rev().max_by_key(|(_, guest)| counts[&guest.address]).map(|(number, _)| *number)
            else {
                continue;
            };
            if let Some(guest) = self.guests.remove(&number) {
                guest.close.cancel();
            }
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Visitor {
        place: Place,
        exchange: Arc<Exchange>,
        close: CancellationToken,
    }

    fn enter(places: &Arc<Places>, address: &str) -> Visitor {
        let (exchange, close) = (Arc::<Exchange>::default(), CancellationToken::new());
        exchange.flushed();
        let place = places.enter(address.parse().unwrap(), Arc::clone(&exchange), close.clone());
        Visitor { place, exchange, close }
    }

    #[test]
    fn a_newcomer_gets_the_place_of_an_idle_connection_of_the_client_that_has_most() {
        let places = Places::new(4);
        let honest = enter(&places, "203.0.113.1");
        let greedy: Vec<Visitor> = (0..3).map(|_| enter(&places, "203.0.113.2")).collect();
        let newcomer = enter(&places, "203.0.113.3");
        let gone: Vec<bool> = greedy.iter().map(|visitor| visitor.close.is_cancelled()).collect();
        assert_eq!(gone, [true, false, false]);
        assert!(!honest.close.is_cancelled() && !newcomer.place.is_spare());
        assert_eq!(places.lock().guests.len(), 4);
    }

    #[test]
    fn who_is_at_work_keeps_its_place_and_uploads_go_before_fetches() {
        let places = Places::new(3);
        let [listener, upload, fetch] = ["203.0.113.1", "203.0.113.2", "203.0.113.3"].map(|it| enter(&places, it));
        let _heard = listener.exchange.works();
        let _work = upload.exchange.works();
        let _uploading = upload.exchange.uploads();
        fetch.exchange.writes(b"x");
        let first = enter(&places, "203.0.113.4");
        assert!(upload.close.is_cancelled() && !fetch.close.is_cancelled() && !listener.close.is_cancelled());
        let _work = first.exchange.works();
        let second = enter(&places, "203.0.113.5");
        assert!(fetch.close.is_cancelled() && !listener.close.is_cancelled());
        let _work = second.exchange.works();
        let spare: Vec<Visitor> = (0..SPARE + 5).map(|_| enter(&places, "203.0.113.6")).collect();
        assert!(spare.iter().all(|visitor| visitor.close.is_cancelled() || visitor.place.is_spare()));
        assert_eq!(places.lock().guests.len(), 3 + SPARE);
        assert!(!listener.close.is_cancelled() && !first.close.is_cancelled() && !second.close.is_cancelled());
        // When somebody leaves, a spare place becomes a real one.
        drop(listener);
        assert!(!spare.last().unwrap().place.is_spare());
    }
}
