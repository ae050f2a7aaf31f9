//! Titles inside an MP3 stream, as Shoutcast defined them: after every [`INTERVAL`] bytes of sound
//! comes one byte that counts the 16-byte blocks of text that follow (none when the title is still
//! the same).

use bytes::{Bytes, BytesMut};
use warp::http::{HeaderMap, HeaderName, HeaderValue};

use crate::station::{Listen, StreamInfo};

/// Bytes of sound between two titles: a second at 128 kbit/s.
pub(super) const INTERVAL: usize = 16_000;
/// One length byte counts at most 255 blocks of 16.
const MAX_TEXT: usize = 255 * 16;

/// Whether the client asked for titles in the sound.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    headers.get("icy-metadata").is_some_and(|value| value.as_bytes() == b"1")
}

/// Tells the client where the titles are, and what it listens to.
pub(super) fn announce(info: &StreamInfo, listen: Listen, headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static("icy-metaint"), HeaderValue::from(INTERVAL));
    headers.insert(HeaderName::from_static("icy-br"), HeaderValue::from(listen.kbps));
    let name = info.name.as_deref().unwrap_or("Continuo");
    if let Ok(name) = HeaderValue::from_bytes(name.as_bytes()) {
        headers.insert(HeaderName::from_static("icy-name"), name);
    }
}

/// Puts titles between the bytes of one listener.
pub(super) struct Interleaver {
    until_title: usize,
    said: Option<String>,
}

impl Interleaver {
    pub fn new() -> Self {
        Self { until_title: INTERVAL, said: None }
    }

    /// `sound` with a title block wherever one is due; `title` is asked for only then.
    pub fn interleave(&mut self, mut sound: &[u8], title: impl Fn() -> String) -> Bytes {
        let mut out = BytesMut::with_capacity(sound.len() + 64);
        while sound.len() >= self.until_title {
            let (before, after) = sound.split_at(self.until_title);
            out.extend_from_slice(before);
            out.extend_from_slice(&self.block(title()));
            self.until_title = INTERVAL;
            sound = after;
        }
        out.extend_from_slice(sound);
        self.until_title -= sound.len();
        out.freeze()
    }

    fn block(&mut self, title: String) -> Vec<u8> {
        if self.said.as_ref() == Some(&title) {
            return vec![0];
        }
        let (open, close) = ("StreamTitle='", "';");
        // An apostrophe would end the title early in most players.
        let mut text: String =
            title.chars().filter(|c| !c.is_control()).map(|c| if c == '\'' { '’' } else { c }).collect();
        let mut room = MAX_TEXT - open.len() - close.len();
        if text.len() > room {
            while !text.is_char_boundary(room) {
                room -= 1;
            }
            text.truncate(room);
        }
        let text = format!("{open}{text}{close}");
        let blocks = text.len().div_ceil(16);
        let mut block = Vec::with_capacity(1 + blocks * 16);
        block.push(blocks as u8);
        block.extend_from_slice(text.as_bytes());
        block.resize(1 + blocks * 16, 0);
        self.said = Some(title);
        block
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Reads a stream with titles as a player does: sound and titles apart.
    fn split(mut bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut sound, mut titles) = (Vec::new(), Vec::new());
        while bytes.len() > INTERVAL {
            sound.extend_from_slice(&bytes[..INTERVAL]);
            let length = usize::from(bytes[INTERVAL]) * 16;
            let text = &bytes[INTERVAL + 1..INTERVAL + 1 + length];
            if length > 0 {
                titles.push(String::from_utf8(text.to_vec()).unwrap().trim_end_matches('\0').to_owned());
            }
            bytes = &bytes[INTERVAL + 1 + length..];
        }
        sound.extend_from_slice(bytes);
        (sound, titles)
    }

    #[test]
    fn the_sound_is_untouched_and_a_title_is_said_once() {
        let sound: Vec<u8> = (0..5 * INTERVAL + 77).map(|i| (i % 251) as u8).collect();
        for chunk in [1, 417, INTERVAL, 3 * INTERVAL + 1] {
            let mut titles = Interleaver::new();
            let mut out = Vec::new();
            for (i, part) in sound.chunks(chunk).enumerate() {
                let late = i * chunk >= 3 * INTERVAL;
                out.extend_from_slice(&titles.interleave(part, || if late { "it's late" } else { "early" }.to_owned()));
            }
            let (heard, said) = split(&out);
            assert_eq!(heard, sound);
            let expected = ["StreamTitle='early';", "StreamTitle='it’s late';"];
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn a_long_title_fits_its_length_byte() {
        let mut titles = Interleaver::new();
        let out = titles.interleave(&[0; INTERVAL], || "é".repeat(5000));
        let (_, said) = split(&out);
        assert!(said[0].starts_with("StreamTitle='éé") && said[0].ends_with("é';"));
        assert_eq!(out.len(), INTERVAL + 1 + 255 * 16);
    }
}
