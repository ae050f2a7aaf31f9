//! The optional bearer token. `<audio>` elements and browsers' WebSockets cannot set headers, so `?token=` counts too.

use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Uri};

use super::{HttpError, page};

/// Paths that a probe must reach without a token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Lets a request pass when no token is asked for, the path is open to all, or the token is right.
///
/// # Errors
/// [`HttpError::Unauthorized`].
pub(super) fn check(token: Option<&str>, uri: &Uri, headers: &HeaderMap) -> Result<(), HttpError> {
    let Some(token) = token else { return Ok(()) };
    if OPEN.contains(&uri.path()) || page::serves(uri.path()) {
        return Ok(());
    }
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, given)| given.trim().to_owned());
    let given = bearer.or_else(|| token_of_query(uri.query().unwrap_or_default()));
    match given {
        Some(given) if same(given.as_bytes(), token.as_bytes()) => Ok(()),
        _ => Err(HttpError::Unauthorized),
    }
}

fn token_of_query(query: &str) -> Option<String> {
    super::query::pairs(query).into_iter().find(|(name, _)| name == "token").map(|(_, value)| value)
}

/// Equality in time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(uri: &str, authorization: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        check(Some("s3cret+"), &uri.parse().unwrap(), &headers).is_ok()
    }

    #[test]
    fn the_token_is_taken_from_the_header_or_the_query() {
        assert!(ask("/generate?prompt=a", Some("Bearer s3cret+")));
        assert!(ask("/generate?prompt=a", Some("bearer s3cret+")));
        assert!(ask("/generate?prompt=a&token=s3cret%2B", None));
    }

    #[test]
    fn without_the_right_token_only_probes_pass() {
        assert!(!ask("/generate?prompt=a", None));
        assert!(!ask("/generate?token=wrong", None));
        assert!(!ask("/v1/streams", Some("Basic s3cret+")));
        assert!(!ask("/metrics", None));
        assert!(ask("/healthz", None));
        assert!(ask("/readyz", None));
    }
}
