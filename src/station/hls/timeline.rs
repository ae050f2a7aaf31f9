//! When the sound of a stream plays, and what plays: from its journal, or from what is remembered
//! where nothing is written down.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::journal::Journal;
use super::rewind;
use crate::audio::OPUS_RATE;
use crate::audio::hls::{Rendition, Title};

/// Changes that are remembered: more than there can be in what is kept of the sound, unless
/// somebody plays with them.
const CHANGES: usize = 256;

/// Both kinds of changes, in media time.
pub(super) struct Timeline {
    journal: Arc<Journal>,
    /// Frames, and when players play them and what follows.
    runs: VecDeque<(u64, SystemTime)>,
    titles: VecDeque<Title>,
}

impl Timeline {
    pub(super) fn new(journal: Arc<Journal>, title: String) -> Self {
        Self { journal, runs: VecDeque::new(), titles: [Title { at: 0, text: title }].into() }
    }

    pub(super) fn plays(&mut self, from: u64, date: SystemTime) {
        push(&mut self.runs, (from, date));
    }

    pub(super) fn titled(&mut self, title: Title) {
        push(&mut self.titles, title);
    }

    /// When players play a frame.
    pub(super) fn date(&self, frame: u64) -> SystemTime {
        let remembered = || {
            let (from, date) = self.runs.iter().rfind(|(from, _)| *from <= frame).or(self.runs.front())?;
            let passed = Duration::from_micros(frame.saturating_sub(*from) * 1_000_000 / u64::from(OPUS_RATE));
            Some(*date + passed)
        };
        // What began before everything that is kept is dated by what is.
        let earlier = || {
            let start = self.journal.kept().start;
            let passed = Duration::from_micros(start.checked_sub(frame)? * 1_000_000 / u64::from(OPUS_RATE));
            self.journal.wall_of(start)?.checked_sub(passed)
        };
        self.journal.wall_of(frame).or_else(earlier).or_else(remembered).unwrap_or_else(SystemTime::now)
    }

    /// What begins within a span, and first what is in force `before`, if wanted.
    pub(super) fn titles(&self, span: Range<u64>, before: bool) -> Vec<Title> {
        let titles = if self.journal.keeps() { self.journal.titles() } else { self.titles.iter().cloned().collect() };
        let first = titles.iter().rposition(|title| title.at <= span.start).unwrap_or(0);
        let since = titles.into_iter().skip(first).take_while(|title| title.at < span.end);
        since.filter(|title| before || title.at >= span.start).collect()
    }

    /// Media time of the end of what is written down.
    pub(super) fn end(&self) -> u64 {
        self.journal.kept().end
    }

    /// The numbers of the segments that can be made again, if anything is written down.
    pub(super) fn again(&self, rendition: Rendition, ended: bool) -> Option<Range<u64>> {
        self.journal.keeps().then(|| rewind::numbers(&self.journal, rendition, ended))
    }
}

fn push<T>(changes: &mut VecDeque<T>, change: T) {
    if changes.len() == CHANGES {
        changes.pop_front();
    }
    changes.push_back(change);
}
