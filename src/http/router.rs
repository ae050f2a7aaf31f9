//! Where all routes come together, and what is said when none of them fits.
//!
//! Each module gives a filter that rejects what is not its own; paths are matched before methods, and handlers turn
//! their errors into responses themselves, so whatever arrives at the end of the chain is a 404 or a 405.

use std::sync::Arc;

use warp::filters::path::FullPath;
use warp::http::Method;
use warp::{Filter, Reply};

use super::{
    App, HttpError, Routes, clips, events, flows, gary, generate, models, musicgen_stream, ops, page, sessions,
    streams, web, ws,
};

/// Every path of the API and what can be asked there; `{}` stands for one segment.
pub(super) const PATHS: &[(&str, &str)] = &[
    ("/generate", "GET, HEAD, POST"),
    ("/generate/generate", "POST"),
    ("/set_prompts", "POST"),
    ("/set_model", "POST"),
    ("/v1/streams", "GET, HEAD, POST"),
    ("/v1/streams/{}", "GET, HEAD, PATCH, DELETE"),
    ("/v1/streams/{}/pause", "POST"),
    ("/v1/streams/{}/resume", "POST"),
    ("/v1/streams/{}/reset", "POST"),
    ("/v1/streams/{}/audio.ogg", "GET, HEAD"),
    ("/v1/streams/{}/audio.mp3", "GET, HEAD"),
    ("/v1/streams/{}/audio.wav", "GET, HEAD"),
    ("/v1/streams/{}/events", "GET, HEAD"),
    ("/v1/streams/{}/ws", "GET"),
    ("/v1/clips", "GET, HEAD, POST"),
    ("/v1/clips/{}", "GET, HEAD, DELETE"),
    ("/v1/clips/{}/events", "GET, HEAD"),
    ("/v1/clips/{}/live.wav", "GET, HEAD"),
    ("/v1/clips/{}/audio.wav", "GET, HEAD"),
    ("/v1/clips/{}/audio.flac", "GET, HEAD"),
    ("/v1/clips/{}/audio.ogg", "GET, HEAD"),
    ("/v1/clips/{}/audio.mp3", "GET, HEAD"),
    ("/v1/clips/{}/stream", "POST"),
    ("/v1/sessions", "GET, HEAD, POST"),
    ("/v1/sessions/{}", "GET, HEAD, PATCH, DELETE"),
    ("/v1/sessions/{}/continue", "POST"),
    ("/v1/sessions/{}/retry", "POST"),
    ("/v1/sessions/{}/undo", "POST"),
    ("/v1/sessions/{}/crop", "POST"),
    ("/v1/sessions/{}/audio.wav", "GET, HEAD"),
    ("/v1/sessions/{}/audio.flac", "GET, HEAD"),
    ("/v1/sessions/{}/audio.ogg", "GET, HEAD"),
    ("/v1/sessions/{}/audio.mp3", "GET, HEAD"),
    ("/api/juce/process_audio", "POST"),
    ("/api/juce/continue_music", "POST"),
    ("/api/juce/retry_music", "POST"),
    ("/api/juce/transform_audio", "POST"),
    ("/api/juce/undo_transform", "POST"),
    ("/api/juce/update_cropped_audio", "POST"),
    ("/api/juce/poll_status/{}", "GET, HEAD"),
    ("/api/latest_generated_audio/{}", "GET, HEAD"),
    ("/api/models", "GET, HEAD"),
    ("/api/cleanup_old_sessions", "POST"),
    ("/health", "GET, HEAD"),
    ("/continue", "POST"),
    ("/tasks/{}", "GET, HEAD"),
    ("/fetch-result/{}", "GET, HEAD"),
    ("/progress/{}", "GET, HEAD"),
    ("/crop-audio", "POST"),
    ("/combine-audio", "POST"),
    ("/v1/transforms", "GET, HEAD, POST"),
    ("/v1/loops", "POST"),
    ("/v1/transforms/{}", "GET, HEAD, DELETE"),
    ("/v1/transforms/{}/audio.wav", "GET, HEAD"),
    ("/v1/transforms/{}/audio.flac", "GET, HEAD"),
    ("/v1/transforms/{}/audio.ogg", "GET, HEAD"),
    ("/v1/transforms/{}/audio.mp3", "GET, HEAD"),
    ("/v1/loops/{}", "GET, HEAD, DELETE"),
    ("/v1/loops/{}/audio.wav", "GET, HEAD"),
    ("/v1/loops/{}/audio.flac", "GET, HEAD"),
    ("/v1/loops/{}/audio.ogg", "GET, HEAD"),
    ("/v1/loops/{}/audio.mp3", "GET, HEAD"),
    ("/v1/models", "GET, HEAD, POST"),
    ("/v1/openapi.json", "GET, HEAD"),
    ("/healthz", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
];

/// All routes of the server.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    ops::routes(app)
        .or(generate::routes(app))
        .unify()
        .or(streams::routes(app))
        .unify()
        .or(clips::routes(app))
        .unify()
        .or(sessions::routes(app))
        .unify()
        .or(web::routes(app))
        .unify()
        .or(gary::routes(app))
        .unify()
        .or(flows::routes(app))
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
        .or(nothing_there())
        .unify()
        .boxed()
}

/// `GET`, and `HEAD`, whose body is cut off later.
pub(super) fn get() -> impl Filter<Extract = (), Error = warp::Rejection> + Clone {
    warp::get().or(warp::head()).unify()
}

fn nothing_there() -> Routes {
    warp::method()
        .and(warp::path::full())
        .map(|method: Method, path: FullPath| match allowed(path.as_str()) {
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

/// The methods of a path, if there is one.
fn allowed(path: &str) -> Option<&'static str> {
    if page::serves(path) {
        return Some("GET, HEAD");
    }
    // A slash at the end makes no difference to warp's paths either.
    let path = path.strip_suffix('/').unwrap_or(path);
    let fits = |pattern: &str| {
        pattern.split('/').count() == path.split('/').count()
            && pattern.split('/').zip(path.split('/')).all(|(want, is)| want == is || (want == "{}" && !is.is_empty()))
    };
    PATHS.iter().find(|(pattern, _)| fits(pattern)).map(|(_, methods)| *methods)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_description_has_every_path_and_method_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(ops::OPENAPI).unwrap();
        let methods = |item: &serde_json::Value| {
            let order = ["get", "head", "post", "patch", "delete"];
            let present = order.iter().filter(|method| item.get(method).is_some());
            present.map(|method| method.to_uppercase()).collect::<Vec<_>>().join(", ")
        };
        let paths = described["paths"].as_object().unwrap();
        let mut described: Vec<_> =
            paths.iter().map(|(path, item)| (path.replace("{id}", "{}"), methods(item))).collect();
        let mut known: Vec<_> = PATHS.iter().map(|&(path, allow)| (path.to_owned(), allow.to_owned())).collect();
        described.sort();
        known.sort();
        assert_eq!(described, known);
    }
}
