//! Keeps damaged segments as evidence, in a folder that nothing else reads.
//!
//! Never deletes a complete file. How much of it to keep is for the operator to say.

use std::collections::BTreeSet;

use super::error::Trouble;
use super::format::{segment_name, segment_number};
use super::window::Window;
use crate::storage::{Access, Entry, Failure, Storage, failure, write_all_at};

pub(super) const FOLDER: &str = "quarantine";
const PARTIAL: &str = ".partial";

/// Bytes copied at a time.
const COPY_BYTES: usize = 128 * 1024;

/// What the quarantine holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Segments that it has evidence of.
    pub(super) numbers: BTreeSet<u64>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

pub(super) fn contents(storage: &dyn Storage) -> Result<Contents, Failure> {
    let mut contents = Contents::default();
    for entry in list(storage)? {
        contents.files += 1;
        contents.bytes += entry.bytes;
        contents.numbers.extend(number_of(&entry.name));
    }
    Ok(contents)
}

/// Number of the segment that a complete piece of evidence is of: `<segment>.journal`, or `<segment>.journal.2`
/// and so on.
fn number_of(name: &str) -> Option<u64> {
    let end = name.find(".journal")? + ".journal".len();
    let (segment, copy) = name.split_at_checked(end)?;
    let is_complete = copy.is_empty() || copy.strip_prefix('.').is_some_and(|copy| copy.parse::<u32>().is_ok());
    segment_number(segment).filter(|_| is_complete)
}

/// Copies a segment's file, durably, and returns the copy's name in the folder.
pub(super) fn copy(storage: &dyn Storage, number: u64) -> Result<String, Failure> {
    let source_name = segment_name(number);
    let name = prepare(storage, number)?;
    let partial = path(&format!("{source_name}{PARTIAL}"));
    if list(storage)?.iter().any(|entry| path(&entry.name) == partial) {
        // A copy that a crash interrupted; its source is still whole.
        storage.remove(&partial).map_err(failure(storage, "remove", &partial))?;
    }
    let copied = copy_content(storage, &source_name, &partial)
        .and_then(|()| storage.rename(&partial, &path(&name)).map_err(failure(storage, "rename", &partial)))
        .and_then(|()| storage.sync_folder(FOLDER).map_err(failure(storage, "sync", FOLDER)));
    match copied {
        Ok(()) => Ok(name),
        Err(error) => {
            // Its space may be wanted now; if it cannot be removed, the next attempt will.
            let _ = storage.remove(&partial);
            Err(error)
        }
    }
}

fn copy_content(storage: &dyn Storage, source_name: &str, target_name: &str) -> Result<(), Failure> {
    let source = storage.open(source_name, Access::Read).map_err(failure(storage, "open", source_name))?;
    let bytes = source.len().map_err(failure(storage, "read", source_name))?;
    let target = storage.create(target_name).map_err(failure(storage, "create", target_name))?;
    let mut window = Window::default();
    let mut at = 0;
    while at < bytes {
        let piece = window.fetch(&*source, at, COPY_BYTES, bytes).map_err(failure(storage, "read", source_name))?;
        if piece.is_empty() {
            break;
        }
        let (written, result) = write_all_at(&*target, piece, at);
        result.map_err(failure(storage, "write", target_name))?;
        at += written;
    }
    target.sync_data().map_err(failure(storage, "sync", target_name))
}

/// Moves a segment's file, durably, and returns its name in the folder.
pub(super) fn take(storage: &dyn Storage, number: u64) -> Result<String, Trouble> {
    let source_name = segment_name(number);
    let name = prepare(storage, number).map_err(Trouble::of_attempt)?;
    let renamed = storage.rename(&source_name, &path(&name)).map_err(failure(storage, "move", &source_name));
    renamed.map_err(Trouble::of_attempt)?;
    storage.sync_folder(FOLDER).map_err(failure(storage, "sync", FOLDER)).map_err(Trouble::Fatal)?;
    storage.sync_folder("").map_err(failure(storage, "sync", "")).map_err(Trouble::Fatal)?;
    Ok(name)
}

/// Makes the folder, and finds a name in it that is free.
fn prepare(storage: &dyn Storage, number: u64) -> Result<String, Failure> {
    storage.create_folder(FOLDER).map_err(failure(storage, "create", FOLDER))?;
    storage.sync_folder("").map_err(failure(storage, "sync", ""))?;
    let taken: BTreeSet<String> = list(storage)?.into_iter().map(|entry| entry.name).collect();
    let first = segment_name(number);
    let mut name = first.clone();
    let mut copy = 2_u32;
    while taken.contains(&name) {
        name = format!("{first}.{copy}");
        copy = copy.saturating_add(1);
    }
    Ok(name)
}

fn list(storage: &dyn Storage) -> Result<Vec<Entry>, Failure> {
    storage.list(FOLDER).map_err(failure(storage, "list", FOLDER))
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}
