//! A reader of playlists that knows the rules: RFC 8216, rfc8216bis, and what Apple's authoring
//! specification says that streams must do.

use std::collections::HashMap;

/// A media playlist as a player sees it.
#[derive(Default)]
pub struct Playlist {
    pub target: f64,
    pub sequence: u64,
    pub skipped: u64,
    pub map: Option<String>,
    pub segments: Vec<Segment>,
    /// Of the segment that is still being made.
    pub parts: Vec<Part>,
    pub hint: Option<String>,
    pub ranges: Vec<HashMap<String, String>>,
    pub reports: Vec<HashMap<String, String>>,
    pub ended: bool,
}

#[derive(Default, Clone, PartialEq, Debug)]
pub struct Segment {
    pub uri: String,
    pub seconds: f64,
    /// As it is written.
    pub date: Option<String>,
    pub parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    pub uri: String,
    pub seconds: f64,
}

/// The attributes of a tag (RFC 8216 section 4.2).
pub fn attributes(list: &str) -> HashMap<String, String> {
    let (mut attributes, mut rest) = (HashMap::new(), list);
    while let Some((name, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("a quoted string ends"),
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        assert!(name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-'), "{name}");
        assert!(attributes.insert(name.to_owned(), value.to_owned()).is_none(), "{name} occurs twice in {list}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    assert!(rest.is_empty(), "{list} ends with {rest}");
    attributes
}

fn number(attributes: &HashMap<String, String>, name: &str) -> f64 {
    attributes.get(name).unwrap_or_else(|| panic!("{name} is missing in {attributes:?}")).parse().unwrap()
}

/// Seconds since midnight of a date.
fn time_of_day(date: &str) -> f64 {
    let (day, time) = date.split_once('T').expect("a date and a time");
    assert!(day.len() == 10 && time.ends_with('Z'), "{date}");
    let fields: Vec<f64> = time.trim_end_matches('Z').split(':').map(|field| field.parse().unwrap()).collect();
    fields[0] * 3600.0 + fields[1] * 60.0 + fields[2]
}

/// Reads a media playlist; panics at whatever is against the rules.
pub fn media(text: &str) -> Playlist {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("#EXTM3U"));
    let (mut playlist, mut once) = (Playlist::default(), HashMap::new());
    let (mut segment, mut inf, mut part_target, mut control) = (Segment::default(), None, None, HashMap::new());
    for line in lines {
        assert!(!line.is_empty() && !playlist.ended, "nothing follows the end: {line}");
        if !line.starts_with('#') {
            segment.seconds = inf.take().expect("a length before every segment");
            segment.uri = line.to_owned();
            playlist.segments.push(std::mem::take(&mut segment));
            continue;
        }
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        let is_first = once.insert(tag.to_owned(), value.to_owned()).is_none();
        match tag {
            "#EXT-X-VERSION" | "#EXT-X-INDEPENDENT-SEGMENTS" => assert!(is_first, "{tag} occurs twice"),
            "#EXT-X-TARGETDURATION" => playlist.target = value.parse().unwrap(),
            "#EXT-X-MEDIA-SEQUENCE" => {
                assert!(is_first && playlist.segments.is_empty());
                playlist.sequence = value.parse().unwrap();
            }
            "#EXT-X-SERVER-CONTROL" => control = attributes(value),
            "#EXT-X-PART-INF" => part_target = Some(number(&attributes(value), "PART-TARGET")),
            "#EXT-X-MAP" => playlist.map = Some(attributes(value)["URI"].clone()),
            "#EXT-X-SKIP" => {
                assert!(is_first && playlist.segments.is_empty());
                playlist.skipped = number(&attributes(value), "SKIPPED-SEGMENTS") as u64;
            }
            "#EXT-X-PROGRAM-DATE-TIME" => segment.date = Some(value.to_owned()),
            "#EXT-X-PART" => {
                let attributes = attributes(value);
                assert_eq!(attributes["INDEPENDENT"], "YES");
                segment.parts.push(Part { uri: attributes["URI"].clone(), seconds: number(&attributes, "DURATION") });
            }
            "#EXTINF" => inf = Some(value.split_once(',').expect("a comma after the length").0.parse::<f64>().unwrap()),
            "#EXT-X-DATERANGE" => playlist.ranges.push(attributes(value)),
            "#EXT-X-PRELOAD-HINT" => {
                let attributes = attributes(value);
                assert_eq!(attributes["TYPE"], "PART");
                playlist.hint = Some(attributes["URI"].clone());
            }
            "#EXT-X-RENDITION-REPORT" => playlist.reports.push(attributes(value)),
            "#EXT-X-ENDLIST" => playlist.ended = true,
            other => panic!("an unknown tag: {other}"),
        }
    }
    playlist.parts = segment.parts;
    check(&playlist, &once, part_target, &control);
    playlist
}

fn check(
    playlist: &Playlist,
    once: &HashMap<String, String>,
    part_target: Option<f64>,
    control: &HashMap<String, String>,
) {
    let version: u32 = once["#EXT-X-VERSION"].parse().unwrap();
    assert!(version >= if playlist.skipped > 0 { 9 } else { 6 }, "EXT-X-MAP needs 6, EXT-X-SKIP 9");
    assert!(once.contains_key("#EXT-X-INDEPENDENT-SEGMENTS"));
    assert!(playlist.segments.iter().all(|segment| segment.seconds.round() <= playlist.target));
    let short = playlist.segments.iter().rposition(|segment| segment.seconds < playlist.target - 0.5);
    assert!(short.is_none_or(|at| playlist.ended && at + 1 == playlist.segments.len()), "only the last one is short");
    if playlist.skipped == 0 {
        assert!(playlist.segments.first().is_none_or(|first| first.date.is_some()), "a live playlist has dates");
    }
    let uris: std::collections::HashSet<_> = playlist.segments.iter().map(|segment| &segment.uri).collect();
    assert_eq!(uris.len(), playlist.segments.len());
    // Parts: of the last three lengths of a segment, as long as they say, and together the segment.
    assert_eq!(control["CAN-BLOCK-RELOAD"], "YES");
    assert!(number(control, "HOLD-BACK") >= 3.0 * playlist.target);
    assert!(part_target.is_none_or(|target| number(control, "PART-HOLD-BACK") >= 3.0 * target));
    // Without a length there are none.
    let part_target = part_target.unwrap_or(0.0);
    assert!(number(control, "CAN-SKIP-UNTIL") >= 6.0 * playlist.target);
    for segment in playlist.segments.iter().filter(|segment| !segment.parts.is_empty()) {
        let sum: f64 = segment.parts.iter().map(|part| part.seconds).sum();
        assert!((sum - segment.seconds).abs() < 1e-4, "the parts of {} last {sum} s", segment.uri);
        let (_, all_but_last) = segment.parts.split_last().unwrap();
        assert!(all_but_last.iter().all(|part| part.seconds >= 0.85 * part_target));
    }
    let parts = playlist.segments.iter().flat_map(|segment| &segment.parts).chain(&playlist.parts);
    assert!(parts.clone().all(|part| part.seconds <= part_target + 1e-6));
    let in_parts = playlist.segments.iter().filter(|segment| !segment.parts.is_empty()).count();
    assert!(in_parts <= 4 && playlist.segments.iter().rev().take(in_parts).all(|segment| !segment.parts.is_empty()));
    // What is not made now has no parts, and nothing comes next.
    assert_eq!(playlist.hint.is_some(), !playlist.ended && (in_parts > 0 || !playlist.parts.is_empty()));
    let told = |report: &HashMap<String, String>| report.contains_key("LAST-PART") == report["URI"].contains("/opus/");
    assert!(playlist.ended || playlist.reports.iter().all(told));
    for range in &playlist.ranges {
        assert!(range.contains_key("ID") && range["END-ON-NEXT"] == "YES" && range.contains_key("CLASS"));
        assert!(!range.contains_key("DURATION") && !range.contains_key("END-DATE"));
        time_of_day(&range["START-DATE"]);
    }
    assert!(
        playlist.segments.iter().filter_map(|segment| segment.date.as_deref()).map(time_of_day).all(f64::is_finite)
    );
}

/// What a playlist may differ in from an earlier one of the same address.
pub fn follows(later: &Playlist, earlier: &Playlist) {
    assert!(later.sequence >= earlier.sequence && later.target == earlier.target && later.map == earlier.map);
    assert!(!earlier.ended || later.ended);
    let numbered = |playlist: &Playlist| -> HashMap<u64, Segment> {
        (playlist.sequence + playlist.skipped..).zip(playlist.segments.iter().cloned()).collect()
    };
    let (before, after) = (numbered(earlier), numbered(later));
    for (number, segment) in before {
        if let Some(same) = after.get(&number) {
            assert_eq!((&same.uri, same.seconds), (&segment.uri, segment.seconds), "segment {number} has changed");
        }
    }
    for range in &earlier.ranges {
        let same = later.ranges.iter().find(|same| same["ID"] == range["ID"]);
        assert!(same.is_none_or(|same| same == range), "{range:?} has changed");
    }
}

/// The variants of a multivariant playlist: attributes and address.
pub fn variants(text: &str) -> Vec<(HashMap<String, String>, String)> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("#EXTM3U"));
    assert!(text.contains("\n#EXT-X-INDEPENDENT-SEGMENTS\n"));
    let mut variants = Vec::new();
    while let Some(line) = lines.next() {
        let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") else { continue };
        let list = attributes(list);
        assert!(number(&list, "BANDWIDTH") >= number(&list, "AVERAGE-BANDWIDTH") && list.contains_key("CODECS"));
        assert!(number(&list, "SCORE") > 0.0, "all have it or none");
        variants.push((list, lines.next().expect("an address after a variant").to_owned()));
    }
    variants
}
