//! What a stream costs the machine beyond the engine's work: level, limiter, encoders.
//!
//! It is measured once when the station opens and all the while afterwards, and told to the engine,
//! whose admission counts it for every live voice.

use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::program::Program;
use crate::audio::{AudioError, Format};
use crate::engine::{Chunk, Engine};
use crate::units::{SampleRate, Samples};

/// Over how much sound of all streams the mean is taken, in seconds.
const MEMORY: f64 = 100.0;
/// Seconds of sound for the first measurement, and what it counts for afterwards.
const FIRST: u32 = 1;
const FIRST_WEIGHT: f64 = 20.0;

/// The mean cost of a stream.
pub(super) struct Upkeep {
    engine: Engine,
    cores: f64,
    /// Seconds of work, for so many seconds of sound.
    mean: Mutex<(f64, f64)>,
}

impl Upkeep {
    pub(super) fn new(engine: Engine, room: bool) -> Self {
        let cores = available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let rate = engine.models().first().map_or(SampleRate(32_000), |model| model.sample_rate);
        // A sound that cannot be encoded says so when it is wanted; until then nothing is known.
        let spent = measure(rate, room).unwrap_or_default().as_secs_f64() / f64::from(FIRST);
        let upkeep = Self { engine, cores, mean: Mutex::new((spent * FIRST_WEIGHT, FIRST_WEIGHT)) };
        upkeep.note(Duration::ZERO, 0.0);
        upkeep
    }

    /// So many seconds of a stream's sound took so long.
    pub(super) fn note(&self, spent: Duration, sound: f64) {
        let share = {
            let mut mean = self.mean.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = (-sound / MEMORY).exp();
            *mean = (mean.0 * kept + spent.as_secs_f64(), mean.1 * kept + sound);
            mean.0 / mean.1
        };
        self.engine.set_upkeep(share / self.cores);
    }
}

/// How long levelling and encoding some sound takes here.
fn measure(rate: SampleRate, room: bool) -> Result<Duration, AudioError> {
    let channels = if room { 2 } else { 1 };
    let mut program = Program::new(rate, channels)?.in_room(room);
    let Some(live) = Format::ALL[0].live() else { return Ok(Duration::ZERO) };
    let mut encoder = live.encoder(channels, live.bit_rates().usual())?;
    let block = rate.0 / 50;
    // A saw has something to encode in every band.
    let pcm: Vec<f32> = (0..block).map(|n| 0.3 * (n % 73) as f32 / 73.0).collect();
    let begun = Instant::now();
    for n in 0..50 * FIRST {
        let (start, mut out) = (Samples(u64::from(n * block)), Vec::new());
        let chunk = Chunk { start, epoch: 0, sample_rate: rate, channels: 1, pcm: pcm.clone(), passage: None };
        program.push(&chunk, &mut out)?;
        encoder.push(&out, &mut |_| ())?;
    }
    Ok(begun.elapsed())
}
