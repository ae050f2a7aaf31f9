//! Which models clients may name: the operator's, whatever surface they come in by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::client::{call, get};
use super::server::{Server, start_loading};
use continuo::engine::standin::Standin;
use continuo::engine::{AskModel, Engine, ModelRequest};
use continuo::studio::Naming;
use continuo::units::ModelId;

fn shut() -> Naming {
    Naming {
        patterns: vec!["me/*".into()],
        offered: vec!["offered/one-large".into()],
        loopback_names_all: false,
        ..Naming::default()
    }
}

/// Loads stand-ins under any name, and counts.
fn load_all(engine: &Engine, loads: &Arc<AtomicUsize>) -> AskModel<ModelId> {
    let (engine, loads) = (engine.clone(), Arc::clone(loads));
    Arc::new(move |request: ModelRequest| {
        let (engine, loads) = (engine.clone(), Arc::clone(&loads));
        Box::pin(async move {
            loads.fetch_add(1, Ordering::SeqCst);
            let backend = Box::new(Standin::new(&request.model, 8));
            engine.add_model(backend).await.map_err(|error| error.to_string())?;
            Ok(ModelId(request.model))
        })
    })
}

async fn refusal(server: &Server, path: &str, body: &serde_json::Value) -> (u16, String) {
    let mut answer = call(server.addr, "POST", path, &body.to_string()).await;
    (answer.status, answer.text().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_name_loaded_offered_and_allowed_models_and_no_other() {
    let loads = Arc::new(AtomicUsize::new(0));
    let server = start_loading(shut(), |engine| load_all(engine, &loads)).await;
    let sound = "UklGRg==";
    let tune = json!({ "model_type": "finetune", "finetune_repo": "x/y", "finetune_checkpoint": "a.ckpt", "prompt": "x 120bpm" });
    for name in ["/etc", "/no/such/folder", "./models", "../..", "x/y"] {
        let mut told = Vec::new();
        for (path, body) in [
            ("/v1/models", json!({ "model": name })),
            ("/set_model", json!({ "model": name })),
            ("/v1/clips", json!({ "prompt": "a", "model": name })),
        ] {
            let (status, sentence) = refusal(&server, path, &body).await;
            assert_eq!(status, 403, "{path} {name}: {sentence}");
            assert!(sentence.contains("--allow-models"), "{sentence}");
            told.push(sentence.replace(name, "X"));
        }
        let other = refusal(&server, "/v1/models", &json!({ "model": "X" })).await.1;
        assert!(told.iter().all(|sentence| *sentence == other), "no sentence tells which folders there are");
        let juce = json!({ "audio_data": sound, "model_name": name, "prompt_duration": 6 });
        let (status, sentence) = refusal(&server, "/api/juce/process_audio", &juce).await;
        assert!(status == 400 && !sentence.contains("true"), "{sentence}");
    }
    for path in ["/generate", "/generate/loop", "/models/switch", "/models/checkpoints"] {
        let (status, sentence) = refusal(&server, path, &tune).await;
        assert!(status == 403 || sentence.contains("no loop model"), "{path}: {status} {sentence}");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 0);
    for name in ["me/mine", "offered/ONE-large"] {
        assert_eq!(refusal(&server, "/v1/models", &json!({ "model": name })).await.0, 200);
    }
    let menu = get(server.addr, "/api/models").await.text().await;
    assert!(!menu.contains("thepatch") && menu.contains("offered/one-large"), "{menu}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_folder_in_forty_spellings_is_one_model() {
    let (folder, loads) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
    let server = start_loading(Naming::default(), |engine| load_all(engine, &loads)).await;
    for n in 0..40 {
        let name = format!("{}{}{}", folder.path().display(), "/".repeat(n), "/.".repeat(n % 4));
        assert_eq!(refusal(&server, "/v1/models", &json!({ "model": name })).await.0, 200);
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(get(server.addr, "/v1/models").await.json().await["models"].as_array().unwrap().len(), 2);
}
