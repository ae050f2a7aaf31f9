//! Base64 as it arrives: sound on its way through JSON, forms, shells and other people's libraries.
//!
//! What can only mean one thing is taken: white space, a `data:` URL, the URL alphabet, missing
//! padding, spaces where a form decoder made them of plus signs. Anything else is refused in a
//! sentence: a character that is dropped shifts all bits behind it, and the sound behind it is
//! noise.

use ::base64::Engine as _;
use ::base64::alphabet::STANDARD;
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Padding is checked by hand, since some leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Letters that are decoded at once; whole groups of four.
const BLOCK: usize = 16 << 10;

/// The bytes that a text stands for.
///
/// # Errors
/// The end of a sentence, that begins with what the text is.
pub(super) fn decode(text: &str) -> Result<Bytes, String> {
    let text = content(text.trim_start_matches('\u{feff}'))?;
    let end = text.bytes().rposition(|byte| byte != b'=').map_or(0, |last| last + 1);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if text.bytes().take(end).all(plain) {
        let mut bytes = Vec::new();
        push(&text.as_bytes()[..end], &mut bytes)?;
        return Ok(bytes.into());
    }
    let (text, spaces_are_pluses) = spaces(text);
    let mut letters = Letters { bytes: text.as_bytes(), at: 0, spaces_are_pluses, padded: false };
    let (mut bytes, mut block) = (Vec::with_capacity(text.len() / 4 * 3), Vec::with_capacity(BLOCK));
    while let Some(letter) = letters.next()? {
        block.push(letter);
        if block.len() == BLOCK {
            push(&block, &mut bytes)?;
            block.clear();
        }
    }
    push(&block, &mut bytes)?;
    Ok(bytes.into())
}

/// Base64 with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn broken(reason: &str) -> String {
    format!("the base64 text is broken: {reason}.")
}

fn push(letters: &[u8], bytes: &mut Vec<u8>) -> Result<(), String> {
    if letters.len() % 4 == 1 {
        return Err(broken("its length is wrong, a part of it is missing"));
    }
    BASE64.decode_vec(letters, bytes).map_err(|error| broken(&error.to_string()))
}

/// What stands behind the head of a `data:` URL; any other text as it is.
fn content(text: &str) -> Result<&str, String> {
    let text = text.trim_start();
    let is_url = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    if !is_url {
        return Ok(text);
    }
    match text.split_once(',') {
        Some((head, content)) if head.trim_end().to_ascii_lowercase().ends_with(";base64") => Ok(content.trim_start()),
        Some(_) => Err("the data: URL is not in base64; send `data:audio/wav;base64,` and the text.".into()),
        None => Err("the data: URL has no content; send `data:audio/wav;base64,` and the text.".into()),
    }
}

/// Whether the spaces of a text were plus signs, and the text without those at its end that were
/// not. A text has plus signs or none are left of them; spaces that fold it come at equal distances
/// or at every line's edge.
fn spaces(text: &str) -> (&str, bool) {
    if !text.contains(' ') || text.contains(['+', '-', '_']) {
        return (text, false);
    }
    let body = text.trim_end_matches(['=', '\r', '\n', '\t', ' ']);
    let padding = text.bytes().filter(|byte| *byte == b'=').count();
    let is_whole = |letters: usize| (letters + padding).is_multiple_of(4);
    let count = |text: &str| text.bytes().filter(|byte| !b"=\r\n\t".contains(byte)).count();
    let lines = || body.split(['\r', '\n']).filter(|line| !line.is_empty());
    let are_pluses = if lines().nth(1).is_some() {
        let ends = lines().filter(|line| line.ends_with(' ')).count();
        // The last line ends where the text does.
        !lines().skip(1).all(|line| line.starts_with(' ')) && ends + 1 < lines().count()
    } else {
        let (mut parts, mut letters, mut equal, mut last) = (0, 0, true, 0);
        let first = body.split(' ').next().map_or(0, str::len);
        for part in body.split(' ').map(str::len) {
            equal &= parts == 0 || last == first;
            (parts, letters, last) = (parts + 1, letters + part, part);
        }
        match parts {
            0 | 1 => is_whole(count(text)) && !is_whole(letters),
            // One alone: whatever makes whole groups of four.
            2 => is_whole(letters + 1) || (!is_whole(letters) && (letters + 1) % 4 != 1),
            _ => !(equal && first > 0 && last <= first),
        }
    };
    if !are_pluses || padding > 0 || is_whole(count(text)) {
        return (text, are_pluses);
    }
    // At its end they may be either as well.
    (text.trim_end(), true)
}

/// The letters of a text in the standard alphabet, up to its padding.
struct Letters<'a> {
    bytes: &'a [u8],
    at: usize,
    spaces_are_pluses: bool,
    padded: bool,
}

impl Letters<'_> {
    fn next(&mut self) -> Result<Option<u8>, String> {
        loop {
            let Some(&byte) = self.bytes.get(self.at) else { return Ok(None) };
            let rest = &self.bytes[self.at + 1..];
            self.at += 1;
            let letter = match byte {
                b'\r' | b'\n' | b'\t' => continue,
                b' ' if !self.spaces_are_pluses || self.padded => continue,
                b' ' | b'-' => b'+',
                b'_' => b'/',
                b'=' => {
                    self.padded = true;
                    continue;
                }
                // Escaped once more than JSON wants it.
                b'\\' if matches!(rest.first(), Some(b'/')) => continue,
                b'\\' if matches!(rest.first(), Some(b'n' | b'r')) => {
                    self.at += 1;
                    continue;
                }
                b'%' => {
                    let (letter, more) = match rest.get(..2).map(<[u8]>::to_ascii_uppercase).as_deref() {
                        Some(b"2B") => (b'+', true),
                        Some(b"2F") => (b'/', true),
                        Some(b"3D") => (b'=', false),
                        _ => return Err(self.foreign()),
                    };
                    self.at += 2;
                    if !more {
                        self.padded = true;
                        continue;
                    }
                    letter
                }
                byte if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' => byte,
                _ => return Err(self.foreign()),
            };
            if self.padded {
                return Err(broken("it goes on behind its padding; send one text per sound"));
            }
            return Ok(Some(letter));
        }
    }

    /// The character that was read last.
    fn foreign(&self) -> String {
        let at = self.at - 1;
        let shown = std::str::from_utf8(&self.bytes[at..]).ok().and_then(|rest| rest.chars().next());
        let shown = shown.map_or_else(|| "?".to_owned(), |character| character.escape_debug().to_string());
        broken(&format!("`{shown}` at position {at} is no letter of its alphabet"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes whose text has plus signs and slashes, of every length of the last group.
    fn sounds() -> impl Iterator<Item = Vec<u8>> {
        (300..303).map(|length| (0..length).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 20) as u8 | 0xe0).collect())
    }

    fn folded(text: &str, at: usize, by: &str) -> String {
        text.as_bytes().chunks(at).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join(by)
    }

    #[test]
    fn the_same_bytes_come_out_of_every_spelling() {
        for sound in sounds() {
            let text = encode(&sound);
            assert!(text.contains('+') && text.contains('/'));
            let bare = text.trim_end_matches('=');
            let spaces = text.replace('+', " ");
            for (name, text) in [
                ("standard", text.clone()),
                ("URL alphabet", text.replace('+', "-").replace('/', "_")),
                ("URL alphabet without padding", bare.replace('+', "-").replace('/', "_")),
                ("spaces for plus signs", spaces.clone()),
                ("spaces for plus signs without padding", bare.replace('+', " ")),
                ("spaces for plus signs in lines", folded(&spaces, 76, "\r\n")),
                ("without padding", bare.to_owned()),
                ("too much padding", format!("{text}==")),
                ("lines", folded(&text, 76, "\r\n")),
                ("lines with indents", folded(&text, 64, "\n    ")),
                ("words", folded(&text, 64, " ")),
                ("words in the URL alphabet", folded(&text.replace('+', "-").replace('/', "_"), 60, " ")),
                ("white space around it", format!("\u{feff} \r\n\t{text} \n")),
                ("data URL", format!("data:audio/wav;base64,{text}")),
                ("data URL with parameters", format!("data:audio/wav;rate=32000;codecs=1;base64,{text}")),
                ("data URL in capitals", format!("DATA:audio/wav;BASE64,{text}")),
                ("data URL without type", format!("data:;base64,{text}")),
                ("data URL in the URL alphabet", format!("data:;base64,{}", bare.replace('+', "-").replace('/', "_"))),
                ("escaped slashes", text.replace('/', "\\/")),
                ("escaped line breaks", folded(&text, 76, "\\r\\n")),
                ("percent signs", text.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D")),
            ] {
                assert_eq!(decode(&text).as_deref(), Ok(&sound[..]), "{name}: {text}");
            }
        }
        assert_eq!(decode("").unwrap(), b"".as_slice());
    }

    #[test]
    fn what_is_broken_is_refused_and_never_another_sound() {
        let text = encode(&sounds().next().unwrap());
        for (broken, word) in [
            (format!("{}*{}", &text[..40], &text[40..]), "`*` at position 40"),
            (format!("{}\u{e9}{}", &text[..8], &text[8..]), "`\u{e9}` at position 8"),
            (format!("{}\0{}", &text[..8], &text[8..]), "position 8"),
            (format!("{}%41{}", &text[..8], &text[8..]), "`%`"),
            ("[object Blob]".to_owned(), "`[`"),
            ("YQ==YQ==".to_owned(), "behind its padding"),
            ("abcde".to_owned(), "length"),
            ("data:audio/wav,abcd".to_owned(), "not in base64"),
            ("data:audio/wav;base64".to_owned(), "no content"),
        ] {
            let refused = decode(&broken).unwrap_err();
            assert!(refused.contains(word), "{broken}: {refused}");
        }
    }

    #[test]
    fn a_text_of_many_blocks_is_decoded_as_one() {
        let sound: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let text = encode(&sound);
        assert_eq!(decode(&text).unwrap(), sound);
        assert_eq!(decode(&folded(&text, 76, "\n")).unwrap(), sound);
        assert_eq!(decode(&text.replace('+', " ")).unwrap(), sound);
    }
}
