//! The compatible routes of musicgen-stream: `POST /generate`, `/set_prompts`, `/set_model`.
//!
//! Bytes on the wire are the original's: rounds of length-prefixed `f32` blocks, or MP3 that
//! rotates through the prompts. Unlike there, every request has a set of voices of its own,
//! mistakes are answered before the headers, and a model that fails to load leaves the old one in
//! place. JSON is read under any Content-Type, as `curl -d` sends it.

mod model;
mod sets;
mod sound;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;
use warp::{Filter, Reply};

use self::sets::Sets;
use self::sound::Track;
use super::body;
use super::client::{self, Client, owner};
use super::connection::{self, Connection};
use super::error::reply;
use super::{App, HttpError, Routes, jerry, web};
use crate::engine::{EngineError, VoiceSpec};

/// How much is generated ahead of a client that does not read: two blocks.
const LEAD: Duration = Duration::from_secs(4);
/// The original's default of `buffer_seconds`.
const BUFFER_SECONDS: f64 = 180.0;
/// Voices of one request at most; the engine's admission is usually the tighter bound.
const MOST_PROMPTS: usize = 64;
/// Names a set in `POST /set_prompts`; sent with every `POST /generate`'s reply.
const SET_ID: &str = "x-set-id";

/// The three POST routes of the original, and `/generate/generate` for its README's address.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let sets = Arc::new(Sets::default());
    let once = warp::path!("generate").and(warp::post());
    let twice = warp::path!("generate" / "generate").and(warp::post());
    let context = {
        let (app, sets) = (Arc::clone(app), Arc::clone(&sets));
        warp::any().map(move || (Arc::clone(&app), Arc::clone(&sets)))
    };
    let client = client::of_request();
    let generate = once
        .or(twice)
        .unify()
        .and(context.clone())
        .and(client)
        .and(connection::of_request())
        .and(body::bytes(app))
        .then(|(app, sets): (Arc<App>, Arc<Sets>), client: Client, connection: Connection, body| async move {
            reply(generate(&app, &sets, &client, &connection, body).await)
        });
    let set_prompts = warp::path!("set_prompts")
        .and(warp::post())
        .and(context.clone())
        .and(client)
        .and(warp::header::optional::<String>(SET_ID))
        .and(body::bytes(app))
        .then(|(_, sets): (Arc<App>, Arc<Sets>), client: Client, named, body| async move {
            reply(set_prompts(&sets, &client, named, body).await)
        });
    let set_model = warp::path!("set_model")
        .and(warp::post())
        .and(context)
        .and(owner())
        .and(body::bytes(app))
        .then(|(app, sets), owner, body| async move { reply(model::set(app, sets, owner, body).await) });
    generate.or(set_prompts).unify().or(set_model).unify().boxed()
}

/// Whatever is wrong with the JSON, the client's mistake is a 400.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    body::json(body).map_err(|error| HttpError::BadRequest(error.to_string()))
}

fn bad_prompt(error: EngineError) -> HttpError {
    match error {
        EngineError::Invalid(reason) => HttpError::BadRequest(reason),
        other => other.into(),
    }
}

#[derive(Deserialize)]
struct Generate {
    prompts: Vec<String>,
    mp3: Option<bool>,
    buffer_seconds: Option<f64>,
}

async fn generate(
    app: &App,
    sets: &Arc<Sets>,
    client: &Client,
    connection: &Connection,
    body: Result<bytes::Bytes, HttpError>,
) -> Result<Response, HttpError> {
    let body = body?;
    if web::claims(&body) {
        return Ok(web::generate(app, &body, client.owner()).await);
    }
    if jerry::claims(&body) {
        // Forms have no business here, so no header matters.
        return Ok(jerry::piece(app, "generate", Ok(body), &HeaderMap::new(), client.owner()).await);
    }
    let wanted: Generate = parse(&body)?;
    if wanted.prompts.is_empty() || wanted.prompts.len() > MOST_PROMPTS {
        let sent = wanted.prompts.len();
        return Err(HttpError::BadRequest(format!("{sent} prompts were sent; send 1 to {MOST_PROMPTS}.")));
    }
    let buffer_seconds = wanted.buffer_seconds.unwrap_or(BUFFER_SECONDS);
    if !buffer_seconds.is_finite() || buffer_seconds < 0.0 {
        return Err(HttpError::BadRequest(format!("`buffer_seconds` is {buffer_seconds}; send a positive number.")));
    }
    let specs = wanted.prompts.iter().map(|prompt| VoiceSpec { lead: LEAD, ..VoiceSpec::endless(prompt) });
    let specs: Vec<VoiceSpec> = specs.collect();
    specs.iter().try_for_each(VoiceSpec::validate).map_err(bad_prompt)?;
    let format = sound::Format::new(wanted.mp3.unwrap_or(false), buffer_seconds)?;
    let mut tracks = Vec::with_capacity(specs.len());
    for (place, mut spec) in specs.into_iter().enumerate() {
        spec.paused = place > 0 && format.takes_turns();
        tracks.push(Track::new(app.engine().join(spec).await.map_err(bad_prompt)?));
    }
    let controls = tracks.iter().map(Track::control).collect();
    connection.exchange.may_wait();
    let running = sets.add(client, wanted.prompts, controls);
    let id = running.set.id;
    let mut response = sound::play(tracks, format, running, app.stopping.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(SET_ID, HeaderValue::from(id));
    Ok(response)
}

#[derive(Deserialize)]
struct SetPrompts {
    prompts: Vec<String>,
    set: Option<u64>,
}

/// Addresses the named set; else, as with the original's one list, the newest: of this client if it
/// has one.
async fn set_prompts(
    sets: &Sets,
    client: &Client,
    named: Option<String>,
    body: Result<bytes::Bytes, HttpError>,
) -> Result<Response, HttpError> {
    let wanted: SetPrompts = parse(&body?)?;
    for prompt in &wanted.prompts {
        VoiceSpec::endless(prompt).validate().map_err(bad_prompt)?;
    }
    let named = named.map(|text| text.trim().parse::<u64>().map_err(|_| HttpError::BadRequest(not_a_set(&text))));
    let set = match named.transpose()?.or(wanted.set) {
        Some(id) => Some(sets.get(id).ok_or(HttpError::NoSet(id))?),
        None => sets.newest(client),
    };
    // Without a running set there is nothing to change, which the original answers with 200 too.
    if let Some(set) = set {
        set.change(&wanted.prompts).await?;
    }
    Ok(empty())
}

fn not_a_set(text: &str) -> String {
    format!("`{text}` is no number of a set; send what the X-Set-Id header of POST /generate said.")
}

/// The original's answer to a change: 200, `text/plain`, nothing in it.
fn empty() -> Response {
    let mut response = Response::default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
