//! The text of playlists (RFC 8216, rfc8216bis).

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::PLAYLIST;
use crate::audio::OPUS_RATE;
use crate::audio::hls::{PART, Rendition, SEGMENT};
use crate::station::hls::{Listing, Position, SKIP_UNTIL, Segment};
use crate::station::rfc3339;

/// Lengths in frames: of how much before the end parts are listed, and how far from the end players
/// stay.
const IN_PARTS: u64 = 3 * SEGMENT;
const HOLD_BACK: u64 = 3 * SEGMENT;
const PART_HOLD_BACK: u64 = 3 * PART;
/// Dates that are so close follow from each other.
const SAME: Duration = Duration::from_millis(2);

/// A playlist of a rendition.
pub(super) struct Media<'a> {
    pub listing: &'a Listing,
    pub rendition: Rendition,
    /// The name of the segment that comes before all others.
    pub init: Option<&'static str>,
    /// What is behind the addresses of playlists, and of everything else.
    pub playlist_query: &'a str,
    pub query: &'a str,
    /// The other renditions, and how far they are.
    pub others: Vec<(Rendition, Option<Position>)>,
}

/// The playlist of all renditions, each of which has an address.
pub(super) fn multivariant(address: impl Fn(Rendition) -> String) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n".to_owned();
    for rendition in Rendition::built() {
        let ((most, mean), score, codec) = (rendition.bandwidth(), rendition.score(), rendition.codec());
        text += &format!("#EXT-X-STREAM-INF:BANDWIDTH={most},AVERAGE-BANDWIDTH={mean},SCORE={score},");
        text += &format!("CODECS=\"{codec}\"\n");
        text += &address(rendition);
        text.push('\n');
    }
    text
}

/// The text of a playlist of a rendition.
pub(super) fn media(playlist: &Media<'_>) -> String {
    let mut text = String::with_capacity(80 * playlist.listing.segments.len() + 1000);
    // Writing to memory does not fail.
    let _ = write(playlist, &mut text);
    text
}

fn write(playlist: &Media<'_>, out: &mut String) -> fmt::Result {
    let Media { listing, query, .. } = *playlist;
    let Some(last) = listing.segments.last() else { return Ok(()) };
    writeln!(out, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{}", Seconds(SEGMENT))?;
    let (skip, hold, in_parts) = (Seconds(SKIP_UNTIL), Seconds(HOLD_BACK), playlist.rendition.in_parts());
    write!(out, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={skip},HOLD-BACK={hold}")?;
    if in_parts {
        writeln!(out, ",PART-HOLD-BACK={}", Seconds(PART_HOLD_BACK))?;
        write!(out, "#EXT-X-PART-INF:PART-TARGET={}", Seconds(PART))?;
    }
    writeln!(out, "\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MEDIA-SEQUENCE:{}", listing.first)?;
    if let Some(init) = playlist.init {
        writeln!(out, "#EXT-X-MAP:URI=\"{init}{query}\"")?;
    }
    let end = last.number * SEGMENT + last.frames;
    if listing.skipped > 0 {
        writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={}", listing.skipped)?;
    }
    for (date, title) in &listing.titles {
        let (date, words) = (rfc3339(*date), quotable(&title.text));
        write!(out, "#EXT-X-DATERANGE:ID=\"title-{}\",CLASS=\"continuo.title\",START-DATE=\"{date}\"", title.at)?;
        writeln!(out, ",END-ON-NEXT=YES,X-TITLE=\"{words}\"")?;
    }
    let mut expected = None;
    for segment in &listing.segments {
        write_segment(playlist, segment, expected, in_parts && segment.number * SEGMENT + IN_PARTS >= end, out)?;
        expected = Some(segment.date + duration(segment.frames));
    }
    if listing.ended {
        return writeln!(out, "#EXT-X-ENDLIST");
    }
    // Whoever came first to a rendition finds it without parts for a moment: so far it was made
    // from the journal.
    if in_parts && last.parts > 0 {
        let (number, part) = if last.whole { (last.number + 1, 0) } else { (last.number, last.parts) };
        let extension = playlist.rendition.extension();
        writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{number}.{part}.{extension}{query}\"")?;
    }
    let edge = Position { segment: last.number, part: last.parts.checked_sub(1) };
    for (other, at) in &playlist.others {
        let Position { segment, part } = at.unwrap_or(edge);
        let (name, query) = (other.name(), playlist.playlist_query);
        write!(out, "#EXT-X-RENDITION-REPORT:URI=\"../{name}/{PLAYLIST}{query}\",LAST-MSN=")?;
        if other.in_parts() {
            writeln!(out, "{segment},LAST-PART={}", part.unwrap_or_default())?;
        } else {
            let whole = part.is_none_or(|part| part + 1 == SEGMENT / PART);
            writeln!(out, "{}", if whole { segment } else { segment.saturating_sub(1) })?;
        }
    }
    Ok(())
}

fn write_segment(
    playlist: &Media<'_>,
    segment: &Segment,
    expected: Option<SystemTime>,
    in_parts: bool,
    out: &mut String,
) -> fmt::Result {
    let Segment { number, frames, parts, whole, date } = *segment;
    let (extension, query) = (playlist.rendition.extension(), playlist.query);
    let follows = |expected| apart(expected, date) < SAME;
    if !expected.is_some_and(follows) {
        writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", rfc3339(date))?;
    }
    if in_parts {
        for part in 0..parts {
            let lasts = Seconds(PART.min(frames - part * PART));
            writeln!(out, "#EXT-X-PART:DURATION={lasts},URI=\"{number}.{part}.{extension}{query}\",INDEPENDENT=YES")?;
        }
    }
    if whole {
        writeln!(out, "#EXTINF:{},\n{number}.{extension}{query}", Seconds(frames))?;
    }
    Ok(())
}

/// So many frames, written in seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as f64 / f64::from(OPUS_RATE);
        write!(f, "{}", (seconds * 1e5).round() / 1e5)
    }
}

fn duration(frames: u64) -> Duration {
    Duration::from_micros(frames * 1_000_000 / u64::from(OPUS_RATE))
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|earlier| earlier.duration())
}

/// Text as it may stand in quotes there.
fn quotable(text: &str) -> String {
    text.chars().map(|letter| if letter == '"' { '\'' } else { letter }).filter(|letter| !letter.is_control()).collect()
}
