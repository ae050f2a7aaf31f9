//! What is known of a journal without its codes: marks, and where sound and silence lie in media
//! time.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::ops::Range;
use std::time::SystemTime;

use super::record::{Change, Head, Mark, Record, What};
use super::wall::{micros, moment};
use crate::audio::OPUS_RATE;

/// What lies at a media time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Sound until there, or until more is known.
    Sound(u64),
    /// Silence until there.
    Silence(u64),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Media time from which on all is known.
    start: u64,
    /// Frames of silence before it.
    silence: u64,
    /// Media time before which all can be had.
    end: u64,
    marks: VecDeque<Mark>,
}

impl Index {
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn marks(&self) -> impl DoubleEndedIterator<Item = &Mark> {
        self.marks.iter()
    }

    /// Frames of silence before the end.
    pub(super) fn all_silence(&self) -> u64 {
        self.end - self.voice_time(self.end)
    }

    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Head(head) if self.marks.is_empty() => {
                (self.start, self.end, self.silence) = (head.start, head.start, head.silence);
            }
            // A later piece begins where the one before it ended.
            Record::Head(_) => {}
            Record::Sound(sound) => self.end = self.end.max(sound.end),
            Record::Mark(mark) => self.note_mark(mark),
        }
    }

    fn note_mark(&mut self, mark: &Mark) {
        if let What::Silence { frames } = mark.what {
            self.end = self.end.max(mark.at + frames);
            // A pause is written down bit by bit.
            if let Some(Mark { at, what: What::Silence { frames: before }, .. }) = self.marks.back_mut()
                && *at + *before == mark.at
            {
                *before += frames;
                return;
            }
        }
        // Every piece repeats what is in force.
        if !self.marks.contains(mark) {
            let later = self.marks.iter().rev().take_while(|known| known.at > mark.at).count();
            self.marks.insert(self.marks.len() - later, mark.clone());
        }
    }

    /// Forgets what lies before the piece with this head, but not what is in force there.
    pub(super) fn begin_with(&mut self, head: &Head) {
        (self.start, self.silence) = (head.start, head.silence);
        let kept = |mark: &Mark, later: &VecDeque<Mark>| match mark.what {
            What::Change(_) | What::Run(_) | What::Play => {
                let kind = discriminant(&mark.what);
                !later.iter().any(|other| other.at <= head.start && discriminant(&other.what) == kind)
            }
            What::Silence { frames } | What::Fade { frames, .. } => mark.at + frames > head.start,
            What::End { .. } => false,
        };
        let mut marks = VecDeque::new();
        while let Some(mut mark) = self.marks.pop_front() {
            if mark.at < head.start && !kept(&mark, &self.marks) {
                continue;
            }
            if let What::Silence { frames } = &mut mark.what
                && mark.at < head.start
            {
                *frames -= head.start - mark.at;
                mark.at = head.start;
            }
            marks.push_back(mark);
        }
        self.marks = marks;
    }

    /// The last mark of a kind that is in force at `frame`.
    pub(super) fn in_force<'a, T: 'a>(&'a self, frame: u64, of: impl Fn(&'a Mark) -> Option<T>) -> Option<T> {
        self.marks.iter().rev().filter(|mark| mark.at <= frame).find_map(of)
    }

    /// What was asked for that is in force at `frame`.
    pub(super) fn change(&self, frame: u64) -> Option<&Change> {
        self.in_force(frame, |mark| match &mark.what {
            What::Change(change) => Some(change),
            _ => None,
        })
    }

    /// Voice time at which another voice takes over from the one that began at `base`.
    pub(super) fn voice_end(&self, base: u64) -> u64 {
        let bases = self.marks.iter().filter_map(|mark| match &mark.what {
            What::Run(run) if run.base > base => Some(run.base),
            _ => None,
        });
        bases.min().unwrap_or(u64::MAX)
    }

    fn silences(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.marks.iter().filter_map(|mark| match mark.what {
            What::Silence { frames } => Some(mark.at..mark.at + frames),
            _ => None,
        })
    }

    /// The silences and fades that a span of media time meets.
    pub(super) fn fades(&self, span: Range<u64>) -> Vec<(u64, u64, bool)> {
        let fade = |mark: &Mark| match mark.what {
            What::Fade { frames, rises } if mark.at < span.end && mark.at + frames > span.start => {
                Some((mark.at, frames, rises))
            }
            _ => None,
        };
        self.marks.iter().filter_map(fade).collect()
    }

    pub(super) fn place(&self, frame: u64) -> Place {
        let mut next = u64::MAX;
        for silence in self.silences() {
            if silence.contains(&frame) {
                return Place::Silence(silence.end);
            }
            if silence.start > frame {
                next = next.min(silence.start);
            }
        }
        Place::Sound(next)
    }

    /// Media time without the silence of pauses.
    pub(super) fn voice_time(&self, frame: u64) -> u64 {
        let before = self.silences().map(|silence| silence.end.min(frame).saturating_sub(silence.start));
        frame - self.silence - before.sum::<u64>()
    }

    /// When players play this frame.
    pub(super) fn wall_of(&self, frame: u64) -> Option<SystemTime> {
        let (at, wall) = self.in_force(frame, |mark| (mark.what == What::Play).then_some((mark.at, mark.wall)))?;
        Some(moment(wall + time(frame - at)))
    }

    /// The frame that players play then; in a time in which nothing was played the next one.
    pub(super) fn frame_at(&self, wall: SystemTime) -> Option<u64> {
        let wall = micros(wall);
        let mut plays = self.marks.iter().filter(|mark| mark.what == What::Play).peekable();
        let mut found = None;
        while let Some(play) = plays.next() {
            if play.wall > wall && found.is_some() {
                break;
            }
            let passed = u128::from(wall.saturating_sub(play.wall)) * u128::from(OPUS_RATE) / 1_000_000;
            let most = plays.peek().map_or(u64::MAX, |next| next.at);
            found = Some((play.at + passed as u64).min(most));
        }
        found
    }
}

/// How long so many frames last, in microseconds.
pub(super) fn time(frames: u64) -> u64 {
    (u128::from(frames) * 1_000_000 / u128::from(OPUS_RATE)) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::record::Origin;
    use super::*;

    fn index(marks: &[(u64, u64, What)]) -> Index {
        let mut index = Index::default();
        for (at, wall, what) in marks {
            index.note(&Record::Mark(Mark { at: *at, wall: *wall, what: what.clone() }));
        }
        index
    }

    fn silence(frames: u64) -> What {
        What::Silence { frames }
    }

    #[test]
    fn wall_and_media_time_go_together_while_players_play() {
        let second = 1_000_000;
        let index = index(&[(0, 100 * second, What::Play), (480_000, 200 * second, What::Play)]);
        assert_eq!(index.wall_of(48_000), Some(moment(101 * second)));
        assert_eq!(index.wall_of(528_000), Some(moment(201 * second)));
        assert_eq!(index.frame_at(moment(105 * second)), Some(240_000));
        // Between the two nothing was played.
        assert_eq!(index.frame_at(moment(150 * second)), Some(480_000));
        assert_eq!(index.frame_at(moment(202 * second)), Some(576_000));
        assert_eq!(index.frame_at(moment(5)), Some(0));
    }

    #[test]
    fn the_silence_of_pauses_is_no_voice_time() {
        let index = index(&[(1000, 0, silence(500)), (1500, 0, silence(500)), (3000, 0, silence(100))]);
        assert_eq!(index.marks().count(), 2, "a pause is one");
        assert_eq!((index.place(999), index.place(1999)), (Place::Sound(1000), Place::Silence(2000)));
        assert_eq!((index.place(2000), index.place(5000)), (Place::Sound(3000), Place::Sound(u64::MAX)));
        assert_eq!([500, 1500, 2500, 3100].map(|frame| index.voice_time(frame)), [500, 1000, 1500, 2000]);
        assert_eq!((index.end(), index.all_silence()), (3100, 1100));
    }

    #[test]
    fn what_is_in_force_outlives_the_piece_that_said_it() {
        let mut index = index(&[
            (0, 1, What::Play),
            (10, 2, What::Play),
            (20, 0, silence(100)),
            (130, 3, What::Play),
            (140, 0, silence(10)),
        ]);
        let (channels, stream) = (1, String::new());
        index.begin_with(&Head { version: 1, stream, origin: Origin::default(), channels, start: 60, silence: 40 });
        let marks: Vec<_> = index.marks().map(|mark| (mark.at, mark.wall)).collect();
        assert_eq!(marks, [(10, 2), (60, 0), (130, 3), (140, 0)]);
        assert_eq!((index.start(), index.voice_time(130), index.all_silence()), (60, 30, 110));
    }
}
