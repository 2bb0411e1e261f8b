//! Links the blocks of a folder, which a collector merges meanwhile, into another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use belfry_common::storage::Storage;

use super::{
    BackupError, BackupProgress, Checksum, Copied, Known, Step, StoreCopy, StoreFile, failed,
    file::{check_file, copy_file},
};
use crate::{
    Keys,
    block::{Block, BlockError, Cache, Summary},
    files::{LISTINGS_MAX, is_gone, too_busy},
    shelf,
};

/// Blocks on their way.
pub(super) struct Blocks<'a> {
    storage: Arc<dyn Storage>,
    keys: &'a Keys,
    to: PathBuf,
    known: Known<'a>,
    progress: BackupProgress<'a>,
    copied: BTreeMap<String, Linked>,
    damaged: BTreeMap<String, BlockError>,
}

/// A block of the copy.
struct Linked {
    copied: Copied,
    /// What it says of the journal, as in [`Summary`].
    journal_segment: u64,
    replaced: Vec<u64>,
}

/// How a block came to the copy.
enum Arrived {
    /// From the store.
    Linked,
    /// From an earlier copy, for which it was read.
    OfEarlierCopy,
    Copied(Checksum),
    /// It is no more.
    Gone,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        (storage, keys): (Arc<dyn Storage>, &'a Keys),
        to: PathBuf,
        known: Known<'a>,
        progress: BackupProgress<'a>,
    ) -> Self {
        Self { storage, keys, to, known, progress, copied: BTreeMap::new(), damaged: BTreeMap::new() }
    }

    /// Makes the copy have what the folder has, and no other blocks.
    pub(super) fn copy(&mut self) -> Result<(), BackupError> {
        for _ in 0..LISTINGS_MAX {
            let listed = shelf::names(&*self.storage)?;
            for name in &listed {
                if !self.copied.contains_key(name) && !self.damaged.contains_key(name) {
                    self.add(name)?;
                }
            }
            // What twice the same means is said at `StoreFiles::hold`.
            if shelf::names(&*self.storage)? == listed {
                self.damaged.retain(|name, _| listed.contains(name));
                return self.keep(|name, _| listed.contains(name));
            }
        }
        Err(too_busy(&*self.storage).into())
    }

    /// The first segment of the journal of which something may be in no block.
    pub(super) fn journal_segment(&self) -> u64 {
        self.copied.values().map(|linked| linked.journal_segment).max().unwrap_or(0)
    }

    /// Lets go of what others in the copy have replaced.
    pub(super) fn finish(mut self) -> Result<StoreCopy, BackupError> {
        let replaced: BTreeSet<StoreFile> =
            self.copied.values().flat_map(|linked| &linked.replaced).map(|number| StoreFile::Block(*number)).collect();
        self.keep(|_, linked| !replaced.contains(&linked.copied.file))?;
        let files = self.copied.into_values().map(|linked| linked.copied).collect();
        Ok(StoreCopy { files, damaged: self.damaged.into_iter().collect() })
    }

    fn add(&mut self, name: &str) -> Result<(), BackupError> {
        let error = match self.linked(name) {
            Ok(linked) => {
                self.copied.extend(linked.map(|linked| (name.to_owned(), linked)));
                return Ok(());
            }
            Err(BackupError::Block(error @ (BlockError::Damaged { .. } | BlockError::Io(_)))) => error,
            // What of a disk cannot be read costs its block alone.
            Err(BackupError::Failure(failure)) if failure.operation == "read" => failure.into(),
            Err(error) => return Err(error),
        };
        let target = self.to.join(name);
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &target)(error).into());
            }
            _ => {}
        }
        self.damaged.insert(name.to_owned(), error);
        Ok(())
    }

    /// Takes a block into the copy, unless it is gone by now.
    fn linked(&self, name: &str) -> Result<Option<Linked>, BackupError> {
        let block = match Block::open(&self.storage, &Arc::new(Cache::new(0)), self.keys, name) {
            Err(error) if is_gone(&error) => return Ok(None),
            block => block?,
        };
        let Summary { number, journal_segment, replaced, .. } = block.summary().clone();
        if shelf::block_number(name) != Some(number) {
            return Err(block.damaged("its number is not that of its name").into());
        }
        let (file, checksum, target) = (StoreFile::Block(number), block.checksum(), self.to.join(name));
        let known = (self.known)(file, checksum);
        let read = match self.take(name, known.as_deref(), checksum.bytes)? {
            Arrived::Gone => return Ok(None),
            Arrived::Linked => {
                (self.progress)(Step::Found(checksum.bytes))?;
                check_file(&target, self.progress)?
            }
            Arrived::OfEarlierCopy => checksum,
            Arrived::Copied(read) => read,
        };
        if read != checksum {
            return Err(block.damaged("its content").into());
        }
        let copied = Copied { file, checksum, is_known: known.is_some() };
        Ok(Some(Linked { copied, journal_segment, replaced }))
    }

    /// Links the block, best the same one of an earlier copy, or copies it.
    fn take(&self, name: &str, known: Option<&Path>, bytes: u64) -> Result<Arrived, BackupError> {
        let (source, target) = (self.storage.path().join(name), self.to.join(name));
        if known.is_some_and(|known| fs::hard_link(known, &target).is_ok()) {
            return Ok(Arrived::OfEarlierCopy);
        }
        match fs::hard_link(&source, &target) {
            Ok(()) => return Ok(Arrived::Linked),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !source.exists() => return Ok(Arrived::Gone),
            // On another file system, on one that has no links, too many, somebody else's: whatever it is, the copy says whether it matters.
            Err(_) => {}
        }
        (self.progress)(Step::Found(bytes))?;
        match copy_file(&source, &target, self.progress) {
            Err(_) if !source.exists() => {
                drop(fs::remove_file(&target));
                Ok(Arrived::Gone)
            }
            result => result.map(Arrived::Copied),
        }
    }

    fn keep(&mut self, is_kept: impl Fn(&str, &Linked) -> bool) -> Result<(), BackupError> {
        for (name, _) in self.copied.extract_if(.., |name, linked| !is_kept(name, linked)) {
            let path = self.to.join(name);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}
