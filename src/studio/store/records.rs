//! Rows as values, and the few statements that read and write them. Every change is one transaction.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::super::{AudioId, ClipId, Kind, Lane, Owner, Params, Render, SessionId, StudioError};
use super::{Draft, Store, files, stored, sweep};

/// A session at rest.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// How it came to be: `bang`, `continue`, `crop`, `restore`, `upload`, `generate`, `transform`, `loop`.
    pub origin: String,
    /// Parameters of the latest accepted request.
    pub params: Params,
    /// What is kept of them, if another version wrote it in a shape that is not known here; it stays as it is.
    pub unreadable: Option<String>,
    /// Kept whatever its age and size.
    pub pinned: bool,
    /// Input of the bang that began it.
    pub initial: Option<AudioId>,
    /// The input that the last successful continue, retry or transform used.
    pub input: Option<AudioId>,
    /// Its present sound.
    pub current: Option<AudioId>,
    /// Input of the last accepted transform.
    pub transform_input: Option<AudioId>,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub updated: i64,
}

impl SessionRecord {
    /// A new one without sound.
    pub fn new(id: SessionId, origin: &str, params: Params) -> Self {
        Self {
            id,
            origin: origin.into(),
            params,
            unreadable: None,
            pinned: false,
            initial: None,
            input: None,
            current: None,
            transform_input: None,
            // The store says when.
            created: 0,
            updated: 0,
        }
    }
}

/// How far a clip is, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipState {
    /// Waiting or running: after a restart it runs (again).
    Accepted,
    /// Its sound is there.
    Completed,
    /// It ended with an error.
    Failed,
    /// It was given up.
    Cancelled,
}

impl ClipState {
    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn named(name: &str) -> Self {
        [Self::Accepted, Self::Completed, Self::Cancelled]
            .into_iter()
            .find(|s| s.name() == name)
            .unwrap_or(Self::Failed)
    }
}

/// A clip at rest.
#[derive(Debug, Clone)]
pub struct ClipRecord {
    /// Its name.
    pub id: ClipId,
    /// The session that it belongs to.
    pub session: SessionId,
    /// Who asked.
    pub owner: String,
    /// What is done.
    pub kind: Kind,
    /// How, if it is a piece.
    pub params: Params,
    /// Another version kept how in a shape that is not known here: it cannot be made.
    pub unreadable: bool,
    /// How, if it is a transform or a loop.
    pub render: Option<Render>,
    /// How far it is.
    pub state: ClipState,
    /// Why it failed.
    pub error: Option<String>,
    /// What somebody calls it.
    pub name: Option<String>,
    /// The clip of the same session whose result it works on.
    pub parent: Option<ClipId>,
    /// The sound that it works on.
    pub input: Option<AudioId>,
    /// The result.
    pub output: Option<AudioId>,
    /// Whether some client was handed the result.
    pub delivered: bool,
    /// How often its making was begun and did not end, because the server did.
    pub attempts: u32,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub finished: Option<i64>,
}

impl ClipRecord {
    /// A new one that is still to be made.
    pub fn new(session: SessionId, owner: Owner, kind: Kind) -> Self {
        Self {
            id: ClipId::random(),
            session,
            owner: owner.0,
            kind,
            params: Params::default(),
            unreadable: false,
            render: None,
            state: ClipState::Accepted,
            error: None,
            name: None,
            parent: None,
            input: None,
            output: None,
            delivered: false,
            attempts: 0,
            // The store says when.
            created: 0,
            finished: None,
        }
    }

    /// The words that it is made by.
    pub fn text(&self) -> &str {
        self.render.as_ref().map_or_else(|| self.params.text(), Render::text)
    }

    /// The seed that makes it again.
    pub fn seed(&self) -> Option<u64> {
        self.render.as_ref().map_or(self.params.seed, |render| Some(render.seed()))
    }
}

fn text(id: Option<AudioId>) -> Option<String> {
    id.map(|id| id.to_string())
}

fn audio(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<AudioId>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|text| text.parse().ok()))
}

fn session_of(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
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

fn clip_of(row: &Row<'_>) -> rusqlite::Result<ClipRecord> {
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

/// Rows as values. A row that is not understood (somebody's hand, a worn disk) is told and left where it is.
fn understood<T>(rows: impl Iterator<Item = rusqlite::Result<T>>) -> rusqlite::Result<Vec<T>> {
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

fn put_session(connection: &Connection, session: &SessionRecord, now: i64) -> rusqlite::Result<()> {
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

fn put_audio(connection: &Connection, session: &SessionId, id: AudioId, bytes: u64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO audio (id, session, bytes) VALUES (?1, ?2, ?3)",
        params![id.to_string(), session.as_str(), bytes as i64],
    )?;
    Ok(())
}

/// Forgets the sounds of a session that nothing names any more; their files go after the transaction.
fn forget_unused(connection: &Connection, session: &SessionId) -> rusqlite::Result<()> {
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

impl Store {
    /// Writes a session, a new sound of it, and perhaps a clip, at once; says when. Unused sounds are removed.
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn accept(
        &self,
        session: SessionRecord,
        sound: Option<Draft>,
        clip: Option<ClipRecord>,
    ) -> Result<i64, StudioError> {
        self.with(move |table| {
            let now = table.now();
            let transaction = table.transaction()?;
            put_session(&transaction, &session, now)?;
            if let Some(sound) = &sound {
                put_audio(&transaction, &session.id, sound.id(), sound.bytes())?;
            }
            if let Some(clip) = clip {
                transaction.execute(
                    "INSERT INTO clips
                         (id, session, owner, kind, params, state, parent, input, output, delivered, created, finished,
                          flow)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                    params![
                        clip.id.to_string(),
                        clip.session.as_str(),
                        clip.owner,
                        clip.kind.name(),
                        stored::write(&clip.params),
                        clip.state.name(),
                        clip.parent.map(|id| id.to_string()),
                        text(clip.input),
                        text(clip.output),
                        clip.delivered,
                        now,
                        (clip.state != ClipState::Accepted).then_some(now),
                        clip.render.as_ref().map(stored::write),
                    ],
                )?;
            }
            forget_unused(&transaction, &session.id)?;
            transaction.commit()?;
            if let Some(sound) = sound {
                sound.settle();
            }
            Ok(now)
        })
        .await
    }

    /// Writes that the making of a clip begins, so that a clip that ends the server is not begun for ever.
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn begin(&self, clip: ClipId) -> Result<(), StudioError> {
        self.count(clip, "attempts + 1").await
    }

    /// Writes that the server ends in order, and that the clip has no part in it.
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn pause(&self, clip: ClipId) -> Result<(), StudioError> {
        self.count(clip, "max(attempts - 1, 0)").await
    }

    async fn count(&self, clip: ClipId, attempts: &'static str) -> Result<(), StudioError> {
        self.with(move |table| {
            let sql = format!("UPDATE clips SET attempts = {attempts} WHERE id = ?1");
            table.prepare_cached(&sql)?.execute([clip.to_string()])?;
            Ok(())
        })
        .await
    }

    /// Writes that a clip is complete: its result is the session's present sound, its input the session's input (but
    /// not that of a bang).
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn complete(&self, clip: &ClipRecord, output: Draft) -> Result<(), StudioError> {
        let clip = clip.clone();
        self.with(move |table| {
            let now = table.now();
            let transaction = table.transaction()?;
            put_audio(&transaction, &clip.session, output.id(), output.bytes())?;
            let keeps_input = matches!(clip.kind, Kind::Continue | Kind::Retry | Kind::Transform);
            transaction.execute(
                "UPDATE sessions SET current = ?2, input = CASE WHEN ?3 THEN ?4 ELSE input END, updated = ?5
                 WHERE id = ?1",
                params![clip.session.as_str(), output.id().to_string(), keeps_input, text(clip.input), now],
            )?;
            transaction.execute(
                "UPDATE clips SET state = 'completed', output = ?2, finished = ?3 WHERE id = ?1",
                params![clip.id.to_string(), output.id().to_string(), now],
            )?;
            forget_unused(&transaction, &clip.session)?;
            transaction.commit()?;
            output.settle();
            Ok(())
        })
        .await
    }

    /// Writes that a clip has ended without a result.
    ///
    /// # Errors
    /// [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn end(&self, clip: ClipId, state: ClipState, error: Option<String>) -> Result<(), StudioError> {
        self.with(move |table| {
            let now = table.now();
            table.execute(
                "UPDATE clips SET state = ?2, error = ?3, finished = ?4 WHERE id = ?1 AND state = 'accepted'",
                params![clip.to_string(), state.name(), error, now],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes that some client was handed a clip's result.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn delivered(&self, clip: ClipId) -> Result<(), StudioError> {
        self.with(move |table| {
            table.execute("UPDATE clips SET delivered = 1 WHERE id = ?1", [clip.to_string()])?;
            Ok(())
        })
        .await
    }

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

    /// A clip.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::Store`].
    pub async fn clip(&self, id: ClipId) -> Result<ClipRecord, StudioError> {
        self.with(move |table| {
            let mut statement = table.prepare_cached("SELECT * FROM clips WHERE id = ?1")?;
            let found = statement.query_row([id.to_string()], clip_of).optional()?;
            found.ok_or_else(|| StudioError::NoClip(id.to_string()))
        })
        .await
    }

    /// Clips of one session, or of all, the newest first.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn clips(&self, session: Option<&SessionId>, most: usize) -> Result<Vec<ClipRecord>, StudioError> {
        let session = session.map(|session| session.as_str().to_owned());
        self.with(move |table| {
            let mut statement = table.prepare_cached(
                "SELECT * FROM clips WHERE ?1 IS NULL OR session = ?1 ORDER BY sequence DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![session, most as i64], clip_of)?;
            Ok(understood(rows)?)
        })
        .await
    }

    /// The clip of a session that made a sound.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn maker(&self, session: &SessionId, sound: AudioId) -> Result<Option<ClipId>, StudioError> {
        let session = session.clone();
        self.with(move |table| {
            let mut statement = table.prepare_cached("SELECT id FROM clips WHERE session = ?1 AND output = ?2")?;
            let found = statement.query_row([session.as_str(), &sound.to_string()], |row| row.get::<_, String>(0));
            Ok(found.optional()?.and_then(|id| id.parse().ok()))
        })
        .await
    }

    /// Calls a clip something else, or nothing.
    ///
    /// # Errors
    /// [`StudioError::NoClip`], [`StudioError::NoRoom`], [`StudioError::Store`].
    pub async fn rename(&self, clip: ClipId, name: Option<String>) -> Result<(), StudioError> {
        self.with(move |table| {
            let sql = "UPDATE clips SET name = ?2 WHERE id = ?1";
            let renamed = table.prepare_cached(sql)?.execute(params![clip.to_string(), name])?;
            if renamed == 0 { Err(StudioError::NoClip(clip.to_string())) } else { Ok(()) }
        })
        .await
    }

    /// Clips that were accepted and have not ended, the oldest first.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn unfinished(&self) -> Result<Vec<ClipRecord>, StudioError> {
        self.with(|table| {
            let mut statement =
                table.prepare_cached("SELECT * FROM clips WHERE state = 'accepted' ORDER BY sequence")?;
            let rows = statement.query_map([], clip_of)?;
            Ok(understood(rows)?)
        })
        .await
    }
}
