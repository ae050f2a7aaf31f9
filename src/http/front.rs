//! What happens to every request, whichever route answers it: who asks, which page, preflight,
//! token, panics, HEAD, CORS, the access log.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use warp::Reply;
use warp::http::header::{CONTENT_LENGTH, ORIGIN};
use warp::http::{Method, StatusCode, Version};
use warp::reply::Response;

use super::access_log::{AccessLog, Line};
use super::client::Client;
use super::connection::Connection;
use super::forward::Tables;
use super::gary::Sockets;
use super::links::Links;
use super::origin::{self, Reading, Visit};
use super::router::routes;
use super::{App, HttpError, Routes, SURFACES, Surface, cors, forward, ops, response, target};
use crate::telemetry::HTTP_REQUESTS;

/// Answers requests; clones share everything.
#[derive(Clone)]
pub(super) struct Front {
    app: Arc<App>,
    tables: Tables,
    log: Arc<AccessLog>,
}

impl Front {
    pub fn new(app: Arc<App>) -> Self {
        let speaks = app.studio.is_some() || app.cluster.as_ref().is_some_and(|cluster| cluster.is_edge());
        let sockets = speaks.then(|| Sockets::new(&app));
        let alone = SURFACES.iter().map(|surface| surface.alone(&app)).collect();
        let tables = Tables { all: routes(&app), alone, sockets };
        forward::answer(&app, &tables);
        Self { tables, log: Arc::default(), app }
    }

    /// Answers one request of `connection`; never fails.
    pub async fn answer(
        self,
        mut connection: Connection,
        mut request: Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let began = Instant::now();
        let exchange = Arc::clone(&connection.exchange);
        exchange.asked(request.version() != Version::HTTP_2);
        let hosts = origin::hosts(&request);
        target::tidy(&mut request);
        let (method, path, version) = (request.method().clone(), request.uri().path().to_owned(), request.version());
        let from = request.headers().get(ORIGIN).cloned();
        let client = self.app.trusted_proxies.client(connection.peer, connection.local, request.headers());
        let log = Arc::clone(&self.log);
        let surface = connection.surface.or_else(|| strip_prefix(&mut request));
        let _work = exchange.works();
        let taken = self.check(&request, &connection, &client, &hosts, surface);
        let reading = *taken.as_ref().unwrap_or(&Reading::No);
        let preflight = || cors::preflight(&method, request.headers()).filter(|_| reading != Reading::No);
        let mut response = match taken.map(|_| preflight()) {
            Err(error) => error.into_response(),
            Ok(Some(preflight)) => preflight,
            Ok(None) => match self.app.access.check(&request, surface.is_some(), &self.app) {
                Ok(grant) => {
                    connection.multiplexed = version == Version::HTTP_2;
                    let links = Links::of(&client, request.headers());
                    let extensions = request.extensions_mut();
                    extensions.insert(connection);
                    extensions.insert(links);
                    extensions.insert(client.clone());
                    extensions.insert(grant);
                    self.route(surface, request).await
                }
                Err(error) => error.into_response(),
            },
        };
        if version != Version::HTTP_2 {
            exchange.answered();
        }
        let is_unfinished = response::is_unfinished(&response);
        if is_unfinished {
            response::unfinished(response.headers_mut());
        }
        if method == Method::HEAD {
            cut_body(&mut response);
        } else if is_unfinished {
            response = exchange.watched(response, version == Version::HTTP_11);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            exchange.upgraded();
        }
        cors::allow(from.as_ref(), reading, &mut response);
        let (status, elapsed) = (response.status().as_u16(), began.elapsed());
        log.write(Line { client: &client, method: &method, path: &path, version, status, elapsed });
        counter!(HTTP_REQUESTS, "method" => label(&method), "status" => response.status().as_str().to_owned())
            .increment(1);
        Ok(response)
    }

    /// Whether a page may ask this, and read the answer. Probes are answered whatever they say
    /// about themselves.
    fn check(
        &self,
        request: &Request<Incoming>,
        connection: &Connection,
        client: &Client,
        hosts: &[String],
        surface: Option<&'static Surface>,
    ) -> Result<Reading, HttpError> {
        let path = request.uri().path();
        if ops::is_probe(path) {
            return Ok(Reading::No);
        }
        if connection.place.is_spare() {
            return Err(HttpError::Crowded);
        }
        let (method, headers) = (request.method(), request.headers());
        let of_original = surface.is_some() || !(path == "/v1" || path.starts_with("/v1/"));
        let of_sockets = Sockets::serves(path);
        let visit = Visit { method, headers, client, hosts, of_original, of_sockets };
        self.app.origins.check(&visit, self.app.access.is_guarded())
    }

    async fn route(self, surface: Option<&'static Surface>, request: Request<Incoming>) -> Response {
        let has_sockets = surface.is_none_or(|surface| surface.sockets);
        if let Some(sockets) =
            self.tables.sockets.as_ref().filter(|_| has_sockets && Sockets::serves(request.uri().path()))
        {
            return sockets.answer(request).await;
        }
        match forward::passed_on(&self.app, &self.tables, surface, request).await {
            Ok(response) => response,
            Err(request) => run(self.tables.of(surface), request).await,
        }
    }
}

/// Has these routes answer a request that was let in.
pub(super) async fn run<B>(routes: Routes, request: Request<B>) -> Response
where
    B: hyper::body::Body<Data: Send + 'static, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Sync + 'static,
{
    let service = TowerToHyperService::new(warp::service(routes));
    match AssertUnwindSafe(service.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            tracing::error!(panic = text_of(&*panic), "a handler panicked");
            HttpError::Panicked.into_response()
        }
    }
}

/// Behind the prefix of an original, its routes are where they were: a proxy or an old client needs
/// no change.
fn strip_prefix(request: &mut Request<Incoming>) -> Option<&'static Surface> {
    let (first, rest) = request.uri().path().strip_prefix('/')?.split_once('/')?;
    let surface = SURFACES.iter().find(|surface| surface.name == first)?;
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let uri = format!("/{rest}{query}").parse().ok()?;
    *request.uri_mut() = uri;
    Some(surface)
}

/// Methods that count by their name; anything else is a client's invention and must not make a
/// metric of its own.
fn label(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"];
    known.into_iter().find(|name| method == name).unwrap_or("OTHER")
}

/// A response to HEAD keeps its headers, the length of a known body among them, and has no body.
pub(super) fn cut_body(response: &mut Response) {
    let length = hyper::body::Body::size_hint(response.body()).exact();
    *response.body_mut() = Default::default();
    if let Some(length) = length.filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
