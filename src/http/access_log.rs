//! The access log: a line for a request, and no more lines of one client than a person could read.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use warp::http::{Method, Version};

use super::client::Client;
use super::ops;

/// Lines of one client in a [`PERIOD`]; further requests are counted in one line.
const LINES: u32 = 100;
const PERIOD: Duration = Duration::from_secs(10);
/// Clients that are counted one by one; more share a count.
const CLIENTS: usize = 4096;
/// Characters of a path at most.
const PATH: usize = 200;

/// What the log has of each client lately.
#[derive(Default)]
pub(super) struct AccessLog(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// When the present period began.
    since: Option<Instant>,
    requests: HashMap<IpAddr, u32>,
}

/// One request and what became of it. The query is left out: it may hold a token, and prompts are
/// the listener's own business.
pub(super) struct Line<'a> {
    pub client: &'a Client,
    pub method: &'a Method,
    pub path: &'a str,
    pub version: Version,
    pub status: u16,
    pub elapsed: Duration,
}

impl AccessLog {
    pub fn write(&self, line: Line<'_>) {
        let Line { client, method, path, version, status, elapsed } = line;
        let address = client.address;
        let proxy = client.proxy.filter(|proxy| *proxy != address).map(tracing::field::display);
        // Asked every few seconds by machines.
        if ops::is_probe(path) || path == "/metrics" {
            tracing::debug!(client = %address, proxy, %method, path, ?version, status, ?elapsed, "request");
            return;
        }
        let (has_room, left_out) = self.counts(|counts| counts.take(address, Instant::now()));
        for (address, more) in left_out {
            tracing::warn!(client = %address, "{more} more requests of this client are not listed");
        }
        if has_room {
            let path = path.char_indices().nth(PATH).map_or(path, |(end, _)| &path[..end]);
            tracing::info!(client = %address, proxy, %method, path, ?version, status, ?elapsed, "request");
        }
    }

    fn counts<T>(&self, work: impl FnOnce(&mut Counts) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counts {
    /// Whether one more line may be written, and what was left out of a period that is over.
    fn take(&mut self, client: IpAddr, now: Instant) -> (bool, Vec<(IpAddr, u32)>) {
        let mut left_out = Vec::new();
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            self.since = Some(now);
            let over = self.requests.drain().filter(|(_, requests)| *requests > LINES);
            left_out = over.map(|(client, requests)| (client, requests - LINES)).collect();
        }
        let is_new = self.requests.len() >= CLIENTS && !self.requests.contains_key(&client);
        let client = if is_new { Ipv6Addr::UNSPECIFIED.into() } else { client };
        let requests = self.requests.entry(client).or_default();
        *requests = requests.saturating_add(1);
        (*requests <= LINES, left_out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_client_cannot_fill_the_log() {
        let (mut counts, began) = (Counts::default(), Instant::now());
        let [loud, quiet] = ["203.0.113.1", "203.0.113.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let lines = (0..5000).filter(|_| counts.take(loud, began).0).count();
        assert_eq!(lines, LINES as usize);
        assert_eq!(counts.take(quiet, began), (true, Vec::new()));
        // The next period begins with what the last one left out.
        assert_eq!(counts.take(quiet, began + PERIOD), (true, vec![(loud, 4900)]));
        assert_eq!(counts.take(loud, began + PERIOD), (true, Vec::new()));
    }

    #[test]
    fn clients_without_number_share_a_count() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let lines = (0..100_000u32).filter(|n| counts.take(IpAddr::from(n.to_be_bytes()), now).0).count();
        assert_eq!(lines, CLIENTS + LINES as usize);
        assert!(counts.requests.len() <= CLIENTS + 1);
    }
}
