//! Writes a stream's journal beside its feed: gathers what was taken of the voice, and puts it down
//! every other second.

use std::sync::Arc;

use super::record::{Origin, Record, Run, Sound, What};
use super::{Journal, Journals, Seam};
use crate::audio::{LEVEL_BLOCK, OPUS_RATE};
use crate::engine::{CodecShape, Passage};

/// Sound that is gathered before it is written: what a process that dies takes with it. Listeners
/// are kept as far ahead of real time, so nothing of it was heard.
const GATHERED: u64 = 2 * OPUS_RATE as u64;
/// The same where somebody listens at another node, who is to hear what was sent go on: a page.
const SOON: u64 = OPUS_RATE as u64 / 5;

pub(in super::super) struct Scribe {
    journal: Arc<Journal>,
    /// Voice time at which this voice begins.
    base: u64,
    /// Of the voice, and of the journal.
    run: Option<(u32, Run)>,
    runs: u32,
    sound: Option<Sound>,
    /// The block of 100 ms that is being filled, and the level in force, in hundredths of a
    /// decibel.
    level: (u64, i16),
    /// What was in force when the last sound was written, and changes since.
    levels: Vec<(u64, i16)>,
    /// Media time up to which all is written.
    written: u64,
    /// Silence that is not written yet: from when on, and how much.
    silence: Option<(u64, u64)>,
    /// Sound that is gathered before it is written.
    gathered: u64,
    /// Where the voice goes on from another one's run: what its first run and its samples and
    /// blocks are there.
    joined: Option<Joined>,
}

struct Joined {
    frame: u64,
    sample: i64,
    block: u64,
    /// The frame of the run behind the last one that is written down.
    known: u64,
}

impl Scribe {
    /// For a voice that begins where the journal ends.
    pub(in super::super) fn new(journal: Arc<Journal>) -> Self {
        let (end, base, runs) = {
            let state = journal.lock();
            let runs = state.index.marks().filter_map(|mark| match &mark.what {
                What::Run(run) => Some(run.number + 1),
                _ => None,
            });
            let end = state.index.end();
            (end, state.index.voice_time(end), runs.max().unwrap_or(0))
        };
        Self {
            journal,
            base,
            run: None,
            runs,
            sound: None,
            level: (0, 0),
            levels: vec![(0, 0)],
            written: end,
            silence: None,
            gathered: GATHERED,
            joined: None,
        }
    }

    /// Whether a voice with one channel is heard in a room.
    pub(in super::super) fn room(&self) -> bool {
        self.journal.origin().room
    }

    /// For a voice that goes on from another one's, as if it were the same.
    pub(in super::super) fn joining(journal: Arc<Journal>, seam: &Seam) -> Self {
        let blocks = |sample: i64| {
            let place = sample * i64::from(OPUS_RATE) / i64::from(seam.run.codec().rate);
            place.unsigned_abs() / u64::from(LEVEL_BLOCK)
        };
        let block = blocks(seam.sample);
        let level = (block + (seam.at - seam.begins) / u64::from(LEVEL_BLOCK), seam.level);
        Self {
            base: seam.run.base,
            run: Some((0, seam.run.clone())),
            level,
            levels: vec![level],
            joined: Some(Joined { frame: seam.frame, sample: seam.sample, block, known: seam.known }),
            ..Self::new(journal)
        }
    }

    /// Whether somebody listens who goes on from what is written should this process die.
    pub(in super::super) fn write_soon(&mut self, soon: bool) {
        self.gathered = if soon { SOON } else { GATHERED };
    }

    /// Media time up to which all is written.
    pub(in super::super) fn written(&self) -> u64 {
        self.written
    }

    /// The voice's sound was taken up to where these codes, and those before them, reach; media
    /// time is `at`.
    pub(in super::super) fn passage(&mut self, at: u64, passage: &Passage) {
        if !self.journal.keeps() {
            return;
        }
        let (mut first, mut codes) = (passage.first, &passage.codes[..]);
        if let Some(joined) = self.joined.as_ref().filter(|_| passage.run == 0) {
            first += joined.frame;
            let known = joined.known.saturating_sub(first);
            codes = codes.get(known as usize * passage.codec.codebooks..).unwrap_or_default();
            first += known;
            if codes.is_empty() {
                return;
            }
        }
        let run = match &self.run {
            Some((number, run)) if *number == passage.run => run.number,
            _ => {
                self.put(at);
                let origin = passage.origin + self.joined.as_ref().map_or(0, |joined| joined.sample);
                let run = Run::new(self.runs, self.base, origin, passage.codec);
                self.runs += 1;
                self.journal.mark(at, What::Run(run.clone()));
                self.run.insert((passage.run, run)).1.number
            }
        };
        let sound = self.sound.get_or_insert_with(|| Sound {
            end: at,
            run,
            first,
            codebooks: passage.codec.codebooks,
            card: passage.codec.card,
            codes: Vec::new(),
            levels: Vec::new(),
        });
        sound.codes.extend_from_slice(codes);
    }

    /// The level that rules at the end of a block of 100 ms, in hundredths of a decibel.
    pub(in super::super) fn level(&mut self, block: u64, level: i16) {
        let block = block + self.joined.as_ref().map_or(0, |joined| joined.block);
        if self.level.1 != level {
            self.levels.push((block, level));
        }
        self.level = (block, level);
    }

    /// All sound before media time `at` was given out.
    pub(in super::super) fn heard(&mut self, at: u64) {
        self.put_silence();
        if at >= self.written + self.gathered {
            self.put(at);
        }
    }

    /// Silence was put in.
    pub(in super::super) fn silence(&mut self, at: u64, frames: u64) {
        if self.silence.is_none() {
            self.put(at);
        }
        let (_, all) = self.silence.get_or_insert((at, 0));
        *all += frames;
        if *all >= self.gathered {
            self.put_silence();
        }
    }

    /// The sound rises from silence, or falls to it.
    pub(in super::super) fn fade(&mut self, at: u64, frames: u64, rises: bool) {
        if self.run.is_some() {
            self.journal.mark(at, What::Fade { frames, rises });
        }
    }

    /// Players play frame `at` now.
    pub(in super::super) fn plays(&mut self, at: u64) {
        self.journal.mark(at, What::Play);
    }

    /// Writes down what is gathered: for a while nothing follows, or nothing at all.
    pub(in super::super) fn rests(&mut self, at: u64) {
        self.put_silence();
        self.put(at);
    }

    fn put_silence(&mut self) {
        if let Some((at, frames)) = self.silence.take().filter(|_| self.run.is_some()) {
            self.journal.mark(at, What::Silence { frames });
            self.written = at + frames;
        }
    }

    fn put(&mut self, at: u64) {
        let at = at.max(self.written);
        let (Some((_, run)), true) = (&self.run, at > self.written || self.sound.is_some()) else { return };
        let codec = run.codec();
        let empty = Sound {
            end: at,
            run: run.number,
            first: 0,
            codebooks: codec.codebooks,
            card: codec.card,
            codes: Vec::new(),
            levels: Vec::new(),
        };
        let mut sound = self.sound.take().unwrap_or(empty);
        sound.end = at;
        sound.levels = std::mem::replace(&mut self.levels, vec![self.level]);
        self.written = at;
        self.journal.append(&Record::Sound(sound));
    }
}

/// Writes so many seconds of a stream that nobody plays, for benchmarks; gives the bytes of its
/// journal.
#[doc(hidden)]
pub fn rehearse(journals: &Journals, stream: &str, codec: CodecShape, seconds: u64) -> u64 {
    let journal = journals.begin(stream, Origin::default(), codec.channels);
    let mut scribe = Scribe::new(Arc::clone(&journal));
    let block = u64::from(codec.rate) / 50;
    let mut brought = 0;
    for n in 1..=50 * seconds {
        let end = Passage::needed(&codec, 0, n * block);
        let codes =
            (brought..end).flat_map(|frame| (0..codec.codebooks as u64).map(move |k| (frame * 37 + k * 101) as u32));
        let codes = codes.map(|code| code % codec.card).collect();
        scribe.passage(0, &Passage { codec, run: 0, origin: 0, first: brought, codes });
        brought = end;
        scribe.level(n / 5, (n / 500 % 40) as i16);
        scribe.heard(n * u64::from(OPUS_RATE) / 50);
    }
    journal.bytes()
}
