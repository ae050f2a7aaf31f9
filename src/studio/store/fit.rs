//! Whether a table and the sounds beside it belong together, and what to do with files that are not
//! understood.
//!
//! Nothing is removed here but what this program itself has left half done. A table that is
//! damaged, missing, or of another folder stops the start with a sentence: served, it would let go
//! of sounds that are somebody's work.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::super::{AudioId, StudioError};
use super::files::PARTIAL;
use super::{broken, schema};

/// The table's file.
pub(super) const TABLE: &str = "studio.db";
/// Where files go that are not understood.
const ASIDE: &str = "aside";

/// Opens the table of a folder; nothing is changed unless it fits.
pub(super) fn open(path: &Path) -> Result<Connection, StudioError> {
    let file = path.join(TABLE);
    let sounds = found(path)?.into_iter().filter(|found| matches!(found, Found::Sound(_))).count();
    let damaged = |reason: &str| {
        StudioError::Store(format!(
            "{} is damaged ({reason}). Nothing was changed. Put a copy of it back; or, to begin anew, move it and the \
             folder audio beside it away, or name another folder with --data.",
            file.display()
        ))
    };
    let is_empty = match fs::metadata(&file) {
        Ok(data) if data.is_dir() => return Err(broken(&file, "it is a folder")),
        Ok(data) => data.len() == 0,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(broken(&file, error)),
    };
    if is_empty && sounds > 0 {
        return Err(does_not_fit(path, 0, 0, sounds));
    }
    let mut connection = Connection::open(&file).map_err(|error| broken(&file, error))?;
    let corrupt = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => damaged(&error.to_string()),
        _ => broken(&file, error),
    };
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(corrupt)?;
    let is_ours = ["audio", "clips", "sessions"].iter().all(|name| tables.iter().any(|table| table == name));
    if !tables.is_empty() && !is_ours {
        return Err(damaged("it holds other tables than those of sessions, clips and sounds"));
    }
    schema::refuse_newer(&connection, &file)?;
    let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(corrupt)?;
    if said != "ok" {
        return Err(damaged(said.lines().last().unwrap_or(&said)));
    }
    if is_ours {
        check(&connection, path).map_err(corrupt)??;
    } else if sounds > 0 {
        return Err(does_not_fit(path, 0, 0, sounds));
    }
    schema::prepare(&mut connection).map_err(|error| broken(&file, error))?;
    Ok(connection)
}

/// Whether most of the sounds that a table names are there, and most of those that are there are
/// named.
fn check(connection: &Connection, path: &Path) -> rusqlite::Result<Result<(), StudioError>> {
    let named = named(connection)?;
    let kept: Vec<AudioId> = connection
        .prepare("SELECT id FROM audio")?
        .query_map([], |row| row.get::<_, String>(0))?
        .filter_map(|id| id.map(|id| id.parse().ok()).transpose())
        .collect::<Result<_, _>>()?;
    let found = match found(path) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let mut there = HashSet::new();
    let mut unknown = 0;
    for found in found {
        match found {
            Found::Sound(id) if !named.contains(&id) => unknown += 1,
            Found::Sound(id) | Found::Partial(id) => drop(there.insert(id)),
            Found::Other(_) => {}
        }
    }
    let present = kept.iter().filter(|id| there.contains(id)).count();
    let missing = kept.len() - present;
    // Older versions left sounds behind whose clients had hung up: many of them are no sign.
    let tells = schema::version(connection)? >= schema::NOTHING_LEFT;
    if missing > present || (tells && unknown > present) {
        return Ok(Err(does_not_fit(path, kept.len(), missing, unknown)));
    }
    if missing > 0 {
        tracing::warn!("{missing} of {} sounds are missing in {}", kept.len(), path.join("audio").display());
    }
    Ok(Ok(()))
}

fn does_not_fit(path: &Path, named: usize, missing: usize, unknown: usize) -> StudioError {
    StudioError::Store(format!(
        "{} does not fit the sounds in {}: it names {named}, of which {missing} are missing, and {unknown} are there that \
         it does not name. Nothing was changed. Put back what belongs together (is the right disk mounted?); or, to begin \
         anew, move both away, or name another folder with --data.",
        path.join(TABLE).display(),
        path.join("audio").display(),
    ))
}

/// Finishes or undoes what an interrupted process left half done, and moves aside what is not
/// understood.
pub(super) fn tidy(connection: &Connection, path: &Path) -> Result<(), StudioError> {
    let audio = path.join("audio");
    let named = named(connection).map_err(|error| broken(&path.join(TABLE), error))?;
    let mut aside = 0;
    for found in found(path)? {
        let outcome = match found {
            Found::Sound(id) if named.contains(&id) => Ok(()),
            Found::Sound(id) => {
                aside += 1;
                move_aside(path, &audio.join(id.to_string()))
            }
            // Its row was written and its name was not, or it was never taken on.
            Found::Partial(id) => {
                let (partial, whole) = (audio.join(format!("{id}.{PARTIAL}")), audio.join(id.to_string()));
                if named.contains(&id) && !whole.exists() {
                    fs::rename(partial, whole)
                } else {
                    fs::remove_file(partial)
                }
            }
            Found::Other(file) => {
                aside += 1;
                move_aside(path, &file)
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a file in {} stays as it is", audio.display());
        }
    }
    if aside > 0 {
        tracing::warn!(
            "{aside} files in {} are no sounds of any session; they are kept in {}",
            audio.display(),
            path.join(ASIDE).display()
        );
    }
    Ok(())
}

fn move_aside(path: &Path, file: &Path) -> std::io::Result<()> {
    let folder = path.join(ASIDE);
    fs::create_dir_all(&folder)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Another of that name may be there already.
    let free = (0..1000).map(|n| folder.join(if n == 0 { name.clone() } else { format!("{name}.{n}") }));
    match free.into_iter().find(|place| fs::symlink_metadata(place).is_err()) {
        Some(place) => fs::rename(file, place),
        None => Err(std::io::Error::other(format!("{name} is kept a thousand times already"))),
    }
}

/// A thing among the sounds.
enum Found {
    /// It has the name of a sound.
    Sound(AudioId),
    /// It was being written.
    Partial(AudioId),
    Other(PathBuf),
}

fn found(path: &Path) -> Result<Vec<Found>, StudioError> {
    let audio = path.join("audio");
    let unreadable = |error| broken(&audio, error);
    let mut all = Vec::new();
    for entry in fs::read_dir(&audio).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let is_file = fs::metadata(entry.path()).is_ok_and(|data| data.is_file());
        // Only what is spelled as this program spells it.
        let id = |text: &str| text.parse::<AudioId>().ok().filter(|id| is_file && id.to_string() == text);
        let name = name.to_str().unwrap_or_default();
        all.push(match (id(name), name.strip_suffix(PARTIAL).and_then(|name| id(name.strip_suffix('.')?))) {
            (Some(sound), _) => Found::Sound(sound),
            (None, Some(sound)) => Found::Partial(sound),
            (None, None) => Found::Other(entry.path()),
        });
    }
    Ok(all)
}

/// Every sound that any row names: one damaged row must not cost a sound that another still names.
fn named(connection: &Connection) -> rusqlite::Result<HashSet<AudioId>> {
    let mut statement = connection.prepare(
        "SELECT id FROM audio
         UNION SELECT initial FROM sessions UNION SELECT input FROM sessions UNION SELECT current FROM sessions
         UNION SELECT transform_input FROM sessions
         UNION SELECT input FROM clips WHERE state = 'accepted' UNION SELECT output FROM clips",
    )?;
    let ids = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
    ids.filter_map(|id| id.map(|id| id.and_then(|id| id.parse().ok())).transpose()).collect()
}
