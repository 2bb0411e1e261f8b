//! Takes a backup beside a collector that runs.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use belfry_common::{identity::Authority, model::Timestamp, storage::FileLock};
use belfry_store::{BackupProgress, BlockError, Checksum, Copied, Keys, StoreFile, back_up, check_file, copy_file};

use super::{
    BackupError, DataFile, Manifest, backups, failed, is_folder, make_folder, manifest, name_of, names, sync_folder,
    time_of,
};
use crate::state::{self, State};

const LOCK: &str = "lock";
const UNFINISHED: &str = ".unfinished";

/// A backup that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) path: PathBuf,
    pub(crate) created: Timestamp,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Of these, what the backup before does not have.
    pub(crate) bytes_new: u64,
    /// Blocks that are not in it, because they are damaged.
    pub(crate) damaged: Vec<(String, BlockError)>,
    /// Older backups that were removed.
    pub(crate) removed: usize,
}

/// Takes a backup of a data directory, as a new one in `directory`, and then removes older ones of which there are more than `keep`.
///
/// # Errors
/// [`BackupError`]; nothing is there then that could be taken for a backup.
pub(crate) fn take(
    (data, keys): (&Path, &Keys),
    directory: &Path,
    keep: Option<NonZeroUsize>,
    now: Timestamp,
    progress: BackupProgress<'_>,
) -> Result<Taken, BackupError> {
    if !State::path(data).is_file() {
        return Err(BackupError::NoCollector { path: data.to_owned() });
    }
    refuse_inside(data, directory)?;
    make_folder(directory)?;
    let _lock = lock(directory)?;
    remove_unfinished(directory)?;
    // One of which the manifest is damaged is of no use here: more is read then.
    let earlier = backups(directory)?.into_iter().rev();
    let earlier = earlier.filter_map(|backup| Some((Manifest::read(&backup.path).ok()?, backup.path))).next();

    let unfinished = Unfinished::begin(directory, now)?;
    let known = |file: StoreFile, checksum: Checksum| {
        let (manifest, path) = earlier.as_ref()?;
        let is_same = manifest.files.get(&DataFile::Store(file)) == Some(&checksum);
        is_same.then(|| path.join(file.path()))
    };
    let copy = back_up((data, keys), &unfinished.path, &known, progress)?;
    let bytes_known: u64 = copy.files.iter().filter(|copied| copied.is_known).map(|copied| copied.checksum.bytes).sum();
    let of_store = |Copied { file, checksum, .. }: Copied| (DataFile::Store(file), checksum);
    let mut files: BTreeMap<DataFile, Checksum> = copy.files.into_iter().map(of_store).collect();
    // What comes now must not be older than what was copied before it.
    let database = DataFile::Database.path();
    state::back_up(data, &unfinished.path.join(&database))?;
    files.insert(DataFile::Database, check_file(&unfinished.path.join(&database), &|_| Ok(()))?);
    files.extend(copy_authority(data, &unfinished.path)?);

    let manifest = Manifest { created: now, version: env!("CARGO_PKG_VERSION").to_owned(), files };
    let path = unfinished.finish(&manifest)?;
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    let removed = keep.map_or(Ok(0), |keep| remove_older(directory, keep))?;
    let bytes_new = bytes.saturating_sub(bytes_known);
    Ok(Taken { path, created: now, files, bytes, bytes_new, damaged: copy.damaged, removed })
}

/// The next backup would have this one in it, and a restore would not find the directory empty.
fn refuse_inside(data: &Path, directory: &Path) -> Result<(), BackupError> {
    let data = fs::canonicalize(data).map_err(failed("find", data))?;
    let path = std::path::absolute(directory).map_err(failed("find", directory))?;
    // It may not be there yet: then what it would be in decides.
    let is_inside =
        path.ancestors().find_map(|part| fs::canonicalize(part).ok()).is_some_and(|part| part.starts_with(data));
    if is_inside { Err(BackupError::Inside { path: directory.to_owned() }) } else { Ok(()) }
}

fn lock(directory: &Path) -> Result<FileLock, BackupError> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    let file =
        options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed("open", &path))?;
    let lock = FileLock::of(file).map_err(failed("lock", &path))?;
    lock.ok_or_else(|| BackupError::Busy { path: directory.to_owned() })
}

/// Copies what all certificates stand on. There is none before a collector's first start has ended.
fn copy_authority(data: &Path, to: &Path) -> Result<Vec<(DataFile, Checksum)>, BackupError> {
    if !Authority::exists(data) {
        return Ok(Vec::new());
    }
    let copy = |name: &'static str| {
        let path = data.join(name);
        if !path.exists() {
            return Err(BackupError::Authority { path });
        }
        Ok((DataFile::Authority(name), copy_file(&path, &to.join(name), &|_| Ok(()))?))
    };
    Authority::FILES.into_iter().map(copy).collect()
}

/// A backup that is being written. Dropped before it is finished, it leaves nothing.
struct Unfinished {
    path: PathBuf,
    finished: PathBuf,
}

impl Unfinished {
    fn begin(directory: &Path, created: Timestamp) -> Result<Self, BackupError> {
        let name = name_of(created);
        let unfinished = Self { path: directory.join(format!(".{name}{UNFINISHED}")), finished: directory.join(&name) };
        for folder in StoreFile::FOLDERS {
            make_folder(&unfinished.path.join(folder))?;
        }
        Ok(unfinished)
    }

    /// Makes all of it durable, then gives it its name.
    fn finish(self, manifest: &Manifest) -> Result<PathBuf, BackupError> {
        let path = self.path.join(manifest::FILE);
        let text = manifest.encode().map_err(std::io::Error::other).map_err(failed("encode", &path))?;
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(failed("write", &path))?;
        for folder in StoreFile::FOLDERS {
            sync_folder(&self.path.join(folder))?;
        }
        sync_folder(&self.path)?;
        // Never in the place of another: a folder with something in it is not replaced.
        fs::rename(&self.path, &self.finished).map_err(failed("create", &self.finished))?;
        sync_folder(self.finished.parent().unwrap_or(Path::new(".")))?;
        Ok(self.finished.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // The next one would remove it, too.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Removes what earlier ones left: nobody writes now, as the lock is held.
fn remove_unfinished(directory: &Path) -> Result<(), BackupError> {
    for name in names(directory)? {
        let is_ours = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(UNFINISHED))
            .is_some_and(|name| time_of(name).is_some());
        let path = directory.join(&name);
        if is_ours && is_folder(&path) {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Removes the oldest backups; how many.
fn remove_older(directory: &Path, keep: NonZeroUsize) -> Result<usize, BackupError> {
    let mut backups = backups(directory)?;
    let kept = backups.len().saturating_sub(keep.get());
    backups.truncate(kept);
    for backup in &backups {
        // First it is none any more, so that half of it is not taken for one.
        let path = directory.join(format!(".{}{UNFINISHED}", name_of(backup.created)));
        fs::rename(&backup.path, &path).map_err(failed("remove", &backup.path))?;
        sync_folder(directory)?;
        fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
    }
    Ok(backups.len())
}
