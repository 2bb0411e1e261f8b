//! A block that is read from its first series to its last.

use std::{cmp::Ordering, sync::Arc};

use belfry_common::model::{Metric, Raw};

use crate::{
    NodeId,
    block::{Axes, Block, BlockError, Catalog, MetricIndex, PageReader, Strings, column_resolution, metric_order},
};

/// A block's series, one after the other.
pub(crate) struct Source {
    block: Arc<Block>,
    catalog: Arc<Catalog>,
    axes: Arc<Axes>,
    /// The numbers of its strings among those of the block that is written.
    numbers: Vec<u32>,
    /// The metric after the one that is open.
    next_metric: usize,
    open: Option<OpenMetric>,
    pages: PageReader,
    times: Option<(u32, Arc<[i64]>)>,
}

struct OpenMetric {
    index: MetricIndex,
    definition: u32,
    labels: Vec<u32>,
    /// The series that is next.
    series: u32,
}

impl Source {
    /// Reads what is needed of a block to begin; `strings` has all of its strings.
    pub(crate) fn open(block: &Arc<Block>, strings: &Strings) -> Result<Self, BlockError> {
        let catalog = block.catalog()?;
        let own = block.strings(&catalog)?;
        // Both are sorted, and one is part of the other.
        let mut all = (0..).zip(strings.iter());
        let numbers =
            own.iter().filter_map(|text| all.find(|(_, known)| *known == text).map(|(number, _)| number)).collect();
        let axes = block.axes(&catalog)?;
        let pages = PageReader::new(Arc::clone(block));
        Ok(Self { block: Arc::clone(block), catalog, axes, numbers, next_metric: 0, open: None, pages, times: None })
    }

    /// The metric that comes next.
    pub(crate) fn next_metric(&self) -> Option<&Arc<Metric>> {
        self.catalog.metrics.get(self.next_metric).map(|entry| &entry.metric)
    }

    /// Opens the next metric if it is this one.
    pub(crate) fn open_metric(&mut self, metric: &Metric) -> Result<(), BlockError> {
        self.open = None;
        let entry = self.catalog.metrics.get(self.next_metric);
        if let Some(entry) = entry.filter(|entry| metric_order(&entry.metric, metric) == Ordering::Equal) {
            let index = self.block.index_once(entry)?;
            self.next_metric += 1;
            self.settle(OpenMetric { index, definition: 0, labels: Vec::new(), series: 0 })?;
        }
        Ok(())
    }

    /// Goes to the definition of the series that is next. One without nodes is allowed by the format, and written by nobody.
    fn settle(&mut self, mut open: OpenMetric) -> Result<(), BlockError> {
        let before = if open.labels.is_empty() { None } else { Some(open.definition) };
        while open.definition < open.index.definitions() && open.series >= open.index.series_of(open.definition).end {
            open.definition += 1;
        }
        if open.definition < open.index.definitions() {
            if before != Some(open.definition) {
                open.labels = self.labels(&open)?;
            }
            self.open = Some(open);
        }
        Ok(())
    }

    fn labels(&self, open: &OpenMetric) -> Result<Vec<u32>, BlockError> {
        let labels = (0..open.index.label_count()).map(|label| {
            let own = open.index.label(open.definition, label)?;
            self.numbers.get(own as usize).copied()
        });
        labels.collect::<Option<_>>().ok_or_else(|| self.block.damaged("the index of a metric"))
    }

    /// The series that comes next: its labels and its node.
    pub(crate) fn key(&self) -> Option<(&[u32], NodeId)> {
        let open = self.open.as_ref()?;
        let node = open.index.nodes(open.series..open.series + 1).first()?;
        Some((&open.labels, *node))
    }

    /// The chunks of the series that comes next.
    pub(crate) fn chunks(&self) -> std::ops::Range<u32> {
        self.open.as_ref().map_or(0..0, |open| open.index.chunks_of(open.series))
    }

    /// Goes on to the series after it.
    pub(crate) fn advance(&mut self) -> Result<(), BlockError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.series += 1;
        self.settle(open)
    }

    /// The times of a chunk.
    pub(crate) fn times(&mut self, chunk: u32) -> Result<Arc<[i64]>, BlockError> {
        let axis = self.open.as_ref().and_then(|open| open.index.axis(chunk));
        let axis = axis.ok_or_else(|| self.block.damaged("the index of a metric"))?;
        match &self.times {
            Some((known, times)) if *known == axis => Ok(Arc::clone(times)),
            _ => {
                let times: Arc<[i64]> = self.axes.times(axis).map_err(|_| self.block.damaged("its axes"))?.into();
                self.times = Some((axis, Arc::clone(&times)));
                Ok(times)
            }
        }
    }

    /// Appends the readings of one column of a chunk.
    pub(crate) fn readings(
        &mut self,
        (column, chunk): (usize, u32),
        metric: &Metric,
        count: usize,
        out: &mut Vec<Raw>,
    ) -> Result<(), BlockError> {
        let Some(open) = &self.open else { return Ok(()) };
        let resolution = column_resolution(self.block.summary().tier, column, metric.resolution);
        self.pages.readings(&open.index, (column, chunk), resolution, count, out)
    }

    /// One column of a chunk as it is.
    pub(crate) fn column(&mut self, column: usize, chunk: u32) -> Result<&[u8], BlockError> {
        match &self.open {
            Some(open) => self.pages.column(&open.index, column, chunk),
            None => Ok(&[]),
        }
    }

    pub(crate) fn is_final(&self) -> bool {
        self.block.summary().is_final
    }

    /// Bytes read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages.bytes()
    }
}
