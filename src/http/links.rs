//! The addresses that the server gives out.
//!
//! Each is a path without scheme and host, so it is right under whatever name the server was
//! reached. A proxy that serves it below a path and takes that path away says so in
//! `X-Forwarded-Prefix`; from a trusted one it is put back.

use std::sync::Arc;

use warp::Filter;
use warp::http::{HeaderMap, HeaderName};

use super::client::Client;

const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Bytes of a prefix at most.
const LONGEST: usize = 256;

/// Makes the addresses of one request; in every request's extensions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Links(Arc<str>);

impl Links {
    /// What a request's client sees.
    pub fn of(client: &Client, headers: &HeaderMap) -> Self {
        let told = client.proxy.and_then(|_| prefix(headers));
        Self(told.unwrap_or_default().into())
    }

    /// Addresses below this path.
    pub fn below(prefix: &str) -> Self {
        Self(prefix.into())
    }

    /// Where the client finds `path`, which begins with a slash.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

/// The path that proxies took away: the first of several is the outermost. What is no path is no
/// prefix.
fn prefix(headers: &HeaderMap) -> Option<String> {
    let mut whole = String::new();
    for value in headers.get_all(PREFIX) {
        for part in value.to_str().ok()?.split(',') {
            for segment in part.trim().trim_matches('/').split('/') {
                match segment {
                    "" if part.trim().trim_matches('/').is_empty() => {}
                    "" | "." | ".." => return None,
                    segment if segment.bytes().all(is_plain) => whole.extend(["/", segment]),
                    _ => return None,
                }
            }
        }
    }
    (whole.len() <= LONGEST).then_some(whole)
}

/// Characters of a path's segment (RFC 3986) that mean nothing in JSON or HTML.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$()*+;=:@".contains(&byte)
}

/// The addresses for a request that came through the front.
pub(super) fn of_request() -> impl Filter<Extract = (Links,), Error = warp::Rejection> + Copy {
    warp::ext::get::<Links>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn link(proxy: bool, told: &[&str]) -> String {
        let address = "127.0.0.1".parse().unwrap();
        let client = Client { address, proxy: proxy.then_some(address) };
        let mut headers = HeaderMap::new();
        for value in told {
            headers.append(PREFIX, value.parse().unwrap());
        }
        Links::of(&client, &headers).to("/v1/clips/x")
    }

    #[test]
    fn the_prefix_of_a_trusted_proxy_is_put_back() {
        for (told, is) in [
            (["/music"].as_slice(), "/music/v1/clips/x"),
            (&["/music/"], "/music/v1/clips/x"),
            (&["music"], "/music/v1/clips/x"),
            (&["/_/musicgen-stream"], "/_/musicgen-stream/v1/clips/x"),
            (&["/a, /b/"], "/a/b/v1/clips/x"),
            (&["/a", "/b"], "/a/b/v1/clips/x"),
            (&["/"], "/v1/clips/x"),
            (&[""], "/v1/clips/x"),
            (&[], "/v1/clips/x"),
        ] {
            assert_eq!(link(true, told), is, "{told:?}");
        }
        assert_eq!(link(false, &["/music"]), "/v1/clips/x");
    }

    #[test]
    fn what_is_no_path_is_no_prefix() {
        let long = format!("/{}", "a".repeat(LONGEST));
        for told in ["//evil.example", "/\\evil.example", "https://evil.example", "/a/../b", "/a//b", "/<b>", "/a\"b"]
            .into_iter()
            .chain([long.as_str()])
        {
            let link = link(true, &[told]);
            assert!(!link.starts_with("//") && !link.contains(['\\', '<', '"']) && !link.contains(".."), "{link}");
            if told != "//evil.example" {
                assert_eq!(link, "/v1/clips/x", "{told}");
            }
        }
    }
}
