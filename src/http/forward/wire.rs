//! A request and a response as nodes tell each other of them.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use hyper::Request;
use serde::{Deserialize, Serialize};
use warp::http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request, response};
use warp::reply::Response;

use crate::http::auth::{Grant, Granted};
use crate::http::client::Client;
use crate::http::connection::Connection;
use crate::http::links::Links;
use crate::http::{HttpError, Surface};
use crate::studio::SessionId;

/// What is about a connection or was made use of already.
const LEFT_OUT: [HeaderName; 10] = [
    AUTHORIZATION,
    CONNECTION,
    EXPECT,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

type Headers = Vec<(String, String)>;

/// A request.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::http) struct Asked {
    method: String,
    /// Path and query.
    target: String,
    headers: Headers,
    /// Whose it is.
    client: IpAddr,
    proxy: Option<IpAddr>,
    /// Where its client sees our addresses.
    prefix: String,
    /// What it may do.
    grant: Granted,
    /// The original whose client asks, behind its prefix or on its port.
    #[serde(default)]
    surface: Option<String>,
    /// The session that it is about.
    #[serde(default)]
    session: Option<String>,
}

impl Asked {
    /// Of a request that came through the front.
    pub fn of(parts: &request::Parts) -> Self {
        let (client, extensions) = (parts.extensions.get::<Client>(), &parts.extensions);
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        // Tokens stay where they were asked for.
        Self {
            method: parts.method.to_string(),
            target: target.to_owned(),
            headers: written(&parts.headers),
            client: client.map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.address),
            proxy: client.and_then(|client| client.proxy),
            prefix: extensions.get::<Links>().map(|links| links.to("")).unwrap_or_default(),
            grant: extensions.get::<Grant>().map_or(Granted::Signed, Granted::of),
            surface: None,
            session: None,
        }
    }

    /// Of this node itself.
    pub fn ours(target: &str) -> Self {
        Self::of(&hyper::Request::new(()).into_parts().0).to(target)
    }

    /// Of this node for one of its clients.
    pub fn on_behalf(client: &Client, method: Method, target: &str) -> Self {
        let mut request = Request::new(());
        *request.method_mut() = method;
        request.extensions_mut().insert(client.clone());
        Self::of(&request.into_parts().0).to(target)
    }

    /// By somebody who may do this.
    pub fn by(self, grant: &Grant) -> Self {
        Self { grant: Granted::of(grant), ..self }
    }

    /// About another path and query.
    pub fn to(self, target: &str) -> Self {
        Self { target: target.to_owned(), ..self }
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// On the surface of an original alone.
    pub fn on(self, surface: Option<&Surface>) -> Self {
        Self { surface: surface.map(|surface| surface.name.to_owned()), ..self }
    }

    /// About a session, which whoever answers has or takes up.
    pub fn about(self, session: Option<&SessionId>) -> Self {
        Self { session: session.map(ToString::to_string), ..self }
    }

    pub fn surface(&self) -> Option<&str> {
        self.surface.as_deref()
    }

    pub fn session(&self) -> Option<SessionId> {
        SessionId::parse(self.session.as_deref()?).ok()
    }

    pub fn write(&self) -> Bytes {
        write(self)
    }

    /// # Errors
    /// [`HttpError::BadRequest`] of a node that says it otherwise.
    pub fn read(head: &[u8]) -> Result<Self, HttpError> {
        read(head)
    }

    pub fn method(&self) -> &str {
        &self.method
    }

    pub fn address(&self) -> IpAddr {
        self.client
    }

    /// All of it but the body.
    pub fn parts(&self) -> request::Parts {
        self.request(crate::http::forward::connection(self), ()).into_parts().0
    }

    /// As it would have come through our own front.
    pub fn request<B>(&self, connection: Connection, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.parse().unwrap_or(Method::GET);
        *request.uri_mut() = self.target.parse().unwrap_or_default();
        *request.headers_mut() = parsed(&self.headers);
        let extensions = request.extensions_mut();
        extensions.insert(connection);
        extensions.insert(Links::below(&self.prefix));
        extensions.insert(Client { address: self.client, proxy: self.proxy });
        extensions.insert(self.grant.clone().grant());
        request
    }
}

/// The head of a response.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    status: u16,
    headers: Headers,
}

impl Told {
    pub fn of(parts: &response::Parts) -> Self {
        Self { status: parts.status.as_u16(), headers: written(&parts.headers) }
    }

    pub fn write(&self) -> Bytes {
        write(self)
    }

    /// # Errors
    /// [`HttpError::BadRequest`] of a node that says it otherwise.
    pub fn read(head: &[u8]) -> Result<Self, HttpError> {
        read(head)
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// Says the same of a response here; gives its status.
    pub fn describe(self, response: &mut Response) -> StatusCode {
        *response.status_mut() = self.status();
        *response.headers_mut() = parsed(&self.headers);
        response.status()
    }
}

/// Another node says it otherwise.
pub(super) fn other_version() -> HttpError {
    HttpError::BadRequest("The nodes of the cluster do not understand each other: run one version on all.".into())
}

fn write(head: &impl Serialize) -> Bytes {
    // Texts and numbers can always be written.
    serde_json::to_vec(head).unwrap_or_default().into()
}

fn read<'a, T: Deserialize<'a>>(head: &'a [u8]) -> Result<T, HttpError> {
    serde_json::from_slice(head).map_err(|_| other_version())
}

/// Those that are text: others say nothing to our routes.
fn written(headers: &HeaderMap) -> Headers {
    let passed = headers.iter().filter(|(name, _)| !LEFT_OUT.contains(name));
    passed.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect()
}

fn parsed(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_the_same_at_the_other_node_but_for_its_token() {
        let mut request = Request::new(());
        *request.method_mut() = Method::PATCH;
        *request.uri_mut() = "/v1/streams/x?wait=3".parse().unwrap();
        for (name, value) in [("authorization", "Bearer secret"), ("range", "bytes=0-"), ("host", "here")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let client = Client { address: "203.0.113.7".parse().unwrap(), proxy: Some("10.0.0.1".parse().unwrap()) };
        request.extensions_mut().insert(client.clone());
        request.extensions_mut().insert(Links::below("/music"));
        request.extensions_mut().insert(Grant::All);
        let asked = Asked::of(&request.into_parts().0).write();
        assert!(!String::from_utf8_lossy(&asked).contains("secret"));
        let asked = Asked::read(&asked).unwrap();
        let again = asked.request(crate::http::forward::connection(&asked), Bytes::from_static(b"body"));
        assert_eq!((again.method(), again.uri().to_string().as_str()), (&Method::PATCH, "/v1/streams/x?wait=3"));
        assert_eq!(again.headers().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["range"]);
        assert_eq!(again.extensions().get::<Client>(), Some(&client));
        assert_eq!(again.extensions().get::<Links>().unwrap().to("/x"), "/music/x");
        assert!(matches!(again.extensions().get::<Grant>(), Some(Grant::All)));
        assert!(Asked::read(b"{}").is_err());
    }
}
