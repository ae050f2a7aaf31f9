//! Which pages may use a server that asks for no token.
//!
//! A browser says with `Origin` which page a request comes from and with `Host` under which name it
//! found the server. Pages of the server's own origin and of those that are allowed may do
//! everything. Other pages may change nothing, open no socket and read no answer; what needs no
//! `Origin`, an audio element say, plays. A name that is not the server's own is refused
//! altogether: a page could have had its own name pointed here to look like ours. Programs send no
//! `Origin` and are not concerned. With a token all this is left to the token, which other pages do
//! not have.
//!
//! The originals' clients are also pages in files (`null`, `file://`) and in browser extensions. On
//! their routes, and on theirs alone, these may do everything too.

use std::net::IpAddr;
use std::str::FromStr;

use warp::http::header::{HOST, ORIGIN, UPGRADE};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderName, Method, Request};

use super::HttpError;
use super::client::Client;

/// No page can set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Suffixes that no name server of the public answers for (RFC 6761, RFC 6762, RFC 8375, ICANN's
/// .internal).
const LOCAL: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Pages and names that are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origins {
    /// Origins of other sites whose pages may do everything.
    pub allowed: Vec<AllowedOrigin>,
    /// Names of this server.
    pub names: Vec<PublicName>,
}

/// `https://radio.example`, `null`, or `*` for all.
#[derive(Debug, Clone, PartialEq)]
pub struct AllowedOrigin(String);

impl FromStr for AllowedOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
        let is_origin = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.contains('/'));
        let fits = is_origin || text == "*" || text == "null" || text == "file:";
        let text = if text == "file:" { "file://".to_owned() } else { text };
        if fits {
            Ok(Self(text))
        } else {
            Err("send an origin as browsers write it, such as https://radio.example, or *")
        }
    }
}

/// `radio.example`, `*.radio.example` for what is below it, or `*` for any name. A scheme, port or
/// path is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct PublicName(String);

impl FromStr for PublicName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let text = text.split_once('/').map_or(text, |(host, _)| host);
        let (host, _) = host_and_port(text).ok_or("send a host name, such as radio.example")?;
        Ok(Self(host))
    }
}

impl PublicName {
    fn covers(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => self.0 == host,
        }
    }
}

/// What a page may know of the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reading {
    /// No page asked, or one that may not read it.
    No,
    /// The page that asked.
    Page,
    /// The page that asked, also when it sends along what its browser knows of us (a proxy's
    /// cookie).
    PageWithCredentials,
}

/// A request as far as it matters here.
pub(super) struct Visit<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub client: &'a Client,
    /// Hosts by which the server was addressed.
    pub hosts: &'a [String],
    /// It is for a route of one of the originals.
    pub of_original: bool,
    /// Any request there changes something (Socket.IO).
    pub of_sockets: bool,
}

/// The hosts of a request: of its target, else of its headers. None of them is a client of
/// HTTP/1.0.
pub(super) fn hosts<B>(request: &Request<B>) -> Vec<String> {
    match request.uri().authority() {
        Some(authority) if request.method() != Method::CONNECT => vec![authority.as_str().to_owned()],
        _ => {
            let hosts = request.headers().get_all(HOST).iter();
            hosts.map(|host| String::from_utf8_lossy(host.as_bytes()).trim().to_owned()).collect()
        }
    }
}

impl Origins {
    /// Whether the request is taken, and who may read the answer.
    ///
    /// # Errors
    /// [`HttpError::UnknownName`], [`HttpError::ForeignPage`].
    pub(super) fn check(&self, visit: &Visit<'_>, has_token: bool) -> Result<Reading, HttpError> {
        let mut origins = visit.headers.get_all(ORIGIN).iter();
        let origin = origins.next().map(|origin| String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase());
        if !has_token && let Some(host) = visit.hosts.iter().find(|host| !self.knows(host)) {
            return Err(HttpError::UnknownName(brief(host)));
        }
        let Some(origin) = origin else { return Ok(Reading::No) };
        if self.allowed.iter().any(|allowed| allowed.0 == origin) {
            return Ok(Reading::PageWithCredentials);
        }
        let is_allowed = self.allowed.iter().any(|allowed| allowed.0 == "*");
        let says = |name, value: &str| {
            let found = visit.headers.get(name).and_then(|found| found.to_str().ok());
            found.is_some_and(|found| found.eq_ignore_ascii_case(value))
        };
        // Browsers say this of secure pages themselves, whatever host a proxy makes of theirs.
        let is_own = || says(FETCH_SITE, "same-origin") || self.is_own(&origin, visit);
        if has_token || is_allowed || is_own() || (visit.of_original && is_app(&origin)) {
            return Ok(Reading::Page);
        }
        // A preflight asks about the request that would follow, and would only be asked for what
        // matters.
        let only_reads = [Method::GET, Method::HEAD].contains(visit.method) && !says(UPGRADE, "websocket");
        match only_reads && !visit.of_sockets {
            true => Ok(Reading::No),
            false => Err(HttpError::ForeignPage(brief(&origin))),
        }
    }

    /// Whether a name is the server's own. Addresses and names without a dot are: no page can have
    /// been served under one that a stranger has pointed here.
    fn knows(&self, host: &str) -> bool {
        let Some((host, _)) = host_and_port(host) else { return false };
        let local = |end: &str| host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        host.parse::<IpAddr>().is_ok()
            || !host.contains('.')
            || LOCAL.into_iter().any(local)
            || self.names.iter().any(|name| name.covers(&host))
    }

    /// Whether the page was served by us: under the host that it asks, the one that its proxy was
    /// asked for, or a name of ours.
    fn is_own(&self, origin: &str, visit: &Visit<'_>) -> bool {
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Some((host, port)) = host_and_port(rest) else { return false };
        if self.names.iter().any(|name| name.0 != "*" && name.covers(&host)) {
            return true;
        }
        let forwarded = visit.headers.get_all(FORWARDED_HOST).iter().filter(|_| visit.client.proxy.is_some());
        let forwarded = forwarded.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let mut hosts = visit.hosts.iter().map(String::as_str).chain(forwarded.map(str::trim));
        hosts.any(|ours| {
            let ours = host_and_port(ours);
            ours.is_some_and(|(is, at)| is == host && at.unwrap_or(usual) == port.unwrap_or(usual))
        })
    }
}

/// Pages that no site serves: in files, sandboxes, browser extensions and apps' own shells.
fn is_app(origin: &str) -> bool {
    origin == "null" || origin.split_once("://").is_some_and(|(scheme, _)| !["http", "https"].contains(&scheme))
}

/// A host in lower case, without brackets and a final dot, and its port; an empty host (HTTP/1.1
/// allows it) is none.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    if text.is_empty() {
        return Some((String::new(), None));
    }
    if text.contains('@') {
        return None;
    }
    let authority: Authority = text.parse().ok()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    // A port that is none, as in `host:port`, would be lost.
    let port = match text.rsplit_once(':') {
        Some((_, port)) if !text.ends_with(']') => Some(port.parse().ok()?),
        _ => None,
    };
    Some((host.trim_end_matches('.').to_ascii_lowercase(), port))
}

/// Enough of a client's text to recognise it in an error.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests;
