//! The tables, and how an older file becomes a newer one.

use std::path::Path;

use rusqlite::Connection;

use super::super::StudioError;

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
];

pub(super) fn open(path: &Path) -> Result<Connection, StudioError> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection, STEPS)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), StudioError> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = version as usize;
    if version > steps.len() {
        return Err(StudioError::Store(format!(
            "it was written by a newer Continuo (version {version} of the tables, this one knows {}); update this one.",
            steps.len()
        )));
    }
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
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection, STEPS).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
    }
}
