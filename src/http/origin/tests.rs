//! Requests as browsers and programs send them, and what becomes of each.

#![allow(clippy::unwrap_used)]
use warp::http::HeaderValue;

use super::*;

fn origins(allowed: &[&str], names: &[&str]) -> Origins {
    Origins {
        allowed: allowed.iter().map(|one| one.parse().unwrap()).collect(),
        names: names.iter().map(|one| one.parse().unwrap()).collect(),
    }
}

/// What becomes of a request: `r` readable, `c` with credentials, `-` taken but not readable,
/// `x` refused.
fn ask(known: &Origins, method: &str, host: &str, origin: Option<&str>, headers: &[(&str, &str)]) -> char {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    if let Some(origin) = origin {
        map.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
    }
    let address = "127.0.0.1".parse().unwrap();
    let client = Client { address, proxy: map.contains_key("via-proxy").then_some(address) };
    let visit = Visit {
        method: &method.parse().unwrap(),
        headers: &map,
        client: &client,
        hosts: &[host.to_owned()],
        of_original: map.contains_key("original"),
        of_sockets: map.contains_key("sockets"),
    };
    match known.check(&visit, map.contains_key("token")) {
        Ok(Reading::No) => '-',
        Ok(Reading::Page) => 'r',
        Ok(Reading::PageWithCredentials) => 'c',
        Err(_) => 'x',
    }
}

#[test]
fn names_that_can_be_pointed_here_by_strangers_must_be_known() {
    let known = origins(&[], &["https://radio.example:8443/", "*.cast.example"]);
    for host in [
        "127.0.0.1:8765",
        "localhost",
        "LOCALHOST:1",
        "localhost.:80",
        "a.localhost",
        "[::1]:8765",
        "[::ffff:127.0.0.1]",
        "203.0.113.4",
        "continuo:8765",
        "box.local",
        "svc.ns.svc.cluster.local:80",
        "",
        "radio.example",
        "Radio.Example:1",
        "a.cast.example",
    ] {
        assert_eq!(ask(&known, "GET", host, None, &[]), '-', "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "127.0.0.1@evil.example",
        "evillocal.example",
        "cast.example",
        "xradio.example",
        "evil.example:80:90",
        "a b.c",
    ] {
        assert_eq!(ask(&known, "GET", host, None, &[]), 'x', "{host}");
        assert_eq!(ask(&known, "GET", host, None, &[("token", "")]), '-', "{host}");
    }
    assert_eq!(ask(&origins(&[], &["*"]), "GET", "any.example", None, &[]), '-');
    assert_eq!(ask(&origins(&[], &["*"]), "POST", "any.example", Some("https://evil.example"), &[]), 'x');
}

#[test]
fn other_pages_change_nothing_and_read_nothing() {
    let known = origins(&["https://friend.example"], &["radio.example"]);
    let here = "127.0.0.1:8765";
    for foreign in ["https://evil.example", "http://127.0.0.1:3000", "http://127.0.0.1", "null", "file://", "x"] {
        assert_eq!(ask(&known, "GET", here, Some(foreign), &[]), '-', "{foreign}");
        for (method, headers) in [
            ("POST", [].as_slice()),
            ("PATCH", &[]),
            ("DELETE", &[]),
            ("OPTIONS", &[]),
            ("GET", &[("upgrade", "WebSocket")]),
            ("GET", &[("sockets", "")]),
            ("POST", &[("sec-fetch-site", "cross-site")]),
            ("POST", &[("sec-fetch-site", "same-site")]),
            // Nobody vouches for this header.
            ("POST", &[("x-forwarded-host", "evil.example")]),
        ] {
            assert_eq!(ask(&known, method, here, Some(foreign), headers), 'x', "{method} {foreign}");
        }
    }
    assert_eq!(ask(&known, "POST", here, None, &[]), '-');
    assert_eq!(ask(&known, "POST", here, Some("https://evil.example"), &[("token", "")]), 'r');
}

#[test]
fn own_and_allowed_pages_may_do_everything() {
    let known = origins(&["https://Friend.example/"], &["radio.example"]);
    for (host, origin, headers, is) in [
        ("127.0.0.1:8765", "http://127.0.0.1:8765", [].as_slice(), 'r'),
        ("[::1]:8765", "http://[::1]:8765", &[], 'r'),
        ("localhost", "http://localhost", &[], 'r'),
        ("localhost:443", "https://localhost", &[], 'r'),
        ("127.0.0.1:8765", "https://radio.example", &[], 'r'),
        ("127.0.0.1:8765", "https://radio.example:8443", &[], 'r'),
        ("127.0.0.1:8765", "https://cast.example", &[("via-proxy", ""), ("x-forwarded-host", "cast.example")], 'r'),
        ("127.0.0.1:8765", "https://cast.example", &[("sec-fetch-site", "same-origin")], 'r'),
        ("127.0.0.1:8765", "https://friend.example", &[], 'c'),
    ] {
        for (method, more) in [("POST", [].as_slice()), ("GET", &[("upgrade", "websocket")])] {
            let headers = [headers, more].concat();
            assert_eq!(ask(&known, method, host, Some(origin), &headers), is, "{method} {host} {origin}");
        }
    }
    assert_eq!(ask(&origins(&["*"], &[]), "POST", "localhost", Some("https://any.example"), &[]), 'r');
}

#[test]
fn pages_in_files_and_extensions_reach_the_originals_routes() {
    let known = Origins::default();
    for app in ["null", "file://", "chrome-extension://abcdef", "capacitor://localhost"] {
        for more in [("original", ""), ("sockets", "")] {
            let is = if more.0 == "original" { 'r' } else { 'x' };
            assert_eq!(ask(&known, "POST", "localhost", Some(app), &[more]), is, "{app} {more:?}");
        }
    }
    assert_eq!(ask(&known, "POST", "localhost", Some("https://evil.example"), &[("original", "")]), 'x');
}
