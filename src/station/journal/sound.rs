//! The sound of a stream's voice again, block by block in voice time: codes through the codec, then
//! the program that listeners heard it through, with the levels of that time.
//!
//! Whoever begins in the midst of a run gives the codec some frames before the place, whose sound
//! is thrown away: it carries a state that fades, and then gives what it gave when it had heard
//! everything.
//!
//! A long span is decoded in several places at once: see [`Decoding::push_in_parts`].

use std::collections::VecDeque;
use std::vec;

use super::super::StationError;
use super::super::level::Levels;
use super::super::program::Program;
use super::reader::Reader;
use super::record::{Record, Run, Sound, What};
use crate::audio::OPUS_RATE;
use crate::engine::{Chunk, Decoding, Engine, Parts};
use crate::units::{SampleRate, Samples};

/// Frames of 48 kHz that the program hears before the wanted place, and the codec before these: the
/// limiter lets go in 150 ms a time constant, and wholly after eleven of them; the state of a codec
/// fades in about a second.
const PROGRAM_WARM_UP: u64 = 2 * OPUS_RATE as u64;
const CODEC_WARM_UP: u64 = OPUS_RATE as u64;
/// Frames of codes that are decoded at once: few while somebody waits for the first sound.
const AT_FIRST: u64 = 25;
const AT_ONCE: u64 = 100;
/// Places in which a long span is decoded at once, and the seconds of each: fewer are not worth
/// what leads to them, more are held in memory.
const PARTS: u64 = 4;
const SHORTEST_PART: u64 = 8;
const LONGEST_PART: u64 = 30;
/// Frames of 48 kHz that the codec hears ahead of a part: more than before the program's, since what
/// follows is heard at once.
const PART_WARM_UP: u64 = 3 * OPUS_RATE as u64 / 2;

pub(super) struct VoiceSound {
    engine: Engine,
    reader: Reader,
    channels: usize,
    room: bool,
    /// Voice time of the next frame that is given out.
    next: u64,
    /// Voice time up to which somebody who waits for all of it wants it.
    until: Option<u64>,
    run: Option<Run>,
    /// Voice time at which its voice ends.
    limit: u64,
    decoder: Option<Decoder>,
    program: Option<Playing>,
    /// What the next program needs to know.
    levels: Levels,
    /// Frames that wait for the decoder, the next one first.
    codes: VecDeque<u32>,
    /// What follows them in the journal and is not more of them.
    pending: Option<Record>,
    /// Sound that waits for the program, and its first sample.
    decoded: vec::IntoIter<f32>,
    sample: i64,
    /// Something was given out.
    begun: bool,
    /// The voice has come to its end.
    over: bool,
}

/// The decoder of a run.
struct Decoder {
    codec: Decoding,
    /// The next frame that it takes.
    next: u64,
    /// The sample of the voice that it gives next.
    sample: i64,
}

/// The program of a voice.
struct Playing {
    program: Program,
    /// The next sample of the voice that it takes.
    taken: u64,
    /// Voice time of the next frame that it gives.
    gives: u64,
}

impl VoiceSound {
    /// Sound from voice time `from` on, of which the reader stands before [`VoiceSound::BEFORE`]
    /// frames earlier; `until` says how much of it will be asked for, if that is known.
    pub(super) fn new(
        engine: Engine,
        reader: Reader,
        (channels, room): (usize, bool),
        (from, until): (u64, Option<u64>),
    ) -> Self {
        Self {
            engine,
            reader,
            channels,
            room,
            next: from,
            until,
            run: None,
            limit: u64::MAX,
            decoder: None,
            program: None,
            levels: Levels::default(),
            codes: VecDeque::new(),
            pending: None,
            decoded: Vec::new().into_iter(),
            sample: 0,
            begun: false,
            over: false,
        }
    }

    /// How much earlier than the wanted sound its reader begins: codes lie a little before their
    /// sound.
    pub(super) const BEFORE: u64 = PROGRAM_WARM_UP + CODEC_WARM_UP + OPUS_RATE as u64;

    /// The next block; `None` if there is none at present.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<f32>>, StationError> {
        loop {
            let mut out = Vec::new();
            if !self.decoded.as_slice().is_empty() {
                self.play_some(&mut out)?;
            } else if self.are_enough() {
                self.decode().await?;
            } else {
                let record = match self.pending.take() {
                    None => self.reader.next().await?,
                    pending => pending,
                };
                match record {
                    Some(Record::Sound(sound)) => self.take(sound)?,
                    Some(Record::Head(_)) => {}
                    Some(Record::Mark(mark)) if !self.is_change(&mark.what) => {}
                    // What waits comes before it.
                    record if !self.codes.is_empty() => {
                        self.pending = record;
                        self.decode().await?;
                    }
                    None if std::mem::take(&mut self.over) => self.finish(None, &mut out).await?,
                    None => return Ok(None),
                    Some(Record::Mark(mark)) => match mark.what {
                        What::Run(run) => self.change_run(run, &mut out).await?,
                        _ => self.over = true,
                    },
                }
            }
            if !out.is_empty() {
                self.begun = true;
                return Ok(Some(out));
            }
        }
    }

    /// It ends a run or begins another one; every piece names the one that goes on, too.
    fn is_change(&self, what: &What) -> bool {
        match what {
            What::Run(run) => self.run.as_ref() != Some(run),
            What::End { .. } => true,
            _ => false,
        }
    }

    async fn change_run(&mut self, run: Run, out: &mut Vec<f32>) -> Result<(), StationError> {
        if self.run.as_ref().is_some_and(|before| before.base != run.base) {
            // Another process went on here, with a program of its own.
            self.finish(Some(run.base), out).await?;
        }
        self.decoder = None;
        self.limit = self.reader.journal().lock().index.voice_end(run.base);
        self.run = Some(run);
        Ok(())
    }

    /// The voice ends, at this voice time if another one goes on there.
    async fn finish(&mut self, at: Option<u64>, out: &mut Vec<f32>) -> Result<(), StationError> {
        self.over = false;
        let mut rest = Vec::new();
        if let Some(mut decoder) = self.decoder.take() {
            let pcm = decoder.codec.push(Vec::new(), true).await?;
            self.play(decoder.sample, &pcm, &mut rest)?;
        }
        self.levels = Levels::default();
        if let Some(Playing { mut program, gives, .. }) = self.program.take() {
            let mut last = Vec::new();
            program.finish(&mut last)?;
            self.give(gives, &last, &mut rest);
        }
        out.append(&mut rest);
        if let Some(missing) = at.and_then(|at| at.checked_sub(self.next)) {
            out.resize(out.len() + missing as usize * self.channels, 0.0);
            self.next += missing;
        }
        Ok(())
    }

    fn take(&mut self, sound: Sound) -> Result<(), StationError> {
        let Some(run) = self.run.as_ref().filter(|run| run.number == sound.run) else { return Err(hole()) };
        let rate = u64::from(run.codec().rate);
        let levels = self.program.as_mut().and_then(|playing| playing.program.levels()).unwrap_or(&mut self.levels);
        sound.levels.iter().for_each(|&(block, level)| levels.set(block, level));
        let books = sound.codebooks;
        let first = match &self.decoder {
            Some(decoder) => decoder.next + (self.codes.len() / books) as u64,
            // The frame to begin with: where the run's own beginning is near, with all that it goes
            // on from.
            None => {
                let wanted = self.next.saturating_sub(PROGRAM_WARM_UP + CODEC_WARM_UP);
                if wanted <= run.begins() {
                    sound.first
                } else {
                    let sample = ((wanted - run.base) * rate / u64::from(OPUS_RATE)) as i64 - run.origin;
                    (sample.max(0) as u64 / run.codec().hop as u64).max(sound.first)
                }
            }
        };
        if sound.first > first {
            return Err(hole());
        }
        if sound.frames_end() <= first {
            return Ok(());
        }
        if self.decoder.is_none() {
            let sample = run.origin + (first * run.codec().hop as u64) as i64;
            let codec = self.engine.decoding(run.codec().fingerprint);
            self.decoder = Some(Decoder { codec, next: first, sample });
        }
        self.codes.extend(&sound.codes[(first - sound.first) as usize * books..]);
        Ok(())
    }

    /// Frames that are decoded in several places at once, if so many are wanted.
    fn in_parts(&self) -> Option<usize> {
        let (run, until) = (self.run.as_ref()?, self.until.filter(|_| self.begun)?);
        let frames = |time: u64| time * u64::from(run.codec().rate) / (u64::from(OPUS_RATE) * run.codec().hop as u64);
        let all = PARTS * u64::from(OPUS_RATE);
        let wanted = until.saturating_sub(self.next).min(all * LONGEST_PART);
        (wanted >= all * SHORTEST_PART).then(|| frames(wanted) as usize)
    }

    /// Whether the decoder has something to do before more is read.
    fn are_enough(&self) -> bool {
        let waiting = self.run.as_ref().map_or(0, |run| self.codes.len() / run.codec().codebooks);
        waiting >= self.in_parts().unwrap_or(1)
    }

    /// Decodes some frames.
    async fn decode(&mut self) -> Result<(), StationError> {
        let parts = self.in_parts();
        let (Some(run), Some(decoder)) = (&self.run, &mut self.decoder) else { return Err(hole()) };
        let codec = run.codec();
        let waiting = self.codes.len() / codec.codebooks;
        let some = if self.begun { AT_ONCE } else { AT_FIRST };
        let count = parts.filter(|&all| waiting >= all).unwrap_or(some as usize).min(waiting);
        let codes = self.codes.drain(..count * codec.codebooks).collect();
        let pcm = if count > AT_ONCE as usize {
            let warm_up = (PART_WARM_UP * u64::from(codec.rate) / u64::from(OPUS_RATE)) as usize / codec.hop;
            decoder.codec.push_in_parts(codes, Parts { count: PARTS as usize, warm_up }).await?
        } else {
            decoder.codec.push(codes, false).await?
        };
        self.sample = decoder.sample;
        decoder.sample += (pcm.len() / codec.channels) as i64;
        decoder.next += count as u64;
        self.decoded = pcm.into_iter();
        Ok(())
    }

    /// Passes some of what is decoded through the program: all of a long span at once would keep a
    /// thread from what it has to do besides.
    fn play_some(&mut self, out: &mut Vec<f32>) -> Result<(), StationError> {
        let Some(codec) = self.run.as_ref().map(Run::codec) else { return Err(hole()) };
        let most = AT_ONCE as usize * codec.hop * codec.channels;
        let pcm: Vec<f32> = self.decoded.by_ref().take(most).collect();
        let sample = self.sample;
        self.sample += (pcm.len() / codec.channels) as i64;
        self.play(sample, &pcm, out)
    }

    /// Passes sound of the voice, from a sample on, through the program.
    fn play(&mut self, sample: i64, pcm: &[f32], out: &mut Vec<f32>) -> Result<(), StationError> {
        let Some(run) = &self.run else { return Ok(()) };
        let (codec, rate) = (run.codec(), u64::from(run.codec().rate));
        let playing = match &mut self.program {
            Some(playing) => playing,
            none => {
                // The resampler takes blocks of 20 ms from the voice's beginning on; whatever the
                // rate, a block begins with a sample of both rates.
                let common = rate / gcd(rate, OPUS_RATE.into());
                let grid = (rate / 50).next_multiple_of(common);
                let wanted = self.next.saturating_sub(run.base + PROGRAM_WARM_UP) * rate / u64::from(OPUS_RATE);
                let first = (sample.max(0) as u64).max(wanted).next_multiple_of(grid);
                if first as i64 >= sample + (pcm.len() / codec.channels) as i64 {
                    return Ok(());
                }
                let frame = first * u64::from(OPUS_RATE) / rate;
                let levels = std::mem::take(&mut self.levels);
                let program = Program::again(SampleRate(codec.rate), self.channels, frame, levels)?.in_room(self.room);
                none.insert(Playing { program, taken: first, gives: run.base + frame })
            }
        };
        // Of a new run whose beginning was heard before it took over, or of a sound that only leads
        // there.
        let known = (playing.taken as i64 - sample).max(0) as usize * codec.channels;
        let pcm = pcm.get(known..).unwrap_or_default();
        let mut sounded = Vec::new();
        let chunk = Chunk {
            start: Samples(playing.taken),
            epoch: 0,
            sample_rate: SampleRate(codec.rate),
            channels: codec.channels,
            pcm: pcm.to_vec(),
            passage: None,
        };
        playing.program.push(&chunk, &mut sounded)?;
        playing.taken += (pcm.len() / codec.channels) as u64;
        let at = playing.gives;
        playing.gives += (sounded.len() / self.channels) as u64;
        self.give(at, &sounded, out);
        Ok(())
    }

    /// Gives out what is wanted of a block.
    fn give(&mut self, at: u64, block: &[f32], out: &mut Vec<f32>) {
        let early = self.next.saturating_sub(at) as usize * self.channels;
        let block = block.get(early..).unwrap_or_default();
        // What a voice made beyond the place where the next one took over was not heard.
        let most = self.limit.saturating_sub(self.next) as usize;
        let block = &block[..block.len().min(most.saturating_mul(self.channels))];
        self.next += (block.len() / self.channels) as u64;
        out.extend_from_slice(block);
    }
}

fn hole() -> StationError {
    StationError::Journal("a part of it is missing".into())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
