//! Sessions of the table.

use rusqlite::OptionalExtension;

use super::super::{SessionId, StudioError};
use super::records::SessionRecord;
use super::rows::{session_of, understood};
use super::{Store, files, sweep};

impl Store {
    /// A session.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::Store`].
    pub async fn session(&self, id: &SessionId) -> Result<SessionRecord, StudioError> {
        let id = id.clone();
        self.with(move |table| {
            let mut statement = table.prepare_cached("SELECT * FROM sessions WHERE id = ?1")?;
            let found = statement.query_row([id.as_str()], session_of).optional()?;
            found.ok_or_else(|| StudioError::NoSession(id.to_string()))
        })
        .await
    }

    /// Sessions, the latest change first.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn sessions(&self, most: usize) -> Result<Vec<SessionRecord>, StudioError> {
        self.with(move |table| {
            let mut statement = table.prepare_cached("SELECT * FROM sessions ORDER BY updated DESC LIMIT ?1")?;
            let rows = statement.query_map([most as i64], session_of)?;
            Ok(understood(rows)?)
        })
        .await
    }

    /// Removes a session with its clips and sounds.
    ///
    /// # Errors
    /// [`StudioError::NoSession`], [`StudioError::Store`].
    pub async fn remove_session(&self, id: &SessionId) -> Result<(), StudioError> {
        let (id, folder) = (id.clone(), std::sync::Arc::clone(&self.folder));
        self.with(move |table| {
            let sql = "DELETE FROM sessions WHERE id = ?1";
            let mut removed = table.execute(sql, [id.as_str()]).map_err(|error| folder.explained(error.into()));
            if matches!(removed, Err(StudioError::NoRoom(_))) {
                // The table needs room to say that there is room.
                files::remove_first(&folder, &sweep::sounds_of(table, &id)?);
                removed = Ok(table.execute(sql, [id.as_str()])?);
            }
            if removed? == 0 { Err(StudioError::NoSession(id.to_string())) } else { Ok(()) }
        })
        .await
    }
}
