//! Silences, which must outlive a restart as alerts do.
//!
//! As in `alerts`, the body is the alerting's own JSON. The end is a column, so that silences long over can be removed.
//!
//! Absent: matching, and who silenced what when, which the event log and the audit log have.

use belfry_common::model::Timestamp;

use super::{
    error::StateError,
    sqlite::{Row, Snapshot, Transaction, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE silences (
    id          TEXT    PRIMARY KEY,
    ends_at_ms  INTEGER NOT NULL,
    body        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
";

/// One silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Its id, as people see it.
    pub(crate) id: String,
    /// When it ends.
    pub(crate) ends_at: Timestamp,
    /// All of it, in JSON.
    pub(crate) body: String,
}

/// Keeps a silence, in the place of one with the same id.
pub(crate) fn put(transaction: &Transaction<'_>, silence: &Silence) -> Result<(), StateError> {
    transaction.execute(
        "INSERT INTO silences (id, ends_at_ms, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET ends_at_ms = excluded.ends_at_ms, body = excluded.body",
        params![silence.id, silence.ends_at.as_millis(), silence.body],
    )?;
    Ok(())
}

/// Every silence that is kept, over or not, by its end.
pub(crate) fn all(view: &Snapshot<'_>) -> Result<Vec<Silence>, StateError> {
    view.rows("SELECT * FROM silences ORDER BY ends_at_ms, id", [], read)
}

/// Removes silences that ended before `time` and returns how many.
pub(crate) fn prune(transaction: &Transaction<'_>, time: Timestamp) -> Result<usize, StateError> {
    transaction.execute("DELETE FROM silences WHERE ends_at_ms < ?1", params![time.as_millis()])
}

fn read(row: &Row<'_>) -> Result<Silence, StateError> {
    Ok(Silence { id: row.get("id")?, ends_at: row.time("ends_at_ms")?, body: row.get("body")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scratch::{Scratch, at};

    fn silence(id: &str, ends_at: i64) -> Silence {
        Silence { id: id.to_owned(), ends_at: at(ends_at), body: "{}".to_owned() }
    }

    #[test]
    fn silences_are_replaced_found_after_a_restart_and_pruned_by_their_end() {
        let scratch = Scratch::new();
        scratch.write(|t| put(t, &silence("a", 10))).unwrap();
        scratch.write(|t| put(t, &silence("b", 20))).unwrap();
        scratch.write(|t| put(t, &silence("a", 30))).unwrap();
        let scratch = scratch.reopen();
        assert_eq!(scratch.read(all).unwrap(), [silence("b", 20), silence("a", 30)]);
        assert_eq!(scratch.write(|t| prune(t, at(30))).unwrap(), 1);
        assert_eq!(scratch.read(all).unwrap(), [silence("a", 30)]);
    }
}
