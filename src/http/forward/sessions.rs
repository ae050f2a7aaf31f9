//! Requests about sessions and clips: each session has a home, and what is new has one where fewest
//! clips wait.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use warp::Reply;
use warp::http::Method;
use warp::http::header::CACHE_CONTROL;
use warp::reply::{Response, with_header};

use super::wire::Asked;
use super::{SOUND, Tables, at, elsewhere, is_refusal, names, taken_in};
use crate::cluster::{Cluster, ClusterError, Home};
use crate::http::body::Whole;
use crate::http::client::Client;
use crate::http::query::pairs;
use crate::http::router::methods;
use crate::http::{App, HttpError, SURFACES, Surface, front};
use crate::studio::{ClipId, SessionId};

/// A home that has just died is waited for until another node may go on with what it had.
const MOVING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);
/// What a list shows at most.
const LISTED: usize = 100;

/// What a request is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum About {
    /// A session, and what of it.
    Session(SessionId),
    /// A clip, and so its session.
    Clip(ClipId),
}

impl About {
    fn session(id: &str) -> Option<Self> {
        SessionId::parse(id).ok().map(Self::Session)
    }
}

/// Who can answer a request.
#[derive(Debug, PartialEq)]
pub(super) enum Wants {
    /// The home of what its path or its query names, if that is anything.
    Home(Option<About>),
    /// The home of what its body names, or its query.
    Named(Option<About>),
    /// All nodes together, with a list of this name.
    All(&'static str),
    /// Any node with a model.
    Maker,
    /// The same one for all requests of a client.
    Own,
}

/// Who can answer a request, if it is not this node whatever it is about.
pub(super) fn wants(surface: Option<&Surface>, method: &Method, path: &str, query: &str) -> Option<Wants> {
    let reads = [Method::GET, Method::HEAD].contains(method);
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let asked = || {
        let asked = pairs(query).into_iter().find(|(name, _)| names::NAMES.contains(&name.as_str()));
        asked.and_then(|(_, id)| About::session(&id))
    };
    match segments[..] {
        ["v1", "clips"] if reads => Some(asked().map_or(Wants::All("clips"), |about| Wants::Home(Some(about)))),
        ["v1", "sessions"] if reads => Some(Wants::All("sessions")),
        ["v1", "transforms"] if reads => Some(Wants::Maker),
        ["v1", "clips" | "sessions" | "transforms" | "loops"] => Some(Wants::Named(asked())),
        ["v1", "clips" | "transforms" | "loops", id, ..] => Some(Wants::Home(id.parse().ok().map(About::Clip))),
        ["v1", "sessions", id, ..] => Some(Wants::Home(About::session(id))),
        ["v1", ..] => None,
        _ => of_original(surface, reads, path, &segments),
    }
}

fn of_original(surface: Option<&Surface>, reads: bool, path: &str, segments: &[&str]) -> Option<Wants> {
    let of_studio = |surface: &Surface| surface.needs_studio && methods(surface.paths, path).is_some();
    let is_known = surface.map_or_else(|| SURFACES.iter().any(of_studio), of_studio);
    match segments {
        ["generate" | "set_prompts" | "set_model"] | ["generate", "generate"] if !reads && surface.is_none() => {
            Some(Wants::Own)
        }
        // Streams begin where they are asked for.
        ["generate"] if reads => None,
        _ if !is_known => None,
        ["api", "juce", "poll_status", id]
        | ["api", "latest_generated_audio", id]
        | ["tasks" | "fetch-result" | "progress", id] => Some(Wants::Home(About::session(id))),
        ["api", "juce", _] | ["continue" | "transform"] if !reads => Some(Wants::Named(None)),
        _ => Some(Wants::Maker),
    }
}

/// Answers such a request elsewhere, or gives it back.
pub(super) async fn answered(
    (app, cluster, tables): (&App, &Cluster, &Tables),
    surface: Option<&'static Surface>,
    wants: Wants,
    request: Request<Incoming>,
) -> Result<Response, Request<Incoming>> {
    let is_named = matches!(wants, Wants::Named(_));
    let about = match wants {
        Wants::All(name) => return Ok(all(cluster, tables, request, name).await),
        Wants::Maker | Wants::Own if !cluster.is_edge() => return Err(request),
        Wants::Home(about) => {
            match place(cluster, (about.as_ref(), false)).await {
                Ok(None) => return Err(request),
                Ok(Some(_)) => {}
                Err(error) => return Ok(error.into_response()),
            }
            about
        }
        Wants::Own => {
            let client = request.extensions().get::<Client>().map(|client| client.address.to_string());
            let node = match cluster.engines_soon().await {
                // The one that is nearest to the client in a circle: others come and go without a
                // difference.
                Ok(engines) => engines.into_iter().min_by_key(|node| tag(&node.name, client.as_deref())),
                Err(error) => return Ok(HttpError::from(error).into_response()),
            };
            let Some(node) = node else { return Err(request) };
            return Ok(match taken_in(app, request, app.limits.upload).await {
                Ok((parts, body)) => {
                    let asked = Asked::of(&parts).on(surface);
                    at(cluster, &node.name, asked, body).await.unwrap_or_else(Reply::into_response)
                }
                Err(error) => error.into_response(),
            });
        }
        Wants::Named(about) => about,
        Wants::Maker => None,
    };
    let answered = async {
        let (parts, body) = taken_in(app, request, app.limits.upload).await?;
        let about = match about {
            None => names::named(&parts.headers, &body).await.as_deref().and_then(About::session),
            about => about,
        };
        let asked = Asked::of(&parts).on(surface);
        let is_work = is_named && parts.method == Method::POST;
        match there(cluster, (about.as_ref(), is_work), &asked, &body).await? {
            Some(response) => Ok::<_, HttpError>(response),
            None => {
                let mut request = Request::from_parts(parts, Full::<Bytes>::default());
                request.extensions_mut().insert(Whole(body));
                Ok(front::run(tables.of(surface), request).await)
            }
        }
    };
    Ok(answered.await.unwrap_or_else(Reply::into_response))
}

/// Has the node answer that can, whatever dies meanwhile; `None` when it is for this one to do.
async fn there(
    cluster: &Cluster,
    (about, is_work): (Option<&About>, bool),
    asked: &Asked,
    body: &Bytes,
) -> Result<Option<Response>, HttpError> {
    let reads = [Method::GET, Method::HEAD].iter().any(|method| method == asked.method());
    let until = Instant::now() + MOVING;
    loop {
        let Some(nodes) = place(cluster, (about, is_work)).await? else { return Ok(None) };
        let session = match about {
            Some(about) => session(cluster, about).await?,
            None => None,
        };
        let asked = asked.clone().about(session.as_ref());
        let last = nodes.last();
        for node in &nodes {
            if node == cluster.node() {
                return Ok(None);
            }
            if nodes.len() > 1 && !reads {
                cluster.gave_clip(node);
            }
            match at(cluster, node, asked.clone(), body.clone()).await {
                // Nothing of it was done there.
                Err(HttpError::Cluster(ClusterError::Gone(_))) if Instant::now() < until => {}
                Err(HttpError::Cluster(ClusterError::Silent(_))) if reads && Instant::now() < until => {}
                Ok(response) if elsewhere(&response) && Instant::now() < until => {}
                // Another one may take it.
                Ok(response) if is_refusal(response.status()) && Some(node) != last => {}
                answered => return answered.map(Some),
            }
        }
        sleep(LOOK).await;
    }
}

/// Brings a sound to the home of a session; gives what that answers, or nothing if the session is
/// for this node to keep.
pub(in crate::http) async fn bring(
    cluster: &Cluster,
    session: &SessionId,
    client: &Client,
    sound: &Bytes,
) -> Result<Option<Response>, HttpError> {
    let about = About::Session(session.clone());
    there(cluster, (Some(&about), false), &Asked::on_behalf(client, Method::POST, SOUND), sound).await
}

/// A number of a node and a client together, the same at all nodes.
fn tag(node: &str, client: Option<&str>) -> u64 {
    // FNV-1a.
    let bytes = client.unwrap_or_default().bytes().chain(node.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

async fn session(cluster: &Cluster, about: &About) -> Result<Option<SessionId>, HttpError> {
    match about {
        About::Session(session) => Ok(Some(session.clone())),
        About::Clip(clip) => Ok(cluster.session_of(*clip).await?),
    }
}

/// The nodes that can answer what is asked, the best first; `None` is this one. What is new begins
/// here if there is a model, unless it is work that others would come to sooner.
async fn place(cluster: &Cluster, (about, is_work): (Option<&About>, bool)) -> Result<Option<Vec<String>>, HttpError> {
    let session = match about {
        Some(about) => session(cluster, about).await?,
        None => None,
    };
    let home = match &session {
        Some(session) => home(cluster, session).await?,
        None => None,
    };
    match home {
        Some(Home::Here) => Ok(None),
        Some(Home::At(node)) => Ok(Some(vec![node])),
        None if is_work && !cluster.is_edge() => Ok(Some(cluster.sooner())),
        // It is new, or nobody knows it any more, or it goes on where it is asked for.
        None | Some(Home::Gone) if !cluster.is_edge() => Ok(None),
        None | Some(Home::Gone) => Ok(Some(cluster.makers().await?.into_iter().map(|node| node.name).collect())),
    }
}

/// Where a session lives. One whose home is gone goes on here, if this node can.
pub(in crate::http) async fn home(cluster: &Cluster, session: &SessionId) -> Result<Option<Home>, HttpError> {
    let home = cluster.home(session).await?;
    if home != Some(Home::Gone) || cluster.is_edge() {
        return Ok(home);
    }
    match cluster.take(session).await? {
        true => Ok(Some(Home::Here)),
        // Somebody else was first.
        false => Ok(cluster.home(session).await?),
    }
}

/// What all nodes list, the newest first.
async fn all(cluster: &Cluster, tables: &Tables, request: Request<Incoming>, name: &'static str) -> Response {
    let (parts, _) = request.into_parts();
    let mut listed = super::lists(cluster, tables, &parts, name).await;
    let when = if name == "clips" { "created" } else { "updated" };
    listed.sort_by_key(|one| std::cmp::Reverse(one[when].as_i64()));
    listed.truncate(LISTED);
    let list = Value::Object([(name.to_owned(), Value::Array(listed))].into_iter().collect());
    with_header(warp::reply::json(&list), CACHE_CONTROL, "no-store").into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(method: &str, target: &str) -> Option<Wants> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        wants(None, &method.parse().unwrap(), path, query)
    }

    #[test]
    fn every_route_of_the_studio_leads_to_what_it_is_about() {
        let clip = ClipId::random();
        let of_clip = || Some(Wants::Home(Some(About::Clip(clip))));
        let session = || About::session("a-b.c");
        for (method, target, wanted) in [
            ("GET", "/v1/clips".to_owned(), Some(Wants::All("clips"))),
            ("GET", "/v1/clips?session=a-b.c".to_owned(), Some(Wants::Home(session()))),
            ("POST", "/v1/clips?session=a-b.c".to_owned(), Some(Wants::Named(session()))),
            ("POST", "/v1/clips".to_owned(), Some(Wants::Named(None))),
            ("GET", format!("/v1/clips/{clip}"), of_clip()),
            ("GET", format!("/v1/clips/{clip}/live.ogg"), of_clip()),
            ("POST", format!("/v1/clips/{clip}/stream"), of_clip()),
            ("DELETE", format!("/v1/loops/{clip}"), of_clip()),
            ("GET", "/v1/clips/nonsense".to_owned(), Some(Wants::Home(None))),
            ("POST", "/v1/sessions/a-b.c/undo".to_owned(), Some(Wants::Home(session()))),
            ("GET", "/v1/transforms".to_owned(), Some(Wants::Maker)),
            ("POST", "/v1/loops".to_owned(), Some(Wants::Named(None))),
            ("POST", "/api/juce/continue_music".to_owned(), Some(Wants::Named(None))),
            ("GET", "/api/juce/poll_status/a-b.c".to_owned(), Some(Wants::Home(session()))),
            ("GET", "/fetch-result/a-b.c".to_owned(), Some(Wants::Home(session()))),
            ("POST", "/transform".to_owned(), Some(Wants::Named(None))),
            ("GET", "/variations".to_owned(), Some(Wants::Maker)),
            ("POST", "/audio/generate/loop".to_owned(), Some(Wants::Maker)),
            ("POST", "/generate".to_owned(), Some(Wants::Own)),
            ("POST", "/set_prompts".to_owned(), Some(Wants::Own)),
            ("GET", "/health".to_owned(), Some(Wants::Maker)),
            ("POST", "/crop-audio".to_owned(), None),
            ("GET", "/generate?prompt=x".to_owned(), None),
            ("GET", "/v1/streams".to_owned(), None),
            ("GET", "/".to_owned(), None),
            ("GET", "/readyz".to_owned(), None),
        ] {
            assert_eq!(asked(method, &target), wanted, "{method} {target}");
        }
    }
}
