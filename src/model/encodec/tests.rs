//! Streaming equals one-shot, for any codec and any chunking.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::model::{
    config::PadMode,
    kernels::Kernels,
    weights::{RandomSource, Target},
};

fn codec(config: &CodecConfig, kernels: Kernels) -> Codec {
    let target = Target { kernels, ..Target::new(&Device::Cpu) };
    Codec::new(config, &Weights::new(&RandomSource(5), &target)).unwrap()
}

fn small() -> CodecConfig {
    CodecConfig { dim: 6, filters: 2, ratios: vec![5, 4, 2], codebooks: 3, card: 16, ..CodecConfig::encodec_32khz() }
}

fn codes(batch: usize, frames: usize, seed: u32) -> Tensor {
    let values =
        (0..(batch * frames * 3) as u32).map(|i| (i.wrapping_mul(2_654_435_761) ^ seed).wrapping_mul(40_503) >> 7 & 15);
    Tensor::from_vec(values.collect::<Vec<_>>(), (batch, frames, 3), &Device::Cpu).unwrap()
}

fn piece(codes: &Tensor, from: usize, count: usize) -> Tensor {
    codes.narrow(1, from, count).unwrap().contiguous().unwrap()
}

/// Decodes in chunks of the given lengths, the rest at the end; checks how much comes out when.
fn streamed(codec: &Codec, codes: &Tensor, chunks: &[usize]) -> Tensor {
    let frames = codes.dim(1).unwrap();
    let (hop, lookahead) = (codec.config.hop(), codec.decoder.lookahead());
    let mut state = codec.decoder.start();
    let (mut at, mut got, mut parts) = (0, 0, Vec::new());
    for chunk in chunks.iter().copied().map(Some).chain([None]) {
        let count = chunk.unwrap_or(frames).min(frames - at);
        at += count;
        // The end may come with frames or without any.
        let last = chunk.is_none();
        if let Some(wave) = codec.push(&mut state, &piece(codes, at - count, count), last).unwrap() {
            got += wave.dim(1).unwrap();
            parts.push(wave);
        }
        let expected = if last { at } else { at.saturating_sub(lookahead) };
        assert_eq!(got, expected * hop, "after {at} of {frames} frames");
    }
    Tensor::cat(&parts, 1).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_chunking_gives_the_same_bits_as_one_shot(
        frames in 1usize..24,
        chunks in prop::collection::vec(0usize..9, 0..12),
        causal in any::<bool>(),
        constant in any::<bool>(),
        residual_layers in 1usize..3,
        conv_shortcut in any::<bool>(),
        lstm_layers in 0usize..3,
        seed in any::<u32>(),
    ) {
        let pad_mode = if constant { PadMode::Constant } else { PadMode::Reflect };
        let config = CodecConfig { causal, pad_mode, residual_layers, conv_shortcut, lstm_layers, ..small() };
        let codec = codec(&config, Kernels::Native);
        let codes = codes(2, frames, seed);
        let whole = codec.decode(&codes).unwrap();
        prop_assert_eq!(whole.dims(), &[2, frames * config.hop(), config.channels]);
        prop_assert_eq!(worst(&streamed(&codec, &codes, &chunks), &whole), 0.0);
    }
}

#[test]
fn composed_operations_stream_as_well() {
    let (native, composed) = (codec(&small(), Kernels::Native), codec(&small(), Kernels::Composed));
    let codes = codes(1, 13, 3);
    let whole = native.decode(&codes).unwrap();
    assert!(worst(&streamed(&composed, &codes, &[1, 4, 2]), &whole) < 1e-5);
}

#[test]
fn voices_of_equal_phase_are_decoded_in_one_batch_and_snapshots_go_back() {
    let codec = codec(&small(), Kernels::Native);
    let all = codes(3, 20, 9);
    let mut states: Vec<StreamState> = (0..3).map(|_| codec.decoder.start()).collect();
    for (voice, state) in states.iter_mut().enumerate() {
        // The voices come to the same phase by different ways.
        for (from, count) in [(0, voice + 1), (voice + 1, 9 - voice)] {
            let own = all.narrow(0, voice, 1).unwrap().contiguous().unwrap();
            codec.push(state, &piece(&own, from, count), false).unwrap();
        }
    }
    assert!(states.iter().all(|state| state.phase() == states[0].phase()));
    let snapshots = states.clone();
    let mut batch = StreamState::stack(&states.iter().collect::<Vec<_>>()).unwrap();
    let together = codec.push(&mut batch, &piece(&all, 10, 6), false).unwrap().unwrap();
    for (voice, mut alone) in snapshots.into_iter().enumerate() {
        let own = all.narrow(0, voice, 1).unwrap().contiguous().unwrap();
        let wave = codec.push(&mut alone, &piece(&own, 10, 6), false).unwrap().unwrap();
        assert_eq!(worst(&wave, &together.narrow(0, voice, 1).unwrap()), 0.0);
        // And on from the part of the batch.
        let mut part = batch.narrow(voice, 1).unwrap();
        let a = codec.push(&mut alone, &piece(&own, 16, 4), true).unwrap().unwrap();
        let b = codec.push(&mut part, &piece(&own, 16, 4), true).unwrap().unwrap();
        assert_eq!(worst(&a, &b), 0.0);
    }
}

/// What is shown is made layer by layer; what nobody looks at, with its neighbours.
#[test]
fn what_is_shown_is_what_is_made_unseen() {
    let codec = codec(&small(), Kernels::Native);
    let codes = codes(2, 16, 5);
    let latents = codec.quantizer.decode(&codes).unwrap();
    let mut seen = 0;
    let mut look = |_: &[usize], _: &Tensor| seen += 1;
    let shown = codec.decoder.push(&mut codec.decoder.start(), Some(&latents), true, Some(&mut look)).unwrap().unwrap();
    let unseen = codec.decoder.push(&mut codec.decoder.start(), Some(&latents), true, None).unwrap().unwrap();
    assert!(seen > 10);
    assert_eq!(worst(&shown, &unseen), 0.0);
    let frames = |tap: Option<&mut crate::model::seanet::Tap<'_>>| {
        codec.encoder.push(&mut codec.encoder.start(), Some(&shown), true, tap).unwrap().unwrap()
    };
    let (one, other) = (frames(Some(&mut |_, _| {})), frames(None));
    assert_eq!(worst(&one, &other), 0.0);
}

#[test]
fn the_published_codec_looks_four_frames_ahead() {
    let config = CodecConfig { filters: 2, dim: 4, card: 16, ..CodecConfig::encodec_32khz() };
    assert_eq!(codec(&config, Kernels::Native).decoder.lookahead(), 4);
    let causal = CodecConfig { causal: true, pad_mode: PadMode::Constant, ..config };
    assert_eq!(codec(&causal, Kernels::Native).decoder.lookahead(), 0);
}
