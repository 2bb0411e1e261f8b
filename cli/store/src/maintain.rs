//! What is done beside ingest: the head's tiles go to blocks, blocks are merged, old ones go.
//!
//! Runs on a thread of its own. Nothing here holds up the owner of the store or its readers for longer than it takes to seal one node's
//! tiles. Merging keeps to so many bytes a second; while it goes on, the head is put into blocks as often as ever.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use belfry_common::{clock, model::Timestamp};

use crate::{
    CompactOptions, Head, RetentionOptions,
    block::{BlockError, Origin, Summary, Tier},
    compact, flush,
    retention::expired,
    shelf::Shelf,
};

/// When what is in memory goes to blocks, and what becomes of these.
#[derive(Debug, Clone, Copy)]
pub struct MaintainOptions {
    /// Milliseconds between two times that what is in memory is put into blocks.
    pub flush_interval_ms: i64,
    /// Bytes of sealed tiles at which it is done early: what is in no block is read from the journal at a start, which is to take
    /// seconds also with a million series.
    pub flush_bytes: usize,
    /// When blocks are merged.
    pub compact: CompactOptions,
    /// Bytes that merging reads and writes in a second.
    pub merge_bytes_per_second: u64,
    /// Which blocks go.
    pub retention: RetentionOptions,
}

impl Default for MaintainOptions {
    fn default() -> Self {
        Self {
            flush_interval_ms: 120_000,
            flush_bytes: 64 * 1024 * 1024,
            compact: CompactOptions::default(),
            merge_bytes_per_second: 64 * 1024 * 1024,
            retention: RetentionOptions::default(),
        }
    }
}

/// Nodes that are silent for longer are no more in memory: no question about now reaches that far back.
pub(crate) const SILENCE_MS_MAX: i64 = 3_600_000;

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
    /// Of the disk that the blocks are on.
    disk_bytes: Option<u64>,
    flushed: Cell<Option<Timestamp>>,
    stop: Arc<AtomicBool>,
}

impl Maintainer {
    pub(crate) fn new(
        head: Arc<Head>,
        shelf: Arc<Shelf>,
        progress: Arc<Progress>,
        options: MaintainOptions,
        disk_bytes: Option<u64>,
    ) -> Self {
        Self { head, shelf, progress, options, disk_bytes, flushed: Cell::new(None), stop: Arc::default() }
    }

    /// Set to true, it breaks off merging.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Does what is due now.
    ///
    /// # Errors
    /// [`BlockError::Io`]: what was in memory or in blocks is there still. After anything but what [`BlockError::is_retryable`] says
    /// nobody can know what the disk has, and the process should end. [`BlockError::Stopped`] if it is to stop.
    pub fn run(&self, now: Timestamp) -> Result<(), BlockError> {
        // First of all: on a full disk it is what makes room.
        self.drop_expired(now);
        self.flush_if_due(now)?;
        self.compact(now)?;
        Ok(())
    }

    fn flush_if_due(&self, now: Timestamp) -> Result<(), BlockError> {
        let flushed = self.flushed.get().unwrap_or(now);
        self.flushed.set(Some(flushed));
        let is_due = now.millis_since(flushed) >= self.options.flush_interval_ms;
        if is_due || self.head.unstored_bytes() >= self.options.flush_bytes { self.flush(now) } else { Ok(()) }
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
            self.shelf.write(Tier::Raw, &strings, &|_| Ok(()), |writer| {
                flush::write(writer, parts, &strings)?;
                Ok(origin)
            })?;
        }
        self.head.mark_stored(&tiles);
        self.head.let_go_of_silent(now.plus_millis(-SILENCE_MS_MAX));
        self.progress.stored_before.store(segment, Relaxed);
        self.flushed.set(Some(now));
        Ok(())
    }

    /// Takes blocks out of service that are too old or too many.
    fn drop_expired(&self, now: Timestamp) {
        let blocks = self.shelf.blocks();
        let summaries: Vec<&Summary> = blocks.iter().map(|block| block.summary()).collect();
        let expired = expired(&summaries, &self.options.retention, self.disk_bytes, now);
        if !expired.is_empty() {
            tracing::info!(blocks = expired.len(), "blocks are too old or too many, and go");
            self.shelf.remove(&expired);
        }
    }

    /// Merges blocks once, if that is due; whether it was.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn compact(&self, now: Timestamp) -> Result<bool, BlockError> {
        let blocks = self.shelf.blocks();
        let summaries: Vec<&Summary> = blocks.iter().map(|block| block.summary()).collect();
        let merge = compact::next(&summaries, &self.options.compact, now);
        let job = merge.or_else(|| compact::next_with_other_key(&summaries, self.shelf.keys().newest()));
        let Some(job) = job else { return Ok(false) };
        drop(blocks);
        let pacer = Pacer::new(self.options.merge_bytes_per_second);
        let pace = |bytes| {
            if self.stop.load(Relaxed) {
                return Err(BlockError::Stopped);
            }
            pacer.spend(bytes);
            self.flush_if_due(now.plus_millis(i64::try_from(pacer.elapsed().as_millis()).unwrap_or(i64::MAX)))
        };
        match compact::run(&self.shelf, &job, &pace, now, self.progress.stored_before.load(Relaxed)) {
            // It costs itself alone: what is left is merged without it.
            Err(error @ BlockError::Damaged { .. }) => {
                self.shelf.quarantine_damaged(&error);
                Ok(true)
            }
            result => result.map(|()| true),
        }
    }
}

/// Keeps to so many bytes a second by sleeping.
struct Pacer {
    bytes_per_second: u64,
    began: Instant,
    spent: Cell<u64>,
}

/// What is ahead of its time by less than this goes on: sleeping is not exact.
const AHEAD_MIN: Duration = Duration::from_millis(20);

impl Pacer {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), began: clock::monotonic(), spent: Cell::new(0) }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn spend(&self, bytes: usize) {
        self.spent.set(self.spent.get() + bytes as u64);
        let due = Duration::from_secs_f64(self.spent.get() as f64 / self.bytes_per_second as f64);
        if let Some(ahead) = due.checked_sub(self.elapsed()).filter(|ahead| *ahead >= AHEAD_MIN) {
            thread::sleep(ahead);
        }
    }
}
