//! What a request needs, by its method and path: a scope, and for which station.
//!
//! Paths that are not named here change something or are an original's: they need
//! [`Scope::Produce`] for the whole server, so that nothing new is open by oversight.

use warp::http::Method;

use super::{Grant, Scope};
use crate::http::query::{pairs, segment};
use crate::http::{App, HttpError};

/// What whoever asks has to be allowed.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct Need {
    pub(super) scope: Scope,
    about: About,
}

/// What is asked about.
#[derive(Debug, PartialEq)]
enum About {
    /// All of it.
    Server,
    /// As much of it as whoever asks may know: the handler leaves out the rest.
    Part,
    /// A station by its name.
    Station(String),
    /// A stream by its id.
    Stream(String),
}

impl Need {
    /// `of_original`: the routes are those of an original alone.
    pub fn of(of_original: bool, method: &Method, path: &str, query: &str) -> Self {
        let reads = [Method::GET, Method::HEAD].contains(method);
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let stream = |scope, id: &str| Self { scope, about: About::Stream(id.to_owned()) };
        let part = |scope| Self { scope, about: About::Part };
        let server = |scope| Self { scope, about: About::Server };
        match segments[..] {
            _ if of_original => server(Scope::Produce),
            ["generate"] if reads => match pairs(query).into_iter().find(|(name, _)| name == "station") {
                Some((_, station)) => Self { scope: Scope::Listen, about: About::Station(station) },
                None => server(Scope::Produce),
            },
            ["hls", station, ..] if reads => Self { scope: Scope::Listen, about: About::Station(segment(station)) },
            ["v1", "streams"] if reads => part(Scope::Listen),
            // The name of the new stream is in the body.
            ["v1", "streams"] => part(Scope::Produce),
            ["v1", "streams", id, ..] if reads => stream(Scope::Listen, id),
            ["v1", "streams", id, "pause" | "resume" | "reset"] => stream(Scope::Steer, id),
            // What is made of it has a place of its own, which is in the body.
            ["v1", "streams", id, "fork" | "clip"] => stream(Scope::Listen, id),
            ["v1", "streams", id] if method == Method::PATCH => stream(Scope::Steer, id),
            ["v1", "streams", id] => stream(Scope::Produce, id),
            ["v1", "models" | "openapi.json"] | ["status-json.xsl"] if reads => part(Scope::Listen),
            ["v1", "models" | "nodes" | "stats"] | ["metrics"] => server(Scope::Admin),
            _ => server(Scope::Produce),
        }
    }

    /// Whether a grant is good for it.
    ///
    /// # Errors
    /// [`HttpError::Forbidden`].
    pub fn check(&self, grant: &Grant, app: &App) -> Result<(), HttpError> {
        match &self.about {
            About::Server => grant.check(self.scope, None),
            About::Part => grant.check_scope(self.scope),
            About::Station(name) => grant.check(self.scope, Some(name)),
            About::Stream(id) => grant.check(self.scope, app.name_of(id).as_deref()),
        }
    }

    /// The names under which the station or stream that is asked about may be signed.
    pub fn names(&self, app: &App) -> Vec<String> {
        match &self.about {
            About::Server | About::Part => Vec::new(),
            About::Station(name) => vec![name.clone()],
            About::Stream(id) => [Some(id.clone()), app.name_of(id)].into_iter().flatten().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(method: &str, target: &str) -> (Scope, About) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let need = Need::of(false, &method.parse().unwrap_or_default(), path, query);
        (need.scope, need.about)
    }

    #[test]
    fn what_is_not_known_to_be_harmless_needs_more_than_to_listen() {
        let (station, stream) = (|| About::Station("lofi".into()), || About::Stream("x".into()));
        for (method, target, wanted) in [
            ("GET", "/generate?format=mp3&station=lofi", (Scope::Listen, station())),
            ("GET", "/hls/lo%66i/master.m3u8", (Scope::Listen, station())),
            ("HEAD", "/generate?station=lofi", (Scope::Listen, station())),
            ("GET", "/generate?prompt=a", (Scope::Produce, About::Server)),
            ("POST", "/generate?station=lofi", (Scope::Produce, About::Server)),
            ("GET", "/v1/streams/", (Scope::Listen, About::Part)),
            ("POST", "/v1/streams", (Scope::Produce, About::Part)),
            ("GET", "/v1/streams/x", (Scope::Listen, stream())),
            ("GET", "/v1/streams/x/ws", (Scope::Listen, stream())),
            ("GET", "/v1/streams/x/audio.mp3?kbps=64", (Scope::Listen, stream())),
            ("PATCH", "/v1/streams/x", (Scope::Steer, stream())),
            ("POST", "/v1/streams/x/pause", (Scope::Steer, stream())),
            ("GET", "/v1/streams/x/recording?format=wav", (Scope::Listen, stream())),
            ("POST", "/v1/streams/x/fork", (Scope::Listen, stream())),
            ("POST", "/v1/streams/x/clip", (Scope::Listen, stream())),
            ("DELETE", "/v1/streams/x", (Scope::Produce, stream())),
            ("POST", "/v1/streams/x/new", (Scope::Produce, About::Server)),
            ("GET", "/v1/clips/x", (Scope::Produce, About::Server)),
            ("POST", "/v1/models", (Scope::Admin, About::Server)),
            ("GET", "/v1/models", (Scope::Listen, About::Part)),
            ("GET", "/metrics", (Scope::Admin, About::Server)),
            ("GET", "/v1/stats", (Scope::Admin, About::Server)),
            ("GET", "/v1/nodes", (Scope::Admin, About::Server)),
            ("GET", "/status-json.xsl", (Scope::Listen, About::Part)),
            ("GET", "/socket.io/?EIO=4", (Scope::Produce, About::Server)),
            ("POST", "/set_model", (Scope::Produce, About::Server)),
            ("BREW", "/v1/streams/x", (Scope::Produce, stream())),
        ] {
            assert_eq!(need(method, target), wanted, "{method} {target}");
        }
        assert_eq!(Need::of(true, &Method::GET, "/v1/streams", "").scope, Scope::Produce);
    }
}
