//! What can go wrong, and what the owner can do about it.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::Position;
use super::format::VERSION;
use crate::limits::RECORD_BYTES_MAX;
use crate::storage::{Failure, is_full};

/// Why a call on a journal failed. What still holds afterwards is in the [module's documentation](super).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process, or another journal of this one, owns the directory.
    #[error(
        "`{}` is in use by another process: stop that one first (`fuser {}` names it), or use another directory",
        .directory.display(), .lock.display()
    )]
    Locked {
        /// The journal's directory.
        directory: PathBuf,
        /// The file whose lock is held.
        lock: PathBuf,
    },

    /// A segment was written by a newer program. Nothing was touched.
    #[error(
        "`{}` has journal format {found}, and this program knows formats up to {VERSION}: \
         install the newer program again, or move the directory away to start without its data",
        .path.display()
    )]
    Version {
        /// The segment's file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },

    /// The payload is empty or longer than a record may be. Nothing was accepted.
    #[error("a record has 1 to {RECORD_BYTES_MAX} bytes, not {bytes}")]
    RecordSize {
        /// Length of the payload.
        bytes: usize,
    },

    /// The segment cannot hold the record at all: the owner has not rolled for too long. Nothing was accepted.
    #[error("segment {segment:x} cannot grow any more: roll first")]
    SegmentFull {
        /// The active segment.
        segment: u64,
    },

    /// Every segment number is used up.
    #[error("no segment number is left in `{}`: move the directory away", .directory.display())]
    NumbersUsedUp {
        /// The journal's directory.
        directory: PathBuf,
    },

    /// There is no space. Nothing was accepted, nothing was lost; calls succeed again once there is space.
    #[error("no space left")]
    Full(#[source] Failure),

    /// It is unknown what the disk has: open the journal again.
    #[error("the journal stopped after a failure and must be opened again")]
    Poisoned(#[source] Arc<Failure>),

    /// Any other failure. Nothing has changed, and the call may be repeated.
    #[error("the journal could not be accessed")]
    Io(#[source] Failure),
}

impl JournalError {
    /// Whether the same call can succeed later on the same journal.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io(_))
    }
}

/// Why a reader could not serve a record.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What is at this position is no record: the position never was a record's beginning, or the segment was
    /// damaged after the journal was opened. The next call goes on with the next segment.
    #[error("no valid record at {position}")]
    Damaged {
        /// Where the record should begin.
        position: Position,
    },

    /// The file could not be read. The next call tries again.
    #[error("the journal could not be read")]
    Io(#[source] Failure),

    /// The position to read from is behind the end of its segment, as after a power loss that cost the tail.
    #[error("{from} is behind the end, {end}")]
    Beyond {
        /// The position that was asked for.
        from: Position,
        /// The end of the journal, or of the segment.
        end: Position,
    },
}

/// A failure inside the journal, by what follows from it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No space, and nothing has changed.
    Full(Failure),
    /// Nothing has changed.
    Harmless(Failure),
    /// Nobody knows what the disk has.
    Fatal(Failure),
}

impl Trouble {
    /// A failed write: harmless only for lack of space.
    pub(super) fn of_write(failure: Failure) -> Self {
        if is_full(&failure.source) { Self::Full(failure) } else { Self::Fatal(failure) }
    }

    /// A failed operation that has changed nothing.
    pub(super) fn of_attempt(failure: Failure) -> Self {
        if is_full(&failure.source) { Self::Full(failure) } else { Self::Harmless(failure) }
    }
}

impl From<Trouble> for JournalError {
    /// For a journal that is not open (yet): nothing can be poisoned.
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full(failure) => Self::Full(failure),
            Trouble::Harmless(failure) | Trouble::Fatal(failure) => Self::Io(failure),
        }
    }
}
