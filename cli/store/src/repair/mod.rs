//! Makes the files of a store sound whose collector is stopped: what a start does, after every byte of every block was looked at.
//!
//! Nothing is deleted before all that is damaged is aside: what a damaged block has replaced, and what a crash has left of that, is
//! better than nothing.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use belfry_common::{
    journal::{Journal, JournalError, Options, Recovery},
    storage::{Disk, Failure, Storage, failure},
};
use rustix::io::Errno;
use thiserror::Error;

use crate::{
    Keys, ShelfError, Summary, Tier,
    block::{Block, BlockError, Cache},
    files::blocks_of,
    rows_of::hours_of,
    shelf::{self, Shelf},
};

/// Indexes are read once.
const CACHE_BYTES: usize = 0;

/// Why a store is not repaired.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RepairError {
    /// A collector runs, or somebody else repairs.
    #[error(
        "the store is in use: stop the collector, repair, and start it again; agents keep what they measure meanwhile"
    )]
    InUse,
    /// A directory or file cannot be used.
    #[error(transparent)]
    File(#[from] Failure),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(JournalError),
    /// A block is of a newer version, or cannot be read for a reason that is not its own.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl From<JournalError> for RepairError {
    fn from(error: JournalError) -> Self {
        if matches!(error, JournalError::Locked { .. }) { Self::InUse } else { Self::Journal(error) }
    }
}

impl From<ShelfError> for RepairError {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::Locked(_) => Self::InUse,
            ShelfError::Block(error) => Self::Block(error),
        }
    }
}

/// A block that is in the quarantine now.
#[derive(Debug, Clone)]
pub struct LostBlock {
    /// The name of its file.
    pub name: String,
    /// What is wrong with it.
    pub why: BlockError,
    /// Its length.
    pub bytes: u64,
    /// What it had, if it still says that.
    pub summary: Option<Summary>,
    /// Other tiers that have something of every hour that it had.
    pub covered_by: Vec<Tier>,
}

/// What was found, and done about it.
#[derive(Debug)]
pub struct Repaired {
    /// In the journal: a torn write was cut off, what is damaged is in the quarantine.
    pub journal: Recovery,
    /// Blocks that were damaged.
    pub lost: Vec<LostBlock>,
    /// Blocks that are in service.
    pub blocks: Vec<Summary>,
    /// Files of blocks that never were finished, removed.
    pub unfinished: Vec<String>,
    /// Blocks that others had replaced, removed.
    pub replaced: Vec<String>,
}

/// Told how many bytes of blocks there are, and how many were read since.
#[derive(Clone, Copy)]
pub struct RepairProgress<'a> {
    /// How many are to be read.
    pub found: &'a dyn Fn(u64),
    /// That so many were read; what it says breaks off.
    pub done: &'a dyn Fn(usize) -> Result<(), BlockError>,
}

impl std::fmt::Debug for RepairProgress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepairProgress").finish_non_exhaustive()
    }
}

/// Repairs the store of a data directory.
///
/// # Errors
/// [`RepairError`]; what was done by then stays, and the same again does the rest.
pub fn repair(directory: &Path, keys: &Keys, progress: RepairProgress<'_>) -> Result<Repaired, RepairError> {
    let blocks = blocks_of(directory)?;
    let path = directory.join("journal");
    let journal = Disk::create(&path).map_err(|source| Failure { operation: "open", path, source })?;
    repair_in(Arc::new(journal), blocks, keys, progress)
}

pub(crate) fn repair_in(
    journal: Arc<dyn Storage>,
    blocks: Arc<dyn Storage>,
    keys: &Keys,
    progress: RepairProgress<'_>,
) -> Result<Repaired, RepairError> {
    // Held to the end: a collector takes it first.
    let (_journal, journal) = Journal::open_in(journal, Options { preallocate: false, ..Options::default() })?;
    let lock = Shelf::lock(&*blocks)?;
    let entries = blocks.list("").map_err(failure(&*blocks, "list", ""))?;
    let entries: Vec<_> = entries.into_iter().filter(|entry| entry.is_file).collect();
    let (found, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| shelf::is_block(&entry.name));
    let unfinished = others.into_iter().map(|entry| entry.name).filter(|name| shelf::is_unfinished(name)).collect();
    (progress.found)(found.iter().map(|entry| entry.bytes).sum());

    let cache = Arc::new(Cache::new(CACHE_BYTES));
    let mut lost = Vec::new();
    for entry in &found {
        let mut summary = None;
        if let Err(why) = check((&blocks, &cache, keys), &entry.name, &mut summary, progress.done) {
            if !is_own_fault(&why) {
                return Err(why.into());
            }
            let (name, bytes) = (entry.name.clone(), entry.bytes);
            lost.push(LostBlock { name, why, bytes, summary, covered_by: Vec::new() });
        }
    }
    for LostBlock { name, .. } in &lost {
        shelf::move_aside(&*blocks, name).map_err(failure(&*blocks, "move", name))?;
    }

    let (shelf, _) = Shelf::open_locked(blocks, keys, lock, CACHE_BYTES)?;
    let blocks: Vec<Summary> = shelf.blocks().iter().map(|block| block.summary().clone()).collect();
    for of_lost in &mut lost {
        of_lost.covered_by = of_lost.summary.as_ref().map_or_else(Vec::new, |summary| covered_by(summary, &blocks));
    }
    let kept: BTreeSet<String> = blocks.iter().map(|summary| shelf::block_name(summary.number)).collect();
    let is_lost = |name: &String| lost.iter().any(|lost| lost.name == *name);
    let found = found.into_iter().map(|entry| entry.name);
    let replaced = found.filter(|name| !kept.contains(name) && !is_lost(name)).collect();
    Ok(Repaired { journal, lost, blocks, unfinished, replaced })
}

/// Compares all of a block with its checksums; `summary` is what it says of itself.
fn check(
    (storage, cache, keys): (&Arc<dyn Storage>, &Arc<Cache>, &Keys),
    name: &str,
    summary: &mut Option<Summary>,
    done: &dyn Fn(usize) -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    let block = Block::open(storage, cache, keys, name)?;
    *summary = Some(block.summary().clone());
    if shelf::block_number(name) != Some(block.number()) {
        return Err(block.damaged("its number is not that of its name"));
    }
    block.verify(done)
}

/// Whether what is wrong is wrong with the block itself, and not with the system, the user's rights, or this program's age.
fn is_own_fault(error: &BlockError) -> bool {
    match error {
        BlockError::Damaged { .. } => true,
        BlockError::Io(failure) => failure.source.raw_os_error() == Some(Errno::IO.raw_os_error()),
        _ => false,
    }
}

/// The other tiers of which there is something of every hour of the block.
fn covered_by(lost: &Summary, blocks: &[Summary]) -> Vec<Tier> {
    let covers = |tier: &Tier| {
        let of_tier = blocks.iter().filter(|block| block.tier == *tier);
        let hours: BTreeSet<i64> = of_tier.flat_map(|block| hours_of(block.first_ms, block.last_ms)).collect();
        *tier != lost.tier && hours_of(lost.first_ms, lost.last_ms).all(|hour| hours.contains(&hour))
    };
    Tier::ALL.into_iter().filter(covers).collect()
}

#[cfg(test)]
mod tests;
