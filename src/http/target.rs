//! What a request is for, in one spelling: a path that begins with a slash and has no two in a row.
//!
//! The originals' framework merges slashes, so addresses put together from a base that ends in one
//! and a path that begins with one are out there. A proxy's form of a target (`http://host/path`)
//! and `CONNECT` come down to a path too: no route has to know of them.

use hyper::Request;
use warp::http::Uri;
use warp::http::uri::PathAndQuery;

/// Rewrites the target of a request. Its host, if it named one, is lost: ask for it before.
pub(super) fn tidy<B>(request: &mut Request<B>) {
    let uri = request.uri();
    let path = uri.path();
    if uri.scheme().is_none() && uri.authority().is_none() && path.starts_with('/') && !path.contains("//") {
        return;
    }
    let mut tidy = String::with_capacity(path.len() + 1);
    tidy.push('/');
    // `OPTIONS *` asks about the server as a whole.
    for part in path.split('/').filter(|part| !part.is_empty() && *part != "*") {
        if tidy.len() > 1 {
            tidy.push('/');
        }
        tidy.push_str(part);
    }
    if path.len() > 1 && path.ends_with('/') && tidy.len() > 1 {
        tidy.push('/');
    }
    if let Some(query) = uri.query() {
        tidy.push('?');
        tidy.push_str(query);
    }
    // Parts of a valid target are one.
    let tidy = PathAndQuery::try_from(tidy).unwrap_or_else(|_| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(tidy);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_spelling_of_a_target_is_one_path() {
        for (target, is) in [
            ("/health", "/health"),
            ("//health", "/health"),
            ("///v1//streams///x//", "/v1/streams/x/"),
            ("/gary//health?a=//b", "/gary/health?a=//b"),
            ("/socket.io/?EIO=4", "/socket.io/?EIO=4"),
            ("//", "/"),
            ("/", "/"),
            ("/a%2F%2Fb", "/a%2F%2Fb"),
            ("http://example.org", "/"),
            ("http://example.org?x=1", "/?x=1"),
            ("http://example.org:80//v1/streams?x=1", "/v1/streams?x=1"),
            ("example.org:443", "/"),
            ("*", "/"),
        ] {
            let mut request = Request::new(());
            *request.uri_mut() = target.parse().unwrap();
            tidy(&mut request);
            assert_eq!(request.uri().to_string(), is, "{target}");
        }
    }
}
