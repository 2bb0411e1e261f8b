//! Letting go of the GPUs for a while: for a reset, a change of MIG, a reload of the driver.
//!
//! Two files in the agent's state directory. One says that the GPUs are to be left alone; it outlives restarts. The other is a
//! lock that every worker shares for as long as it lives: who has it alone knows that no handle is open any more.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use rustix::fs::{FlockOperation, OFlags};

/// Between two tries to get the lock.
const STEP: Duration = Duration::from_millis(20);

/// The pause of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    directory: PathBuf,
    request: PathBuf,
    lock: PathBuf,
}

impl Pause {
    pub(crate) fn new(state_directory: &Path) -> Self {
        let in_it = |name| state_directory.join(name);
        Self { directory: state_directory.to_owned(), request: in_it("gpu.paused"), lock: in_it("gpu.lock") }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The lock that a worker holds as long as it lives; `None` where there is no state directory, or not for this user.
    pub(super) fn hold(&self) -> io::Result<Option<File>> {
        let file = match self.open_lock() {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        rustix::fs::flock(&file, FlockOperation::LockShared)?;
        Ok(Some(file))
    }

    /// Who made it may be another user than who locks it: reading is enough for that.
    fn open_lock(&self) -> io::Result<File> {
        match options().read(true).open(&self.lock) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match create(&self.lock) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options().read(true).open(&self.lock),
                created => created,
            },
            opened => opened,
        }
    }

    /// Whether the GPUs are to be left alone. A request whose time is over counts no more.
    pub(crate) fn is_requested(&self, now: Timestamp) -> bool {
        let text = match fs::read_to_string(&self.request) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            // If it is there, it counts, whatever it says. In a directory that is closed to this user there is nothing for it.
            Err(_) => return fs::symlink_metadata(&self.request).is_ok(),
        };
        text.trim().parse().map_or(true, |until| now < Timestamp::from_millis(until))
    }

    /// Requests a pause, until it is ended or for a while; returns when that will be over.
    pub(crate) fn request(&self, length: Option<Duration>) -> io::Result<Option<Timestamp>> {
        let until =
            length.map(|length| clock::now().plus_millis(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)));
        let text = until.map_or_else(|| "until resumed".to_owned(), |until| until.as_millis().to_string());
        let new = self.request.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => create(&new)?.write_all(text.as_bytes())?,
        }
        fs::rename(new, &self.request)?;
        Ok(until)
    }

    /// Waits until no worker has a handle of a GPU; `false` if one still had when the time was over.
    pub(crate) fn wait_until_released(&self, patience: Duration) -> io::Result<bool> {
        let file = self.open_lock()?;
        let deadline = clock::monotonic() + patience;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::WOULDBLOCK) if clock::monotonic() < deadline => thread::sleep(STEP),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the pause; `false` if there was none.
    pub(crate) fn end(&self) -> io::Result<bool> {
        match fs::remove_file(&self.request) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A new file that all may read: root's umask must not keep the agent from reading what root asks of it.
fn create(path: &Path) -> io::Result<File> {
    let file = options().write(true).create_new(true).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    Ok(file)
}

/// Root writes into a directory that the agent's user owns: no link in it is followed.
fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_until_it_is_ended_or_its_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let pause = Pause::new(directory.path());
        let now = clock::now();
        assert!(!pause.is_requested(now));
        pause.request(None).unwrap();
        assert!(pause.is_requested(now.plus_millis(1 << 40)));
        assert!(pause.end().unwrap());
        assert!(!pause.end().unwrap());
        pause.request(Some(Duration::from_secs(60))).unwrap();
        assert!(pause.is_requested(now));
        assert!(!pause.is_requested(now.plus_millis(120_000)));
    }

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("secret"), "secret").unwrap();
        for name in ["gpu.paused", "gpu.new", "gpu.lock"] {
            std::os::unix::fs::symlink(at("secret"), at(name)).unwrap();
        }
        let pause = Pause::new(directory.path());
        pause.request(None).unwrap();
        assert!(pause.hold().is_err());
        assert_eq!(fs::read_to_string(at("secret")).unwrap(), "secret");
        assert_eq!(fs::read_to_string(at("gpu.paused")).unwrap(), "until resumed");
    }

    #[test]
    fn whoever_waits_for_the_gpus_waits_for_every_worker() {
        let directory = tempfile::tempdir().unwrap();
        let pause = Pause::new(directory.path());
        assert!(pause.wait_until_released(Duration::ZERO).unwrap());
        let worker = pause.hold().unwrap();
        assert!(!pause.wait_until_released(Duration::ZERO).unwrap());
        drop(worker);
        assert!(pause.wait_until_released(Duration::ZERO).unwrap());
    }
}
