//! The files of a store as somebody sees them who is not its collector: to count, to check, to export.
//!
//! Nothing is changed and nothing is locked: a collector may run on them meanwhile. What it has only in memory, the last minutes, is not
//! here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use belfry_common::storage::{Disk, Failure, Storage, failure};

use crate::{
    Keys, NodeId,
    block::{Block, BlockError, Cache, Catalog, Summary, Tier},
    shelf,
};

/// Indexes are mostly read once here; tables of texts again for each metric.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// How often the folder is listed anew because a collector has merged what was listed.
pub(crate) const LISTINGS_MAX: usize = 20;

/// The blocks of a directory.
#[derive(Debug)]
pub struct StoreFiles {
    pub(crate) blocks: Vec<Arc<Block>>,
    /// The names that were listed.
    listed: BTreeSet<String>,
    /// Files that are no blocks though they should be, with the reason.
    damaged: Vec<(String, BlockError)>,
    quarantined: Vec<String>,
}

/// What a metric takes, or a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Series in the block that has most.
    pub series: u64,
    /// Readings, missing ones included, of raw samples.
    pub readings: u64,
    /// Bytes of all tiers, for metrics with their indexes.
    pub bytes: u64,
}

impl Use {
    fn add(&mut self, tier: Tier, series: u64, readings: u64, bytes: u64) {
        self.series = self.series.max(series);
        self.readings += if tier == Tier::Raw { readings } else { 0 };
        self.bytes += bytes;
    }
}

impl StoreFiles {
    /// Lists the blocks of a collector's data directory.
    ///
    /// # Errors
    /// [`BlockError`] when the directory cannot be read, or a block is encrypted with another key. What is damaged is listed as such.
    pub fn open(directory: &Path, keys: &Keys) -> Result<Self, BlockError> {
        Self::open_in(&blocks_of(directory)?, keys)
    }

    /// As [`Self::open`], and keeps all blocks open: together they have each sample, whatever a collector merges meanwhile.
    ///
    /// The folder lists the same names before and after: what is in neither list was made during the first and merged during the second.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn hold(directory: &Path, keys: &Keys) -> Result<Self, BlockError> {
        let storage = blocks_of(directory)?;
        for _ in 0..LISTINGS_MAX {
            let files = Self::open_in(&storage, keys)?;
            match files.blocks.iter().try_for_each(|block| block.keep_open()) {
                Ok(()) if shelf::names(&*storage)? == files.listed => return Ok(files),
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Err(too_busy(&*storage).into())
    }

    pub(crate) fn open_in(storage: &Arc<dyn Storage>, keys: &Keys) -> Result<Self, BlockError> {
        let cache = Arc::new(Cache::new(CACHE_BYTES));
        let listed = shelf::names(&**storage)?;
        let mut files = Self { blocks: Vec::new(), listed, damaged: Vec::new(), quarantined: Vec::new() };
        for name in &files.listed {
            match Block::open(storage, &cache, keys, name) {
                Ok(block) => files.blocks.push(Arc::new(block)),
                // A collector has merged it meanwhile.
                Err(error) if is_gone(&error) => {}
                Err(error @ BlockError::Key { .. }) => return Err(error),
                Err(error) => files.damaged.push((name.clone(), error)),
            }
        }
        let replaced: Vec<u64> = files.blocks.iter().flat_map(|block| block.summary().replaced.clone()).collect();
        files.blocks.retain(|block| !replaced.contains(&block.number()));
        files.blocks.sort_by_key(|block| (block.summary().tier, block.summary().first_ms, block.number()));
        let quarantine = storage.list(shelf::QUARANTINE).map_err(failure(&**storage, "list", shelf::QUARANTINE))?;
        let quarantine = quarantine.into_iter().map(|entry| entry.name);
        files.quarantined = quarantine.filter(|name| shelf::is_block(name)).collect();
        Ok(files)
    }

    /// What is known of each block, by tier and time.
    pub fn blocks(&self) -> impl Iterator<Item = &Summary> {
        self.blocks.iter().map(|block| block.summary())
    }

    /// Files that cannot be used, and why.
    #[must_use]
    pub fn damaged(&self) -> &[(String, BlockError)] {
        &self.damaged
    }

    /// Names of blocks that were moved aside because of damage.
    #[must_use]
    pub fn quarantined(&self) -> &[String] {
        &self.quarantined
    }

    /// What each metric takes, by name.
    ///
    /// # Errors
    /// [`BlockError`] for a block that became unreadable.
    pub fn metrics(&self) -> Result<BTreeMap<String, Use>, BlockError> {
        let mut metrics: BTreeMap<String, Use> = BTreeMap::new();
        for (block, catalog) in self.catalogs() {
            let catalog = catalog?;
            let mut of_block: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
            for entry in &catalog.metrics {
                let end = entry.index.offset + u64::from(entry.index.bytes);
                let (series, readings, bytes) = of_block.entry(&entry.metric.name).or_default();
                *series += entry.series;
                *readings += entry.readings;
                *bytes += end.saturating_sub(entry.data);
            }
            for (name, (series, readings, bytes)) in of_block {
                metrics.entry(name.to_owned()).or_default().add(block.summary().tier, series, readings, bytes);
            }
        }
        Ok(metrics)
    }

    /// What each node takes.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn nodes(&self) -> Result<BTreeMap<NodeId, Use>, BlockError> {
        let mut nodes: BTreeMap<NodeId, Use> = BTreeMap::new();
        for (block, catalog) in self.catalogs() {
            for entry in &catalog?.nodes {
                nodes.entry(entry.node).or_default().add(
                    block.summary().tier,
                    entry.series,
                    entry.readings,
                    entry.bytes,
                );
            }
        }
        Ok(nodes)
    }

    /// The catalogs of all blocks that are there still: a collector may have merged some meanwhile.
    fn catalogs(&self) -> impl Iterator<Item = (&Block, Result<Arc<Catalog>, BlockError>)> {
        let catalogs = self.blocks.iter().map(|block| (&**block, block.catalog()));
        catalogs.filter(|(_, catalog)| !catalog.as_ref().is_err_and(is_gone))
    }

    /// Compares every byte with its checksums, block by block; `progress` is told how many bytes were read. Gives the blocks that are
    /// damaged, those that could not even be listed included.
    ///
    /// # Errors
    /// [`BlockError::Stopped`], if that is what `progress` says.
    pub fn verify(
        &self,
        progress: &dyn Fn(usize) -> Result<(), BlockError>,
    ) -> Result<Vec<(String, BlockError)>, BlockError> {
        let mut damaged = self.damaged.clone();
        for block in &self.blocks {
            match block.verify(progress) {
                Ok(()) => {}
                Err(BlockError::Stopped) => return Err(BlockError::Stopped),
                Err(error) if is_gone(&error) => {}
                Err(error) => damaged.push((block.name().to_owned(), error)),
            }
        }
        Ok(damaged)
    }
}

/// The folder of blocks of a collector's data directory.
pub(crate) fn blocks_of(directory: &Path) -> Result<Arc<dyn Storage>, Failure> {
    let path = directory.join("blocks");
    if !path.is_dir() {
        let source =
            io::Error::new(io::ErrorKind::NotFound, "there are no blocks: is this a collector's data directory?");
        return Err(Failure { operation: "list", path, source });
    }
    let disk = Disk::create(&path).map_err(|source| Failure { operation: "open", path, source })?;
    Ok(Arc::new(disk))
}

/// Whether a collector has merged a block, and removed it.
pub(crate) fn is_gone(error: &BlockError) -> bool {
    matches!(error, BlockError::Io(failure) if failure.source.kind() == io::ErrorKind::NotFound)
}

/// The folder was never the same twice.
pub(crate) fn too_busy(storage: &dyn Storage) -> Failure {
    let source =
        io::Error::new(io::ErrorKind::ResourceBusy, "blocks are merged faster than they are listed: try again");
    Failure { operation: "list", path: storage.path().to_owned(), source }
}
