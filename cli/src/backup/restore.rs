//! Makes a backup a data directory again.
//!
//! All of it is copied aside, in the directory itself, and compared with the manifest. Then it is put in its place: the authority first, for a
//! collector does not start with an authority and no database, the database last.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, lchown},
    path::{Path, PathBuf},
};

use belfry_common::{identity::Authority, model::Timestamp};
use belfry_store::{BackupProgress, Checksum, Step, StoreFile, check_file, copy_file};

use super::{BackupError, DataFile, Manifest, failed, find, is_folder, make_folder, names, sync_folder};
use crate::state;

/// Where all is copied to first.
const ASIDE: &str = ".restoring";
const LOCK: &str = "lock";
/// Damaged files that are named; who has more has another problem.
const NAMED_MAX: usize = 10;

/// A backup that was restored.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) backup: PathBuf,
    pub(crate) created: Timestamp,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Blocks that were left out.
    pub(crate) damaged: Vec<String>,
}

/// Restores a backup, or the newest one of a directory, to a data directory that is empty or is not there yet.
///
/// # Errors
/// [`BackupError`]; nothing was put into the directory, unless it says so.
pub(crate) fn restore(
    from: &Path,
    data: &Path,
    skip_damaged: bool,
    progress: BackupProgress<'_>,
) -> Result<Restored, BackupError> {
    let backup = find(from)?;
    let manifest = Manifest::read(&backup)?;
    progress(Step::Found(manifest.bytes()))?;
    let aside = Aside::begin(data)?;
    let mut damaged = Vec::new();
    for (&file, &checksum) in &manifest.files {
        if !aside.take(&backup, file, checksum, progress)? {
            damaged.push(file);
        }
    }
    let is_fatal = |file: &DataFile| !skip_damaged || !matches!(file, DataFile::Store(StoreFile::Block(_)));
    if damaged.iter().any(is_fatal) {
        let files = damaged.iter().take(NAMED_MAX).map(|file| file.path()).collect();
        return Err(BackupError::Damaged { path: backup, count: damaged.len(), files });
    }
    aside.put_in_place()?;
    let left_out: u64 = damaged.iter().filter_map(|file| manifest.files.get(file)).map(|checksum| checksum.bytes).sum();
    Ok(Restored {
        backup,
        created: manifest.created,
        files: manifest.files.len() - damaged.len(),
        bytes: manifest.bytes().saturating_sub(left_out),
        damaged: damaged.into_iter().map(DataFile::path).collect(),
    })
}

/// What was looked at of a backup.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Files that are missing, or not what was copied.
    pub(crate) damaged: Vec<String>,
}

/// Compares each file of a backup with its manifest.
///
/// # Errors
/// [`BackupError`]
pub(crate) fn verify(backup: &Path, progress: BackupProgress<'_>) -> Result<Verified, BackupError> {
    let manifest = Manifest::read(backup)?;
    progress(Step::Found(manifest.bytes()))?;
    let mut damaged = Vec::new();
    for (file, checksum) in &manifest.files {
        let path = backup.join(file.path());
        if !is_there(&path) || check_file(&path, progress)? != *checksum {
            damaged.push(file.path());
        }
    }
    Ok(Verified { files: manifest.files.len(), bytes: manifest.bytes(), damaged })
}

/// Whether it is a file in a folder: a link to either could lead anywhere.
fn is_there(path: &Path) -> bool {
    path.parent().is_some_and(is_folder) && fs::symlink_metadata(path).is_ok_and(|of| of.is_file())
}

/// Whose the directory is: what an administrator restores is for the service.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn adopt(self, path: &Path) -> Result<(), BackupError> {
        let own = fs::symlink_metadata(path).map_err(failed("read", path))?;
        if own.uid() != self.user {
            lchown(path, Some(self.user), Some(self.group)).map_err(failed("give away", path))?;
        }
        Ok(())
    }
}

/// What is restored, before it counts. Dropped before it is put in its place, it leaves nothing.
struct Aside {
    data: PathBuf,
    path: PathBuf,
    owner: Owner,
    /// The directory was not there.
    is_new: bool,
    _lock: File,
}

impl Aside {
    fn begin(data: &Path) -> Result<Self, BackupError> {
        let is_new = !data.exists();
        make_folder(data)?;
        let path = data.join(ASIDE);
        check_empty(data)?;
        make_folder(&path)?;
        let lock = lock(&path.join(LOCK)).map_err(failed("lock", &path))?;
        let lock = lock.ok_or_else(|| BackupError::InUse { path: data.to_owned() })?;
        // What an earlier one left. Nothing of it is in its place: nothing else is in the directory.
        for name in names(&path)?.into_iter().filter(|name| name != LOCK) {
            let path = path.join(name);
            let removed = if is_folder(&path) { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed("remove", &path))?;
        }
        let of_data = fs::metadata(data).map_err(failed("read", data))?;
        let owner = Owner { user: of_data.uid(), group: of_data.gid() };
        let aside = Self { data: data.to_owned(), path, owner, is_new, _lock: lock };
        owner.adopt(&aside.path)?;
        for folder in StoreFile::FOLDERS {
            make_folder(&aside.path.join(folder))?;
            owner.adopt(&aside.path.join(folder))?;
        }
        Ok(aside)
    }

    /// Copies a file of the backup; whether it is what the manifest says.
    fn take(
        &self,
        backup: &Path,
        file: DataFile,
        checksum: Checksum,
        progress: BackupProgress<'_>,
    ) -> Result<bool, BackupError> {
        let (source, target) = (backup.join(file.path()), self.path.join(file.path()));
        if !is_there(&source) {
            return Ok(false);
        }
        let copied = copy_file(&source, &target, progress)?;
        self.owner.adopt(&target)?;
        if copied == checksum {
            return Ok(true);
        }
        fs::remove_file(&target).map_err(failed("remove", &target))?;
        Ok(false)
    }

    fn put_in_place(self) -> Result<(), BackupError> {
        for folder in StoreFile::FOLDERS {
            sync_folder(&self.path.join(folder))?;
        }
        sync_folder(&self.path)?;
        let [blocks, journal] = StoreFile::FOLDERS;
        let [key, certificate] = Authority::FILES;
        for name in [key, certificate, blocks, journal, state::FILE] {
            if name == state::FILE {
                sync_folder(&self.data)?;
            }
            let (from, to) = (self.path.join(name), self.data.join(name));
            match fs::rename(&from, &to) {
                // A collector that never had one.
                Err(error) if error.kind() == io::ErrorKind::NotFound && Authority::FILES.contains(&name) => {}
                renamed => renamed.map_err(failed("put in its place", &to))?,
            }
        }
        sync_folder(&self.data)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // The next restore would remove it, too; the directory stays if something is in it.
        drop(fs::remove_dir_all(&self.path));
        if self.is_new {
            drop(fs::remove_dir(&self.data));
        }
    }
}

fn check_empty(data: &Path) -> Result<(), BackupError> {
    let path = data.to_owned();
    let names = names(data)?;
    let is_aside = |name: &String| name == ASIDE;
    let entries = fs::read_dir(data).map_err(failed("list", data))?.count();
    if entries == 0 || (entries == 1 && names.iter().all(is_aside)) {
        return Ok(());
    }
    let locks = [state::LOCK_FILE, "journal/lock", "blocks/lock"];
    if locks.iter().any(|name| is_held(&data.join(name))) {
        return Err(BackupError::InUse { path });
    }
    let has_database = names.iter().any(|name| name == state::FILE);
    if names.iter().any(is_aside) && !has_database {
        return Err(BackupError::HalfRestored { path });
    }
    Err(BackupError::NotEmpty { path })
}

/// Whether a process holds this lock.
fn is_held(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).open(path);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Takes a lock; none if somebody has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
