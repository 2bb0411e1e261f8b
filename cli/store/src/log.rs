//! The journal as the collector uses it: encodes batches, remembers which are stored, begins every segment so that
//! it can be read by itself.

use std::{collections::HashMap, io, sync::Arc};

use belfry_common::{
    journal::{Journal, JournalError, Segment},
    limits::RECORD_BYTES_MAX,
    model::{Batch, Epoch, Gap, Layout, Timestamp},
    sequences::{SequenceSet, TooManyRuns},
    wire::codec::{EncodeError, Encoder},
};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::{
    Entry, Head, Keys, NodeId,
    record::{self, SnapshotWriter},
    sealing::{self, SEALED_BYTES, Sealer},
};

/// Which batches are stored, of every epoch of every node.
pub(crate) type Stored = HashMap<(NodeId, Epoch), SequenceSet>;

/// A batch or gap that was not taken.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("batch contradicts itself")]
    Encode(#[from] EncodeError),
    #[error("journal cannot be encrypted")]
    Random(#[source] io::Error),
    #[error("sequence numbers are too scattered")]
    Runs(#[from] TooManyRuns),
    #[error("batch and its definitions take {bytes} bytes, more than the {RECORD_BYTES_MAX} that are stored together")]
    TooLarge { bytes: usize },
}

#[derive(Debug)]
pub(crate) struct Log {
    journal: Journal,
    keys: Keys,
    /// Of the segment, if it is encrypted.
    sealer: Option<Sealer>,
    stored: Stored,
    /// One context per node, begun anew in each segment.
    encoders: FxHashMap<NodeId, Encoder>,
    /// The layouts that stand in the segment.
    layouts: Layouts,
    buffer: Vec<u8>,
    /// What the segment begins with and is not in it yet, the first last; nothing before the first segment of this process.
    beginning: Option<Vec<Vec<u8>>>,
    /// Bytes that the segment begins with, and bytes that were added since.
    begun_bytes: usize,
    added_bytes: usize,
    /// When each segment began, as far as it is known: for cutting by age.
    began: HashMap<u64, Timestamp>,
}

impl Log {
    pub(crate) fn new(journal: Journal, keys: Keys, stored: Stored, began: HashMap<u64, Timestamp>) -> Self {
        Self {
            journal,
            keys,
            sealer: None,
            stored,
            encoders: FxHashMap::default(),
            layouts: Layouts::default(),
            buffer: Vec::new(),
            beginning: None,
            begun_bytes: 0,
            added_bytes: 0,
            began,
        }
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether segments that are begun from now on are preallocated.
    pub(crate) fn set_preallocate(&mut self, is_wanted: bool) {
        self.journal.set_preallocate(is_wanted);
    }

    pub(crate) fn stored(&self, node: NodeId, epoch: Epoch) -> Option<&SequenceSet> {
        self.stored.get(&(node, epoch))
    }

    pub(crate) fn forget(&mut self, node: NodeId, is_kept: impl Fn(Epoch) -> bool) {
        self.stored.retain(|&(owner, epoch), _| owner != node || is_kept(epoch));
    }

    /// Accepts a batch; false if it is stored already. Durable after the next [`Self::sync`].
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<bool, LogError> {
        let Entry { node, key, received, batch } = entry;
        let (node, key) = (*node, *key);
        if self.stored(node, key.epoch).is_some_and(|stored| stored.contains(key.sequence)) {
            return Ok(false);
        }
        self.buffer.clear();
        record::write_batch_head(node, key, *received, &mut self.buffer);
        let encoder = self.encoders.entry(node).or_default();
        encoder.encode_by_number(batch, |layout| self.layouts.number(layout), &mut self.buffer)?;
        if let Err(error) = self.append_with_layouts() {
            // The encoder has moved on and the journal has not: the next body must stand alone.
            self.encoders.remove(&node);
            self.layouts.forget_unwritten();
            return Err(error);
        }
        self.stored.entry((node, key.epoch)).or_default().insert(key.sequence..=key.sequence)?;
        Ok(true)
    }

    /// Appends what is in the buffer, and before it the layouts that are new in it.
    fn append_with_layouts(&mut self) -> Result<(), LogError> {
        within_record(&self.buffer)?;
        while let Some(record) = self.layouts.next_unwritten() {
            within_record(&record)?;
            sealing::append(&mut self.journal, self.sealer.as_mut(), &record)?;
            self.layouts.written += 1;
        }
        sealing::append(&mut self.journal, self.sealer.as_mut(), &self.buffer)?;
        self.added_bytes += self.buffer.len();
        Ok(())
    }

    /// Notes that these numbers will never be filled; says how many of them were not known before.
    pub(crate) fn add_gap(&mut self, node: NodeId, epoch: Epoch, gap: Gap) -> Result<u64, LogError> {
        self.buffer.clear();
        record::write_gap(node, epoch, gap, &mut self.buffer);
        sealing::append(&mut self.journal, self.sealer.as_mut(), &self.buffer)?;
        let stored = self.stored.entry((node, epoch)).or_default();
        let news = stored.missing_of(gap.first..=gap.last);
        stored.insert(gap.first..=gap.last)?;
        Ok(news)
    }

    /// Makes everything accepted so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        self.journal.sync().map(|_| ())
    }

    /// The segment that is written to; 0 before the first record.
    fn active_segment(&self) -> u64 {
        self.journal.segments().last().map_or(0, |segment| segment.number)
    }

    /// The newest segment that has something; 0 if none has. Where blocks end is said by one that can tell what is newest.
    pub(crate) fn newest_segment(&self) -> u64 {
        let segments = self.journal.segments();
        let empty = usize::from(self.journal.segment_is_empty());
        segments.iter().rev().nth(empty).or_else(|| segments.last()).map_or(0, |segment| segment.number)
    }

    /// Begins a new segment if the present one began before `horizon`: a segment can only go as a whole.
    pub(crate) fn roll_older(&mut self, horizon: Timestamp) -> Result<(), JournalError> {
        let is_old = self.began.get(&self.active_segment()).is_some_and(|began| *began < horizon);
        if is_old && !self.journal.segment_is_empty() { self.roll() } else { Ok(()) }
    }

    /// Begins a new segment. The contexts go with the old one: something may not come for long.
    fn roll(&mut self) -> Result<(), JournalError> {
        self.journal.roll()?;
        self.beginning = None;
        self.forget_contexts();
        Ok(())
    }

    fn forget_contexts(&mut self) {
        (self.encoders, self.layouts) = (FxHashMap::default(), Layouts::default());
    }

    /// Of the segments before `stored_before`, deletes those that ended before `horizon`, and the oldest ones while the journal is larger
    /// than `bytes_max`.
    pub(crate) fn cut(&mut self, stored_before: u64, horizon: Timestamp, bytes_max: u64) -> Result<u64, JournalError> {
        let mut removed = 0;
        loop {
            let segments = self.journal.segments();
            let (Some(oldest), Some(next)) = (segments.first(), segments.get(1)) else { return Ok(removed) };
            // What the next one's beginning says is when the oldest ended.
            let is_old = self.began.get(&next.number).is_some_and(|&began| began < horizon);
            let may_go = is_old || self.journal.bytes() > bytes_max;
            if !may_go || oldest.number >= stored_before {
                return Ok(removed);
            }
            let number = oldest.number;
            if self.journal.remove_oldest()?.is_none() {
                return Ok(removed);
            }
            self.began.remove(&number);
            removed += 1;
        }
    }

    /// To be called before something is added, while the head has everything that was: begins a segment if the present one is full, or
    /// was begun by another process. That its size is exceeded by what comes until the next call does no harm.
    pub(crate) fn prepare(&mut self, head: &Head, now: Timestamp) -> Result<(), LogError> {
        // One that begins with more than a segment should have is to be worth it.
        let is_full = self.journal.wants_roll(0) && self.added_bytes >= self.begun_bytes;
        let has_records = !self.journal.segment_is_empty();
        if has_records && (self.beginning.is_none() || is_full) {
            self.roll()?;
        }
        if self.journal.segment_is_empty() && self.beginning.as_ref().is_none_or(Vec::is_empty) {
            let mut records = self.make_beginning(head, now)?;
            records.reverse();
            (self.begun_bytes, self.added_bytes) = (records.iter().map(Vec::len).sum(), 0);
            self.beginning = Some(records);
            if let Some(Segment { number, .. }) = self.journal.segments().last() {
                self.began.insert(*number, now);
            }
        }
        // A disk that is full in the middle of it is waited for.
        while let Some(record) = self.beginning.as_ref().and_then(|records| records.last()) {
            sealing::append(&mut self.journal, self.sealer.as_mut(), record)?;
            self.beginning.as_mut().and_then(Vec::pop);
        }
        Ok(())
    }

    /// What is stored, and what is newest of every group; the contexts of nodes begin with the latter.
    fn make_beginning(&mut self, head: &Head, now: Timestamp) -> Result<Vec<Vec<u8>>, LogError> {
        self.forget_contexts();
        self.sealer = Sealer::new(&self.keys).map_err(LogError::Random)?;
        let mut records: Vec<Vec<u8>> = self.sealer.iter().map(Sealer::record).collect();
        let mut snapshot = SnapshotWriter::new(now);
        for (&(node, epoch), set) in &self.stored {
            records.extend(snapshot.add(node, epoch, set));
        }
        records.push(snapshot.finish());
        for node in head.nodes() {
            let (ticks, since) = head.newest_ticks(node);
            for tick in ticks {
                let mut newest = Vec::new();
                record::write_newest_head(node, since, &mut newest);
                let encoder = self.encoders.entry(node).or_default();
                encoder.encode_by_number(
                    &Batch { ticks: vec![tick] },
                    |layout| self.layouts.number(layout),
                    &mut newest,
                )?;
                while let Some(record) = self.layouts.next_unwritten() {
                    self.layouts.written += 1;
                    records.push(record);
                }
                records.push(newest);
            }
        }
        records.push(record::begun());
        Ok(records)
    }
}

/// The layouts of a segment: what nodes have in common stands there once.
#[derive(Debug, Default)]
struct Layouts {
    /// By address, which is kept from being another's.
    numbers: FxHashMap<usize, u32>,
    all: Vec<Arc<Layout>>,
    /// How many of these are in the journal: the first ones.
    written: usize,
}

impl Layouts {
    fn number(&mut self, layout: &Arc<Layout>) -> u32 {
        *self.numbers.entry(Arc::as_ptr(layout) as usize).or_insert_with(|| {
            self.all.push(Arc::clone(layout));
            self.all.len() as u32 - 1
        })
    }

    /// The record of the first layout that is not in the journal.
    fn next_unwritten(&self) -> Option<Vec<u8>> {
        let mut record = Vec::new();
        record::write_layout(self.written as u32, self.all.get(self.written)?, &mut record);
        Some(record)
    }

    fn forget_unwritten(&mut self) {
        self.all.truncate(self.written);
        self.numbers.retain(|_, number| (*number as usize) < self.written);
    }
}

fn within_record(record: &[u8]) -> Result<(), LogError> {
    let bytes = record.len() + SEALED_BYTES;
    if bytes <= RECORD_BYTES_MAX { Ok(()) } else { Err(LogError::TooLarge { bytes }) }
}
