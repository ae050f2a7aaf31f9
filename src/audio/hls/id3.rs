//! ID3 tags (version 2.4) as HLS uses them: the time of packed audio, and titles.

use super::{Part, Title};
use crate::audio::OPUS_RATE;

/// Who is asked for the meaning of the time (RFC 8216 section 3.4).
const TIMESTAMP: &[u8] = b"com.apple.streaming.transportStreamTimestamp\0";
/// The clock of MPEG-2 transport streams, whose 33 bits go round after 26.5 hours.
const CLOCK: u64 = 90_000;
const UTF8: u8 = 3;

/// What comes before packed audio: its time, and what plays.
pub(super) fn packed_head(part: &Part, titles: &[Title]) -> Vec<u8> {
    let before = titles.iter().find(|title| title.at <= part.start);
    tag(Some(part.start), before.map(|title| title.text.as_str()))
}

/// A tag with a media time, a title, or both.
pub(super) fn tag(time: Option<u64>, title: Option<&str>) -> Vec<u8> {
    let mut frames = Vec::new();
    if let Some(time) = time {
        let ticks = (time * CLOCK / u64::from(OPUS_RATE)) & ((1 << 33) - 1);
        frame(&mut frames, b"PRIV", &[TIMESTAMP, &ticks.to_be_bytes()]);
    }
    if let Some(title) = title {
        frame(&mut frames, b"TIT2", &[&[UTF8], title.as_bytes()]);
    }
    [b"ID3\x04\0\0", &synchsafe(frames.len())[..], &frames].concat()
}

fn frame(out: &mut Vec<u8>, kind: &[u8; 4], content: &[&[u8]]) {
    let content = content.concat();
    out.extend_from_slice(kind);
    out.extend_from_slice(&synchsafe(content.len()));
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&content);
}

/// Seven bits per byte.
fn synchsafe(size: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8)
}
