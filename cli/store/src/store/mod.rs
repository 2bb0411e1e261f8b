//! The store as its owner sees it: add, commit, cut.

use std::{
    collections::HashMap,
    mem,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use belfry_common::{
    journal::{Journal, Options, ReadError, Recovery},
    model::{Batch, BatchKey, Epoch, Gap, Sequence, Timestamp},
    sequences::SequenceSet,
    storage::{Disk as StorageDisk, Storage},
};

use crate::{
    Head, HeadOptions, Keys, LogRecord, MaintainOptions, Maintainer, NodeId, Reader, ShelfRecovery, Summary, history,
    log::Log, maintain::Progress, replay, shelf::Shelf,
};

mod error;

pub use error::StoreError;

/// How much the store keeps.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// In memory.
    pub head: HeadOptions,
    /// Milliseconds for which a journal segment is kept after it was filled although all of it is in blocks.
    pub journal_age_ms_max: i64,
    /// Bytes of the journal beyond which segments go earlier, if all of them is in blocks.
    pub journal_bytes_max: u64,
    /// When what is in memory goes to blocks.
    pub maintain: MaintainOptions,
    /// Bytes of blocks' indexes that are kept in memory.
    pub cache_bytes_max: usize,
    /// Size at which a segment is full.
    pub segment_bytes: u32,
    /// Free bytes of the disk that the journal leaves to others, above all to the database, so that alerts are still evaluated and
    /// told when no more data is taken in. Of a small disk it is a twentieth.
    pub reserve_bytes: u64,
    /// What the journal and blocks are encrypted with, if they are to be.
    pub keys: Keys,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            head: HeadOptions::default(),
            journal_age_ms_max: 0,
            journal_bytes_max: 8 * 1024 * 1024 * 1024,
            maintain: MaintainOptions::default(),
            cache_bytes_max: 64 * 1024 * 1024,
            segment_bytes: 64 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
            keys: Keys::default(),
        }
    }
}

/// A batch on its way into the store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub key: BatchKey,
    /// When the collector got it.
    pub received: Timestamp,
    /// Its ticks.
    pub batch: Arc<Batch>,
}

/// Whether a batch was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It will be durable with the next commit.
    New,
    /// It is stored already, or will be with the next commit.
    Duplicate,
}

/// What the journal holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStatistics {
    /// Segments.
    pub segments: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Records that could not be understood at the start.
    pub unreadable: u64,
    /// Segments deleted by age or size since the start.
    pub segments_cut: u64,
}

/// What opening a store found.
#[derive(Debug)]
pub struct StoreRecovery {
    /// In its journal.
    pub journal: Recovery,
    /// Among its blocks.
    pub blocks: ShelfRecovery,
}

impl StoreRecovery {
    /// Whether nothing was damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.journal.is_clean() && self.blocks.quarantined == 0
    }
}

/// Batches that have become durable with one commit, in the order in which they were added.
pub type Writes = Vec<Entry>;

/// The journal, the head and blocks. One thread owns it; others read with [`Store::reader`], or memory alone with [`Store::head`].
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    options: StoreOptions,
    log: Log,
    head: Arc<Head>,
    shelf: Arc<Shelf>,
    progress: Arc<Progress>,
    /// Accepted by the journal, not durable yet.
    pending: Writes,
    /// The numbers of these batches, and of gaps.
    undurable: HashMap<(NodeId, Epoch), SequenceSet>,
    unreadable: u64,
    segments_cut: u64,
}

impl Store {
    /// Opens the store of a directory, creating it if need be, and reads its journal.
    ///
    /// # Errors
    /// [`StoreError`]: the directory cannot be used, is in use, has a newer format, or is encrypted with a key that is not there.
    pub fn open(directory: &Path, options: StoreOptions, now: Timestamp) -> Result<(Self, StoreRecovery), StoreError> {
        let path = directory.join("journal");
        let disk = |path: PathBuf| {
            let made = StorageDisk::create(&path).map(|disk| Arc::new(disk) as Arc<dyn Storage>);
            made.map_err(|source| StoreError::Directory { path, source })
        };
        let (journal, blocks) = (disk(path.clone())?, disk(directory.join("blocks"))?);
        let preallocate = Disk::of(&path).is_none_or(|disk| disk.has_room_for_segment(&options));
        Self::open_in(journal, blocks, options, preallocate, now)
    }

    /// As [`Self::open`], with the journal and the blocks in these storages. `preallocate`: the journal's segments take their space when
    /// they are begun.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(
        journal: Arc<dyn Storage>,
        blocks: Arc<dyn Storage>,
        options: StoreOptions,
        preallocate: bool,
        now: Timestamp,
    ) -> Result<(Self, StoreRecovery), StoreError> {
        let path = journal.path().to_owned();
        let journal_options = Options { segment_bytes: options.segment_bytes, preallocate, ..Options::default() };
        let (journal, recovery) = Journal::open_in(journal, journal_options).map_err(StoreError::Journal)?;
        let (shelf, shelf_recovery) =
            Shelf::open(blocks, &options.keys, options.cache_bytes_max).map_err(StoreError::Blocks)?;
        let blocks = shelf.blocks();
        let start = replay::start(&journal, &options.keys, &blocks, now)?;
        let stored_before = start.stored_before;
        let (head, replayed) = replay::replay(&journal, &options.keys, options.head, start);
        let head = Arc::new(head);
        let log = Log::new(journal, options.keys.clone(), replayed.stored, replayed.began);
        let progress = Progress::default();
        progress.stored_before.store(stored_before, Relaxed);
        progress.applied_before.store(log.newest_segment(), Relaxed);
        let store = Self {
            path,
            options,
            log,
            head,
            shelf: Arc::new(shelf),
            progress: Arc::new(progress),
            pending: Vec::new(),
            undurable: HashMap::new(),
            unreadable: replayed.unreadable,
            segments_cut: 0,
        };
        Ok((store, StoreRecovery { journal: recovery, blocks: shelf_recovery }))
    }

    /// Does what must be done beside ingest; for a thread of its own. There is to be one.
    #[must_use]
    pub fn maintainer(&self) -> Maintainer {
        let (head, shelf) = (Arc::clone(&self.head), Arc::clone(&self.shelf));
        let disk_bytes = Disk::of(shelf.path()).map(|disk| disk.total);
        Maintainer::new(head, shelf, Arc::clone(&self.progress), self.options.maintain, disk_bytes)
    }

    /// The blocks that there are now.
    #[must_use]
    pub fn blocks(&self) -> Vec<Summary> {
        self.shelf.blocks().iter().map(|block| block.summary().clone()).collect()
    }

    /// Reads all that there is, in memory and on disk.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.head), Arc::clone(&self.shelf))
    }

    /// What readers use.
    #[must_use]
    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.head)
    }

    /// The runs of numbers of an epoch that are durable: of what was added since the last commit there are none.
    #[must_use]
    pub fn durable(&self, node: NodeId, epoch: Epoch) -> Vec<(Sequence, Sequence)> {
        let Some(stored) = self.log.stored(node, epoch) else { return Vec::new() };
        match self.undurable.get(&(node, epoch)) {
            Some(pending) => stored.runs_without(pending),
            None => stored.runs().collect(),
        }
    }

    /// Adds a batch. Not durable, and not to be acknowledged, before [`Self::commit`].
    ///
    /// # Errors
    /// [`StoreError`]; the batch is not added then, and a retryable one may be added again.
    pub fn add(&mut self, entry: Entry) -> Result<Added, StoreError> {
        self.prepare(entry.received)?;
        if !self.log.add(&entry)? {
            return Ok(Added::Duplicate);
        }
        let sequence = entry.key.sequence;
        self.note_undurable(entry.node, entry.key.epoch, sequence..=sequence);
        self.pending.push(entry);
        Ok(Added::New)
    }

    /// Notes numbers that will never be filled, so that nobody waits for them; says how many of them were not known before.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is noted then.
    pub fn add_gap(&mut self, node: NodeId, epoch: Epoch, gap: Gap, now: Timestamp) -> Result<u64, StoreError> {
        self.prepare(now)?;
        let news = self.log.add_gap(node, epoch, gap)?;
        self.note_undurable(node, epoch, gap.first..=gap.last);
        Ok(news)
    }

    /// A segment begins with what is newest, so that the head must have all that stands before it.
    fn prepare(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.pending.is_empty() { Ok(self.log.prepare(&self.head, now)?) } else { Ok(()) }
    }

    fn note_undurable(&mut self, node: NodeId, epoch: Epoch, run: RangeInclusive<Sequence>) {
        let pending = self.undurable.entry((node, epoch)).or_default();
        // What does not fit between two commits: then none of this epoch is said to be durable before the next.
        if pending.insert(run).is_err() {
            *pending = SequenceSet::default();
            // One run always fits an empty set.
            drop(pending.insert(0..=Sequence::MAX));
        }
    }

    /// [`Self::sync`] and [`Self::show`].
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn commit(&mut self) -> Result<Writes, StoreError> {
        self.sync()?;
        Ok(self.show())
    }

    /// Makes everything added durable: now it may be acknowledged. [`Self::show`] is to follow before anything else is added.
    ///
    /// # Errors
    /// [`StoreError`]; what was added stays pending, and a retryable call may be repeated.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.keep_reserve()?;
        self.log.sync().map_err(StoreError::Journal)?;
        self.undurable.clear();
        Ok(())
    }

    /// Shows what has become durable to readers, and returns it.
    pub fn show(&mut self) -> Writes {
        for entry in &self.pending {
            self.head.apply(entry.node, &entry.batch, entry.received);
        }
        self.progress.applied_before.store(self.log.newest_segment(), Relaxed);
        mem::take(&mut self.pending)
    }

    /// Refuses to write when the disk has no more room than what is left to others.
    fn keep_reserve(&mut self) -> Result<(), StoreError> {
        // A disk that does not say how full it is will say so when it is.
        let Some(disk) = Disk::of(&self.path) else { return Ok(()) };
        self.log.set_preallocate(disk.has_room_for_segment(&self.options));
        let (free, reserve) = (disk.free, disk.reserve(&self.options));
        // What is preallocated is the journal's already.
        if free >= reserve || self.log.journal().spare_bytes() > 0 {
            return Ok(());
        }
        Err(StoreError::Reserve { path: self.path.clone(), free, reserve })
    }

    /// Deletes what of the journal is in blocks, and older or larger than it may be. To be called every few seconds: it also begins
    /// segments, which can only go as a whole, so that they do not get old before they are full.
    ///
    /// # Errors
    /// [`StoreError`] when a file cannot be deleted; the rest is as it was.
    pub fn cut(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let StoreOptions { maintain, journal_age_ms_max, journal_bytes_max, .. } = self.options;
        let stored_before = self.progress.stored_before.load(Relaxed);
        let cut = self.log.cut(stored_before, now.plus_millis(-journal_age_ms_max), journal_bytes_max);
        let cut = cut.map_err(StoreError::Journal)?;
        if self.pending.is_empty() {
            self.log.roll_older(now.plus_millis(-maintain.flush_interval_ms)).map_err(StoreError::Journal)?;
        }
        self.segments_cut += cut;
        Ok(())
    }

    /// Forgets which batches of a node are stored, except of the epochs that `is_kept`.
    pub fn forget_epochs(&mut self, node: NodeId, is_kept: impl Fn(Epoch) -> bool) {
        self.log.forget(node, is_kept);
    }

    /// Calls `visit` with every record of the journal, from the oldest on.
    ///
    /// # Errors
    /// [`ReadError`] when a file cannot be read; a record that is damaged is visited as such.
    pub fn read_log(&self, visit: impl FnMut(LogRecord)) -> Result<(), ReadError> {
        history::read(self.log.journal(), &self.options.keys, visit)
    }

    /// What the journal holds now.
    #[must_use]
    pub fn log_statistics(&self) -> LogStatistics {
        let journal = self.log.journal();
        LogStatistics {
            segments: journal.segments().len() as u64,
            bytes: journal.bytes(),
            unreadable: self.unreadable,
            segments_cut: self.segments_cut,
        }
    }
}

/// How full the disk of a directory is, in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    free: u64,
    total: u64,
}

impl Disk {
    fn of(path: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(path).ok()?;
        Some(Self { free: disk.f_bavail * disk.f_frsize, total: disk.f_blocks * disk.f_frsize })
    }

    fn reserve(self, options: &StoreOptions) -> u64 {
        options.reserve_bytes.min(self.total / 20)
    }

    fn has_room_for_segment(self, options: &StoreOptions) -> bool {
        self.free >= self.reserve(options) + u64::from(options.segment_bytes)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;

#[cfg(test)]
mod encrypted;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod series;
