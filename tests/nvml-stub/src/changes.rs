//! Waits for a file to be replaced: whoever waits for an event costs nothing meanwhile, as with the real driver.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};

/// What happens where a file is.
#[derive(Debug)]
pub(crate) struct Changes(OwnedFd);

impl Changes {
    /// From now on.
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let directory = file.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&changes, directory, WatchFlags::MOVED_TO)?;
        Ok(Self(changes))
    }

    /// Whether something was replaced there since the last call, or within this time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        if !matches!(poll(&mut descriptors, Some(&timeout)), Ok(ready) if ready > 0) {
            return false;
        }
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while reader.next().is_ok() {}
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_noticed_once() {
        let directory = env::temp_dir().join(format!("belfry-stub-changes-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let changes = Changes::of(&directory.join("scenario.toml")).unwrap();
        assert!(!changes.wait(Duration::ZERO));
        fs::write(directory.join("new"), "").unwrap();
        fs::rename(directory.join("new"), directory.join("scenario.toml")).unwrap();
        assert!(changes.wait(Duration::from_secs(5)));
        assert!(!changes.wait(Duration::ZERO));
        fs::remove_dir_all(directory).unwrap();
    }
}
