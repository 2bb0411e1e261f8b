//! A block as it is read series by series.

use std::{collections::hash_map::Entry, sync::Arc};

use belfry_common::model::SeriesDefinition;
use rustc_hash::FxHashMap;

use super::gathered::Cost;
use crate::{
    block::{Axes, Block, BlockError, FoundMetric, Malformed, MetricIndex, PageReader, Scratch, column_resolution},
    columns::Columns,
    pick::Places,
    selection::Extent,
};

/// A block that is read series by series.
pub(crate) struct Source {
    pub(super) block: Arc<Block>,
    /// It cannot be read, and the rest is read without it.
    pub(crate) has_failed: bool,
    axes: Arc<Axes>,
    /// Of the metrics of which series were found.
    indexes: Vec<Arc<MetricIndex>>,
    pages: PageReader,
    /// The axes decoded last: neighbouring series mostly share theirs.
    known: KnownAxes,
    scratch: Scratch,
}

/// Axes of a block with the places of what is wanted.
#[derive(Default)]
struct KnownAxes {
    wanted: Option<Extent>,
    by_number: FxHashMap<u32, Axis>,
    times: usize,
}

/// The times of an axis, and where those are that are wanted.
struct Axis {
    times: Vec<i64>,
    places: Places,
}

/// Times of axes that are kept: half a megabyte for each block and thread.
const KNOWN_TIMES_MAX: usize = 64 * 1024;

impl KnownAxes {
    fn get(&mut self, axes: &Axes, number: u32, wanted: Extent) -> Result<&Axis, Malformed> {
        if self.wanted != Some(wanted) || self.times > KNOWN_TIMES_MAX {
            *self = Self { wanted: Some(wanted), ..Self::default() };
        }
        match self.by_number.entry(number) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let times = axes.times(number)?;
                let places = wanted.pick.places(&times, wanted.range);
                self.times += times.len();
                Ok(unknown.insert(Axis { times, places }))
            }
        }
    }
}

impl Source {
    pub(super) fn new(block: &Arc<Block>, found: &[FoundMetric]) -> Result<Self, BlockError> {
        let axes = block.axes(&*block.catalog()?)?;
        Ok(Self::reading(block, axes, found.iter().map(|metric| Arc::clone(&metric.index)).collect()))
    }

    fn reading(block: &Arc<Block>, axes: Arc<Axes>, indexes: Vec<Arc<MetricIndex>>) -> Self {
        let pages = PageReader::new(Arc::clone(block));
        let (known, scratch) = (KnownAxes::default(), Scratch::default());
        Self { block: Arc::clone(block), has_failed: false, axes, indexes, pages, known, scratch }
    }

    /// Another one of the same block, for another thread.
    pub(super) fn again(&self) -> Self {
        Self::reading(&self.block, Arc::clone(&self.axes), self.indexes.clone())
    }

    /// Appends the samples of a series that are wanted.
    pub(super) fn read(
        &mut self,
        (metric, number, column): (u32, u32, usize),
        definition: &SeriesDefinition,
        wanted: Extent,
        (samples, cost): (&mut Columns, &mut Cost),
    ) -> Result<(), BlockError> {
        let malformed = || self.block.damaged("the index of a metric");
        let Some(index) = self.indexes.get(metric as usize) else { return Ok(()) };
        let bytes_before = self.pages.bytes();
        for chunk in index.chunks_of(number) {
            let axis = index.axis(chunk).ok_or_else(malformed)?;
            let span = self.axes.span(axis).map_err(|_| malformed())?;
            if !wanted.range.overlaps(span.first, span.last) {
                continue;
            }
            let known = self.known.get(&self.axes, axis, wanted);
            let axis = known.map_err(|Malformed| self.block.damaged("its axes"))?;
            let Axis { times, places } = axis;
            let tier = self.block.summary().tier;
            let resolution = column_resolution(tier, column, definition.metric.resolution);
            self.pages.samples(index, (column, chunk), resolution, (times, places), &mut self.scratch, samples)?;
            cost.samples += times.len() as u64;
        }
        cost.bytes += self.pages.bytes() - bytes_before;
        Ok(())
    }
}
