//! What is done beside ingest: the head's tiles go to blocks, blocks are merged, old ones go.
//!
//! Runs on a thread of its own. Nothing here holds up the owner of the store or its readers for longer than it takes to seal one node's
//! tiles.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use belfry_common::model::Timestamp;

use crate::{
    CompactOptions, Head,
    block::{BlockError, Origin, Summary, Tier},
    compact, flush,
    shelf::Shelf,
};

/// When what is in memory goes to blocks.
#[derive(Debug, Clone, Copy)]
pub struct MaintainOptions {
    /// Milliseconds between two times.
    pub flush_interval_ms: i64,
    /// Bytes of sealed tiles at which it is done early.
    pub flush_bytes: usize,
    /// When blocks are merged.
    pub compact: CompactOptions,
}

impl Default for MaintainOptions {
    fn default() -> Self {
        Self { flush_interval_ms: 120_000, flush_bytes: 256 * 1024 * 1024, compact: CompactOptions::default() }
    }
}

/// How far the journal is in blocks; shared with the store's owner.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// All records in segments before this one are in the head.
    pub(crate) applied_before: AtomicU64,
    /// All records in segments before this one are in blocks.
    pub(crate) stored_before: AtomicU64,
}

/// Does what is due.
#[derive(Debug)]
pub struct Maintainer {
    head: Arc<Head>,
    shelf: Arc<Shelf>,
    progress: Arc<Progress>,
    options: MaintainOptions,
    flushed: Option<Timestamp>,
}

impl Maintainer {
    pub(crate) fn new(head: Arc<Head>, shelf: Arc<Shelf>, progress: Arc<Progress>, options: MaintainOptions) -> Self {
        Self { head, shelf, progress, options, flushed: None }
    }

    /// Does what is due now.
    ///
    /// # Errors
    /// [`BlockError::Io`]: what was in memory or in blocks is there still. After anything but a lack of space nobody can know what the
    /// disk has, and the process should end.
    pub fn run(&mut self, now: Timestamp) -> Result<(), BlockError> {
        let flushed = *self.flushed.get_or_insert(now);
        let is_due = now.millis_since(flushed) >= self.options.flush_interval_ms;
        if is_due || self.head.unstored_bytes() >= self.options.flush_bytes {
            self.flush(now)?;
            self.flushed = Some(now);
        }
        self.compact(now)?;
        Ok(())
    }

    /// Merges blocks once, if that is due; whether it was.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn compact(&self, now: Timestamp) -> Result<bool, BlockError> {
        let blocks = self.shelf.blocks();
        let summaries: Vec<&Summary> = blocks.iter().map(|block| block.summary()).collect();
        let Some(job) = compact::next(&summaries, &self.options.compact, now) else { return Ok(false) };
        compact::run(&self.shelf, &job, &|_| {}, now)?;
        Ok(true)
    }

    /// Puts all that is in memory into blocks.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn flush(&self, now: Timestamp) -> Result<(), BlockError> {
        // What comes after this is in later segments, and may be in the tiles as well: the next start reads it twice, which changes nothing.
        let segment = self.progress.applied_before.load(Relaxed);
        let tiles = self.head.unstored();
        let hours = flush::by_hour(&tiles);
        let newest = hours.keys().next_back().copied();
        for (hour, parts) in &hours {
            let strings = flush::strings(parts);
            // Only the last one can tell how far the journal is in blocks: then all are there.
            let journal_segment = if Some(*hour) == newest { segment } else { 0 };
            let origin = Origin { journal_segment, created: now.as_millis(), ..Origin::default() };
            self.shelf.write(Tier::Raw, &strings, &|_| {}, |writer| {
                flush::write(writer, parts, &strings)?;
                Ok(origin)
            })?;
        }
        self.head.mark_stored(&tiles);
        self.progress.stored_before.store(segment, Relaxed);
        Ok(())
    }
}
