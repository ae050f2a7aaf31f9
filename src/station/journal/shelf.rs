//! Where the pieces of journals lie beyond the memory of the process: a folder of files, written by
//! a thread of its own.
//!
//! A stream's task never waits for a disk. What the thread has written survives the end of the
//! process; what a machine without power loses is what the system had not written yet.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::index::Index;
use super::record::{Head, Record, records};

/// Writes that may wait for the disk: a minute of many streams. Beyond that pieces get holes.
const WAITING: usize = 8192;
/// What files of pieces end with.
const EXTENSION: &str = "journal";

/// A place for pieces. Other places than a folder can stand behind it.
pub trait Shelf: Send + Sync {
    /// Appends to a piece, soon.
    fn append(&self, stream: &str, piece: u64, bytes: Vec<u8>);
    /// Everything that was appended to a piece some time ago. Waits for the disk.
    ///
    /// # Errors
    /// Those of the disk, or of what stands in its place.
    fn read(&self, stream: &str, piece: u64) -> io::Result<Vec<u8>>;
    /// Removes a piece, soon.
    fn remove(&self, stream: &str, piece: u64);
    /// Removes all pieces of a stream, soon.
    fn forget(&self, stream: &str);
}

enum Task {
    Append(PathBuf, Vec<u8>),
    Remove(PathBuf),
    Forget(PathBuf),
}

/// A folder with one of its own for every stream.
pub(super) struct Folder {
    path: PathBuf,
    tasks: SyncSender<Task>,
}

/// A stream's pieces as they were found, oldest first.
pub(super) struct Found {
    /// Of the newest one.
    pub(super) head: Head,
    pub(super) index: Index,
    /// Their numbers, beginnings and bytes.
    pub(super) pieces: Vec<(u64, u64, usize)>,
}

impl Folder {
    /// Opens the folder, creating it if need be; gives what it holds, with torn tails cut off.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Found>)> {
        fs::create_dir_all(path)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.extend(stream(&entry.path())?);
            }
        }
        let (tasks, inbox) = sync_channel(WAITING);
        std::thread::Builder::new().name("journal".into()).spawn(move || write(&inbox))?;
        Ok((Self { path: path.to_owned(), tasks }, found))
    }

    fn piece(&self, stream: &str, piece: u64) -> PathBuf {
        self.path.join(stream).join(format!("{piece:08}.{EXTENSION}"))
    }

    fn send(&self, task: Task) {
        if self.tasks.try_send(task).is_err() {
            tracing::warn!("the disk does not keep up with the journals; a piece of one is lost");
        }
    }
}

impl Shelf for Folder {
    fn append(&self, stream: &str, piece: u64, bytes: Vec<u8>) {
        self.send(Task::Append(self.piece(stream, piece), bytes));
    }

    fn read(&self, stream: &str, piece: u64) -> io::Result<Vec<u8>> {
        fs::read(self.piece(stream, piece))
    }

    fn remove(&self, stream: &str, piece: u64) {
        self.send(Task::Remove(self.piece(stream, piece)));
    }

    fn forget(&self, stream: &str) {
        self.send(Task::Forget(self.path.join(stream)));
    }
}

/// What a stream's folder holds; `None` if that is no journal of this version.
fn stream(path: &Path) -> io::Result<Option<Found>> {
    let mut names: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let number = file.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| file.extension().is_some_and(|is| is == EXTENSION)) {
            names.push((number, file));
        }
    }
    names.sort();
    let mut found = None;
    for (number, file) in names {
        let bytes = fs::read(&file)?;
        match Found::piece(&mut found, number, &bytes) {
            Some(whole) if whole < bytes.len() => {
                tracing::info!(file = %file.display(), cut = bytes.len() - whole, "a torn tail was cut off a journal");
                OpenOptions::new().write(true).open(&file)?.set_len(whole as u64)?;
            }
            Some(_) => {}
            None => tracing::warn!(file = %file.display(), "this is no piece of a journal that can be read"),
        }
    }
    Ok(found)
}

impl Found {
    /// Adds the next piece to what was found; gives the length of what can be read of it, `None` if
    /// it is none.
    pub(super) fn piece(found: &mut Option<Self>, number: u64, bytes: &[u8]) -> Option<usize> {
        let (all, ends): (Vec<Record>, Vec<usize>) = records(bytes).unzip();
        let whole = ends.last().copied().unwrap_or(0);
        let head = match all.first() {
            Some(Record::Head(head)) if head.version == super::record::VERSION => head.clone(),
            _ => return None,
        };
        // What lies before a hole does not connect to what lies behind it.
        found.take_if(|before| head.start > before.index.end());
        let (mut index, mut pieces) =
            found.take().map_or_else(Default::default, |before| (before.index, before.pieces));
        all.iter().for_each(|record| index.note(record));
        pieces.push((number, head.start, whole));
        *found = Some(Self { head, index, pieces });
        Some(whole)
    }
}

/// The thread: writes until nobody can ask it to any more.
fn write(inbox: &Receiver<Task>) {
    // A file that a write has failed on is torn: it gets no more.
    let mut torn: HashSet<PathBuf> = HashSet::new();
    for task in inbox {
        match task {
            Task::Append(file, bytes) if !torn.contains(&file) => {
                if let Err(error) = append(&file, &bytes) {
                    tracing::warn!(file = %file.display(), %error, "a journal cannot be written; its stream plays on");
                    torn.insert(file);
                }
            }
            Task::Append(..) => {}
            Task::Remove(file) => {
                torn.remove(&file);
                gone(fs::remove_file(&file), &file);
            }
            Task::Forget(folder) => {
                torn.retain(|file| !file.starts_with(&folder));
                gone(fs::remove_dir_all(&folder), &folder);
            }
        }
    }
}

fn append(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let open = || -> io::Result<File> { OpenOptions::new().append(true).create(true).open(file) };
    let mut piece = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            open()?
        }
        opened => opened?,
    };
    piece.write_all(bytes)
}

fn gone(removed: io::Result<()>, path: &Path) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "an old journal cannot be removed");
        }
        _ => {}
    }
}
