//! The GPU's kernels, run on the CPU: their text is compiled by the C++ compiler with a stand-in
//! for CUDA (`tests/cuda/host.h`) and compared with plain sums, with the CPU's kernels and with the
//! sampler.
#![allow(clippy::unwrap_used)]

#[path = "cuda/layer.rs"]
mod layer;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use candle_core::{Device, Tensor};
use continuo::model::{
    kernels::{AttendRow, Kernels, KvLayer, Pass, WeightFormat},
    sampler::{self, Shaping},
};
use half::bf16;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

/// Threads are continued forwards, backwards, and shuffled.
const ORDERS: [u32; 3] = [0, 1, 2];

/// The program that runs jobs, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<std::path::PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-on-cpu");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        // No joined multiply-adds: the device rounds guidance and temperature one by one, too.
        let compiled = Command::new(&compiler)
            .args(["-std=c++20", "-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE"])
            .arg("-I")
            .arg(root.join("src/model/kernels/cuda"))
            .arg(root.join("tests/cuda/run.cpp"))
            .arg("-o")
            .arg(&program)
            .output();
        let output = compiled.unwrap_or_else(|error| {
            panic!("There is no C++20 compiler ({compiler}: {error}); install one, as in `apt install g++`.")
        });
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    })
}

/// Runs jobs; the words of their results.
fn run(jobs: &[u8]) -> Vec<u32> {
    let mut child = Command::new(program()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, jobs) = (child.stdin.take().unwrap(), jobs.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&jobs));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn words(to: &mut Vec<u8>, words: impl IntoIterator<Item = u32>) {
    to.extend(words.into_iter().flat_map(u32::to_le_bytes));
}

fn floats(to: &mut Vec<u8>, floats: &[f32]) {
    words(to, floats.iter().map(|x| x.to_bits()));
}

/// A job's first twelve words.
fn header(to: &mut Vec<u8>, fields: &[u32]) {
    words(to, fields.iter().copied().chain(std::iter::repeat(0)).take(12));
}

fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0
}

fn numbers(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| uniform(rng)).collect()
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    dim: usize,
    narrow: bool,
    bias: bool,
}

const ROWS: usize = 4;
const WINDOW: usize = 170;
/// Tokens of passes: a piece of two rows, a long piece of one, a step of all and more, steps in
/// which no row has two tokens.
fn passes() -> [Vec<(usize, usize)>; 5] {
    let pieces = |row: usize, range: std::ops::Range<usize>| range.map(move |position| (row, position));
    [
        pieces(1, 0..40).chain(pieces(3, 0..31)).collect(),
        pieces(3, 31..150).collect(),
        // Row 0 begins, row 1 goes back, two tokens of row 3 come last first.
        vec![(0, 0), (1, 17), (3, 151), (3, 150)],
        vec![(3, 152), (0, 1), (2, 0), (1, 18)],
        vec![(3, 153), (1, 3)],
    ]
}

/// What every token of every pass gets: from the kernels, from plain sums in f64, from the CPU's
/// own kernels.
fn attention(shape: Shape) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Shape { heads, dim, narrow, bias } = shape;
    let (hidden, lanes) = (heads * dim, (dim * if narrow { 2 } else { 4 } / 16).next_power_of_two());
    let mut rng = ChaCha8Rng::seed_from_u64(dim as u64);
    let rounded = |x: f32| if narrow { bf16::from_f32(x).to_f32() } else { x };
    let format = if narrow { WeightFormat::Bf16 } else { WeightFormat::F32 };
    let mut layer = KvLayer::new((ROWS, WINDOW), (heads, dim), format, Kernels::Native, &Device::Cpu).unwrap();
    let (mut plain, mut native) = (Vec::new(), Vec::new());
    let mut pool = vec![vec![0f32; 2 * hidden]; ROWS * WINDOW];
    let mut jobs: [Vec<u8>; 3] = Default::default();
    for at in passes() {
        // Large queries: the softmax is steep, so that the parts' largest scores matter.
        let mut qkv = numbers(&mut rng, at.len() * 3 * hidden);
        qkv.chunks_exact_mut(3 * hidden).for_each(|qkv| qkv[..hidden].iter_mut().for_each(|x| *x *= 8.0));
        let width = if bias { WINDOW } else { 0 };
        let biases: Vec<f32> = numbers(&mut rng, at.len() * width).iter().map(|x| 3.0 * x).collect();
        qkv.iter_mut().for_each(|x| *x = rounded(*x));
        for (&(row, position), qkv) in at.iter().zip(qkv.chunks_exact(3 * hidden)) {
            pool[row * WINDOW + position] = qkv[hidden..].to_vec();
        }
        for (token, &(row, position)) in at.iter().enumerate() {
            for head in 0..heads {
                let query = &qkv[token * 3 * hidden + head * dim..][..dim];
                let score = |position: usize| {
                    let key = &pool[row * WINDOW + position][head * dim..][..dim];
                    let dot: f64 = query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    dot / (dim as f64).sqrt() + if bias { f64::from(biases[token * width + position]) } else { 0.0 }
                };
                let weights: Vec<f64> = (0..=position).map(|position| score(position).exp()).collect();
                let total: f64 = weights.iter().sum();
                let value = |at: usize, i: usize| f64::from(pool[row * WINDOW + at][hidden + head * dim + i]);
                plain.extend((0..dim).map(|i| {
                    let sum: f64 = weights.iter().enumerate().map(|(at, weight)| weight * value(at, i)).sum();
                    (sum / total) as f32
                }));
            }
        }
        let rows = at.iter().map(|&(row, position)| AttendRow { row, position }).collect();
        let pass = Pass::new(rows, WINDOW, Kernels::Native, &Device::Cpu).unwrap();
        let tensor = Tensor::from_slice(&qkv, (at.len(), 3 * hidden), &Device::Cpu).unwrap();
        native.extend(layer.attend(&tensor, &pass).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
        for (order, job) in ORDERS.iter().zip(&mut jobs) {
            if job.is_empty() {
                let sizes = [lanes, heads, dim, ROWS, WINDOW, width, passes().len()].map(|x| x as u32);
                header(job, &[&[0, *order, u32::from(narrow)], &sizes[..]].concat());
            }
            let alone = at.iter().enumerate().all(|(i, (row, _))| at[..i].iter().all(|(other, _)| other != row));
            words(job, [at.len() as u32, u32::from(alone)]);
            floats(job, &qkv);
            words(job, at.iter().map(|at| at.0 as u32));
            words(job, at.iter().map(|at| at.1 as u32 + 1));
            floats(job, &biases);
        }
    }
    let found = jobs.map(|job| run(&job));
    assert!(found.iter().all(|other| *other == found[0]), "{shape:?} depends on the order of threads");
    (found[0].iter().map(|word| f32::from_bits(*word)).collect(), plain, native)
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, difference| if difference <= worst { worst } else { difference })
}

/// What a kernel gives is what was expected; in bf16 it is what that rounds to, save where `error`
/// takes it to the other side: to a neighbour, and seldom.
fn agree(found: &[f32], expected: &[f32], narrow: bool, error: f32, what: &str) {
    if !narrow {
        return assert!(worst(found, expected) < error, "{what}: {}", worst(found, expected));
    }
    assert_eq!(found.len(), expected.len());
    let others = found.iter().zip(expected).filter(|(found, expected)| **found != bf16::from_f32(**expected).to_f32());
    let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= expected.abs() / 256.0 + error;
    assert!(others.clone().all(near), "{what}");
    let others = others.count();
    assert!(others <= 1 + found.len() / 500, "{what}: {others} of {} are rounded to another side", found.len());
}

#[test]
fn attention_is_a_softmax_over_the_pool() {
    for narrow in [false, true] {
        for (heads, dim) in [(2, 64), (1, 32), (1, 128), (1, 48), (1, 16)] {
            let shape = Shape { heads, dim, narrow, bias: false };
            let (found, plain, native) = attention(shape);
            agree(&found, &plain, narrow, 2e-6, &format!("{shape:?}"));
            if dim >= 32 && dim.is_power_of_two() {
                agree(&found, &native, narrow, 1e-5, &format!("{shape:?}, native"));
            }
        }
        let shape = Shape { heads: 1, dim: 64, narrow, bias: true };
        let (found, plain, _) = attention(shape);
        agree(&found, &plain, narrow, 2e-6, &format!("{shape:?}"));
    }
}

#[test]
fn a_token_that_sees_nothing_gets_zeros_and_what_is_no_number_stays_so() {
    let (dim, window) = (64, 20);
    let mut job = Vec::new();
    header(&mut job, &[0, 0, 1, 8, 1, dim, 2, window, 0, 1]);
    let mut qkv = vec![1f32; 3 * 3 * dim as usize];
    qkv[2 * 3 * dim as usize] = f32::NAN;
    words(&mut job, [3, 0]);
    floats(&mut job, &qkv);
    words(&mut job, [0, 1, 1]);
    // The first token is stored at position 0 by what it sees; the second sees nothing of it.
    words(&mut job, [1, 0, 2]);
    let found: Vec<f32> = run(&job).into_iter().map(f32::from_bits).collect();
    let tokens: Vec<&[f32]> = found.chunks_exact(dim as usize).collect();
    assert!(tokens[0].iter().all(|x| *x == 1.0));
    assert!(tokens[1].iter().all(|x| *x == 0.0));
    assert!(tokens[2].iter().all(|x| x.is_nan()));
}

/// One voice of a launch and its logits, `[books * card]` each.
struct Voice {
    cond: Vec<f32>,
    null: Option<Vec<f32>>,
    guidance: f32,
    shaping: Shaping,
    seed: u64,
    draw: u64,
}

/// A voice with a temperature, top-k and guidance of its own, ties, and now and then an infinity or
/// what is no number.
fn voice(rng: &mut ChaCha8Rng, books: usize, card: usize) -> Voice {
    let pick = |rng: &mut ChaCha8Rng, count: usize| rng.next_u32() as usize % count;
    let spread = [0.1, 1.0, 4.0, 12.0][pick(rng, 4)];
    // Logits in steps have many that equal the last one kept.
    let steps = [0.0, 0.0, 0.5, 2.0][pick(rng, 4)];
    let trouble = pick(rng, 12);
    let logits = |rng: &mut ChaCha8Rng| -> Vec<f32> {
        let mut logits: Vec<f32> = (0..books * card)
            .map(|_| spread * (uniform(rng) + uniform(rng) + uniform(rng)))
            .map(|x| if steps > 0.0 { (x / steps).round() * steps } else { x })
            .collect();
        let at = pick(rng, books * card);
        match trouble {
            0 => logits[at] = f32::NAN,
            1 => logits[at] = f32::INFINITY,
            2 => logits.iter_mut().step_by(3).for_each(|x| *x = f32::NEG_INFINITY),
            3 => logits.iter_mut().for_each(|x| *x = if *x < 0.0 { -0.0 } else { 0.0 }),
            _ => {}
        }
        logits
    };
    let cond = logits(rng);
    let null = (pick(rng, 3) > 0).then(|| logits(rng));
    let top_k = [0, 1, 2, 5, 50, 250, card - 1, card, card + 5][pick(rng, 9)];
    let temperature = [0.0, 0.3, 0.7, 1.0, 1.0, 1.3, 3.0][pick(rng, 7)];
    let shaping = Shaping { temperature, top_k, top_p: 1.0 };
    let guidance = [1.0, 3.0, 3.0, 5.5, 0.0, -1.0][pick(rng, 6)];
    Voice { cond, null, guidance, shaping, seed: rng.next_u64(), draw: u64::from(rng.next_u32() >> 8) }
}

/// What the sampler chooses for one codebook; none where numbers are none.
fn chosen(voice: &Voice, book: usize, card: usize) -> Option<u32> {
    let part = |logits: &[f32]| logits[book * card..][..card].to_vec();
    let cond = part(&voice.cond);
    let logits =
        voice.null.as_ref().map_or_else(|| cond.clone(), |null| sampler::guide(&cond, &part(null), voice.guidance));
    sampler::choose(&logits, voice.shaping, voice.seed, voice.draw, book).ok()
}

#[test]
fn the_same_codes_are_chosen() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut choices, mut faults, mut different) = (0, 0, 0);
    for (voices, books, card) in [(150, 4, 2048), (60, 8, 512), (40, 4, 2050), (30, 2, 40), (3, 1, 4096)] {
        let cast: Vec<Voice> = (0..voices).map(|_| voice(&mut rng, books, card)).collect();
        let rows = cast.iter().map(|voice| 1 + usize::from(voice.null.is_some())).sum::<usize>();
        let jobs = ORDERS.map(|order| {
            let mut job = Vec::new();
            header(&mut job, &[1, order, rows as u32, voices as u32, books as u32, card as u32]);
            for voice in &cast {
                floats(&mut job, &voice.cond);
                floats(&mut job, voice.null.as_deref().unwrap_or_default());
            }
            let mut row = 0;
            for voice in &cast {
                let null = if voice.null.is_some() { row + 1 } else { u32::MAX };
                let Shaping { temperature, top_k, .. } = voice.shaping;
                words(&mut job, [row, null, voice.guidance.to_bits(), temperature.to_bits(), top_k as u32, 0]);
                row += 1 + u32::from(voice.null.is_some());
            }
            for voice in &cast {
                let targets = (0..books).map(|book| sampler::uniform(voice.seed, voice.draw, book));
                job.extend(targets.flat_map(f64::to_le_bytes));
            }
            job
        });
        let found = jobs.map(|job| run(&job));
        assert!(found.iter().all(|other| *other == found[0]), "codes depend on the order of threads");
        for (voice, found) in cast.iter().zip(found[0].chunks_exact(books)) {
            for (book, found) in found.iter().enumerate() {
                let expected = chosen(voice, book, card);
                choices += 1;
                faults += usize::from(expected.is_none());
                if expected.unwrap_or(u32::MAX) != *found {
                    // Only the last bits of the sums may have decided.
                    assert!(expected.is_some() && voice.shaping.temperature > 0.0, "{expected:?} but {found}");
                    different += 1;
                }
            }
        }
    }
    assert!(choices > 1000 && faults > 50, "{choices} choices, {faults} faults");
    assert!(different <= choices / 1000, "{different} of {choices} choices differ");
}
