//! What was found of some nodes, series by series, and how it is decoded.

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, Range},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use belfry_common::model::{Identity, SeriesDefinition};
use rustc_hash::FxHashMap;

use super::{ReadError, ReadLimits, Reduce, Source, Visitor, parallel, source::KnownAxes};
use crate::{
    NodeId, Pick,
    block::{Block, BlockError, FoundMetric, FoundSeries},
    columns::{Columns, Samples},
    head::Selected,
    rows_of::RowsOf,
    selection::{Extent, Sample},
};

/// What is read of each series, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) wanted: Extent,
    /// What of the raw samples that takes.
    pub(crate) widened: Extent,
    pub(crate) rows: Option<RowsOf>,
    /// The hours of which there are rows.
    pub(crate) hours: &'a BTreeSet<i64>,
}

/// Told of a block that cannot be read; unless that is the end, the rest is read without it.
pub(crate) type Failed<'a> = &'a (dyn Fn(&Block, BlockError) -> Result<(), BlockError> + Sync);

/// What was found of some nodes, series by series, before it is decoded.
#[derive(Default)]
pub(crate) struct Gathered {
    definitions: FxHashMap<Identity<Arc<SeriesDefinition>>, u32>,
    /// The same by address, as far as they were met there: one is mostly that of many nodes. They are kept, so that no other has the address.
    by_address: FxHashMap<usize, (Arc<SeriesDefinition>, u32)>,
    places: FxHashMap<(u32, NodeId), usize>,
    pub(crate) series: Vec<Parts>,
    pub(crate) sources: Vec<Source>,
    /// Samples of the head, of all series.
    of_head: Columns,
    /// Series that some block has.
    pub(super) from_disk: u64,
}

/// Where the samples of one series are.
pub(crate) struct Parts {
    pub(crate) definition: Arc<SeriesDefinition>,
    pub(crate) node: NodeId,
    /// Block by block: source, metric in it, series in that.
    blocks: Vec<(u32, u32, u32)>,
    head: Range<usize>,
}

impl Gathered {
    fn parts(&mut self, node: NodeId, definition: &Arc<SeriesDefinition>) -> Option<&mut Parts> {
        let address = Arc::as_ptr(definition) as usize;
        let number = match self.by_address.get(&address) {
            Some(&(_, number)) => number,
            None => {
                let next = self.definitions.len() as u32;
                let number = *self.definitions.entry(Identity(Arc::clone(definition))).or_insert(next);
                self.by_address.insert(address, (Arc::clone(definition), number));
                number
            }
        };
        let series = &mut self.series;
        let place = *self.places.entry((number, node)).or_insert_with(|| {
            series.push(Parts { definition: Arc::clone(definition), node, blocks: Vec::new(), head: 0..0 });
            series.len() - 1
        });
        self.series.get_mut(place)
    }

    pub(super) fn add_head(&mut self, node: NodeId, selected: &Selected) {
        for (definition, samples) in selected.iter() {
            let from = self.of_head.len();
            samples.iter().for_each(|sample| self.of_head.push(sample));
            let range = from..self.of_head.len();
            if let Some(parts) = self.parts(node, definition) {
                parts.head = range;
            }
        }
    }

    pub(crate) fn add_block(&mut self, block: &Arc<Block>, found: &[FoundMetric]) -> Result<(), BlockError> {
        let source = Source::new(block, found)?;
        let place = self.sources.len() as u32;
        for (metric, of_metric) in (0..).zip(found) {
            for FoundSeries { definition, node, number } in &of_metric.series {
                let Some(parts) = self.parts(*node, definition) else { continue };
                parts.blocks.push((place, metric, *number));
                self.from_disk += u64::from(matches!(parts.blocks.as_slice(), [_]));
            }
        }
        self.sources.push(source);
        Ok(())
    }

    pub(super) fn visit<T: Default + Send>(
        mut self,
        part: Part<'_>,
        (spent, threads): (&Spent, usize),
        failed: Failed<'_>,
        (reduce, visitor): (Reduce<'_, T>, Visitor<'_, T>),
    ) -> Result<ControlFlow<()>, ReadError> {
        // What stands in one page is read together.
        self.series.sort_by_key(|parts| parts.blocks.first().copied());
        let Self { series, mut sources, of_head: all_of_head, .. } = self;
        let (mut buffers, mut reduced) = (Buffers::default(), T::default());
        for (done, parts) in (1..).zip(&series) {
            let of_head = parts.of_head(&all_of_head);
            let cost = parts.read(&mut sources, of_head, part, &mut buffers, failed)?;
            spent.add(cost)?;
            let samples = buffers.columns.samples();
            if !samples.is_empty() {
                reduce(samples, &mut reduced);
                if visitor(parts.node, &parts.definition, &reduced).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let rest = series.get(done..).unwrap_or_default();
            if let Some(plan) = parallel::Plan::of(rest.len(), cost, threads) {
                let worker = || {
                    let mut sources: Vec<Source> = sources.iter().map(Source::again).collect();
                    let mut buffers = Buffers::default();
                    let all_of_head = &all_of_head;
                    move |parts: &Parts| {
                        let of_head = parts.of_head(all_of_head);
                        spent.add(parts.read(&mut sources, of_head, part, &mut buffers, failed)?)?;
                        let samples = buffers.columns.samples();
                        let reduced = || {
                            let mut reduced = T::default();
                            reduce(samples, &mut reduced);
                            reduced
                        };
                        Ok((!samples.is_empty()).then(reduced))
                    }
                };
                return plan.visit(rest, worker, |parts, reduced| match reduced {
                    Some(reduced) => visitor(parts.node, &parts.definition, &reduced),
                    None => ControlFlow::Continue(()),
                });
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What reading took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Decoded.
    pub(super) samples: u64,
    pub(super) bytes: u64,
}

impl Cost {
    /// That of samples that are in memory.
    pub(super) fn of_memory(samples: usize) -> Self {
        Self { samples: samples as u64, bytes: 0 }
    }
}

/// What a read has taken so far, and may take.
#[derive(Debug)]
pub(super) struct Spent {
    samples: AtomicU64,
    bytes: AtomicU64,
    limits: ReadLimits,
}

impl Spent {
    pub(super) fn new(limits: ReadLimits) -> Self {
        Self { samples: AtomicU64::new(0), bytes: AtomicU64::new(0), limits }
    }

    fn add(&self, cost: Cost) -> Result<(), ReadError> {
        let of = |spent: &AtomicU64, more, what, limit| {
            let all = spent.fetch_add(more, Relaxed).saturating_add(more);
            if all > limit { Err(ReadError::Limit { what, limit }) } else { Ok(()) }
        };
        of(&self.samples, cost.samples, "samples", self.limits.samples)?;
        of(&self.bytes, cost.bytes, "bytes", self.limits.bytes)
    }
}

/// Memory for one series after the other.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// What was read last.
    pub(crate) columns: Columns,
    rows: Columns,
    known: KnownAxes,
}

impl Parts {
    /// The samples of the head, out of those of all series.
    fn of_head<'a>(&self, all: &'a Columns) -> Samples<'a> {
        all.part(self.head.clone())
    }

    /// Reads a part of the series into `buffers.columns`, in order. `of_head` are the samples that the head has.
    pub(crate) fn read(
        &self,
        sources: &mut [Source],
        of_head: Samples<'_>,
        part: Part<'_>,
        buffers: &mut Buffers,
        failed: Failed<'_>,
    ) -> Result<Cost, ReadError> {
        let Part { wanted, widened, rows, hours } = part;
        if wanted.pick == Pick::Newest && rows.is_none() {
            return self.read_newest(sources, of_head, wanted, buffers, failed);
        }
        let Buffers { columns, rows: from_rows, known } = buffers;
        columns.clear();
        from_rows.clear();
        let mut cost = Cost::default();
        for &(source, metric, number) in &self.blocks {
            let Some(source) = sources.get_mut(source as usize).filter(|source| !source.has_failed) else { continue };
            let (column, out) = match rows.filter(|rows| rows.tier == source.block.summary().tier) {
                Some(rows) => (rows.aggregate.column(), &mut *from_rows),
                None => (0, &mut *columns),
            };
            if let Err(error) = source.read((metric, number, column), widened, (known, out, &mut cost)) {
                source.has_failed = true;
                failed(&source.block, error)?;
            }
        }
        columns.append(of_head);
        columns.put_in_order();
        if let Some(rows) = rows {
            let [mut samples, mut from_rows] = [&*columns, from_rows].map(|part| part.samples().iter().collect());
            rows.join(&mut samples, &mut from_rows, hours, wanted);
            columns.fill(&samples);
        }
        columns.thin(wanted.pick);
        Ok(cost)
    }

    /// As [`Self::read`] where only the newest sample is wanted: the newest block first, since those before it are mostly not read at all.
    fn read_newest(
        &self,
        sources: &mut [Source],
        of_head: Samples<'_>,
        wanted: Extent,
        buffers: &mut Buffers,
        failed: Failed<'_>,
    ) -> Result<Cost, ReadError> {
        let Buffers { columns, known, .. } = buffers;
        let mut newest: Option<Sample> = of_head.iter().next_back();
        let mut cost = Cost::default();
        for &(source, metric, number) in self.blocks.iter().rev() {
            let Some(source) = sources.get_mut(source as usize).filter(|source| !source.has_failed) else { continue };
            let is_older = |newest: Sample| newest.time.as_millis() > source.block.summary().last_ms;
            if newest.is_some_and(is_older) {
                continue;
            }
            columns.clear();
            if let Err(error) = source.read((metric, number, 0), wanted, (known, columns, &mut cost)) {
                source.has_failed = true;
                failed(&source.block, error)?;
            }
            // Of two samples of one time that of the later block counts, which was read before, unless it is an end.
            let counts = |one: &Sample, newest: Sample| {
                one.time > newest.time || one.time == newest.time && newest.value == Err(None)
            };
            let later = |one: &Sample| newest.is_none_or(|newest| counts(one, newest));
            newest = columns.samples().iter().filter(later).max_by_key(|sample| sample.time).or(newest);
        }
        columns.fill(newest.as_slice());
        Ok(cost)
    }
}
