//! Opens a block and reads its sections, each checked before it is used.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use belfry_common::{
    model::{Raw, Resolution},
    storage::{Access, Storage, StorageFile, failure, path_of},
};

use super::{
    axis::Axes,
    bytes::Malformed,
    cache::Cache,
    catalog::{Catalog, MetricEntry, Section},
    column::{self, Scratch},
    file::{BlockError, HEADER_BYTES, Header, HeaderError, SECTION_BYTES_MAX, TRAILER_BYTES, Tier, Trailer},
    index::{MetricIndex, Page},
    strings::Strings,
    writer::Pace,
};
use crate::{
    backup::Checksum,
    columns::Columns,
    keys::{Cipher, KeyNumber, Keys, NotSealed, TAG_BYTES},
    partition::Span,
    pick::Places,
};

/// A block on disk. Nothing of its index is in memory before it is asked for.
pub(crate) struct Block {
    storage: Arc<dyn Storage>,
    cache: Arc<Cache>,
    name: String,
    header: Header,
    trailer: Trailer,
    summary: Summary,
    cipher: Option<Cipher>,
    /// Its file, if it is to be read whatever becomes of its name.
    kept_open: OnceLock<Arc<dyn StorageFile>>,
    /// Its file is removed with the last who reads it.
    is_doomed: AtomicBool,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("name", &self.name).field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// What is known of a block without asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its number; later ones are larger.
    pub number: u64,
    /// How coarse its samples are.
    pub tier: Tier,
    /// Its first time, in milliseconds since 1970.
    pub first_ms: i64,
    /// Its last time, the same.
    pub last_ms: i64,
    /// Its readings, missing ones included; of minutes and hours their rows.
    pub readings: u64,
    /// Its series.
    pub series: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub created_ms: i64,
    /// Nothing more of its span is expected.
    pub is_final: bool,
    /// The key that it is encrypted with, if it is.
    pub key: Option<KeyNumber>,
    pub(crate) journal_segment: u64,
    pub(crate) replaced: Vec<u64>,
}

#[cfg(test)]
impl Summary {
    /// That of a final block of one reading, which tests change where they look.
    pub(crate) fn example(number: u64, tier: Tier, (first_ms, last_ms): (i64, i64)) -> Self {
        let (created_ms, journal_segment, replaced) = (0, 0, Vec::new());
        let (readings, series, bytes, is_final, key) = (1, 1, 1, true, None);
        Self {
            number,
            tier,
            first_ms,
            last_ms,
            readings,
            series,
            bytes,
            created_ms,
            is_final,
            key,
            journal_segment,
            replaced,
        }
    }
}

impl Block {
    /// Opens the block in the file `name`, reading its ends and its catalog.
    ///
    /// # Errors
    /// [`BlockError`]
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        cache: &Arc<Cache>,
        keys: &Keys,
        name: &str,
    ) -> Result<Self, BlockError> {
        let file: Arc<dyn StorageFile> =
            storage.open(name, Access::Read).map_err(failure(&**storage, "open", name))?.into();
        let bytes = file.len().map_err(failure(&**storage, "read the length of", name))?;
        let damaged = |what| BlockError::Damaged { path: path_of(&**storage, name), what };
        let (mut header, mut trailer) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
        let read = |buffer: &mut [u8], offset| {
            let is_whole = read_exact_at(&*file, buffer, offset).map_err(failure(&**storage, "read", name))?;
            if is_whole { Ok(()) } else { Err(damaged("it is cut short")) }
        };
        read(&mut header, 0)?;
        let header = Header::parse(&header).map_err(|error| match error {
            HeaderError::Malformed => damaged("its header"),
            HeaderError::Version(found) => BlockError::Version { path: path_of(&**storage, name), found },
        })?;
        let at = bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged("it is cut short"))?;
        read(&mut trailer, at)?;
        let trailer = Trailer::parse(&trailer).map_err(|Malformed| damaged("its trailer"))?;
        let cipher = header.cipher(keys);
        let cipher = cipher.map_err(|key| BlockError::Key { path: path_of(&**storage, name), key })?;
        let Header { tier, number, seal } = header;
        let summary = Summary {
            number,
            tier,
            bytes,
            first_ms: 0,
            last_ms: 0,
            readings: 0,
            series: 0,
            created_ms: 0,
            is_final: false,
            key: seal.map(|seal| seal.key),
            journal_segment: 0,
            replaced: Vec::new(),
        };
        let (storage, cache, name) = (Arc::clone(storage), Arc::clone(cache), name.to_owned());
        let (kept_open, is_doomed) = (OnceLock::new(), AtomicBool::new(false));
        let mut block = Self { storage, cache, name, header, trailer, summary, cipher, kept_open, is_doomed };
        block.summarise()?;
        Ok(block)
    }

    /// Reads the catalog once, and does not keep it.
    fn summarise(&mut self) -> Result<(), BlockError> {
        let catalog = self.parse_catalog()?;
        // Whoever goes through its hours relies on that.
        if Span::covering(catalog.first, catalog.last).is_none() {
            return Err(self.damaged("its span of time"));
        }
        self.summary.first_ms = catalog.first;
        self.summary.last_ms = catalog.last;
        self.summary.readings = catalog.readings;
        self.summary.series = catalog.metrics.iter().map(|entry| entry.series).sum();
        self.summary.created_ms = catalog.created;
        self.summary.is_final = catalog.is_final;
        self.summary.journal_segment = catalog.journal_segment;
        self.summary.replaced = catalog.replaced;
        Ok(())
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What its file should have, by its trailer.
    pub(crate) fn checksum(&self) -> Checksum {
        let crc32c = crc32c::crc32c_append(self.trailer.crc, &self.trailer.encode());
        Checksum { bytes: self.summary.bytes, crc32c }
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Keeps the file open, so that it can be read although somebody else removes it.
    ///
    /// # Errors
    /// [`BlockError::Io`], also when it is gone by now.
    pub(crate) fn keep_open(&self) -> Result<(), BlockError> {
        let file = self.storage.open(&self.name, Access::Read);
        let file = file.map_err(failure(&*self.storage, "open", &self.name))?;
        self.kept_open.get_or_init(|| file.into());
        Ok(())
    }

    /// Lets the file be removed once nobody reads it any more.
    pub(crate) fn doom(&self) {
        self.is_doomed.store(true, Relaxed);
    }

    /// Says that a part of it is not what was written.
    pub(crate) fn damaged(&self, what: &'static str) -> BlockError {
        BlockError::Damaged { path: path_of(&*self.storage, &self.name), what }
    }

    pub(crate) fn catalog(&self) -> Result<Arc<Catalog>, BlockError> {
        self.cache.parsed(self.number(), self.trailer.catalog.offset, || {
            let catalog = self.parse_catalog()?;
            let bytes = catalog.bytes();
            Ok((catalog, bytes))
        })
    }

    fn parse_catalog(&self) -> Result<Catalog, BlockError> {
        self.parse(self.trailer.catalog, "its catalog", Catalog::parse)
    }

    pub(crate) fn strings(&self, catalog: &Catalog) -> Result<Arc<Strings>, BlockError> {
        self.cache.parsed(self.number(), catalog.strings.offset, || {
            let strings = self.parse(catalog.strings, "its strings", Strings::parse)?;
            let bytes = strings.bytes();
            Ok((strings, bytes))
        })
    }

    pub(crate) fn axes(&self, catalog: &Catalog) -> Result<Arc<Axes>, BlockError> {
        self.cache.parsed(self.number(), catalog.axes.offset, || {
            let axes = self.parse(catalog.axes, "its axes", Axes::parse)?;
            let bytes = axes.bytes();
            Ok((axes, bytes))
        })
    }

    pub(crate) fn index(&self, entry: &MetricEntry) -> Result<Arc<MetricIndex>, BlockError> {
        self.cache.parsed(self.number(), entry.index.offset, || {
            let index = self.index_once(entry)?;
            let bytes = index.bytes();
            Ok((index, bytes))
        })
    }

    /// As [`Self::index`], for who needs it once.
    pub(crate) fn index_once(&self, entry: &MetricEntry) -> Result<MetricIndex, BlockError> {
        let (labels, columns) = (entry.metric.label_names.len(), self.header.tier.columns());
        let parse = |section: &[u8]| MetricIndex::parse(section, labels, columns, (entry.data, self.tag_bytes()));
        self.parse(entry.index, "the index of a metric", parse)
    }

    /// Reads a section, checks it, and understands it.
    fn parse<T>(
        &self,
        section: Section,
        what: &'static str,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, BlockError> {
        parse(&self.section(section, what)?).map_err(|Malformed| self.damaged(what))
    }

    fn section(&self, section: Section, what: &'static str) -> Result<Vec<u8>, BlockError> {
        let is_inside = section.offset.checked_add(section.bytes.into()).is_some_and(|end| end <= self.summary.bytes);
        if !is_inside || section.bytes > SECTION_BYTES_MAX {
            return Err(self.damaged(what));
        }
        let mut bytes = Vec::new();
        self.read_part(section, what, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a part, checks and decrypts it.
    fn read_part(&self, part: Section, what: &'static str, buffer: &mut Vec<u8>) -> Result<(), BlockError> {
        buffer.resize(part.bytes as usize, 0);
        self.read(buffer, part.offset)?;
        if !is_intact(buffer, part.crc) {
            return Err(self.damaged(what));
        }
        let Some(cipher) = &self.cipher else { return Ok(()) };
        cipher.open(part.offset, buffer).map_err(|NotSealed| self.damaged(what))
    }

    /// What encryption adds to each part.
    fn tag_bytes(&self) -> u32 {
        if self.cipher.is_some() { TAG_BYTES as u32 } else { 0 }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        let open = || self.storage.open(&self.name, Access::Read).map_err(failure(&*self.storage, "open", &self.name));
        let file = match self.kept_open.get() {
            Some(file) => Arc::clone(file),
            None => self.cache.file(self.number(), open)?,
        };
        let is_whole = read_exact_at(&*file, buffer, offset).map_err(failure(&*self.storage, "read", &self.name))?;
        if is_whole { Ok(()) } else { Err(self.damaged("it is cut short")) }
    }

    /// Reads and checks a page into `buffer`.
    pub(crate) fn page(&self, page: Page, buffer: &mut Vec<u8>) -> Result<(), BlockError> {
        let Page { offset, bytes, crc } = page;
        let bytes = bytes.checked_add(self.tag_bytes());
        let is_inside = |bytes: &u32| offset.checked_add((*bytes).into()).is_some_and(|end| end <= self.summary.bytes);
        let bytes = bytes.filter(is_inside).ok_or_else(|| self.damaged("the index of a metric"))?;
        self.read_part(Section { offset, bytes, crc }, "a page of samples", buffer)
    }

    /// Reads every byte and compares it with its checksums, and understands every index.
    ///
    /// # Errors
    /// [`BlockError`] for the first part that does not fit.
    pub(crate) fn verify(&self, pace: Pace<'_>) -> Result<(), BlockError> {
        let catalog = self.parse_catalog()?;
        let mut page = Vec::new();
        for entry in &catalog.metrics {
            for known in self.index_once(entry)?.pages() {
                pace(known.bytes as usize)?;
                self.page(known, &mut page)?;
            }
        }
        Strings::parse(&self.section(catalog.strings, "its strings")?)
            .map_err(|Malformed| self.damaged("its strings"))?;
        Axes::parse(&self.section(catalog.axes, "its axes")?).map_err(|Malformed| self.damaged("its axes"))?;
        // All parts are as they were; what is left is whether there is something else between them.
        let (mut buffer, mut at, mut crc) = (vec![0; 1 << 20], 0, 0);
        let end = self.summary.bytes - TRAILER_BYTES as u64;
        while at < end {
            let length = (end - at).min(buffer.len() as u64) as usize;
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.read(piece, at)?;
            crc = crc32c::crc32c_append(crc, piece);
            at += length as u64;
        }
        if crc == self.trailer.crc { Ok(()) } else { Err(self.damaged("something between its parts")) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.is_doomed.load(Relaxed) {
            self.cache.forget(self.number());
            if let Err(error) = self.storage.remove(&self.name) {
                // The next start finds that it is replaced or too old, and tries again.
                tracing::warn!(block = self.name, %error, "block that is not needed any more cannot be removed");
            }
        }
    }
}

/// Reads the pages of one block one after the other, and remembers the last of each column.
#[derive(Debug)]
pub(crate) struct PageReader {
    block: Arc<Block>,
    pages: Vec<(u64, Vec<u8>)>,
    /// Bytes read so far.
    bytes: u64,
}

impl PageReader {
    pub(crate) fn new(block: Arc<Block>) -> Self {
        let pages = vec![(u64::MAX, Vec::new()); block.header.tier.columns()];
        Self { block, pages, bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A chunk's column as it is encoded.
    pub(crate) fn column(&mut self, index: &MetricIndex, column: usize, chunk: u32) -> Result<&[u8], BlockError> {
        let block = &self.block;
        let malformed = || block.damaged("the index of a metric");
        let (page, range) = index.locate(column, chunk).ok_or_else(malformed)?;
        let (offset, buffer) = self.pages.get_mut(column).ok_or_else(malformed)?;
        if *offset != page.offset {
            *offset = u64::MAX;
            self.bytes += u64::from(page.bytes);
            block.page(page, buffer)?;
            *offset = page.offset;
        }
        buffer.get(range).ok_or_else(malformed)
    }

    /// Appends the readings of a chunk's column.
    pub(crate) fn readings(
        &mut self,
        index: &MetricIndex,
        (column, chunk): (usize, u32),
        resolution: Resolution,
        count: usize,
        out: &mut Vec<Raw>,
    ) -> Result<(), BlockError> {
        let bytes = self.column(index, column, chunk)?;
        let decoded = column::decode(resolution, bytes, count, out);
        decoded.map_err(|Malformed| self.block.damaged("a column of samples")).map(drop)
    }
}

impl PageReader {
    /// Appends the samples of a chunk's column at these places of its axis.
    pub(crate) fn samples(
        &mut self,
        index: &MetricIndex,
        (column, chunk): (usize, u32),
        resolution: Resolution,
        axis: (&[i64], &Places),
        scratch: &mut Scratch,
        samples: &mut Columns,
    ) -> Result<(), BlockError> {
        let bytes = self.column(index, column, chunk)?;
        let decoded = column::decode_samples(resolution, bytes, axis, scratch, samples);
        decoded.map_err(|Malformed| self.block.damaged("a column of samples"))
    }
}

/// Whether bytes are those that were written. A fuzzer's are let through: what is behind must bear any.
fn is_intact(bytes: &[u8], crc: u32) -> bool {
    cfg!(fuzzing) || crc32c::crc32c(bytes) == crc
}

/// Fills the buffer from this offset; false if the file ends before.
pub(crate) fn read_exact_at(file: &dyn StorageFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                buffer = buffer.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
