//! The few operations on files that the journal and the store need, so that tests can stand in for the disk.
//!
//! The real one is [`Disk`], the pretended one [`simulated::Simulated`].

mod disk;
pub mod simulated;

use std::any::Any;
use std::fmt::Debug;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use disk::Disk;

/// One operation on a file that failed.
#[derive(Debug, Error)]
#[error("failed to {operation} `{}`", .path.display())]
pub struct Failure {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Whether an error means that there is no space, by disk, quota or file size limit.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Held as long as the directory is owned.
pub type Lock = Box<dyn Any + Send + Sync>;

/// An exclusive lock on a file (`flock`), for as long as this lives or its process does.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Locks a file; `None` if somebody else has it.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is just being started has it, too, until it becomes another program.
        drop(self.0.unlock());
    }
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without a folder.
    pub name: String,
    /// A regular file, neither a folder nor a link.
    pub is_file: bool,
    /// Its length.
    pub bytes: u64,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading alone.
    Read,
    /// For reading and writing.
    Write,
}

/// A directory with one level of folders in it. Names are relative; `""` is the directory itself.
pub trait Storage: Debug + Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Takes possession of the directory by a lock on the file `name`; `None` if somebody else has it.
    fn lock(&self, name: &str) -> io::Result<Option<Lock>>;

    /// What is in a folder, in any order; empty if there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>>;

    /// Creates a folder unless it exists.
    fn create_folder(&self, folder: &str) -> io::Result<()>;

    /// Creates a file that must not exist yet, for reading and writing.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Opens a file.
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn StorageFile>>;

    /// Renames a file, also from one folder to another, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the folder's entries survive a power loss.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    /// A random number for the header of a new segment.
    fn salt(&self) -> u32;
}

/// An open file. All access is by offset, so that a handle has no position to disagree about.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length of a file can fail to be read, and emptiness is never asked"
)]
pub trait StorageFile: Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes a beginning of `bytes`, and says how much.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Extends the file to at least `bytes`, with zeros, and reserves the space.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes content and length survive a power loss.
    fn sync_data(&self) -> io::Result<()>;

    /// Drops what the system caches of the file and has no need to write, so that the next read comes from the disk.
    /// Best effort.
    fn forget_cached(&self);
}

/// The storage with errors that name the operation and the file.
pub fn failure<'a>(
    storage: &'a dyn Storage,
    operation: &'static str,
    name: &'a str,
) -> impl FnOnce(io::Error) -> Failure + 'a {
    move |source| Failure { operation, path: path_of(storage, name), source }
}

/// As [`failure`], of an operation on a file that is in no storage.
pub fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |source| Failure { operation, path, source }
}

/// Where something of the storage is, for messages.
pub fn path_of(storage: &dyn Storage, name: &str) -> PathBuf {
    if name.is_empty() { storage.path().to_owned() } else { storage.path().join(name) }
}

/// Writes all of `bytes` at `offset`, through short writes and interruptions. Returns how much was written in any case.
pub fn write_all_at(file: &dyn StorageFile, mut bytes: &[u8], mut offset: u64) -> (u64, io::Result<()>) {
    let start = offset;
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return (offset - start, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (offset - start, Err(error)),
        }
    }
    (offset - start, Ok(()))
}
