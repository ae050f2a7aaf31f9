//! Paths that end in a format's name, `audio.ogg` or `live.wav`: which there are follows from the
//! table of formats. In tables of paths, and in the description, one entry stands for all of them.

use crate::audio::Format;

/// What is offered under such paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sounds {
    /// Finished files.
    Files,
    /// Streams.
    Live,
    /// Files that are heard while they are made.
    Previews,
}

use Sounds::{Files, Live, Previews};

impl Sounds {
    /// The last segment of such paths in a table.
    fn pattern(self) -> &'static str {
        match self {
            Files => "audio.{file}",
            Live => "audio.{live}",
            Previews => "live.{preview}",
        }
    }

    /// Whether a format is offered.
    fn offers(self, format: Format) -> bool {
        match self {
            Files => true,
            Live => format.live().is_some(),
            Previews => format.preview().is_some(),
        }
    }

    /// The formats that are offered.
    pub(super) fn formats(self) -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(move |format| self.offers(*format))
    }

    /// The last segment of a format's path.
    pub(super) fn segment(self, format: Format) -> String {
        let (stem, _) = self.pattern().split_once('.').unwrap_or_default();
        format!("{stem}.{format}")
    }

    /// The format that a path's last segment names.
    pub(super) fn format(self, segment: &str) -> Option<Format> {
        let (stem, _) = self.pattern().split_once('.')?;
        let extension = segment.strip_prefix(stem)?.strip_prefix('.')?;
        Format::of_extension(extension).filter(|format| self.offers(*format))
    }
}

/// What a segment of a table's path stands for, if it stands for several formats.
fn sounds(pattern: &str) -> Option<Sounds> {
    [Files, Live, Previews].into_iter().find(|sounds| sounds.pattern() == pattern)
}

/// Whether a segment of a path is what a table says there; `{}` is anything.
pub(super) fn fits(pattern: &str, segment: &str) -> bool {
    match sounds(pattern) {
        Some(sounds) => sounds.format(segment).is_some(),
        None => pattern == segment || (pattern == "{}" && !segment.is_empty()),
    }
}

/// All paths that an entry of a table stands for, with their formats.
pub(super) fn expanded(path: &str) -> Vec<(String, Option<Format>)> {
    let (rest, last) = path.rsplit_once('/').unwrap_or(("", path));
    match sounds(last) {
        Some(sounds) => {
            let path = |format| (format!("{rest}/{}", sounds.segment(format)), Some(format));
            sounds.formats().map(path).collect()
        }
        None => vec![(path.to_owned(), None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_table_stands_for_every_format() {
        let paths: Vec<String> = expanded("/x/audio.{live}").into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/x/audio.ogg", "/x/audio.mp3", "/x/audio.wav"]);
        assert_eq!(expanded("/x/{}"), [("/x/{}".to_owned(), None)]);
        assert!(fits("audio.{file}", "audio.flac") && !fits("audio.{live}", "audio.flac"));
        assert!(fits("live.{preview}", "live.ogg") && !fits("live.{preview}", "audio.ogg"));
        assert!(fits("{}", "x") && !fits("{}", "") && !fits("audio.{file}", "audio."));
    }
}
