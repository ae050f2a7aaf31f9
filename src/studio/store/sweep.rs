//! What is removed, and when: what is too old, what is too much, what a killed server need not have
//! remembered.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::super::{AudioId, SessionId, StudioError};
use super::files::LOCK;
use super::{EPHEMERAL, Store, Table};

/// How long and how much is kept; `None` is for ever, and whatever it takes.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Sessions that were not touched for so long go with their clips. The time that a server runs
    /// counts.
    pub age: Option<Duration>,
    /// Bytes of all sounds at most: for more the sessions untouched for longest go.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    /// A week and twenty gigabytes.
    fn default() -> Self {
        Self { age: Some(Duration::from_secs(7 * 24 * 3600)), bytes: Some(20 << 30) }
    }
}

/// Sessions that may go: not pinned, and nothing of theirs is being made.
const FREE: &str = "pinned = 0 AND id NOT IN (SELECT session FROM clips WHERE state = 'accepted')";
/// Sessions that go in one transaction: others wait for it.
const AT_ONCE: usize = 32;

impl Store {
    /// Removes what is too old or too much; says how many sessions went.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn sweep(&self, keep: Retention) -> Result<usize, StudioError> {
        let mut all = 0;
        loop {
            let went = self.with(move |table| table.sweep(keep)).await?;
            all += went;
            if went < AT_ONCE {
                return Ok(all);
            }
        }
    }

    /// Bytes of all sounds.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn bytes(&self) -> Result<u64, StudioError> {
        self.with(|table| Ok(total(table)?)).await
    }
}

impl Table {
    fn sweep(&mut self, keep: Retention) -> Result<usize, StudioError> {
        self.clock.remember(&self.connection)?;
        let (now, is_trusted) = (self.now(), self.clock.is_trusted());
        let transaction = self.transaction()?;
        let mut going: Vec<String> = Vec::new();
        if let Some(age) = keep.age.filter(|_| is_trusted) {
            let oldest = now.saturating_sub_unsigned(age.as_secs());
            let sql = format!("SELECT id FROM sessions WHERE updated < ?1 AND {FREE} ORDER BY updated LIMIT ?2");
            let rows = params![oldest, AT_ONCE as i64];
            going = transaction.prepare(&sql)?.query_map(rows, |row| row.get(0))?.collect::<Result<_, _>>()?;
        }
        for id in &going {
            transaction.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
        }
        let mut went = going.len();
        if let Some(most) = keep.bytes {
            let over = total(&transaction)?.saturating_sub(most);
            went += let_go(&transaction, over, "", AT_ONCE - went)?.0;
        }
        transaction.commit()?;
        Ok(went)
    }
}

/// Makes sure that `wanted` more bytes are within `most`, by letting go of what was not touched for
/// longest, but nothing of the session `of`.
///
/// # Errors
/// [`StudioError::NoRoom`] when what may go is not enough; nothing goes then.
pub(super) fn make_room(table: &mut Table, most: u64, wanted: u64, of: &SessionId) -> Result<(), StudioError> {
    let transaction = table.transaction()?;
    let over = total(&transaction)?.saturating_add(wanted).saturating_sub(most);
    if over == 0 {
        return Ok(());
    }
    let (sessions, freed) = let_go(&transaction, over, of.as_str(), usize::MAX)?;
    if freed < over {
        return Err(StudioError::NoRoom(format!(
            "sounds may take {:.1} GB here, and what is there is pinned or in use. Unpin or remove sessions that are not \
             needed, or start the server with a larger --keep-gb.",
            most as f64 / f64::from(1 << 30)
        )));
    }
    transaction.commit()?;
    tracing::info!(sessions, "the sessions untouched for longest were removed: sounds take what --keep-gb allows");
    Ok(())
}

/// Lets go of at least `over` bytes, at most of so many sessions; says how many went and what was
/// freed.
fn let_go(connection: &Connection, over: u64, but: &str, most: usize) -> rusqlite::Result<(usize, u64)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, (SELECT coalesce(sum(bytes), 0) FROM audio WHERE session = sessions.id)
         FROM sessions WHERE id <> ?1 AND {FREE} ORDER BY updated, created, rowid"
    ))?;
    let mut rows = statement.query([but])?;
    let (mut going, mut freed) = (Vec::new(), 0);
    while freed < over && going.len() < most {
        let Some(row) = rows.next()? else { break };
        let (id, bytes): (String, i64) = (row.get(0)?, row.get(1)?);
        going.push(id);
        freed += u64::try_from(bytes).unwrap_or(0);
    }
    drop(rows);
    for id in &going {
        connection.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
    }
    Ok((going.len(), freed))
}

fn total(connection: &Connection) -> rusqlite::Result<u64> {
    let bytes: i64 = connection.query_row("SELECT coalesce(sum(bytes), 0) FROM audio", [], |row| row.get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The sounds of a session.
pub(super) fn sounds_of(connection: &Connection, session: &SessionId) -> rusqlite::Result<Vec<AudioId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM audio WHERE session = ?1")?;
    let ids = statement.query_map([session.as_str()], |row| row.get::<_, String>(0))?;
    ids.filter_map(|id| id.map(|id| id.parse().ok()).transpose()).collect()
}

/// Removes from `folder` what killed servers left there that need not have remembered anything:
/// nobody holds its lock, which is older than `age`. What cannot be removed stays.
pub(super) fn remove_abandoned(folder: &Path, age: Duration) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // Anybody may have called a folder of his own something like it: only names that are made here
    // count.
    let ephemeral = |name: &str| {
        let id = name.strip_prefix(EPHEMERAL)?;
        Uuid::try_parse(id).ok().filter(|parsed| parsed.simple().to_string() == id)
    };
    for entry in entries.filter(|entry| ephemeral(&entry.file_name().to_string_lossy()).is_some()) {
        let lock = entry.path().join(LOCK);
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
            locked.then(|| fs::File::create(path.join(LOCK)).unwrap())
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
