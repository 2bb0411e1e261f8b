//! A block as it is read series by series.

use std::{collections::hash_map::Entry, sync::Arc};

use belfry_common::model::Resolution;
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
    metrics: Vec<(Arc<MetricIndex>, Resolution)>,
    pages: PageReader,
    scratch: Scratch,
}

/// Axes that one thread has read, with the places of what is wanted. Neighbouring series mostly share theirs, and have several in a block.
#[derive(Debug, Default)]
pub(super) struct KnownAxes {
    wanted: Option<Extent>,
    /// By block and number.
    axes: FxHashMap<(u64, u32), Axis>,
    times: usize,
}

/// The times of an axis, and where those are that are wanted.
#[derive(Debug)]
struct Axis {
    times: Vec<i64>,
    places: Places,
}

/// Times of axes that a thread keeps: 8 MiB.
const KNOWN_TIMES_MAX: usize = 1024 * 1024;

impl KnownAxes {
    fn get(&mut self, block: u64, axes: &Axes, number: u32, wanted: Extent) -> Result<&Axis, Malformed> {
        let is_known = self.wanted == Some(wanted) && self.axes.contains_key(&(block, number));
        if !is_known && (self.wanted != Some(wanted) || self.times > KNOWN_TIMES_MAX) {
            *self = Self { wanted: Some(wanted), ..Self::default() };
        }
        match self.axes.entry((block, number)) {
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
        let metrics = found.iter().map(|metric| (Arc::clone(&metric.index), metric.resolution));
        Ok(Self::reading(block, axes, metrics.collect()))
    }

    fn reading(block: &Arc<Block>, axes: Arc<Axes>, metrics: Vec<(Arc<MetricIndex>, Resolution)>) -> Self {
        let pages = PageReader::new(Arc::clone(block));
        let scratch = Scratch::default();
        Self { block: Arc::clone(block), has_failed: false, axes, metrics, pages, scratch }
    }

    /// Another one of the same block, for another thread.
    pub(super) fn again(&self) -> Self {
        Self::reading(&self.block, Arc::clone(&self.axes), self.metrics.clone())
    }

    /// Appends the samples of a series that are wanted.
    pub(super) fn read(
        &mut self,
        (metric, number, column): (u32, u32, usize),
        wanted: Extent,
        (known, samples, cost): (&mut KnownAxes, &mut Columns, &mut Cost),
    ) -> Result<(), BlockError> {
        let malformed = || self.block.damaged("the index of a metric");
        let Some((index, resolution)) = self.metrics.get(metric as usize) else { return Ok(()) };
        let bytes_before = self.pages.bytes();
        for chunk in index.chunks_of(number) {
            let axis = index.axis(chunk).ok_or_else(malformed)?;
            let span = self.axes.span(axis).map_err(|_| malformed())?;
            if !wanted.range.overlaps(span.first, span.last) {
                continue;
            }
            let axis = known.get(self.block.number(), &self.axes, axis, wanted);
            let Axis { times, places } = axis.map_err(|Malformed| self.block.damaged("its axes"))?;
            let tier = self.block.summary().tier;
            let resolution = column_resolution(tier, column, *resolution);
            self.pages.samples(index, (column, chunk), resolution, (times, places), &mut self.scratch, samples)?;
            cost.samples += times.len() as u64;
        }
        cost.bytes += self.pages.bytes() - bytes_before;
        Ok(())
    }
}
