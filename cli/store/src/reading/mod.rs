//! Reading series from the head and from blocks, as one.
//!
//! What the head has is read first and the list of blocks is taken after that: what leaves the head is in a block before. So nothing is
//! missed, and what is found twice counts once. Blocks stay on disk for as long as somebody reads them, whatever compaction does
//! meanwhile.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use belfry_common::model::SeriesDefinition;

use crate::{
    Head, NodeId, RowsAlone,
    block::{Block, BlockError, Summary, Tier},
    columns::Samples,
    head::Selected,
    rows_of::{RowsOf, hours_of},
    selection::{Sample, Selection, TimeRange},
    shelf::Shelf,
};

mod gathered;
mod memory;
mod parallel;
mod source;

use memory::Memory;

use gathered::Spent;

pub(crate) use gathered::{Buffers, Failed, Gathered, Part, Parts};
pub(crate) use source::Source;

/// What one read may take.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Series from disk.
    pub series: u64,
    /// Samples from disk that are decoded, wanted or not.
    pub samples: u64,
    /// Bytes from disk.
    pub bytes: u64,
    /// Threads that read and reduce, if there is much to read; with 1 it is the caller alone.
    pub threads: usize,
}

impl ReadLimits {
    /// For whoever has limits of its own.
    pub const NONE: Self = Self { series: u64::MAX, samples: u64::MAX, bytes: u64::MAX, threads: 1 };
}

/// Why a read has no complete answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// More than may be read at once.
    #[error("a query may read {limit} {what} from disk: ask for fewer series or a shorter range")]
    Limit {
        /// Of what there is too much.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A thread could not be had.
    #[error("no thread can be started to read with")]
    Thread(#[source] std::io::Error),
    /// A block could not be read. One that is damaged is out of service by now: the same read again is answered without it.
    #[error("a block could not be read")]
    Block(#[from] BlockError),
}

/// Reads a store. Clones read the same one.
#[derive(Debug, Clone)]
pub struct Reader {
    head: Arc<Head>,
    shelf: Arc<Shelf>,
}

/// What there is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockStatistics {
    /// Blocks and their bytes, in the order of [`Tier::ALL`].
    pub tiers: [(u64, u64); 3],
    /// Blocks that were moved aside because of damage.
    pub quarantined: u64,
    /// Bytes of indexes that are kept in memory.
    pub index_bytes: u64,
}

/// Makes something of the samples of one series; it may have been used for another one before. It may be called on several threads at a
/// time, for a series each, ahead of the visitor and for series that are never visited.
pub type Reduce<'a, T> = &'a (dyn Fn(Samples<'_>, &mut T) + Sync);

/// Gets each series with what was made of its samples, until it breaks off.
pub type Visitor<'a, T> = &'a mut dyn FnMut(NodeId, &Arc<SeriesDefinition>, &T) -> ControlFlow<()>;

impl Reader {
    pub(crate) fn new(head: Arc<Head>, shelf: Arc<Shelf>) -> Self {
        Self { head, shelf }
    }

    /// The newest values and the last minutes.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// What there is on disk.
    #[must_use]
    pub fn statistics(&self) -> BlockStatistics {
        let mut statistics = BlockStatistics {
            quarantined: self.shelf.quarantined(),
            index_bytes: self.shelf.cache_bytes() as u64,
            ..BlockStatistics::default()
        };
        for block in self.shelf.blocks().iter() {
            let place = Tier::ALL.iter().position(|tier| *tier == block.summary().tier).unwrap_or_default();
            if let Some((blocks, bytes)) = statistics.tiers.get_mut(place) {
                *blocks += 1;
                *bytes += block.summary().bytes;
            }
        }
        statistics
    }

    /// Rows of this range that stand where there are no raw samples any more: of minutes first, then of hours.
    #[must_use]
    pub fn rows_alone(&self, range: TimeRange) -> Vec<RowsAlone> {
        self.shelf.rows_alone().iter().filter_map(|rows| rows.within(range)).collect()
    }

    /// Visits the series of these nodes, which ascend, each once with its samples in ascending order of time; in the
    /// order of [`Self::reduce`].
    ///
    /// # Errors
    /// [`ReadError`]; some series may have been visited by then.
    pub fn visit(
        &self,
        nodes: &[NodeId],
        selection: &Selection<'_>,
        limits: ReadLimits,
        selected: &mut Selected,
        visitor: Visitor<'_, [Sample]>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut visitor = |node, definition: &_, samples: &Vec<Sample>| visitor(node, definition, samples);
        self.reduce(nodes, selection, limits, selected, (&|samples, copies| samples.copy_to(copies), &mut visitor))
    }

    /// Visits the series of these nodes, which ascend, each once with what is made of its samples where they are read, on several threads if
    /// it is much: nodes of which memory has all one by one, the others together, unless they are too many. `selected` is memory to be used again.
    ///
    /// # Errors
    /// [`ReadError`]; some series may have been visited by then.
    pub fn reduce<T: Default + Send>(
        &self,
        nodes: &[NodeId],
        selection: &Selection<'_>,
        limits: ReadLimits,
        selected: &mut Selected,
        (reduce, visitor): (Reduce<'_, T>, Visitor<'_, T>),
    ) -> Result<ControlFlow<()>, ReadError> {
        let rows = RowsOf::of(selection);
        let widened = rows.map_or(*selection, |rows| rows.widened(selection));
        let memory = Memory { head: &self.head, rows, selection, widened: &widened, reduce };
        let failed = |block: &Block, error| Err(self.quarantined(block, error));
        let (spent, mut from_disk) = (Spent::new(limits), 0);
        let mut left = nodes;
        while !left.is_empty() {
            let mut gathered = Gathered::default();
            let mut elsewhere = Vec::new();
            let (flow, done) = memory.visit(left, limits.threads, selected, visitor, |node, rest| {
                elsewhere.push(node);
                gathered.add_head(node, rest);
            })?;
            left = left.get(done..).unwrap_or_default();
            if flow.is_break() {
                return Ok(flow);
            }
            if elsewhere.is_empty() {
                continue;
            }
            let blocks = self.shelf.blocks();
            let hours = rows.map(|rows| rows.hours(&blocks)).unwrap_or_default();
            let wanted = blocks.iter().filter(|block| is_wanted(block, &widened, rows, &hours)).collect();
            for block in in_order_of_time(wanted) {
                let found = block.find(selection, Some(&elsewhere)).and_then(|found| gathered.add_block(block, &found));
                found.map_err(|error| self.quarantined(block, error))?;
                if from_disk + gathered.from_disk > limits.series {
                    return Err(ReadError::Limit { what: "series", limit: limits.series });
                }
            }
            from_disk += gathered.from_disk;
            let part = Part { wanted: selection.extent(), widened: widened.extent(), rows, hours: &hours };
            if gathered.visit(part, (&spent, limits.threads), &failed, (reduce, visitor))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes a block out of service if it is damaged.
    fn quarantined(&self, block: &Block, error: BlockError) -> BlockError {
        if let BlockError::Damaged { .. } = error {
            self.shelf.quarantine_block(block, &error);
        }
        error
    }
}

/// Blocks so that the samples of a series come in order, where that does not change which of two samples of one time comes last.
fn in_order_of_time(blocks: Vec<&Arc<Block>>) -> Vec<&Arc<Block>> {
    let span = |block: &Block| (block.summary().first_ms, block.summary().last_ms);
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&at| blocks.get(at).map(|block| span(block).0));
    let sorted: Vec<(usize, &Arc<Block>)> = order.into_iter().filter_map(|at| Some((at, *blocks.get(at)?))).collect();
    let changes_places = sorted.iter().enumerate().any(|(nth, (at, block))| {
        let overlapping = sorted.iter().skip(nth + 1).take_while(|(_, later)| span(later).0 <= span(block).1);
        overlapping.into_iter().any(|(later, _)| later < at)
    });
    if changes_places { blocks } else { sorted.into_iter().map(|(_, block)| block).collect() }
}

/// Whether something of a block is asked for: rows where there are some, raw samples where there are none.
pub(crate) fn is_wanted(block: &Block, selection: &Selection<'_>, rows: Option<RowsOf>, hours: &BTreeSet<i64>) -> bool {
    let Summary { tier, first_ms, last_ms, .. } = block.summary();
    let in_range = selection.range.overlaps(*first_ms, *last_ms);
    let has_raw = || hours_of(*first_ms, *last_ms).any(|hour| !hours.contains(&hour));
    in_range && (rows.is_some_and(|rows| rows.tier == *tier) || *tier == Tier::Raw && has_raw())
}
