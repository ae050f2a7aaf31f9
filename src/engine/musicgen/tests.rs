//! The backend on a tiny checkpoint: what shares the batch, and how a position was reached, never
//! shows.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use candle_core::Device;

use super::*;
use crate::engine::codes::Codes;
use crate::engine::standin::Standin;
use crate::engine::{Engine, EngineConfig, Parts};
use crate::model::{Files, config::CodecConfig, kernels::Kernels};

fn backend() -> MusicGenBackend {
    backend_on(Kernels::Native)
}

fn backend_on(kernels: Kernels) -> MusicGenBackend {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/musicgen-mono");
    let none = |name: &str| Err(ModelError::NoSuchPlace(name.into()));
    let model =
        MusicGen::load(&Files::Folder(folder), &none, &Target { kernels, ..Target::new(&Device::Cpu) }).unwrap();
    // Room for nine voices.
    let bytes = 18 * model.config.generation.window * model.decoder.kv_bytes();
    MusicGenBackend::new(ModelId("tiny".into()), model, bytes).unwrap()
}

struct Player {
    slot: Slot,
    blend: Vec<Blend>,
    sampling: Sampling,
    columns: Vec<Vec<u32>>,
}

impl Player {
    fn new(backend: &mut MusicGenBackend, slot: usize, texts: &[(&str, f32)], guidance: f32, seed: u64) -> Self {
        let blend = texts
            .iter()
            .map(|(text, share)| Blend { condition: backend.conditioner().condition(text).unwrap(), share: *share });
        Self {
            slot: Slot(slot),
            blend: blend.collect(),
            sampling: Sampling { temperature: 1.0, top_k: 20, guidance, seed },
            columns: vec![vec![backend.info().card; backend.info().codebooks]],
        }
    }

    fn row(&self) -> StepRow<'_> {
        let position = self.columns.len() - 1;
        StepRow {
            slot: self.slot,
            position,
            ids: &self.columns[position],
            blend: &self.blend,
            sampling: self.sampling,
            draw: position as u64,
        }
    }
}

fn step(backend: &mut MusicGenBackend, players: &mut [&mut Player]) {
    let rows: Vec<StepRow<'_>> = players.iter().map(|player| player.row()).collect();
    let results = backend.step(&rows).unwrap();
    for (player, ids) in players.iter_mut().zip(results) {
        player.columns.push(ids.unwrap());
    }
}

fn alone(texts: &[(&str, f32)], guidance: f32, seed: u64, steps: usize) -> Vec<Vec<u32>> {
    let mut backend = backend();
    let mut player = Player::new(&mut backend, 3, texts, guidance, seed);
    for _ in 0..steps {
        step(&mut backend, &mut [&mut player]);
    }
    player.columns
}

#[test]
fn a_voice_alone_equals_the_same_voice_among_eight() {
    eight(backend());
}

/// What a GPU does around its kernels: where texts and tokens lie, guidance rows, draws, faults.
#[test]
#[cfg(not(feature = "cuda"))]
fn voices_on_kernels_of_our_own_make_the_same_music() {
    let fused = || {
        let mut backend = backend_on(Kernels::Composed);
        backend.cache.use_plain(crate::model::kernels::WeightFormat::F32);
        backend
    };
    eight(fused());
    a_bad_voice_among_others(fused());
}

fn eight(mut backend: MusicGenBackend) {
    let voices: [(&[(&str, f32)], f32); 8] = [
        (&[("slow piano", 1.0)], 3.0),
        (&[("80s pop", 0.25), ("warm lo-fi", 0.75)], 3.0),
        (&[], 3.0),
        (&[("slow piano", 1.0)], 1.0),
        (&[("drums", 1.0)], 2.0),
        (&[("slow piano", 1.0)], 3.0),
        (&[("a", 0.5), ("b", 0.3), ("c", 0.2)], 5.0),
        (&[("violin and a choir of many voices in a large hall", 1.0)], 0.0),
    ];
    let mut players: Vec<Player> = voices
        .iter()
        .enumerate()
        .map(|(index, (texts, guidance))| Player::new(&mut backend, index, texts, *guidance, index as u64))
        .collect();
    for round in 0..30 {
        // One more voice joins every second round.
        let count = (1 + round / 2).min(8);
        step(&mut backend, &mut players[..count].iter_mut().collect::<Vec<_>>());
    }
    for (index, (texts, guidance)) in voices.iter().enumerate() {
        let steps = players[index].columns.len() - 1;
        assert_eq!(alone(texts, *guidance, index as u64, steps), players[index].columns, "voice {index}");
    }
    assert_ne!(players[0].columns[1..5], players[5].columns[1..5], "seeds make a difference");
}

#[test]
fn going_back_and_reading_in_chunks_equal_never_having_gone_past() {
    let texts: &[(&str, f32)] = &[("slow piano", 1.0)];
    let expected = alone(texts, 3.0, 1, 24);
    let mut backend = backend();
    let mut player = Player::new(&mut backend, 0, texts, 3.0, 1);
    for _ in 0..15 {
        step(&mut backend, &mut [&mut player]);
    }
    // Another text for a while, then back.
    let other = Player::new(&mut backend, 0, &[("drums", 1.0)], 3.0, 9);
    let mut astray = Player { columns: player.columns.clone(), ..other };
    for _ in 0..5 {
        step(&mut backend, &mut [&mut astray]);
    }
    player.columns.truncate(12);
    while player.columns.len() < 20 {
        step(&mut backend, &mut [&mut player]);
    }
    // And in another slot, from a prefill in two chunks.
    player.slot = Slot(5);
    let ids = player.columns.concat();
    let books = backend.info().codebooks;
    for (from, to) in [(0, 7), (7, 19)] {
        let job = Prefill {
            slot: player.slot,
            position: from,
            ids: &ids[from * books..to * books],
            blend: &player.blend,
            guidance: 3.0,
        };
        backend.prefill(&job).unwrap().unwrap();
    }
    while player.columns.len() < 25 {
        step(&mut backend, &mut [&mut player]);
    }
    assert_eq!(player.columns, expected);
}

#[test]
fn a_row_that_was_not_needed_before_is_filled_when_it_is() {
    let mut backend = backend();
    let mut player = Player::new(&mut backend, 0, &[("slow piano", 1.0)], 1.0, 4);
    for _ in 0..9 {
        step(&mut backend, &mut [&mut player]);
    }
    player.sampling.guidance = 3.0;
    let mut fresh = Player {
        slot: Slot(1),
        columns: player.columns.clone(),
        ..Player::new(&mut backend, 1, &[("slow piano", 1.0)], 3.0, 4)
    };
    let ids = fresh.columns[..9].concat();
    let job = Prefill { slot: Slot(1), position: 0, ids: &ids, blend: &fresh.blend, guidance: 3.0 };
    backend.prefill(&job).unwrap().unwrap();
    step(&mut backend, &mut [&mut player, &mut fresh]);
    assert_eq!(player.columns, fresh.columns);
}

#[test]
fn a_bad_voice_does_not_disturb_the_others() {
    a_bad_voice_among_others(backend());
}

fn a_bad_voice_among_others(mut backend: MusicGenBackend) {
    let mut good = Player::new(&mut backend, 0, &[("slow piano", 1.0)], 3.0, 1);
    let mut broken = Player::new(&mut backend, 1, &[], 3.0, 1);
    let width = backend.model().config.text.d_model;
    let states = Tensor::full(f32::NAN, (3, width), &Device::Cpu).unwrap();
    let condition: Condition = backend.model().decoder.prepare(&states, 0).unwrap();
    broken.blend = vec![Blend { condition, share: 1.0 }];
    let mut foolish = Player::new(&mut backend, 2, &[], 1.0, 1);
    foolish.columns[0][0] = 9999;
    for _ in 0..6 {
        let rows = [broken.row(), good.row(), foolish.row()];
        let results = backend.step(&rows).unwrap();
        assert!(results[0].as_ref().is_err_and(|fault| fault.0.contains("not numbers")));
        assert!(results[2].as_ref().is_err_and(|fault| fault.0.contains("9999")));
        good.columns.push(results[1].clone().unwrap());
    }
    assert_eq!(good.columns, alone(&[("slow piano", 1.0)], 3.0, 1, 6));
}

#[test]
fn the_window_is_a_limit_and_not_a_crash() {
    let mut backend = backend();
    let player = Player::new(&mut backend, 0, &[], 1.0, 1);
    let window = backend.info().window;
    for position in [1, window, usize::MAX / 2] {
        let row = StepRow { position, ..player.row() };
        assert!(backend.step(&[row]).unwrap()[0].is_err(), "{position}");
    }
    let row = StepRow { slot: Slot(99), ..player.row() };
    assert!(backend.step(&[row]).unwrap()[0].is_err());
}

#[test]
fn voices_decoded_together_sound_as_they_do_alone() {
    let mut backend = backend();
    let info = backend.info().clone();
    let codes = |voice: usize, frames: usize| -> Vec<u32> {
        (0..frames * info.codebooks).map(|i| ((i * 31 + voice * 17) % 64) as u32).collect()
    };
    let mut states: Vec<Box<dyn CodecState>> = (0..3).map(|_| backend.codec_state()).collect();
    let all: Vec<Vec<u32>> = (0..3).map(|voice| codes(voice, 12)).collect();
    let mut sound = vec![Vec::new(); 3];
    for (from, to) in [(0, 5), (5, 8), (8, 12)] {
        // The third voice has no part in the second round.
        let part: Vec<usize> = if from == 5 { vec![0, 1] } else { vec![0, 1, 2] };
        let mut jobs: Vec<Decode<'_>> = states
            .iter_mut()
            .enumerate()
            .filter(|(voice, _)| part.contains(voice))
            .map(|(voice, state)| Decode {
                state: &mut **state,
                codes: if voice == 2 && from == 8 {
                    &all[2][5 * info.codebooks..]
                } else {
                    &all[voice][from * info.codebooks..to * info.codebooks]
                },
                last: to == 12,
            })
            .collect();
        let results = backend.decode(&mut jobs).unwrap();
        for (voice, pcm) in part.into_iter().zip(results) {
            sound[voice].extend(pcm.unwrap());
        }
    }
    for (voice, sound) in sound.iter().enumerate() {
        let mut state = backend.codec_state();
        let mut jobs = [Decode { state: &mut *state, codes: &all[voice], last: true }];
        let whole = backend.decode(&mut jobs).unwrap().remove(0).unwrap();
        assert_eq!(whole.len(), 12 * info.hop * info.channels);
        assert_eq!(*sound, whole, "voice {voice}");
    }
}

#[tokio::test]
async fn parts_decoded_side_by_side_are_within_a_step_of_16_bits_of_the_whole() {
    let backend = backend();
    let info = backend.info().clone();
    let codes: Vec<u32> = (0..300 * info.codebooks as u32).map(|i| i * 37 % 61).collect();
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let whole = engine.decoding(info.codec_fingerprint).push(codes.clone(), false).await.unwrap();
    let parts = Parts { count: 4, warm_up: 75 };
    let heard = engine.decoding(info.codec_fingerprint).push_in_parts(codes, parts).await.unwrap();
    assert_eq!(heard.len(), whole.len());
    let difference = heard.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1.0 / 32_768.0, "{difference}");
}

#[test]
fn a_slot_that_was_forgotten_is_filled_anew() {
    let expected = alone(&[("slow piano", 1.0)], 3.0, 7, 6);
    let mut backend = backend();
    let player = |backend: &mut MusicGenBackend, slot| Player::new(backend, slot, &[("slow piano", 1.0)], 3.0, 7);
    let (mut stays, mut goes) = (player(&mut backend, 1), player(&mut backend, 2));
    for _ in 0..3 {
        step(&mut backend, &mut [&mut stays, &mut goes]);
    }
    backend.forget(Slot(2));
    assert!(backend.step(&[goes.row()]).unwrap()[0].is_err(), "what it held is gone");
    let mut comes = player(&mut backend, 2);
    for _ in 0..6 {
        step(&mut backend, &mut [&mut comes]);
    }
    for _ in 0..3 {
        step(&mut backend, &mut [&mut stays]);
    }
    assert_eq!((&stays.columns, &comes.columns), (&expected, &expected));
}

#[test]
fn models_that_share_a_codec_share_its_fingerprint() {
    let backend = backend();
    assert_eq!(backend.info().codec_fingerprint, self::backend().info().codec_fingerprint);
    let mut config = backend.model().config.clone();
    config.codec = CodecConfig { pad_mode: config.codec.pad_mode, ..config.codec };
    let random = MusicGenBackend::random(ModelId("random".into()), config, &Target::new(&Device::Cpu)).unwrap();
    assert_ne!(backend.info().codec_fingerprint, random.info().codec_fingerprint);
    assert!(random.info().lookahead > 0 && random.slots() > 1);
}

/// `gen.cont.*` of the case: the reference's continuation of two sounds, greedy, with guidance,
/// read from a voice.
#[tokio::test]
async fn a_continuation_is_the_references_to_the_sample() {
    use crate::engine::{Engine, EngineConfig, Prefix, Read, SamplingPatch, VoiceSpec};
    use crate::units::{Frames, Samples};

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/musicgen-mono");
    let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(folder.join("prompts.json")).unwrap()).unwrap();
    let engine = Engine::start(Box::new(backend()), EngineConfig::default()).unwrap();
    let inputs: Vec<Vec<f32>> = golden["gen.cont.input_values"].squeeze(1).unwrap().to_vec2().unwrap();
    let expected: Vec<Vec<f32>> = golden["gen.cont.audio"].squeeze(1).unwrap().to_vec2().unwrap();
    for (input, expected) in inputs.into_iter().zip(expected) {
        let prefix = engine.encode(None, vec![input]).await.unwrap();
        let mut least = f32::INFINITY;
        // The case does not say which texts its continuations have: one must agree.
        for text in &texts {
            let spec = VoiceSpec {
                sampling: SamplingPatch { temperature: Some(0.0), guidance: Some(3.0), ..SamplingPatch::default() },
                length: Some(Frames(expected.len() as u64 / 640)),
                prefix: Some(Prefix { heard: true, ..prefix.clone() }),
                ..VoiceSpec::endless(text)
            };
            let mut voice = engine.join(spec).await.unwrap();
            let mut pcm = Vec::new();
            loop {
                match voice.read(Samples(u64::MAX)) {
                    Read::Chunk(chunk) => pcm.extend(chunk.pcm),
                    Read::Pending => voice.ready().await,
                    Read::End(_) => break,
                }
            }
            assert_eq!(pcm.len(), expected.len());
            least = least.min(pcm.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max));
        }
        assert!(least < 4e-5, "off by {least}");
    }
}

#[test]
fn what_is_forced_is_what_the_reference_forces() {
    const SAMPLED: u32 = 5;
    let mono = Standin::default().info().clone();
    let stereo = ModelInfo { delays: vec![0, 0, 1, 1], ..mono.clone() };
    for info in [mono, stereo] {
        let most = info.max_delay();
        for (given, length) in [(0, 9), (2, 9), (5, 12), (9, 13)] {
            let prompt: Vec<u32> = (10..10 + 4 * given).collect();
            let mut codes = Codes::new(&info, prompt.clone().into());
            while codes.columns() < length as u64 {
                codes.push(&[SAMPLED; 4], Some((length - 1 - most) as u64));
            }
            let mut fed = Vec::new();
            (0..length as u64).for_each(|column| codes.window_column(column, 0, &mut fed));
            let forced = |at: usize| delay::forced(at / 4, at % 4, length, &info.delays, &prompt, info.card);
            let expected: Vec<u32> = (0..4 * length).map(|at| forced(at).unwrap_or(SAMPLED)).collect();
            assert_eq!(fed, expected, "{given} frames given, {length} columns, delays {:?}", info.delays);
        }
    }
}
