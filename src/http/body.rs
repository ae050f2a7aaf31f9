//! Reading request bodies: counted while they arrive, JSON under any Content-Type, refusals that reach the client.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use warp::Filter;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_LENGTH, EXPECT};

use super::connection::{self, Connection};
use super::{App, HttpError, json};

/// How much of a refused upload is read away, so that the client sees our answer and not a reset.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Extracts the whole body, or why it was refused. Never rejects.
pub(super) fn bytes(
    app: &App,
) -> impl Filter<Extract = (Result<Bytes, HttpError>,), Error = warp::Rejection> + Clone + use<> {
    bytes_within(app.limits.body, app.limits.request)
}

/// Extracts the whole body of at most `limit` bytes that arrives within `patience`, or why it was refused. Never
/// rejects.
pub(super) fn bytes_within(
    limit: usize,
    patience: Duration,
) -> impl Filter<Extract = (Result<Bytes, HttpError>,), Error = warp::Rejection> + Clone + use<> {
    let connection = connection::of_request();
    let request = warp::header::headers_cloned().and(connection).and(warp::body::stream());
    request.then(move |headers, connection: Connection, body| async move {
        let _uploads = connection.exchange.uploads();
        match timeout(patience, read(&headers, body, limit)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::TooSlow),
        }
    })
}

async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    limit: usize,
) -> Result<Bytes, HttpError> {
    let mut body = std::pin::pin!(body);
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut collected = BytesMut::new();
    let mut too_large = announced.is_some_and(|length| length > limit as u64);
    while !too_large && let Some(part) = body.next().await {
        let mut part = part.map_err(|error| HttpError::BadRequest(format!("The body broke off: {error}.")))?;
        too_large = collected.len() + part.remaining() > limit;
        if !too_large {
            collected.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
    }
    if !too_large {
        return Ok(collected.freeze());
    }
    // A client that waits for "100 Continue" has not sent anything yet and must not be asked to.
    if !headers.contains_key(EXPECT) {
        let mut drained = 0;
        let _ = timeout(DRAIN_TIME, async {
            while drained < DRAIN_BYTES
                && let Some(Ok(part)) = body.next().await
            {
                drained += part.remaining();
            }
        })
        .await;
    }
    Err(HttpError::TooLarge(limit))
}

/// Parses a JSON object, whatever the Content-Type says.
///
/// # Errors
/// [`HttpError::BadRequest`] when it is not JSON, [`HttpError::Unprocessable`] when it is not what the route takes.
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
