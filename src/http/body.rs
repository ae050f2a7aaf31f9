//! Reading request bodies: counted while they arrive, JSON under any Content-Type, refusals that
//! reach the client.

use std::fmt::Display;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use warp::Filter;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_LENGTH, EXPECT};

use super::connection::{self, Connection};
use super::{App, HttpError, json};
use crate::budget::Budget;

/// Time for an upload to arrive, and between two parts of a body.
const PATIENCE: Duration = Duration::from_secs(300);
const STALLED: Duration = Duration::from_secs(30);
/// Bytes by which a body's share of the memory grows.
const STEP: usize = 256 << 10;
/// How much of an upload that is too large is read away, so that the client sees our answer and not
/// a reset. One that comes at a bad time is read to its end: its client is to try again.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The body of a request, in its extensions, of which it was read before it was known who answers
/// it.
#[derive(Clone)]
pub(super) struct Whole(pub Bytes);

/// Extracts the whole body, or why it was refused. Never rejects.
pub(super) fn bytes(
    app: &App,
) -> impl Filter<Extract = (Result<Bytes, HttpError>,), Error = warp::Rejection> + Clone + use<> {
    bytes_within(app, app.limits.body, app.limits.request)
}

/// Extracts the whole body of an upload, or why it was refused. Never rejects.
pub(super) fn upload(
    app: &App,
) -> impl Filter<Extract = (Result<Bytes, HttpError>,), Error = warp::Rejection> + Clone + use<> {
    bytes_within(app, app.limits.upload, PATIENCE)
}

/// Of at most `limit` bytes that arrive within `patience`.
fn bytes_within(
    app: &App,
    limit: usize,
    patience: Duration,
) -> impl Filter<Extract = (Result<Bytes, HttpError>,), Error = warp::Rejection> + Clone + use<> {
    let budget = app.budget.clone();
    let connection = connection::of_request();
    let whole = warp::ext::optional::<Whole>();
    let request = warp::header::headers_cloned().and(connection).and(whole).and(warp::body::stream());
    request.then(move |headers, connection: Connection, whole: Option<Whole>, body| {
        let budget = budget.clone();
        async move {
            if let Some(Whole(body)) = whole {
                return if body.len() > limit { Err(HttpError::TooLarge(limit)) } else { Ok(body) };
            }
            let _uploads = connection.exchange.uploads();
            match timeout(patience, read(&headers, body, limit, &budget)).await {
                Ok(result) => result,
                Err(_) => Err(HttpError::TooSlow),
            }
        }
    })
}

async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, impl Display>>,
    limit: usize,
    budget: &Budget,
) -> Result<Bytes, HttpError> {
    let mut body = std::pin::pin!(body);
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let read = match announced {
        Some(length) if length > limit as u64 => Err(HttpError::TooLarge(limit)),
        _ => take(&mut body, (announced.unwrap_or(0) as usize, limit), budget).await,
    };
    // A client that waits for "100 Continue" has not sent anything yet and must not be asked to.
    let most = match read {
        Err(HttpError::TooLarge(_)) => DRAIN_BYTES,
        Err(HttpError::Exhausted(_)) => limit,
        _ => 0,
    };
    if most > 0 && !headers.contains_key(EXPECT) {
        let mut drained = 0;
        let _ = timeout(DRAIN_TIME, async {
            while drained < most
                && let Some(Ok(part)) = body.next().await
            {
                drained += part.remaining();
            }
        })
        .await;
    }
    read
}

/// Takes a body of at most `limit` bytes in, and memory for what has come: what is announced is
/// only set aside.
async fn take<B: Buf>(
    body: &mut (impl Stream<Item = Result<B, impl Display>> + Unpin),
    (announced, limit): (usize, usize),
    budget: &Budget,
) -> Result<Bytes, HttpError> {
    let mut collected = BytesMut::with_capacity(announced);
    let mut share = budget.take(0).await?;
    while let Some(part) = next(body).await? {
        let mut part = part.map_err(|error| HttpError::BadRequest(format!("The body broke off: {error}.")))?;
        let length = collected.len() + part.remaining();
        if length > limit {
            return Err(HttpError::TooLarge(limit));
        }
        if length as u64 > share.bytes() {
            let step = if length < STEP { 4 << 10 } else { STEP };
            share.grow(length.next_multiple_of(step) as u64).await?;
        }
        collected.extend_from_slice(&part.copy_to_bytes(part.remaining()));
    }
    Ok(share.hold(collected))
}

/// Reads the whole body of a request that goes past the routes.
///
/// # Errors
/// Why it was refused.
pub(super) async fn collect(
    headers: &HeaderMap,
    body: Incoming,
    limit: usize,
    budget: &Budget,
) -> Result<Bytes, HttpError> {
    let body = body.into_data_stream();
    timeout(PATIENCE, read(headers, body, limit, budget)).await.unwrap_or(Err(HttpError::TooSlow))
}

/// Takes what another node sends in.
///
/// # Errors
/// [`HttpError::TooLarge`], [`HttpError::Exhausted`], [`HttpError::TooSlow`],
/// [`HttpError::BadRequest`] where it breaks off.
pub(super) async fn of_node<B: Buf>(
    mut body: impl Stream<Item = Result<B, impl Display>> + Unpin,
    limit: usize,
    budget: &Budget,
) -> Result<Bytes, HttpError> {
    take(&mut body, (0, limit), budget).await
}

/// The next part of a body. A client that has stopped sending must not hold memory for long.
async fn next<T>(body: &mut (impl Stream<Item = T> + Unpin)) -> Result<Option<T>, HttpError> {
    timeout(STALLED, body.next()).await.map_err(|_| HttpError::TooSlow)
}

/// Parses a JSON object, whatever the Content-Type says.
///
/// # Errors
/// [`HttpError::BadRequest`] when it is not JSON, [`HttpError::Unprocessable`] when it is not what
/// the route takes.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    // Structs would take an array of their fields' values as well.
    if json::first(body) == Some(b'[') {
        return Err(HttpError::Unprocessable("The JSON is an array; send an object.".into()));
    }
    json::parse(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => HttpError::Unprocessable(format!("The JSON does not fit: {error}.")),
        _ => HttpError::BadRequest(format!("The body is not JSON: {error}.")),
    })
}
