//! The originals that this server stands in for: what each of them answers behind its prefix and on
//! a port of its own.
//!
//! A new one is an entry of [`SURFACES`]: the router, the prefixes and the options of `serve`
//! follow from it. On the server's own port the routes of all answer together, those of an earlier
//! entry first where paths are the same.

use std::sync::Arc;

use tokio::net::TcpListener;
use warp::{Filter, Reply};

use super::router::{Paths, get, methods, nothing_there};
use super::{App, Routes, gary, jerry, ops, terry, web};

/// What every original answers at its root: a line of text.
const ROOT: Paths = &[("/", "GET, HEAD")];

/// One original.
pub struct Surface {
    /// Its prefix, without the slash.
    pub name: &'static str,
    /// What it is called in a sentence.
    pub called: &'static str,
    /// The option of `serve` that gives it a port.
    pub option: &'static str,
    /// Where its clients expect it.
    pub usual_port: u16,
    /// Whether it speaks Socket.IO.
    pub(super) sockets: bool,
    /// Whether its routes ask the studio.
    pub(super) needs_studio: bool,
    /// Its paths and what can be asked there.
    pub(super) paths: &'static [Paths],
    /// Its routes.
    pub(super) routes: fn(&Arc<App>) -> Routes,
}

/// All of them.
pub static SURFACES: [Surface; 5] = [
    Surface {
        name: "gary",
        called: "gary",
        option: "gary-port",
        usual_port: 8000,
        sockets: true,
        needs_studio: true,
        // Its clients ask for the loops on the same host.
        paths: &[gary::PATHS, jerry::PATHS, jerry::AUDIO_PATHS],
        routes: |app| gary::routes(app).or(jerry::routes(app)).unify().boxed(),
    },
    Surface {
        name: "web",
        called: "gary4web",
        option: "web-port",
        usual_port: 8001,
        sockets: false,
        needs_studio: true,
        paths: &[web::PATHS],
        routes: web::routes,
    },
    Surface {
        name: "express",
        called: "the crop server",
        option: "express-port",
        usual_port: 3000,
        sockets: false,
        needs_studio: false,
        paths: &[web::CROP_PATHS],
        routes: web::crop_routes,
    },
    Surface {
        name: "terry",
        called: "terry",
        option: "terry-port",
        usual_port: 8002,
        sockets: true,
        needs_studio: true,
        paths: &[terry::PATHS],
        routes: terry::routes,
    },
    Surface {
        name: "jerry",
        called: "jerry",
        option: "jerry-port",
        usual_port: 8005,
        sockets: false,
        needs_studio: true,
        paths: &[jerry::PATHS, jerry::AUDIO_PATHS],
        routes: jerry::routes,
    },
];

impl Surface {
    /// Everything that is answered where only this original is spoken: its routes and the probes.
    pub(super) fn alone(&'static self, app: &Arc<App>) -> Routes {
        let called = self.called;
        let root = warp::path::end()
            .and(get())
            .map(move || format!("Continuo answers here as {called}; the player is on the server's own port.\n"))
            .map(Reply::into_response);
        let paths = [&[ROOT, ops::PROBES], self.paths].concat();
        root.or(ops::probes(app))
            .unify()
            .or((self.routes)(app))
            .unify()
            .or(nothing_there(move |path| methods(&paths, path)))
            .unify()
            .boxed()
    }
}

/// Where connections come in, and who is spoken there.
pub struct Port {
    /// Bound and listening.
    pub listener: TcpListener,
    /// `None` is everything.
    pub surface: Option<&'static Surface>,
}

impl From<TcpListener> for Port {
    fn from(listener: TcpListener) -> Self {
        Self { listener, surface: None }
    }
}
