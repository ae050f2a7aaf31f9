//! Signed addresses: whoever has one hears one station until a given moment, without a token.
//!
//! `expires` and `signature` in the query are the same for every path of the station, so that a
//! playlist can put them on all that it names. The signature is HMAC-SHA256, in hexadecimal digits,
//! of `EXPIRES STATION`: whatever has the key can make one, a shop's own pages too.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac::{HMAC_SHA256, Key, sign, verify};

use crate::http::HttpError;
use crate::http::query::pairs;

/// Bytes of a key at least.
const SHORTEST: usize = 16;

/// The operator's secret for signing.
#[derive(Clone)]
pub struct SigningKey(Key);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
}

impl FromStr for SigningKey {
    type Err = String;

    fn from_str(secret: &str) -> Result<Self, String> {
        match secret.len() {
            SHORTEST.. => Ok(Self(Key::new(HMAC_SHA256, secret.as_bytes()))),
            _ => Err(format!("it has at least {SHORTEST} characters that nobody can guess")),
        }
    }
}

impl SigningKey {
    /// The query that opens a station, or a stream by its id, for some time from now on.
    pub fn sign(&self, station: &str, time: Duration) -> String {
        let expires = now().saturating_add(time.as_secs());
        let tag = sign(&self.0, message(station, expires).as_bytes());
        let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("expires={expires}&signature={signature}")
    }

    fn opens(&self, station: &str, signature: &Signature) -> bool {
        verify(&self.0, message(station, signature.expires).as_bytes(), &signature.tag).is_ok()
    }
}

fn message(station: &str, expires: u64) -> String {
    format!("{expires} {station}")
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What a query says of itself.
pub(super) struct Signature {
    expires: u64,
    tag: Vec<u8>,
}

impl Signature {
    /// That of a query, if it has one.
    pub fn of(query: &str) -> Option<Self> {
        let pairs = pairs(query);
        let value = |name: &str| pairs.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str());
        // What cannot be read opens nothing.
        let digits = value("signature")?;
        let tag = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
        let expires = value("expires").and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        Some(Self { expires, tag: Option::unwrap_or_default(tag) })
    }

    /// Lets it pass if it opens any of the names under which something is known, and has not
    /// expired.
    ///
    /// # Errors
    /// [`HttpError::Forbidden`].
    pub fn check<'a>(&self, key: &SigningKey, names: impl IntoIterator<Item = &'a str>) -> Result<(), HttpError> {
        if !names.into_iter().any(|name| key.opens(name, self)) {
            return Err(HttpError::Forbidden("This address is not signed for what it asks; ask for another.".into()));
        }
        match now() < self.expires {
            true => Ok(()),
            false => Err(HttpError::Forbidden("The time of this address is over; ask for a new one.".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_signature_opens_its_station_until_its_end() {
        let key: SigningKey = "0123456789abcdef".parse().unwrap();
        let check = |query: &str, name: &str| Signature::of(query).unwrap().check(&key, ["an-id", name]).is_ok();
        let query = key.sign("lofi", Duration::from_secs(60));
        assert!(check(&query, "lofi") && check(&format!("format=mp3&{query}&latency=low"), "lofi"));
        assert!(!check(&query, "dub") && check(&key.sign("an-id", Duration::from_secs(60)), "dub"));
        assert!(!check(&key.sign("lofi", Duration::ZERO), "lofi"), "it is over");
        let longer = query.replacen("expires=", "expires=9", 1);
        assert!(!check(&longer, "lofi"), "a longer time is not signed");
        for broken in ["signature=", "signature=zz&expires=99999999999", "signature=é", "signature=a"] {
            assert!(!check(broken, "lofi"), "{broken}");
        }
        assert!(Signature::of("format=mp3").is_none());
        let other: SigningKey = "fedcba9876543210".parse().unwrap();
        assert!(!check(&other.sign("lofi", Duration::from_secs(60)), "lofi"));
        assert!("short".parse::<SigningKey>().unwrap_err().contains("16 characters"));
    }

    #[test]
    fn others_can_sign_with_the_key() {
        // printf '%s' '99999999999 lofi' | openssl dgst -sha256 -hmac 0123456789abcdef
        let key: SigningKey = "0123456789abcdef".parse().unwrap();
        let openssl = "c212d5d734799b6917e84b50696fff82045a6cdfe280f2ae54dff7d45ae13643";
        let query = format!("expires=99999999999&signature={openssl}");
        Signature::of(&query).unwrap().check(&key, ["lofi"]).unwrap();
    }
}
