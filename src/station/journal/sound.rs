//! The sound of a stream's voice again, block by block in voice time: codes through the codec, then
//! the program that listeners heard it through, with the levels of that time.
//!
//! Whoever begins in the midst of a run gives the codec some frames before the place, whose sound
//! is thrown away: it carries a state that fades, and then gives what it gave when it had heard
//! everything.

use super::super::StationError;
use super::super::level::Levels;
use super::super::program::Program;
use super::reader::Reader;
use super::record::{Record, Run, Sound, What};
use crate::audio::OPUS_RATE;
use crate::engine::{Chunk, Decoding, Engine};
use crate::units::{SampleRate, Samples};

/// Frames of 48 kHz that the program hears before the wanted place, and the codec before these: the
/// limiter lets go in 150 ms a time constant, and wholly after eleven of them; the state of a codec
/// fades in about a second.
const PROGRAM_WARM_UP: u64 = 2 * OPUS_RATE as u64;
const CODEC_WARM_UP: u64 = OPUS_RATE as u64;
/// Frames of codes that are decoded at once: few while somebody waits for the first sound.
const AT_FIRST: u64 = 25;
const AT_ONCE: u64 = 100;

pub(super) struct VoiceSound {
    engine: Engine,
    reader: Reader,
    channels: usize,
    room: bool,
    /// Voice time of the next frame that is given out.
    next: u64,
    run: Option<Run>,
    /// Voice time at which its voice ends.
    limit: u64,
    decoder: Option<Decoder>,
    program: Option<Playing>,
    /// What the next program needs to know.
    levels: Levels,
    /// Codes that wait for the decoder.
    sound: Option<Sound>,
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
    /// frames earlier.
    pub(super) fn new(engine: Engine, reader: Reader, (channels, room): (usize, bool), from: u64) -> Self {
        Self {
            engine,
            reader,
            channels,
            room,
            next: from,
            run: None,
            limit: u64::MAX,
            decoder: None,
            program: None,
            levels: Levels::default(),
            sound: None,
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
            if self.sound.is_some() {
                self.decode(&mut out).await?;
            } else {
                match self.reader.next().await? {
                    None if std::mem::take(&mut self.over) => self.finish(None, &mut out).await?,
                    None => return Ok(None),
                    Some(Record::Sound(sound)) => self.take(sound)?,
                    Some(Record::Mark(mark)) => match mark.what {
                        What::Run(run) => self.change_run(run, &mut out).await?,
                        What::End { .. } => self.over = true,
                        _ => {}
                    },
                    Some(Record::Head(_)) => {}
                }
            }
            if !out.is_empty() {
                self.begun = true;
                return Ok(Some(out));
            }
        }
    }

    /// A run follows; every piece names the one that goes on, too.
    async fn change_run(&mut self, run: Run, out: &mut Vec<f32>) -> Result<(), StationError> {
        if self.run.as_ref() == Some(&run) {
            return Ok(());
        }
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
        let first = match &self.decoder {
            Some(decoder) => decoder.next,
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
        self.sound = Some(sound);
        Ok(())
    }

    /// Decodes some frames.
    async fn decode(&mut self, out: &mut Vec<f32>) -> Result<(), StationError> {
        let (Some(run), Some(decoder), Some(sound)) = (&self.run, &mut self.decoder, &self.sound) else {
            return Err(hole());
        };
        let (codec, end) = (run.codec(), sound.frames_end());
        let count = (end - decoder.next).min(if self.begun { AT_ONCE } else { AT_FIRST });
        let from = (decoder.next - sound.first) as usize * sound.codebooks;
        let codes = sound.codes[from..from + count as usize * sound.codebooks].to_vec();
        let pcm = decoder.codec.push(codes, false).await?;
        let sample = decoder.sample;
        decoder.sample += (pcm.len() / codec.channels) as i64;
        decoder.next += count;
        if decoder.next == end {
            self.sound = None;
        }
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
