//! `bench quality`: what rounded weights, keys and values change in a model's choices, token by
//! token.
//!
//! Music is made with f32; then the same columns are read by a decoder of each format, with the
//! text and without. The answers with the text are compared with those of f32, and so are the
//! mixtures of both that a stream with guidance draws from: guidance g multiplies what the two
//! differ by, and their errors, by g.

use clap::Args;
use serde_json::json;

use super::{KernelsChoice, RandomModel, Row, SizeChoice};
use crate::cli::load::{DeviceChoice, DtypeChoice};
use crate::cli::{Failure, load};
use crate::model::decoder::{CrossShare, KvCache, Token};
use crate::model::weights::Target;
use crate::model::{self, MusicGen, delay, sampler};
use crate::units::WeightFormat;

#[derive(Args)]
pub(super) struct QualityArgs {
    /// A folder, a Hugging Face id, `bundled`, or `random` with --size
    #[arg(long, default_value = model::BUNDLED, value_name = "NAME")]
    model: String,
    /// Sizes of random weights
    #[arg(long, default_value = "tiny")]
    size: SizeChoice,
    /// Formats to compare with f32
    #[arg(long, value_delimiter = ',', default_value = "bf16,q8,q4")]
    dtype: Vec<DtypeChoice>,
    /// Texts to make music of
    #[arg(long = "prompt", default_values = ["mellow lofi hip hop, 80 bpm", "driving techno, 128 bpm", "calm ambient", "funk groove, 105 bpm"])]
    prompts: Vec<String>,
    /// Columns per text
    #[arg(long, default_value_t = 200)]
    columns: usize,
}

/// Logits with and without the text of every column, `[columns][codebooks * card]` each.
type Logits = Vec<[Vec<f32>; 2]>;

/// A sequence of columns, and the logits that follow each.
struct Piece {
    columns: Vec<Vec<u32>>,
    logits: Logits,
}

pub(super) fn run(args: &QualityArgs) -> Result<Vec<Row>, Failure> {
    let open = |dtype: DtypeChoice| -> Result<(MusicGen, &'static str), Failure> {
        if args.model == "random" {
            return RandomModel { size: args.size, device: DeviceChoice::Cpu, dtype, kernels: KernelsChoice::Own }
                .model();
        }
        let (target, name): (Target, _) = dtype.on(&candle_core::Device::Cpu);
        Ok((MusicGen::load(&load::fetch(&args.model)?, &load::fetch, &target)?, name))
    };
    let (exact, _) = open(DtypeChoice(Some(WeightFormat::F32)))?;
    let length = args.columns.clamp(1, exact.config.generation.window - 1);
    let pieces = args.prompts.iter().enumerate().map(|(index, text)| compose(&exact, text, index as u64, length));
    let pieces: Vec<Piece> = pieces.collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for dtype in &args.dtype {
        let (model, name) = open(*dtype)?;
        let found = args.prompts.iter().zip(&pieces).map(|(text, piece)| read(&model, text, &piece.columns));
        let found: Vec<Logits> = found.collect::<Result<_, _>>()?;
        for guidance in [1.0, exact.config.generation.guidance] {
            let mut sums = Sums::default();
            for (piece, found) in pieces.iter().zip(&found) {
                sums.compare(&exact, guidance, &piece.logits, found);
            }
            let places = sums.places as f64;
            rows.push(vec![
                ("dtype", json!(name)),
                ("guidance", json!(guidance)),
                ("choices", json!(sums.places)),
                ("top1_percent", json!(100.0 * sums.same as f64 / places)),
                ("clear_top1_percent", json!(100.0 * sums.clear_same as f64 / sums.clear as f64)),
                ("kl_mean", json!(sums.kl / places)),
                ("kl_p99", json!(sums.p99())),
                ("total_variation_mean", json!(sums.variation / places)),
            ]);
        }
    }
    Ok(rows)
}

fn states(model: &MusicGen, text: &str) -> Result<CrossShare, Failure> {
    let states = match &model.text {
        Some(encoder) => encoder.encode(text)?,
        None => model.made_up_states(text)?,
    };
    Ok(CrossShare { prompt: model.decoder.prepare(&states, 0)?, share: 1.0 })
}

/// Reads one column with the text and without.
fn both(
    model: &MusicGen,
    cache: &mut KvCache,
    cross: &[CrossShare],
    ids: &[u32],
    position: usize,
) -> Result<[Vec<f32>; 2], Failure> {
    let token = |row: usize| Token { row, position, ids, cross: if row == 0 { cross } else { &[] }, logits: true };
    let mut rows: Vec<f32> = model.decoder.forward(cache, &[token(0), token(1)])?.flatten_all()?.to_vec1()?;
    let null = rows.split_off(rows.len() / 2);
    Ok([rows, null])
}

/// Makes music with the model's default sampling.
fn compose(model: &MusicGen, text: &str, seed: u64, length: usize) -> Result<Piece, Failure> {
    let (decoder, generation) = (&model.decoder, &model.config.generation);
    let (books, card) = (decoder.config().codebooks, decoder.config().card);
    let delays = delay::delays(books, decoder.config().channels);
    let cross = [states(model, text)?];
    let mut cache = decoder.cache(2, length + 1)?;
    let shaping =
        sampler::Shaping { temperature: generation.temperature, top_k: generation.top_k as usize, top_p: 1.0 };
    let (mut columns, mut all) = (vec![vec![card as u32; books]], Logits::new());
    for position in 0..length {
        let ids = columns[position].clone();
        let logits = both(model, &mut cache, &cross, &ids, position)?;
        let draw = |(book, logits): (usize, &[f32])| {
            if position < delays[book] {
                return Ok(card as u32);
            }
            sampler::choose(logits, shaping, seed, position as u64, book)
                .map_err(|_| Failure("The model computed values that are not numbers.".into()))
        };
        let mixed = sampler::guide(&logits[0], &logits[1], generation.guidance);
        columns.push(mixed.chunks_exact(card).enumerate().map(draw).collect::<Result<_, _>>()?);
        all.push(logits);
    }
    columns.pop();
    Ok(Piece { columns, logits: all })
}

/// Reads the same columns as a stream does, one at a time.
fn read(model: &MusicGen, text: &str, columns: &[Vec<u32>]) -> Result<Logits, Failure> {
    let cross = [states(model, text)?];
    let mut cache = model.decoder.cache(2, columns.len())?;
    columns.iter().enumerate().map(|(position, ids)| both(model, &mut cache, &cross, ids, position)).collect()
}

/// Below this lead of the best choice's probability, f32 itself does not decide.
const CLEAR: f32 = 0.01;

#[derive(Default)]
struct Sums {
    places: usize,
    same: usize,
    /// Places where f32's best choice leads by [`CLEAR`].
    clear: usize,
    clear_same: usize,
    kl: f64,
    variation: f64,
    each: Vec<f64>,
}

impl Sums {
    fn compare(&mut self, model: &MusicGen, guidance: f32, exact: &Logits, found: &Logits) {
        let card = model.decoder.config().card;
        let delays = delay::delays(model.decoder.config().codebooks, model.decoder.config().channels);
        let mixed = |[cond, null]: &[Vec<f32>; 2]| sampler::guide(cond, null, guidance);
        for (column, (exact, found)) in exact.iter().zip(found).enumerate() {
            let (exact, found) = (mixed(exact), mixed(found));
            for (book, (exact, found)) in exact.chunks_exact(card).zip(found.chunks_exact(card)).enumerate() {
                if column < delays[book] {
                    continue;
                }
                let (p, q) = (shares(exact), shares(found));
                let best =
                    |x: &[f64]| (0..x.len()).fold(0, |best, index| if x[index] > x[best] { index } else { best });
                let (own, other) = (best(&p), best(&q));
                let second = p
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| *index != own)
                    .map(|(_, share)| *share)
                    .fold(0.0, f64::max);
                self.places += 1;
                self.same += usize::from(own == other);
                if p[own] - second > f64::from(CLEAR) {
                    self.clear += 1;
                    self.clear_same += usize::from(own == other);
                }
                let kl: f64 =
                    p.iter().zip(&q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q.max(1e-300)).ln()).sum();
                self.kl += kl;
                self.each.push(kl);
                self.variation += 0.5 * p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>();
            }
        }
    }

    fn p99(&self) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(f64::NAN)
    }
}

/// Probabilities at temperature 1.
fn shares(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}
