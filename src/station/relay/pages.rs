//! Pages that come from the node that makes a stream, in order and with those that are missing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::time::{Instant, timeout};

use super::super::Listen;
use super::super::abroad;
use super::super::clock::Clock;
use super::super::page_ring::Page;
use super::{Heard, Relay};
use crate::audio::Span;
use crate::telemetry::CLUSTER_PAGES_MISSED;

/// Pages that are missing are waited for so long while listeners play what they have in store.
const FILLED: Duration = Duration::from_secs(1);
/// The same where they have less.
const FILLED_SOON: Duration = Duration::from_millis(150);
/// Pages that wait behind those that are missing.
const AHEAD: usize = 64;
/// The last pages may come behind the word that the stream is over.
const LAST_PAGES: Duration = Duration::from_secs(2);

/// How far the listeners of one way to listen are.
#[derive(Debug)]
pub(super) struct Progress {
    /// Where the last page ended.
    pub(super) end: u64,
    /// What they play. Pages may come late and never come early, so the one that came soonest tells:
    /// by what the last one tells, listeners would lose of their store at every change of owners.
    pub(super) clock: Clock,
}

impl Progress {
    fn begin(now: Instant, end: u64, ahead: u64) -> Self {
        // Players are kept so far behind what they are sent.
        Self { end, clock: Clock::start(now, end.saturating_sub(ahead), ahead) }
    }

    fn page(&mut self, now: Instant, page: &Span, ahead: u64) {
        if self.clock.due(now) < page.end {
            *self = Self::begin(now, page.end, ahead);
        } else if self.clock.heard(now) > self.end {
            // They had nothing left, and have waited for it.
            self.clock = Clock::start(now, page.start, ahead);
        }
        self.end = page.end;
    }
}

/// Pages that wait for those before them, by where they begin.
pub(super) struct Ahead {
    since: Instant,
    pages: BTreeMap<u64, Bytes>,
}

impl Ahead {
    /// When they are heard in spite of what is missing.
    pub(super) fn until(&self, listen: Listen) -> Instant {
        self.since + if listen.low_latency { FILLED_SOON } else { FILLED }
    }
}

impl Relay {
    /// What owners have sent whom this one has followed does not count any more.
    pub(super) fn follow(&mut self, generation: u64) {
        if generation > self.generation {
            self.generation = generation;
            self.ahead.clear();
        }
    }

    pub(super) fn page(&mut self, listen: Listen, generation: u64, bytes: Bytes) {
        if generation < self.generation {
            return;
        }
        self.follow(generation);
        let end = self.progress.get(&listen).map(|progress| progress.end);
        // A newcomer is sent what others have already, and another owner begins before the place.
        let Some(page) = abroad::read(listen.format, bytes.clone(), end.unwrap_or(0)) else { return };
        // What is missing for longer than listeners have in store is silence that they have heard.
        let store = self.stream.variants().burst(listen.low_latency);
        if end.is_some_and(|end| page.at.start > end && page.at.start - end <= store) {
            let ahead = self.ahead.entry(listen).or_insert_with(|| {
                self.misses = true;
                Ahead { since: Instant::now(), pages: BTreeMap::new() }
            });
            ahead.pages.insert(page.at.start, bytes);
            if ahead.pages.len() > AHEAD {
                self.hear_ahead(listen, true);
            }
            return;
        }
        self.publish(listen, page);
        self.hear_ahead(listen, false);
    }

    /// Nothing is missing any more, or it is too late for what is.
    fn hear_ahead(&mut self, listen: Listen, mut in_spite: bool) {
        let Some(mut ahead) = self.ahead.remove(&listen) else { return };
        while let Some(first) = ahead.pages.first_entry() {
            let end = self.progress.get(&listen).map_or(0, |progress| progress.end);
            if *first.key() > end && !std::mem::take(&mut in_spite) {
                // Somewhere else something is missing too.
                self.misses = true;
                ahead.since = Instant::now();
                self.ahead.insert(listen, ahead);
                return;
            }
            if let Some(page) = abroad::read(listen.format, first.remove(), end) {
                self.publish(listen, page);
            }
        }
    }

    /// Listeners do not wait any longer for what has not come.
    pub(super) fn give_up_missing(&mut self) {
        let now = Instant::now();
        let late = self.ahead.iter().filter(|(listen, ahead)| ahead.until(**listen) <= now).map(|(listen, _)| *listen);
        for listen in late.collect::<Vec<_>>() {
            self.hear_ahead(listen, true);
        }
    }

    fn publish(&mut self, listen: Listen, page: Page) {
        let variants = self.stream.variants().heard();
        let Some(variant) = variants.iter().find(|variant| variant.listen == listen) else { return };
        let now = Instant::now();
        self.paged_at = now;
        let ahead = self.stream.variants().burst(listen.low_latency);
        let progress = self.progress.entry(listen).or_insert_with(|| Progress::begin(now, page.at.end, ahead));
        if page.at.start > progress.end {
            counter!(CLUSTER_PAGES_MISSED).increment(1);
        }
        progress.page(now, &page.at, ahead);
        variant.ring.publish(page, &mut self.scratch);
    }

    /// Takes the pages that are under way.
    pub(super) async fn last_pages(&mut self) {
        let rest = async {
            while !self.stream.variants().is_over()
                && let Some(heard) = self.inbox.recv().await
            {
                if let Heard::Page(listen, generation, bytes) = heard {
                    self.page(listen, generation, bytes);
                }
            }
        };
        let _ = timeout(LAST_PAGES, rest).await;
        while let Some(listen) = self.ahead.keys().next().copied() {
            self.hear_ahead(listen, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_listeners_play_is_told_by_the_page_that_came_soonest() {
        const SECOND: u64 = crate::audio::OPUS_RATE as u64;
        let page = |n: u64| Span { start: (n - 1) * SECOND, end: n * SECOND, last: false };
        let (begin, ahead) = (Instant::now(), 2 * SECOND);
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut progress = Progress::begin(at(0), 2 * SECOND, ahead);
        // Late by 100, 20 and 60 ms.
        for (n, millis) in [(3, 1100), (4, 2020), (5, 3060)] {
            progress.page(at(millis), &page(n), ahead);
            assert_eq!((progress.end, progress.clock.heard(at(4000))), (n * SECOND, 4 * SECOND));
        }
        // The first one was late itself.
        progress.page(at(3950), &page(6), ahead);
        assert_eq!(progress.clock.heard(at(3950)), 4 * SECOND);
        // Nothing came until they had to wait, for a moment and for longer.
        for (n, millis) in [(7, 6000), (8, 9000)] {
            progress.page(at(millis), &page(n), ahead);
            assert_eq!((progress.end, progress.clock.heard(at(millis))), (n * SECOND, (n - 1) * SECOND));
        }
    }
}
