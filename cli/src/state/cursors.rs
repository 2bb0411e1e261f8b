//! How far each named reader of the event log has come.
//!
//! `--cursor NAME` and every sink remember here what was delivered, so that the next run goes on from there: at least once,
//! because the cursor moves after the delivery. A cursor moves forward only, unless it is reset on purpose: two runs under one
//! name must not undo each other.
//!
//! Absent: the events themselves (see `events`), leases. Who shares a name shares its position.

use belfry_common::model::{NodeName, Timestamp};
use thiserror::Error;

use super::{
    error::StateError,
    events,
    sqlite::{Row, Snapshot, Transaction, integer, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE cursors (
    name           TEXT    PRIMARY KEY,
    seq            INTEGER NOT NULL,
    updated_at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// A viewer can make cursors: more than the scripts and sinks of any fleet, few enough to list.
const CURSORS_MAX: u64 = 1000;

/// One reader's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The reader's name.
    pub(crate) name: NodeName,
    /// The last event that was delivered; 0 before the first.
    pub(crate) seq: u64,
    /// When it last moved.
    pub(crate) updated_at: Timestamp,
}

/// A cursor that cannot be moved so.
#[derive(Debug, Error)]
pub(crate) enum CursorError {
    /// It would pass events that have not happened.
    #[error("cursor `{name}` cannot move to event {seq}: the last one is {last}")]
    Ahead {
        /// Whose.
        name: NodeName,
        /// Where to.
        seq: u64,
        /// The last event of the log.
        last: u64,
    },
    /// There are too many.
    #[error("there are {max} cursors already; delete one that is no longer used", max = CURSORS_MAX)]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

#[cfg_attr(not(test), expect(dead_code, reason = "for listing and deleting cursors"))]
/// Every cursor, by name.
pub(crate) fn list(view: &Snapshot<'_>) -> Result<Vec<Cursor>, StateError> {
    view.rows("SELECT * FROM cursors ORDER BY name", [], read)
}

/// The cursor of this name.
pub(crate) fn by_name(view: &Snapshot<'_>, name: &NodeName) -> Result<Option<Cursor>, StateError> {
    view.row("SELECT * FROM cursors WHERE name = ?1", params![name.as_str()], read)
}

/// Notes that everything up to `seq` was delivered, and returns where the cursor stands: further, if it was there already.
///
/// # Errors
/// [`CursorError`] when the log has not come that far, or there are too many cursors.
pub(crate) fn advance(
    transaction: &Transaction<'_>,
    name: &NodeName,
    seq: u64,
    now: Timestamp,
) -> Result<u64, CursorError> {
    match by_name(transaction, name)? {
        Some(cursor) if cursor.seq >= seq => Ok(cursor.seq),
        _ => reset(transaction, name, seq, now).map(|()| seq),
    }
}

/// Puts the cursor at `seq`, forward or back.
///
/// # Errors
/// [`CursorError`] when the log has not come that far, or there are too many cursors.
pub(crate) fn reset(
    transaction: &Transaction<'_>,
    name: &NodeName,
    seq: u64,
    now: Timestamp,
) -> Result<(), CursorError> {
    let last = events::kept(transaction)?.end.saturating_sub(1);
    if seq > last {
        return Err(CursorError::Ahead { name: name.clone(), seq, last });
    }
    if by_name(transaction, name)?.is_none() && count(transaction)? >= CURSORS_MAX {
        return Err(CursorError::TooMany);
    }
    transaction.execute(
        "INSERT INTO cursors (name, seq, updated_at_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, updated_at_ms = excluded.updated_at_ms",
        params![name.as_str(), integer(seq), now.as_millis()],
    )?;
    Ok(())
}

#[cfg_attr(not(test), expect(dead_code, reason = "for listing and deleting cursors"))]
/// Removes a cursor. False when there is none of this name.
pub(crate) fn delete(transaction: &Transaction<'_>, name: &NodeName) -> Result<bool, StateError> {
    Ok(transaction.execute("DELETE FROM cursors WHERE name = ?1", params![name.as_str()])? > 0)
}

fn count(view: &Snapshot<'_>) -> Result<u64, StateError> {
    Ok(view.row("SELECT count(*) AS count FROM cursors", [], |row| row.unsigned("count"))?.unwrap_or(0))
}

fn read(row: &Row<'_>) -> Result<Cursor, StateError> {
    Ok(Cursor { name: row.parse("name")?, seq: row.unsigned("seq")?, updated_at: row.time("updated_at_ms")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        events::NewEvent,
        scratch::{Scratch, at, name},
    };

    fn with_events(count: usize) -> Scratch {
        let scratch = Scratch::new();
        let event = NewEvent::new(at(1), 1, "{}".to_owned()).unwrap();
        scratch.write(move |t| events::append(t, &vec![event; count], &[])).unwrap();
        scratch
    }

    #[test]
    fn a_cursor_moves_forward_unless_it_is_reset() {
        let scratch = with_events(5);
        let advance = |seq, time| scratch.write(move |t| advance(t, &name("pager"), seq, at(time))).unwrap();
        assert_eq!(advance(3, 10), 3);
        assert_eq!(advance(2, 11), 3, "another run is further");
        assert_eq!(advance(5, 12), 5);
        scratch.write(|t| reset(t, &name("pager"), 0, at(13))).unwrap();
        let scratch = scratch.reopen();
        let expected = Cursor { name: name("pager"), seq: 0, updated_at: at(13) };
        assert_eq!(scratch.read(list).unwrap(), [expected]);
    }

    #[test]
    fn a_cursor_cannot_pass_what_has_not_happened() {
        let scratch = with_events(5);
        let ahead = scratch.write(|t| advance(t, &name("pager"), 6, at(1))).unwrap_err();
        assert_eq!(ahead.to_string(), "cursor `pager` cannot move to event 6: the last one is 5");
        assert_eq!(scratch.read(|view| by_name(view, &name("pager"))).unwrap(), None);
    }

    #[test]
    fn cursors_are_limited_and_can_be_deleted() {
        let scratch = with_events(1);
        let full = scratch.write(|t| {
            for n in 0..CURSORS_MAX {
                advance(t, &name(&format!("c{n}")), 1, at(1))?;
            }
            Ok::<_, CursorError>(())
        });
        full.unwrap();
        let one_more = || scratch.write(|t| advance(t, &name("more"), 1, at(1)));
        assert!(matches!(one_more(), Err(CursorError::TooMany)));
        assert!(scratch.write(|t| delete(t, &name("c0"))).unwrap());
        assert!(!scratch.write(|t| delete(t, &name("c0"))).unwrap());
        assert_eq!(one_more().unwrap(), 1);
    }
}
