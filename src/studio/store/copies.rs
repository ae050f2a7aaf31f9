//! A session as a text that another process can go on with: its rows as the table keeps them, each
//! value under the name of its column. The version is that of the tables; columns that one of the
//! two does not know have their defaults.

use rusqlite::types::{ToSqlOutput, Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::{AudioId, ClipId, SessionId, StudioError};
use super::{Draft, Store, schema, sweep};

type Row = Map<String, Value>;

/// Bytes of a copy's rows; of more clips the oldest that are complete are left out.
const MOST: usize = 640 << 10;

/// A session to be gone on with.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionCopy {
    /// Which.
    pub session: SessionId,
    /// What the table has of it.
    pub rows: String,
    /// Its clips.
    pub clips: Vec<ClipId>,
    /// Its sounds.
    pub sounds: Vec<AudioId>,
    /// Something of it waits or is being made.
    pub is_unfinished: bool,
    /// Raised by each process that goes on with it; 0 of one that was never copied.
    pub generation: u64,
}

#[derive(Serialize, Deserialize)]
struct Rows {
    version: usize,
    session: Row,
    /// The oldest first.
    clips: Vec<Row>,
}

/// A value of JSON as one of the table.
struct Cell<'a>(&'a Value);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Number(number) => ToSqlOutput::Owned(number.as_i64().map_or(Sql::Null, Sql::Integer)),
            _ => ToSqlOutput::Owned(Sql::Null),
        })
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let mut values = Row::new();
    for (index, column) in row.as_ref().column_names().enumerate() {
        let value = match row.get_ref(index)? {
            ValueRef::Integer(number) => number.into(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
            _ => Value::Null,
        };
        values.insert(column.to_owned(), value);
    }
    Ok(values)
}

fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn export(connection: &Connection, session: &SessionId) -> rusqlite::Result<Option<SessionCopy>> {
    let sql = "SELECT * FROM sessions WHERE id = ?1";
    let found = connection.prepare_cached(sql)?.query_row([session.as_str()], row).optional()?;
    let Some(of_session) = found else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT * FROM clips WHERE session = ?1 ORDER BY sequence DESC")?;
    let newest_first: Vec<Row> = statement.query_map([session.as_str()], row)?.collect::<Result<_, _>>()?;
    let (mut clips, mut bytes) = (Vec::new(), 0);
    for clip in newest_first {
        bytes += Value::from(clip.clone()).to_string().len();
        if bytes <= MOST || text(&clip, "state") == "accepted" {
            clips.push(clip);
        }
    }
    clips.reverse();
    let copy = SessionCopy {
        session: session.clone(),
        clips: clips.iter().filter_map(|clip| text(clip, "id").parse().ok()).collect(),
        sounds: sweep::sounds_of(connection, session)?,
        is_unfinished: clips.iter().any(|clip| text(clip, "state") == "accepted"),
        generation: of_session.get("generation").and_then(Value::as_u64).unwrap_or_default(),
        rows: String::new(),
    };
    let rows = Rows { version: schema::newest(), session: of_session, clips };
    Ok(Some(SessionCopy { rows: serde_json::to_string(&rows).unwrap_or_default(), ..copy }))
}

/// Writes a row with the columns that are known here.
fn insert(connection: &Connection, table: &str, row: &Row) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
    let known: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    // Clips are counted anew, in their order.
    let columns = known.iter().filter(|name| *name != "sequence" && row.contains_key(*name));
    let (names, values): (Vec<_>, Vec<_>) = columns.map(|name| (name.as_str(), Cell(&row[name]))).unzip();
    let places = vec!["?"; names.len()].join(", ");
    let sql = format!("INSERT INTO {table} ({}) VALUES ({places})", names.join(", "));
    connection.execute(&sql, params_from_iter(values))?;
    Ok(())
}

impl Store {
    /// A session as it is now, if it is there.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn export(&self, session: &SessionId) -> Result<Option<SessionCopy>, StudioError> {
        let session = session.clone();
        self.with(move |table| Ok(export(table, &session)?)).await
    }

    /// Takes a session in, with its sounds, in place of what was known of it.
    ///
    /// # Errors
    /// [`StudioError::Store`] for a copy that cannot be read, [`StudioError::NoRoom`].
    pub async fn import(&self, copy: SessionCopy, sounds: Vec<Draft>) -> Result<(), StudioError> {
        let strange =
            || StudioError::Store("another version has copied a session in a shape that is not known here.".into());
        let mut rows: Rows = serde_json::from_str(&copy.rows).map_err(|_| strange())?;
        if rows.version > schema::newest() {
            return Err(strange());
        }
        self.with(move |table| {
            let now = table.now();
            let transaction = table.transaction()?;
            transaction.execute("DELETE FROM sessions WHERE id = ?1", [copy.session.as_str()])?;
            rows.session.insert("updated".into(), now.into());
            rows.session.insert("generation".into(), copy.generation.into());
            insert(&transaction, "sessions", &rows.session)?;
            rows.clips.iter().try_for_each(|clip| insert(&transaction, "clips", clip))?;
            for sound in &sounds {
                super::rows::put_audio(&transaction, &copy.session, sound.id(), sound.bytes())?;
                // One that was here before is not removed after all.
                transaction.execute("DELETE FROM gone WHERE id = ?1", [sound.id().to_string()])?;
            }
            transaction.commit()?;
            sounds.into_iter().for_each(Draft::settle);
            Ok(())
        })
        .await
    }

    /// Under which generation a session is here.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn set_generation(&self, session: &SessionId, generation: u64) -> Result<(), StudioError> {
        let session = session.clone();
        self.with(move |table| {
            let sql = "UPDATE sessions SET generation = ?2 WHERE id = ?1";
            table.prepare_cached(sql)?.execute(params![session.as_str(), generation as i64])?;
            Ok(())
        })
        .await
    }

    /// All sessions.
    ///
    /// # Errors
    /// [`StudioError::Store`].
    pub async fn session_ids(&self) -> Result<Vec<SessionId>, StudioError> {
        self.with(|table| {
            let mut statement = table.prepare_cached("SELECT id FROM sessions")?;
            let ids: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(ids.iter().filter_map(|id| SessionId::parse(id).ok()).collect())
        })
        .await
    }
}
