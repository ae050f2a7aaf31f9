//! What is loaded, what could be, and the user's riffs.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::super::client::owner;
use super::super::query::{pairs, raw};
use super::super::router::get;
use super::super::{App, HttpError, Routes, body};
use super::ask::Ask;
use super::{Failure, answer, shown};
use crate::engine::{DeviceKind, FineTune, RenderInfo};
use crate::studio::{MOST_LOOPS, Owner, RenderModels, Studio, StudioError};

pub(super) fn routes(app: &Arc<App>) -> Routes {
    let riffs = shown(app, warp::path!("riffs" / "available").boxed(), async |app| riffs(&app));
    let status = shown(app, warp::path!("models" / "status").boxed(), async |app| {
        Ok(warp::reply::json(&status(app.studio()?)?).into_response())
    });
    let info = shown(app, warp::path!("model" / "info").boxed(), async |app| info(&app).await);
    let health = shown(app, warp::path!("health").boxed(), async |app| health(&app).await);
    let for_prompts = Arc::clone(app);
    let prompts = warp::path!("models" / "prompts").and(get()).and(raw()).then(move |query: String| {
        let app = Arc::clone(&for_prompts);
        async move { answer(prompts(&app, &query).await) }
    });
    let for_asked = Arc::clone(app);
    let asked = warp::path!("models" / String)
        .and_then(|what: String| async move {
            let known = ["checkpoints", "switch", "clear-cache"];
            known.into_iter().find(|name| *name == what).ok_or_else(warp::reject::not_found)
        })
        .or(warp::path!("cleanup").map(|| "cleanup"))
        .unify()
        .and(warp::post())
        .and(body::bytes(app))
        .and(warp::header::headers_cloned())
        .and(owner())
        .then(move |what: &'static str, body: Result<Bytes, HttpError>, headers: HeaderMap, owner| {
            let app = Arc::clone(&for_asked);
            async move { answer(perform(&app, what, body, &headers, &owner).await) }
        });
    let shown = riffs.or(status).unify().or(info).unify().or(health).unify();
    shown.or(prompts).unify().or(asked).unify().boxed()
}

/// The riffs by key; without a folder there are none.
fn riffs(app: &App) -> Result<Response, Failure> {
    let keys = app.studio()?.renders().riffs().by_key();
    let details: serde_json::Map<String, Value> = keys
        .iter()
        .map(|(key, riffs)| {
            let riffs = riffs.iter().map(|riff| {
                let description = format!("{} at {} bpm", riff.key, riff.bpm);
                json!({ "filename": riff.file, "original_bpm": riff.bpm, "description": description })
            });
            (key.clone(), riffs.collect())
        })
        .collect();
    let body = json!({
        "success": true,
        "available_keys": keys.keys().collect::<Vec<_>>(),
        "total_keys": keys.len(),
        "riff_details": details,
    });
    Ok(warp::reply::json(&body).into_response())
}

/// How the original calls a model that is loaded.
fn key_of(which: Option<&FineTune>) -> String {
    let plain = |text: &str| text.replace(['/', '.'], "_");
    match which {
        None => "standard_saos".into(),
        Some(FineTune { repo, checkpoint }) => format!("finetune_{}_{}", repo.replace('/', "_"), plain(checkpoint)),
    }
}

fn source_of(renders: &RenderModels, which: Option<&FineTune>) -> String {
    match which {
        None => renders.loop_source().to_owned(),
        Some(FineTune { repo, checkpoint }) => format!("{repo}/{checkpoint}"),
    }
}

fn type_of(which: Option<&FineTune>) -> &'static str {
    if which.is_some() { "finetune" } else { "standard" }
}

fn status(studio: &Studio) -> Result<Value, StudioError> {
    let (held, renders) = (studio.held_loops()?, studio.renders());
    let names: Vec<String> = held.iter().map(|(which, _)| key_of(which.as_ref())).collect();
    let details = held.iter().map(|(which, info)| {
        let which = which.as_ref();
        let detail = json!({
            "type": type_of(which), "source": source_of(renders, which), "device": info.device,
            "sample_rate": info.rate.0, "sample_size": info.window,
        });
        (key_of(which), detail)
    });
    Ok(json!({
        "cache_status": {
            "loaded_models": names, "usage_order": names, "cache_utilization": format!("{}/{MOST_LOOPS}", held.len()),
        },
        "model_details": details.collect::<serde_json::Map<_, _>>(),
        "max_models": MOST_LOOPS,
        "cuda_available": held.iter().any(|(_, info)| info.device == DeviceKind::Cuda),
    }))
}

fn config(info: &RenderInfo) -> Value {
    json!({
        "sample_rate": info.rate.0,
        "sample_size": info.window,
        "max_duration_seconds": info.seconds(),
        "diffusion_objective": info.objective,
        "io_channels": info.channels,
    })
}

async fn info(app: &App) -> Result<Response, Failure> {
    let renders = app.studio()?.renders();
    let info = app.studio()?.loop_info(None).await?;
    let body = json!({
        "success": true,
        "model_name": renders.loop_source(),
        "device": info.device,
        "config": config(&info),
        "supported_endpoints": {
            "/generate": "text to sound",
            "/generate/loop": "a loop of whole bars, from text or from text and a sound",
            "/generate/style-transfer": "a sound in another style",
            "/generate/loop-guided": "a loop that a sound pulls towards itself",
            "/generate/loop-with-riff": "a loop that begins with one of your riffs",
        },
        "supported_parameters": {
            "steps": { "range": [1, 250], "default": info.steps },
            "cfg_scale": { "range": [0, 20], "default": { "/generate": 1.0, "/generate/loop": 6.0 } },
            "style_strength": { "range": [0.1, 1.0], "default": 0.8 },
            "seconds_total": { "range": [1, info.seconds().floor()], "default": info.seconds().floor() },
            "return_format": ["file", "base64"],
            "seed": "-1 is a new one",
        },
    });
    Ok(warp::reply::json(&body).into_response())
}

/// Loads the model if need be, as the original does.
async fn health(app: &App) -> Result<Response, Failure> {
    let loaded = match app.studio() {
        Ok(studio) => studio.loop_info(None).await.map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    let (status, body) = match loaded {
        Ok(info) => {
            let model = config(&info);
            let body = json!({
                "status": "healthy", "model_loaded": true, "device": info.device,
                "cuda_available": info.device == DeviceKind::Cuda, "model_info": model,
            });
            (StatusCode::OK, body)
        }
        Err(Failure(status, error, _)) => {
            (status, json!({ "success": false, "status": "error", "model_loaded": false, "error": error }))
        }
    };
    Ok(with_status(warp::reply::json(&body), status).into_response())
}

async fn perform(
    app: &App,
    what: &str,
    body: Result<Bytes, HttpError>,
    headers: &HeaderMap,
    owner: &Owner,
) -> Result<Response, Failure> {
    let studio = app.studio()?;
    let body = body?;
    let answer = match what {
        "checkpoints" => checkpoints(studio, &Ask::read(app, body, headers).await?, owner).await?,
        "switch" => {
            let which = Ask::read(app, body, headers).await?.model(studio, owner)?;
            let info = studio.loop_info(which.as_ref()).await?;
            json!({
                "success": true,
                "model_type": type_of(which.as_ref()),
                "device": info.device,
                "config": config(&info),
                "cache_status": status(studio)?["cache_status"],
                "message": format!("{} is loaded.", source_of(studio.renders(), which.as_ref())),
            })
        }
        "clear-cache" => {
            studio.clear_loops()?;
            json!({ "success": true, "message": "No loop model is loaded any more." })
        }
        _ => json!({ "success": true, "message": "There is nothing to clean up: clips are removed in time." }),
    };
    Ok(warp::reply::json(&answer).into_response())
}

async fn checkpoints(studio: &Studio, ask: &Ask, owner: &Owner) -> Result<Value, Failure> {
    let tuned = studio.renders().fine_tunes()?;
    let repo = ask.text("finetune_repo")?.ok_or_else(|| "finetune_repo is required.".to_owned())?.to_owned();
    studio.permit(owner, &repo)?;
    let asked = repo.clone();
    let found = tokio::task::spawn_blocking(move || tuned.checkpoints(&asked)).await;
    let found = found.map_err(|error| StudioError::Broken(error.to_string()))?;
    let missing = |sentence: String, more| Failure(StatusCode::NOT_FOUND, sentence, Some(more));
    let mut names = found.map_err(|reason| {
        let hint = "Check the name; a private repository needs `hf auth login` on the server.";
        missing(reason, ("hint", json!(hint)))
    })?;
    names.sort();
    if names.is_empty() {
        return Err(missing(format!("There is no .ckpt file in {repo}."), ("repo", json!(repo))));
    }
    Ok(json!({ "success": true, "repo": repo, "count": names.len(), "checkpoints": names }))
}

/// Prompts that go with a loaded model: by its key, by repository and checkpoint, or by preference.
async fn prompts(app: &App, query: &str) -> Result<Response, Failure> {
    let studio = app.studio()?;
    let renders = studio.renders();
    let asked = pairs(query);
    let one = |name: &str| asked.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str());
    let held = studio.held_loops()?;
    let found = held.iter().rev().find(|(which, _)| match (one("key"), one("repo"), which) {
        (Some(key), ..) => key_of(which.as_ref()) == key,
        (None, Some(repo), Some(tune)) => {
            tune.repo.contains(repo) && one("checkpoint").is_none_or(|part| tune.checkpoint.contains(part))
        }
        (None, Some(_), None) => false,
        (None, None, which) => one("prefer") != Some("finetune") || which.is_some(),
    });
    let Some((which, _)) = found else {
        let body = json!({ "success": true, "prompts": null, "message": "No such model is loaded." });
        return Ok(warp::reply::json(&body).into_response());
    };
    let none = json!({ "version": 1, "dice": { "generic": [], "drums": [], "instrumental": [] } });
    let prompts = match which {
        None => none,
        Some(tune) => {
            let (tuned, repo) = (renders.fine_tunes()?, tune.repo.clone());
            let read = tokio::task::spawn_blocking(move || tuned.prompts(&repo)).await;
            read.ok().flatten().unwrap_or(none)
        }
    };
    let body = json!({
        "success": true,
        "model_key": key_of(which.as_ref()),
        "type": type_of(which.as_ref()),
        "source": source_of(renders, which.as_ref()),
        "checkpoint": which.as_ref().map(|tune| &tune.checkpoint),
        "prompts": prompts,
    });
    Ok(warp::reply::json(&body).into_response())
}
