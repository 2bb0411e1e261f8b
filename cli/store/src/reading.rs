//! Reading series from the head and from blocks, as one.
//!
//! What the head has is read first and the list of blocks is taken after that: what leaves the head is in a block before. So nothing is
//! missed, and what is found twice counts once. Blocks stay on disk for as long as somebody reads them, whatever compaction does
//! meanwhile.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use belfry_common::model::SeriesDefinition;
use rustc_hash::FxHashMap;

use crate::{
    Head, NodeId, Pick,
    block::{Axes, Block, BlockError, FoundMetric, FoundSeries, PageReader, Scratch, Summary, Tier, column_resolution},
    head::Selected,
    pick::Places,
    rows_of::{RowsOf, hours_of},
    selection::{Sample, Selection, TimeRange, put_in_order},
    shelf::Shelf,
};

/// What one read may take.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Series from disk.
    pub series: u64,
    /// Samples from disk that are decoded, wanted or not.
    pub samples: u64,
    /// Bytes from disk.
    pub bytes: u64,
}

impl ReadLimits {
    /// For whoever has limits of its own.
    pub const NONE: Self = Self { series: u64::MAX, samples: u64::MAX, bytes: u64::MAX };
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

/// Gets each series with its samples in ascending order of time, until it breaks off.
pub type Visitor<'a> = &'a mut dyn FnMut(NodeId, &Arc<SeriesDefinition>, &[Sample]) -> ControlFlow<()>;

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

    /// Visits the series of these nodes, which ascend, each once. `selected` is memory to be used again.
    ///
    /// # Errors
    /// [`ReadError`]; some series may have been visited by then.
    pub fn visit(
        &self,
        nodes: &[NodeId],
        selection: &Selection<'_>,
        limits: ReadLimits,
        selected: &mut Selected,
        visitor: Visitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let rows = RowsOf::of(selection);
        let widened = rows.map_or(*selection, |rows| rows.widened(selection));
        let mut elsewhere = Vec::new();
        let mut gathered = Gathered::default();
        for &node in nodes {
            if self.head.select_beside_blocks(node, &widened, selected) {
                for (definition, samples) in selected.iter() {
                    let made = rows.map(|rows| rows.of_samples(samples, selection));
                    let samples = made.as_deref().unwrap_or(samples);
                    if !samples.is_empty() && visitor(node, definition, samples).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            } else {
                elsewhere.push(node);
                gathered.add_head(node, selected);
            }
        }
        if elsewhere.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let blocks = self.shelf.blocks();
        let hours = rows.map(|rows| rows.hours(&blocks)).unwrap_or_default();
        for block in blocks.iter().filter(|block| is_wanted(block, &widened, rows, &hours)) {
            let found = block.find(selection, Some(&elsewhere)).and_then(|found| gathered.add_block(block, found));
            found.map_err(|error| self.quarantined(block, error))?;
            if gathered.from_disk > limits.series {
                return Err(ReadError::Limit { what: "series", limit: limits.series });
            }
        }
        let failed = |block: &Block, error| Err(self.quarantined(block, error));
        let part = Part { selection, widened: &widened, rows, hours: &hours, failed: &failed };
        gathered.visit(&part, limits, visitor)
    }

    /// Takes a block out of service if it is damaged.
    fn quarantined(&self, block: &Block, error: BlockError) -> BlockError {
        if let BlockError::Damaged { .. } = error {
            self.shelf.quarantine_block(block, &error);
        }
        error
    }
}

/// Whether something of a block is asked for: rows where there are some, raw samples where there are none.
pub(crate) fn is_wanted(block: &Block, selection: &Selection<'_>, rows: Option<RowsOf>, hours: &BTreeSet<i64>) -> bool {
    let Summary { tier, first_ms, last_ms, .. } = block.summary();
    let in_range = selection.range.overlaps(*first_ms, *last_ms);
    let has_raw = || hours_of(*first_ms, *last_ms).any(|hour| !hours.contains(&hour));
    in_range && (rows.is_some_and(|rows| rows.tier == *tier) || *tier == Tier::Raw && has_raw())
}

/// What is read of each series, and how.
pub(crate) struct Part<'a> {
    pub(crate) selection: &'a Selection<'a>,
    /// What of the raw samples that takes.
    pub(crate) widened: &'a Selection<'a>,
    pub(crate) rows: Option<RowsOf>,
    /// The hours of which there are rows.
    pub(crate) hours: &'a BTreeSet<i64>,
    /// Told of a block that cannot be read; unless that is the end, the rest is read without it.
    pub(crate) failed: &'a dyn Fn(&Block, BlockError) -> Result<(), BlockError>,
}

/// What was found of some nodes, series by series, before it is decoded.
#[derive(Default)]
pub(crate) struct Gathered {
    definitions: FxHashMap<Arc<SeriesDefinition>, u32>,
    places: FxHashMap<(u32, NodeId), usize>,
    pub(crate) series: Vec<Parts>,
    pub(crate) sources: Vec<Source>,
    /// Samples of the head.
    samples: Vec<Sample>,
    /// Series that some block has.
    from_disk: u64,
}

/// Where the samples of one series are.
pub(crate) struct Parts {
    pub(crate) definition: Arc<SeriesDefinition>,
    pub(crate) node: NodeId,
    /// Block by block: source, metric in it, series in that.
    blocks: Vec<(u32, u32, u32)>,
    head: std::ops::Range<usize>,
}

impl Gathered {
    fn parts(&mut self, node: NodeId, definition: &Arc<SeriesDefinition>) -> Option<&mut Parts> {
        let next = self.definitions.len() as u32;
        let number = match self.definitions.get(definition) {
            Some(&number) => number,
            None => {
                self.definitions.insert(Arc::clone(definition), next);
                next
            }
        };
        let series = &mut self.series;
        let place = *self.places.entry((number, node)).or_insert_with(|| {
            series.push(Parts { definition: Arc::clone(definition), node, blocks: Vec::new(), head: 0..0 });
            series.len() - 1
        });
        self.series.get_mut(place)
    }

    fn add_head(&mut self, node: NodeId, selected: &Selected) {
        for (definition, samples) in selected.iter() {
            let from = self.samples.len();
            self.samples.extend_from_slice(samples);
            let range = from..self.samples.len();
            if let Some(parts) = self.parts(node, definition) {
                parts.head = range;
            }
        }
    }

    pub(crate) fn add_block(&mut self, block: &Arc<Block>, found: Vec<FoundMetric>) -> Result<(), BlockError> {
        let source = Source::new(block, found)?;
        let place = self.sources.len() as u32;
        for (metric, of_metric) in (0..).zip(&source.found) {
            for FoundSeries { definition, node, number } in &of_metric.series {
                let Some(parts) = self.parts(*node, definition) else { continue };
                parts.blocks.push((place, metric, *number));
                self.from_disk += u64::from(matches!(parts.blocks.as_slice(), [_]));
            }
        }
        self.sources.push(source);
        Ok(())
    }

    fn visit(
        mut self,
        part: &Part<'_>,
        limits: ReadLimits,
        visitor: Visitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let (mut buffers, mut read) = (Buffers::default(), 0);
        for parts in &self.series {
            let of_head = self.samples.get(parts.head.clone()).unwrap_or_default();
            read += parts.read(&mut self.sources, of_head, part, &mut buffers)?;
            if read > limits.samples {
                return Err(ReadError::Limit { what: "samples", limit: limits.samples });
            }
            if self.sources.iter().map(|source| source.pages.bytes()).sum::<u64>() > limits.bytes {
                return Err(ReadError::Limit { what: "bytes", limit: limits.bytes });
            }
            let samples = &buffers.samples;
            if !samples.is_empty() && visitor(parts.node, &parts.definition, samples).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Memory for one series after the other.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// What was read last.
    pub(crate) samples: Vec<Sample>,
    rows: Vec<Sample>,
}

impl Parts {
    /// Reads a part of the series into `buffers.samples`, in order; how many samples of blocks were decoded for that.
    pub(crate) fn read(
        &self,
        sources: &mut [Source],
        of_head: &[Sample],
        part: &Part<'_>,
        buffers: &mut Buffers,
    ) -> Result<u64, ReadError> {
        let Part { selection, widened, rows, hours, failed } = *part;
        let Buffers { samples, rows: from_rows } = buffers;
        samples.clear();
        from_rows.clear();
        let mut read = 0;
        for &(source, metric, number) in &self.blocks {
            let Some(source) = sources.get_mut(source as usize).filter(|source| !source.has_failed) else { continue };
            let tier = source.block.summary().tier;
            let (column, out) = match rows.filter(|rows| rows.tier == tier) {
                Some(rows) => (rows.aggregate.column(), &mut *from_rows),
                None => (0, &mut *samples),
            };
            match source.read((metric, number, column), &self.definition, widened, out) {
                Ok(count) => read += count,
                Err(error) => {
                    source.has_failed = true;
                    failed(&source.block, error)?;
                }
            }
        }
        samples.extend_from_slice(of_head);
        put_in_order(samples, 0);
        if let Some(rows) = rows {
            rows.join(samples, from_rows, hours, selection);
        }
        selection.pick.thin(samples, 0);
        Ok(read)
    }
}

/// A block that is read series by series.
pub(crate) struct Source {
    block: Arc<Block>,
    /// It cannot be read, and the rest is read without it.
    pub(crate) has_failed: bool,
    axes: Arc<Axes>,
    found: Vec<FoundMetric>,
    pages: PageReader,
    /// The axis decoded last: neighbouring series mostly share one.
    axis: Option<Axis>,
    scratch: Scratch,
}

/// The times of an axis, and where those are that are wanted.
struct Axis {
    number: u32,
    wanted: (TimeRange, Pick),
    times: Vec<i64>,
    places: Places,
}

impl Source {
    fn new(block: &Arc<Block>, found: Vec<FoundMetric>) -> Result<Self, BlockError> {
        let axes = block.axes(&*block.catalog()?)?;
        let pages = PageReader::new(Arc::clone(block));
        Ok(Self {
            block: Arc::clone(block),
            has_failed: false,
            axes,
            found,
            pages,
            axis: None,
            scratch: Scratch::default(),
        })
    }

    /// Appends the samples of a series that are wanted; how many were decoded for that.
    fn read(
        &mut self,
        (metric, number, column): (u32, u32, usize),
        definition: &SeriesDefinition,
        &Selection { range, pick, .. }: &Selection<'_>,
        samples: &mut Vec<Sample>,
    ) -> Result<u64, BlockError> {
        let mut read = 0;
        let malformed = || self.block.damaged("the index of a metric");
        let Some(FoundMetric { index, .. }) = self.found.get(metric as usize) else { return Ok(0) };
        for chunk in index.chunks_of(number) {
            let axis = index.axis(chunk).ok_or_else(malformed)?;
            let span = self.axes.span(axis).map_err(|_| malformed())?;
            if !range.overlaps(span.first, span.last) {
                continue;
            }
            let known = match self.axis.take().filter(|known| (known.number, known.wanted) == (axis, (range, pick))) {
                Some(known) => known,
                None => {
                    let times = self.axes.times(axis).map_err(|_| self.block.damaged("its axes"))?;
                    let places = pick.places(&times, range);
                    Axis { number: axis, wanted: (range, pick), times, places }
                }
            };
            let Axis { times, places, .. } = self.axis.insert(known);
            let tier = self.block.summary().tier;
            let resolution = column_resolution(tier, column, definition.metric.resolution);
            self.pages.samples(index, (column, chunk), resolution, (times, places), &mut self.scratch, samples)?;
            read += times.len() as u64;
        }
        Ok(read)
    }
}
