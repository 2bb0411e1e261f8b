//! Makes a backup a data directory again.
//!
//! All of it is copied aside, in the directory itself, and compared with the manifest, while no collector can start there. Then it is put in its place: the authority first, for a
//! collector does not start with an authority and no database, the database last.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
};

use belfry_common::{identity::Authority, model::Timestamp, storage::FileLock};
use belfry_store::{BackupProgress, Checksum, Step, StoreFile, check_file, copy_file};

use super::{BackupError, DataFile, Manifest, failed, find, is_folder, make_folder, names, sync_folder};
use crate::state::{self, OpenError, State};

/// Where all is copied to first.
const ASIDE: &str = ".restoring";
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
    if !manifest.files.contains_key(&DataFile::Database) {
        return Err(BackupError::Manifest { path: backup, what: "it has no database".to_owned() });
    }
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
        if !is_there(&path) || readable(check_file(&path, progress))? != Some(*checksum) {
            damaged.push(file.path());
        }
    }
    Ok(Verified { files: manifest.files.len(), bytes: manifest.bytes(), damaged })
}

/// Whether it is a file in a folder: a link to either could lead anywhere.
fn is_there(path: &Path) -> bool {
    path.parent().is_some_and(is_folder) && fs::symlink_metadata(path).is_ok_and(|of| of.is_file())
}

/// What a file has; none if the disk does not give it.
fn readable(read: Result<Checksum, belfry_store::BackupError>) -> Result<Option<Checksum>, BackupError> {
    match read {
        Err(belfry_store::BackupError::Failure(failure)) if failure.operation == "read" => Ok(None),
        read => Ok(Some(read?)),
    }
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
    is_in_place: bool,
    /// No collector starts in the directory, and nobody else restores to it.
    _lock: FileLock,
}

impl Aside {
    fn begin(data: &Path) -> Result<Self, BackupError> {
        let is_new = !data.exists();
        make_folder(data)?;
        check_empty(data)?;
        let of_data = fs::metadata(data).map_err(failed("read", data))?;
        let owner = Owner { user: of_data.uid(), group: of_data.gid() };
        let lock = State::lock(data).map_err(|error| match error {
            OpenError::InUse { .. } => BackupError::InUse { path: data.to_owned() },
            error => error.into(),
        })?;
        let path = data.join(ASIDE);
        // What an earlier one left. Nothing of it is in its place: nothing else is in the directory.
        if is_folder(&path) {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        let aside = Self { data: data.to_owned(), path, owner, is_new, is_in_place: false, _lock: lock };
        owner.adopt(&data.join(state::LOCK_FILE))?;
        make_folder(&aside.path)?;
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
        let copied = readable(copy_file(&source, &target, progress))?;
        self.owner.adopt(&target)?;
        if copied == Some(checksum) {
            return Ok(true);
        }
        fs::remove_file(&target).map_err(failed("remove", &target))?;
        Ok(false)
    }

    fn put_in_place(mut self) -> Result<(), BackupError> {
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
        self.is_in_place = true;
        sync_folder(&self.data)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // The next restore would remove it, too.
        drop(fs::remove_dir_all(&self.path));
        if !self.is_in_place {
            drop(fs::remove_file(self.data.join(state::LOCK_FILE)));
        }
        if self.is_new && !self.is_in_place {
            // It stays if something is in it.
            drop(fs::remove_dir(&self.data));
        }
    }
}

fn check_empty(data: &Path) -> Result<(), BackupError> {
    let path = data.to_owned();
    let names = names(data)?;
    let entries = fs::read_dir(data).map_err(failed("list", data))?.count();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let is_ours = |name: &String| [ASIDE, state::LOCK_FILE].contains(&name.as_str());
    if entries == names.len() && names.iter().all(is_ours) {
        return Ok(());
    }
    let locks = [state::LOCK_FILE, "journal/lock", "blocks/lock"];
    Err(match locks.iter().any(|name| is_held(&data.join(name))) {
        true => BackupError::InUse { path },
        false if has(ASIDE) && !has(state::FILE) => BackupError::HalfRestored { path },
        false => BackupError::NotEmpty { path },
    })
}

/// Whether a process holds this lock.
fn is_held(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).open(path);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}
