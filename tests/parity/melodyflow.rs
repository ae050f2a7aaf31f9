//! Cases of MelodyFlow: audiocraft's pair of files, with every random draw recorded.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use continuo::model::{
    Files,
    melodyflow::{
        EditSettings, EditTask, MelodyFlow, Method, OdeSolver, Pass, Regularise, Row,
        regulariser::{loss, regularise_rounds},
        schedule::{grid, swayed},
    },
    vae::{NoiseSource, sample},
    weights::Target,
};
use serde_json::Value;

use super::golden::Golden;

pub fn check(golden: &Golden) {
    let files = Files::Folder(golden.folder.clone());
    let t5 = Files::Folder(golden.folder.join("t5"));
    let model = MelodyFlow::load(&files, &|_| Ok(t5.clone()), &Target::new(&Device::Cpu)).unwrap();
    let meta = golden.json("golden.json");
    texts(golden, &model, &meta);
    transformer(golden, &model);
    codec(golden, &model, &meta);
    schedules(golden);
    generation(golden, &model, &meta);
    for name in golden.names("edit.") {
        if let Some(case) = name.strip_prefix("edit.").and_then(|name| name.strip_suffix(".prompt_latent")) {
            golden.label(case);
            edit(golden, &model, &meta, case);
        }
    }
    golden.label("");
    regulariser(golden);
    if golden.folder.join("xpcfg_as_object.bin").is_file() {
        pickled_configuration(golden);
    }
    golden.finish();
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// `[.., time, channels]` as the reference has it.
fn turned(x: &Tensor) -> Tensor {
    x.transpose(x.rank() - 2, x.rank() - 1).unwrap().contiguous().unwrap()
}

fn lengths(mask: &Tensor) -> Vec<usize> {
    let mask: Vec<Vec<i64>> = mask.to_dtype(candle_core::DType::I64).unwrap().to_vec2().unwrap();
    mask.iter().map(|row| row.iter().sum::<i64>() as usize).collect()
}

fn texts(golden: &Golden, model: &MelodyFlow, meta: &Value) {
    let encoder = model.text.as_ref().unwrap();
    let prompts = strings(&meta["prompts"]);
    let width = golden.dims("text.input_ids")[1];
    let mut ids = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let tokens = encoder.tokens(prompt).unwrap();
        golden.check_ids(&format!("text.single{index}.input_ids"), &tokens);
        let states = encoder.encode(prompt).unwrap().unsqueeze(0).unwrap();
        golden.check(&format!("text.single{index}.t5_hidden"), &states);
        golden.check(&format!("text.single{index}.cond"), &model.project(&states).unwrap());
        ids.push(tokens);
    }
    let count = ids.len();
    ids.resize(2 * count, encoder.tokens("").unwrap());
    let mut mask: Vec<Vec<u32>> = ids.iter().map(|row| vec![1; row.len()]).collect();
    mask[count..].iter_mut().for_each(|row| row.fill(0));
    ids.iter_mut().chain(&mut mask).for_each(|row| row.resize(width, 0));
    golden.check_ids("text.input_ids", &ids.concat());
    golden.check_ids("text.mask", &mask.concat());
    let states = encoder.t5.forward(&ids[..count], Some(&mask[..count]), &mut |_, _| {}).unwrap();
    let masked = |x: &Tensor, mask: &[Vec<u32>]| {
        let keep = Tensor::new(mask.to_vec(), &Device::Cpu).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        x.broadcast_mul(&keep.unsqueeze(2).unwrap()).unwrap()
    };
    golden.check("text.t5_hidden", &masked(&states, &mask[..count]));
    // What empty texts would be does not matter: every one of their rows is masked.
    let all = Tensor::cat(&[&states, &states], 0).unwrap();
    golden.check("text.cond", &masked(&model.project(&all).unwrap(), &mask));
}

fn transformer(golden: &Golden, model: &MelodyFlow) {
    let network = &model.transformer;
    let steps = |name: &str| golden.input(name).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    network
        .embed_steps(&steps("time.t"), &mut |name, x| {
            golden.check(if name == "sincos" { "time.sincos" } else { "time.emb" }, x);
        })
        .unwrap();
    let (z, t, cond, mask) =
        (golden.input("dit.z"), steps("dit.t"), golden.input("dit.cond"), golden.input("dit.mask"));
    let rows: Vec<Row> = lengths(&mask)
        .into_iter()
        .enumerate()
        .map(|(row, length)| Some(network.prepare(&cond.get(row).unwrap().narrow(0, 0, length).unwrap()).unwrap()))
        .collect();
    let mut seen: HashMap<String, Tensor> = HashMap::new();
    let evaluate = |rows: &[Row], tap: &mut dyn FnMut(&str, &Tensor)| -> Tensor {
        let mut pass: Pass = network.begin(&z, &t, tap).unwrap();
        while network.advance(&mut pass, rows, tap).unwrap() {}
        network.finish(&pass, tap).unwrap()
    };
    evaluate(&rows, &mut |name, x| {
        seen.insert(name.to_owned(), x.clone());
        let name = format!("dit.{name}");
        if golden.has(&name) {
            golden.check(&name, x);
        }
    });
    // What a part adds to the stream is the difference that it makes.
    let mut before = seen["in_proj"].clone();
    for index in 0..network.layers() {
        let at = |name: &str| format!("layer{index:02}.{name}");
        for (part, after) in [("self_attn.out", "after_self"), ("cross_attn.out", "after_cross"), ("ff.out", "out")] {
            let after = seen[&at(after)].clone();
            let name = format!("dit.{}", at(part));
            if golden.has(&name) {
                golden.check(&name, &(&after - &before).unwrap());
            }
            before = after;
        }
    }
    golden.check("dit.velocity_null", &evaluate(&vec![None; rows.len()], &mut |_, _| {}));
}

fn codec(golden: &Golden, model: &Arc<MelodyFlow>, meta: &Value) {
    let wav = golden.input("codec.wav").squeeze(0).unwrap();
    let samples = wav.dim(1).unwrap();
    let encode = |samples: usize, frames: usize, check: bool| {
        let sound = turned(&wav.narrow(1, 0, samples).unwrap());
        let mut encoding = model.encoding(sound);
        loop {
            let show = &mut |path: &[usize], x: &Tensor| {
                if let ([module], true) = (path, check) {
                    golden.check_signal(&format!("codec.enc.module{module:02}"), &turned(x));
                }
            };
            if let Some(done) = encoding.step_shown(Some(show), frames).unwrap() {
                break done;
            }
        }
    };
    for frames in [usize::MAX, 1, 3, 10] {
        let (mean, scale) = encode(samples, frames, frames == usize::MAX);
        golden.check("codec.mean", &mean);
        golden.check("codec.scale", &scale);
        let (mean, scale) = encode(meta["odd_len"].as_u64().unwrap() as usize, frames, false);
        golden.check("codec.odd.mean", &mean);
        golden.check("codec.odd.scale", &scale);
    }
    for frames in [usize::MAX, 1, 3, 10] {
        let mut decoding = model.decoding(&golden.input("codec.latent")).unwrap();
        let mut parts = Vec::new();
        while !decoding.is_complete() {
            let show = &mut |path: &[usize], x: &Tensor| {
                if let ([module], true) = (path, frames == usize::MAX) {
                    golden.check_signal(&format!("codec.dec.module{module:02}"), &turned(x));
                }
            };
            parts.extend(decoding.step_shown(Some(show), frames).unwrap());
        }
        golden.check_signal("codec.decoded", &turned(&Tensor::cat(&parts, 1).unwrap()));
    }
    let (mean, scale) = (golden.input("codec.mean"), golden.input("codec.scale"));
    golden.check("vae.sample", &sample(&mean, &scale, &golden.input("vae.noise")).unwrap());
    let normal = golden.input("stats.normalised");
    golden.check("stats.normalised", &model.statistics.normalise(&golden.input("stats.raw")).unwrap());
    golden.check("stats.denormalised", &model.statistics.denormalise(&normal).unwrap());
}

fn schedules(golden: &Golden) {
    for name in golden.names("schedule.") {
        let points = golden.dims(&name)[0] - 1;
        let values: Vec<f32> = golden.input(&name).to_vec1().unwrap();
        let (from, to) = ((values[0] * 1e4).round() / 1e4, (values[points] * 1e4).round() / 1e4);
        let found = if name.ends_with("nosway") { swayed(from, to, points, 0.0) } else { grid(from, to, points) };
        golden.check(&name, &Tensor::new(found, &Device::Cpu).unwrap());
    }
}

/// What a walk shows, evaluation by evaluation.
#[derive(Default)]
struct Seen(HashMap<String, Vec<Tensor>>);

impl Seen {
    fn push(&mut self, name: &str, x: &Tensor) {
        self.0.entry(name.to_owned()).or_default().push(x.clone());
    }

    /// Stacked as the reference has them, with as many dimensions before the last three as there.
    fn check(&self, golden: &Golden, name: &str, shown: &str, last: Option<&Tensor>) {
        if !golden.has(name) {
            return;
        }
        let mut all = self.0.get(shown).unwrap_or_else(|| panic!("nothing showed {shown}")).clone();
        all.extend(last.cloned());
        golden.check(name, &Tensor::stack(&all, 0).unwrap().reshape(golden.dims(name)).unwrap());
    }
}

fn generation(golden: &Golden, model: &Arc<MelodyFlow>, meta: &Value) {
    let texts: Vec<Row> = strings(&meta["prompts"]).iter().map(|text| model.prepare(text).unwrap()).collect();
    for (name, method) in [("gen.euler", Method::Euler), ("gen.midpoint", Method::Midpoint)] {
        let at = |part: &str| format!("{name}.{part}");
        if !golden.has(&at("noise")) {
            continue;
        }
        let times: Vec<f32> = golden.input(&at("fwd.t")).to_vec1().unwrap();
        let noise = golden.input(&at("noise"));
        let mut walk = OdeSolver::generation(model, &texts, 0.0, noise, (method, times.len())).unwrap();
        golden.check(&at("fwd.t"), &Tensor::new(&grid(0.0, 1.0, times.len())[..times.len()], &Device::Cpu).unwrap());
        let mut seen = Seen::default();
        let mut reports = vec![0];
        while !walk.progress().is_complete() {
            let progress = walk.step_shown(&mut |name, x| seen.push(name, x)).unwrap();
            assert_eq!(progress.of, times.len());
            reports.push(progress.done);
        }
        reports.dedup();
        reported(golden, &meta[at("progress")], &reports[1..], times.len());
        seen.check(golden, &at("fwd.z"), "z", None);
        seen.check(golden, &at("fwd.v_cond"), "v_cond", None);
        seen.check(golden, &at("fwd.v_null"), "v_null", None);
        golden.check(&at("tokens"), walk.latents());
        let latents = model.statistics.denormalise(walk.latents()).unwrap();
        let mut decoding = model.decoding(&latents).unwrap();
        let mut parts = Vec::new();
        while !decoding.is_complete() {
            parts.extend(decoding.step().unwrap());
        }
        golden.check_signal(&at("audio"), &turned(&Tensor::cat(&parts, 1).unwrap()));
    }
}

fn reported(golden: &Golden, expected: &Value, found: &[usize], of: usize) {
    let expected: Vec<(u64, u64)> = expected
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap()))
        .collect();
    let found: Vec<(u64, u64)> = found.iter().map(|done| (*done as u64, of as u64)).collect();
    golden.expect(expected == found, format!("progress {found:?}, expected {expected:?}"));
}

fn edit(golden: &Golden, model: &Arc<MelodyFlow>, meta: &Value, case: &str) {
    let at = |part: &str| format!("edit.{case}.{part}");
    let params = &meta[at("params")];
    let number = |key: &str| params[key].as_u64().unwrap() as usize;
    let regularise = Regularise {
        iterations: number("regularize_iters"),
        keep: number("keep_last_k_iters"),
        lambda: params["lambda_kl"].as_f64().unwrap(),
    };
    let settings = EditSettings {
        method: if params["solver"] == "euler" { Method::Euler } else { Method::Midpoint },
        steps: number("steps"),
        flowstep: params["target_flowstep"].as_f64().unwrap() as f32,
        regularise: (params["regularize"] == true).then_some(regularise),
    };
    let mut recorded = vec![golden.input(&at("draw_vae"))];
    if golden.has(&at("draw_reg")) {
        let draws = golden.input(&at("draw_reg")).flatten(0, 2).unwrap();
        recorded.extend((0..draws.dim(0).unwrap()).map(|n| draws.get(n).unwrap().unsqueeze(0).unwrap()));
    }
    let mut recorded = recorded.into_iter();
    let draws: NoiseSource = Box::new(move |shape| {
        let draw = recorded.next().unwrap();
        assert_eq!(draw.dims(), shape);
        Ok(draw)
    });
    let source = strings(&params["src_descriptions"]);
    assert_eq!(source.len(), 1, "one recording has one description");
    let targets: Vec<Row> = strings(&params["descriptions"]).iter().map(|text| model.prepare(text).unwrap()).collect();
    let sound = turned(&golden.input("codec.wav").squeeze(0).unwrap());
    let texts = (model.prepare(&source[0]).unwrap(), targets);
    let mut edit = EditTask::new(model, sound, texts, settings, draws).unwrap();
    let (mut seen, mut reports) = (Seen::default(), vec![0]);
    while !edit.is_complete() {
        let progress = edit.step_shown(&mut |name, x| {
            if golden.has(&at(name)) && !name.contains('.') {
                golden.check(&at(name), x);
            }
            seen.push(name, x);
        });
        reports.push(progress.unwrap().done);
    }
    reports.dedup();
    reported(golden, &meta[at("progress")], &reports[1..], edit.progress().of);
    let last = |name: &str| seen.0[name][0].clone();
    seen.check(golden, &at("inv.states"), "inv.z", Some(&last("intermediate")));
    seen.check(golden, &at("fwd.states"), "fwd.z", Some(&last("tokens")));
    for name in ["iter_z", "iter_v", "reg_z", "reg_v", "reg_out", "avg_v"] {
        seen.check(golden, &at(&format!("inv.{name}")), &format!("inv.{name}"), None);
    }
    for name in ["v_cond", "v_null"] {
        seen.check(golden, &at(&format!("fwd.{name}")), &format!("fwd.{name}"), None);
    }
    golden.check_signal(&at("audio"), &turned(&edit.sound().unwrap()));
}

fn regulariser(golden: &Golden) {
    let (e, reference) = (golden.input("reg.e"), golden.input("reg.ref"));
    let (found, gradient) = loss(&e, &reference).unwrap();
    golden.check("reg.loss", &Tensor::new(&[found as f32], &Device::Cpu).unwrap());
    golden.check("reg.grad", &gradient);
    for name in golden.names("reg.out") {
        let rounds = name.strip_prefix("reg.out").unwrap().parse().unwrap();
        golden.check(&name, &regularise_rounds(&e, &reference, 0.2, rounds).unwrap());
    }
    let (e, reference) = (golden.input("reg.clip.e"), golden.input("reg.clip.ref"));
    golden.check("reg.clip.grad", &loss(&e, &reference).unwrap().1);
    golden.check("reg.clip.out1", &regularise_rounds(&e, &reference, 0.2, 1).unwrap());
    // The auto-correlation term has weight 0 in every call that the model makes: it is not computed
    // here.
    golden.leave_out("reg.ac.");
}

/// The same checkpoint with its configuration as a pickled object instead of text.
fn pickled_configuration(golden: &Golden) {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(golden.folder.join(from), folder.path().join(to)).unwrap();
    copy("xpcfg_as_object.bin", "state_dict.bin");
    copy("compression_state_dict.bin", "compression_state_dict.bin");
    let files = Files::Folder(folder.path().to_owned());
    // Its one tensor makes no model; the sizes that the sentence names come from the object.
    let t5 = Files::Folder(golden.folder.join("t5"));
    let error = MelodyFlow::load(&files, &|_| Ok(t5.clone()), &Target::new(&Device::Cpu)).err().unwrap().to_string();
    golden.expect(error.contains("holds no MelodyFlow"), error);
}
