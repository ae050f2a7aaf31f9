//! Rows as values, and values as rows.

use rusqlite::{Connection, Row, params};

use super::super::{AudioId, Kind, Lane, Params, Render, SessionId};
use super::records::{ClipRecord, ClipState, SessionRecord};
use super::stored;

pub(super) fn text(id: Option<AudioId>) -> Option<String> {
    id.map(|id| id.to_string())
}

fn audio(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<AudioId>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|text| text.parse().ok()))
}

pub(super) fn session_of(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    let (id, kept): (String, String) = (row.get("id")?, row.get("params")?);
    let params = stored::read(&kept);
    Ok(SessionRecord {
        id: SessionId::parse(&id).map_err(|_| rusqlite::Error::InvalidQuery)?,
        origin: row.get("origin")?,
        unreadable: params.is_none().then_some(kept),
        params: params.unwrap_or_default(),
        pinned: row.get("pinned")?,
        initial: audio(row, "initial")?,
        input: audio(row, "input")?,
        current: audio(row, "current")?,
        transform_input: audio(row, "transform_input")?,
        created: row.get("created")?,
        updated: row.get("updated")?,
    })
}

pub(super) fn clip_of(row: &Row<'_>) -> rusqlite::Result<ClipRecord> {
    let broken = || rusqlite::Error::InvalidQuery;
    let (id, session): (String, String) = (row.get("id")?, row.get("session")?);
    let (kind, state): (String, String) = (row.get("kind")?, row.get("state")?);
    let kind = Kind::named(&kind).ok_or_else(broken)?;
    let params: Option<Params> = stored::read(&row.get::<_, String>("params")?);
    let render: Option<Render> = row.get::<_, Option<String>>("flow")?.and_then(|kept| stored::read(&kept));
    let is_known = if kind.lane() == Lane::Pieces { params.is_some() } else { render.is_some() };
    Ok(ClipRecord {
        id: id.parse().map_err(|_| broken())?,
        session: SessionId::parse(&session).map_err(|_| broken())?,
        owner: row.get("owner")?,
        kind,
        params: params.unwrap_or_default(),
        unreadable: !is_known,
        render,
        state: ClipState::named(&state),
        error: row.get("error")?,
        name: row.get("name")?,
        parent: row.get::<_, Option<String>>("parent")?.and_then(|id| id.parse().ok()),
        input: audio(row, "input")?,
        output: audio(row, "output")?,
        delivered: row.get("delivered")?,
        attempts: row.get("attempts")?,
        created: row.get("created")?,
        finished: row.get("finished")?,
    })
}

/// Rows as values. A row that is not understood (somebody's hand, a worn disk) is told and left
/// where it is.
pub(super) fn understood<T>(rows: impl Iterator<Item = rusqlite::Result<T>>) -> rusqlite::Result<Vec<T>> {
    let strange = |error: &rusqlite::Error| {
        matches!(
            error,
            rusqlite::Error::InvalidQuery
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
        )
    };
    let known = rows.filter(|row| match row {
        Err(error) if strange(error) => {
            tracing::warn!(%error, "a row of the table is not understood; it is left out");
            false
        }
        _ => true,
    });
    known.collect()
}

pub(super) fn put_session(connection: &Connection, session: &SessionRecord, now: i64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO sessions (id, origin, params, pinned, initial, input, current, transform_input, created, updated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET params = ?3, pinned = ?4, initial = ?5, input = ?6, current = ?7,
             transform_input = ?8, updated = ?10",
        params![
            session.id.as_str(),
            session.origin,
            session.unreadable.clone().unwrap_or_else(|| stored::write(&session.params)),
            session.pinned,
            text(session.initial),
            text(session.input),
            text(session.current),
            text(session.transform_input),
            now,
            now,
        ],
    )?;
    Ok(())
}

pub(super) fn put_audio(connection: &Connection, session: &SessionId, id: AudioId, bytes: u64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO audio (id, session, bytes) VALUES (?1, ?2, ?3)",
        params![id.to_string(), session.as_str(), bytes as i64],
    )?;
    Ok(())
}

/// Forgets the sounds of a session that nothing names any more; their files go after the
/// transaction.
pub(super) fn forget_unused(connection: &Connection, session: &SessionId) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM audio WHERE session = ?1
           AND id NOT IN (SELECT used FROM (
               SELECT initial AS used FROM sessions WHERE id = ?1
               UNION SELECT input FROM sessions WHERE id = ?1
               UNION SELECT current FROM sessions WHERE id = ?1
               UNION SELECT transform_input FROM sessions WHERE id = ?1
               UNION SELECT input FROM clips WHERE session = ?1 AND state = 'accepted'
               UNION SELECT output FROM clips WHERE session = ?1) WHERE used IS NOT NULL)",
    )?;
    statement.execute([session.as_str()])?;
    Ok(())
}
