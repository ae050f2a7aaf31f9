//! From the name of a model to its files: a folder, a Hugging Face id, or `bundled`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hf_hub::Cache;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};

use super::cache::{Surroundings, snapshots};
use super::{Files, ModelError};

/// Told about a download: file name, bytes so far, bytes in all.
pub type OnProgress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// The model that is part of the program.
pub const BUNDLED: &str = "bundled";

#[derive(rust_embed::RustEmbed)]
#[folder = "models/continuo-mini"]
struct Bundled;

fn bundled(name: &str) -> Option<Cow<'static, [u8]>> {
    Bundled::get(name).map(|file| file.data)
}

/// Whether this program carries a model of its own.
pub fn has_bundled() -> bool {
    bundled("model.safetensors").is_some()
}

/// Finds the files of `name`. A Hugging Face id is looked up in the local cache first and
/// downloaded only when something is missing there (the variables of the hub's own library and a
/// stored token are honoured).
///
/// # Errors
/// [`ModelError::NoSuchPlace`], [`ModelError::Download`], [`ModelError::NotBundled`].
pub fn locate(name: &str, progress: &mut OnProgress<'_>) -> Result<Files, ModelError> {
    if name == BUNDLED {
        return if has_bundled() { Ok(Files::Embedded(bundled)) } else { Err(ModelError::NotBundled) };
    }
    if Path::new(name).is_dir() {
        return Ok(Files::Folder(PathBuf::from(name)));
    }
    if !is_hub_id(name) {
        return Err(ModelError::NoSuchPlace(name.to_owned()));
    }
    match cached(name) {
        Some(folder) => Ok(Files::Folder(folder)),
        None => download(name, progress).map(Files::Folder),
    }
}

/// `owner/name` in the hub's alphabet, and not a path.
fn is_hub_id(name: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    matches!(name.split('/').collect::<Vec<_>>().as_slice(), [owner, model] if good(owner) && good(model))
}

/// The layouts that a repository may have: every file of one of them must be there. The first file
/// tells which.
const LAYOUTS: [&[&str]; 5] = [
    &["model_config.json", "model.safetensors"],
    &["model.safetensors", "config.json"],
    &[INDEX, "config.json"],
    &["state_dict.bin", "compression_state_dict.bin"],
    &["compression_state_dict.bin"],
];
/// Of a sharded checkpoint, which weights are in which file.
const INDEX: &str = "model.safetensors.index.json";
const NO_LAYOUT: &str = "it holds no checkpoint in a known layout";
/// Taken along when present.
const OPTIONAL: [&str; 3] = ["generation_config.json", "tokenizer.json", "preprocessor_config.json"];

/// Where downloads are kept when it is not the user's Hugging Face cache.
static DOWNLOADS: OnceLock<PathBuf> = OnceLock::new();

/// Keeps downloads in `data/models` from now on.
///
/// # Errors
/// When the folder cannot be made.
pub fn keep_downloads_in(data: &Path) -> Result<(), ModelError> {
    let folder = data.join("models");
    std::fs::create_dir_all(&folder).map_err(|error| ModelError::Wrong {
        place: data.display().to_string(),
        file: "the folder `models`".into(),
        reason: error.to_string(),
    })?;
    // Only the first call counts: there is one place per process.
    let _ = DOWNLOADS.set(folder);
    Ok(())
}

/// None for a user without a home folder who names none.
fn cache() -> Option<PathBuf> {
    DOWNLOADS.get().cloned().or_else(|| Surroundings::here().cache())
}

/// The names of models that need no download: `bundled` and what the cache holds.
pub fn on_disk() -> Vec<String> {
    let mut names: Vec<String> = cache()
        .and_then(|cache| std::fs::read_dir(cache).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
            cached(&id).filter(|folder| is_musicgen(folder)).map(|_| id)
        })
        .collect();
    names.sort_unstable();
    if has_bundled() {
        names.insert(0, BUNDLED.to_owned());
    }
    names
}

/// Text encoders and codecs lie in the same cache, as companions of models.
fn is_musicgen(folder: &Path) -> bool {
    let config = std::fs::read(folder.join("config.json")).ok();
    match config.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()) {
        Some(config) => config["model_type"] == "musicgen",
        None => folder.join("state_dict.bin").is_file() && !super::melodyflow::is_in(folder),
    }
}

fn cached(id: &str) -> Option<PathBuf> {
    let is_whole = |folder: &PathBuf| {
        let has = |file: &str| folder.join(file).is_file();
        LAYOUTS.iter().any(|files| files.iter().all(|file| has(file))) && shards(folder).iter().all(|shard| has(shard))
    };
    snapshots(&cache()?, id).into_iter().find(is_whole)
}

/// Shard names of a sharded checkpoint; none for a single file.
fn shards(folder: &Path) -> Vec<String> {
    let read = || -> Option<Vec<String>> {
        let bytes = std::fs::read(folder.join(INDEX)).ok()?;
        let index: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let mut names: Vec<String> =
            index["weight_map"].as_object()?.values().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        Some(names)
    };
    read().unwrap_or_default()
}

/// A checkpoint that would have to be downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnHub {
    /// Bytes of its weights.
    pub bytes: u64,
    /// Whether it is in a Hugging Face layout.
    pub has_config: bool,
}

/// What would be downloaded for `name`; nothing when its files are here.
///
/// # Errors
/// [`ModelError::NoSuchPlace`], [`ModelError::Download`].
pub fn on_hub(name: &str) -> Result<Option<OnHub>, ModelError> {
    if name == BUNDLED || Path::new(name).is_dir() || !is_hub_id(name) || cached(name).is_some() {
        return Ok(None);
    }
    let failed = |reason: String| ModelError::Download { id: name.to_owned(), reason };
    let (api, repo) = hub(name)?;
    let info = repo.info().map_err(|error| failed(error.to_string()))?;
    let there: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let layout = layout_of(&there).ok_or_else(|| failed(NO_LAYOUT.into()))?;
    let mut files: Vec<String> = layout.iter().map(|file| (*file).to_owned()).collect();
    if layout.contains(&INDEX) {
        let index = repo.get(INDEX).map_err(|error| failed(format!("{INDEX}: {error}")))?;
        files.extend(index.parent().map(shards).unwrap_or_default());
    }
    let mut bytes = 0;
    for file in files.iter().filter(|file| file.ends_with(".safetensors") || file.ends_with(".bin")) {
        let data = api.metadata(&repo.url(file)).map_err(|error| failed(format!("{file}: {error}")))?;
        bytes += data.size() as u64;
    }
    Ok(Some(OnHub { bytes, has_config: layout.contains(&"config.json") }))
}

/// The layout that a repository's files make up.
fn layout_of(there: &[&str]) -> Option<&'static &'static [&'static str]> {
    LAYOUTS.iter().find(|files| files.iter().all(|file| there.contains(file)))
}

/// A repository on the hub.
fn repository(id: &str) -> Result<ApiRepo, ModelError> {
    hub(id).map(|(_, repo)| repo)
}

fn hub(id: &str) -> Result<(Api, ApiRepo), ModelError> {
    if !is_hub_id(id) {
        return Err(ModelError::NoSuchPlace(id.to_owned()));
    }
    let failed = |reason: String| ModelError::Download { id: id.to_owned(), reason };
    let here = Surroundings::here();
    if here.is_offline() {
        return Err(failed("HF_HUB_OFFLINE is set".into()));
    }
    let place = "name a folder for downloads with HF_HOME, or with `serve --data`";
    let cache = cache().ok_or_else(|| failed(format!("this user has no home folder; {place}")))?;
    std::fs::create_dir_all(&cache)
        .map_err(|error| failed(format!("there is no folder to keep it in: {error}; {place}")))?;
    let mut api =
        ApiBuilder::from_cache(Cache::new(cache)).with_token(here.token()).with_progress(false).with_retries(5);
    if let Some(endpoint) = here.endpoint() {
        api = api.with_endpoint(endpoint);
    }
    let api = api.build().map_err(|error| failed(error.to_string()))?;
    let repo = api.model(id.to_owned());
    Ok((api, repo))
}

/// The names of a repository's files.
///
/// # Errors
/// [`ModelError::NoSuchPlace`], [`ModelError::Download`].
pub fn hub_files(id: &str) -> Result<Vec<String>, ModelError> {
    let info = repository(id)?.info();
    let info = info.map_err(|error| ModelError::Download { id: id.to_owned(), reason: error.to_string() })?;
    Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
}

/// One file of a repository, from the cache or downloaded.
///
/// # Errors
/// [`ModelError::NoSuchPlace`], [`ModelError::Download`].
pub fn hub_file(id: &str, file: &str) -> Result<PathBuf, ModelError> {
    if !is_hub_id(id) {
        return Err(ModelError::NoSuchPlace(id.to_owned()));
    }
    let folders = cache().map_or_else(Vec::new, |cache| snapshots(&cache, id));
    if let Some(found) = folders.into_iter().map(|folder| folder.join(file)).find(|path| path.is_file()) {
        return Ok(found);
    }
    repository(id)?
        .get(file)
        .map_err(|error| ModelError::Download { id: format!("{id}/{file}"), reason: error.to_string() })
}

fn download(id: &str, progress: &mut OnProgress<'_>) -> Result<PathBuf, ModelError> {
    let failed = |reason: String| ModelError::Download { id: id.to_owned(), reason };
    let repo = repository(id)?;
    let info = repo.info().map_err(|error| failed(error.to_string()))?;
    let there: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let layout = layout_of(&there).ok_or_else(|| failed(NO_LAYOUT.into()))?;
    let mut folder = PathBuf::new();
    let mut fetch = |file: &str| -> Result<PathBuf, ModelError> {
        let meter = Meter { progress, file: file.to_owned(), done: 0, size: 0 };
        repo.download_with_progress(file, meter).map_err(|error| failed(format!("{file}: {error}")))
    };
    for file in layout.iter().copied().chain(OPTIONAL.into_iter().filter(|file| there.contains(file))) {
        let path = fetch(file)?;
        folder = path.parent().map(Path::to_owned).unwrap_or_default();
    }
    for shard in shards(&folder) {
        fetch(&shard)?;
    }
    Ok(folder)
}

/// Forwards the client's progress; a retried transfer begins anew.
struct Meter<'a, 'b> {
    progress: &'a mut OnProgress<'b>,
    file: String,
    done: u64,
    size: u64,
}

impl Progress for Meter<'_, '_> {
    fn init(&mut self, size: usize, _file: &str) {
        self.size = size as u64;
        self.done = 0;
        (self.progress)(&self.file, 0, self.size);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(&self.file, self.done, self.size);
    }

    fn finish(&mut self) {
        (self.progress)(&self.file, self.size, self.size);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sentence(name: &str) -> String {
        locate(name, &mut |_, _, _| {}).err().unwrap().to_string()
    }

    #[test]
    fn a_place_that_is_neither_folder_nor_id_is_named() {
        for name in ["/no/such/folder", "nonsense", "a/b/c", "../x", "-/", "a b/c"] {
            assert!(sentence(name).contains(&format!("no folder `{name}`")), "{}", sentence(name));
        }
    }

    #[test]
    fn a_folder_without_a_checkpoint_names_the_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = locate(folder.path().to_str().unwrap(), &mut |_, _, _| {}).unwrap();
        let error = files.json("config.json").err().unwrap().to_string();
        assert!(error.contains("has no config.json") && error.contains("state_dict.bin"), "{error}");
    }
}
