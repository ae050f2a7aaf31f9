//! What a player reads in a media playlist.

use super::super::Failure;

/// What can be fetched, and what comes next.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) init: Option<String>,
    /// Numbers and names of whole segments.
    pub(super) segments: Vec<(u64, String)>,
    /// Segments, numbers in them and names of parts.
    pub(super) parts: Vec<((u64, u64), String)>,
    /// The segment and the part in it that are made next.
    pub(super) next: (u64, u64),
    /// Seconds between two looks.
    pub(super) target: f64,
}

/// The address of the first rendition, if this is a playlist of renditions.
pub(super) fn variant(text: &str) -> Option<&str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("#EXT-X-STREAM-INF"));
    lines.next().and_then(|_| lines.next())
}

/// The value of an attribute that is a quoted text.
fn quoted<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("{name}=\""))?.1.split('"').next()
}

pub(super) fn read(text: &str) -> Result<Listed, Failure> {
    let (mut listed, mut number, mut part) = (Listed::default(), 0, 0);
    for line in text.lines() {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-TARGETDURATION" => listed.target = value.parse()?,
            "#EXT-X-MEDIA-SEQUENCE" => number = value.parse()?,
            "#EXT-X-SKIP" => {
                let skipped = value.strip_prefix("SKIPPED-SEGMENTS=").unwrap_or_default();
                number += skipped.parse::<u64>()?;
            }
            "#EXT-X-MAP" => listed.init = quoted(value, "URI").map(str::to_owned),
            "#EXT-X-PART" => {
                let name = quoted(value, "URI").ok_or_else(|| Failure(format!("{line} has no address.")))?;
                listed.parts.push(((number, part), name.to_owned()));
                part += 1;
            }
            _ if !line.is_empty() && !line.starts_with('#') => {
                listed.segments.push((number, line.to_owned()));
                (number, part) = (number + 1, 0);
            }
            _ => {}
        }
    }
    listed.next = (number, part);
    Ok(listed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_playlist_says_what_there_is_and_what_comes_next() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"init.mp4?a=b\"\n\
            #EXT-X-SKIP:SKIPPED-SEGMENTS=2\n#EXTINF:3,\n9.m4s\n\
            #EXT-X-PART:DURATION=0.6,URI=\"10.0.m4s\",INDEPENDENT=YES\n";
        let listed = read(text).unwrap();
        assert_eq!((listed.target, listed.init.as_deref(), listed.next), (3.0, Some("init.mp4?a=b"), (10, 1)));
        assert_eq!(listed.segments, [(9, "9.m4s".to_owned())]);
        assert_eq!(listed.parts, [((10, 0), "10.0.m4s".to_owned())]);
        assert_eq!(variant(text), None);
        assert_eq!(variant("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nopus/index.m3u8\n"), Some("opus/index.m3u8"));
    }
}
