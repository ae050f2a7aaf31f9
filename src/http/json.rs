//! JSON as clients send it: with a byte order mark, in UTF-16 (some shells write it), or with half
//! of a character that JavaScript has two halves of. What cannot be read as a character becomes
//! U+FFFD; the rest is as it was.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// The body as JSON in UTF-8 that a strict parser takes, if it was JSON at all.
pub(super) fn clean(body: &[u8]) -> Cow<'_, [u8]> {
    let mut clean = match body {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        body => Cow::Borrowed(body),
    };
    if std::str::from_utf8(&clean).is_err() {
        clean = Cow::Owned(String::from_utf8_lossy(&clean).into_owned().into_bytes());
    }
    for at in lone_surrogates(&clean) {
        clean.to_mut()[at..at + 6].copy_from_slice(br"\ufffd");
    }
    clean
}

/// Bytes of memory that [`parse`] may take beside the body and what is made of it: what is not
/// UTF-8 is written anew, characters behind a backslash are copied, and a text that holds JSON
/// itself is so several times.
pub(super) fn room(body: &[u8]) -> u64 {
    let length = body.len() as u64;
    let rewritten = if std::str::from_utf8(body).is_ok() { 0 } else { 3 * length };
    let copied = if body.contains(&b'\\') { 2 * length } else { 0 };
    let nested = if first(body) == Some(b'"') { 4 * length } else { 0 };
    rewritten + copied + nested
}

/// Reads a body.
///
/// # Errors
/// Those of `serde_json`.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(&clean(body))
}

/// The first character of a body that is no white space, if it is one of ASCII.
pub(super) fn first(body: &[u8]) -> Option<u8> {
    clean(&body[..body.len().min(64)]).trim_ascii_start().first().copied()
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Cow<'_, [u8]> {
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair)).collect();
    Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
}

/// Where escapes are that name half of a character.
fn lone_surrogates(text: &[u8]) -> Vec<usize> {
    let mut lone = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(|&byte| byte == b'\\') {
        at += next;
        at += match escape(text, at) {
            Some(0xd800..=0xdbff) if matches!(escape(text, at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                lone.push(at);
                6
            }
            // Of two backslashes the second is no beginning.
            _ => 2,
        };
        if at >= text.len() {
            break;
        }
    }
    lone
}

/// The code of an escape with four digits at a place.
fn escape(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(br"\u")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn half_an_emoji_is_a_replacement_character() {
        for (sent, read) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\ude00b""#, "\u{fffd}b"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\uD83D\u0041""#, "\u{fffd}A"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\\ud83d""#, r"\ud83d"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
            (r#""\"\ud83d\"""#, "\"\u{fffd}\""),
        ] {
            assert_eq!(parse::<Value>(sent.as_bytes()).unwrap(), json!(read), "{sent}");
        }
        // As bytes, and cut off.
        assert_eq!(parse::<Value>(b"\"a\xf0\x9f\"").unwrap(), json!("a\u{fffd}"));
        for broken in [r#""\ud83"#, r#""\"#, r#""\ud83d"#, "\\"] {
            assert!(parse::<Value>(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn only_what_is_copied_takes_room() {
        assert_eq!(room(br#"{"audio_data": "UklGRg=="}"#), 0);
        let [escaped, text] = [br#"{"a": "b\/"}"#.as_slice(), br#" "{}""#];
        assert_eq!((room(escaped), room(text)), (2 * escaped.len() as u64, 4 * text.len() as u64));
        // Every byte of noise becomes a character of three.
        let noise = [0xff; 100];
        assert!(clean(&noise).len() as u64 <= noise.len() as u64 + room(&noise));
        let utf16: Vec<u8> = "{\"\u{20ac}\"}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let utf16 = [&[0xfe, 0xff], &utf16[..]].concat();
        assert!(clean(&utf16).len() as u64 <= room(&utf16));
    }

    #[test]
    fn byte_order_marks_are_no_part_of_json() {
        let text = "{\"prompt\": \"caf\u{e9} \u{1f600}\"}";
        let wanted = json!({"prompt": "caf\u{e9} \u{1f600}"});
        let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            ['\u{feff}'].into_iter().chain(text.chars()).collect::<String>().encode_utf16().flat_map(unit).collect()
        };
        let bodies = [format!("\u{feff}{text}").into_bytes(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)];
        for body in bodies {
            assert_eq!(parse::<Value>(&body).unwrap(), wanted, "{body:?}");
            assert_eq!(first(&body), Some(b'{'));
        }
        assert_eq!(first(b"\xff\xfe\x92\x40\x00\x00"), Some(0xe4), "sound in MPEG is no JSON");
    }
}
