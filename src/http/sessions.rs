//! `/v1/sessions`: a producer's chain of clips: upload, continue, retry, undo, crop, fetch, keep,
//! remove.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;
use warp::http::StatusCode;
use warp::http::header::LOCATION;
use warp::reply::{Response, with_header, with_status};
use warp::{Filter, Reply};

use super::client::owner;
use super::clips::{accepted_reply, clip_id, no_store};
use super::error::reply;
use super::file::{self, Wanted, wanted};
use super::links::{self, Links};
use super::router::get;
use super::sound_paths::Sounds;
use super::upload::{self, Upload};
use super::views::{SessionList, SessionView};
use super::{App, HttpError, Routes, body};
use crate::studio::{Owner, SessionId, Studio, StudioError};

/// Sessions that a list shows.
const LISTED: usize = 100;

/// Everything under `/v1/sessions`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    collection(app).or(one(app)).unify().or(verbs(app)).unify().or(edits(app)).unify().or(sound(app)).unify().boxed()
}

fn collection(app: &Arc<App>) -> Routes {
    let (for_list, for_create) = (Arc::clone(app), Arc::clone(app));
    let list = get().and(links::of_request()).then(move |links| {
        let app = Arc::clone(&for_list);
        async move { reply(list(&app, &links).await) }
    });
    let upload = upload::of_request(app).and(owner()).and(links::of_request());
    let create = warp::post().and(upload).then(move |upload, owner, links| {
        let app = Arc::clone(&for_create);
        async move { reply(create(&app, upload, owner, &links).await) }
    });
    warp::path!("v1" / "sessions").and(list.or(create).unify()).boxed()
}

fn one(app: &Arc<App>) -> Routes {
    let (for_show, for_change, for_delete) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    let id = warp::path!("v1" / "sessions" / String);
    let show = id.and(get()).and(links::of_request()).then(move |id: String, links| {
        let app = Arc::clone(&for_show);
        async move { reply(show(&app, &id, &links).await) }
    });
    let patch = warp::patch().and(body::bytes(app)).and(links::of_request());
    let change = id.and(patch).then(move |id: String, body, links| {
        let app = Arc::clone(&for_change);
        async move { reply(change(&app, &id, body, &links).await) }
    });
    let delete = id.and(warp::delete()).then(move |id: String| {
        let app = Arc::clone(&for_delete);
        async move { reply(delete(&app, &id).await) }
    });
    show.or(change).unify().or(delete).unify().boxed()
}

fn verbs(app: &Arc<App>) -> Routes {
    let for_verbs = Arc::clone(app);
    warp::path!("v1" / "sessions" / String / String)
        .and_then(|id, verb: String| async move {
            match verb.as_str() {
                "continue" => Ok((id, true)),
                "retry" => Ok((id, false)),
                _ => Err(warp::reject::not_found()),
            }
        })
        .and(warp::post())
        .and(upload::of_request(app))
        .and(owner())
        .and(links::of_request())
        .then(move |(id, proceeds): (String, bool), upload, owner, links| {
            let app = Arc::clone(&for_verbs);
            async move { reply(make(&app, &id, proceeds, upload, owner, &links).await) }
        })
        .boxed()
}

fn edits(app: &Arc<App>) -> Routes {
    let (for_undo, for_crop) = (Arc::clone(app), Arc::clone(app));
    let undo = warp::path!("v1" / "sessions" / String / "undo").and(warp::post()).and(links::of_request()).then(
        move |id: String, links| {
            let app = Arc::clone(&for_undo);
            async move { reply(undo(&app, &id, &links).await) }
        },
    );
    let crop = warp::path!("v1" / "sessions" / String / "crop")
        .and(warp::post())
        .and(body::bytes(app))
        .and(owner())
        .and(links::of_request())
        .then(move |id: String, body, owner, links| {
            let app = Arc::clone(&for_crop);
            async move { reply(crop(&app, &id, body, owner, &links).await) }
        });
    undo.or(crop).unify().boxed()
}

fn sound(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "sessions" / String / String)
        .and_then(|id: String, file: String| async move {
            match Sounds::Files.format(&file) {
                None if file != "peaks" => Err(warp::reject::not_found()),
                format => Ok((id, format)),
            }
        })
        .and(get())
        .and(wanted())
        .then(move |(id, format): (String, _), wanted: Wanted| {
            let app = Arc::clone(&app);
            async move {
                let found = async {
                    let studio = app.studio()?;
                    let current = studio.current(&SessionId::parse(&id)?).await?;
                    match format {
                        Some(format) => file::sound(studio, current, format, &id, &wanted).await,
                        None => file::peaks(studio, current, &wanted).await,
                    }
                };
                reply(found.await)
            }
        })
        .boxed()
}

async fn list(app: &App, links: &Links) -> Result<Response, HttpError> {
    let sessions = app.studio()?.store().sessions(LISTED).await?;
    let sessions = sessions.iter().map(|session| SessionView::new(session, links)).collect();
    Ok(no_store(warp::reply::json(&SessionList { sessions })))
}

async fn create(
    app: &App,
    upload: Result<Upload, HttpError>,
    owner: Owner,
    links: &Links,
) -> Result<Response, HttpError> {
    let upload = upload?;
    let request = upload.clip_request();
    let Upload { fields, audio, .. } = upload;
    let audio = audio.ok_or_else(|| {
        HttpError::Unprocessable("A session begins with a sound; send it as the body, or as `audio` of a form.".into())
    })?;
    let studio = app.studio()?;
    let session = fields.session.as_deref().map(SessionId::parse).transpose()?;
    let session = studio.upload(owner, session, request, audio).await?;
    let created = with_status(shown(studio, &session, links).await?, StatusCode::CREATED);
    Ok(with_header(created, LOCATION, links.to(&format!("/v1/sessions/{session}"))).into_response())
}

async fn shown(studio: &Studio, id: &SessionId, links: &Links) -> Result<Response, HttpError> {
    Ok(no_store(warp::reply::json(&view_of(studio, id, links).await?)))
}

/// A session with its clips.
pub(super) async fn view_of(studio: &Studio, id: &SessionId, links: &Links) -> Result<SessionView, StudioError> {
    let session = studio.session(id).await?;
    let clips = studio.store().clips(Some(id), LISTED).await?;
    let making = studio.task_of(id).map(|task| task.record().id);
    let present = studio.maker(id, session.current).await?;
    Ok(SessionView::new(&session, links).with(clips.iter().map(|clip| clip.id), present, making))
}

async fn show(app: &App, id: &str, links: &Links) -> Result<Response, HttpError> {
    shown(app.studio()?, &SessionId::parse(id)?, links).await
}

/// What changes of a session; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[schema(as = SessionChange)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// Whether it is kept whatever its age and size.
    pinned: Option<bool>,
    /// The clip whose result is its sound from now on.
    clip: Option<String>,
}

async fn change(app: &App, id: &str, body: Result<Bytes, HttpError>, links: &Links) -> Result<Response, HttpError> {
    let Change { pinned, clip } = body::json(&body?)?;
    let (studio, id) = (app.studio()?, SessionId::parse(id)?);
    if pinned.is_none() && clip.is_none() {
        return Err(HttpError::Unprocessable("Say what to change: send `pinned`, or `clip`, or both.".into()));
    }
    if let Some(clip) = clip {
        studio.choose(&id, clip_id(&clip)?).await?;
    }
    if let Some(pinned) = pinned {
        studio.pin(&id, pinned).await?;
    }
    shown(studio, &id, links).await
}

async fn delete(app: &App, id: &str) -> Result<StatusCode, HttpError> {
    app.studio()?.remove_session(&SessionId::parse(id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn make(
    app: &App,
    id: &str,
    proceeds: bool,
    upload: Result<Upload, HttpError>,
    owner: Owner,
    links: &Links,
) -> Result<Response, HttpError> {
    let upload = upload?;
    let request = upload.clip_request();
    let (studio, id) = (app.studio()?, SessionId::parse(id)?);
    let accepted = match (proceeds, upload.audio) {
        (true, audio) => studio.extend(owner, Some(id), request, audio).await?,
        (false, None) => studio.retry(owner, &id, request).await?,
        (false, Some(_)) => {
            return Err(HttpError::Unprocessable(
                "`retry` uses the session's last input; send no sound, or continue with it.".into(),
            ));
        }
    };
    accepted_reply(studio, &accepted, links).await
}

async fn undo(app: &App, id: &str, links: &Links) -> Result<Response, HttpError> {
    let (studio, id) = (app.studio()?, SessionId::parse(id)?);
    studio.undo(&id).await?;
    shown(studio, &id, links).await
}

/// Seconds of the session's sound to keep.
#[derive(Deserialize, ToSchema)]
#[schema(as = CropRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct Crop {
    #[serde(default)]
    #[schema(minimum = 0)]
    from: f64,
    /// The end without.
    to: Option<f64>,
}

async fn crop(
    app: &App,
    id: &str,
    body: Result<Bytes, HttpError>,
    owner: Owner,
    links: &Links,
) -> Result<Response, HttpError> {
    let Crop { from, to } = body::json(&body?)?;
    let (studio, id) = (app.studio()?, SessionId::parse(id)?);
    studio.crop_to(owner, &id, (from, to)).await?;
    shown(studio, &id, links).await
}
