//! MusicGen as a [`Backend`]: KV slots with two rows each, guidance, sampling, and the codec
//! batched over voices.
//!
//! What a slot's rows hold is tracked, so a row that was not needed before (guidance switched on, a
//! description added) is filled from the voice's own columns the moment it is.

mod fit;
#[cfg(test)]
mod tests;

pub use fit::{Fit, FitConstraints, fit, frame_rate, shorten};

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::{
    Backend, Blend, CodecState, Condition, Conditioner, Decode, DeviceKind, Encoder, Fault, Lost, ModelInfo, Prefill,
    Sampling, Slot, StepRow,
};
use crate::{
    model::{
        ModelError, MusicGen, TextConditioner, WaveEncoder,
        config::Config,
        decoder::{CrossShare, KvCache, Prompt, Token},
        delay,
        encodec::StreamState,
        kernels::Draw,
        sampler,
        weights::Target,
    },
    units::{ModelId, SampleRate},
};

/// Memory set aside for keys and values unless said otherwise. On the CPU it is only used as far as
/// slots are filled.
pub const KV_BUDGET: usize = 4 << 30;
/// Slots at most, however small the model.
const MAX_SLOTS: usize = 256;

/// A MusicGen on a device.
pub struct MusicGenBackend {
    info: ModelInfo,
    model: MusicGen,
    cache: KvCache,
    slots: Vec<SlotState>,
}

/// What a slot's rows hold.
#[derive(Default)]
struct SlotState {
    /// `[columns][codebooks]` ids read so far.
    columns: Vec<u32>,
    /// Positions that are valid in the conditional and in the unconditional row.
    filled: [usize; 2],
}

/// The codes of every voice of a step.
type Choices = Vec<Result<Vec<u32>, Fault>>;

/// The rows of a slot.
const CONDITIONAL: usize = 0;
const NULL: usize = 1;

impl MusicGenBackend {
    /// A backend of random weights at the sizes of `config`, without a text encoder: for
    /// benchmarks.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn random(id: ModelId, config: Config, target: &Target) -> Result<Self, ModelError> {
        Self::new(id, MusicGen::random(config, 0, target)?, KV_BUDGET)
    }

    /// Puts a loaded model to work with as many slots as `kv_budget` bytes hold, at least two.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn new(id: ModelId, model: MusicGen, kv_budget: usize) -> Result<Self, ModelError> {
        let window = model.config.generation.window;
        let slots = (kv_budget / (2 * window * model.decoder.kv_bytes())).clamp(2, MAX_SLOTS);
        let cache = model.decoder.cache(2 * slots, window)?;
        // On the CPU memory is used as slots are filled, on a GPU all of it is taken at once.
        let used = if model.device().is_cpu() { 2 } else { slots };
        let keys = (used * 2 * window * model.decoder.kv_bytes()) as u64;
        let info = ModelInfo { bytes: model.bytes + keys, ..info(id, &model)? };
        Ok(Self { info, model, cache, slots: (0..slots).map(|_| SlotState::default()).collect() })
    }

    /// The model, for what a backend does not offer.
    pub fn model(&self) -> &MusicGen {
        &self.model
    }

    /// Checks one voice's part of a pass and writes its columns down. `count` columns begin at
    /// `position`.
    fn admit(&mut self, slot: Slot, position: usize, ids: &[u32]) -> Result<(), Fault> {
        let (books, window) = (self.info.codebooks, self.cache.window());
        let slots = self.slots.len();
        let Some(state) = self.slots.get_mut(slot.0) else {
            return Err(Fault(format!("slot {} of {slots} was used", slot.0)));
        };
        let count = ids.len() / books;
        if count == 0 || !ids.len().is_multiple_of(books) || position + count > window {
            return Err(Fault(format!("{} ids at position {position} do not fit a window of {window}", ids.len())));
        }
        if let Some(id) = ids.iter().find(|id| **id > self.info.card) {
            return Err(Fault(format!("{id} is no code of this model")));
        }
        if position * books > state.columns.len() {
            return Err(Fault(format!("position {position} lies beyond what the slot has read")));
        }
        state.columns.truncate(position * books);
        state.columns.extend_from_slice(ids);
        for filled in &mut state.filled {
            *filled = position.min(*filled);
        }
        Ok(())
    }

    /// The tokens that bring `row` of a slot up to its columns' end; the last of them gives logits
    /// if `logits`.
    fn tokens<'a>(&'a self, slot: Slot, row: usize, cross: &'a [CrossShare], logits: bool) -> Vec<Token<'a>> {
        let books = self.info.codebooks;
        let state = &self.slots[slot.0];
        let end = state.columns.len() / books;
        (state.filled[row]..end)
            .map(|position| Token {
                row: 2 * slot.0 + row,
                position,
                ids: &state.columns[position * books..][..books],
                cross,
                logits: logits && position + 1 == end,
            })
            .collect()
    }

    /// Chooses the codes of a step on the device, where it has a kernel for that: only codes are
    /// copied.
    fn choose_there(
        &self,
        logits: &Tensor,
        step: &[StepRow<'_>],
        crosses: &[Result<Vec<CrossShare>, Fault>],
    ) -> candle_core::Result<Option<Choices>> {
        let Some(fused) = self.cache.fused() else { return Ok(None) };
        let books = self.info.codebooks;
        let (mut draws, mut next) = (Vec::with_capacity(step.len()), 0);
        for (row, _) in step.iter().zip(crosses).filter(|(_, cross)| cross.is_ok()) {
            let Sampling { temperature, top_k, guidance, seed } = row.sampling;
            let count = rows(row.blend, guidance).len();
            let targets = (0..books).map(|book| sampler::uniform(seed, row.draw, book)).collect();
            let null = (count == 2).then_some(next + 1);
            draws.push(Draw { row: next, null, guidance, temperature, top_k, targets });
            next += count;
        }
        let Some(codes) = fused.sample(logits, &draws)? else { return Ok(None) };
        let mut codes = codes.chunks_exact(books);
        let choice = |cross: &Result<_, Fault>| {
            cross.as_ref().map_err(Clone::clone)?;
            match codes.next() {
                Some(codes) if codes.iter().all(|code| *code < self.info.card) => Ok(codes.to_vec()),
                _ => Err(not_numbers()),
            }
        };
        Ok(Some(crosses.iter().map(choice).collect()))
    }

    fn mark_filled(&mut self, slot: Slot, rows: &[usize]) {
        let end = self.slots[slot.0].columns.len() / self.info.codebooks;
        for row in rows {
            self.slots[slot.0].filled[*row] = end;
        }
    }
}

fn info(id: ModelId, model: &MusicGen) -> Result<ModelInfo, ModelError> {
    let config = &model.config;
    let device = DeviceKind::from(model.device());
    let place = if device.is_gpu() { "GPU" } else { "CPU" };
    Ok(ModelInfo {
        id,
        description: format!("{}, on {place}", model.description()),
        device,
        format: model.format,
        sample_rate: SampleRate(config.codec.sample_rate),
        channels: config.channels(),
        hop: config.codec.hop(),
        codebooks: config.decoder.codebooks,
        card: config.decoder.card as u32,
        delays: delay::delays(config.decoder.codebooks, config.decoder.channels),
        window: config.generation.window,
        keep: config.generation.keep,
        lookahead: model.codec.decoder.lookahead(),
        sampling: Sampling {
            temperature: config.generation.temperature,
            top_k: config.generation.top_k,
            guidance: config.generation.guidance,
            seed: 0,
        },
        bytes: model.bytes,
        codec_fingerprint: model.codec.fingerprint()? ^ config.decoder.channels as u64,
    })
}

/// Which rows a voice needs.
fn rows(blend: &[Blend], guidance: f32) -> &'static [usize] {
    if blend.is_empty() {
        &[NULL]
    } else if guidance == 1.0 {
        &[CONDITIONAL]
    } else {
        &[CONDITIONAL, NULL]
    }
}

fn shares(blend: &[Blend]) -> Result<Vec<CrossShare>, Fault> {
    let part = |part: &Blend| match part.condition.clone().downcast::<Prompt>() {
        Ok(prompt) if part.share > 0.0 => Ok(CrossShare { prompt, share: part.share }),
        Ok(_) => Err(Fault("a prompt's share is not above 0".into())),
        Err(_) => Err(Fault("a prompt was prepared by another model".into())),
    };
    blend.iter().map(part).collect()
}

fn lost(error: impl std::fmt::Display) -> Lost {
    Lost(error.to_string())
}

impl Encoder for WaveEncoder {
    fn encode(&self, channels: &[Vec<f32>]) -> Result<Vec<u32>, Fault> {
        self.codes(channels).map_err(|error| Fault(error.to_string()))
    }
}

impl Conditioner for TextConditioner {
    fn condition(&self, text: &str) -> Result<Condition, Fault> {
        let prompt: Arc<Prompt> = self.prompt(text).map_err(|error| Fault(error.to_string()))?;
        Ok(prompt)
    }
}

/// The codec state of one voice.
struct VoiceCodec(StreamState);

impl CodecState for VoiceCodec {
    fn snapshot(&self) -> Box<dyn CodecState> {
        Box::new(Self(self.0.clone()))
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl Backend for MusicGenBackend {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn forget(&mut self, slot: Slot) {
        self.slots[slot.0] = SlotState::default();
        for row in [CONDITIONAL, NULL] {
            self.cache.forget(2 * slot.0 + row);
        }
    }

    fn encoder(&self) -> Arc<dyn Encoder> {
        Arc::new(self.model.encoder())
    }

    fn conditioner(&self) -> Arc<dyn Conditioner> {
        Arc::new(self.model.texts())
    }

    fn prefill(&mut self, job: &Prefill<'_>) -> Result<Result<(), Fault>, Lost> {
        let cross = match shares(job.blend) {
            Ok(cross) => cross,
            Err(fault) => return Ok(Err(fault)),
        };
        if let Err(fault) = self.admit(job.slot, job.position, job.ids) {
            return Ok(Err(fault));
        }
        let needed = rows(job.blend, job.guidance);
        let mut cache = std::mem::replace(&mut self.cache, KvCache::empty());
        let tokens: Vec<Token<'_>> = needed
            .iter()
            .flat_map(|row| self.tokens(job.slot, *row, if *row == NULL { &[] } else { &cross }, false))
            .collect();
        let result = self.model.decoder.forward(&mut cache, &tokens).map_err(lost);
        self.cache = cache;
        result?;
        self.mark_filled(job.slot, needed);
        Ok(Ok(()))
    }

    fn step(&mut self, step: &[StepRow<'_>]) -> Result<Vec<Result<Vec<u32>, Fault>>, Lost> {
        // Check every voice first: a fault must not disturb the others.
        let crosses: Vec<Result<Vec<CrossShare>, Fault>> = step
            .iter()
            .map(|row| {
                let cross = shares(row.blend)?;
                self.admit(row.slot, row.position, row.ids)?;
                Ok(cross)
            })
            .collect();
        let mut cache = std::mem::replace(&mut self.cache, KvCache::empty());
        let mut tokens = Vec::new();
        for (row, cross) in step.iter().zip(&crosses) {
            let Ok(cross) = cross else { continue };
            for kind in rows(row.blend, row.sampling.guidance) {
                tokens.extend(self.tokens(row.slot, *kind, if *kind == NULL { &[] } else { cross }, true));
            }
        }
        let logits = self.model.decoder.forward(&mut cache, &tokens).map_err(lost);
        drop(tokens);
        self.cache = cache;
        let logits = logits?;
        for (row, _) in step.iter().zip(&crosses).filter(|(_, cross)| cross.is_ok()) {
            self.mark_filled(row.slot, rows(row.blend, row.sampling.guidance));
        }
        if let Some(choices) = self.choose_there(&logits, step, &crosses).map_err(lost)? {
            return Ok(choices);
        }
        let logits: Vec<f32> = logits.flatten_all().and_then(|logits| logits.to_vec1()).map_err(lost)?;
        let size = self.info.codebooks * self.info.card as usize;
        let mut parts = logits.chunks_exact(size);
        let mut voices = Vec::with_capacity(step.len());
        for (row, cross) in step.iter().zip(crosses) {
            let needed = rows(row.blend, row.sampling.guidance);
            voices.push(cross.map(|_| (row, [parts.next(), if needed.len() == 2 { parts.next() } else { None }])));
        }
        let card = self.info.card as usize;
        Ok(voices
            .into_par_iter()
            .map(|voice| {
                let (row, logits) = voice?;
                choose(row.sampling, row.draw, logits, card)
            })
            .collect())
    }

    fn codec_state(&self) -> Box<dyn CodecState> {
        Box::new(VoiceCodec(self.model.codec.decoder.start()))
    }

    fn decode(&mut self, jobs: &mut [Decode<'_>]) -> Result<Vec<Result<Vec<f32>, Fault>>, Lost> {
        let mut results: Vec<Result<Vec<f32>, Fault>> = Vec::with_capacity(jobs.len());
        let mut waiting = Vec::new();
        for (index, job) in jobs.iter_mut().enumerate() {
            let ready = ready(&self.model, job);
            results.push(ready.as_ref().map(|_| Vec::new()).map_err(Clone::clone));
            if let Ok((state, codes)) = ready {
                waiting.push((index, state, codes, job.last));
            }
        }
        while let Some((first, state, codes, last)) = waiting.pop() {
            let key = (state.phase(), codes.dims().to_vec(), last);
            let mut group = vec![(first, state, codes)];
            let mut others = Vec::new();
            for (index, state, codes, last) in waiting {
                if (state.phase(), codes.dims().to_vec(), last) == key {
                    group.push((index, state, codes));
                } else {
                    others.push((index, state, codes, last));
                }
            }
            waiting = others;
            for (index, state, pcm) in decode_group(&self.model, group, last).map_err(lost)? {
                if let Some(own) = jobs[index].state.as_any().downcast_mut::<VoiceCodec>() {
                    own.0 = state;
                }
                results[index] = Ok(pcm);
            }
        }
        Ok(results)
    }
}

fn not_numbers() -> Fault {
    Fault("the model computed values that are not numbers".to_owned())
}

/// Guidance and the draw of every codebook of one voice.
fn choose(sampling: Sampling, draw: u64, logits: [Option<&[f32]>; 2], card: usize) -> Result<Vec<u32>, Fault> {
    let mixed;
    let logits = match logits {
        [Some(cond), Some(null)] => {
            mixed = sampler::guide(cond, null, sampling.guidance);
            &mixed
        }
        [Some(only), None] => only,
        _ => return Err(not_numbers()),
    };
    let shaping = sampler::Shaping { temperature: sampling.temperature, top_k: sampling.top_k as usize, top_p: 1.0 };
    let book = |(book, logits)| sampler::choose(logits, shaping, sampling.seed, draw, book).map_err(|_| not_numbers());
    logits.chunks_exact(card).enumerate().map(book).collect()
}

fn ready(model: &MusicGen, job: &mut Decode<'_>) -> Result<(StreamState, Tensor), Fault> {
    let codes = model.to_channels(job.codes).map_err(|error| Fault(error.to_string()))?;
    let state = job.state.as_any().downcast_mut::<VoiceCodec>();
    let state = state.ok_or_else(|| Fault("the codec state belongs to another model".into()))?;
    Ok((state.0.clone(), codes))
}

/// Decodes voices of equal phase in one batch; gives back each one's state and interleaved sound.
fn decode_group(
    model: &MusicGen,
    group: Vec<(usize, StreamState, Tensor)>,
    last: bool,
) -> Result<Vec<(usize, StreamState, Vec<f32>)>, ModelError> {
    let streams = model.config.decoder.channels;
    let alone = group.len() == 1;
    let mut state = match &group[..] {
        [(_, state, _)] => state.clone(),
        _ => StreamState::stack(&group.iter().map(|(_, state, _)| state).collect::<Vec<_>>())?,
    };
    let codes: Vec<&Tensor> = group.iter().map(|(_, _, codes)| codes).collect();
    let wave = model.codec.push(&mut state, &Tensor::cat(&codes, 0)?, last)?;
    let mut results = Vec::with_capacity(group.len());
    for (position, (index, _, _)) in group.iter().enumerate() {
        let own = if alone { state.clone() } else { state.narrow(position * streams, streams)? };
        let pcm = match &wave {
            None => Vec::new(),
            // [streams, samples, channels of each], interleaved.
            Some(wave) => wave.narrow(0, position * streams, streams)?.transpose(0, 1)?.flatten_all()?.to_vec1()?,
        };
        results.push((*index, own, pcm));
    }
    Ok(results)
}
