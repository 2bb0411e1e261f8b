//! What can go wrong with the state database, by what the caller can do about it.
//!
//! Absent: refusals such as "token expired". Those are errors of the table that refuses, and wrap [`StateError`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

/// What the database engine said, with its number for those who look it up. Shared, because one failed commit fails
/// every write of its group.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub(crate) struct Cause(pub(super) Arc<str>);

/// A read or write of the state that failed.
#[derive(Debug, Clone, Error)]
pub(crate) enum StateError {
    /// The disk or its quota is full. Nothing of the write remains; it may be tried again.
    #[error("no space left for the state database")]
    Full {
        /// What the engine said.
        source: Cause,
    },
    /// Another program holds the database. Nothing of the write remains; it may be tried again.
    #[error("state database is held by another program")]
    Busy {
        /// What the engine said.
        source: Cause,
    },
    /// The file cannot be read or written. Whether the last write is durable is unknown, so nothing is written after it.
    #[error("failed to read or write the state database's file")]
    Io {
        /// What the engine said.
        source: Cause,
    },
    /// The file is not what was written to it.
    #[error("state database is damaged")]
    Damaged {
        /// What the engine said.
        source: Cause,
    },
    /// A statement was refused: a fault of this program or a database that somebody edited.
    #[error("state database refused a statement")]
    Statement {
        /// What the engine said.
        source: Cause,
    },
    /// A value that this program would not have written.
    #[error("state database holds an invalid `{column}`: {value:?}")]
    Value {
        /// Where.
        column: String,
        /// The beginning of what is there.
        value: String,
    },
    /// An earlier write failed in a way that leaves the file's state unknown; only a restart recovers it.
    #[error("state database takes no more writes since an earlier one failed; restart the collector")]
    Poisoned {
        /// The failure that ended writing.
        source: Arc<StateError>,
    },
    /// The state was shut down.
    #[error("state database is closed")]
    Closed,
}

impl StateError {
    /// Whether the same write can succeed later without a restart.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Busy { .. })
    }

    /// Whether nothing may be written after this: the file may not hold what the engine believes.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Damaged { .. } | Self::Poisoned { .. })
    }
}

/// A state database that cannot be opened. Nothing was changed.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// Somebody else has it open.
    #[error("`{path}` is in use by another collector: stop that one, or choose another data directory")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A file beside the database or the database itself could not be made or changed.
    #[error("failed to prepare `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine could not open or set it up.
    #[error("failed to open state database `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: StateError,
    },
    /// A newer build has written it.
    #[error(
        "state database `{path}` has version {found}, this build knows versions up to {known}: run the newer belfry that wrote it, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version of this build.
        known: u32,
    },
    /// SQLite, but not Belfry's.
    #[error("`{path}` is a database of another program: move it away, or choose another data directory")]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Its pages contradict each other.
    #[error(
        "state database `{path}` is damaged ({detail}): nothing was changed; copy it together with its `-wal` file, then restore a backup, or rescue what is readable with `sqlite3 {path} .recover`"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first contradiction.
        detail: String,
    },
    /// A step to this build's version failed and was undone.
    #[error("failed to bring state database `{path}` from version {from} to {to}")]
    Migrate {
        /// The database.
        path: PathBuf,
        /// The version that it still has.
        from: u32,
        /// The version that was not reached.
        to: u32,
        /// Why.
        source: StateError,
    },
    /// The writer's thread could not be started.
    #[error("failed to start the state database's writer")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// The error of opening for what the engine found.
    pub(super) fn of(path: &Path, error: StateError) -> Self {
        let path = path.to_path_buf();
        match error {
            StateError::Damaged { source } => Self::Damaged { path, detail: source.to_string() },
            source => Self::Open { path, source },
        }
    }
}
