//! When the sound of a stream was made, and what played.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::audio::OPUS_RATE;
use crate::audio::hls::{SEGMENT, Title};

/// Changes that are remembered: more than there can be in what is kept of the sound, unless somebody plays with them.
const CHANGES: usize = 256;

/// Both kinds of changes, in media time.
#[derive(Default)]
pub(super) struct Timeline {
    runs: VecDeque<Run>,
    titles: VecDeque<Title>,
}

/// Sound that was made without a stop.
#[derive(Clone, Copy)]
struct Run {
    from: u64,
    /// A frame, and when it was made.
    due: u64,
    date: SystemTime,
}

impl Timeline {
    pub(super) fn new(title: String) -> Self {
        Self { runs: VecDeque::new(), titles: [Title { at: 0, text: title }].into() }
    }

    pub(super) fn runs(&mut self, from: u64, due: u64, date: SystemTime) {
        push(&mut self.runs, Run { from, due, date });
    }

    pub(super) fn titled(&mut self, title: Title) {
        push(&mut self.titles, title);
    }

    /// When a frame was made.
    pub(super) fn date(&self, frame: u64) -> SystemTime {
        let run = self.runs.iter().rfind(|run| run.from <= frame).or(self.runs.front());
        let Some(Run { due, date, .. }) = run.copied() else { return SystemTime::now() };
        let apart = Duration::from_micros(frame.abs_diff(due) * 1_000_000 / u64::from(OPUS_RATE));
        let then = if frame < due { date.checked_sub(apart) } else { date.checked_add(apart) };
        then.unwrap_or(date)
    }

    /// What begins within `from..to`, and first what is in force `before`, if wanted.
    pub(super) fn titles(&self, from: u64, to: u64, before: bool) -> Vec<Title> {
        let first = self.titles.iter().rposition(|title| title.at <= from).unwrap_or(0);
        let since = self.titles.iter().skip(first).take_while(|title| title.at < to);
        since.filter(|title| before || title.at >= from).cloned().collect()
    }

    /// What plays from the beginning of a segment on, with the times at which it began.
    pub(super) fn titles_since(&self, segment: u64) -> Vec<(SystemTime, Title)> {
        let titles = self.titles(segment * SEGMENT, u64::MAX, true);
        titles.into_iter().map(|title| (self.date(title.at), title)).collect()
    }
}

fn push<T>(changes: &mut VecDeque<T>, change: T) {
    if changes.len() == CHANGES {
        changes.pop_front();
    }
    changes.push_back(change);
}
