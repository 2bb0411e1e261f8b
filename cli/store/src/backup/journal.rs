//! Copies the segments of a journal.

use std::{fs, path::Path};

use belfry_common::{
    journal::{end_of_records, segment_name, segment_number},
    storage::Disk,
};

use super::{
    BackupError, BackupProgress, Checksum, Copied, Step, StoreFile, failed,
    file::{check_file, copy_file, copy_growing, cut},
};

/// Copies the segments that there are, the newest first, until one is gone: it was removed with all before it.
pub(super) fn copy(from: &Path, to: &Path, progress: BackupProgress<'_>) -> Result<Vec<Copied>, BackupError> {
    let mut copied = Vec::new();
    for (place, number) in segments(from)?.into_iter().rev().enumerate() {
        let [source, target] = [from, to].map(|folder| folder.join(segment_name(number)));
        // All but the newest were complete before the next began.
        let checksum = match place {
            0 => copy_newest(&source, to, number, progress),
            _ => copy_complete(&source, &target, progress),
        };
        match checksum {
            Ok(checksum) => copied.push(Copied { file: StoreFile::Segment(number), checksum, is_known: false }),
            Err(_) if !source.exists() => {
                drop(fs::remove_file(&target));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

fn copy_complete(source: &Path, target: &Path, progress: BackupProgress<'_>) -> Result<Checksum, BackupError> {
    progress(Step::Found(fs::metadata(source).map_err(failed("read", source))?.len()))?;
    copy_file(source, target, progress)
}

/// Copies a segment that is written meanwhile, without what is behind its last record: zeros, and part of one.
fn copy_newest(
    source: &Path,
    folder: &Path,
    number: u64,
    progress: BackupProgress<'_>,
) -> Result<Checksum, BackupError> {
    let target = folder.join(segment_name(number));
    copy_growing(source, &target)?;
    let disk = Disk::create(folder).map_err(failed("open", folder))?;
    if let Some(end) = end_of_records(&disk, number)? {
        cut(&target, end.into())?;
    }
    progress(Step::Found(fs::metadata(&target).map_err(failed("read", &target))?.len()))?;
    check_file(&target, progress)
}

/// The numbers of the segments, ascending.
fn segments(folder: &Path) -> Result<Vec<u64>, BackupError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        segments.extend(entry.file_name().to_str().and_then(segment_number));
    }
    segments.sort_unstable();
    Ok(segments)
}
