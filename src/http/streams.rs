//! `/v1/streams`: create, list, show, steer, pause, resume, reset, delete, listen.

use std::sync::Arc;

use bytes::Bytes;
use warp::http::header::{CACHE_CONTROL, LOCATION};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::reply::{Response, with_header, with_status};
use warp::{Filter, Reply};

use super::auth::{self, Grant, Scope};
use super::connection::Connection;
use super::error::reply;
use super::input::{Change, Create};
use super::links::{self, Links};
use super::query::{LISTEN, Query, SHIFT, live_named, raw};
use super::router::get;
use super::views::{AckView, StreamList, StreamView};
use super::{App, HttpError, Routes, audio, body, connection};
use crate::engine::Ack;
use crate::station::{StreamInfo, StreamSpec};

/// Everything under `/v1/streams` but the WebSocket and the events.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    collection(app).or(one(app)).unify().or(verbs(app)).unify().or(sound(app)).unify().boxed()
}

fn collection(app: &Arc<App>) -> Routes {
    let (for_list, for_create) = (Arc::clone(app), Arc::clone(app));
    let list = get().and(links::of_request()).and(auth::of_request()).map(move |links, grant: Grant| {
        let heard = for_list.station.list().into_iter().filter(|info| grant.hears(info.name.as_deref()));
        let streams = heard.map(|info| StreamView::new(info, &links, for_list.node())).collect();
        no_store(warp::reply::json(&StreamList { streams }))
    });
    let asked = warp::post().and(raw()).and(body::bytes(app)).and(links::of_request()).and(auth::of_request());
    let create = asked.then(move |query: String, body, links, grant| {
        let app = Arc::clone(&for_create);
        async move { reply(create(&app, &query, body, &links, &grant).await) }
    });
    warp::path!("v1" / "streams").and(list.or(create).unify()).boxed()
}

fn one(app: &Arc<App>) -> Routes {
    let (for_show, for_change, for_delete) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    let id = warp::path!("v1" / "streams" / String);
    let show = id.and(get()).and(links::of_request());
    let show = show.map(move |id: String, links| reply(self::show(&for_show, &id, &links)));
    let change = id.and(warp::patch()).and(body::bytes(app)).then(move |id: String, body| {
        let app = Arc::clone(&for_change);
        async move { reply(change(&app, &id, body).await) }
    });
    let delete = id.and(warp::delete()).then(move |id: String| {
        let app = Arc::clone(&for_delete);
        async move { reply(app.station.delete(&id).await.map(|()| StatusCode::NO_CONTENT).map_err(HttpError::from)) }
    });
    show.or(change).unify().or(delete).unify().boxed()
}

fn verbs(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / String)
        .and_then(|id, verb: String| async move {
            match verb.as_str() {
                "pause" => Ok((id, Verb::Pause)),
                "resume" => Ok((id, Verb::Resume)),
                "reset" => Ok((id, Verb::Reset)),
                _ => Err(warp::reject::not_found()),
            }
        })
        .and(warp::post())
        .and(links::of_request())
        .then(move |(id, verb): (String, Verb), links| {
            let app = Arc::clone(&app);
            async move { reply(verb.apply(&app, &id, &links).await) }
        })
        .boxed()
}

fn sound(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / String)
        .and_then(|id, file: String| async move {
            match file.strip_prefix("audio.").and_then(live_named) {
                Some(format) => Ok((id, format)),
                None => Err(warp::reject::not_found()),
            }
        })
        .and(get())
        .and(warp::method())
        .and(raw())
        .and(warp::header::headers_cloned())
        .and(connection::of_request())
        .then(move |(id, format): (String, _), method, query: String, headers: HeaderMap, connection: Connection| {
            let app = Arc::clone(&app);
            async move {
                let hear = async {
                    let query = Query::parse(&query, &[&LISTEN, &SHIFT])?;
                    let listen = query.listen(Some(format))?;
                    let stream = app.hear(&id).await?;
                    let from = query.shift(&stream)?;
                    match method {
                        Method::HEAD => Ok(audio::headers_only(format, Some(stream.id()))),
                        _ => audio::response(&stream, (listen, from), &headers, &connection).await,
                    }
                };
                reply(hear.await)
            }
        })
        .boxed()
}

async fn create(
    app: &App,
    query: &str,
    body: Result<Bytes, HttpError>,
    links: &Links,
    grant: &Grant,
) -> Result<Response, HttpError> {
    let wait = Query::parse(query, &[&["wait"]])?.wait()?;
    let spec = StreamSpec { wait, ..body::json::<Create>(&body?)?.into_spec()? };
    grant.check(Scope::Produce, spec.name.as_deref())?;
    Ok(created(app, app.station.create(spec).await?.info(), links))
}

/// 201 with a new stream.
pub(super) fn created(app: &App, info: StreamInfo, links: &Links) -> Response {
    let place = links.to(&format!("/v1/streams/{}", info.id));
    let created = with_status(warp::reply::json(&StreamView::new(info, links, app.node())), StatusCode::CREATED);
    with_header(created, LOCATION, place).into_response()
}

fn show(app: &App, id: &str, links: &Links) -> Result<Response, HttpError> {
    Ok(no_store(warp::reply::json(&StreamView::new(app.station.get(id)?.info(), links, app.node()))))
}

async fn change(app: &App, id: &str, body: Result<Bytes, HttpError>) -> Result<Response, HttpError> {
    let stream = app.station.get(id)?;
    let ack = body::json::<Change>(&body?)?.apply(&stream).await?;
    Ok(acknowledged(id, ack))
}

enum Verb {
    Pause,
    Resume,
    Reset,
}

impl Verb {
    async fn apply(self, app: &App, id: &str, links: &Links) -> Result<Response, HttpError> {
        let stream = app.station.get(id)?;
        match self {
            Self::Pause => stream.pause().await?,
            Self::Resume => stream.resume().await?,
            Self::Reset => return Ok(acknowledged(id, stream.reset().await?)),
        }
        Ok(no_store(warp::reply::json(&StreamView::new(stream.info(), links, app.node()))))
    }
}

fn acknowledged(id: &str, ack: Ack) -> Response {
    no_store(warp::reply::json(&AckView::new(id, ack)))
}

fn no_store(reply: impl Reply) -> Response {
    with_header(reply, CACHE_CONTROL, "no-store").into_response()
}
