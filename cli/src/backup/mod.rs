//! Backups of a collector's data directory, taken while it runs, and made a data directory again.
//!
//! ```text
//! DIR/2026-11-27T02-10-00.000Z/     a backup
//!         blocks/ journal/          the store, see `belfry_store::back_up`
//!         belfry.db                 the database, as one file
//!         ca.key.pem ca.pem         the authority
//!         manifest.jsonl            what there is, with lengths and checksums; written last
//!     .2026-….unfinished/           one that is being written, or never was finished: the next removes it
//!     lock                          held by who writes
//! ```
//! What comes later in this list is copied later, and so is the newer part of a backup. The database must not be older than the store: it would
//! give the number of a node that it does not know, and with it that node's history, to another. The authority must not be older than
//! the database: nodes of an authority that came in between could not come back. Newer is harmless: of a node that joined in between there
//! are no samples yet, its agent sends them again.
//!
//! Absent: the identity of the collector's own machine and the address in use, which every start makes if need be; locks; quarantines, which are
//! evidence of this disk; the agent's directory of `belfry up`: a spool from a copy is refused.

mod manifest;
mod restore;
mod take;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use belfry_common::{
    identity::Authority,
    model::Timestamp,
    storage::{Failure, failed},
};
use belfry_store::StoreFile;
use thiserror::Error;

pub(crate) use restore::{restore, verify};
pub(crate) use take::take;

use crate::{api, state};
use manifest::Manifest;

/// A file of a data directory that backups have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum DataFile {
    Store(StoreFile),
    Database,
    /// One of [`Authority::FILES`].
    Authority(&'static str),
}

impl DataFile {
    /// Where it is in a data directory, and in a backup.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Store(file) => file.path(),
            Self::Database => state::FILE.to_owned(),
            Self::Authority(name) => name.to_owned(),
        }
    }

    /// The file that has this path.
    fn parse(path: &str) -> Option<Self> {
        if path == state::FILE {
            return Some(Self::Database);
        }
        let authority = Authority::FILES.into_iter().find(|name| *name == path).map(Self::Authority);
        authority.or_else(|| StoreFile::parse(path).map(Self::Store))
    }
}

/// A backup that cannot be taken or restored.
#[derive(Debug, Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Copy(#[from] belfry_store::BackupError),
    #[error(transparent)]
    File(#[from] Failure),
    #[error(transparent)]
    Database(#[from] state::OpenError),
    #[error("`{path}` has no `{}`: is it a collector's data directory?", state::FILE)]
    NoCollector { path: PathBuf },
    #[error("`{path}` is in the data directory: choose another place, best on another disk")]
    Inside { path: PathBuf },
    #[error("another backup is being written to `{path}`")]
    Busy { path: PathBuf },
    #[error(
        "`{path}` is missing while its pair is there: the collector starts for the first time, or needs it restored"
    )]
    Authority { path: PathBuf },
    #[error("the manifest of `{path}` cannot be used: {what}")]
    Manifest { path: PathBuf, what: String },
    #[error("there is no finished backup in `{path}`")]
    NoBackup { path: PathBuf },
    #[error("`{path}` is in use: stop the collector, and restore to an empty directory")]
    InUse { path: PathBuf },
    #[error(
        "`{path}` is not empty: a backup is restored to an empty directory, or to one that is not there yet; nothing was changed"
    )]
    NotEmpty { path: PathBuf },
    #[error("`{path}` was being restored when that broke off: empty it, and restore again")]
    HalfRestored { path: PathBuf },
    #[error(
        "of `{path}`, {count} files are damaged: {}; nothing was restored. Choose another backup, or leave damaged blocks out with --skip-damaged",
        .files.join(", ")
    )]
    Damaged { path: PathBuf, count: usize, files: Vec<String> },
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backup {
    pub(crate) created: Timestamp,
    pub(crate) path: PathBuf,
}

/// What a backup of this time is called: its time, with what file systems take.
fn name_of(created: Timestamp) -> String {
    api::time(created).replace(':', "-")
}

/// The time that a name stands for.
fn time_of(name: &str) -> Option<Timestamp> {
    let (day, time) = name.split_once('T')?;
    let time = humantime::parse_rfc3339(&format!("{day}T{}", time.replace('-', ":"))).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    let created = Timestamp::from_millis(i64::try_from(since.as_millis()).ok()?);
    (name_of(created) == name).then_some(created)
}

/// The finished backups of a directory, the newest last.
fn backups(directory: &Path) -> Result<Vec<Backup>, BackupError> {
    let mut backups = Vec::new();
    for name in names(directory)? {
        let path = directory.join(&name);
        if let Some(created) = time_of(&name).filter(|_| is_folder(&path) && is_backup(&path)) {
            backups.push(Backup { created, path });
        }
    }
    backups.sort();
    Ok(backups)
}

/// Whether this is a backup itself.
pub(crate) fn is_backup(path: &Path) -> bool {
    path.join(manifest::FILE).exists()
}

/// The backup that this is, or the newest one in it.
fn find(path: &Path) -> Result<PathBuf, BackupError> {
    if is_backup(path) {
        return Ok(path.to_owned());
    }
    let newest = backups(path)?.pop().map(|backup| backup.path);
    newest.ok_or_else(|| BackupError::NoBackup { path: path.to_owned() })
}

/// Names in a folder that are text: others are not ours.
fn names(folder: &Path) -> Result<Vec<String>, BackupError> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder).and_then(Iterator::collect);
    let names = entries.map_err(failed("list", folder))?.into_iter().map(|entry| entry.file_name().into_string());
    Ok(names.filter_map(Result::ok).collect())
}

/// Whether it is a folder, and no link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Makes a folder for its owner alone, and what is missing above it.
fn make_folder(path: &Path) -> Result<(), BackupError> {
    Ok(fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?)
}

/// Makes a folder's entries survive a loss of power.
fn sync_folder(path: &Path) -> Result<(), BackupError> {
    Ok(fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))?)
}
