//! The blocks of a store on disk: which there are, how one is added, how others go.
//!
//! The folder is the list: there is no second file that says which blocks count. Each block names those that it replaces, so that after a
//! crash between a rename and the removals that follow it the start removes what is left over. A block is written under another name,
//! synced, renamed, and counts once the folder is synced.
//!
//! ```text
//! <number as 16 hex digits>.block   a block
//! <number as 16 hex digits>.tmp     one that was not finished; removed at the start
//! quarantine/                       blocks in which damage was found, as they were found
//! lock                              held by the process that owns the folder
//! ```
//! Readers hold a list of blocks, each of which stays on disk until the last reader lets go of it.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use belfry_common::{
    error_chain::ErrorChain,
    storage::{Failure, Lock, Storage, failure, path_of},
};
use tracing::{error, warn};

use crate::{
    RowsAlone,
    block::{Block, BlockError, BlockWriter, Cache, Origin, Pace, Strings, Summary, Tier},
    keys::Keys,
    scratch::Scratch,
};

const LOCK: &str = "lock";
/// Where damaged blocks are kept.
pub(crate) const QUARANTINE: &str = "quarantine";

/// The blocks that there were at one time, in the order of their numbers.
pub(crate) type Blocks = Arc<[Arc<Block>]>;

/// What opening found besides blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShelfRecovery {
    /// Blocks in service.
    pub blocks: usize,
    /// Files that were not finished, removed.
    pub unfinished: usize,
    /// Blocks that others had replaced, removed.
    pub replaced: usize,
    /// Damaged blocks, moved to the quarantine.
    pub quarantined: usize,
}

/// Why the blocks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Another process owns the folder.
    #[error("`{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A file was written by a newer program, or cannot be read.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl From<Failure> for ShelfError {
    fn from(failure: Failure) -> Self {
        Self::Block(failure.into())
    }
}

pub(crate) struct Shelf {
    storage: Arc<dyn Storage>,
    cache: Arc<Cache>,
    keys: Keys,
    blocks: RwLock<Blocks>,
    /// Of the blocks, found once for all who ask.
    rows_alone: RwLock<Arc<[RowsAlone]>>,
    next: AtomicU64,
    quarantined: AtomicU64,
    _lock: Lock,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("blocks", &self.blocks().len()).finish_non_exhaustive()
    }
}

impl Shelf {
    /// Opens the blocks of a folder, and removes or moves aside what is none.
    ///
    /// # Errors
    /// [`ShelfError`]: in use, of a newer version, of another key, or unreadable. Damage is no error: it is moved to the quarantine.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        keys: &Keys,
        cache_bytes: usize,
    ) -> Result<(Self, ShelfRecovery), ShelfError> {
        let lock = Self::lock(&*storage)?;
        Self::open_locked(storage, keys, lock, cache_bytes)
    }

    /// Takes possession of a folder.
    ///
    /// # Errors
    /// [`ShelfError`]
    pub(crate) fn lock(storage: &dyn Storage) -> Result<Lock, ShelfError> {
        let lock = storage.lock(LOCK).map_err(failure(storage, "lock", LOCK))?;
        lock.ok_or_else(|| ShelfError::Locked(path_of(storage, "")))
    }

    /// As [`Self::open`], for who has possession of the folder.
    pub(crate) fn open_locked(
        storage: Arc<dyn Storage>,
        keys: &Keys,
        lock: Lock,
        cache_bytes: usize,
    ) -> Result<(Self, ShelfRecovery), ShelfError> {
        let cache = Arc::new(Cache::new(cache_bytes));
        let shelf = Self {
            storage,
            cache,
            keys: keys.clone(),
            blocks: RwLock::new(Arc::new([])),
            rows_alone: RwLock::new(Arc::new([])),
            next: AtomicU64::new(1),
            quarantined: AtomicU64::new(0),
            _lock: lock,
        };
        let mut recovery = ShelfRecovery::default();
        let mut blocks = shelf.open_all(&mut recovery)?;
        shelf.drop_replaced(&mut blocks, &mut recovery);
        recovery.blocks = blocks.len();
        shelf.put(blocks);
        Ok((shelf, recovery))
    }

    fn open_all(&self, recovery: &mut ShelfRecovery) -> Result<Vec<Arc<Block>>, ShelfError> {
        let storage = &*self.storage;
        let mut blocks = Vec::new();
        for folder in ["", QUARANTINE] {
            for entry in storage.list(folder).map_err(failure(storage, "list", folder))? {
                let Some((number, kind)) = parse_name(&entry.name).filter(|_| entry.is_file) else { continue };
                self.next.fetch_max(number + 1, Relaxed);
                match kind {
                    _ if !folder.is_empty() => {
                        self.quarantined.fetch_add(1, Relaxed);
                    }
                    Kind::Unfinished => {
                        storage.remove(&entry.name).map_err(failure(storage, "remove", &entry.name))?;
                        recovery.unfinished += 1;
                    }
                    Kind::Block => match Block::open(&self.storage, &self.cache, &self.keys, &entry.name) {
                        Ok(block) if block.number() == number => blocks.push(Arc::new(block)),
                        Ok(block) => {
                            self.quarantine(&entry.name, &block.damaged("its number is not that of its name"));
                            recovery.quarantined += 1;
                        }
                        Err(error @ BlockError::Damaged { .. }) => {
                            self.quarantine(&entry.name, &error);
                            recovery.quarantined += 1;
                        }
                        Err(error) => return Err(error.into()),
                    },
                }
            }
        }
        Ok(blocks)
    }

    /// Finishes what a crash kept from being finished: what is replaced goes.
    fn drop_replaced(&self, blocks: &mut Vec<Arc<Block>>, recovery: &mut ShelfRecovery) {
        let mut replaced: Vec<u64> = blocks.iter().flat_map(|block| block.summary().replaced.clone()).collect();
        replaced.sort_unstable();
        blocks.retain(|block| {
            let is_kept = replaced.binary_search(&block.number()).is_err();
            if !is_kept {
                block.doom();
                recovery.replaced += 1;
            }
            is_kept
        });
    }

    /// The blocks that there are now.
    pub(crate) fn blocks(&self) -> Blocks {
        Arc::clone(&self.blocks.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, mut blocks: Vec<Arc<Block>>) {
        blocks.sort_unstable_by_key(|block| block.number());
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = blocks.into();
        self.find_rows_alone();
    }

    /// The hours of which there are rows alone now.
    pub(crate) fn rows_alone(&self) -> Arc<[RowsAlone]> {
        Arc::clone(&self.rows_alone.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn find_rows_alone(&self) {
        let blocks = self.blocks();
        let summaries: Vec<&Summary> = blocks.iter().map(|block| block.summary()).collect();
        let found = RowsAlone::of(&summaries);
        *self.rows_alone.write().unwrap_or_else(PoisonError::into_inner) = found.into();
    }

    /// Writes a block and takes it into service, in the place of those that its origin says it replaces.
    ///
    /// # Errors
    /// [`BlockError::Io`]; nothing has changed then, whatever of the file is on the disk.
    pub(crate) fn write(
        &self,
        tier: Tier,
        strings: &Strings,
        pace: Pace<'_>,
        fill: impl FnOnce(&mut BlockWriter<'_>) -> Result<Origin, BlockError>,
    ) -> Result<Arc<Block>, BlockError> {
        let number = self.next.fetch_add(1, Relaxed);
        let (unfinished, name) = (name_of(number, Kind::Unfinished), name_of(number, Kind::Block));
        let written = self.write_file(&unfinished, (tier, number), strings, pace, fill);
        let replaced = match written {
            Ok(replaced) => replaced,
            Err(error) => {
                // Space is what is missing most often; the next start would remove it, too.
                drop(self.storage.remove(&unfinished));
                return Err(error);
            }
        };
        let storage = &*self.storage;
        storage.rename(&unfinished, &name).map_err(failure(storage, "rename", &unfinished))?;
        storage.sync_folder("").map_err(failure(storage, "sync", ""))?;
        // If too many files are open, it is written once more, and both count as one after the next start.
        let block = Arc::new(Block::open(&self.storage, &self.cache, &self.keys, &name)?);
        self.replace(&replaced, Some(&block));
        Ok(block)
    }

    fn write_file(
        &self,
        unfinished: &str,
        (tier, number): (Tier, u64),
        strings: &Strings,
        pace: Pace<'_>,
        fill: impl FnOnce(&mut BlockWriter<'_>) -> Result<Origin, BlockError>,
    ) -> Result<Vec<u64>, BlockError> {
        let what = (tier, number, &self.keys);
        let mut writer = BlockWriter::create(&*self.storage, unfinished, what, strings, pace)?;
        let origin = fill(&mut writer)?;
        let replaced = origin.replaced.clone();
        writer.finish(origin)?;
        Ok(replaced)
    }

    /// A file for what has no room in memory. A crash leaves it to the next start, which removes it.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn scratch(&self) -> Result<Scratch, BlockError> {
        let name = name_of(self.next.fetch_add(1, Relaxed), Kind::Unfinished);
        Scratch::create(Arc::clone(&self.storage), name, &self.keys)
    }

    /// Takes blocks out of service; their files go with their last readers.
    pub(crate) fn remove(&self, numbers: &[u64]) {
        self.replace(numbers, None);
    }

    fn replace(&self, numbers: &[u64], by: Option<&Arc<Block>>) {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            blocks.iter().cloned().partition(|block| numbers.contains(&block.number()));
        kept.extend(by.cloned());
        *blocks = kept.into();
        drop(blocks);
        self.find_rows_alone();
        gone.iter().for_each(|block| block.doom());
    }

    /// Takes a block in which damage was found out of service, and keeps its file as evidence.
    pub(crate) fn quarantine_block(&self, block: &Block, why: &BlockError) {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let kept: Vec<_> = blocks.iter().filter(|known| known.number() != block.number()).cloned().collect();
        let was_in_service = kept.len() < blocks.len();
        *blocks = kept.into();
        drop(blocks);
        self.find_rows_alone();
        if was_in_service {
            self.quarantine(block.name(), why);
        }
    }

    /// Takes the block out of service that this damage is in.
    pub(crate) fn quarantine_damaged(&self, why: &BlockError) {
        let BlockError::Damaged { path, .. } = why else { return };
        let is_it = |block: &&Arc<Block>| path.file_name().is_some_and(|name| name == block.name());
        if let Some(block) = self.blocks().iter().find(is_it) {
            self.quarantine_block(block, why);
        }
    }

    fn quarantine(&self, name: &str, why: &BlockError) {
        error!(block = name, error = %ErrorChain(why), "block is damaged: it is moved to the quarantine, and what it holds is not served");
        self.quarantined.fetch_add(1, Relaxed);
        if let Err(error) = move_aside(&*self.storage, name) {
            warn!(block = name, %error, "damaged block cannot be moved: it stays where it is, out of service");
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.storage.path()
    }

    /// The keys that its blocks are encrypted with.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Blocks in the quarantine.
    pub(crate) fn quarantined(&self) -> u64 {
        self.quarantined.load(Relaxed)
    }

    /// Bytes of indexes in memory.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// Moves a block to the quarantine, durably.
pub(crate) fn move_aside(storage: &dyn Storage, name: &str) -> io::Result<()> {
    storage.create_folder(QUARANTINE)?;
    storage.sync_folder("")?;
    storage.rename(name, &format!("{QUARANTINE}/{name}"))?;
    storage.sync_folder(QUARANTINE)?;
    storage.sync_folder("")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Unfinished,
}

fn name_of(number: u64, kind: Kind) -> String {
    match kind {
        Kind::Block => format!("{number:016x}.block"),
        Kind::Unfinished => format!("{number:016x}.tmp"),
    }
}

/// Whether a file of this name is a block.
pub(crate) fn is_block(name: &str) -> bool {
    block_number(name).is_some()
}

/// Whether a file of this name is a block that was not finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    matches!(parse_name(name), Some((_, Kind::Unfinished)))
}

/// The number of the block in a file of this name.
pub(crate) fn block_number(name: &str) -> Option<u64> {
    parse_name(name).filter(|(_, kind)| *kind == Kind::Block).map(|(number, _)| number)
}

/// What the file of a block is called.
pub(crate) fn block_name(number: u64) -> String {
    name_of(number, Kind::Block)
}

/// The blocks that a folder has now.
pub(crate) fn names(storage: &dyn Storage) -> Result<BTreeSet<String>, Failure> {
    let entries = storage.list("").map_err(failure(storage, "list", ""))?;
    let files = entries.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name);
    Ok(files.filter(|name| is_block(name)).collect())
}

fn parse_name(name: &str) -> Option<(u64, Kind)> {
    let (number, kind) = match name.split_once('.')? {
        (number, "block") => (number, Kind::Block),
        (number, "tmp") => (number, Kind::Unfinished),
        _ => return None,
    };
    let number = u64::from_str_radix(number, 16).ok().filter(|&number| number < u64::MAX)?;
    // Only what this program would have named so: `+1.block` is somebody else's.
    (name_of(number, kind) == name).then_some((number, kind))
}
