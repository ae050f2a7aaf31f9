//! Wall-clock times in words: RFC 3339 in UTC, to the millisecond.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64)
}

/// The moment so many microseconds after the beginning of 1970.
pub(super) fn moment(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// `2026-11-28T20:15:00.250Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let micros = micros(time);
    let (seconds, millis) = (micros / 1_000_000, micros / 1000 % 1000);
    let (days, rest) = (seconds / DAY, seconds % DAY);
    // Howard Hinnant's `civil_from_days`, for dates after 1970.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads a moment of this or a later century, with or without a fraction, in any zone; `None` if it is none.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let mark = |at: usize, marks: &str| text.get(at..=at).is_some_and(|mark| marks.contains(mark));
    let marks = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    if !marks.into_iter().all(|(at, known)| mark(at, known)) {
        return None;
    }
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let within = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !within || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let known = fraction.get(..digits.min(6))?;
        micros = known.parse::<u64>().ok()? * 10u64.pow(6 - known.len() as u32);
        rest = fraction.get(digits..)?;
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('+') { 1 } else { -1 };
            let digits = rest.strip_prefix(['+', '-'])?;
            let (hours, minutes) = (digits.get(..2)?.parse::<i64>().ok()?, digits.get(3..)?.parse::<i64>().ok()?);
            (digits.get(2..3)? == ":" && hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))?
        }
    };
    // `days_from_civil`, of the same author.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_era = (y % 400) * 365 + (y % 400) / 4 - (y % 400) / 100 + (153 * m + 2) / 5 + day - 1;
    let days = (y / 400 * 146_097 + of_era).checked_sub(719_468)?;
    let seconds = (days * DAY + hour * 3600 + minute * 60 + second) as i64 - 60 * offset;
    Some(moment(u64::try_from(seconds).ok()? * 1_000_000 + micros))
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
