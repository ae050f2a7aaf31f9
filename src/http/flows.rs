//! `/v1/transforms` and `/v1/loops`: ask for one, see how far it is, fetch it, give it up.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::http::header::LOCATION;
use warp::reply::{Response, with_header, with_status};
use warp::{Filter, Reply};

use super::clips::{file_format, sound_file};
use super::error::reply;
use super::query::{Query, raw};
use super::router::get;
use super::{App, HttpError, Routes, body, upload};
use crate::audio::{FileFormat, decode, encode_file};
use crate::engine::{FlowMethod, FlowSettings, LoopSettings, LoopSpec};
use crate::studio::{FlowState, Flows};

/// What may be said of a transform in the query; its body is the recording.
const FIELDS: [&str; 6] = ["preset", "prompt", "flowstep", "solver", "steps", "seed"];

/// Everything under `/v1/transforms` and `/v1/loops`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_presets, for_transform, for_loop) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    let presets = get().then(move || {
        let app = Arc::clone(&for_presets);
        async move { reply(presets(&app)) }
    });
    let sound = body::bytes_within(app.limits.upload, upload::PATIENCE);
    let transform = warp::post().and(raw()).and(sound).then(move |query: String, body| {
        let app = Arc::clone(&for_transform);
        async move { reply(transform(&app, &query, body).await) }
    });
    let make_loop = warp::post().and(body::bytes(app)).then(move |body| {
        let app = Arc::clone(&for_loop);
        async move { reply(make_loop(&app, body).await) }
    });
    let transforms = warp::path!("v1" / "transforms").and(presets.or(transform).unify());
    let loops = warp::path!("v1" / "loops").and(make_loop);
    transforms.or(loops).unify().or(one(app)).unify().or(file(app)).unify().boxed()
}

/// Both kinds are found the same way; a kind in the path that is neither is somebody else's.
fn kind() -> impl Filter<Extract = (String,), Error = warp::Rejection> + Copy {
    warp::path("v1").and(warp::path::param()).and_then(|kind: String| async move {
        match kind.as_str() {
            "transforms" | "loops" => Ok(kind),
            _ => Err(warp::reject::not_found()),
        }
    })
}

fn one(app: &Arc<App>) -> Routes {
    let (for_show, for_drop) = (Arc::clone(app), Arc::clone(app));
    let path = kind().and(warp::path::param()).and(warp::path::end());
    let show = path.and(get()).then(move |kind: String, id: String| {
        let app = Arc::clone(&for_show);
        async move { reply(show(&app, &kind, &id)) }
    });
    let end = path.and(warp::delete()).then(move |kind: String, id: String| {
        let app = Arc::clone(&for_drop);
        async move { reply(forget(&app, &kind, &id)) }
    });
    show.or(end).unify().boxed()
}

fn file(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    let path = kind().and(warp::path::param()).and(warp::path::param()).and(warp::path::end());
    path.and_then(|kind, id, file: String| async move {
        if file_format(&file).is_some() { Ok((kind, id, file)) } else { Err(warp::reject::not_found()) }
    })
    .and(get())
    .then(move |(kind, id, file): (String, String, String)| {
        let app = Arc::clone(&app);
        async move { reply(audio(&app, &kind, &id, &file).await) }
    })
    .boxed()
}

fn presets(app: &App) -> Result<Response, HttpError> {
    let presets = flows(app)?.variations().iter().map(|(name, variation)| {
        json!({ "name": name, "prompt": variation.prompt, "flowstep": variation.flowstep, "steps": variation.steps })
    });
    Ok(warp::reply::json(&json!({ "presets": presets.collect::<Vec<_>>() })).into_response())
}

fn flows(app: &App) -> Result<&Arc<Flows>, HttpError> {
    let none = || HttpError::NotReady("This server makes no transforms and no loops, only streams.".into());
    app.flows.as_ref().ok_or_else(none)
}

async fn transform(app: &App, query: &str, body: Result<Bytes, HttpError>) -> Result<Response, HttpError> {
    let flows = flows(app)?;
    let query = Query::parse(query, &[&FIELDS])?;
    let method = match query.one("solver")? {
        None | Some("euler") => FlowMethod::Euler,
        Some("midpoint") => FlowMethod::Midpoint,
        Some(other) => return Err(bad(format!("`solver` is `{other}` but must be `euler` or `midpoint`."))),
    };
    let mut settings = FlowSettings::of(method);
    let preset = query.one("preset")?.map(|name| flows.variations().get(name)).transpose()?;
    if let Some(preset) = preset {
        settings.flowstep = preset.flowstep;
        if method == FlowMethod::Euler {
            settings.steps = preset.steps;
        }
    }
    let number = |name: &str, text: &str| bad(format!("`{name}` is `{text}` but must be a number that fits."));
    if let Some(text) = query.one("flowstep")? {
        settings.flowstep = text.parse().map_err(|_| number("flowstep", text))?;
    }
    if let Some(text) = query.one("steps")? {
        settings.steps = text.parse().map_err(|_| number("steps", text))?;
    }
    let seed = match query.one("seed")? {
        Some(text) => text.parse().map_err(|_| number("seed", text))?,
        None => random(),
    };
    let text = match (query.one("prompt")?, preset) {
        (Some(text), _) => text.to_owned(),
        (None, Some(preset)) => preset.prompt.clone(),
        (None, None) => return Err(bad("Say what the recording is to become: preset=NAME or prompt=TEXT.".into())),
    };
    let body = body?;
    if body.is_empty() {
        return Err(bad("Send the recording as the body, for example with curl --data-binary @in.wav.".into()));
    }
    let sound = tokio::task::spawn_blocking(move || decode(body.to_vec())).await;
    let sound = sound.map_err(|error| bad(format!("The recording could not be read: {error}.")))?;
    let sound = sound.map_err(|error| bad(error.to_string()))?;
    accepted("transforms", flows.transform(sound, &text, settings, seed).await?, seed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoopBody {
    prompt: String,
    bpm: f64,
    #[serde(default = "four")]
    bars: u32,
    key: Option<String>,
    #[serde(default)]
    avoid: String,
    guidance: Option<f64>,
    steps: Option<usize>,
    seed: Option<u64>,
}

fn four() -> u32 {
    4
}

async fn make_loop(app: &App, body: Result<Bytes, HttpError>) -> Result<Response, HttpError> {
    let wish: LoopBody = body::json(&body?)?;
    let flows = flows(app)?;
    if wish.prompt.trim().is_empty() {
        return Err(bad("`prompt` is empty; say what the loop is to play.".into()));
    }
    let guidance = wish.guidance.unwrap_or(6.0);
    if !(0.0..=20.0).contains(&guidance) {
        return Err(bad(format!("`guidance` is {guidance} but must lie between 0 and 20.")));
    }
    let text = match &wish.key {
        Some(key) => format!("{} in {key}", wish.prompt),
        None => wish.prompt,
    };
    let seed = wish.seed.unwrap_or_else(random);
    let spec = LoopSpec { text, avoid: wish.avoid, bpm: wish.bpm, bars: wish.bars, seed };
    let settings = LoopSettings { steps: wish.steps, guidance: Some(guidance) };
    accepted("loops", flows.make_loop(spec, settings).await?, seed)
}

fn bad(sentence: String) -> HttpError {
    HttpError::BadRequest(sentence)
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

fn accepted(kind: &str, id: Uuid, seed: u64) -> Result<Response, HttpError> {
    let href = format!("/v1/{kind}/{id}");
    let body = warp::reply::json(
        &json!({ "id": id.to_string(), "href": href, "audio": format!("{href}/audio.wav"), "seed": seed }),
    );
    Ok(with_status(with_header(body, LOCATION, href), StatusCode::ACCEPTED).into_response())
}

fn find(app: &App, kind: &str, id: &str) -> Result<(Uuid, FlowState), HttpError> {
    let gone = || HttpError::NoFlow(kind.to_owned(), id.to_owned());
    let id = Uuid::try_parse(id).map_err(|_| gone())?;
    Ok((id, flows(app)?.state(id).ok_or_else(gone)?))
}

fn show(app: &App, kind: &str, id: &str) -> Result<Response, HttpError> {
    let (id, state) = find(app, kind, id)?;
    let body = match state {
        FlowState::Working(done, of) => json!({ "id": id.to_string(), "state": "working", "done": done, "of": of }),
        FlowState::Failed(reason) => json!({ "id": id.to_string(), "state": "failed", "error": reason }),
        FlowState::Done(sound) => {
            let frames = sound.pcm.len() / sound.channels;
            json!({
                "id": id.to_string(), "state": "done", "frames": frames, "sample_rate": sound.rate.0, "channels": sound.channels,
                "audio": format!("/v1/{kind}/{id}/audio.wav"),
            })
        }
    };
    Ok(warp::reply::json(&body).into_response())
}

fn forget(app: &App, kind: &str, id: &str) -> Result<Response, HttpError> {
    let (id, _) = find(app, kind, id)?;
    flows(app)?.forget(id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn audio(app: &App, kind: &str, id: &str, file: &str) -> Result<Response, HttpError> {
    let (_, state) = find(app, kind, id)?;
    let format = file_format(file).ok_or_else(|| HttpError::NoRoute(file.to_owned()))?;
    match state {
        FlowState::Done(sound) => {
            let wav = tokio::task::spawn_blocking(move || {
                encode_file(FileFormat::Wav, &sound.pcm, sound.rate, sound.channels)
            });
            let wav = wav.await.map_err(|error| HttpError::NotReady(error.to_string()))?;
            let wav = wav.map_err(|error| HttpError::Unprocessable(error.to_string()))?;
            sound_file(wav.into(), format, id).await
        }
        FlowState::Working(..) => {
            Err(HttpError::NotReady(format!("It has no sound yet; GET /v1/{kind}/{id} says how far it is.")))
        }
        FlowState::Failed(reason) => Err(HttpError::NotReady(reason)),
    }
}
