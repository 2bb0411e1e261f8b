//! Creates segments, completes interrupted creations, reads headers.

use std::io;

use super::error::{JournalError, Trouble};
use super::format::{HeaderError, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, is_header_begun, segment_name};
use super::scan::{self, After, Scanner};
use super::window::Window;
use crate::storage::{Access, Storage, StorageFile, failure, path_of, write_all_at};

/// A segment that is durable, empty and open for writing.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) file: Box<dyn StorageFile>,
    pub(super) seed: Seed,
    pub(super) file_bytes: u64,
}

/// What a segment's file begins with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beginning {
    Valid {
        header: SegmentHeader,
        seed: Seed,
    },
    /// Nothing that could ever have held a record.
    Unfinished,
    Damaged,
    Unreadable,
}

/// Creates a segment with its directory entry. When it fails, the segment does not exist, or the trouble is fatal.
pub(super) fn create(
    storage: &dyn Storage,
    number: u64,
    previous_end: u32,
    preallocate_bytes: u64,
) -> Result<Fresh, Trouble> {
    let name = segment_name(number);
    let file = storage.create(&name).map_err(failure(storage, "create", &name)).map_err(Trouble::of_attempt)?;
    let header = SegmentHeader { number, previous_end, salt: storage.salt() };
    match fill(storage, file, header, preallocate_bytes) {
        Err(trouble @ (Trouble::Full(_) | Trouble::Harmless(_))) => {
            // As if it had never been: its number will be used for the next attempt.
            storage.remove(&name).map_err(failure(storage, "remove", &name)).map_err(Trouble::Fatal)?;
            storage.sync_folder("").map_err(failure(storage, "sync", "")).map_err(Trouble::Fatal)?;
            Err(trouble)
        }
        result => result,
    }
}

/// Completes a creation that a crash interrupted.
pub(super) fn complete(
    storage: &dyn Storage,
    number: u64,
    previous_end: u32,
    preallocate_bytes: u64,
) -> Result<Fresh, Trouble> {
    let name = segment_name(number);
    let file =
        storage.open(&name, Access::Write).map_err(failure(storage, "open", &name)).map_err(Trouble::of_attempt)?;
    file.set_len(0).map_err(failure(storage, "cut", &name)).map_err(Trouble::of_attempt)?;
    let header = SegmentHeader { number, previous_end, salt: storage.salt() };
    fill(storage, file, header, preallocate_bytes)
}

fn fill(
    storage: &dyn Storage,
    file: Box<dyn StorageFile>,
    header: SegmentHeader,
    preallocate_bytes: u64,
) -> Result<Fresh, Trouble> {
    let name = segment_name(header.number);
    let file_bytes = preallocate(&*file, 0, preallocate_bytes)
        .map_err(failure(storage, "preallocate", &name))
        .map_err(Trouble::of_attempt)?;
    let (bytes, seed) = header.encode();
    let (_, written) = write_all_at(&*file, &bytes, 0);
    written.map_err(failure(storage, "write", &name)).map_err(Trouble::of_attempt)?;
    file.sync_data().map_err(failure(storage, "sync", &name)).map_err(Trouble::Fatal)?;
    storage.sync_folder("").map_err(failure(storage, "sync", "")).map_err(Trouble::Fatal)?;
    Ok(Fresh { file, seed, file_bytes: file_bytes.max(u64::from(SEGMENT_HEADER_BYTES)) })
}

/// Extends a file of `file_bytes` to `wanted`, and returns its length. It only makes syncs cheaper: where it is
/// unsupported or there is too little space, the file stays as long as it was.
pub(super) fn preallocate(file: &dyn StorageFile, file_bytes: u64, wanted: u64) -> io::Result<u64> {
    if file_bytes >= wanted {
        return Ok(file_bytes);
    }
    match file.preallocate(wanted) {
        Ok(()) => Ok(wanted),
        // Part of it may have been reserved: give it back.
        Err(_) => file.set_len(file_bytes).map(|()| file_bytes),
    }
}

/// Where the records of a segment end, if nothing but zeros or a torn write follows: the file may be cut there. Reads only, and of a journal
/// that nobody writes.
///
/// # Errors
/// [`JournalError::Version`] and [`JournalError::Io`].
pub fn end_of_records(storage: &dyn Storage, number: u64) -> Result<Option<u32>, JournalError> {
    let Beginning::Valid { seed, .. } = beginning(storage, number)? else { return Ok(None) };
    let name = segment_name(number);
    let file = storage.open(&name, Access::Read).map_err(failure(storage, "open", &name)).map_err(JournalError::Io)?;
    let file_bytes = file.len().map_err(failure(storage, "read", &name)).map_err(JournalError::Io)?;
    let mut window = Window::default();
    let mut scanner = Scanner { file: &*file, file_bytes, seed, window: &mut window };
    let prefix = scanner.prefix();
    let is_torn = match prefix.after {
        After::Nothing => true,
        After::Garbage { end } => matches!(scanner.survivor(prefix.end, end), Ok(None)),
        After::Unreadable => false,
    };
    Ok(is_torn.then_some(prefix.end))
}

/// Reads the beginning of segment `number`. A segment of a newer version is an error.
pub(super) fn beginning(storage: &dyn Storage, number: u64) -> Result<Beginning, JournalError> {
    let name = segment_name(number);
    let file = storage.open(&name, Access::Read).map_err(failure(storage, "open", &name)).map_err(JournalError::Io)?;
    let Ok(file_bytes) = file.len() else { return Ok(Beginning::Unreadable) };
    let mut window = Window::default();
    let header_limit = file_bytes.min(u64::from(SEGMENT_HEADER_BYTES));
    let Ok(bytes) = window.fetch(&*file, 0, SEGMENT_HEADER_BYTES as usize, header_limit) else {
        return Ok(Beginning::Unreadable);
    };
    match SegmentHeader::decode(bytes) {
        Ok((header, seed)) if header.number == number => return Ok(Beginning::Valid { header, seed }),
        Ok(_) => return Ok(Beginning::Damaged),
        Err(HeaderError::Version(found)) => {
            return Err(JournalError::Version { path: path_of(storage, &name), found });
        }
        Err(HeaderError::Invalid) => {}
    }
    let begun = bytes.to_vec();
    window.clear();
    Ok(match scan::last_data(&*file, &mut window, 0, file_bytes) {
        Ok(None) => Beginning::Unfinished,
        // What follows the magic may have been lost, or not be written yet. No record was.
        Ok(Some(end)) if end <= header_limit => {
            let written = begun.get(..usize::try_from(end).unwrap_or(0)).unwrap_or_default();
            if is_header_begun(written) { Beginning::Unfinished } else { Beginning::Damaged }
        }
        Ok(Some(_)) => Beginning::Damaged,
        Err(_) => Beginning::Unreadable,
    })
}
