//! The time that sessions have lived, which is not what the machine's clock says.
//!
//! A clock may be set while the server runs, or may have been wrong before: boards without a
//! battery begin in the past, snapshots resume in it. So ages count what was seen to pass: the
//! monotonic clock while the server runs, and at most [`TRUSTED`] of a time in which it looked at
//! no clock. Whatever else a clock does is a jump, and all moments that were written down move with
//! it: they keep their distances from now.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

/// Of a time in which nobody looked (the server was off, or stood still) so much counts at most.
const TRUSTED: i64 = 3600;
/// Seconds by which a clock may be corrected without a word.
const TOLERANCE: i64 = 60;

/// What the clocks say at one moment.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Moment {
    /// Unix seconds.
    pub wall: i64,
    /// Of a clock that is never set.
    pub ran: Duration,
}

/// Where moments come from.
pub(in super::super) type Moments = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The machine's clocks.
pub(super) fn of_the_machine() -> Moments {
    let begun = Instant::now();
    Arc::new(move || Moment {
        wall: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64),
        ran: begun.elapsed(),
    })
}

pub(super) struct Clock {
    moments: Moments,
    wall: i64,
    /// `None` before the first look.
    ran: Option<Duration>,
    /// Whether what is written down was moved with the clock.
    follows: bool,
}

impl Clock {
    /// Goes on from when the server was last seen to run.
    pub(super) fn start(connection: &mut Connection, moments: Moments) -> rusqlite::Result<Self> {
        let seen: Option<i64> = connection.query_row("SELECT seen FROM clock", [], |row| row.get(0)).optional()?;
        if seen.is_none() {
            // An older version wrote down whatever the clock said, so ages begin now.
            connection.execute("UPDATE sessions SET updated = ?1", [moments().wall])?;
        }
        let wall = seen.unwrap_or_else(|| moments().wall);
        let mut clock = Self { moments, wall, ran: None, follows: true };
        clock.look(connection);
        clock.remember(connection)?;
        Ok(clock)
    }

    /// The present moment, as of the last look.
    pub(super) fn now(&self) -> i64 {
        self.wall
    }

    /// Whether ages can be told now.
    pub(super) fn is_trusted(&self) -> bool {
        self.follows
    }

    /// Looks at the clocks, and moves what is written down if they jumped.
    pub(super) fn look(&mut self, connection: &mut Connection) {
        let Moment { wall, ran } = (self.moments)();
        let passed = wall - self.wall;
        let lived = match self.ran {
            Some(before) => ran.saturating_sub(before).as_secs() as i64,
            None => passed,
        };
        let jump = passed - lived.clamp(0, TRUSTED);
        if jump.abs() > TOLERANCE {
            self.follows = shift(connection, jump, wall).inspect_err(|error| tracing::warn!(%error)).is_ok();
            if !self.follows {
                // Tried again at the next look, from the same moment.
                return;
            }
            tracing::warn!(seconds = jump, "the clock was set, or nobody looked at it; sessions keep their ages");
        }
        (self.wall, self.ran, self.follows) = (wall, Some(ran), true);
    }

    /// Writes down when the server was last seen to run.
    pub(super) fn remember(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.follows {
            connection.execute("INSERT OR REPLACE INTO clock (id, seen) VALUES (0, ?1)", [self.wall])?;
        }
        Ok(())
    }
}

fn shift(connection: &mut Connection, jump: i64, seen: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute("UPDATE sessions SET created = created + ?1, updated = updated + ?1", [jump])?;
    transaction.execute("UPDATE clips SET created = created + ?1, finished = finished + ?1", [jump])?;
    transaction.execute("INSERT OR REPLACE INTO clock (id, seen) VALUES (0, ?1)", params![seen])?;
    transaction.commit()
}
