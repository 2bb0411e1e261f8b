//! A copy of a store, taken while its collector goes on.
//!
//! Blocks never change: they are linked, or copied where that is not possible. The journal is copied.
//!
//! # Why nothing is missing
//!
//! What was acknowledged is in a segment of the journal or in a block at every moment: a segment goes when all of it is in blocks, a block when
//! another one has all of it. So the order is blocks, journal, blocks:
//!
//! 1. The blocks that there are. This is what takes long, and would not be needed for the rest.
//! 2. The journal's segments, the newest first. They go in the order of their numbers, so that one which is gone by then has none before it
//!    either. All that these had was in blocks when they went, thus is in blocks now.
//! 3. The blocks again. Who was acknowledged before the copy began is in a segment that was copied, or in a block that is.
//!
//! A block says that all segments before a certain one are in blocks. If that is said of a later one now than in the first step, the journal is
//! copied once more, and the blocks again: what blocks say must be true of the copied segments, or the store that is made of them would
//! take its own for old.
//!
//! The newest segment is written meanwhile. It is copied from its end to its beginning: whatever of it is there, all that was written
//! before that is, too. What it ends with, part of a record, is cut off, as after a crash.
//!
//! Absent: what else is in a data directory, and what a backup is called.

mod blocks;
mod file;
mod journal;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use belfry_common::{
    journal::{JournalError, segment_name, segment_number},
    storage::{Failure, failed},
};
use thiserror::Error;

pub use file::{Checksum, check_file, copy_file, open_file};

use crate::{
    BlockError, Keys,
    files::blocks_of,
    shelf::{block_name, block_number},
};
use blocks::Blocks;

/// How often all is done again because blocks came that say more of the journal. They come every few seconds at most.
const ROUNDS_MAX: usize = 20;

/// A file of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreFile {
    /// The block with this number.
    Block(u64),
    /// The segment of the journal with this number.
    Segment(u64),
}

impl StoreFile {
    /// The folders of a data directory that these files are in.
    pub const FOLDERS: [&'static str; 2] = ["blocks", "journal"];

    /// Where it is in a data directory, and in a backup.
    #[must_use]
    pub fn path(self) -> String {
        match self {
            Self::Block(number) => format!("blocks/{}", block_name(number)),
            Self::Segment(number) => format!("journal/{}", segment_name(number)),
        }
    }

    /// The file that has this path.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        match path.split_once('/')? {
            ("blocks", name) => block_number(name).map(Self::Block),
            ("journal", name) => segment_number(name).map(Self::Segment),
            _ => None,
        }
    }
}

/// What copying does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes more are to be read.
    Found(u64),
    /// So many were read.
    Done(u64),
}

/// Told of each step; what it says breaks off.
pub type BackupProgress<'a> = &'a dyn Fn(Step) -> Result<(), BackupError>;

/// A file of an earlier backup that has this length and this checksum, if there is one.
pub type Known<'a> = &'a dyn Fn(StoreFile, Checksum) -> Option<PathBuf>;

/// Why there is no copy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file could not be read or written.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// A block is of a newer version, or unreadable.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The journal is of a newer version, or unreadable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal was never as the blocks say.
    #[error("the store changes faster than it is copied: try again")]
    Busy,
    /// It is no longer wanted.
    #[error("interrupted")]
    Stopped,
}

/// A file that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Which.
    pub file: StoreFile,
    /// What it has.
    pub checksum: Checksum,
    /// An earlier backup has it, too.
    pub is_known: bool,
}

/// What was copied of a store.
#[derive(Debug, Default)]
pub struct StoreCopy {
    /// The files.
    pub files: Vec<Copied>,
    /// Blocks that are not among them, because they are damaged.
    pub damaged: Vec<(String, BlockError)>,
}

/// Copies the store of a data directory into another directory, which has [`StoreFile::FOLDERS`] with nothing in them. A block that `known`
/// has is linked and not read again. Durable, but for the folders' entries.
///
/// # Errors
/// [`BackupError`]; what was copied by then is to be thrown away.
pub fn back_up(
    (directory, keys): (&Path, &Keys),
    to: &Path,
    known: Known<'_>,
    progress: BackupProgress<'_>,
) -> Result<StoreCopy, BackupError> {
    let mut blocks = Blocks::new((blocks_of(directory)?, keys), to.join("blocks"), known, progress);
    blocks.copy()?;
    for _ in 0..ROUNDS_MAX {
        let told = blocks.journal_segment();
        let segments = journal::copy(&directory.join("journal"), &to.join("journal"), progress)?;
        blocks.copy()?;
        if blocks.journal_segment() <= told {
            let mut copy = blocks.finish()?;
            copy.files.extend(segments);
            return Ok(copy);
        }
        for Copied { file, .. } in segments {
            let path = to.join(file.path());
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Err(BackupError::Busy)
}
