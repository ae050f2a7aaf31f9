//! Where the Hugging Face hub's own library keeps its downloads and its token, found as it finds
//! them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment, or what a test says in its place.
pub(super) struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
}

impl Surroundings<'static> {
    /// Those of this process. A user may have no home folder at all.
    pub(super) fn here() -> Self {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        Self { variable: &|name| std::env::var_os(name), home }
    }
}

impl Surroundings<'_> {
    /// The folder of all downloads; none for a user without a home who names none.
    pub(super) fn cache(&self) -> Option<PathBuf> {
        let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].iter().find_map(|name| self.path(name));
        named.or_else(|| Some(self.hugging_face()?.join("hub")))
    }

    /// The user's token.
    pub(super) fn token(&self) -> Option<String> {
        let clean = |token: &str| Some(token.trim().to_owned()).filter(|token| !token.is_empty());
        let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| clean(self.set(name)?.to_str()?));
        named.or_else(|| {
            let file = self.path("HF_TOKEN_PATH").or_else(|| Some(self.hugging_face()?.join("token")))?;
            clean(&std::fs::read_to_string(file).ok()?)
        })
    }

    /// Another hub than huggingface.co.
    pub(super) fn endpoint(&self) -> Option<String> {
        Some(self.set("HF_ENDPOINT")?.to_str()?.trim_end_matches('/').to_owned())
    }

    /// Whether nothing is to be downloaded.
    pub(super) fn is_offline(&self) -> bool {
        let value = self.set("HF_HUB_OFFLINE").map(|value| value.to_string_lossy().to_uppercase());
        value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.as_str()))
    }

    fn hugging_face(&self) -> Option<PathBuf> {
        let caches = || self.path("XDG_CACHE_HOME").or_else(|| Some(self.home.as_ref()?.join(".cache")));
        self.path("HF_HOME").or_else(|| Some(caches()?.join("huggingface")))
    }

    fn set(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.set(name)?);
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(path),
        }
    }
}

/// The folders that may hold a repository's files, the first to be asked first: what `main` was
/// when it was downloaded; a copy or a download by its commit has no such mark, and is taken by its
/// age.
pub(super) fn snapshots(cache: &Path, id: &str) -> Vec<PathBuf> {
    let repository = cache.join(format!("models--{}", id.replace('/', "--")));
    let all = repository.join("snapshots");
    if let Ok(commit) = std::fs::read_to_string(repository.join("refs").join("main")) {
        // A name in a file must not lead out of the folder.
        let commit = Path::new(commit.trim()).file_name().map(|name| all.join(name));
        return commit.into_iter().collect();
    }
    let entries = std::fs::read_dir(&all).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter(|entry| entry.path().is_dir()).collect();
    let age = |entry: &std::fs::DirEntry| entry.metadata().and_then(|data| data.modified()).ok();
    found.sort_by_key(|entry| (entry.file_name() == "main", age(entry), entry.file_name()));
    found.into_iter().rev().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cache(set: &[(&str, &str)], home: Option<&str>) -> Option<String> {
        let variable =
            |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value));
        let here = Surroundings { variable: &variable, home: home.map(PathBuf::from) };
        Some(here.cache()?.to_str().unwrap().to_owned())
    }

    #[test]
    fn downloads_are_where_the_hubs_own_library_keeps_them() {
        let all =
            [("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "/c"), ("XDG_CACHE_HOME", "/d")];
        for (set, place) in [
            (&all[..], "/a"),
            (&all[1..], "/b"),
            (&all[2..], "/c/hub"),
            (&all[3..], "/d/huggingface/hub"),
            (&[], "/home/u/.cache/huggingface/hub"),
            (&[("HF_HUB_CACHE", "")], "/home/u/.cache/huggingface/hub"),
            (&[("HF_HOME", "~/hf")], "/home/u/hf/hub"),
        ] {
            assert_eq!(cache(set, Some("/home/u")).unwrap(), place);
        }
        assert_eq!(cache(&[], None), None);
        assert_eq!(cache(&all[..1], None).unwrap(), "/a");
    }

    #[test]
    fn a_token_is_taken_from_the_variable_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "of-a-file\n").unwrap();
        for (token, expected) in [("of-a-variable", "of-a-variable"), (" ", "of-a-file")] {
            let variable = |name: &str| match name {
                "HF_TOKEN" => Some(token.into()),
                "HF_HOME" => Some(folder.path().into()),
                _ => None,
            };
            let here = Surroundings { variable: &variable, home: None };
            assert_eq!(here.token().as_deref(), Some(expected));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_snapshot_is_found_by_its_mark_and_without_one_by_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("models--owner--name");
        let snapshot = |name: &str| {
            let path = repository.join("snapshots").join(name);
            std::fs::create_dir_all(&path).unwrap();
            // As the library lays it out: links into a store of blobs.
            std::os::unix::fs::symlink("../../blobs/1234", path.join("config.json")).unwrap();
            path
        };
        std::fs::create_dir_all(repository.join("blobs")).unwrap();
        std::fs::write(repository.join("blobs/1234"), "{}").unwrap();
        let (first, second) = (snapshot("aaa"), snapshot("bbb"));
        let past = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::open(&second).unwrap().set_modified(past).unwrap();
        let found = || snapshots(folder.path(), "owner/name");
        assert_eq!(found(), [first.clone(), second.clone()]);
        assert!(found()[0].join("config.json").is_file());
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), "bbb\n").unwrap();
        assert_eq!(found(), [second]);
        std::fs::write(repository.join("refs/main"), "../../..").unwrap();
        assert!(found().is_empty());
        assert!(snapshots(folder.path(), "nobody/nothing").is_empty());
    }
}
