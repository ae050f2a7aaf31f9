//! Wall-clock times in words: RFC 3339 in UTC, to the millisecond.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64)
}

/// The moment so many microseconds after the beginning of 1970.
pub(super) fn moment(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// `2026-11-28T20:15:00.250Z`; a time that no calendar has is its beginning.
pub fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Reads a moment since 1970, with or without a fraction, in any zone; `None` if it is none.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let time: Timestamp = text.parse().ok()?;
    (time >= Timestamp::UNIX_EPOCH).then(|| time.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_moment_is_written_and_read_in_any_zone() {
        let time = moment(1_795_896_900_250_000);
        assert_eq!(rfc3339(time), "2026-11-28T20:15:00.250Z");
        for text in ["2026-11-28T20:15:00.25Z", "2026-11-28T21:15:00.250+01:00", "2026-11-28 15:45:00.250000-04:30"] {
            assert_eq!(parse_rfc3339(text).unwrap(), time, "{text}");
        }
        assert_eq!(rfc3339(parse_rfc3339("2028-02-29T23:59:59Z").unwrap()), "2028-02-29T23:59:59.000Z");
        for text in ["", "now", "2026-11-28", "2026-13-01T00:00:00Z", "2026-11-28T20:15:00", "2026-11-28T20:15:00+1"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
