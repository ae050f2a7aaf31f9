//! A deterministic backend without weights: tones instead of music, for tests of everything above
//! the model.
//!
//! It honours the whole contract of [`Backend`]: codes depend only on what the slot holds, the
//! blend, the seed and the draw; the codec has a look-ahead and carries state; every misuse of
//! positions is noticed. A prompt can ask for trouble: `"fail after 30"` faults at that position,
//! `"lose the device"` loses it, `"stuck from 300 through 2"` repeats one frame from draw 300 on,
//! until the voice has been turned more than twice.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use super::render::standin::{TRANSFORM_RATE, Tones, looper, transformer};
use super::voice_state::TURN_DRAWS;
use super::{
    Backend, CodecState, Condition, Conditioner, Decode, DeviceKind, Encoder, Fault, Lost, ModelInfo, Prefill,
    Sampling, Slot, StepRow,
};
use crate::units::{ModelId, SampleRate, WeightFormat};

/// See the module's documentation.
pub struct Standin {
    info: ModelInfo,
    slots: usize,
    /// Hashes of the columns that each slot holds, with the shares they were read under.
    kv: HashMap<Slot, Vec<u64>>,
    /// Texts are not read while it is locked.
    reading: Arc<Mutex<()>>,
    /// Every frame has whole waves: its sound depends on nothing before it.
    whole_waves: bool,
    /// What a decoder step takes, and what every row of it adds.
    step_time: Duration,
    row_time: Duration,
}

impl Default for Standin {
    fn default() -> Self {
        Self::new("standin", 256)
    }
}

impl Standin {
    /// A model of this name with room for `slots` windows: 32 kHz mono, 50 frames/s, four codebooks
    /// of 64, a window of 500 columns of which 200 are kept.
    pub fn new(id: &str, slots: usize) -> Self {
        let info = ModelInfo {
            id: ModelId(id.into()),
            description: "tones for tests".into(),
            device: DeviceKind::Cpu,
            format: WeightFormat::F32,
            sample_rate: SampleRate(32_000),
            channels: 1,
            hop: 640,
            codebooks: 4,
            card: 64,
            delays: vec![0, 1, 2, 3],
            window: 500,
            keep: 200,
            lookahead: 4,
            sampling: Sampling { temperature: 1.0, top_k: 250, guidance: 3.0, seed: 0 },
            bytes: 100,
            codec_fingerprint: 1,
        };
        Self {
            info,
            slots,
            kv: HashMap::new(),
            reading: Arc::default(),
            whole_waves: false,
            step_time: Duration::ZERO,
            row_time: Duration::ZERO,
        }
    }

    /// Texts wait while `gate` is locked.
    pub fn with_text_gate(mut self, gate: Arc<Mutex<()>>) -> Self {
        self.reading = gate;
        self
    }

    /// A model whose codec remembers nothing, so that the same codes are the same sound wherever it
    /// begins.
    #[must_use]
    pub fn with_whole_waves(mut self) -> Self {
        self.whole_waves = true;
        self
    }

    /// A model whose every step takes `time`, as a slow machine's would.
    #[must_use]
    pub fn with_step_time(mut self, time: Duration) -> Self {
        self.step_time = time;
        self
    }

    /// A model for which every row of a step takes `time` more.
    #[must_use]
    pub fn with_row_time(mut self, time: Duration) -> Self {
        self.row_time = time;
        self
    }

    /// A model that says it takes so much memory.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.info.bytes = bytes;
        self
    }

    /// A model that says its weights are kept in this format.
    #[must_use]
    pub fn with_format(mut self, format: WeightFormat) -> Self {
        self.info.format = format;
        self
    }

    /// Two channels.
    #[must_use]
    pub fn stereo(mut self) -> Self {
        self.info.channels = 2;
        self.info.codec_fingerprint = 2;
        self
    }

    fn read(&mut self, slot: Slot, position: usize, ids: &[u32], blend: u64) -> Result<(), Fault> {
        let card = self.info.card;
        let held = self.kv.entry(slot).or_default();
        if slot.0 >= self.slots || position > held.len() || position >= self.info.window {
            return Err(Fault(format!("position {position} of {slot:?} was never reached")));
        }
        if let Some(&id) = ids.iter().find(|&&id| id > card) {
            return Err(Fault(format!("code {id} is outside 0..={card}")));
        }
        held.truncate(position);
        held.push(hash(&(ids, blend)));
        Ok(())
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Whether a prompt of `"stuck from DRAW through TURNS"` holds the voice at this draw.
fn is_stuck(blend: &[super::Blend], draw: u64) -> bool {
    let (turn, draw) = (draw >> TURN_DRAWS, draw & ((1 << TURN_DRAWS) - 1));
    blend.iter().any(|part| {
        let numbers = text(&part.condition).split_once("stuck from ").and_then(|(_, rest)| {
            let (from, through) = rest.split_once(" through ")?;
            Some((from.parse::<u64>().ok()?, through.parse::<u64>().ok()?))
        });
        numbers.is_some_and(|(from, through)| draw >= from && turn < through)
    })
}

fn text(condition: &Condition) -> &str {
    condition.downcast_ref::<String>().map_or("", String::as_str)
}

fn blend_hash(blend: &[super::Blend]) -> u64 {
    hash(&blend.iter().map(|part| (text(&part.condition).to_owned(), part.share.to_bits())).collect::<Vec<_>>())
}

/// Codes of a sound: what each frame's loudness and its number of zero crossings make of it.
struct Ear(ModelInfo);

impl Encoder for Ear {
    fn encode(&self, channels: &[Vec<f32>]) -> Result<Vec<u32>, Fault> {
        if channels.len() != self.0.channels || channels[0].is_empty() {
            return Err(Fault(format!("The model needs {} channels of positive length.", self.0.channels)));
        }
        let card = u64::from(self.0.card);
        let codes = channels[0].chunks(self.0.hop).flat_map(|frame| {
            let loud = (frame.iter().map(|sample| sample.abs()).sum::<f32>() * 16.0) as u32;
            let crossings = frame.windows(2).filter(|pair| (pair[0] < 0.0) != (pair[1] < 0.0)).count();
            (0..self.0.codebooks).map(move |k| (hash(&(loud, crossings, k)) % card) as u32)
        });
        Ok(codes.collect())
    }
}

/// Phase per channel and the frames held back.
#[derive(Clone, Default)]
struct Tone {
    phase: f32,
    held: Vec<u32>,
}

impl CodecState for Tone {
    fn snapshot(&self) -> Box<dyn CodecState> {
        Box::new(self.clone())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Reads texts, each once the gate lets it.
struct Words {
    gate: Arc<Mutex<()>>,
}

impl Conditioner for Words {
    fn condition(&self, text: &str) -> Result<Condition, Fault> {
        drop(self.gate.lock());
        if text == "cannot be encoded" {
            return Err(Fault("this text cannot be encoded".into()));
        }
        Ok(Arc::new(text.to_owned()))
    }
}

impl Backend for Standin {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn encoder(&self) -> Arc<dyn Encoder> {
        Arc::new(Ear(self.info.clone()))
    }

    fn conditioner(&self) -> Arc<dyn Conditioner> {
        Arc::new(Words { gate: self.reading.clone() })
    }

    fn forget(&mut self, slot: Slot) {
        self.kv.remove(&slot);
    }

    fn prefill(&mut self, job: &Prefill<'_>) -> Result<Result<(), Fault>, Lost> {
        let blend = blend_hash(job.blend);
        for (offset, ids) in job.ids.chunks(self.info.codebooks).enumerate() {
            if let Err(fault) = self.read(job.slot, job.position + offset, ids, blend) {
                return Ok(Err(fault));
            }
        }
        Ok(Ok(()))
    }

    fn step(&mut self, rows: &[StepRow<'_>]) -> Result<Vec<Result<Vec<u32>, Fault>>, Lost> {
        let time = self.step_time + self.row_time * rows.len() as u32;
        if !time.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "it stands in for the time that a model takes")]
            std::thread::sleep(time);
        }
        let mut columns = Vec::with_capacity(rows.len());
        for row in rows {
            if row.blend.iter().any(|part| text(&part.condition) == "lose the device") {
                return Err(Lost("the stand-in was asked to fail".into()));
            }
            let limit = row
                .blend
                .iter()
                .find_map(|part| text(&part.condition).strip_prefix("fail after ").and_then(|at| at.parse().ok()));
            if limit.is_some_and(|limit: usize| row.position >= limit) {
                columns.push(Err(Fault("the logits are not numbers".into())));
                continue;
            }
            let read = self.read(row.slot, row.position, row.ids, blend_hash(row.blend));
            if is_stuck(row.blend, row.draw) {
                columns.push(read.map(|()| vec![7; self.info.codebooks]));
                continue;
            }
            let held = &self.kv[&row.slot];
            let card = u64::from(self.info.card);
            columns.push(read.map(|()| {
                (0..self.info.codebooks)
                    .map(|k| {
                        let key = (held, k, row.sampling.seed, row.draw, row.sampling.guidance.to_bits());
                        (hash(&key) % card) as u32
                    })
                    .collect()
            }));
        }
        Ok(columns)
    }

    fn codec_state(&self) -> Box<dyn CodecState> {
        Box::<Tone>::default()
    }

    fn decode(&mut self, jobs: &mut [Decode<'_>]) -> Result<Vec<Result<Vec<f32>, Fault>>, Lost> {
        let (hop, rate, k) = (self.info.hop, self.info.sample_rate.0 as f32, self.info.codebooks);
        let (lookahead, channels) = (self.info.lookahead, self.info.channels);
        Ok(jobs
            .iter_mut()
            .map(|job| {
                let state = job.state.as_any().downcast_mut::<Tone>().ok_or(Fault("a foreign codec state".into()))?;
                state.held.extend(job.codes.chunks(k).map(|frame| frame.iter().sum::<u32>()));
                let keep = if job.last { 0 } else { lookahead };
                let ready = state.held.len().saturating_sub(keep);
                let mut pcm = Vec::with_capacity(ready * hop * channels);
                for frame in state.held.drain(..ready) {
                    let mut step = (220.0 + 2.0 * frame as f32) / rate;
                    if self.whole_waves {
                        (step, state.phase) = ((step * hop as f32).round() / hop as f32, 0.0);
                    }
                    for _ in 0..hop {
                        let sample = 0.4 * (state.phase * std::f32::consts::TAU).sin();
                        pcm.extend(std::iter::repeat_n(sample, channels));
                        state.phase = (state.phase + step).fract();
                    }
                }
                Ok(pcm)
            })
            .collect())
    }
}
