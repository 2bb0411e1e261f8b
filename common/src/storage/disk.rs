//! The real [`Storage`]: a directory of the operating system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Access, Entry, FileLock, Lock, Storage, StorageFile};

/// A directory on a real file system.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// Kept open, so that a lack of file descriptors cannot make its fsync fail.
    directory: File,
}

impl Disk {
    /// Opens the directory, and creates it first if need be, durably.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Absolute, so that a later change of the working directory changes nothing.
        let path = std::path::absolute(path)?;
        create_durably(&path)?;
        let directory = File::open(&path)?;
        Ok(Self { path, directory })
    }

    fn at(&self, name: &str) -> PathBuf {
        // `join("")` would add a trailing slash.
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }
}

/// Creates the missing part of a path, outermost first, and makes the last entry durable in any case: an earlier
/// process may have created it and crashed before its fsync.
fn create_durably(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if !path.is_dir() {
        create_durably(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if !path.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            _ => {}
        }
    }
    match File::open(parent) {
        // A parent that we may pass but not read is not one we created in.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        parent => parent?.sync_all(),
    }
}

impl Storage for Disk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self, name: &str) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.at(name))?;
        Ok(FileLock::of(file)?.map(|lock| Box::new(lock) as Lock))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(self.at(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Of the link itself where it is one.
            let metadata = match entry.metadata() {
                // Somebody has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            list.push(Entry { name, is_file: metadata.is_file(), bytes: metadata.len() });
        }
        Ok(list)
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        match fs::create_dir(self.at(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.at(name))?;
        Ok(Box::new(DiskFile(file)))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(self.at(name))?;
        Ok(Box::new(DiskFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        if folder.is_empty() { self.directory.sync_all() } else { File::open(self.at(folder))?.sync_all() }
    }

    fn salt(&self) -> u32 {
        fastrand::u32(..)
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    #[cfg(target_os = "linux")]
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        Ok(rustix::io::retry_on_intr(|| fallocate(&self.0, FallocateFlags::empty(), 0, bytes))?)
    }

    #[cfg(not(target_os = "linux"))]
    fn preallocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget_cached(&self) {
        #[cfg(target_os = "linux")]
        {
            // Advice: a file system that cannot follow it reads from its cache, as if we had not asked.
            let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
    };

    use super::*;

    #[test]
    fn what_goes_while_it_is_listed_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::create(directory.path()).unwrap();
        drop(disk.create("stays").unwrap());
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in (0..50).cycle().take_while(|_| !is_done.load(Relaxed)) {
                    drop(disk.create(&format!("goes-{number}")).unwrap());
                    disk.remove(&format!("goes-{number}")).unwrap();
                }
            });
            let lists: Vec<_> = (0..5000).map(|_| disk.list("")).collect();
            is_done.store(true, Relaxed);
            for list in lists {
                assert!(list.unwrap().iter().any(|entry| entry.name == "stays"));
            }
        });
    }
}
