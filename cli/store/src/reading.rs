//! Reading series from the head and from blocks, as one.
//!
//! What the head has is read first and the list of blocks is taken after that: what leaves the head is in a block before. So nothing is
//! missed, and what is found twice counts once. Blocks stay on disk for as long as somebody reads them, whatever compaction does
//! meanwhile.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use belfry_common::model::SeriesDefinition;
use rustc_hash::FxHashMap;

use crate::{
    Head, NodeId,
    block::{Axes, Block, BlockError, FoundMetric, FoundSeries, PageReader, Scratch, Summary, Tier, column_resolution},
    head::Selected,
    pick::Places,
    rows_of::{RowsOf, hours_of},
    selection::{Sample, Selection, put_in_order},
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
            self.served(block, found)?;
            if gathered.from_disk > limits.series {
                return Err(ReadError::Limit { what: "series", limit: limits.series });
            }
        }
        gathered.visit(self, (selection, &widened), (rows, &hours), limits, visitor)
    }

    /// Takes a block out of service if it is damaged.
    fn served<T>(&self, block: &Block, result: Result<T, BlockError>) -> Result<T, BlockError> {
        if let Err(error @ BlockError::Damaged { .. }) = &result {
            self.shelf.quarantine_block(block, error);
        }
        result
    }
}

/// Whether something of a block is asked for: rows where there are some, raw samples where there are none.
fn is_wanted(block: &Block, selection: &Selection<'_>, rows: Option<RowsOf>, hours: &BTreeSet<i64>) -> bool {
    let Summary { tier, first_ms, last_ms, .. } = block.summary();
    let in_range = selection.range.overlaps(*first_ms, *last_ms);
    let has_raw = || hours_of(*first_ms, *last_ms).any(|hour| !hours.contains(&hour));
    in_range && (rows.is_some_and(|rows| rows.tier == *tier) || *tier == Tier::Raw && has_raw())
}

/// What was found of some nodes, series by series, before it is decoded.
#[derive(Default)]
struct Gathered {
    definitions: FxHashMap<Arc<SeriesDefinition>, u32>,
    places: FxHashMap<(u32, NodeId), usize>,
    series: Vec<Parts>,
    sources: Vec<Source>,
    /// Samples of the head.
    samples: Vec<Sample>,
    /// Series that some block has.
    from_disk: u64,
}

/// Where the samples of one series are.
struct Parts {
    definition: Arc<SeriesDefinition>,
    node: NodeId,
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

    fn add_block(&mut self, block: &Arc<Block>, found: Vec<FoundMetric>) -> Result<(), BlockError> {
        let source = self.sources.len() as u32;
        for (metric, of_metric) in (0..).zip(&found) {
            for FoundSeries { definition, node, number } in &of_metric.series {
                let Some(parts) = self.parts(*node, definition) else { continue };
                parts.blocks.push((source, metric, *number));
                self.from_disk += u64::from(matches!(parts.blocks.as_slice(), [_]));
            }
        }
        self.sources.push(Source::new(block, found)?);
        Ok(())
    }

    fn visit(
        self,
        reader: &Reader,
        (selection, widened): (&Selection<'_>, &Selection<'_>),
        (rows, hours): (Option<RowsOf>, &BTreeSet<i64>),
        limits: ReadLimits,
        visitor: Visitor<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let Self { series, mut sources, samples: of_head, .. } = self;
        let (mut samples, mut from_rows) = (Vec::new(), Vec::new());
        let mut read = 0;
        for Parts { definition, node, blocks, head } in series {
            samples.clear();
            from_rows.clear();
            let of_head = of_head.get(head).unwrap_or_default();
            for (source, metric, number) in blocks {
                let Some(source) = sources.get_mut(source as usize) else { continue };
                let block = Arc::clone(&source.block);
                let (column, out) = match rows.filter(|rows| rows.tier == block.summary().tier) {
                    Some(rows) => (rows.aggregate.column(), &mut from_rows),
                    None => (0, &mut samples),
                };
                let result = source.read((metric, number, column), &definition, widened, out);
                read += reader.served(&block, result)?;
            }
            if read > limits.samples {
                return Err(ReadError::Limit { what: "samples", limit: limits.samples });
            }
            if sources.iter().map(|source| source.pages.bytes()).sum::<u64>() > limits.bytes {
                return Err(ReadError::Limit { what: "bytes", limit: limits.bytes });
            }
            samples.extend_from_slice(of_head);
            put_in_order(&mut samples, 0);
            if let Some(rows) = rows {
                rows.join(&mut samples, &mut from_rows, hours, selection);
            }
            selection.pick.thin(&mut samples, 0);
            if !samples.is_empty() && visitor(node, &definition, &samples).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A block that is read series by series.
struct Source {
    block: Arc<Block>,
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
    times: Vec<i64>,
    places: Places,
}

impl Source {
    fn new(block: &Arc<Block>, found: Vec<FoundMetric>) -> Result<Self, BlockError> {
        let axes = block.axes(&*block.catalog()?)?;
        let pages = PageReader::new(Arc::clone(block));
        Ok(Self { block: Arc::clone(block), axes, found, pages, axis: None, scratch: Scratch::default() })
    }

    /// Appends the samples of a series that are wanted, always of the same selection. Gives how many were read for that.
    fn read(
        &mut self,
        (metric, number, column): (u32, u32, usize),
        definition: &SeriesDefinition,
        Selection { range, pick, .. }: &Selection<'_>,
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
            let known = match self.axis.take().filter(|known| known.number == axis) {
                Some(known) => known,
                None => {
                    let times = self.axes.times(axis).map_err(|_| self.block.damaged("its axes"))?;
                    let places = pick.places(&times, *range);
                    Axis { number: axis, times, places }
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
