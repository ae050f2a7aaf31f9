//! Clips of the table, from the moment that they are taken on to their end. Every change is one
//! transaction.

use rusqlite::{OptionalExtension, params};

use super::super::{AudioId, ClipId, Kind, SessionId, StudioError};
use super::records::{ClipRecord, ClipState, SessionRecord};
use super::rows::{clip_of, forget_unused, put_audio, put_session, text, understood};
use super::{Draft, Store, stored};

impl Store {
    /// Writes a session, a new sound of it, and perhaps a clip, at once; says when. Unused sounds
    /// are removed.
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

    /// Writes that the making of a clip begins, so that a clip that ends the server is not begun
    /// for ever.
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

    /// Writes that a clip is complete: its result is the session's present sound, its input the
    /// session's input (but not that of a bang).
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
