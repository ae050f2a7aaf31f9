//! The kernels between a layer's products.

use candle_core::{DType, Device, Tensor};
use continuo::model::kernels::{Epilogue, Kernels, Linear, WeightFormat, layer_norm};
use half::bf16;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

use super::{ORDERS, agree, floats, header, numbers, run};

/// What the kernel makes of a residual stream, in any order of threads: the stream behind it, and
/// its norm.
fn normed(each: u32, narrow: bool, [residual, product, weight, bias]: [&[f32]; 4]) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len() as u32;
    let rows = residual.len() as u32 / width;
    let found = ORDERS.map(|order| {
        let mut job = Vec::new();
        header(&mut job, &[2, order, u32::from(narrow), rows, width, each, u32::from(!product.is_empty())]);
        [residual, product, weight, bias].iter().for_each(|part| floats(&mut job, part));
        run(&job)
    });
    assert!(found.iter().all(|other| *other == found[0]), "rows of {width} depend on the order of threads");
    let mut found: Vec<f32> = found[0].iter().map(|word| f32::from_bits(*word)).collect();
    let norm = found.split_off(residual.len());
    (found, norm)
}

#[test]
fn a_product_is_added_and_the_sum_is_normed() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    // Numbers in a thread, and rows of that many at most: what they hold, less, one number only,
    // odd ones.
    let all = [(1, 256), (1, 40), (1, 1), (4, 1024), (4, 1000), (16, 4096), (16, 3001)];
    let wide = [(false, 6, 1536), (false, 6, 1285), (true, 8, 2048), (true, 8, 1793)];
    let both = all.iter().flat_map(|(each, width)| [false, true].map(|narrow| (narrow, *each, *width)));
    for (narrow, each, width) in both.chain(wide) {
        for (rows, adds) in [(1, true), (7, true), (3, false)] {
            let what = format!("{rows} rows of {width}, {each} in a thread, narrow: {narrow}, adds: {adds}");
            // Far from zero, as a residual stream is: the variance is not a difference of large
            // numbers.
            let residual: Vec<f32> = numbers(&mut rng, rows * width).iter().map(|x| 3.0 * x + 5.0).collect();
            let product = numbers(&mut rng, if adds { rows * width } else { 0 });
            let (weight, bias) = (numbers(&mut rng, width), numbers(&mut rng, width));
            let (stream, norm) = normed(each, narrow, [&residual, &product, &weight, &bias]);
            let added = |i: usize| match product.get(i) {
                Some(x) if narrow => bf16::from_f32(*x).to_f32(),
                Some(x) => *x,
                None => 0.0,
            };
            let sums: Vec<f32> = residual.iter().enumerate().map(|(i, x)| x + added(i)).collect();
            assert_eq!(stream, sums, "{what}");
            let plain: Vec<f32> = sums
                .chunks_exact(width)
                .flat_map(|row| {
                    let count = width as f64;
                    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
                    let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
                    let scale = 1.0 / (variance + 1e-5).sqrt();
                    let each = row.iter().zip(&weight).zip(&bias);
                    each.map(move |((x, w), b)| ((f64::from(*x) - mean) * scale * f64::from(*w) + f64::from(*b)) as f32)
                })
                .collect();
            agree(&norm, &plain, narrow, 3e-6, &what);
            let tensor = |x: &[f32], rows: usize| Tensor::from_slice(x, (rows, width), &Device::Cpu).unwrap();
            let (weight, bias) = (tensor(&weight, 1).squeeze(0).unwrap(), tensor(&bias, 1).squeeze(0).unwrap());
            let native = layer_norm(&tensor(&sums, rows), &weight, &bias, 1e-5, Kernels::Native).unwrap();
            agree(&norm, &native.flatten_all().unwrap().to_vec1::<f32>().unwrap(), narrow, 5e-6, &what);
        }
    }
}

#[test]
fn what_is_no_number_stays_so_in_its_row() {
    let mut residual = vec![1f32; 3 * 300];
    residual[300] = f32::NAN;
    residual[600] = f32::INFINITY;
    for narrow in [false, true] {
        let (_, norm) = normed(4, narrow, [&residual, &[], &[1.0; 300], &[2.0; 300]]);
        assert!(norm[..300].iter().all(|x| *x == 2.0) && norm[300..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn gelu_is_the_exact_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for narrow in [false, true] {
        // One, less than a thread takes, what blocks take, more, and so many that the last thread
        // has a few.
        for count in [1, 3, 7, 8, 1024, 2048, 2049, 5 * 88, 30_003] {
            let what = format!("{count} numbers, narrow: {narrow}");
            let rounded = |x: f32| if narrow { bf16::from_f32(x).to_f32() } else { x };
            let x: Vec<f32> = numbers(&mut rng, count).iter().map(|x| rounded(6.0 * x)).collect();
            let mut job = Vec::new();
            header(&mut job, &[3, 0, u32::from(narrow), count as u32]);
            floats(&mut job, &x);
            let found: Vec<f32> = run(&job).into_iter().map(f32::from_bits).collect();
            let exact = |x: f64| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt()));
            let plain: Vec<f32> = x.iter().map(|x| exact(f64::from(*x)) as f32).collect();
            agree(&found, &plain, narrow, 1e-6, &what);
            // The CPU's kernel, behind a product with one. Far below zero it errs by more than bf16
            // rounds.
            if narrow {
                continue;
            }
            let one = Tensor::ones((1, 1), DType::F32, &Device::Cpu).unwrap();
            let one = Linear::new(&one, None, Kernels::Native, WeightFormat::F32).unwrap();
            let native =
                one.forward(&Tensor::from_slice(&x, (count, 1), &Device::Cpu).unwrap(), Epilogue::Gelu).unwrap();
            agree(&found, &native.flatten_all().unwrap().to_vec1::<f32>().unwrap(), false, 2e-6, &what);
        }
    }
}
