//! `bench agree`: whether the GPU's own kernels compute what candle's operations compute there.
//!
//! The same passes go over two pools of one decoder: pieces and steps of several rows, without a
//! text, with one, with a blend. Then the codes of the last logits are chosen on the device and by
//! the sampler. Fails when either differs by more than rounding explains.

use candle_core::Tensor;
use clap::Args;
use serde_json::json;

use super::{RandomModel, Row};
use crate::cli::Failure;
use crate::model::MusicGen;
use crate::model::decoder::{CrossShare, Token};
use crate::model::kernels::{Draw, Fused};
use crate::model::sampler::{self, Shaping};

#[derive(Args)]
pub(super) struct AgreeArgs {
    #[command(flatten)]
    model: RandomModel,
}

const ROWS: usize = 6;
const WINDOW: usize = 400;

/// Rows and positions of the passes: pieces of one row and of several, then steps of all rows at
/// different depths.
fn passes() -> Vec<Vec<(usize, usize)>> {
    let piece = |row: usize, range: std::ops::Range<usize>| range.map(move |position| (row, position));
    let mut passes = vec![
        piece(1, 0..100).collect(),
        piece(1, 100..350).chain(piece(4, 0..70)).collect(),
        piece(0, 0..1).chain(piece(2, 0..33)).chain(piece(3, 0..5)).chain(piece(5, 0..129)).collect(),
    ];
    let depths = [1, 350, 33, 5, 70, 129];
    passes.extend((0..8).map(|step| (0..ROWS).map(|row| (row, depths[row] + step)).collect()));
    passes
}

pub(super) fn run(args: &AgreeArgs) -> Result<Vec<Row>, Failure> {
    let (model, dtype) = args.model.model()?;
    let decoder = &model.decoder;
    let mut own = decoder.cache_on(ROWS, WINDOW, true)?;
    let mut composed = decoder.cache_on(ROWS, WINDOW, false)?;
    let Some(fused) = own.fused().cloned() else {
        return Err(Failure(
            "There are no custom kernels to compare here: take --device cuda, in a program built with --features cuda \
             (where they cannot be compiled, a line above says why)."
                .into(),
        ));
    };
    let crosses = crosses(&model)?;
    let books = decoder.config().codebooks;
    let ids: Vec<u32> = (0..WINDOW * books).map(|i| (i as u32 * 7919) % decoder.config().card as u32).collect();
    let (mut worst, mut last) = (0f32, None);
    let passes = passes();
    for pass in &passes {
        let tokens: Vec<Token<'_>> = pass
            .iter()
            .map(|&(row, position)| {
                let ids = &ids[position * books..][..books];
                // Of pieces half of the logits are wanted, as of those that fill a window.
                let logits = pass.len() == ROWS || position.is_multiple_of(2);
                Token { row, position, ids, cross: &crosses[row % crosses.len()], logits }
            })
            .collect();
        let found = decoder.forward(&mut own, &tokens)?;
        let expected = floats(&decoder.forward(&mut composed, &tokens)?)?;
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        for (found, expected) in floats(&found)?.iter().zip(&expected) {
            let error = (found - expected).abs() / largest;
            // NaN is as bad as can be.
            worst = if error <= worst { worst } else { error };
        }
        last = Some(found);
    }
    let (choices, different) = match &last {
        Some(logits) => choices(&fused, logits)?,
        None => (0, 0),
    };
    // With 16 bits candle rounds scores and weights too; the kernels do not.
    let limit = if dtype == "f32" { 1e-3 } else { 0.05 };
    if !worst.is_finite() || worst > limit {
        return Err(Failure(format!(
            "The GPU's own kernels do not agree with candle's operations in {dtype}: logits differ by {worst:.1e} of the largest, \
             {limit:.0e} is allowed."
        )));
    }
    if different * 200 > choices {
        return Err(Failure(format!(
            "The GPU's sampling kernel does not agree with the sampler: {different} of {choices} codes differ."
        )));
    }
    Ok(vec![vec![
        ("dtype", json!(dtype)),
        ("passes", json!(passes.len())),
        ("worst_error", json!(format!("{worst:.1e}"))),
        ("codes", json!(choices)),
        ("codes_different", json!(different)),
    ]])
}

/// No text, one, another, and a blend of both.
fn crosses(model: &MusicGen) -> Result<[Vec<CrossShare>; 4], Failure> {
    let prompt = |text: &str| -> Result<_, Failure> { Ok(model.decoder.prepare(&model.made_up_states(text)?, 0)?) };
    let (first, second) = (prompt("a slow piano")?, prompt("fast drums with a deep bass and a long description")?);
    let share = |prompt: &std::sync::Arc<_>, share| CrossShare { prompt: std::sync::Arc::clone(prompt), share };
    Ok([vec![], vec![share(&first, 1.0)], vec![share(&second, 1.0)], vec![share(&first, 0.3), share(&second, 0.7)]])
}

fn floats(logits: &Tensor) -> Result<Vec<f32>, Failure> {
    Ok(logits.flatten_all()?.to_vec1()?)
}

/// How many codes were chosen twice, and how many came out differently.
fn choices(fused: &Fused, logits: &Tensor) -> Result<(usize, usize), Failure> {
    let (rows, books, card) = logits.dims3()?;
    let values = floats(logits)?;
    let of = |row: usize, book: usize| &values[(row * books + book) * card..][..card];
    let mut draws = Vec::new();
    for draw in 0..100u64 {
        let null = (draw % 3 > 0).then_some(draw as usize / 7 % rows);
        draws.push(Draw {
            row: draw as usize % rows,
            null,
            guidance: [3.0, 1.0, 5.5][draw as usize % 3],
            temperature: [1.0, 0.0, 0.7, 1.3][draw as usize % 4],
            top_k: [250, 0, 1, 50, card as u32][draw as usize % 5],
            targets: (0..books).map(|book| sampler::uniform(9, draw, book)).collect(),
        });
    }
    let Some(codes) = fused.sample(logits, &draws)? else { return Ok((0, 0)) };
    let (mut found, mut different) = (codes.iter(), 0);
    for (index, draw) in draws.iter().enumerate() {
        let shaping = Shaping { temperature: draw.temperature, top_k: draw.top_k as usize, top_p: 1.0 };
        for book in 0..books {
            let logits = match draw.null {
                Some(null) => sampler::guide(of(draw.row, book), of(null, book), draw.guidance),
                None => of(draw.row, book).to_vec(),
            };
            let expected = sampler::choose(&logits, shaping, 9, index as u64, book).ok();
            different += usize::from(found.next().copied() != expected);
        }
    }
    Ok((codes.len(), different))
}
