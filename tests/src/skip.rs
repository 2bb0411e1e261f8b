//! What a test needs of its surroundings, and how it says that they are missing.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Says that a test did not run and why, past the capture of the test's output.
pub fn skipped(test: &str, why: &str) {
    // Nobody is left to be told of a broken standard error.
    drop(writeln!(io::stderr().lock(), "skipped: {test}: {why}"));
}

/// Whether strace can be used on a process of our own.
///
/// # Errors
/// Why not.
pub fn strace() -> Result<(), String> {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("strace is not allowed here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("strace cannot be started: {error}")),
    }
}

/// A small file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of this size on a directory.
    ///
    /// # Errors
    /// Why it cannot be mounted: root is needed.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "belfry-tests"]).arg(path);
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self { path: path.to_path_buf() }),
            Ok(output) => Err(format!("tmpfs cannot be mounted: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("mount cannot be started: {error}")),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills all but `bytes_left` of it with a file.
    pub fn fill(&self, bytes_left: u64) {
        let free = || {
            let statistics = rustix::fs::statvfs(&self.path).unwrap();
            statistics.f_bavail * statistics.f_frsize
        };
        let filler = std::fs::File::create(self.filler()).unwrap();
        let bytes = free().saturating_sub(bytes_left);
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1)).unwrap();
    }

    /// Takes the file away again.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        drop(Command::new("umount").arg("--lazy").arg(&self.path).output());
    }
}
