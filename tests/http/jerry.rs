//! jerry's clients: the Ableton device, the plug-in, `curl -F`, and every mistake.

use std::sync::{Arc, Mutex};

use continuo::audio::decode;
use continuo::engine::standin::looper;
use continuo::engine::{FineTune, RenderModel};
use continuo::pcm::Pcm;
use continuo::studio::{FineTunes, Riffs};
use continuo::units::SampleRate;
use serde_json::{Value, json};

use super::client::{call, get};
use super::juce::bytes_of;
use super::renders::models;
use super::server::{Server, start, start_rendering};
use super::terry::post_form;

/// As [`models`] has it: eight kilohertz, a window of 8.192 s.
const RATE: usize = 8000;

async fn ask(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let mut answer = call(server.addr, "POST", path, &body.to_string()).await;
    (answer.status, answer.json().await)
}

fn sound(answer: &Value) -> Pcm {
    decode(bytes_of(answer["audio_base64"].as_str().unwrap_or_else(|| panic!("{answer}")))).unwrap()
}

fn wav(seconds: usize) -> Vec<u8> {
    let pcm = (0..seconds * 22_050).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
    Pcm { pcm, channels: 1, rate: SampleRate(22_050) }.wav()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_and_the_plug_in_get_what_they_read() {
    let server = start_rendering(models()).await;
    // As the device asks, and as the plug-in does.
    let device =
        json!({ "prompt": "warm pads 120bpm", "steps": 4, "cfg_scale": 1.5, "return_format": "base64", "seed": -1 });
    let mut plug_in = device.clone();
    plug_in["model_type"] = json!("standard");
    plug_in["sampler_type"] = json!("pingpong");
    for (path, body) in [
        ("/generate", &device),
        ("/audio/generate", &plug_in),
        ("/jerry/generate", &plug_in),
        ("/gary/generate", &device),
    ] {
        let (status, answer) = ask(&server, path, body).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{path} {answer}");
        let sound = sound(&answer);
        assert_eq!((sound.frames(), sound.channels, sound.rate.0 as usize), (8 * RATE, 2, RATE));
        let told = &answer["metadata"];
        assert!(told["generation_time"].is_number() && told["realtime_factor"].is_number(), "{told}");
        assert_eq!(
            (&told["detected_bpm"], &told["duration_seconds"], &told["steps"], &told["cfg_scale"], &told["device"]),
            (&json!(120), &json!(8), &json!(4), &json!(1.5), &json!("cpu"))
        );
        assert!(told["seed"].as_u64().unwrap() < 1 << 32);
    }
    // The same seed makes the same file; the file is what is sent by default.
    let body = json!({ "prompt": "warm pads", "steps": 2, "seed": 7, "seconds_total": 3 });
    let mut files = Vec::new();
    for _ in 0..2 {
        let mut answer = call(server.addr, "POST", "/generate", &body.to_string()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/wav")));
        assert!(answer.header("content-disposition").unwrap().contains("stable_audio_7_"));
        files.push(answer.body().await);
    }
    assert!(files[0] == files[1] && decode(files.remove(0)).unwrap().frames() == 3 * RATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_has_exactly_its_bars() {
    let server = start_rendering(models()).await;
    for (prompt, bars, expected) in [
        ("funk 120bpm", Value::Null, 2),
        ("funk 140bpm", json!("auto"), 4),
        ("funk 120bpm", json!(1), 1),
        ("funk at 92.5 BPM", Value::Null, 2),
        ("funk, bpm: 87,5", json!(1), 1),
        ("funk 120 BPM", json!("4"), 4),
        // Sixteen seconds do not fit: halved.
        ("funk 120bpm", json!(8), 4),
    ] {
        let body =
            json!({ "prompt": prompt, "bars": bars, "steps": 2, "return_format": "base64", "loop_type": "drums" });
        let (status, answer) = ask(&server, "/audio/generate/loop", &body).await;
        assert_eq!(status, 200, "{answer}");
        let (told, sound) = (&answer["metadata"], sound(&answer));
        assert_eq!(told["bars"], expected, "{prompt} {bars}");
        let bpm = told["detected_bpm"].as_f64().unwrap();
        let frames = (240.0 / bpm * f64::from(expected) * RATE as f64) as usize;
        assert_eq!(sound.frames(), frames);
        assert!((told["loop_duration_seconds"].as_f64().unwrap() - frames as f64 / RATE as f64).abs() < 1e-9);
        assert_eq!(told["prompt"], format!("{prompt} drum loop"));
        assert!(told["negative_prompt"].as_str().unwrap().contains("vocals"));
        assert_eq!(
            (&told["original_prompt"], &told["style_transfer"], &told["style_strength"]),
            (&json!(prompt), &json!(false), &Value::Null)
        );
    }
    // With a sound, as a form, and as a file.
    let fields = [("prompt", "drums and strings 140bpm"), ("loop_type", "instruments"), ("steps", "2"), ("seed", "3")];
    let mut answer = post_form(&server, "/generate/loop", &fields, Some(("audio_file", &wav(2)))).await;
    assert!(answer.header("content-disposition").unwrap().contains("loop_instruments_140bpm_4bars_3.wav"));
    assert_eq!(decode(answer.body().await).unwrap().frames(), (240.0 / 140.0 * 4.0 * RATE as f64) as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_changes_its_style_or_guides_a_loop() {
    let server = start_rendering(models()).await;
    let fields = [("prompt", "strings"), ("steps", "2"), ("style_strength", "0.6"), ("return_format", "base64")];
    let mut answer = post_form(&server, "/generate/style-transfer", &fields, Some(("audio_file", &wav(3)))).await;
    let answer = answer.json().await;
    assert_eq!(sound(&answer).frames(), 65_536, "the whole window");
    let told = &answer["metadata"];
    assert_eq!((&told["style_strength"], &told["input_audio_shape"]), (&json!(0.6), &json!([2, 24_000])));
    let fields = [
        ("prompt", "strings 120bpm"),
        ("steps", "2"),
        ("bars", "2"),
        ("guidance_mask", "full"),
        ("guidance_end_weight", "0.5"),
    ];
    let mut answer = post_form(&server, "/audio/generate/loop-guided", &fields, Some(("audio_file", &wav(3)))).await;
    assert!(answer.header("content-disposition").unwrap().contains("guided_loop_"));
    assert_eq!(decode(answer.body().await).unwrap().frames(), 4 * RATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_begins_with_a_riff_of_the_users_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("csharp_90bpm.wav"), wav(3)).unwrap();
    std::fs::write(folder.path().join("a_120_bpm_2.wav"), wav(3)).unwrap();
    let server = start_rendering(models().with_riffs(Riffs::of(folder.path()).unwrap())).await;
    let there = get(server.addr, "/riffs/available").await.json().await;
    assert_eq!((&there["available_keys"], &there["total_keys"]), (&json!(["a", "csharp"]), &json!(2)));
    assert_eq!(there["riff_details"]["csharp"][0]["original_bpm"], 90.0);
    let fields = [("prompt", "keys 120bpm"), ("key", "C#"), ("steps", "2"), ("return_format", "base64"), ("seed", "5")];
    let answer = post_form(&server, "/generate/loop-with-riff", &fields, None).await.json().await;
    assert_eq!(sound(&answer).frames(), 8 * RATE);
    let told = &answer["metadata"];
    assert_eq!(
        (&told["key"], &told["source"], &told["bars"]),
        (&json!("csharp"), &json!("personal_riff_library"), &json!(4))
    );
    let mut unknown =
        post_form(&server, "/generate/loop-with-riff", &[("prompt", "keys 120bpm"), ("key", "h")], None).await;
    assert_eq!(unknown.status, 400);
    let unknown = unknown.json().await;
    assert_eq!((&unknown["success"], &unknown["available_keys"]), (&json!(false), &json!(["a", "csharp"])));
}

/// Two checkpoints that are the tiny model again.
#[derive(Default)]
struct Tuned(Mutex<Vec<String>>);

impl FineTunes for Tuned {
    fn load(&self, which: &FineTune) -> Result<RenderModel, String> {
        self.0.lock().unwrap().push(which.checkpoint.clone());
        match which.checkpoint.as_str() {
            "a.ckpt" | "b.ckpt" => looper(8000),
            other => Err(format!("There is no {other} in {}.", which.repo)),
        }
    }

    fn checkpoints(&self, repo: &str) -> Result<Vec<String>, String> {
        match repo {
            "somebody/loops" => Ok(vec!["b.ckpt".into(), "a.ckpt".into()]),
            "somebody/nothing" => Ok(Vec::new()),
            _ => Err("There is no such repository.".into()),
        }
    }

    fn prompts(&self, _: &str) -> Option<Value> {
        Some(json!({ "version": 1, "dice": { "generic": ["dusty keys"] } }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fine_tunes_are_listed_loaded_used_and_given_back() {
    let tuned = Arc::new(Tuned::default());
    let server = start_rendering(models().with_fine_tunes("a/base", tuned.clone())).await;
    let status = get(server.addr, "/audio/models/status").await.json().await;
    assert_eq!((&status["cache_status"]["loaded_models"], &status["max_models"]), (&json!([]), &json!(3)));
    let (_, found) = ask(&server, "/models/checkpoints", &json!({ "finetune_repo": "somebody/loops" })).await;
    assert_eq!((&found["checkpoints"], &found["count"]), (&json!(["a.ckpt", "b.ckpt"]), &json!(2)));
    let (code, none) = ask(&server, "/models/checkpoints", &json!({ "finetune_repo": "somebody/nothing" })).await;
    assert_eq!((code, &none["repo"]), (404, &json!("somebody/nothing")));
    let (code, none) = ask(&server, "/models/checkpoints", &json!({ "finetune_repo": "nobody/x" })).await;
    assert!(code == 404 && none["hint"].is_string(), "{none}");
    let tune = json!({ "model_type": "finetune", "finetune_repo": "somebody/loops", "finetune_checkpoint": "a.ckpt" });
    let (code, switched) = ask(&server, "/models/switch", &tune).await;
    assert_eq!((code, &switched["success"], &switched["model_type"]), (200, &json!(true), &json!("finetune")));
    let key = "finetune_somebody_loops_a_ckpt";
    assert_eq!(switched["cache_status"]["loaded_models"], json!([key]));
    let mut body = tune.clone();
    (body["prompt"], body["steps"], body["return_format"]) = (json!("keys 120bpm"), json!(2), json!("base64"));
    let (code, made) = ask(&server, "/generate/loop", &body).await;
    assert_eq!((code, &made["metadata"]["model_type"]), (200, &json!("finetune")), "{made}");
    assert_eq!(*tuned.0.lock().unwrap(), ["a.ckpt"], "loaded once");
    let status = get(server.addr, "/models/status").await.json().await;
    assert_eq!(status["model_details"][key]["source"], "somebody/loops/a.ckpt");
    for query in ["", "?prefer=finetune", "?repo=somebody/loops&checkpoint=a", &format!("?key={key}")] {
        let prompts = get(server.addr, &format!("/models/prompts{query}")).await.json().await;
        assert_eq!(prompts["prompts"]["dice"]["generic"], json!(["dusty keys"]), "{query}");
    }
    let prompts = get(server.addr, "/models/prompts?key=nothing").await.json().await;
    assert!(prompts["prompts"].is_null() && prompts["message"].is_string());
    let (code, bad) = ask(
        &server,
        "/models/switch",
        &json!({ "model_type": "finetune", "finetune_repo": "x/y", "finetune_checkpoint": "z.ckpt" }),
    )
    .await;
    assert!(code == 503 && bad["error"].as_str().unwrap().contains("z.ckpt"), "{code} {bad}");
    ask(&server, "/models/clear-cache", &json!({})).await;
    let status = get(server.addr, "/models/status").await.json().await;
    assert_eq!(status["cache_status"]["loaded_models"], json!([]));
    let health = get(server.addr, "/audio/health").await.json().await;
    assert_eq!((&health["status"], &health["model_info"]["sample_rate"]), (&json!("healthy"), &json!(RATE)));
    let info = get(server.addr, "/model/info").await.json().await;
    assert_eq!((&info["model_name"], &info["config"]["io_channels"]), (&json!("a/base"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_the_same_shape_and_leaves_nothing() {
    let server = start_rendering(models()).await;
    for (path, body, word) in [
        ("/audio/generate", json!({}), "prompt"),
        ("/generate", json!({ "prompt": " " }), "prompt"),
        ("/generate", json!({ "prompt": "x", "steps": 0 }), "steps"),
        ("/generate", json!({ "prompt": "x", "steps": 251 }), "steps"),
        ("/generate", json!({ "prompt": "x", "steps": "many" }), "steps"),
        ("/generate", json!({ "prompt": "x", "cfg_scale": 21 }), "cfg_scale"),
        ("/generate", json!({ "prompt": "x", "seconds_total": 0 }), "seconds_total"),
        ("/generate", json!({ "prompt": "x", "seconds_total": 2.5 }), "seconds_total"),
        ("/generate", json!({ "prompt": "x", "return_format": "mp3" }), "return_format"),
        ("/generate", json!({ "prompt": "x", "model_type": "best" }), "model_type"),
        ("/generate", json!({ "prompt": "x", "model_type": "finetune" }), "finetune_repo"),
        ("/generate", json!({ "prompt": "x", "sampler_type": "magic" }), "sampler_type"),
        ("/generate", json!({ "prompt": "x".repeat(3000) }), "characters"),
        ("/generate/loop", json!({ "bars": 4 }), "prompt"),
        ("/generate/loop", json!({ "prompt": "no tempo" }), "tempo"),
        ("/generate/loop", json!({ "prompt": "x 120bpm", "bars": 3 }), "bars"),
        ("/generate/loop", json!({ "prompt": "x 9999bpm" }), "bpm"),
        ("/generate/loop", json!({ "prompt": "x 120bpm", "loop_type": "waltz" }), "loop_type"),
        ("/generate/style-transfer", json!({ "prompt": "x" }), "audio_file"),
        ("/generate/loop-guided", json!({ "prompt": "x 120bpm" }), "audio_file"),
        ("/generate/loop-with-riff", json!({ "prompt": "x 120bpm" }), "key"),
        ("/generate/loop-with-riff", json!({ "prompt": "x 120bpm", "key": "a" }), "--riffs"),
        ("/models/checkpoints", json!({}), "fine-tunes"),
    ] {
        let (status, answer) = ask(&server, path, &body).await;
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{path} {body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{path} {body}: {answer}");
    }
    for body in ["", "{", "[1]"] {
        let mut answer = call(server.addr, "POST", "/audio/generate", body).await;
        assert!(answer.status == 400 && answer.json().await["success"] == false, "{body}");
    }
    let fields = [("prompt", "x 120bpm"), ("guidance_mask", "half")];
    let mut bad = post_form(&server, "/generate/loop-guided", &fields, Some(("audio_file", &wav(1)))).await;
    assert!(bad.status == 400 && bad.text().await.contains("guidance_mask"));
    let mut bad =
        post_form(&server, "/generate/style-transfer", &[("prompt", "x")], Some(("audio_file", b"no music"))).await;
    assert!(bad.status == 400 && bad.text().await.contains("Failed to load audio"));
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_weights_every_route_says_how_to_get_them() {
    let server = start().await;
    let sentence = "--loop-model stabilityai/stable-audio-open-small";
    let plain = json!({ "prompt": "x 120bpm", "key": "a" });
    for path in ["/generate", "/audio/generate", "/generate/loop", "/generate/loop-with-riff", "/models/switch"] {
        let (status, answer) = ask(&server, path, &plain).await;
        assert_eq!((status, &answer["success"]), (503, &json!(false)), "{path}");
        assert!(answer["error"].as_str().unwrap().contains(sentence), "{path}: {answer}");
    }
    for path in ["/generate/style-transfer", "/generate/loop-guided"] {
        let mut answer = post_form(&server, path, &[("prompt", "x 120bpm")], Some(("audio_file", &wav(1)))).await;
        assert!(answer.status == 503 && answer.text().await.contains(sentence), "{path}");
    }
    for path in ["/models/status", "/models/prompts", "/model/info", "/jerry/health", "/audio/health"] {
        let mut answer = get(server.addr, path).await;
        assert!(answer.status == 503 && answer.json().await["error"].as_str().unwrap().contains(sentence), "{path}");
    }
    // What others have under the same paths is untouched.
    assert_eq!(get(server.addr, "/health").await.json().await["status"], "live");
    let mut rounds = call(server.addr, "POST", "/generate", r#"{"prompts": []}"#).await;
    assert!(rounds.problem().await.contains("0 prompts"));
}
