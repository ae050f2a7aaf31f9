//! Seeds by one rule on every route: a whole number from 0 to 2^64 - 1, in any spelling that has
//! this value (`7`, `7.0`, `1e9`, `"7"`), taken exactly. Nothing, null, an empty text and any
//! negative whole number stand for any seed.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::studio::random_seed;

/// A seed that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Seed {
    /// None was sent.
    #[default]
    Unsaid,
    /// Whichever.
    Any,
    Exact(u64),
}

impl Seed {
    /// The seed, if it matters which one.
    pub fn exact(self) -> Option<u64> {
        match self {
            Self::Exact(seed) => Some(seed),
            Self::Unsaid | Self::Any => None,
        }
    }

    /// The seed for a voice that has one already: `Any` is another.
    pub fn patch(self) -> Option<u64> {
        match self {
            Self::Unsaid => None,
            Self::Any => Some(random_seed()),
            Self::Exact(seed) => Some(seed),
        }
    }
}

/// What a text that is no seed gets to hear.
#[derive(Debug, PartialEq)]
pub(super) struct NoSeed;

impl fmt::Display for NoSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 to 18446744073709551615, or -1 for any")
    }
}

impl FromStr for Seed {
    type Err = NoSeed;

    fn from_str(text: &str) -> Result<Self, NoSeed> {
        let text = text.trim();
        if text.is_empty() || text == "null" {
            return Ok(Self::Any);
        }
        if let Ok(seed) = text.parse() {
            return Ok(Self::Exact(seed));
        }
        let (negative, number) = match text.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let whole = whole(number).ok_or(NoSeed)?;
        match (negative, whole) {
            (_, Some(0)) => Ok(Self::Exact(0)),
            (true, _) => Ok(Self::Any),
            (false, Some(seed)) => Ok(Self::Exact(seed)),
            (false, None) => Err(NoSeed),
        }
    }
}

/// The value of a decimal number without sign, digit by digit so that nothing is rounded: `None`
/// when it is no whole number, `Some(None)` when it is too large.
fn whole(text: &str) -> Option<Option<u64>> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: String = [before, after].concat();
    if digits.is_empty() || digits.len() > 400 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The number is `digits` times ten to this power.
    let mut power = exponent.checked_sub(after.len() as i32)?;
    while power < 0 && digits.ends_with('0') && digits.len() > 1 {
        digits.pop();
        power += 1;
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(Some(0));
    }
    if power < 0 {
        return None;
    }
    if digits.len() as i32 > 20 || power > 20 {
        return Some(None);
    }
    let seed = digits.parse::<u128>().ok()?.checked_mul(10u128.checked_pow(power as u32)?);
    Some(seed.and_then(|seed| u64::try_from(seed).ok()))
}

impl ToSchema for Seed {}

impl PartialSchema for Seed {
    fn schema() -> RefOr<Schema> {
        let spellings = [Type::Integer, Type::String, Type::Null];
        let described = ObjectBuilder::new().schema_type(SchemaType::from_iter(spellings)).description(Some(
            "A whole number from 0 to 18446744073709551615 in any spelling (7, 7.0, 1e9, \"7\"); nothing, null and any \
             negative number stand for any seed",
        ));
        described.into()
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Seed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&NoSeed, f)
            }

            fn visit_u64<E>(self, seed: u64) -> Result<Seed, E> {
                Ok(Seed::Exact(seed))
            }

            fn visit_i64<E>(self, seed: i64) -> Result<Seed, E> {
                Ok(u64::try_from(seed).map_or(Seed::Any, Seed::Exact))
            }

            fn visit_f64<E: Error>(self, seed: f64) -> Result<Seed, E> {
                // Its shortest spelling is what was sent, or rounds to the same.
                format!("{seed:?}").parse().map_err(|_| E::custom(format!("`seed` is {seed}; send {NoSeed}")))
            }

            fn visit_str<E: Error>(self, seed: &str) -> Result<Seed, E> {
                let brief: String = seed.chars().take(40).collect();
                seed.parse().map_err(|_| E::custom(format!("`seed` is `{brief}`; send {NoSeed}")))
            }

            fn visit_unit<E>(self) -> Result<Seed, E> {
                Ok(Seed::Unsaid)
            }

            fn visit_none<E>(self) -> Result<Seed, E> {
                Ok(Seed::Unsaid)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_spelling_of_a_whole_number_is_that_number() {
        for (text, seed) in [
            ("0", 0),
            ("-0", 0),
            ("7", 7),
            ("7.0", 7),
            ("+7", 7),
            ("007", 7),
            ("7.", 7),
            ("70e-1", 7),
            ("1e9", 1_000_000_000),
            ("1.5E3", 1500),
            ("9007199254740993", (1 << 53) + 1),
            ("9007199254740993.0", (1 << 53) + 1),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551615.000", u64::MAX),
            ("1e19", 10_000_000_000_000_000_000),
        ] {
            assert_eq!(text.parse::<Seed>(), Ok(Seed::Exact(seed)), "{text}");
            // A JSON number in a text, and as it is where JSON has it.
            assert_eq!(serde_json::from_value::<Seed>(text.into()).unwrap(), Seed::Exact(seed), "{text}");
            if let Ok(json) = serde_json::from_str::<serde_json::Value>(text)
                && seed < 1 << 53
            {
                assert_eq!(serde_json::from_value::<Seed>(json).unwrap(), Seed::Exact(seed), "{text}");
            }
        }
        for text in ["-1", "-1.0", "-5", "-1e300", "", " "] {
            assert_eq!(text.parse::<Seed>(), Ok(Seed::Any), "{text}");
        }
        assert_eq!(serde_json::from_str::<Seed>("null").unwrap(), Seed::Unsaid);
        assert_eq!(serde_json::from_str::<Seed>("18446744073709551615").unwrap(), Seed::Exact(u64::MAX));
    }

    #[test]
    fn what_is_no_whole_number_is_no_seed() {
        for text in [
            "7.5",
            "x",
            "1e-1",
            "18446744073709551616",
            "1e20",
            "1e400",
            "1e999999999999",
            "NaN",
            "inf",
            ".",
            "e5",
            "--1",
        ] {
            assert_eq!(text.parse::<Seed>(), Err(NoSeed), "{text}");
        }
        for json in ["7.5", "1e20", "true", "[7]", "{}", "\"x\""] {
            assert!(serde_json::from_str::<Seed>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn any_seed_is_one_that_javascript_counts_exactly() {
        for _ in 0..100 {
            assert!(Seed::Any.patch().unwrap() < 1 << 53);
        }
    }
}
