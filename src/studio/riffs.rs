//! A user's own riffs: sound files whose names say key and tempo, for loops to begin with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::StudioError;
use crate::audio::decode;
use crate::pcm::Pcm;

/// Seconds of a riff that are used.
const SECONDS: f64 = 12.0;

/// A folder of riffs, looked into whenever it is asked for; without a folder there are none.
#[derive(Debug, Clone, Default)]
pub struct Riffs(Option<PathBuf>);

/// One riff.
#[derive(Debug, Clone, PartialEq)]
pub struct Riff {
    /// `a` to `g`, with `sharp` behind it or not.
    pub key: String,
    /// Its tempo.
    pub bpm: f64,
    /// The file's name.
    pub file: String,
}

impl Riff {
    /// What a file's name says: `csharp_120bpm.wav`, `a_90_bpm_2.wav`.
    fn named(file: &str) -> Option<Self> {
        let name = file.to_lowercase();
        let (key, rest) = name.strip_suffix(".wav")?.split_once('_')?;
        let note = key.strip_suffix("sharp").unwrap_or(key);
        if note.len() != 1 || !("a"..="g").contains(&note) {
            return None;
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let bpm: f64 = rest[..digits].parse().ok().filter(|bpm| (20.0..=400.0).contains(bpm))?;
        let rest = rest[digits..].strip_prefix('_').unwrap_or(&rest[digits..]).strip_prefix("bpm")?;
        let number = rest.strip_prefix('_').map(|number| number.chars().all(|c| c.is_ascii_digit()));
        (rest.is_empty() || number == Some(true)).then(|| Self { key: key.to_owned(), bpm, file: file.to_owned() })
    }
}

impl Riffs {
    /// The riffs of a folder.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] when it cannot be looked into.
    pub fn of(folder: &Path) -> Result<Self, StudioError> {
        match std::fs::read_dir(folder) {
            Ok(_) => Ok(Self(Some(folder.to_owned()))),
            Err(error) => {
                Err(StudioError::Invalid(format!("The riffs in {} cannot be read: {error}.", folder.display())))
            }
        }
    }

    /// All riffs by their keys, each key's in the order of their files' names.
    pub fn by_key(&self) -> BTreeMap<String, Vec<Riff>> {
        let entries = self.0.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let mut riffs: Vec<Riff> = entries.filter_map(|entry| Riff::named(entry.file_name().to_str()?)).collect();
        riffs.sort_by(|a, b| a.file.cmp(&b.file));
        let mut keys: BTreeMap<String, Vec<Riff>> = BTreeMap::new();
        for riff in riffs {
            keys.entry(riff.key.clone()).or_default().push(riff);
        }
        keys
    }

    /// A riff's sound at another tempo, mixed to one channel. Blocks.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] when the file is gone, [`StudioError::Audio`] when it is no sound.
    pub fn sound(&self, riff: &Riff, bpm: f64) -> Result<Pcm, StudioError> {
        let folder = self.0.as_deref().unwrap_or(Path::new("."));
        let bytes = std::fs::read(folder.join(&riff.file))
            .map_err(|error| StudioError::Invalid(format!("The riff {} cannot be read: {error}.", riff.file)))?;
        let sound = decode(&bytes)?.mono();
        let needed = sound.rate.samples(SECONDS * bpm / riff.bpm + 1.0).0 as usize;
        let sound = sound.cut(0, needed).stretched(riff.bpm / bpm);
        let kept = sound.rate.samples(SECONDS).0 as usize;
        Ok(sound.cut(0, kept))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::units::SampleRate;

    #[test]
    fn names_say_key_and_tempo() {
        for (file, expected) in [
            ("a_120bpm.wav", Some(("a", 120.0))),
            ("b_92.5bpm.wav", Some(("b", 92.5))),
            ("Csharp_90_bpm.wav", Some(("csharp", 90.0))),
            ("g_140bpm_2.WAV", Some(("g", 140.0))),
            ("fsharp_100_bpm_12.wav", Some(("fsharp", 100.0))),
            ("h_120bpm.wav", None),
            ("a_bpm.wav", None),
            ("a_120bpm.mp3", None),
            ("a_120bpm_x.wav", None),
            ("a_120.wav", None),
            ("a-120bpm.wav", None),
            ("ab_120bpm.wav", None),
        ] {
            let found = Riff::named(file).map(|riff| (riff.key, riff.bpm));
            assert_eq!(found, expected.map(|(key, bpm)| (key.to_owned(), bpm)), "{file}");
        }
    }

    #[test]
    fn a_folder_is_looked_into_anew_and_a_riff_takes_another_tempo() {
        let folder = tempfile::tempdir().unwrap();
        let riffs = Riffs::of(folder.path()).unwrap();
        assert!(riffs.by_key().is_empty() && Riffs::default().by_key().is_empty());
        let pcm = (0..2 * 8000).map(|n| (n as f32 * 0.1).sin() * 0.3).collect();
        let sound = Pcm { pcm, channels: 1, rate: SampleRate(8000) };
        for name in ["a_120bpm.wav", "a_100bpm_2.wav", "csharp_90bpm.wav", "notes.txt"] {
            std::fs::write(folder.path().join(name), sound.wav()).unwrap();
        }
        let keys = riffs.by_key();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["a", "csharp"]);
        assert_eq!(keys["a"].len(), 2);
        assert_eq!(riffs.sound(&keys["a"][1], 60.0).unwrap().frames(), 4 * 8000);
        assert_eq!(riffs.sound(&keys["csharp"][0], 10.0).unwrap().frames(), 12 * 8000);
        assert!(Riffs::of(&folder.path().join("none")).is_err());
    }
}
