//! What is said of a body that is not finished when its first byte leaves: sound that is being
//! made, events.

use hyper::body::Body as _;
use warp::http::header::{CACHE_CONTROL, CONTENT_LENGTH};
use warp::http::{HeaderMap, HeaderName, HeaderValue};
use warp::reply::Response;

/// nginx and its relatives pass such a response on as it comes. Without it they collect pages of
/// it, and a body that is made as fast as it is read fills their disk for a client that reads
/// nothing.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Adds the headers that keep everybody in between from collecting, compressing or keeping the
/// body.
pub(super) fn unfinished(headers: &mut HeaderMap) {
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
}

/// Whether nobody knows yet how long the body will be.
pub(super) fn is_unfinished(response: &Response) -> bool {
    response.body().size_hint().exact().is_none() && !response.headers().contains_key(CONTENT_LENGTH)
}
