//! One listener's endless response: the right headers, titles by ICY when asked for, and an end to
//! clients that stall.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};
use warp::Reply;
use warp::http::header::{ACCEPT_RANGES, CONTENT_TYPE};
use warp::http::{HeaderMap, HeaderName, HeaderValue};
use warp::reply::Response;

use super::HttpError;
use super::connection::Connection;
use super::icy::{self, Interleaver};
use super::response::unfinished;
use super::when;
use crate::audio::{Format, LiveFormat};
use crate::station::{Listen, Listener, Stream};

/// Where a page finds the id of the stream that it hears, to steer it.
const STREAM_ID: HeaderName = HeaderName::from_static("x-stream-id");
/// The media time in seconds at which sound of the past begins.
pub(super) const MEDIA_TIME: HeaderName = HeaderName::from_static("x-media-time");

/// Headers of a response that carries `format`, without a body: what HEAD gets.
///
/// A `Range: bytes=0-` that browsers send is answered with the whole as well: an endless stream has
/// no ranges.
pub(super) fn headers_only(format: Format, stream_id: Option<&str>) -> Response {
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    unfinished(headers);
    if let Some(Ok(id)) = stream_id.map(HeaderValue::from_str) {
        headers.insert(STREAM_ID, id);
    }
    response
}

/// Joins `stream`, at its live edge or in its past, and answers with its sound.
///
/// # Errors
/// [`HttpError::Station`] when the station refuses the listener, or has no room for a stream that
/// was idle.
pub(super) async fn response(
    stream: &Arc<Stream>,
    (listen, from): (Listen, Option<u64>),
    request: &HeaderMap,
    connection: &Connection,
) -> Result<Response, HttpError> {
    let listener = match from {
        Some(from) => stream.listen_from(listen, from)?,
        None => stream.join(listen).await?,
    };
    let mut response = headers_only(listen.format, Some(stream.id()));
    let begins = from.map(|from| HeaderValue::from_str(&when::seconds(from).to_string()));
    if let Some(Ok(begins)) = begins {
        response.headers_mut().insert(MEDIA_TIME, begins);
    }
    let icy = listen.format.live().is_some_and(LiveFormat::carries_titles) && icy::wanted(request);
    if icy {
        icy::announce(&stream.info(), listen, response.headers_mut());
    }
    let gone = CancellationToken::new();
    // Over HTTP/2 the connection may carry other listeners (a proxy's): it stays, and this body
    // ends when next polled.
    if !connection.multiplexed {
        let (given_up, gone, close) = (listener.given_up(), gone.clone(), connection.close.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = given_up => close.cancel(),
                () = gone.cancelled() => {}
            }
        });
    }
    let titles = icy.then(Interleaver::new);
    let body = Body { listener, titles, _gone: gone.drop_guard() };
    *response.body_mut() = warp::reply::stream(body).into_response().into_body();
    Ok(response)
}

/// The bytes of a listener; dropped with the connection, and the listener with it.
struct Body {
    listener: Listener,
    titles: Option<Interleaver>,
    _gone: DropGuard,
}

impl futures_util::Stream for Body {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(bytes) = ready!(Pin::new(&mut self.listener).poll_next(cx)) else { return Poll::Ready(None) };
        let Self { listener, titles, .. } = &mut *self;
        Poll::Ready(Some(Ok(match titles {
            None => bytes,
            Some(titles) => titles.interleave(&bytes, || listener.title()),
        })))
    }
}
