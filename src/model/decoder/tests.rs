//! The decoder on a tiny checkpoint: its bodies against one another, over whole passes.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use candle_core::DType;

use super::*;
use crate::model::{Files, MusicGen};

const ROWS: usize = 5;
const WINDOW: usize = 40;

fn decoder(kernels: Kernels, format: WeightFormat) -> Arc<Decoder> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/musicgen-mono");
    let none = |name: &str| Err(ModelError::NoSuchPlace(name.into()));
    let target = Target { kernels, format, ..Target::new(&Device::Cpu) };
    MusicGen::load(&Files::Folder(folder), &none, &target).unwrap().decoder
}

/// Rows and positions of the passes, and every how many tokens want logits: pieces of one row and
/// of several, a pass without logits, steps of all rows at different depths, of one row, of one
/// row's two next positions.
fn passes() -> Vec<(usize, Vec<(usize, usize)>)> {
    let piece = |row: usize, range: std::ops::Range<usize>| range.map(move |position| (row, position));
    let mut passes = vec![
        (1, piece(1, 0..7).collect()),
        (3, piece(1, 7..12).chain(piece(4, 0..9)).collect()),
        (usize::MAX, piece(0, 0..3).chain(piece(2, 0..11)).chain(piece(3, 0..1)).collect()),
        (1, vec![(4, 9)]),
        (1, vec![(4, 10), (4, 11)]),
    ];
    let depths = [3, 12, 11, 1, 12];
    passes.extend((0..10).map(|step| (1 + step % 2, (0..ROWS).map(|row| (row, depths[row] + step)).collect())));
    passes
}

/// The logits of all passes. Row 0 has no text, row 1 one, row 2 another, row 3 a blend of both,
/// row 4 the first.
fn logits(decoder: &Decoder, plain: bool) -> Vec<f32> {
    let config = decoder.config();
    let states = |length: usize| {
        let data = (0..length * config.text_width).map(|i| ((i * 37 + length) % 101) as f32 / 50.0 - 1.0).collect();
        Tensor::from_vec(data, (length, config.text_width), &Device::Cpu).unwrap()
    };
    let (first, second) = (decoder.prepare(&states(4), 0).unwrap(), decoder.prepare(&states(9), 0).unwrap());
    let share = |prompt: &Arc<Prompt>, share| CrossShare { prompt: prompt.clone(), share };
    let texts = [
        vec![],
        vec![share(&first, 1.0)],
        vec![share(&second, 1.0)],
        vec![share(&first, 0.3), share(&second, 0.7)],
        vec![share(&first, 1.0)],
    ];
    let ids: Vec<u32> = (0..WINDOW * config.codebooks).map(|i| (i as u32 * 7919) % config.card as u32).collect();
    let mut cache = decoder.cache(ROWS, WINDOW).unwrap();
    if plain {
        cache.use_plain(decoder.target().format);
    }
    let mut all = Vec::new();
    for (every, pass) in passes() {
        let token = |(index, (row, position)): (usize, &(usize, usize))| Token {
            row: *row,
            position: *position,
            ids: &ids[position * config.codebooks..][..config.codebooks],
            cross: &texts[*row],
            logits: every < usize::MAX && index.is_multiple_of(every),
        };
        let tokens: Vec<Token<'_>> = pass.iter().enumerate().map(token).collect();
        let found = decoder.forward(&mut cache, &tokens).unwrap();
        assert_eq!((found.dim(0).unwrap(), found.dtype()), (tokens.iter().filter(|t| t.logits).count(), DType::F32));
        all.extend(found.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    all
}

/// The largest difference, of the largest logit.
fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest);
    errors.fold(0.0, |worst, error| if error <= worst { worst } else { error })
}

#[test]
fn passes_on_kernels_of_our_own_compute_what_the_others_do() {
    let exact = logits(&decoder(Kernels::Native, WeightFormat::F32), false);
    let full = decoder(Kernels::Composed, WeightFormat::F32);
    assert!(worst(&logits(&full, false), &exact) < 2e-5);
    assert!(worst(&logits(&full, true), &exact) < 2e-5);
    // Weights, keys, values and what is multiplied are rounded to 11 bits. candle's products on ARM
    // round their sums, too.
    let most = if cfg!(target_arch = "aarch64") { 0.008 } else { 0.005 };
    let narrow = decoder(Kernels::Composed, WeightFormat::Bf16);
    let (composed, own) = (logits(&narrow, false), logits(&narrow, true));
    let (composed, between, own) = (worst(&composed, &exact), worst(&own, &composed), worst(&own, &exact));
    assert!(own < most && composed < most && between < most, "{own:e}, {composed:e}, {between:e}");
    assert!(own > 1e-5, "nothing was rounded");
}
