//! The files of the database as files: whose they are, and who has them open.
//!
//! Absent: their content, which is SQLite's.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use belfry_common::storage::FileLock;

use super::error::OpenError;

/// Read and written by the collector's user alone: the database says who may do what.
#[cfg(unix)]
const PRIVATE: u32 = 0o600;

/// Opens a file, made if it is missing, and makes sure that it is its owner's alone. SQLite gives the database's mode
/// to its companions.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE);
    let file = options.open(path)?;
    #[cfg(unix)]
    keep_private(&file)?;
    // The directory's entry must survive a power cut as well as the content.
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

/// Takes back what a restored backup or a copying hand may have granted to others.
#[cfg(unix)]
fn keep_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { file.set_permissions(std::fs::Permissions::from_mode(PRIVATE)) }
}

/// Locks the file at `path` for as long as the result lives. The system lets go when the process dies.
///
/// # Errors
/// [`OpenError::InUse`] when another process, or another handle of this one, has it.
pub(super) fn lock(path: PathBuf, database: &Path) -> Result<FileLock, OpenError> {
    let file = match open_private(&path) {
        Ok(file) => file,
        Err(source) => return Err(OpenError::File { path, source }),
    };
    match FileLock::of(file) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(OpenError::InUse { path: database.to_path_buf() }),
        Err(source) => Err(OpenError::File { path, source }),
    }
}
