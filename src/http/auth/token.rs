//! Tokens: who has one may do what its scopes say. Only their hashes are kept.

use std::fmt::{self, Display, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_chacha::rand_core::{OsRng, TryRngCore};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::Granted;

/// How a drawn token begins, so that people and scanners for secrets know it.
const BEGINNING: &str = "continuo_";
/// How a hash begins.
const ALGORITHM: &str = "sha256:";

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Hear stations and streams, and see what they play.
    Listen,
    /// Change what they play.
    Steer,
    /// Begin and end streams; clips, sessions, transforms and loops, on the originals' routes too.
    Produce,
    /// Everything, with models and measurements.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Listen, Self::Steer, Self::Produce, Self::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Steer => "steer",
            Self::Produce => "produce",
            Self::Admin => "admin",
        }
    }
}

impl Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or("it is listen, steer, produce or admin")
    }
}

/// A token as the operator writes it down.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Token {
    /// Whose it is.
    pub name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
    /// The stations that it is for; `None` is the whole server.
    stations: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Written {
    name: String,
    hash: String,
    scopes: Vec<Scope>,
    #[serde(default)]
    stations: Option<Vec<String>>,
}

impl TryFrom<Written> for Token {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let hash = written.hash.strip_prefix(ALGORITHM).and_then(bytes);
        let hash = hash.ok_or("`hash` is what `continuo token` gives, sha256: and 64 digits")?;
        if written.scopes.is_empty() {
            return Err("`scopes` has at least one of listen, steer, produce and admin");
        }
        if written.stations.as_ref().is_some_and(Vec::is_empty) {
            return Err("`stations` names at least one; leave it out for all");
        }
        Ok(Self { name: written.name, hash, scopes: written.scopes, stations: written.stations })
    }
}

impl Token {
    /// A secret that nobody can guess.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn draw() -> Result<String, String> {
        let mut drawn = [0; 32];
        OsRng.try_fill_bytes(&mut drawn).map_err(|error| format!("The system gives no random numbers: {error}."))?;
        Ok(format!("{BEGINNING}{}", URL_SAFE_NO_PAD.encode(drawn)))
    }

    /// What is kept of a secret. It has 256 random bits, so that no slow hash is needed against
    /// guessing.
    pub fn hash(secret: &str) -> String {
        let digits = digest(&SHA256, secret.as_bytes()).as_ref().iter().fold(String::new(), |mut digits, byte| {
            let _ = write!(digits, "{byte:02x}");
            digits
        });
        format!("{ALGORITHM}{digits}")
    }

    /// What another node has seen the secret of.
    pub(super) fn elsewhere(name: String, scopes: Vec<Scope>, stations: Option<Vec<String>>) -> Self {
        Self { name, hash: [0; 32], scopes, stations }
    }

    pub(super) fn granted(&self) -> Granted {
        Granted::Token { name: self.name.clone(), scopes: self.scopes.clone(), stations: self.stations.clone() }
    }

    /// Whether this is the secret. Hashes are compared: how long that takes tells nothing of the
    /// secret.
    pub(super) fn is(&self, secret: &str) -> bool {
        digest(&SHA256, secret.as_bytes()).as_ref() == self.hash
    }

    pub(super) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it is for the station of this name; without a name for the whole server.
    pub(super) fn covers(&self, station: Option<&str>) -> bool {
        match (&self.stations, station) {
            (None, _) => true,
            (Some(stations), Some(name)) => stations.iter().any(|station| station == name),
            (Some(_), None) => false,
        }
    }

    /// What it is good for, in words.
    pub(super) fn says(&self) -> String {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.name()).collect();
        match &self.stations {
            None => scopes.join(", "),
            Some(stations) => format!("{} of {}", scopes.join(", "), stations.join(", ")),
        }
    }
}

fn bytes(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let pairs = digits.as_bytes().as_chunks::<2>();
    if pairs.0.len() != bytes.len() || !pairs.1.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs.0) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_secret_of_a_hash_is_the_token() {
        let secret = Token::draw().unwrap();
        assert!(secret.len() > 50 && secret != Token::draw().unwrap());
        let written = json!({"name": "a", "hash": Token::hash(&secret), "scopes": ["listen"]});
        let token: Token = serde_json::from_value(written).unwrap();
        assert!(token.is(&secret) && !token.is("other") && !token.is(&Token::hash(&secret)));
        // FIPS 180-2, B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Token::hash("abc"), abc);
    }

    #[test]
    fn a_token_without_a_hash_or_a_scope_is_refused() {
        let read = |hash: &str, scopes: &[&str], stations: Option<&[&str]>| {
            let written = json!({"name": "a", "hash": hash, "scopes": scopes, "stations": stations});
            serde_json::from_value::<Token>(written).map_err(|error| error.to_string())
        };
        let hash = Token::hash("x");
        assert!(read(&hash, &["listen"], Some(&["lofi"])).is_ok());
        assert!(read("s3cret", &["listen"], None).unwrap_err().contains("`hash`"));
        assert!(read(&hash[..70], &["listen"], None).unwrap_err().contains("`hash`"));
        assert!(read(&hash, &[], None).unwrap_err().contains("`scopes`"));
        assert!(read(&hash, &["hear"], None).unwrap_err().contains("unknown variant `hear`"));
        assert!(read(&hash, &["listen"], Some(&[])).unwrap_err().contains("`stations`"));
    }
}
