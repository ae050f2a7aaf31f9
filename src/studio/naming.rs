//! Which models clients may name. Loading one costs the machine's memory, its disk and its network:
//! that is the operator's to decide.
//!
//! What is loaded, offered or on disk may be named by its id, and what one of the operator's
//! patterns fits. Anything else, folders too, only by clients on this machine, where nobody but its
//! users comes in.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{Owner, StudioError};
use crate::engine::Engine;

/// What clients may name.
#[derive(Debug, Clone)]
pub struct Naming {
    /// Names with `*` for any characters.
    pub patterns: Vec<String>,
    /// Names that producers' menus have besides.
    pub offered: Vec<String>,
    /// Names of models that need no download.
    pub on_disk: fn() -> Vec<String>,
    /// Whether clients on this machine may name whatever can be loaded.
    pub loopback_names_all: bool,
}

impl Default for Naming {
    fn default() -> Self {
        Self { patterns: Vec::new(), offered: Vec::new(), on_disk: Vec::new, loopback_names_all: true }
    }
}

impl Naming {
    /// The spelling that a name is known under, if `owner` may name it. Whether there is such a
    /// folder is told to those alone who may name folders.
    ///
    /// # Errors
    /// [`StudioError::NotYours`].
    pub fn permit(&self, engine: &Engine, owner: &Owner, name: &str) -> Result<String, StudioError> {
        let name = name.trim();
        if let Some(loaded) = loaded_as(engine, name, false) {
            return Ok(loaded);
        }
        if self.loopback_names_all && owner.0.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return Ok(loaded_as(engine, name, true).unwrap_or_else(|| name.to_owned()));
        }
        let known = self.offered.iter().cloned().chain((self.on_disk)());
        if let Some(known) = known.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(known);
        }
        // A pattern for ids must not open folders that happen to look like one.
        let fits = |pattern: &String| matches(pattern, name) && (!is_folder(name) || is_of_folders(pattern));
        if !name.contains("..") && self.patterns.iter().any(fits) {
            return Ok(loaded_as(engine, name, true).unwrap_or_else(|| name.to_owned()));
        }
        Err(StudioError::NotYours(name.chars().take(80).collect()))
    }
}

/// The name of a loaded model that is meant by `name`: in any case, and of a folder in any spelling
/// if `folders` may be looked at.
fn loaded_as(engine: &Engine, name: &str, folders: bool) -> Option<String> {
    let loaded: Vec<String> = engine.models().iter().map(|model| model.id.0.clone()).collect();
    if let Some(same) = loaded
        .iter()
        .find(|id| id.as_str() == name)
        .or_else(|| loaded.iter().find(|id| id.eq_ignore_ascii_case(name) && !is_of_folders(id)))
    {
        return Some(same.clone());
    }
    let real = folders.then(|| folder(name)).flatten()?;
    loaded.into_iter().find(|id| folder(id).as_ref() == Some(&real))
}

fn folder(name: &str) -> Option<PathBuf> {
    std::fs::canonicalize(name).ok().filter(|path| path.is_dir())
}

fn is_folder(name: &str) -> bool {
    is_of_folders(name) || folder(name).is_some()
}

fn is_of_folders(text: &str) -> bool {
    text.starts_with(['/', '.', '~']) || text.contains('\\')
}

/// Whether a pattern fits all of a text; `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::EngineConfig;
    use crate::engine::standin::Standin;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, fits) in [
            ("facebook/*", "facebook/musicgen-small", true),
            ("facebook/*", "Facebook/MusicGen-small", true),
            ("facebook/*", "facebook2/x", false),
            ("*", "anything/at-all", true),
            ("*/*-small", "a/b-small", true),
            ("*/*-small", "a/b-smaller", false),
            ("a*a", "a", false),
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn clients_name_what_is_there_and_those_of_this_machine_what_they_like() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let engine = Engine::start(Box::new(Standin::new(path, 4)), EngineConfig::default()).unwrap();
        let naming = Naming {
            patterns: vec!["me/*".into()],
            offered: vec!["thepatch/bleeps-medium".into()],
            on_disk: || vec!["facebook/musicgen-small".into()],
            loopback_names_all: true,
        };
        let (here, there) = (Owner("127.0.0.1".into()), Owner("203.0.113.7".into()));
        let permit = |owner: &Owner, name: &str| naming.permit(&engine, owner, name).ok();
        for name in ["Facebook/MusicGen-small", "facebook/musicgen-small", "thepatch/bleeps-medium", "me/mine", path] {
            assert!(permit(&there, name).is_some(), "{name}");
        }
        assert_eq!(permit(&there, " FACEBOOK/musicgen-small ").unwrap(), "facebook/musicgen-small");
        // Forty spellings of one folder are the model that is loaded.
        let spelled = |n: usize| format!("{path}{}{}", "/".repeat(n + 1), "./".repeat(n % 3));
        for n in 0..40 {
            assert_eq!(permit(&here, &spelled(n)).unwrap(), path);
            assert_eq!(permit(&there, &spelled(n)), None);
        }
        assert_eq!(permit(&here, "other/model").unwrap(), "other/model");
        // The same words whether there is such a folder or not.
        for name in ["/etc", "/no/such/folder", "other/model", "../models", "me/../.."] {
            let refused = naming.permit(&engine, &there, name).unwrap_err().to_string();
            assert_eq!(refused.replace(name, "X"), naming.permit(&engine, &there, "X").unwrap_err().to_string());
        }
        let shut = Naming { loopback_names_all: false, ..naming.clone() };
        assert!(
            shut.permit(&engine, &here, "other/model").is_err() && shut.permit(&engine, &here, &spelled(3)).is_err()
        );
    }
}
