//! A machine made of files.

use std::{fs, os::unix, path::Path};

use tempfile::TempDir;

use crate::samplers::Roots;

#[derive(Debug)]
pub(in crate::gpu) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    pub(in crate::gpu) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Writes a file: `proc/1/stat`, `sys/…`, `root/etc/passwd`.
    pub(in crate::gpu) fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Makes a symbolic link that leads nowhere.
    pub(in crate::gpu) fn link(&self, path: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        unix::fs::symlink("nowhere", path).unwrap();
    }

    /// Removes a directory, or a file.
    pub(in crate::gpu) fn remove(&self, path: &str) {
        let path = self.directory.path().join(path);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.unwrap();
    }

    pub(in crate::gpu) fn roots(&self) -> Roots {
        let below = |name| self.directory.path().join(name);
        Roots { proc: below("proc"), sys: below("sys"), root: below("root") }
    }
}
