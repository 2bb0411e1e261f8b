//! Where a database lives.

use std::path::{Path, PathBuf};

/// Where a database lives.
#[derive(Debug, Clone)]
pub(in crate::state) enum Location {
    /// This file, created if it is missing.
    File(PathBuf),
    /// This process' memory, under a name that its connections share. Not WAL: a reader can wait for the writer.
    #[cfg(test)]
    Memory(PathBuf),
}

impl Location {
    /// What errors call it.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            #[cfg(test)]
            Self::Memory(name) => name,
        }
    }

    pub(super) fn is_file(&self) -> bool {
        match self {
            Self::File(_) => true,
            #[cfg(test)]
            Self::Memory(_) => false,
        }
    }
}
