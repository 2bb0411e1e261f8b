//! The lives of each node's spool.
//!
//! An agent draws a random epoch when it creates its spool. The one that came last is current; one that was superseded and
//! comes back is a spool restored from a copy, whose numbers were used for other data: it must be refused, for ever. So
//! rows are never removed, and a node that draws epochs without end is refused instead.
//!
//! Absent: which sequence numbers of an epoch are durable, which the store knows.

use belfry_common::model::{Epoch, Timestamp};

use super::{
    error::StateError,
    nodes::NodeId,
    sqlite::{Row, Snapshot, Transaction, invalid, params},
};

/// A spool in memory makes an epoch per boot: this is ten years of daily boots.
const EPOCHS_PER_NODE_MAX: u64 = 4096;

pub(super) const TABLES_V1: &str = "
CREATE TABLE epochs (
    node              INTEGER NOT NULL REFERENCES nodes (id),
    epoch             TEXT    NOT NULL,
    first_seen_ms     INTEGER NOT NULL,
    superseded_at_ms  INTEGER,
    PRIMARY KEY (node, epoch)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX epochs_current ON epochs (node) WHERE superseded_at_ms IS NULL;
";

/// One life of a node's spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEpoch {
    /// Whose.
    pub(crate) node: NodeId,
    /// Its random number.
    pub(crate) epoch: Epoch,
    /// When it first came.
    pub(crate) first_seen: Timestamp,
    /// When another one came after it; `None` for the current one.
    pub(crate) superseded_at: Option<Timestamp>,
}

/// What an epoch is to the node that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The one that came last time.
    Current,
    /// Never seen before. It is current now.
    New {
        /// The one that it superseded.
        previous: Option<Epoch>,
    },
    /// A restored copy: refuse it.
    Stale {
        /// When it was superseded.
        superseded_at: Timestamp,
    },
    /// Never seen before, and one too many: refuse it until the node is forgotten and joins anew.
    TooMany,
}

/// Judges the epoch that a node shows, and makes it the current one if it is new.
///
/// # Errors
/// [`StateError`], also when there is no such node.
pub(crate) fn observe(
    transaction: &Transaction<'_>,
    node: NodeId,
    epoch: Epoch,
    now: Timestamp,
) -> Result<Standing, StateError> {
    let known = transaction.row(
        "SELECT * FROM epochs WHERE node = ?1 AND epoch = ?2",
        params![node.column(), epoch.to_string()],
        read,
    )?;
    match known.map(|known| known.superseded_at) {
        Some(None) => Ok(Standing::Current),
        Some(Some(superseded_at)) => Ok(Standing::Stale { superseded_at }),
        None if count(transaction, node)? >= EPOCHS_PER_NODE_MAX => Ok(Standing::TooMany),
        None => Ok(Standing::New { previous: supersede(transaction, node, epoch, now)? }),
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "for showing a node's spools"))]
/// Every epoch of every node, for the collector's start.
pub(crate) fn all(view: &Snapshot<'_>) -> Result<Vec<KnownEpoch>, StateError> {
    view.rows("SELECT * FROM epochs ORDER BY node, first_seen_ms, epoch", [], read)
}

fn count(view: &Snapshot<'_>, node: NodeId) -> Result<u64, StateError> {
    let count = view.row("SELECT count(*) AS count FROM epochs WHERE node = ?1", params![node.column()], |row| {
        row.unsigned("count")
    })?;
    Ok(count.unwrap_or(0))
}

fn supersede(
    transaction: &Transaction<'_>,
    node: NodeId,
    epoch: Epoch,
    now: Timestamp,
) -> Result<Option<Epoch>, StateError> {
    let previous = transaction.row(
        "UPDATE epochs SET superseded_at_ms = ?2 WHERE node = ?1 AND superseded_at_ms IS NULL RETURNING epoch",
        params![node.column(), now.as_millis()],
        read_epoch,
    )?;
    transaction.execute(
        "INSERT INTO epochs (node, epoch, first_seen_ms) VALUES (?1, ?2, ?3)",
        params![node.column(), epoch.to_string(), now.as_millis()],
    )?;
    Ok(previous)
}

fn read(row: &Row<'_>) -> Result<KnownEpoch, StateError> {
    Ok(KnownEpoch {
        node: NodeId::read(row, "node")?,
        epoch: read_epoch(row)?,
        first_seen: row.time("first_seen_ms")?,
        superseded_at: row.time_if_any("superseded_at_ms")?,
    })
}

fn read_epoch(row: &Row<'_>) -> Result<Epoch, StateError> {
    let text: String = row.get("epoch")?;
    u64::from_str_radix(&text, 16).map(Epoch).map_err(|_| invalid("epoch", &text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        nodes,
        scratch::{Scratch, at, name},
    };

    fn node(scratch: &Scratch) -> NodeId {
        scratch.write(|t| nodes::enrol(t, &name("a"), at(0))).unwrap()
    }

    #[test]
    fn a_superseded_epoch_stays_stale() {
        let scratch = Scratch::new();
        let node = node(&scratch);
        let observe = |epoch, time| scratch.write(move |t| observe(t, node, Epoch(epoch), at(time))).unwrap();
        assert_eq!(observe(u64::MAX, 1), Standing::New { previous: None });
        assert_eq!(observe(u64::MAX, 2), Standing::Current);
        assert_eq!(observe(7, 3), Standing::New { previous: Some(Epoch(u64::MAX)) });
        assert_eq!(observe(u64::MAX, 4), Standing::Stale { superseded_at: at(3) });
        assert_eq!(observe(7, 5), Standing::Current, "the copy changed nothing");
        let all = scratch.read(all).unwrap();
        let shown: Vec<_> = all.iter().map(|known| (known.epoch.0, known.superseded_at)).collect();
        assert_eq!(shown, [(u64::MAX, Some(at(3))), (7, None)]);
    }

    #[test]
    fn a_node_that_draws_epochs_without_end_is_refused() {
        let scratch = Scratch::new();
        let node = node(&scratch);
        let last = scratch.write(move |t| {
            for epoch in 0..EPOCHS_PER_NODE_MAX {
                observe(t, node, Epoch(epoch), at(1))?;
            }
            observe(t, node, Epoch(u64::MAX), at(2))
        });
        assert_eq!(last.unwrap(), Standing::TooMany);
    }

    #[test]
    fn an_unknown_node_has_no_epochs() {
        let scratch = Scratch::new();
        let refused = scratch.write(|t| observe(t, NodeId::new(9).unwrap(), Epoch(1), at(1)));
        assert!(matches!(refused, Err(StateError::Statement { .. })), "{refused:?}");
    }
}
