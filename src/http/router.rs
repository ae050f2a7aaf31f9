//! Where all routes come together, and what is said when none of them fits.
//!
//! Each module gives a filter that rejects what is not its own; paths are matched before methods,
//! and handlers turn their errors into responses themselves, so whatever arrives at the end of the
//! chain is a 404 or a 405.

use std::sync::Arc;

use warp::filters::path::FullPath;
use warp::http::Method;
use warp::{Filter, Reply};

use super::surface::SURFACES;
use super::{
    App, HttpError, Routes, clips, events, generate, history, hls, journal, models, musicgen_stream, nodes, ops, page,
    renders, sessions, sound_paths, stats, streams, ws,
};

/// Paths and what can be asked there; `{}` stands for one segment, `audio.{file}` and its like for
/// one per format (see [`sound_paths`]).
pub(super) type Paths = &'static [(&'static str, &'static str)];

/// The native API and musicgen-stream.
const NATIVE: Paths = &[
    ("/generate", "GET, HEAD, POST"),
    ("/generate/generate", "POST"),
    ("/set_prompts", "POST"),
    ("/set_model", "POST"),
    ("/v1/streams", "GET, HEAD, POST"),
    ("/v1/streams/{}", "GET, HEAD, PATCH, DELETE"),
    ("/v1/streams/{}/pause", "POST"),
    ("/v1/streams/{}/resume", "POST"),
    ("/v1/streams/{}/reset", "POST"),
    ("/v1/streams/{}/history", "GET, HEAD"),
    ("/v1/streams/{}/recording", "GET, HEAD"),
    ("/v1/streams/{}/fork", "POST"),
    ("/v1/streams/{}/clip", "POST"),
    ("/v1/streams/{}/audio.{live}", "GET, HEAD"),
    ("/v1/streams/{}/events", "GET, HEAD"),
    ("/v1/streams/{}/hls/master.m3u8", "GET, HEAD"),
    ("/v1/streams/{}/hls/{}/{}", "GET, HEAD"),
    ("/hls/{}/master.m3u8", "GET, HEAD"),
    ("/v1/streams/{}/ws", "GET"),
    ("/v1/clips", "GET, HEAD, POST"),
    ("/v1/clips/{}", "GET, HEAD, PATCH, DELETE"),
    ("/v1/clips/{}/events", "GET, HEAD"),
    ("/v1/clips/{}/live.{preview}", "GET, HEAD"),
    ("/v1/clips/{}/audio.{file}", "GET, HEAD"),
    ("/v1/clips/{}/peaks", "GET, HEAD"),
    ("/v1/clips/{}/stream", "POST"),
    ("/v1/sessions", "GET, HEAD, POST"),
    ("/v1/sessions/{}", "GET, HEAD, PATCH, DELETE"),
    ("/v1/sessions/{}/continue", "POST"),
    ("/v1/sessions/{}/retry", "POST"),
    ("/v1/sessions/{}/undo", "POST"),
    ("/v1/sessions/{}/crop", "POST"),
    ("/v1/sessions/{}/events", "GET, HEAD"),
    ("/v1/sessions/{}/peaks", "GET, HEAD"),
    ("/v1/sessions/{}/audio.{file}", "GET, HEAD"),
    ("/v1/transforms", "GET, HEAD, POST"),
    ("/v1/loops", "POST"),
    ("/v1/transforms/{}", "GET, HEAD, DELETE"),
    ("/v1/transforms/{}/audio.{file}", "GET, HEAD"),
    ("/v1/loops/{}", "GET, HEAD, DELETE"),
    ("/v1/loops/{}/audio.{file}", "GET, HEAD"),
    ("/v1/models", "GET, HEAD, POST"),
    ("/v1/nodes", "GET, HEAD"),
    ("/v1/stats", "GET, HEAD"),
    ("/status-json.xsl", "GET, HEAD"),
    ("/v1/openapi.json", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
];

/// Every path of the server's own port; of equal ones the first counts.
fn paths() -> Vec<Paths> {
    let originals = SURFACES.iter().flat_map(|surface| surface.paths).copied();
    [NATIVE, ops::PROBES].into_iter().chain(originals).collect()
}

/// All routes of the server.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let native = ops::routes(app)
        .or(generate::routes(app))
        .unify()
        .or(streams::routes(app))
        .unify()
        .or(stats::routes(app))
        .unify()
        .or(nodes::routes(app))
        .unify()
        .or(hls::routes(app))
        .unify()
        .or(journal::routes(app))
        .unify()
        .or(clips::routes(app))
        .unify()
        .or(sessions::routes(app))
        .unify()
        .or(history::routes(app))
        .unify()
        .or(renders::routes(app))
        .unify()
        .or(events::routes(app))
        .unify()
        .or(ws::routes(app))
        .unify()
        .or(models::routes(app))
        .unify()
        .or(musicgen_stream::routes(app))
        .unify()
        .or(page::routes())
        .unify()
        .boxed();
    let all = SURFACES.iter().fold(native, |routes, surface| routes.or((surface.routes)(app)).unify().boxed());
    let paths = paths();
    let allowed = move |path: &str| {
        let of_page = page::serves(path).then_some("GET, HEAD");
        of_page.or_else(|| methods(&paths, path))
    };
    all.or(nothing_there(allowed)).unify().boxed()
}

/// `GET`, and `HEAD`, whose body is cut off later.
pub(super) fn get() -> impl Filter<Extract = (), Error = warp::Rejection> + Clone {
    warp::get().or(warp::head()).unify()
}

/// What is said at the end of a chain of routes; `allowed` gives the methods of a path, if there is
/// one.
pub(super) fn nothing_there(allowed: impl Fn(&str) -> Option<&'static str> + Clone + Send + Sync + 'static) -> Routes {
    warp::method()
        .and(warp::path::full())
        .map(move |method: Method, path: FullPath| match allowed(path.as_str()) {
            Some(allow) => HttpError::Method {
                method: method.to_string(),
                path: path.as_str().to_owned(),
                allow: allow.to_owned(),
            }
            .into_response(),
            None => HttpError::NoRoute(path.as_str().to_owned()).into_response(),
        })
        .boxed()
}

/// The methods of a path, if it is among these.
pub(super) fn methods(paths: &[Paths], path: &str) -> Option<&'static str> {
    // A slash at the end makes no difference to warp's paths either.
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let fits = |pattern: &str| {
        pattern.split('/').count() == path.split('/').count()
            && pattern.split('/').zip(path.split('/')).all(|(pattern, segment)| sound_paths::fits(pattern, segment))
    };
    paths.iter().copied().flatten().find(|(pattern, _)| fits(pattern)).map(|(_, methods)| *methods)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::description::OPENAPI;

    #[test]
    fn the_description_has_every_path_and_method_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(&OPENAPI).unwrap();
        let methods = |item: &serde_json::Value| {
            let order = ["get", "head", "post", "patch", "delete"];
            let present = order.iter().filter(|method| item.get(method).is_some());
            present.map(|method| method.to_uppercase()).collect::<Vec<_>>().join(", ")
        };
        let paths = described["paths"].as_object().unwrap();
        let nameless = |path: &str| {
            let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
            segments.collect::<Vec<_>>().join("/")
        };
        let mut described: Vec<_> = paths.iter().map(|(path, item)| (nameless(path), methods(item))).collect();
        let mut known: Vec<(String, String)> = Vec::new();
        for (path, allow) in super::paths().into_iter().flatten() {
            for (path, _) in sound_paths::expanded(path) {
                if known.iter().all(|(known, _)| *known != path) {
                    known.push((path, (*allow).to_owned()));
                }
            }
        }
        described.sort();
        known.sort();
        assert_eq!(described, known);
    }

    #[test]
    fn every_operation_has_an_id_of_its_own() {
        let described: serde_json::Value = serde_json::from_str(&OPENAPI).unwrap();
        let items = described["paths"].as_object().unwrap().values();
        let operations: Vec<_> = items.flat_map(|item| item.as_object().unwrap().values()).collect();
        let operations = operations.into_iter().filter(|operation| operation.get("responses").is_some());
        let ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), different.len());
        assert!(ids.len() > 100);
    }
}
