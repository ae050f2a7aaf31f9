//! Cross-origin rules of the original server: any origin is echoed, credentials are allowed, every header that is not
//! simple is exposed, a preflight gets what it asks for. A request without an `Origin` gets no such header.

use warp::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderName, LAST_MODIFIED, ORIGIN, PRAGMA,
    VARY,
};
use warp::http::{HeaderMap, HeaderValue, Method};
use warp::reply::Response;

/// Response headers that a page may read without our saying so.
const SIMPLE: [HeaderName; 5] = [CACHE_CONTROL, CONTENT_TYPE, EXPIRES, LAST_MODIFIED, PRAGMA];

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
    Some(response)
}

/// Lets the page at `origin` read the response.
pub(super) fn allow(origin: Option<&HeaderValue>, response: &mut Response) {
    let Some(origin) = origin else { return };
    let headers = response.headers_mut();
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
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(VARY, HeaderValue::from_static("origin"));
}
