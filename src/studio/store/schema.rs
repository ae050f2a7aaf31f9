//! The tables, and how an older file becomes a newer one.

use std::path::Path;

use rusqlite::Connection;

use super::super::StudioError;
use super::broken;

/// Step `n` makes version `n + 1` of version `n`. Steps that were released are never changed.
const STEPS: &[&str] = &[
    "
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        origin TEXT NOT NULL,
        params TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        initial TEXT,
        input TEXT,
        current TEXT,
        transform_input TEXT,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE clips (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        params TEXT NOT NULL,
        state TEXT NOT NULL,
        error TEXT,
        input TEXT,
        output TEXT,
        delivered INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL,
        finished INTEGER
    ) STRICT;
    CREATE INDEX clips_of_session ON clips (session, sequence);
    CREATE INDEX clips_by_state ON clips (state);
    CREATE TABLE audio (
        id TEXT PRIMARY KEY,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX audio_of_session ON audio (session);
",
    "
    ALTER TABLE clips ADD COLUMN flow TEXT;
",
    // How often the making of a clip was begun and not ended; files to be removed; when a server
    // was last seen to run.
    "
    ALTER TABLE clips ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE gone (id TEXT PRIMARY KEY) STRICT;
    CREATE TRIGGER audio_gone AFTER DELETE ON audio BEGIN
        INSERT OR IGNORE INTO gone (id) VALUES (OLD.id);
    END;
    CREATE TABLE clock (id INTEGER PRIMARY KEY, seen INTEGER NOT NULL) STRICT;
",
    // What clips are called, and the clip whose sound each was made of.
    "
    ALTER TABLE clips ADD COLUMN name TEXT;
    ALTER TABLE clips ADD COLUMN parent TEXT;
",
    // Which of the processes that went on with a session wrote it.
    "
    ALTER TABLE sessions ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
",
];

/// The version that is written now.
pub(super) const fn newest() -> usize {
    STEPS.len()
}

/// Says that a table was written by a program newer than this one, if it was.
pub(super) fn refuse_newer(connection: &Connection, path: &Path) -> Result<(), StudioError> {
    let version = version(connection).map_err(|error| broken(path, error))?;
    if version <= STEPS.len() {
        return Ok(());
    }
    Err(StudioError::Store(format!(
        "{} was written by a newer Continuo (version {version} of the tables, this one knows {}); update this one, or \
         name another folder with --data.",
        path.display(),
        STEPS.len()
    )))
}

/// Makes a table that was found sound ready for work.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(connection, STEPS)?;
    gather(connection)
}

/// Moves what is in the log beside the table into the table.
pub(super) fn gather(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// From this version on a process that dies leaves no whole sound without a row.
pub(super) const NOTHING_LEFT: usize = 3;

pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version as usize)
}

fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let version = version(connection)?;
    for (index, step) in steps.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", index as u32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_of_any_older_version_becomes_the_present_one() {
        let steps = [STEPS, &["ALTER TABLE sessions ADD COLUMN more TEXT;"]].concat();
        for before in 0..=steps.len() {
            let mut connection = Connection::open_in_memory().unwrap();
            migrate(&mut connection, &steps[..before]).unwrap();
            migrate(&mut connection, &steps).unwrap();
            connection.execute("UPDATE sessions SET more = 'x'", []).unwrap();
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_version_whole() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, STEPS).unwrap();
        let bad = [STEPS, &["CREATE TABLE half (x) STRICT; CREATE NONSENSE;"]].concat();
        assert!(migrate(&mut connection, &bad).is_err());
        assert!(connection.execute("SELECT * FROM half", []).is_err());
        migrate(&mut connection, STEPS).unwrap();
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_in_a_sentence() {
        let connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = refuse_newer(&connection, Path::new("studio.db")).unwrap_err().to_string();
        assert!(error.contains("newer") && error.contains("studio.db"), "{error}");
    }
}
