//! What a page that works on a session follows and says: `GET /v1/sessions/{id}/events`, and `PATCH
//! /v1/clips/{id}`, by which a clip gets a name.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;
use warp::reply::Response;
use warp::sse::Event as Sse;
use warp::{Filter, Reply};

use super::clips::{clip_id, no_store};
use super::error::reply;
use super::input::checked_name;
use super::links::{self, Links};
use super::router::get;
use super::views::ClipView;
use super::{App, HttpError, Routes, body, events, sessions};
use crate::studio::{ClipSnapshot, Event, Lane, SessionId, Studio, StudioError};

/// The routes of this file.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let (for_events, for_name) = (Arc::clone(app), Arc::clone(app));
    let follow = warp::path!("v1" / "sessions" / String / "events").and(get()).and(links::of_request()).then(
        move |id: String, links| {
            let app = Arc::clone(&for_events);
            async move { reply(follow(&app, &id, links).await) }
        },
    );
    let name =
        warp::path!("v1" / "clips" / String).and(warp::patch()).and(body::bytes(app)).and(links::of_request()).then(
            move |id: String, body, links| {
                let app = Arc::clone(&for_name);
                async move { reply(rename(&app, &id, body, &links).await) }
            },
        );
    follow.or(name).unify().boxed()
}

/// What changes of a clip.
#[derive(Deserialize, ToSchema)]
#[schema(as = ClipChange)]
#[serde(deny_unknown_fields)]
pub(super) struct Rename {
    /// What it is called; `null` takes its name away.
    #[schema(min_length = 1, max_length = 80)]
    name: Option<String>,
}

async fn rename(app: &App, id: &str, body: Result<Bytes, HttpError>, links: &Links) -> Result<Response, HttpError> {
    let Rename { name } = body::json(&body?)?;
    let (studio, id) = (app.studio()?, clip_id(id)?);
    studio.rename(id, checked_name(name)?).await?;
    Ok(no_store(warp::reply::json(&ClipView::new(&studio.clip(id).await?, links))))
}

/// `session` events: the session whenever it changes, and at first; `clip` events: how far its
/// clips are.
async fn follow(app: &App, id: &str, links: Links) -> Result<Response, HttpError> {
    let (studio, id) = (Arc::clone(app.studio()?), SessionId::parse(id)?);
    let mut watch =
        Watch { events: studio.events(), changes: studio.changes(), studio, id, links, told: VecDeque::new() };
    watch.look().await?;
    let told = stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let next = watch.next().await;
        // A session that is gone ends it; who comes again hears that it is.
        next.ok().map(|event| (Ok::<_, Infallible>(event), Some(watch)))
    });
    let first = stream::once(async { Ok(Sse::default().retry(events::RETRY)) });
    let rest = first.chain(told.take_until(app.stopping.clone().cancelled_owned()));
    let kept_alive = warp::sse::keep_alive().interval(events::KEEP_ALIVE).stream(rest);
    Ok(warp::sse::reply(kept_alive).into_response())
}

struct Watch {
    studio: Arc<Studio>,
    id: SessionId,
    links: Links,
    events: Receiver<Event>,
    changes: Receiver<SessionId>,
    /// What is still to be sent.
    told: VecDeque<Sse>,
}

impl Watch {
    async fn next(&mut self) -> Result<Sse, StudioError> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(id) if id == self.id => self.look().await?,
                    Err(RecvError::Lagged(_)) => self.look().await?,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return Err(StudioError::NoSession(self.id.to_string())),
                },
                event = self.events.recv() => match event {
                    Ok(Event { clip, status }) if clip.session == self.id => {
                        let snapshot = ClipSnapshot { record: clip, status };
                        self.told.push_back(sse("clip", &ClipView::new(&snapshot, &self.links)));
                    }
                    Err(RecvError::Lagged(_)) => self.look().await?,
                    _ => {}
                },
            }
        }
    }

    /// The session as it is, and the clips of it that are being made.
    async fn look(&mut self) -> Result<(), StudioError> {
        self.told.push_back(sse("session", &sessions::view_of(&self.studio, &self.id, &self.links).await?));
        for task in Lane::ALL.into_iter().filter_map(|lane| self.studio.task_in(&self.id, lane)) {
            let snapshot = self.studio.clip(task.record().id).await?;
            self.told.push_back(sse("clip", &ClipView::new(&snapshot, &self.links)));
        }
        Ok(())
    }
}

fn sse(name: &'static str, data: &impl Serialize) -> Sse {
    // What is sent here is always JSON.
    Sse::default().event(name).json_data(data).unwrap_or_default()
}
