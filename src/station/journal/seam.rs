//! Where a voice goes on in the midst of another one's sound, as if it were the same: with the
//! codes of the other, at its samples, in its run.

use std::sync::Arc;

use super::super::StationError;
use super::Journal;
use super::reader::Reader;
use super::record::{Record, Run, What};
use crate::audio::{LEVEL_BLOCK, OPUS_RATE};
use crate::engine::Prefix;

/// Frames of 48 kHz before the place that are made again: whoever encodes has to hear what others
/// have sent already.
const AGAIN: u64 = 2 * OPUS_RATE as u64;
/// Frames before these that the codec needs until it gives what it gave.
const COLD: u64 = OPUS_RATE as u64;
/// Frames of sound of which codes are read: more than any model remembers.
const READ: u64 = 64 * OPUS_RATE as u64;

/// The end of one voice and the beginning of the next. Times are media times in frames of 48 kHz.
#[derive(Debug)]
pub(in super::super) struct Seam {
    /// What the voice is given; its sound begins behind what is skipped of it.
    pub(in super::super) prefix: Prefix,
    /// Where its sound begins.
    pub(in super::super) begins: u64,
    /// From here on it is what was heard.
    pub(in super::super) warm: u64,
    /// From here on it is new.
    pub(in super::super) at: u64,
    /// The level at that place, in hundredths of a decibel.
    pub(in super::super) level: i16,
    /// Seconds of the codes that were given, in voice time.
    pub(in super::super) given: f64,
    pub(super) run: Run,
    /// The frame of the run that is the voice's first, and the sample.
    pub(super) frame: u64,
    pub(super) sample: i64,
    /// The frame behind the last one that is written down.
    pub(super) known: u64,
}

/// What was read of a run.
struct Tail {
    run: Run,
    first: u64,
    codes: Vec<u32>,
    level: i16,
}

impl Journal {
    /// How a voice goes on at the end of what is written down; `most` says how many frames of a
    /// codec with a fingerprint are remembered, 0 of one that is not known. `None` where that
    /// cannot be done without being heard.
    ///
    /// # Errors
    /// [`StationError::Journal`].
    pub(in super::super) async fn seam(
        self: &Arc<Self>,
        most: impl Fn(u64) -> usize,
    ) -> Result<Option<Seam>, StationError> {
        let at = self.kept().end;
        let voice = self.lock().index.voice_time(at);
        let mut tail: Option<Tail> = None;
        let mut reader = Reader::new(Arc::clone(self), at.saturating_sub(READ));
        while let Some(record) = reader.next().await? {
            match record {
                Record::Mark(mark) => {
                    if let What::Run(run) = mark.what
                        && tail.as_ref().is_none_or(|tail| tail.run != run)
                    {
                        tail = Some(Tail { run, first: 0, codes: Vec::new(), level: 0 });
                    }
                }
                Record::Sound(sound) => {
                    let Some(tail) = tail.as_mut().filter(|tail| tail.run.number == sound.run) else { continue };
                    if tail.codes.is_empty() || tail.end() != sound.first {
                        (tail.first, tail.codes) = (sound.first, Vec::new());
                    }
                    tail.codes.extend_from_slice(&sound.codes);
                    tail.level = sound.levels.last().map_or(tail.level, |(_, level)| *level);
                }
                Record::Head(_) => {}
            }
        }
        Ok(tail.and_then(|tail| {
            let most = most(tail.run.codec().fingerprint);
            if most > 0 { tail.seam(at, voice, most) } else { None }
        }))
    }
}

impl Tail {
    /// The frame behind the last one.
    fn end(&self) -> u64 {
        self.first + (self.codes.len() / self.run.codec().codebooks) as u64
    }

    /// `at` is voice time `voice`.
    fn seam(self, at: u64, voice: u64, most: usize) -> Option<Seam> {
        let (codec, end) = (self.run.codec(), self.end());
        let (rate, hop) = (i64::from(codec.rate), codec.hop as i64);
        let sample = |frame: u64| self.run.origin + frame as i64 * hop;
        // The level moves in blocks since the voice began, and resamplers take whole ones of 20 ms.
        let is_place = |frame: &u64| {
            let scaled = sample(*frame) * i64::from(OPUS_RATE);
            scaled >= 0 && scaled % rate == 0 && (scaled / rate) % i64::from(LEVEL_BLOCK) == 0
        };
        let place = |frame: u64| self.run.base + (sample(frame) * i64::from(OPUS_RATE) / rate).unsigned_abs();
        if (self.first..end).is_empty() || self.run.frames_before(voice) > end {
            return None;
        }
        let wanted = voice.saturating_sub(AGAIN + COLD);
        let places = || (self.first..end).filter(is_place).take_while(|frame| place(*frame) <= voice);
        let begin = places().take_while(|frame| place(*frame) <= wanted).last().or_else(|| places().next())?;
        let begins = place(begin);
        // A voice that begins with its run's first frame is as warm as it ever was.
        let cold = if begin == 0 && sample(0) == 0 { 0 } else { COLD };
        let warm = (begins + cold).min(voice);
        let first = self.first.max(end.saturating_sub((most as u64).max(end - begin)));
        let from = (first - self.first) as usize * codec.codebooks;
        let prefix = Prefix {
            codes: self.codes[from..].into(),
            fingerprint: codec.fingerprint,
            heard: true,
            skipped: (begin - first) as usize,
        };
        let media = |place: u64| at - (voice - place);
        Some(Seam {
            prefix,
            begins: media(begins),
            warm: media(warm),
            at,
            level: self.level,
            given: place(end) as f64 / f64::from(OPUS_RATE),
            frame: first,
            sample: sample(begin),
            known: end,
            run: self.run,
        })
    }
}
