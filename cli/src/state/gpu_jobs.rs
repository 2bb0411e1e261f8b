//! Which job had which GPU when.
//!
//! One row an interval; one that goes on has no end yet. What a job is called is its labels, in JSON: kinds of jobs come and go, and
//! nobody searches them here.
//!
//! Absent: when an interval begins or ends, which `crate::gpu_jobs` decides.

use belfry_common::model::Timestamp;

use super::{
    error::StateError,
    nodes::NodeId,
    sqlite::{Row, Snapshot, Transaction, integer, params},
};

pub(super) const TABLES_V2: &str = "
CREATE TABLE gpu_jobs (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    node      INTEGER NOT NULL REFERENCES nodes (id),
    labels    TEXT    NOT NULL,
    start_ms  INTEGER NOT NULL,
    end_ms    INTEGER
) STRICT;
CREATE INDEX gpu_jobs_end ON gpu_jobs (end_ms);
";

/// Intervals that have ended and are kept: at 300 bytes, some hundreds of megabytes.
pub(crate) const ENDED_MAX: u64 = 1_000_000;

/// An interval as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredJob {
    pub(crate) id: u64,
    pub(crate) node: NodeId,
    pub(crate) labels: String,
    pub(crate) start: Timestamp,
    pub(crate) end: Option<Timestamp>,
    /// When the node was heard of last, as far as it is kept.
    pub(crate) node_seen: Option<Timestamp>,
}

/// Begins an interval and returns its number.
pub(crate) fn begin(
    transaction: &Transaction<'_>,
    node: NodeId,
    labels: &str,
    start: Timestamp,
) -> Result<u64, StateError> {
    transaction.execute(
        "INSERT INTO gpu_jobs (node, labels, start_ms) VALUES (?1, ?2, ?3)",
        params![integer(node.as_u64()), labels, start.as_millis()],
    )?;
    Ok(transaction.inserted().unsigned_abs())
}

/// Ends an interval.
pub(crate) fn end(transaction: &Transaction<'_>, id: u64, end: Timestamp) -> Result<(), StateError> {
    transaction
        .execute("UPDATE gpu_jobs SET end_ms = ?2 WHERE id = ?1", params![integer(id), end.as_millis()])
        .map(|_| ())
}

/// Every interval that goes on, and those that ended after `time`, at most so many: those that ended last.
pub(crate) fn since(view: &Snapshot<'_>, time: Timestamp, max: usize) -> Result<Vec<StoredJob>, StateError> {
    view.rows(
        "SELECT gpu_jobs.*, nodes.last_seen_ms FROM gpu_jobs JOIN nodes ON nodes.id = gpu_jobs.node
         WHERE end_ms IS NULL OR end_ms > ?1 ORDER BY end_ms IS NULL DESC, end_ms DESC LIMIT ?2",
        params![time.as_millis(), integer(max as u64)],
        read,
    )
}

/// Removes what ended before `time`, or goes on at a node that was not heard of since, and of what ended later the oldest beyond
/// `ended_max`.
pub(crate) fn prune(transaction: &Transaction<'_>, time: Timestamp, ended_max: u64) -> Result<(), StateError> {
    transaction.execute("DELETE FROM gpu_jobs WHERE end_ms < ?1", params![time.as_millis()])?;
    transaction.execute(
        "DELETE FROM gpu_jobs WHERE end_ms IS NULL AND node IN (SELECT id FROM nodes WHERE last_seen_ms < ?1)",
        params![time.as_millis()],
    )?;
    transaction.execute(
        "DELETE FROM gpu_jobs WHERE end_ms <= (
            SELECT end_ms FROM gpu_jobs WHERE end_ms IS NOT NULL ORDER BY end_ms DESC LIMIT 1 OFFSET ?1)",
        params![integer(ended_max)],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<StoredJob, StateError> {
    Ok(StoredJob {
        id: row.unsigned("id")?,
        node: NodeId::read(row, "node")?,
        labels: row.get("labels")?,
        start: row.time("start_ms")?,
        end: row.time_if_any("end_ms")?,
        node_seen: row.time_if_any("last_seen_ms")?,
    })
}
