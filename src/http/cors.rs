//! What a page of another origin that may read the answer is told: its origin is echoed, every
//! header that is not simple is exposed, a preflight gets what it asks for. Which pages these are
//! is decided in `origin`.

use warp::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderName, LAST_MODIFIED, ORIGIN, PRAGMA,
    VARY,
};
use warp::http::{HeaderMap, HeaderValue, Method};
use warp::reply::Response;

use super::origin::Reading;

/// Response headers that a page may read without our saying so.
const SIMPLE: [HeaderName; 5] = [CACHE_CONTROL, CONTENT_TYPE, EXPIRES, LAST_MODIFIED, PRAGMA];

/// A page of the public network asks for one of a private network (Chromium).
const REQUEST_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The answer to a preflight, or `None` when this is an ordinary request.
pub(super) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response> {
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut response = Response::default();
    let out = response.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        out.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if headers.contains_key(REQUEST_PRIVATE) {
        out.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
    }
    Some(response)
}

/// Lets the page at `origin` read the response, if it may.
pub(super) fn allow(origin: Option<&HeaderValue>, reading: Reading, response: &mut Response) {
    let Some(origin) = origin else { return };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if reading == Reading::No {
        return;
    }
    let exposed: Vec<&str> = headers
        .keys()
        .filter(|name| !SIMPLE.contains(name) && !name.as_str().starts_with("access-control-"))
        .map(HeaderName::as_str)
        .collect();
    if let Ok(exposed) = HeaderValue::from_str(&exposed.join(", "))
        && !exposed.is_empty()
    {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if reading == Reading::PageWithCredentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}
