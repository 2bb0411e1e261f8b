//! What the store cannot do.

use std::{io, path::PathBuf};

use belfry_common::journal::JournalError;
use thiserror::Error;

use crate::{KeyNumber, ShelfError, log::LogError};

/// What the store cannot do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("failed to create `{path}`")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The blocks cannot be used.
    #[error("blocks cannot be used")]
    Blocks(#[source] ShelfError),
    /// The journal is encrypted, and its key is not there.
    #[error(
        "segment {segment:016x} of the journal is encrypted with key {key}, which is not among the keys of `store.key_file`: add it there, below the newest"
    )]
    Key {
        /// Which segment.
        segment: u64,
        /// The number of its key.
        key: KeyNumber,
    },
    /// The journal failed; see [`JournalError`] on what still holds.
    #[error("journal failed")]
    Journal(#[source] JournalError),
    /// What is left of the disk is for others.
    #[error("disk of `{path}` has {free} bytes free, and the last {reserve} are left to the database")]
    Reserve {
        /// The journal's directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// How many stay free.
        reserve: u64,
    },
    /// The system has no random bytes for a new segment's key.
    #[error("journal cannot be encrypted")]
    Random(#[source] io::Error),
    /// The batch itself is unacceptable: it must not be sent again.
    #[error("batch refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same call can succeed later: the disk is full, for example.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_retryable(),
            Self::Reserve { .. } => true,
            _ => false,
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Journal(error) => Self::Journal(error),
            LogError::Encode(error) => Self::Refused(error.to_string()),
            LogError::Runs(error) => Self::Refused(error.to_string()),
            error @ LogError::TooLarge { .. } => Self::Refused(error.to_string()),
            LogError::Random(error) => Self::Random(error),
        }
    }
}
