//! Copies files and reckons their checksums.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use super::{BackupError, BackupProgress, Step, failed};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Bytes of a file that is written meanwhile that are read at once.
const PAGE_BYTES: usize = 4096;

/// What tells whether a file is the one that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of all of it.
    pub crc32c: u32,
}

impl Checksum {
    const NONE: Self = Self { bytes: 0, crc32c: 0 };

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
    }
}

/// Copies a file to a path where there is none, for its owner alone, and makes it durable. Gives its length in bytes and its CRC-32C.
///
/// # Errors
/// [`BackupError::Failure`], or what `progress` says; a part of it may be there. A link is not followed.
pub fn copy_file(from: &Path, to: &Path, progress: BackupProgress<'_>) -> Result<Checksum, BackupError> {
    let source = open_file(from)?;
    let mut target = create(to)?;
    let checksum =
        read_all(&source, from, progress, |piece| Ok(target.write_all(piece).map_err(failed("write", to))?))?;
    target.sync_all().map_err(failed("sync", to))?;
    Ok(checksum)
}

/// Reads a file to its end. Gives its length in bytes and its CRC-32C.
///
/// # Errors
/// As [`copy_file`].
pub fn check_file(path: &Path, progress: BackupProgress<'_>) -> Result<Checksum, BackupError> {
    read_all(&open_file(path)?, path, progress, |_| Ok(()))
}

/// As [`copy_file`], of a file that somebody appends to: what the copy has ends where it ended at some moment, or with zeros behind that.
///
/// Read from its end to its beginning: where something is missing, all that was written after it is missing as well. Within a page the system
/// reads the other way round, so that each is read until that says the same twice: then nothing was written meanwhile.
pub(super) fn copy_growing(from: &Path, to: &Path) -> Result<(), BackupError> {
    let source = open_file(from)?;
    let target = create(to)?;
    let bytes = source.metadata().map_err(failed("read", from))?.len();
    target.set_len(bytes).map_err(failed("write", to))?;
    let (mut page, mut again) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
    for number in (0..bytes.div_ceil(PAGE_BYTES as u64)).rev() {
        let offset = number * PAGE_BYTES as u64;
        let wanted = usize::try_from(bytes - offset).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
        let page = page.get_mut(..wanted).unwrap_or_default();
        let again = again.get_mut(..wanted).unwrap_or_default();
        read_page(&source, page, offset).map_err(failed("read", from))?;
        loop {
            read_page(&source, again, offset).map_err(failed("read", from))?;
            if again == page {
                break;
            }
            page.copy_from_slice(again);
        }
        // What is preallocated stays a hole.
        if page.iter().any(|byte| *byte != 0) {
            target.write_all_at(page, offset).map_err(failed("write", to))?;
        }
    }
    Ok(target.sync_all().map_err(failed("sync", to))?)
}

/// Cuts a file of ours, durably.
pub(super) fn cut(path: &Path, bytes: u64) -> Result<(), BackupError> {
    let file = OpenOptions::new().write(true).open(path).map_err(failed("cut", path))?;
    Ok(file.set_len(bytes).and_then(|()| file.sync_all()).map_err(failed("cut", path))?)
}

/// Reads as much of a page as there is, and zeros: the preallocated end of the file may be cut off meanwhile.
fn read_page(file: &File, mut page: &mut [u8], mut offset: u64) -> io::Result<()> {
    page.fill(0);
    while !page.is_empty() {
        match file.read_at(page, offset) {
            Ok(0) => break,
            Ok(count) => {
                page = page.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_all(
    mut file: &File,
    path: &Path,
    progress: BackupProgress<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<Checksum, BackupError> {
    let mut checksum = Checksum::NONE;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let piece = match file.read(&mut buffer) {
            Ok(0) => return Ok(checksum),
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read", path)(error).into()),
        };
        checksum.add(piece);
        take(piece)?;
        progress(Step::Done(piece.len() as u64))?;
    }
}

/// Opens a regular file for reading: no link, and nothing that is waited for.
///
/// # Errors
/// [`BackupError::Failure`]
pub fn open_file(path: &Path) -> Result<File, BackupError> {
    let is_file = fs::symlink_metadata(path).map_err(failed("open", path))?.is_file();
    if !is_file {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(failed("open", path)(source).into());
    }
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed("open", path))?)
}

fn create(path: &Path) -> Result<File, BackupError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    Ok(options.open(path).map_err(failed("create", path))?)
}
