//! Reads the journal at the start: what is stored, and the last minutes for the head.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use belfry_common::{
    error_chain::ErrorChain,
    journal::{Journal, Position, ReadError},
    model::{Batch, Timestamp},
};
use tracing::{error, info};

use crate::{
    Head, NodeId, Summary,
    block::{Block, BlockError},
    head::Elsewhere,
    log::Stored,
    record::{Context, Record},
};

/// What the journal told.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) stored: Stored,
    pub(crate) began: HashMap<u64, Timestamp>,
    /// Records that could not be understood.
    pub(crate) unreadable: u64,
}

/// Where to begin to read.
#[derive(Debug)]
pub(crate) struct Start {
    position: Option<Position>,
    /// The first segment of which something may be in no block; 0 if blocks tell nothing of this journal.
    pub(crate) stored_before: u64,
    /// What is in blocks is wanted in memory from here on.
    horizon: Timestamp,
    began: HashMap<u64, Timestamp>,
}

/// Decides where to begin: what is in no block is read, and as much more as the head's window takes.
///
/// A block that was made from the head says which segments were in blocks with it. Reading begins at such a point: then what is not read is in
/// blocks up to that one, each of which says how late the samples of each node are.
pub(crate) fn start(
    journal: &Journal,
    blocks: &[Arc<Block>],
    window_ms: i64,
    now: Timestamp,
) -> Result<(Start, Elsewhere), BlockError> {
    let mut began = HashMap::new();
    for segment in journal.segments() {
        let position = Position { segment: segment.number, offset: 0 };
        began.extend(snapshot_time(journal, position).map(|time| (segment.number, time)));
    }
    let first = journal.segments().iter().map(|segment| segment.number).find(|number| began.contains_key(number));
    // Blocks that know of later segments than there are were written beside another journal.
    let is_of_this = |told: u64| told > 0 && journal.segments().last().is_some_and(|active| told <= active.number);
    let told = |block: &&Arc<Block>| is_of_this(block.summary().journal_segment);
    let stored_before = blocks.iter().rfind(told).map_or(0, |block| block.summary().journal_segment);
    let wanted = now.plus_millis(-window_ms);
    let points = blocks.iter().filter(told).filter(|block| block.summary().replaced.is_empty());
    let points = points.filter_map(|block| Some((block, began.get(&block.summary().journal_segment)?)));
    let mut points: Vec<_> = points.collect();
    points.sort_by_key(|(block, _)| block.summary().journal_segment);
    let early_enough = points.iter().rfind(|(_, began)| **began < wanted).or(points.first());
    let global = blocks.iter().map(|block| block.summary().last_ms).max().map(Timestamp::from_millis);
    let (segment, horizon, elsewhere) = match early_enough {
        Some(&(point, began)) => {
            let horizon = wanted.max(*began);
            let elsewhere = Elsewhere::before(point, blocks, horizon)?;
            (Some(point.summary().journal_segment), horizon, elsewhere)
        }
        // All that there is is read, and how that is to what blocks have is not known.
        None => (first, wanted, Elsewhere::until(global.unwrap_or(Timestamp::from_millis(i64::MIN)))),
    };
    let position = segment.map(|segment| Position { segment, offset: 0 });
    Ok((Start { position, stored_before, horizon, began }, elsewhere))
}

impl Elsewhere {
    /// What is in blocks up to this one, and in those that were put together from others.
    fn before(point: &Block, blocks: &[Arc<Block>], horizon: Timestamp) -> Result<Self, BlockError> {
        let mut elsewhere = Self::until(horizon);
        for block in blocks {
            let Summary { number, last_ms, replaced, .. } = block.summary();
            if *last_ms > horizon.as_millis() && (*number <= point.number() || !replaced.is_empty()) {
                for entry in &block.catalog()?.nodes {
                    elsewhere.note(entry.node, Timestamp::from_millis(entry.last_ms));
                }
            }
        }
        Ok(elsewhere)
    }
}

/// Reads back what a restarted collector must know.
///
/// Segments before the start only tell when they began: the snapshot that it begins with has what else they knew.
pub(crate) fn replay(journal: &Journal, head: &Head, start: Start) -> Replayed {
    let Start { position, stored_before, horizon, began, .. } = start;
    let mut replayed = Replayed { began, ..Replayed::default() };
    if let Some(position) = position {
        let (context, lost) = (Context::new(Arc::clone(head.pool())), HashSet::new());
        let replay = Replay { replayed: &mut replayed, head, horizon, stored_before, context, lost };
        let batches = replay.run(journal, position);
        info!(batches, unreadable = replayed.unreadable, "journal replayed");
    }
    replayed
}

fn snapshot_time(journal: &Journal, position: Position) -> Option<Timestamp> {
    let mut reader = journal.read(position).ok()?;
    let record = reader.next_record().ok()??;
    if record.position.segment != position.segment {
        return None;
    }
    match Record::parse(record.payload) {
        Ok(Record::Snapshot { time, .. }) => Some(time),
        _ => None,
    }
}

struct Replay<'a> {
    replayed: &'a mut Replayed,
    head: &'a Head,
    horizon: Timestamp,
    stored_before: u64,
    context: Context,
    /// Nodes whose context broke in the present segment: one error each is enough in the log.
    lost: HashSet<NodeId>,
}

impl Replay<'_> {
    fn run(mut self, journal: &Journal, start: Position) -> u64 {
        let mut batches = 0;
        let mut reader = match journal.read(start) {
            Ok(reader) => reader,
            Err(error) => {
                self.unreadable(&error);
                return 0;
            }
        };
        let mut is_stored = start.segment < self.stored_before;
        loop {
            match reader.next_record() {
                Ok(Some(record)) => {
                    if is_stored && record.position.segment >= self.stored_before {
                        self.head.mark_stored(&self.head.unstored());
                        is_stored = false;
                    }
                    batches += u64::from(self.take(record.payload, is_stored));
                }
                Ok(None) => {
                    if is_stored {
                        self.head.mark_stored(&self.head.unstored());
                    }
                    return batches;
                }
                Err(error @ ReadError::Damaged { .. }) => self.unreadable(&error),
                Err(error) => {
                    self.unreadable(&error);
                    return batches;
                }
            }
        }
    }

    /// Takes in one record; true if it was a batch that is new.
    fn take(&mut self, payload: &[u8], is_stored: bool) -> bool {
        match Record::parse(payload) {
            Ok(Record::Snapshot { stored, .. }) => {
                self.context.clear();
                self.lost.clear();
                for (node, epoch, set) in stored {
                    self.replayed.stored.insert((node, epoch), set);
                }
                false
            }
            Ok(Record::Gap { node, epoch, gap }) => {
                let set = self.replayed.stored.entry((node, epoch)).or_default();
                if set.insert(gap.first..=gap.last).is_err() {
                    self.replayed.unreadable += 1;
                }
                false
            }
            Ok(Record::Batch { node, key, received, body }) => {
                let batch = match self.context.decode(node, body) {
                    Ok(batch) => batch,
                    Err(error) => {
                        if self.lost.insert(node) {
                            error!(%node, %error, "batches in the journal cannot be read");
                        }
                        self.replayed.unreadable += 1;
                        return false;
                    }
                };
                let set = self.replayed.stored.entry((node, key.epoch)).or_default();
                if set.contains(key.sequence) || set.insert(key.sequence..=key.sequence).is_err() {
                    return false;
                }
                self.keep(node, batch, received, is_stored);
                true
            }
            Ok(Record::Layout { number, body }) => {
                self.context.learn(number, body).unwrap_or_else(|error| self.unreadable(&error));
                false
            }
            Err(error) => {
                self.unreadable(&error);
                false
            }
        }
    }

    fn keep(&self, node: NodeId, mut batch: Batch, received: Timestamp, is_stored: bool) {
        // What is in a block is wanted only for the window.
        batch.ticks.retain(|tick| !is_stored || tick.time >= self.horizon);
        if !batch.ticks.is_empty() {
            self.head.apply(node, &batch, received);
        }
    }

    fn unreadable(&mut self, error: &dyn std::error::Error) {
        self.replayed.unreadable += 1;
        error!(error = %ErrorChain(error), "part of the journal cannot be read");
    }
}
