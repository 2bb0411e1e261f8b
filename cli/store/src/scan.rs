//! Reading a store's files from the first series of a metric to its last: for exports, which are larger than memory.
//!
//! Series come one after the other, each in stretches of time that follow each other. What is in memory is the indexes of one metric, where
//! the series of some nodes are, and one stretch. Rows come with all of their columns.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use belfry_common::model::{SeriesDefinition, Timestamp};

use crate::{
    NodeId, Pick, Samples, StoreFiles,
    block::{Block, BlockError, Summary, Tier},
    compact::row_ms,
    partition::{HOUR_MS, Length, Span},
    reading::{Buffers, Failed, Gathered, Part, Parts, ReadError, Source, is_wanted},
    rows_of::RowsOf,
    selection::{Aggregate, Grain, Sample, Selection, TimeRange},
};

/// Places of series in blocks that are in memory at once: 12 bytes each, and those of all other series some hundred.
const PLACES_MAX: u64 = 2_000_000;

/// What of one metric is read.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// Its name.
    pub metric: &'a str,
    /// Of these nodes, which ascend.
    pub nodes: &'a [NodeId],
    /// Of series for which this holds.
    pub filter: &'a (dyn Fn(&SeriesDefinition) -> bool + Sync),
    /// Only samples, or rows that begin, in this span.
    pub range: TimeRange,
    /// Samples as they were read, or rows.
    pub tier: Tier,
}

impl std::fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("metric", &self.metric).field("range", &self.range).finish_non_exhaustive()
    }
}

/// Gets stretches of a series' columns: samples as they were read, or the columns of its rows, in the order of [`Aggregate::ALL`] and all of
/// the same times, which are the beginnings of the rows.
pub type ColumnVisitor<'a> = &'a mut dyn FnMut(NodeId, &Arc<SeriesDefinition>, &[Vec<Sample>]) -> ControlFlow<()>;

impl StoreFiles {
    /// Visits the series of a metric, each once, in ascending stretches of its samples; of two samples of one time that of the later block
    /// counts. Blocks in which damage is found are read no further and given back.
    ///
    /// # Errors
    /// [`ReadError`]; some series may have been visited by then.
    pub fn scan(&self, scan: &Scan<'_>, visitor: ColumnVisitor<'_>) -> Result<Vec<(String, BlockError)>, ReadError> {
        let damaged = Mutex::new(Vec::new());
        let failed = |block: &Block, error| match error {
            BlockError::Damaged { .. } => {
                damaged.lock().unwrap_or_else(PoisonError::into_inner).push((block.name().to_owned(), error));
                Ok(())
            }
            error => Err(error),
        };
        let parts = self.places(scan.metric)?.div_ceil(PLACES_MAX).max(1);
        let nodes_at_once = scan.nodes.len().div_ceil(usize::try_from(parts).unwrap_or(usize::MAX)).max(1);
        for nodes in scan.nodes.chunks(nodes_at_once) {
            if self.scan_nodes(&Scan { nodes, ..*scan }, &failed, visitor)?.is_break() {
                break;
            }
        }
        Ok(damaged.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many places in blocks the series of a metric have.
    fn places(&self, metric: &str) -> Result<u64, BlockError> {
        let mut places = 0;
        for block in &self.blocks {
            let catalog = block.catalog()?;
            places += catalog
                .metrics
                .iter()
                .filter(|entry| *entry.metric.name == *metric)
                .map(|entry| entry.series)
                .sum::<u64>();
        }
        Ok(places)
    }

    fn scan_nodes(
        &self,
        scan: &Scan<'_>,
        failed: Failed<'_>,
        visitor: ColumnVisitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let whole = selection(scan, Aggregate::Last);
        let rows = RowsOf::of(&whole);
        let widened = rows.map_or(whole, |rows| rows.widened(&whole));
        // Later blocks last: what they say counts.
        let mut blocks = self.blocks.clone();
        blocks.sort_unstable_by_key(|block| block.number());
        let hours = rows.map(|rows| rows.hours(&blocks)).unwrap_or_default();
        let mut gathered = Gathered::default();
        let mut stretches = Stretches::new(scan);
        for block in blocks.iter().filter(|block| is_wanted(block, &widened, rows, &hours)) {
            stretches.add(block.summary());
            let found = block.find(&whole, Some(scan.nodes)).and_then(|found| gathered.add_block(block, &found));
            found.or_else(|error| failed(block, error))?;
        }
        let mut stretch = Stretch::new(scan.tier);
        let Gathered { series, sources, .. } = &mut gathered;
        for parts in series {
            for range in stretches.ranges() {
                stretch.read(parts, sources, &Scan { range, ..*scan }, (&hours, failed))?;
                let has_samples = stretch.columns.first().is_some_and(|column| !column.is_empty());
                if has_samples && visitor(parts.node, &parts.definition, &stretch.columns).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What is read at once of a series.
struct Stretch {
    columns: Vec<Vec<Sample>>,
    buffers: Buffers,
}

impl Stretch {
    fn new(tier: Tier) -> Self {
        Self { columns: vec![Vec::new(); tier.columns()], buffers: Buffers::default() }
    }

    fn read(
        &mut self,
        parts: &Parts,
        sources: &mut [Source],
        scan: &Scan<'_>,
        (hours, failed): (&BTreeSet<i64>, Failed<'_>),
    ) -> Result<(), ReadError> {
        let failures = |sources: &[Source]| sources.iter().filter(|source| source.has_failed).count();
        loop {
            let before = failures(sources);
            for (column, aggregate) in self.columns.iter_mut().zip(Aggregate::ALL) {
                let selection = selection(scan, aggregate);
                let rows = RowsOf::of(&selection);
                let widened = rows.map_or(selection, |rows| rows.widened(&selection));
                let part = Part { wanted: selection.extent(), widened: widened.extent(), rows, hours };
                parts.read(sources, Samples::NONE, part, &mut self.buffers, failed)?;
                let row_ms = row_ms(scan.tier).unwrap_or(0);
                let at_its_beginning = |sample: Sample| Sample { time: sample.time.plus_millis(-row_ms), ..sample };
                column.clear();
                column.extend(self.buffers.columns.samples().iter().map(at_its_beginning));
            }
            // A block that failed between two columns is in some of them.
            if failures(sources) == before {
                return Ok(());
            }
        }
    }
}

/// What a scan is to a reader: rows are known at their ends.
fn selection<'a>(scan: &Scan<'a>, aggregate: Aggregate) -> Selection<'a> {
    let row_ms = row_ms(scan.tier);
    let grain = row_ms.map_or(Grain::Raw, |_| Grain::Rows(scan.tier, aggregate));
    let TimeRange { after, until } = scan.range;
    let [after, until] = [after, until].map(|time| time.plus_millis(row_ms.unwrap_or(0)));
    Selection {
        metric: Some(scan.metric),
        conditions: &[],
        filter: scan.filter,
        range: TimeRange { after, until },
        pick: Pick::All,
        grain,
    }
}

/// The range in pieces of some ten thousand samples of a series, as far as blocks have something.
struct Stretches {
    range: TimeRange,
    length: Length,
    /// Numbers of spans of this length, since 1970.
    numbers: BTreeSet<i64>,
}

impl Stretches {
    fn new(scan: &Scan<'_>) -> Self {
        let length = match scan.tier {
            Tier::Raw => Length::Day,
            Tier::Minute | Tier::Hour => Length::Month,
        };
        Self { range: scan.range, length, numbers: BTreeSet::new() }
    }

    fn add(&mut self, summary: &Summary) {
        let TimeRange { after, until } = self.range;
        // A row begins up to an hour before the first sample that it is made of.
        let first = summary.first_ms.saturating_sub(HOUR_MS).max(after.as_millis().saturating_add(1));
        let last = summary.last_ms.min(until.as_millis());
        if first <= last {
            self.numbers.extend(Span::of(self.length, first).number..=Span::of(self.length, last).number);
        }
    }

    fn ranges(&self) -> impl Iterator<Item = TimeRange> {
        self.numbers.iter().map(|&number| {
            let end = Span { length: self.length, number }.end_ms();
            let start = end.saturating_sub(self.length.millis());
            let [after, until] = [start, end].map(|edge| Timestamp::from_millis(edge.saturating_sub(1)));
            TimeRange { after: after.max(self.range.after), until: until.min(self.range.until) }
        })
    }
}
