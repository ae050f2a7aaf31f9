//! What the original service makes of a model's window: prompts, bars, lengths, levels and uploads.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use continuo::{
    bars::{bar_seconds, fitting_bars, tempo},
    model::stable_audio::{
        DenoiseTask, Init, PieceSettings, Sampler, StableAudio,
        loops::{Mask, loop_samples, normalise, peak, pull_weights},
    },
};
use serde_json::Value;

use super::{
    golden::Golden,
    sinc::sinc,
    stable_audio::{load, recorded, turned},
};

/// A sample as 16-bit PCM, cut towards zero as the original does.
fn to_i16(sample: f32) -> i16 {
    (sample * 32_767.0) as i16
}

struct Recorded(std::collections::HashMap<String, Tensor>);

impl Recorded {
    fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the case")).clone()
    }

    fn near(&self, name: &str, found: &Tensor, atol: f32) {
        let expected = self.get(name);
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let worst = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let worst = worst.to_scalar::<f32>().unwrap();
        assert!(worst <= atol, "{name}: {worst} is beyond {atol}");
    }
}

/// The runs of a case through the original's routes.
pub fn check_runs(golden: &Golden) {
    let model = load(golden);
    let tensors = candle_core::safetensors::load(golden.folder.join("api.safetensors"), &Device::Cpu).unwrap();
    let tensors = Recorded(tensors);
    let requests = golden.json("api.json");
    for (name, run) in requests.as_object().unwrap() {
        run_one(&model, &tensors, name, run);
    }
}

fn number(request: &Value, key: &str) -> Option<f64> {
    request[key].as_f64().or_else(|| request[key].as_str()?.parse().ok())
}

fn run_one(model: &Arc<StableAudio>, tensors: &Recorded, name: &str, run: &Value) {
    let at = |part: &str| format!("{name}.{part}");
    let (request, config) = (&run["request"], &model.config);
    let endpoint = run["endpoint"].as_str().unwrap();
    let prompt = run["metadata"]["prompt"].as_str().or(request["prompt"].as_str()).unwrap();
    let bpm = tempo(prompt);
    let guided = endpoint.ends_with("loop-guided");
    let bars = run["bars"].as_u64().or(run["metadata"]["bars"].as_u64()).map(|bars| bars as u32);
    let whole = config.seconds().floor().max(1.0);
    let seconds = match endpoint {
        "/generate/style-transfer" => 12.0,
        "/generate/loop-guided" => bar_seconds(bpm.unwrap()) * f64::from(bars.unwrap()),
        _ => whole,
    };
    let scale = if guided { 1.0 } else { run["metadata"]["cfg_scale"].as_f64().unwrap() };
    let steps = number(request, "steps").unwrap_or(8.0) as usize;
    let euler = request["sampler_type"] == "euler";
    let settings =
        PieceSettings { sampler: if euler { Sampler::Euler } else { Sampler::PingPong }, steps, guidance: scale };
    let numbers = [("seconds_total", seconds as f32)];
    let wanted = model.conditioner.conditions(prompt, &numbers).unwrap();
    let avoided = match run["metadata"]["negative_prompt"].as_str().filter(|text| !text.is_empty()) {
        Some(text) => wanted.against(&model.conditioner.conditions(text, &numbers).unwrap()),
        None => wanted.nothing().unwrap(),
    };
    let rows = (model.prepare(&wanted).unwrap(), model.prepare(&avoided).unwrap());
    let clip = || {
        let mono = tensors.get("style.input").mean_keepdim(0).unwrap();
        turned(&mono.repeat((2, 1)).unwrap())
    };
    let mut draws = vec![tensors.get(&at("init_noise"))];
    let mut init = None;
    if guided {
        draws.insert(0, tensors.get(&at("vae_noise")));
        let mask = if request["guidance_mask"] == "full" { Mask::Full } else { Mask::Fade };
        let ends = (
            number(request, "guidance_start_weight").unwrap_or(1.0),
            number(request, "guidance_end_weight").unwrap_or(1.0),
        );
        let bars = fitting_bars(bpm.unwrap(), config.seconds());
        let weights = pull_weights(mask, config.frames(), bars, ends);
        let frames = weights.len();
        let found = Tensor::from_vec(weights.clone(), (1, 1, frames), &Device::Cpu).unwrap();
        tensors.near(&at("M_sq"), &found, 1e-5);
        init = Some((clip(), Init::LatentGuidance(weights, number(request, "guidance_strength").unwrap())));
    } else if endpoint == "/generate/style-transfer" {
        draws.push(tensors.get(&at("vae_noise")));
        init = Some((clip(), Init::Vary(number(request, "style_strength").unwrap())));
    }
    if !euler {
        let noise = tensors.get(&at("step_noise"));
        draws.extend((0..steps).map(|step| noise.get(step).unwrap()));
    }
    let mut piece = DenoiseTask::new(model, rows, settings, init, recorded(draws)).unwrap();
    let mut velocities = Vec::new();
    while !piece.is_complete() {
        piece
            .step_shown(&mut |shown, x| match shown {
                "model_v" => velocities.push(x.clone()),
                "latents" => tensors.near(&at("latents"), x, 5e-4),
                "init_latents" if guided => tensors.near(&at("z_y"), x, 5e-4),
                _ => {}
            })
            .unwrap();
    }
    tensors.near(&at("model_v"), &Tensor::stack(&velocities, 0).unwrap(), 1e-3);
    let sound = piece.sound().unwrap();
    let (top, wanted) = (peak(&sound).unwrap(), tensors.get(&at("peak")).to_vec1::<f32>().unwrap()[0]);
    assert!((top / wanted - 1.0).abs() < 1e-3, "{name}: peak {top}, expected {wanted}");
    let mut samples: Vec<f32> = sound.flatten_all().unwrap().to_vec1().unwrap();
    normalise(&mut samples, top);
    let frames = match (bpm, bars) {
        (Some(bpm), Some(bars)) => loop_samples(bpm, bars, config.sample_rate),
        _ => config.window.min((seconds * f64::from(config.sample_rate)) as usize),
    };
    let out: Vec<i16> = samples[..2 * frames.min(config.window)].iter().map(|sample| to_i16(*sample)).collect();
    assert_eq!(run["out_shape"][1].as_u64().unwrap() as usize, out.len() / 2, "{name}");
    for part in ["out_i16", "out_i16_head", "out_i16_tail"] {
        if !tensors.0.contains_key(&at(part)) {
            continue;
        }
        let expected = tensors.get(&at(part)).to_dtype(candle_core::DType::I64).unwrap().to_vec2::<i64>().unwrap();
        let count = expected[0].len();
        let start = if part.ends_with("tail") { out.len() / 2 - count } else { 0 };
        for (channel, expected) in expected.iter().enumerate() {
            for (frame, expected) in expected.iter().enumerate() {
                let found = i64::from(out[2 * (start + frame) + channel]);
                assert!((found - expected).abs() <= 16, "{name} {part} frame {frame}: {found}, expected {expected}");
            }
        }
    }
}

/// The arithmetic of the original's routes, without a model: a folder with `handlers.json` and
/// `audio.safetensors`.
pub fn check_handlers(folder: &Path) {
    let requests: Value = serde_json::from_slice(&std::fs::read(folder.join("handlers.json")).unwrap()).unwrap();
    for run in requests.as_array().unwrap() {
        let prompt = run["request"]["prompt"].as_str().unwrap();
        if run["endpoint"] != "/generate/loop" {
            continue;
        }
        if run["status"] == 400 && run["request"]["bars"].is_null() {
            assert_eq!(tempo(prompt), None, "{prompt}");
        }
        let Some(bars) = run["bars"].as_u64() else { continue };
        let bpm = tempo(prompt).unwrap();
        let window = run["call"]["sample_size"].as_f64().unwrap() / 44_100.0;
        assert_eq!(u64::from(fitting_bars(bpm, window - 1.0)), bars, "{prompt}");
        let samples = loop_samples(bpm, bars as u32, 44_100).min(run["call"]["sample_size"].as_u64().unwrap() as usize);
        assert_eq!(samples as u64, run["loop_samples"].as_u64().unwrap(), "{prompt}");
    }
    let tensors = Recorded(candle_core::safetensors::load(folder.join("audio.safetensors"), &Device::Cpu).unwrap());
    for name in tensors.0.keys().filter_map(|name| name.strip_prefix("processed.in")) {
        let rate: u32 = name.split('_').next().unwrap().parse().unwrap();
        let mono = tensors.get(&format!("processed.in{name}")).mean(0).unwrap();
        let found = sinc(&mono.to_vec1::<f32>().unwrap(), rate, 44_100);
        let length = found.len();
        let found = Tensor::from_vec([found.clone(), found].concat(), (2, length), &Device::Cpu).unwrap();
        tensors.near(&format!("processed.out{name}"), &found, 1e-5);
    }
    let input = tensors.get("postprocess.in");
    let mut samples: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();
    normalise(&mut samples, peak(&input).unwrap());
    let found: Vec<i64> = samples.iter().map(|sample| i64::from(to_i16(*sample))).collect();
    let expected = tensors.get("postprocess.out_i16").to_dtype(candle_core::DType::I64).unwrap();
    assert_eq!(found, expected.flatten_all().unwrap().to_vec1::<i64>().unwrap());
}
