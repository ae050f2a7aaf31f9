//! Cases of Stable Audio: `model/` and `t5-base/` as published, with every random draw recorded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use continuo::model::{
    Files,
    stable_audio::{
        Conditions, DenoiseTask, Diffusion, Guidance, Init, Objective, PieceSettings, Row, Sampler, StableAudio,
        fused_weight, schedule,
    },
    t5::bucket,
    vae::{NoiseSource, deviation},
    weights::{Target, TensorSource, Weights},
};
use serde_json::Value;

use super::golden::Golden;

pub fn load(golden: &Golden) -> Arc<StableAudio> {
    let t5 = Files::Folder(golden.folder.join("t5-base"));
    let files = Files::Folder(golden.folder.join("model"));
    StableAudio::load(&files, &|_| Ok(t5.clone()), &Target::new(&Device::Cpu)).unwrap()
}

/// `tuned.ckpt` is laid out as PyTorch Lightning saves a training: the averaged input projection is
/// the original's with another sign, the last one nonsense; a bias of the duration is halved; the
/// autoencoder, which no training changes, is nonsense.
pub fn check_tuned(case: &Path, checkpoint: &Path) {
    let files = Files::Folder(case.join("model"));
    let t5 = Files::Folder(case.join("t5-base"));
    let target = Target::new(&Device::Cpu);
    let base = StableAudio::load(&files, &|_| Ok(t5.clone()), &target).unwrap();
    let tuned = StableAudio::load_tuned(&files, (checkpoint, None), &|_| Ok(t5.clone()), &target).unwrap();
    let numbers = [("seconds_total", 5.0)];
    let of = |model: &StableAudio| model.conditioner.conditions("keys", &numbers).unwrap();
    let same = |a: &Tensor, b: &Tensor| {
        let apart = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        apart.to_scalar::<f32>().unwrap() < 1e-5
    };
    assert!(!same(&of(&base).global, &of(&tuned).global), "the duration's bias is the training's");
    // The input passes a linear layer alone before the network: its sign undoes that of the
    // averaged projection.
    let row = |model: &StableAudio| model.prepare(&of(&base)).unwrap();
    let shape = (1, base.config.latents, base.config.frames());
    let x = Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
    let first = |model: &StableAudio, x: &Tensor| {
        let mut shown = None;
        model
            .dit
            .begin(x, &[0.5], &[row(model)], &mut |name, x| {
                if name == "project_in" {
                    shown = Some(x.clone());
                }
            })
            .unwrap();
        shown.unwrap()
    };
    assert!(same(&first(&base, &x), &first(&tuned, &x.neg().unwrap())));
    let decoded = |model: &Arc<StableAudio>| {
        let mut decoding = model.decoding(&x).unwrap();
        let mut parts = Vec::new();
        while !decoding.is_complete() {
            parts.extend(decoding.step().unwrap());
        }
        Tensor::cat(&parts, 1).unwrap()
    };
    assert!(same(&decoded(&base), &decoded(&tuned)));
}

pub fn check(golden: &Golden) {
    let model = load(golden);
    let meta = golden.json("golden.json");
    let texts = conditions(golden, &model, &meta);
    transformer(golden, &model, &texts);
    guidance(golden, &model, &texts);
    for name in golden.names("schedule.sigma") {
        let (level, steps) = name.strip_prefix("schedule.sigma").unwrap().split_once("_steps").unwrap();
        let found = schedule(level.parse().unwrap(), steps.parse().unwrap());
        golden.check(&name, &Tensor::new(found, &Device::Cpu).unwrap());
    }
    // It reaches no sampler: a ready-made schedule is passed to all of them.
    golden.leave_out("schedule.dist_shift");
    autoencoder(golden, &model);
    for name in golden.names("") {
        if let Some(run) = name.strip_suffix(".init_noise") {
            golden.label(run);
            sample(golden, &model, &texts, &meta, run);
        }
    }
    golden.label("");
    golden.finish();
}

/// `[batch, time, channels]` as the reference has it, and back.
pub fn turned(x: &Tensor) -> Tensor {
    x.transpose(x.rank() - 2, x.rank() - 1).unwrap().contiguous().unwrap()
}

struct Texts {
    wanted: Vec<Conditions>,
    avoided: Conditions,
}

fn conditions(golden: &Golden, model: &StableAudio, meta: &Value) -> Texts {
    let conditioner = &model.conditioner;
    let seconds = |key: &str, index: usize| meta[key][index].as_f64().map(|value| value as f32);
    let numbers = |index: usize| {
        [
            ("seconds_total", seconds("seconds_total", index).unwrap()),
            ("seconds_start", seconds("seconds_start", index).unwrap_or(0.0)),
        ]
    };
    let build = |group: &str, texts: &[(&str, [(&str, f32); 2])]| -> Vec<Conditions> {
        let at = |part: &str| format!("{group}.{part}");
        let parts =
            |part: &dyn Fn(usize) -> Tensor| Tensor::stack(&(0..texts.len()).map(part).collect::<Vec<_>>(), 0).unwrap();
        let tokens: Vec<_> = texts.iter().map(|(text, _)| conditioner.tokens(text).unwrap()).collect();
        golden.check_ids(&at("input_ids"), &tokens.iter().flat_map(|(ids, _)| ids.clone()).collect::<Vec<_>>());
        let masks: Vec<u32> = tokens.iter().flat_map(|(_, mask)| mask.clone()).collect();
        golden.check_ids(&at("attention_mask"), &masks);
        golden.check_ids(&at("prompt_mask"), &masks);
        let mut hidden = Vec::new();
        let mut show = |_: &str, x: &Tensor| hidden.push(x.squeeze(0).unwrap());
        let embedded: Vec<Tensor> = texts.iter().map(|(text, _)| conditioner.text(text, &mut show).unwrap()).collect();
        golden.check(&at("t5_hidden"), &Tensor::stack(&hidden, 0).unwrap());
        golden.check(&at("prompt_embeds"), &Tensor::stack(&embedded, 0).unwrap());
        for number in &model.config.numbers {
            let value = |index: usize| {
                texts[index].1.iter().find(|(name, _)| *name == number.id).map_or(0.0, |(_, value)| *value)
            };
            let found = parts(&|index| conditioner.number(&number.id, value(index)).unwrap());
            golden.check(&at(&format!("{}_embeds", number.id)), &found);
        }
        let all: Vec<_> = texts.iter().map(|(text, values)| conditioner.conditions(text, values).unwrap()).collect();
        golden.check(&at("cross_attn_cond"), &parts(&|index| all[index].tokens.clone()));
        golden.check(&at("global_cond"), &parts(&|index| all[index].global.squeeze(0).unwrap()));
        // One flag per token; numbers are always there.
        let extra = golden.dims(&at("cross_attn_mask"))[1] - model.config.tokens;
        let mask = tokens.iter().flat_map(|(_, mask)| mask.iter().copied().chain(vec![1; extra]));
        golden.check_ids(&at("cross_attn_mask"), &mask.collect::<Vec<u32>>());
        all
    };
    let prompts: Vec<&str> = meta["prompts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let texts: Vec<_> = prompts.iter().enumerate().map(|(index, text)| (*text, numbers(index))).collect();
    let wanted = build("cond", &texts);
    let total = meta["negative_seconds_total"].as_f64().unwrap() as f32;
    let start = meta["negative_seconds_start"].as_f64().unwrap_or(f64::from(numbers(0)[1].1)) as f32;
    let negative = [("seconds_total", total), ("seconds_start", start)];
    let avoided = build("neg", &[(meta["negative_prompt"].as_str().unwrap(), negative)]);
    build("empty", &[("", numbers(prompts.len() - 1))]);

    for case in meta["tokenizer_cases"].as_array().unwrap() {
        let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let (found, mask) = conditioner.tokens(case["text"].as_str().unwrap()).unwrap();
        let real = mask.iter().sum::<u32>() as usize;
        golden.expect(found[..real] == ids[..], format!("{case}: {found:?}"));
    }
    let values: Vec<f32> = golden.input("number_probe.values").to_vec1().unwrap();
    let found: Vec<Tensor> = values.iter().map(|value| conditioner.number("seconds_total", *value).unwrap()).collect();
    golden.check("number_probe.embeds", &Tensor::cat(&found, 0).unwrap());
    let (ids, mask) = (golden.ids("t5_probe.input_ids"), golden.ids("t5_probe.attention_mask"));
    let t5 = &conditioner.encoder().unwrap().t5;
    golden.check("t5_probe.hidden", &t5.forward(&[ids], Some(&[mask]), &mut |_, _| {}).unwrap());
    let distances: Vec<i64> = golden.input("t5_probe.rel_pos").to_vec1().unwrap();
    let buckets: Vec<i64> = distances.iter().map(|distance| bucket(*distance, 32, 128) as i64).collect();
    golden.check_numbers("t5_probe.rel_bucket", &buckets);
    // The reference's half-precision run, for information.
    golden.leave_out("cond.t5_hidden_f16");
    Texts { wanted, avoided: avoided[0].clone() }
}

fn evaluate(
    model: &StableAudio,
    x: &Tensor,
    levels: &[f32],
    rows: &[Row],
    tap: &mut dyn FnMut(&str, &Tensor),
) -> Tensor {
    let mut pass = model.dit.begin(x, levels, rows, tap).unwrap();
    while model.dit.advance(&mut pass, rows, tap).unwrap() {}
    model.dit.finish(&pass, tap).unwrap()
}

fn transformer(golden: &Golden, model: &StableAudio, texts: &Texts) {
    let mut embedded: HashMap<String, Vec<Tensor>> = HashMap::new();
    let mut rows = Vec::new();
    for text in &texts.wanted {
        let mut show = |name: &str, x: &Tensor| embedded.entry(name.to_owned()).or_default().push(x.clone());
        rows.push(model.dit.prepare(&text.tokens, &text.global, &mut show).unwrap());
    }
    golden.check("dit.cond_embed", &Tensor::stack(&embedded["cond_embed"], 0).unwrap());
    golden.check("dit.global_embed", &Tensor::cat(&embedded["global_embed"], 0).unwrap());
    let (x, t) = (golden.input("dit.x"), golden.input("dit.t").to_vec1::<f32>().unwrap());
    let mut seen: HashMap<String, Tensor> = HashMap::new();
    evaluate(model, &x, &t, &rows, &mut |name, x| {
        seen.insert(name.to_owned(), x.clone());
        let name = format!("dit.{name}");
        if golden.has(&name) {
            golden.check(&name, x);
        }
    });
    let mut before = seen["input"].clone();
    for index in 0..model.dit.blocks() {
        let at = |name: &str| format!("block{index}.{name}");
        for (part, after) in [("self_attn", "after_self"), ("cross_attn", "after_cross"), ("ff", "out")] {
            let after = seen[&at(after)].clone();
            let name = format!("dit.{}", at(part));
            if golden.has(&name) {
                golden.check(&name, &(&after - &before).unwrap());
            }
            before = after;
        }
    }
    // The stored frequencies times the positions, twice.
    let source = Files::Folder(golden.folder.join("model")).weights(DType::F32, &Device::Cpu).unwrap();
    let half = golden.dims("dit.rotary_angles")[1] / 2;
    let stored = source.read("model.model.transformer.rotary_pos_emb.inv_freq", &[half]).unwrap();
    let positions = Tensor::arange(0f32, (model.config.frames() + 1) as f32, &Device::Cpu).unwrap();
    let angles = positions.unsqueeze(1).unwrap().broadcast_mul(&stored.unsqueeze(0).unwrap()).unwrap();
    golden.check("dit.rotary_angles", &Tensor::cat(&[&angles, &angles], 1).unwrap());
}

fn guidance(golden: &Golden, model: &StableAudio, texts: &Texts) {
    let (x, t) = (golden.input("dit.x"), golden.input("dit.t").to_vec1::<f32>().unwrap());
    let of = |conditions: &[Conditions], count: usize| {
        let rows: Vec<Row> = conditions.iter().take(count).map(|text| model.prepare(text).unwrap()).collect();
        evaluate(model, &x.narrow(0, 0, count).unwrap(), &t[..count], &rows, &mut |_, _| {})
    };
    let nothing: Vec<Conditions> = texts.wanted.iter().map(|text| text.nothing().unwrap()).collect();
    let against = [texts.wanted[0].against(&texts.avoided)];
    for name in golden.names("cfg.") {
        let what = name.strip_prefix("cfg.").unwrap();
        let count = if what.starts_with("batch") { what[5..6].parse().unwrap() } else { 1 };
        let cond = of(&texts.wanted, count);
        let found = if what == "cond_output" {
            cond
        } else if what == "null_output" {
            of(&nothing, count)
        } else {
            let number = |key: &str| -> Option<f64> {
                let rest = &what[what.find(key)? + key.len()..];
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                rest[..end].trim_end_matches('.').parse().ok()
            };
            let uncond = if what.contains("negative") { of(&against, count) } else { of(&nothing, count) };
            let guidance = Guidance { scale: number("scale").unwrap(), rescale: number("phi").unwrap_or(0.0) };
            guidance.join(&cond, &uncond).unwrap()
        };
        golden.check(&name, &found);
    }
}

fn autoencoder(golden: &Golden, model: &Arc<StableAudio>) {
    let name_of = |path: &[usize]| format!("layer{}", path.iter().map(usize::to_string).collect::<Vec<_>>().join("."));
    let there = |name: &str| golden.has(name) || golden.has(&format!("{name}.head"));
    for name in golden.names("vae.encode_") {
        let Some(base) = name.strip_suffix(".audio") else { continue };
        let sound = turned(&golden.input(&name).squeeze(0).unwrap());
        for frames in [usize::MAX, 1, 3] {
            let mut encoding = model.encoding(sound.clone());
            let (mean, scale) = loop {
                let show = &mut |path: &[usize], x: &Tensor| {
                    let name = format!("{base}.{}", name_of(path));
                    if frames == usize::MAX && there(&name) {
                        golden.check_signal(&name, &turned(x));
                    }
                };
                if let Some(done) = encoding.step_shown(Some(show), frames).unwrap() {
                    break done;
                }
            };
            golden.check(&format!("{base}.mean"), &mean);
            golden.check(&format!("{base}.scale"), &scale);
            golden.check(&format!("{base}.stdev"), &deviation(&scale).unwrap());
            let latents = model.vae.draw(&mean, &scale, &golden.input(&format!("{base}.noise"))).unwrap();
            golden.check(&format!("{base}.latents"), &latents);
        }
    }
    for name in golden.names("vae.decode_") {
        let Some(base) = name.strip_suffix(".latents") else { continue };
        let latents = golden.input(&name);
        for frames in [usize::MAX, 1, 3] {
            let mut decoding = model.decoding(&latents).unwrap();
            let (mut parts, mut seen) = (Vec::new(), HashMap::new());
            while !decoding.is_complete() {
                let show = &mut |path: &[usize], x: &Tensor| {
                    seen.insert(name_of(path), turned(x));
                };
                parts.extend(decoding.step_shown(Some(show), frames).unwrap());
            }
            if frames == usize::MAX {
                // A residual unit's second convolution is what the unit adds.
                let added = (&seen["layer1.2"] - &seen["layer1.1"]).unwrap();
                seen.insert("layer1.2.3".into(), added);
                for (layer, x) in &seen {
                    let name = format!("{base}.{layer}");
                    if there(&name) {
                        golden.check_signal(&name, x);
                    }
                }
            }
            golden.check_signal(&format!("{base}.audio"), &turned(&Tensor::cat(&parts, 1).unwrap()));
        }
    }
    let source = Files::Folder(golden.folder.join("model")).weights(DType::F32, &Device::Cpu).unwrap();
    let target = Target::new(&Device::Cpu);
    for name in golden.names("vae.fused.") {
        let at = name.strip_prefix("vae.fused.").unwrap();
        let shape: [usize; 3] = golden.dims(&name).try_into().unwrap();
        let weights = Weights::new(&source as &dyn TensorSource, &target).at("pretransform.model").at(at);
        golden.check(&name, &fused_weight(&weights, shape).unwrap());
    }
}

/// Hands out recorded draws, one after the other.
pub fn recorded(draws: Vec<Tensor>) -> NoiseSource {
    let mut draws = draws.into_iter();
    Box::new(move |shape| {
        let draw = draws.next().unwrap_or_else(|| panic!("more draws than were recorded"));
        assert_eq!(draw.dims(), shape);
        Ok(draw)
    })
}

fn sample(golden: &Golden, model: &Arc<StableAudio>, texts: &Texts, meta: &Value, run: &str) {
    let at = |part: &str| format!("{run}.{part}");
    let levels: Vec<f32> = golden.input(&at("t")).to_vec1().unwrap();
    let steps = levels.len() - 1;
    let found = schedule(f64::from(levels[0]), steps);
    golden.check(&at("t"), &Tensor::new(found.clone(), &Device::Cpu).unwrap());
    let noise = golden.input(&at("init_noise"));
    let batch = noise.dim(0).unwrap();
    let fresh = || -> Vec<Tensor> {
        match golden.has(&at("step_noise")) {
            true => (0..steps).map(|step| golden.input(&at("step_noise")).get(step).unwrap()).collect(),
            false => Vec::new(),
        }
    };
    let sampler = match (golden.has(&at("step_noise")), run.contains("dpmpp")) {
        (true, _) => Sampler::PingPong,
        (false, true) => Sampler::Dpmpp,
        (false, false) => Sampler::Euler,
    };
    let named = run.find("cfg").map(|index| run[index + 3..index + 4].parse().unwrap());
    // What the case's README says of the runs whose names say nothing.
    let scale: f64 = named.unwrap_or(match (run, model.config.objective) {
        ("variation_mono", _) => 6.0,
        ("variation", Objective::RectifiedFlow) => 4.0,
        _ => 1.0,
    });
    let negative = run.contains("neg") || run == "variation_mono";
    let avoided = |text: &Conditions| if negative { text.against(&texts.avoided) } else { text.nothing().unwrap() };
    let rows = |conditions: Vec<Conditions>| -> Vec<Row> {
        conditions.iter().map(|text| model.prepare(text).unwrap()).collect()
    };
    let mut wanted = rows(texts.wanted[..batch].to_vec());
    let unwanted = rows(texts.wanted[..batch].iter().map(avoided).collect());

    let (mut xs, mut vs) = (Vec::new(), Vec::new());
    let mut show = |name: &str, x: &Tensor| match name {
        "model_x" => xs.push(x.clone()),
        "model_v" => vs.push(x.clone()),
        name if golden.has(&at(name)) => golden.check(&at(name), x),
        _ => {}
    };
    if golden.has(&at("vae_noise")) {
        let mut draws = vec![noise, golden.input(&at("vae_noise"))];
        draws.extend(fresh());
        let sound = match run {
            _ if golden.has(&at("init_audio")) => golden.input(&at("init_audio")),
            "variation" => golden.input("vae.encode_clip.audio").squeeze(0).unwrap(),
            _ => {
                let samples = meta["variation_mono_samples"].as_u64().unwrap() as usize;
                let mono = golden.input("vae.encode_clip.audio").get(0).unwrap().narrow(0, 0, 1).unwrap();
                mono.narrow(1, 0, samples).unwrap().repeat((2, 1)).unwrap()
            }
        };
        let settings = PieceSettings { sampler, steps, guidance: scale };
        let init = Some((turned(&sound), Init::Vary(f64::from(levels[0]))));
        let texts = (wanted.remove(0), unwanted[0].clone());
        let mut piece = DenoiseTask::new(model, texts, settings, init, recorded(draws)).unwrap();
        while !piece.is_complete() {
            piece.step_shown(&mut show).unwrap();
        }
    } else {
        if scale != 1.0 {
            wanted.extend(unwanted);
        }
        let way = (sampler, found);
        let draws = recorded(fresh());
        let mut diffusion = Diffusion::new(model, wanted, Guidance::plain(scale), way, noise, draws).unwrap();
        while !diffusion.is_complete() {
            diffusion.step(&mut show).unwrap();
        }
        golden.check(&at("latents"), diffusion.latents());
        if golden.has(&at("audio")) || golden.has(&at("audio.head")) {
            let mut decoding = model.decoding(&diffusion.latents().narrow(0, 0, 1).unwrap()).unwrap();
            let mut parts = Vec::new();
            while !decoding.is_complete() {
                parts.extend(decoding.step().unwrap());
            }
            golden.check_signal(&at("audio"), &turned(&Tensor::cat(&parts, 1).unwrap()));
        }
    }
    golden.check(&at("model_x"), &Tensor::stack(&xs, 0).unwrap());
    golden.check(&at("model_v"), &Tensor::stack(&vs, 0).unwrap());
}
