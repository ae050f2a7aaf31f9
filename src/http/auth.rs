//! Who may do what: a bearer token for everything, tokens with scopes, signed addresses for
//! listeners.
//!
//! `<audio>` elements and browsers' WebSockets cannot set headers, so `?token=` counts too.

mod need;
mod signed;
mod token;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Request};

use self::need::Need;
use self::signed::Signature;
pub use self::signed::SigningKey;
pub use self::token::{Scope, Token};
use super::query::pairs;
use super::{App, HttpError, ops, page};

/// Parameters that say who asks; they may stand in every query.
pub(super) const PARAMETERS: [&str; 3] = ["token", "expires", "signature"];

/// What the server asks of whoever comes. Without a token of either kind everybody may do
/// everything.
#[derive(Default)]
pub struct Access {
    /// A token for everything.
    pub token: Option<String>,
    /// Tokens with scopes.
    pub tokens: Vec<Arc<Token>>,
    /// What listeners' addresses are signed with.
    pub signing: Option<SigningKey>,
}

/// What whoever sent a request may do; in every request's extensions.
#[derive(Debug, Clone)]
pub(super) enum Grant {
    /// Everything.
    All,
    /// What a token is good for.
    Token(Arc<Token>),
    /// Hear what an address is signed for.
    Signed,
}

/// A grant as one node tells another of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Granted {
    All,
    Token { name: String, scopes: Vec<Scope>, stations: Option<Vec<String>> },
    Signed,
}

impl Granted {
    pub fn of(grant: &Grant) -> Self {
        match grant {
            Grant::All => Self::All,
            Grant::Token(token) => token.granted(),
            Grant::Signed => Self::Signed,
        }
    }

    pub fn grant(self) -> Grant {
        match self {
            Self::All => Grant::All,
            Self::Token { name, scopes, stations } => Grant::Token(Arc::new(Token::elsewhere(name, scopes, stations))),
            Self::Signed => Grant::Signed,
        }
    }
}

impl Grant {
    /// Whether it is good for this, at a station or stream with a name; without one for the whole
    /// server.
    ///
    /// # Errors
    /// [`HttpError::Forbidden`].
    pub fn check(&self, scope: Scope, station: Option<&str>) -> Result<(), HttpError> {
        self.check_scope(scope)?;
        match self {
            Self::Token(token) if !token.covers(station) => Err(forbidden(token, scope)),
            _ => Ok(()),
        }
    }

    /// Whether it may hear the station or stream of this name.
    pub fn hears(&self, station: Option<&str>) -> bool {
        self.check(Scope::Listen, station).is_ok()
    }

    /// Whether it is good for this somewhere.
    ///
    /// # Errors
    /// [`HttpError::Forbidden`].
    fn check_scope(&self, scope: Scope) -> Result<(), HttpError> {
        match self {
            Self::Token(token) if !token.has(scope) => Err(forbidden(token, scope)),
            Self::Signed if scope != Scope::Listen => {
                Err(HttpError::Forbidden("A signed address is for listening; send a token for more.".into()))
            }
            _ => Ok(()),
        }
    }
}

fn forbidden(token: &Token, scope: Scope) -> HttpError {
    HttpError::Forbidden(format!("This is for a token with `{scope}`; that of {} is for {}.", token.name, token.says()))
}

impl Access {
    /// Whether anything is asked of whoever comes.
    pub fn is_guarded(&self) -> bool {
        self.token.is_some() || !self.tokens.is_empty()
    }

    /// Lets a request pass that may do what it asks for. `of_original`: it is for the routes of an
    /// original alone.
    ///
    /// # Errors
    /// [`HttpError::Unauthorized`] without a token that is known, [`HttpError::Forbidden`] when it
    /// is not good for this.
    pub(super) fn check<B>(&self, request: &Request<B>, of_original: bool, app: &App) -> Result<Grant, HttpError> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if !self.is_guarded() || ops::is_probe(path) || page::serves(path) {
            return Ok(Grant::All);
        }
        let need = Need::of(of_original, request.method(), path, query);
        let given = bearer(request.headers()).or_else(|| of_query(query));
        match (given, Signature::of(query), &self.signing) {
            (Some(given), ..) => {
                let grant = self.grant(&given).ok_or(HttpError::Unauthorized)?;
                need.check(&grant, app)?;
                Ok(grant)
            }
            (None, Some(signature), Some(key)) => {
                Grant::Signed.check_scope(need.scope)?;
                signature.check(key, need.names(app).iter().map(String::as_str))?;
                Ok(Grant::Signed)
            }
            _ => Err(HttpError::Unauthorized),
        }
    }

    fn grant(&self, given: &str) -> Option<Grant> {
        if self.token.as_ref().is_some_and(|token| same(given.as_bytes(), token.as_bytes())) {
            return Some(Grant::All);
        }
        self.tokens.iter().find(|token| token.is(given)).map(|token| Grant::Token(Arc::clone(token)))
    }
}

/// The grant of a request that came through the front.
pub(super) fn of_request() -> impl Filter<Extract = (Grant,), Error = warp::Rejection> + Copy {
    warp::ext::get::<Grant>()
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (_, given) = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))?;
    Some(given.trim().to_owned())
}

fn of_query(query: &str) -> Option<String> {
    pairs(query).into_iter().find(|(name, _)| name == "token").map(|(_, value)| value)
}

/// Equality in time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}
