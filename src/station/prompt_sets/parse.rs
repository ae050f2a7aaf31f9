//! The files of prompt sets: the original's shape (`{"prompts": ["..."]}`) and ours with
//! `stations`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::{SamplingPatch, VoiceSpec, WeightedPrompt};
use crate::units::ModelId;

/// One named station as a file describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Station")]
pub struct Entry {
    /// Its address: `/generate?station=NAME`.
    pub name: String,
    /// The blend.
    pub prompts: Vec<WeightedPrompt>,
    /// Sampling values that differ from the checkpoint's.
    pub sampling: SamplingPatch,
    /// A loaded model; `None` is the default one.
    pub model: Option<ModelId>,
}

/// Why a prompt set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptSetError {
    /// The file or folder cannot be read.
    #[error("The prompts in {path} cannot be read: {reason}.")]
    Unreadable {
        /// As it was given.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// Not JSON, or not of a known shape.
    #[error("{file}, line {line}, column {column}: {reason}.")]
    Malformed {
        /// File name.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A value is out of bounds.
    #[error("{file}, station `{station}`: {reason}")]
    Invalid {
        /// File name.
        file: String,
        /// Name of the station, or its place in the list.
        station: String,
        /// A sentence that says which value to change.
        reason: String,
    },
    /// There is nothing to play.
    #[error("{0} holds no prompts; write {{\"prompts\": [\"lofi piano\"]}} into a .json file.")]
    Empty(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a prompt is a text, or has a `text` and a `weight`")]
pub(in crate::station) enum Prompt {
    Text(String),
    Weighted(WeightedPrompt),
}

impl From<Prompt> for WeightedPrompt {
    fn from(prompt: Prompt) -> Self {
        match prompt {
            Prompt::Text(text) => text.as_str().into(),
            Prompt::Weighted(prompt) => prompt,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    prompts: Vec<Prompt>,
    #[serde(default)]
    stations: Vec<Station>,
    // For the original's client, which sends such a file as it is to `POST /generate`; stations do
    // not need them.
    #[serde(default, rename = "mp3")]
    _mp3: bool,
    #[serde(default, rename = "buffer_seconds")]
    _buffer_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Station {
    name: String,
    // Words for the page.
    #[serde(default, rename = "title")]
    _title: Option<String>,
    #[serde(default, rename = "note")]
    _note: Option<String>,
    prompts: Vec<Prompt>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_k: Option<u32>,
    #[serde(default)]
    guidance: Option<f32>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    model: Option<ModelId>,
}

impl Station {
    fn entry(self) -> Entry {
        let Self { name, prompts, temperature, top_k, guidance, seed, model, .. } = self;
        let sampling = SamplingPatch { temperature, top_k, guidance, seed };
        Entry { name, prompts: prompts.into_iter().map(Into::into).collect(), sampling, model }
    }
}

impl TryFrom<Station> for Entry {
    type Error = String;

    fn try_from(station: Station) -> Result<Self, String> {
        let entry = station.entry();
        check(&entry).map(|()| entry)
    }
}

/// Files and what they hold.
pub(super) type Texts = Vec<(PathBuf, String)>;

/// Reads a file, or every `.json` file of a folder in the order of their names.
///
/// # Errors
/// [`PromptSetError::Unreadable`].
pub(super) fn texts(path: &Path) -> Result<Texts, PromptSetError> {
    let unreadable = |path: &Path, error: std::io::Error| PromptSetError::Unreadable {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    let mut files = vec![path.to_owned()];
    if std::fs::metadata(path).map_err(|error| unreadable(path, error))?.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, error))?;
        let paths = entries.map(|entry| Ok(entry.map_err(|error| unreadable(path, error))?.path()));
        files = paths.collect::<Result<Vec<PathBuf>, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
    }
    let read = |file: PathBuf| match std::fs::read_to_string(&file) {
        Ok(text) => Ok((file, text)),
        Err(error) => Err(unreadable(&file, error)),
    };
    files.into_iter().map(read).collect()
}

/// The stations that the files at `path` describe.
///
/// # Errors
/// Any [`PromptSetError`] but `Unreadable`; the first one found.
pub(super) fn entries(path: &Path, texts: &Texts) -> Result<Vec<Entry>, PromptSetError> {
    let mut entries = Vec::new();
    for (file, text) in texts {
        entries.extend(parse(file, text)?);
    }
    let mut names = HashSet::new();
    if let Some(twice) = entries.iter().find(|entry| !names.insert(&entry.name)) {
        return Err(PromptSetError::Invalid {
            file: path.display().to_string(),
            station: twice.name.clone(),
            reason: "the name is used twice; give each station its own.".into(),
        });
    }
    if entries.is_empty() { Err(PromptSetError::Empty(path.display().to_string())) } else { Ok(entries) }
}

/// The stations of one file. Where there are none, each of its `prompts` is one, named after the
/// file: `radio-1`, ...
///
/// # Errors
/// [`PromptSetError::Malformed`], [`PromptSetError::Invalid`].
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, PromptSetError> {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let parsed: File = serde_json::from_str(text).map_err(|error| PromptSetError::Malformed {
        file: file.clone(),
        line: error.line(),
        column: error.column(),
        reason: without_place(&error.to_string()),
    })?;
    let entries: Vec<Entry> = if parsed.stations.is_empty() {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let stem: String = stem.chars().map(|c| if fits_name(c) { c } else { '-' }).collect();
        let named = |(place, prompt): (usize, Prompt)| Entry {
            name: format!("{stem}-{}", place + 1),
            prompts: vec![prompt.into()],
            sampling: SamplingPatch::default(),
            model: None,
        };
        parsed.prompts.into_iter().enumerate().map(named).collect()
    } else {
        parsed.stations.into_iter().map(Station::entry).collect()
    };
    for (place, entry) in entries.iter().enumerate() {
        if let Err(reason) = check(entry) {
            let station = if entry.name.is_empty() { format!("#{}", place + 1) } else { entry.name.clone() };
            return Err(PromptSetError::Invalid { file, station, reason });
        }
    }
    Ok(entries)
}

fn fits_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn check(entry: &Entry) -> Result<(), String> {
    if entry.name.is_empty() || entry.name.len() > 64 || !entry.name.chars().all(fits_name) {
        return Err("a name is 1 to 64 letters, digits, `-`, `_` or `.`; change it.".into());
    }
    let voice = VoiceSpec {
        model: entry.model.clone(),
        prompts: entry.prompts.clone(),
        sampling: entry.sampling,
        ..VoiceSpec::endless("")
    };
    voice.validate().map_err(|error| error.to_string())
}

/// serde_json ends its messages with the place, which is told apart.
fn without_place(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(reason, _)| reason).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(path: &Path) -> Result<Vec<Entry>, PromptSetError> {
        entries(path, &texts(path)?)
    }

    fn error(text: &str) -> String {
        parse(Path::new("x.json"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_original_shape_names_stations_after_the_file() {
        let entries =
            parse(Path::new("/a/my radio.json"), r#"{"prompts":["a","b"],"mp3":true,"buffer_seconds":60}"#).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["my-radio-1", "my-radio-2"]);
        assert_eq!(entries[1].prompts, ["b".into()]);
    }

    #[test]
    fn stations_carry_weights_and_sampling() {
        let text = r#"{"prompts":["x"],"stations":[{"name":"dub","title":"Dub","guidance":4,"seed":7,
            "prompts":["a",{"text":"b","weight":0.25}]}]}"#;
        let entries = parse(Path::new("x.json"), text).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].prompts[1], WeightedPrompt { text: "b".into(), weight: 0.25 });
        assert_eq!((entries[0].sampling.guidance, entries[0].sampling.seed), (Some(4.0), Some(7)));
    }

    #[test]
    fn mistakes_are_told_with_file_and_place() {
        assert_eq!(error("{\"prompts\": [\n  \"a\",\n]}"), "x.json, line 3, column 1: trailing comma.");
        assert!(error(r#"{"stations":[{"name":"a","prompts":["x"],"temprature":1}]}"#).contains("temprature"));
        let cold = error(r#"{"stations":[{"name":"a","prompts":["x"],"temperature":9}]}"#);
        assert_eq!(cold, "x.json, station `a`: `temperature` is 9 but must lie between 0 and 4.");
        assert!(error(r#"{"stations":[{"name":"a b","prompts":["x"]}]}"#).contains("letters, digits"));
        assert!(error(r#"{"stations":[{"name":"a","prompts":[]}]}"#).contains("no prompt"));
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(matches!(read(folder.path()), Err(PromptSetError::Empty(_))));
        write("b.json", r#"{"prompts":["x"]}"#);
        write("a.json", r#"{"stations":[{"name":"first","prompts":["y"]}]}"#);
        write("notes.txt", "not JSON");
        let names: Vec<_> = read(folder.path()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["first", "b-1"]);
        write("c.json", r#"{"stations":[{"name":"first","prompts":["z"]}]}"#);
        assert!(read(folder.path()).unwrap_err().to_string().contains("used twice"));
    }

    #[test]
    fn the_shipped_sets_are_valid() {
        let entries = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/prompts"))).unwrap();
        assert!(entries.len() >= 12, "{}", entries.len());
    }
}
