//! Writes a block, from its first byte to its last.

use std::{io, sync::Arc};

use belfry_common::{
    model::Metric,
    storage::{Failure, Storage, StorageFile, failure, path_of, write_all_at},
};
use rustc_hash::FxHashMap;

use super::{
    axis::AxisWriter,
    catalog::{Catalog, MetricEntry, NodeEntry, Section},
    file::{BlockError, Header, SECTION_BYTES_MAX, Tier, Trailer},
    index::IndexBuilder,
    strings::Strings,
};
use crate::{
    NodeId,
    keys::{Cipher, Keys},
};

/// A page is full from here on. What is read of one series is a page, so that it is not larger; what is read of all series of a metric is
/// one page after the other, so that it is not smaller.
const PAGE_BYTES: usize = 64 * 1024;
/// Bytes that go to the file at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// Told how many bytes are about to be read or written, so that it can slow that down, or break it off.
pub(crate) type Pace<'a> = &'a dyn Fn(usize) -> Result<(), BlockError>;

/// Where a block's content comes from, as far as it is to be known after a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Everything in segments of the journal before this one is in blocks; 0 if that is not known.
    pub(crate) journal_segment: u64,
    /// Blocks all of whose content is in this one.
    pub(crate) replaced: Vec<u64>,
    /// When it is written, in milliseconds since 1970.
    pub(crate) created: i64,
    /// Nothing more of its span is expected.
    pub(crate) is_final: bool,
}

/// A block that is being written. Metrics, series and chunks come in the order of the format. Dropped before [`Self::finish`], it leaves
/// its file behind, for the next start to remove.
pub(crate) struct BlockWriter<'a> {
    file: File<'a>,
    tier: Tier,
    strings: &'a Strings,
    axes: AxisWriter,
    catalog: Catalog,
    nodes: FxHashMap<NodeId, NodeEntry>,
    metric: Option<OpenMetric>,
}

impl std::fmt::Debug for BlockWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockWriter").field("tier", &self.tier).finish_non_exhaustive()
    }
}

/// The metric whose series are coming.
struct OpenMetric {
    metric: Arc<Metric>,
    data: u64,
    index: IndexBuilder,
    node: NodeId,
    readings: u64,
    /// One for each column.
    pages: Vec<Vec<u8>>,
    page_chunks: u32,
}

impl<'a> BlockWriter<'a> {
    /// Begins the file `name`.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn create(
        storage: &'a dyn Storage,
        name: &'a str,
        (tier, number, keys): (Tier, u64, &Keys),
        strings: &'a Strings,
        pace: Pace<'a>,
    ) -> Result<Self, BlockError> {
        let (header, cipher) = Header::new(tier, number, keys).map_err(failure(storage, "encrypt", name))?;
        let handle = storage.create(name).map_err(failure(storage, "create", name))?;
        let mut file = File { storage, name, handle, cipher, pace, buffer: Vec::new(), written: 0, crc: 0 };
        file.put(&header.encode())?;
        let catalog = Catalog { first: i64::MAX, last: i64::MIN, ..Catalog::default() };
        let axes = AxisWriter::default();
        Ok(Self { file, tier, strings, axes, catalog, nodes: FxHashMap::default(), metric: None })
    }

    /// The number of an axis with these times.
    pub(crate) fn axis(&mut self, times: &[i64]) -> u32 {
        if let (Some(&first), Some(&last)) = (times.first(), times.last()) {
            self.catalog.first = self.catalog.first.min(first);
            self.catalog.last = self.catalog.last.max(last);
        }
        self.axes.number(times)
    }

    /// Begins a metric.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn metric(&mut self, metric: &Arc<Metric>) -> Result<(), BlockError> {
        self.end_metric()?;
        self.metric = Some(OpenMetric {
            metric: Arc::clone(metric),
            data: self.file.offset(),
            index: IndexBuilder::new(metric.label_names.len(), self.tier.columns()),
            node: NodeId(0),
            readings: 0,
            pages: vec![Vec::new(); self.tier.columns()],
            page_chunks: 0,
        });
        Ok(())
    }

    /// Begins a series of the metric.
    ///
    /// # Errors
    /// [`BlockError::Io`] if it does not come in order.
    pub(crate) fn series(&mut self, labels: &[u32], node: NodeId) -> Result<(), BlockError> {
        let begun = self.metric.as_mut().is_some_and(|open| {
            open.node = node;
            open.index.series(labels, node).is_ok()
        });
        if !begun {
            return Err(self.file.refused("series are not in order"));
        }
        let entry = NodeEntry { node, series: 0, readings: 0, bytes: 0, last_ms: i64::MIN };
        self.nodes.entry(node).or_insert(entry).series += 1;
        Ok(())
    }

    /// Adds a chunk to the series: its axis, how many readings it has, and its encoded columns.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn chunk(&mut self, axis: u32, readings: u64, columns: &[Vec<u8>]) -> Result<(), BlockError> {
        let Some(open) = &mut self.metric else { return Ok(()) };
        open.index.chunk(axis, columns.iter().map(|column| column.len() as u32));
        open.page_chunks += 1;
        open.readings += readings;
        if let Some(node) = self.nodes.get_mut(&open.node) {
            node.readings += readings;
            node.last_ms = self.axes.last_time(axis).map_or(node.last_ms, |last| last.max(node.last_ms));
            node.bytes += columns.iter().map(|column| column.len() as u64).sum::<u64>();
        }
        open.pages.iter_mut().zip(columns).for_each(|(page, column)| page.extend_from_slice(column));
        if open.pages.iter().any(|page| page.len() >= PAGE_BYTES) { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<(), BlockError> {
        let Some(open) = self.metric.as_mut().filter(|open| open.page_chunks > 0) else { return Ok(()) };
        let mut crcs = Vec::with_capacity(open.pages.len());
        for page in &mut open.pages {
            crcs.push(self.file.put_sealed(page)?);
            page.clear();
        }
        open.index.page(open.page_chunks, crcs.into_iter());
        open.page_chunks = 0;
        Ok(())
    }

    fn end_metric(&mut self) -> Result<(), BlockError> {
        self.end_page()?;
        let Some(open) = self.metric.take().filter(|open| open.index.series_count() > 0) else { return Ok(()) };
        let index = self.file.put_section(open.index.encode())?;
        let OpenMetric { metric, data, readings, .. } = open;
        self.catalog.readings += readings;
        self.catalog.metrics.push(MetricEntry { metric, series: open.index.series_count(), readings, data, index });
        Ok(())
    }

    /// Writes what is left and makes the file durable; not yet its name.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn finish(mut self, origin: Origin) -> Result<(), BlockError> {
        self.end_metric()?;
        let mut catalog = self.catalog;
        catalog.axes = self.file.put_section(self.axes.finish())?;
        catalog.strings = self.file.put_section(self.strings.encode())?;
        catalog.nodes = self.nodes.into_values().collect();
        catalog.nodes.sort_unstable_by_key(|entry| entry.node);
        catalog.journal_segment = origin.journal_segment;
        catalog.replaced = origin.replaced;
        catalog.created = origin.created;
        catalog.is_final = origin.is_final;
        let section = self.file.put_section(catalog.encode())?;
        let trailer = Trailer { catalog: section, crc: self.file.crc_so_far() };
        self.file.put(&trailer.encode())?;
        self.file.finish()
    }
}

/// The file, written from its beginning to its end.
struct File<'a> {
    storage: &'a dyn Storage,
    name: &'a str,
    handle: Box<dyn StorageFile>,
    cipher: Option<Cipher>,
    pace: Pace<'a>,
    buffer: Vec<u8>,
    written: u64,
    /// Of what is written.
    crc: u32,
}

impl File<'_> {
    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn crc_so_far(&self) -> u32 {
        crc32c::crc32c_append(self.crc, &self.buffer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes a part, encrypted if the file is, and gives the CRC of what is written.
    fn put_sealed(&mut self, part: &mut Vec<u8>) -> Result<u32, BlockError> {
        let offset = self.offset();
        if let Some(cipher) = &self.cipher {
            cipher.seal(offset, part, 0);
        }
        self.put(part)?;
        Ok(crc32c::crc32c(part))
    }

    fn put_section(&mut self, mut part: Vec<u8>) -> Result<Section, BlockError> {
        let offset = self.offset();
        let crc = self.put_sealed(&mut part)?;
        let length = u32::try_from(part.len()).ok().filter(|&length| length <= SECTION_BYTES_MAX);
        let bytes = length.ok_or_else(|| self.refused("an index is too large"))?;
        Ok(Section { offset, bytes, crc })
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        (self.pace)(self.buffer.len())?;
        let (count, result) = write_all_at(&*self.handle, &self.buffer, self.written);
        self.written += count;
        result.map_err(failure(self.storage, "write", self.name))?;
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), BlockError> {
        self.flush()?;
        self.handle.sync_data().map_err(failure(self.storage, "sync", self.name))?;
        Ok(())
    }

    fn refused(&self, why: &'static str) -> BlockError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, why);
        Failure { operation: "write", path: path_of(self.storage, self.name), source }.into()
    }
}
