//! Which segments there are and how far they may be read: what the writer and its readers share.
//!
//! The lock is held for a few instructions, never across I/O.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One segment, as its owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Bytes that its file takes, preallocated ones included.
    pub bytes: u64,
    /// Records that can be read, in the active segment also those not flushed yet.
    pub records: u64,
}

/// One segment, as the journal sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) number: u64,
    /// Records are served up to here.
    pub(super) end: u32,
    pub(super) file_bytes: u64,
    pub(super) records: u64,
    /// Damage was found whose evidence is this very file.
    pub(super) is_evidence: bool,
}

impl Row {
    pub(super) fn segment(&self) -> Segment {
        Segment { number: self.number, bytes: self.file_bytes, records: self.records }
    }
}

/// Where a reader can go from a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// How far the segment may be read; `None` if it is no more.
    pub(super) end: Option<u32>,
    /// The segment after it.
    pub(super) next: Option<u64>,
}

/// The segments in ascending order; the last one is active.
#[derive(Debug)]
pub(super) struct Table(Mutex<VecDeque<Row>>);

impl Table {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        Self(Mutex::new(rows.into()))
    }

    pub(super) fn outlook(&self, segment: u64) -> Outlook {
        let rows = self.rows();
        let after = rows.partition_point(|row| row.number <= segment);
        let end =
            after.checked_sub(1).and_then(|at| rows.get(at)).filter(|row| row.number == segment).map(|row| row.end);
        Outlook { end, next: rows.get(after).map(|row| row.number) }
    }

    pub(super) fn list(&self) -> Vec<Row> {
        self.rows().iter().copied().collect()
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.rows().iter().map(|row| row.file_bytes).sum()
    }

    pub(super) fn push(&self, row: Row) {
        self.rows().push_back(row);
    }

    pub(super) fn update_active(&self, update: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows().back_mut() {
            update(row);
        }
    }

    /// Takes the oldest segment off the table, unless it is the active one.
    pub(super) fn take_oldest(&self) -> Option<Row> {
        let mut rows = self.rows();
        if rows.len() > 1 { rows.pop_front() } else { None }
    }

    /// Puts back what [`Self::take_oldest`] took.
    pub(super) fn put_back(&self, row: Row) {
        self.rows().push_front(row);
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.rows().front().map(|row| row.number)
    }

    fn rows(&self) -> MutexGuard<'_, VecDeque<Row>> {
        // Each change is one assignment: a panic elsewhere leaves the rows whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
