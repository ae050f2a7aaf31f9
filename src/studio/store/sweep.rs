//! What is removed, and when: what is too old, what is too much, what an interrupted process left behind.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::super::{AudioId, StudioError};
use super::records::now;
use super::{EPHEMERAL, Store, broken};

/// How long and how much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Sessions that were not touched for so long go with their clips.
    pub age: Duration,
    /// Bytes of all sounds at most: beyond it the sessions untouched for longest go first.
    pub bytes: u64,
}

impl Default for Retention {
    /// A week and twenty gigabytes.
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 24 * 3600), bytes: 20 << 30 }
    }
}

/// Sessions that may go: not pinned, and nothing of theirs is being made.
const FREE: &str = "pinned = 0 AND id NOT IN (SELECT session FROM clips WHERE state = 'accepted')";

impl Store {
    /// Removes what is too old or too much; says how many sessions went.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn sweep(&self, keep: Retention) -> Result<usize, StudioError> {
        let (sessions, files) = self
            .with(move |connection| {
                let transaction = connection.transaction()?;
                let oldest = now() - keep.age.as_secs() as i64;
                let mut going: Vec<String> = transaction
                    .prepare(&format!("SELECT id FROM sessions WHERE updated < ?1 AND {FREE}"))?
                    .query_map([oldest], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                let sizes: Vec<(String, i64)> = transaction
                    .prepare(&format!(
                        "SELECT id, (SELECT coalesce(sum(bytes), 0) FROM audio WHERE session = sessions.id)
                         FROM sessions WHERE updated >= ?1 AND {FREE} ORDER BY updated, created"
                    ))?
                    .query_map([oldest], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?;
                let mut files = Vec::new();
                for id in &going {
                    files.extend(files_of(&transaction, id)?);
                    transaction.execute("DELETE FROM sessions WHERE id = ?1", params![id])?;
                }
                let mut total: i64 =
                    transaction.query_row("SELECT coalesce(sum(bytes), 0) FROM audio", [], |row| row.get(0))?;
                for (id, bytes) in sizes {
                    if total <= i64::try_from(keep.bytes).unwrap_or(i64::MAX) {
                        break;
                    }
                    files.extend(files_of(&transaction, &id)?);
                    transaction.execute("DELETE FROM sessions WHERE id = ?1", params![id])?;
                    total -= bytes;
                    going.push(id);
                }
                transaction.commit()?;
                Ok((going.len(), files))
            })
            .await?;
        self.remove(files).await;
        Ok(sessions)
    }

    /// Bytes of all sounds.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn bytes(&self) -> Result<u64, StudioError> {
        self.with(|connection| {
            let bytes: i64 = connection.query_row("SELECT coalesce(sum(bytes), 0) FROM audio", [], |row| row.get(0))?;
            Ok(bytes as u64)
        })
        .await
    }
}

/// The files of a session.
pub(super) fn files_of(connection: &Connection, session: &str) -> rusqlite::Result<Vec<AudioId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM audio WHERE session = ?1")?;
    let ids = statement.query_map([session], |row| row.get::<_, String>(0))?;
    ids.map(|id| id.map(|id| id.parse().ok())).filter_map(Result::transpose).collect()
}

/// Removes files that no row names: half written ones, and whole ones whose row was never committed.
pub(super) fn remove_strays(connection: &Connection, folder: &Path) -> Result<(), StudioError> {
    let known: HashSet<String> =
        connection.prepare("SELECT id FROM audio")?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for entry in fs::read_dir(folder).map_err(|error| broken(folder, error))? {
        let entry = entry.map_err(|error| broken(folder, error))?;
        let stray = entry.file_name().to_str().is_none_or(|name| !known.contains(name));
        if stray {
            fs::remove_file(entry.path()).map_err(|error| broken(&entry.path(), error))?;
        }
    }
    Ok(())
}

/// Removes from `folder` what killed servers left there that need not have remembered anything: nobody holds its lock,
/// which is older than `age`. What cannot be removed stays.
pub(super) fn remove_abandoned(folder: &Path, age: Duration) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // Anybody may have called a folder of his own something like it: only names that are made here count.
    let ephemeral = |name: &str| {
        let id = name.strip_prefix(EPHEMERAL)?;
        Uuid::try_parse(id).ok().filter(|parsed| parsed.simple().to_string() == id)
    };
    for entry in entries.filter(|entry| ephemeral(&entry.file_name().to_string_lossy()).is_some()) {
        let lock = entry.path().join("lock");
        let old = |path: &Path| {
            let data = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
            data.modified().ok()?.elapsed().ok().filter(|since| *since >= age)
        };
        let ours = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours && old(&lock).is_some() && fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_nobody_uses_is_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, locked: bool| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            locked.then(|| fs::File::create(path.join("lock")).unwrap())
        };
        let [used, left, without_a_lock] = [(); 3].map(|()| format!("{EPHEMERAL}{}", Uuid::new_v4().simple()));
        // Somebody's sessions, while their server does not run.
        let own = [format!("{EPHEMERAL}data"), format!("{EPHEMERAL}{}", Uuid::new_v4()), "another".to_owned()];
        let lock = make(&used, true).unwrap();
        lock.try_lock().unwrap();
        drop(make(&left, true));
        drop(make(&without_a_lock, false));
        own.iter().for_each(|name| drop(make(name, true)));
        remove_abandoned(folder.path(), Duration::from_secs(3600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
        remove_abandoned(folder.path(), Duration::ZERO);
        let exists = |name: &String| folder.path().join(name).exists();
        assert!(exists(&used) && exists(&without_a_lock) && own.iter().all(exists));
        assert!(!exists(&left));
    }
}
