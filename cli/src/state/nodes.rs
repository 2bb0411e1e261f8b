//! The nodes that ever joined.
//!
//! A node's number names its data on disk and stands in its certificates, so that no number is ever given twice: rows stay,
//! and a forgotten node only gives its *name* back. A node that is revoked, locked or forgotten is refused.
//!
//! A copied disk is found by its *generation*: at each hello an agent shows the number that it last stored, and the next
//! one, which both sides keep. Of two copies, the second to come shows a number that is used up, and the node is locked.
//! An agent whose answer was lost shows the same pair again, which is no copy's doing.
//!
//! Absent: liveness (up, stale, down), which follows from samples; epochs (see `epochs`); certificates (see `certificates`).

use std::fmt;

use belfry_common::model::{NodeName, Timestamp};
use thiserror::Error;

use super::{
    certificates::{self, Serial},
    error::StateError,
    sqlite::{Row, Snapshot, Transaction, integer, invalid, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE nodes (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    name             TEXT    NOT NULL,
    first_seen_ms    INTEGER NOT NULL,
    last_seen_ms     INTEGER,
    has_left         INTEGER NOT NULL DEFAULT 0,
    agent_version    TEXT,
    address          TEXT,
    generation       TEXT,
    locked_at_ms     INTEGER,
    revoked_at_ms    INTEGER,
    forgotten_at_ms  INTEGER
) STRICT;
CREATE UNIQUE INDEX nodes_name ON nodes (name) WHERE forgotten_at_ms IS NULL;
";

/// A last sighting is for people and may lag this far; 5,000 nodes would otherwise write all day.
pub(crate) const LAST_SEEN_LAG_MAX_MS: i64 = 60_000;

/// The number of a node: given once, never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u64);

impl NodeId {
    /// The node with the number of a certificate; users have 0 there and are no node.
    pub(crate) fn new(id: u64) -> Option<Self> {
        (id > 0).then_some(Self(id))
    }

    /// The number in certificates and paths.
    pub(crate) fn as_u64(self) -> u64 {
        self.0
    }

    pub(super) fn column(self) -> i64 {
        integer(self.0)
    }

    pub(super) fn read(row: &Row<'_>, column: &str) -> Result<Self, StateError> {
        Self::new(row.unsigned(column)?).ok_or_else(|| invalid(column, "0"))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its number.
    pub(crate) id: NodeId,
    /// Its name, unique among the nodes that are not forgotten.
    pub(crate) name: NodeName,
    /// When it joined.
    pub(crate) first_seen: Timestamp,
    /// When it last sent something, up to [`LAST_SEEN_LAG_MAX_MS`] late; `None` before its first hello.
    pub(crate) last_seen: Option<Timestamp>,
    /// Its agent took leave then.
    pub(crate) has_left: bool,
    /// What it said that it runs.
    pub(crate) agent_version: Option<String>,
    /// Where it last came from.
    pub(crate) address: Option<String>,
    /// Whether it may send.
    pub(crate) standing: Standing,
}

/// Whether a node may send, and if not, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may.
    Admitted,
    /// Two machines used its identity.
    Locked(Timestamp),
    /// A person took its right away.
    Revoked(Timestamp),
    /// A person removed it; its name may be another node's by now.
    Forgotten(Timestamp),
}

/// One sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Whose.
    pub(crate) node: NodeId,
    /// When.
    pub(crate) time: Timestamp,
    /// Whether the agent took leave then.
    pub(crate) has_left: bool,
    /// What the node runs.
    pub(crate) agent_version: String,
    /// Where it came from.
    pub(crate) address: String,
}

/// What [`revoke`] and [`forget`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// The node whose connections must be closed.
    pub(crate) node: NodeId,
    /// Its certificates that counted until now.
    pub(crate) serials: Vec<Serial>,
}

/// What an agent's generation says about its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// The disk is the one that came last time.
    Accepted,
    /// Another copy of the disk has come since. The node is locked.
    Cloned,
}

/// A node that is not as the request supposes.
#[derive(Debug, Error)]
pub(crate) enum NodeError {
    /// No node has this name.
    #[error("no node is called `{name}`; `belfry nodes` lists them")]
    Unknown {
        /// The name.
        name: NodeName,
    },
    /// The name is in use.
    #[error("node `{name}` is already enrolled; to let it join anew, run `belfry nodes forget {name}` first")]
    Taken {
        /// The name.
        name: NodeName,
    },
    /// No node has this number.
    #[error("no node has the number {id}")]
    Missing {
        /// The number.
        id: NodeId,
    },
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Every node that is not forgotten, by name.
pub(crate) fn list(view: &Snapshot<'_>) -> Result<Vec<Node>, StateError> {
    view.rows("SELECT * FROM nodes WHERE forgotten_at_ms IS NULL ORDER BY name", [], read)
}

/// The node of this name, unless it is forgotten.
pub(crate) fn by_name(view: &Snapshot<'_>, name: &NodeName) -> Result<Option<Node>, StateError> {
    view.row("SELECT * FROM nodes WHERE name = ?1 AND forgotten_at_ms IS NULL", params![name.as_str()], read)
}

/// The node of this number, forgotten or not.
pub(crate) fn by_id(view: &Snapshot<'_>, id: NodeId) -> Result<Option<Node>, StateError> {
    view.row("SELECT * FROM nodes WHERE id = ?1", params![id.column()], read)
}

/// Gives a new node its number.
///
/// # Errors
/// [`NodeError::Taken`] when the name is in use.
pub(crate) fn enrol(transaction: &Transaction<'_>, name: &NodeName, now: Timestamp) -> Result<NodeId, NodeError> {
    if by_name(transaction, name)?.is_some() {
        return Err(NodeError::Taken { name: name.clone() });
    }
    transaction
        .execute("INSERT INTO nodes (name, first_seen_ms) VALUES (?1, ?2)", params![name.as_str(), now.as_millis()])?;
    let id = transaction.inserted();
    Ok(u64::try_from(id).ok().and_then(NodeId::new).ok_or_else(|| invalid("id", &id.to_string()))?)
}

/// Notes signs of life and returns how many were worth a write: news, or [`LAST_SEEN_LAG_MAX_MS`] after the last.
pub(crate) fn record_sightings(transaction: &Transaction<'_>, sightings: &[Sighting]) -> Result<usize, StateError> {
    let mut written = 0;
    for sighting in sightings {
        // A clock that was set back also makes a difference of a minute, so that nothing waits for the old time to return.
        written += transaction.execute(
            "UPDATE nodes SET last_seen_ms = ?2, agent_version = ?3, address = ?4, has_left = ?6
             WHERE id = ?1 AND (last_seen_ms IS NULL OR abs(?2 - last_seen_ms) >= ?5
                                OR agent_version IS NOT ?3 OR address IS NOT ?4 OR has_left <> ?6)",
            params![
                sighting.node.column(),
                sighting.time.as_millis(),
                sighting.agent_version,
                sighting.address,
                LAST_SEEN_LAG_MAX_MS,
                sighting.has_left
            ],
        )?;
    }
    Ok(written)
}

#[cfg_attr(not(test), expect(dead_code, reason = "for telling a cloned disk"))]
/// Compares the generation that an agent shows with the one it was given, and keeps the next; see the module's page.
///
/// # Errors
/// [`NodeError::Missing`] when there is no such node.
pub(crate) fn advance_generation(
    transaction: &Transaction<'_>,
    node: NodeId,
    shown: u64,
    next: u64,
    now: Timestamp,
) -> Result<Generation, NodeError> {
    let kept = transaction.row("SELECT generation FROM nodes WHERE id = ?1", params![node.column()], |row| {
        row.get::<Option<String>>("generation")
    })?;
    let (shown, next) = (format!("{shown:016x}"), format!("{next:016x}"));
    match kept {
        None => Err(NodeError::Missing { id: node }),
        Some(Some(kept)) if kept != shown && kept != next => {
            transaction.execute(
                "UPDATE nodes SET locked_at_ms = coalesce(locked_at_ms, ?2) WHERE id = ?1",
                params![node.column(), now.as_millis()],
            )?;
            Ok(Generation::Cloned)
        }
        Some(_) => {
            transaction.execute("UPDATE nodes SET generation = ?2 WHERE id = ?1", params![node.column(), next])?;
            Ok(Generation::Accepted)
        }
    }
}

/// Takes a node's right to send, and every certificate that it has. Doing it again changes nothing.
///
/// # Errors
/// [`NodeError::Unknown`] when no node has this name.
pub(crate) fn revoke(transaction: &Transaction<'_>, name: &NodeName, now: Timestamp) -> Result<Revoked, NodeError> {
    let node = by_name(transaction, name)?.ok_or_else(|| NodeError::Unknown { name: name.clone() })?.id;
    transaction.execute(
        "UPDATE nodes SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1",
        params![node.column(), now.as_millis()],
    )?;
    let serials = certificates::revoke_node(transaction, node, now)?;
    Ok(Revoked { node, serials })
}

/// Revokes a node and gives its name back. Its number, and with it its data, stay its own.
///
/// # Errors
/// [`NodeError::Unknown`] when no node has this name.
pub(crate) fn forget(transaction: &Transaction<'_>, name: &NodeName, now: Timestamp) -> Result<Revoked, NodeError> {
    let revoked = revoke(transaction, name, now)?;
    transaction.execute(
        "UPDATE nodes SET forgotten_at_ms = ?2 WHERE id = ?1",
        params![revoked.node.column(), now.as_millis()],
    )?;
    Ok(revoked)
}

/// The nodes that must be refused: revoked, locked or forgotten.
pub(crate) fn refused(view: &Snapshot<'_>) -> Result<Vec<NodeId>, StateError> {
    view.rows(
        "SELECT id FROM nodes WHERE coalesce(forgotten_at_ms, revoked_at_ms, locked_at_ms) IS NOT NULL ORDER BY id",
        [],
        |row| NodeId::read(row, "id"),
    )
}

fn read(row: &Row<'_>) -> Result<Node, StateError> {
    let since = |column| row.time_if_any(column);
    let standing = if let Some(time) = since("forgotten_at_ms")? {
        Standing::Forgotten(time)
    } else if let Some(time) = since("revoked_at_ms")? {
        Standing::Revoked(time)
    } else if let Some(time) = since("locked_at_ms")? {
        Standing::Locked(time)
    } else {
        Standing::Admitted
    };
    Ok(Node {
        id: NodeId::read(row, "id")?,
        name: row.parse("name")?,
        first_seen: row.time("first_seen_ms")?,
        last_seen: since("last_seen_ms")?,
        has_left: row.get("has_left")?,
        agent_version: row.get("agent_version")?,
        address: row.get("address")?,
        standing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scratch::{Scratch, at, name};

    fn sighting(node: NodeId, millis: i64, version: &str) -> Sighting {
        let (agent_version, address) = (version.to_owned(), "192.0.2.7:4242".to_owned());
        Sighting { node, time: at(millis), has_left: false, agent_version, address }
    }

    #[test]
    fn a_forgotten_node_gives_its_name_back_but_not_its_number() {
        let scratch = Scratch::new();
        let first = scratch.write(|t| enrol(t, &name("gpu-01"), at(1))).unwrap();
        let taken = scratch.write(|t| enrol(t, &name("gpu-01"), at(2))).unwrap_err();
        assert!(matches!(taken, NodeError::Taken { .. }), "{taken}");
        scratch.write(|t| forget(t, &name("gpu-01"), at(3))).unwrap();
        let second = scratch.write(|t| enrol(t, &name("gpu-01"), at(4))).unwrap();
        assert_ne!(first, second);
        let listed = scratch.read(list).unwrap();
        assert_eq!(listed.iter().map(|node| node.id).collect::<Vec<_>>(), [second]);
        let old = scratch.read(|view| by_id(view, first)).unwrap().unwrap();
        assert_eq!(old.standing, Standing::Forgotten(at(3)));
    }

    #[test]
    fn a_number_is_not_given_again_even_when_a_row_was_deleted_by_hand() {
        let scratch = Scratch::new();
        let first = scratch.write(|t| enrol(t, &name("a"), at(1))).unwrap();
        scratch.write(|t| t.execute("DELETE FROM nodes", [])).unwrap();
        let second = scratch.write(|t| enrol(t, &name("a"), at(1))).unwrap();
        assert!(second > first);
    }

    #[test]
    fn a_sighting_is_written_once_a_minute_or_when_it_brings_news() {
        let scratch = Scratch::new();
        let node = scratch.write(|t| enrol(t, &name("a"), at(0))).unwrap();
        let written = |sighting| scratch.write(move |t| record_sightings(t, &[sighting])).unwrap();
        assert_eq!(written(sighting(node, 100_000, "1.0")), 1, "the first");
        assert_eq!(written(sighting(node, 159_999, "1.0")), 0, "within the minute");
        assert_eq!(written(sighting(node, 160_000, "1.0")), 1, "a minute later");
        assert_eq!(written(sighting(node, 160_001, "1.1")), 1, "another version");
        assert_eq!(written(sighting(node, 5_000, "1.1")), 1, "the clock was set back");
        let seen = scratch.read(|view| by_id(view, node)).unwrap().unwrap();
        assert_eq!((seen.last_seen, seen.agent_version.as_deref()), (Some(at(5_000)), Some("1.1")));
    }

    #[test]
    fn revoking_again_keeps_the_first_time() {
        let scratch = Scratch::new();
        let node = scratch.write(|t| enrol(t, &name("a"), at(0))).unwrap();
        for time in [5, 9] {
            scratch.write(move |t| revoke(t, &name("a"), at(time))).unwrap();
        }
        let revoked = scratch.read(|view| by_id(view, node)).unwrap().unwrap();
        assert_eq!(revoked.standing, Standing::Revoked(at(5)));
        assert_eq!(scratch.read(refused).unwrap(), [node]);
        let unknown = scratch.write(|t| revoke(t, &name("b"), at(9))).unwrap_err();
        assert_eq!(unknown.to_string(), "no node is called `b`; `belfry nodes` lists them");
    }

    #[test]
    fn a_cloned_disk_locks_the_node_and_a_lost_answer_does_not() {
        let scratch = Scratch::new();
        let node = scratch.write(|t| enrol(t, &name("a"), at(0))).unwrap();
        let advance = |shown, next| scratch.write(move |t| advance_generation(t, node, shown, next, at(7))).unwrap();
        assert_eq!(advance(0, 10), Generation::Accepted, "the first hello");
        assert_eq!(advance(0, 10), Generation::Accepted, "the answer was lost");
        assert_eq!(advance(10, 20), Generation::Accepted, "the next hello");
        assert_eq!(scratch.read(refused).unwrap(), []);
        assert_eq!(advance(10, 30), Generation::Cloned, "a copy made before it");
        let locked = scratch.read(|view| by_id(view, node)).unwrap().unwrap();
        assert_eq!(locked.standing, Standing::Locked(at(7)));
        assert_eq!(scratch.read(refused).unwrap(), [node]);
    }
}
