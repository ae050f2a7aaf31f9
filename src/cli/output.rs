//! The file that a command writes: looked at before the work, and whole or not there after it.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Failure, Outcome};
use crate::audio::{Format, list};

/// A place where a file can be written.
pub(super) struct Output {
    /// As it was named.
    name: PathBuf,
    /// Where that leads to.
    place: PathBuf,
    pub(super) format: Format,
}

impl Output {
    /// What `--output` is, for `--help`.
    pub(super) fn help() -> String {
        format!("File to write; its extension says the format: {}", list(Format::ALL, ""))
    }

    /// Says now what would otherwise be said after minutes of work.
    pub(super) fn at(name: &Path) -> Result<Self, Failure> {
        let format = Format::of_path(name).map_err(|error| Failure(format!("--output: {error}")))?;
        if name.is_dir() {
            return Err(Failure(format!("--output: {} is a folder; name a file in it.", name.display())));
        }
        // A link stays one: what it leads to is written.
        let place = name.canonicalize().unwrap_or_else(|_| name.to_owned());
        let output = Self { name: name.to_owned(), place, format };
        if !output.folder().is_dir() {
            let folder = output.folder().display();
            return Err(Failure(format!("--output: there is no folder {folder}; make it, or name another file.")));
        }
        output.draft()?;
        Ok(output)
    }

    pub(super) fn name(&self) -> std::path::Display<'_> {
        self.name.display()
    }

    /// A file of that name is replaced only by a complete one.
    pub(super) fn write(&self, bytes: &[u8]) -> Outcome {
        let mut draft = self.draft()?;
        let written = draft.write_all(bytes).and_then(|()| draft.as_file().sync_all());
        written.map_err(|error| self.failure(&error))?;
        draft.persist(&self.place).map_err(|error| self.failure(&error.error))?;
        Ok(())
    }

    fn folder(&self) -> &Path {
        match self.place.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// A file beside the other, under a name that nobody else has; it goes unless it takes the
    /// other's.
    fn draft(&self) -> Result<NamedTempFile, Failure> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".continuo-").suffix(".part");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(self.folder()).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        // What is told beside the kind is the name of the draft.
        let reason = if error.get_ref().is_some() { error.kind().to_string() } else { error.to_string() };
        Failure(format!("--output: {} cannot be written: {reason}; name another file.", self.name()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(path: &Path) -> String {
        match Output::at(path) {
            Ok(_) => panic!("{} can be written", path.display()),
            Err(Failure(sentence)) => sentence,
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_said_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("folder.wav")).unwrap();
        for (name, word) in
            [("absent/x.wav", "no folder"), ("folder.wav", "is a folder"), ("x.aac", ".flac"), ("x", ".flac")]
        {
            let sentence = refused(&folder.path().join(name));
            assert!(sentence.contains("--output") && sentence.contains(word), "{sentence}");
        }
        #[cfg(target_os = "linux")]
        {
            let sentence = refused(Path::new("/proc/x.wav"));
            assert!(sentence.contains("cannot be written") && !sentence.contains(".part"), "{sentence}");
        }
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(refused(&file.join("x.wav")).contains("no folder"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn only_the_named_file_is_written_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.wav");
        // Somebody else's, of the name that a careless program would take.
        std::fs::write(folder.path().join("x.part"), b"theirs").unwrap();
        std::fs::write(&file, b"old").unwrap();
        let output = Output::at(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        output.write(b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(std::fs::read(folder.path().join("x.part")).unwrap(), b"theirs");
        #[cfg(unix)]
        {
            use std::os::unix::fs::{PermissionsExt, symlink};
            let link = folder.path().join("link.wav");
            symlink(&file, &link).unwrap();
            Output::at(&link).unwrap().write(b"newer").unwrap();
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(std::fs::read(&file).unwrap(), b"newer");
            // Readable by whom the user's mask allows, as any file that a program writes.
            let plain = folder.path().join("plain");
            std::fs::write(&plain, b"x").unwrap();
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&file), mode(&plain));
        }
    }
}
