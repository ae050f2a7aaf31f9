//! `GET /generate`: an address that any player can open. With `prompt` it is a stream of one's own,
//! which ends when its listener leaves; with `station` it joins a named one.

use std::sync::Arc;

use warp::Filter;
use warp::http::{HeaderMap, Method};
use warp::reply::Response;

use super::connection::Connection;
use super::error::reply;
use super::query::{LISTEN, Query, SHIFT, VOICE, raw};
use super::router::get;
use super::{App, HttpError, Routes, audio, connection};
use crate::station::{Idle, StreamSpec};

/// `GET` and `HEAD /generate`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("generate")
        .and(get())
        .and(warp::method())
        .and(raw())
        .and(warp::header::headers_cloned())
        .and(connection::of_request())
        .then(move |method, query: String, headers, connection| {
            let app = Arc::clone(&app);
            async move { reply(generate(&app, method, &query, &headers, &connection).await) }
        })
        .boxed()
}

async fn generate(
    app: &App,
    method: Method,
    query: &str,
    headers: &HeaderMap,
    connection: &Connection,
) -> Result<Response, HttpError> {
    let query = Query::parse(query, &[&["station", "wait"], &VOICE, &LISTEN, &SHIFT])?;
    let listen = query.listen(None)?;
    if let Some(name) = query.one("station")? {
        if let Some(parameter) = query.first_of(&VOICE).or_else(|| query.first_of(&["wait"])) {
            return Err(HttpError::BadRequest(format!(
                "`{parameter}` belongs to a stream of one's own; leave it out or leave `station` out."
            )));
        }
        let stream = app.hear_named(name).await?;
        return match method {
            Method::HEAD => Ok(audio::headers_only(listen.format, Some(stream.id()))),
            _ => audio::response(&stream, (listen, query.shift(&stream)?), headers, connection).await,
        };
    }
    if let Some(parameter) = query.first_of(&SHIFT) {
        return Err(HttpError::BadRequest(format!(
            "`{parameter}` belongs to a station's past; send station=NAME with it or leave it out."
        )));
    }
    if query.first_of(&["prompt"]).is_none() {
        return Err(HttpError::BadRequest(
            "Say what to play: send prompt=lofi+piano (several are blended) or station=NAME.".into(),
        ));
    }
    let (voice, seconds) = query.voice()?;
    if method == Method::HEAD {
        return Ok(audio::headers_only(listen.format, None));
    }
    let spec = StreamSpec {
        name: None,
        model: voice.model,
        prompts: voice.prompts,
        sampling: voice.sampling,
        seconds,
        max_still: voice.max_still,
        wait: query.wait()?,
        keep: false,
        idle: Idle::End,
    };
    let stream = app.begin(spec).await?;
    let response = audio::response(&stream, (listen, None), headers, connection).await;
    if response.is_err() && !stream.is_relayed() {
        // Nobody else can have it: it need not wait for a listener.
        app.station.delete(stream.id()).await?;
    }
    response
}
