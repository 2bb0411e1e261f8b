//! An open file of the simulated disk.

use std::io;

use super::unsynced::{Change, Node, Survival};
use super::{ENOSPC, Fault, Simulated};
use crate::storage::StorageFile;

#[derive(Debug)]
pub(super) struct SimulatedFile {
    pub(super) storage: Simulated,
    pub(super) node: usize,
    pub(super) generation: u64,
}

impl SimulatedFile {
    fn operate<T>(&self, operation: impl FnOnce(&mut Node) -> io::Result<T>) -> io::Result<T> {
        self.storage.operate(|state| operation(state.node(self.node, self.generation)?))
    }
}

impl StorageFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.operate(|node| Ok(node.cache.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.operate(|node| {
            let content = usize::try_from(offset).ok().and_then(|from| node.cache.get(from..)).unwrap_or_default();
            let count = content.len().min(buffer.len());
            for (target, byte) in buffer.iter_mut().zip(content) {
                *target = *byte;
            }
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.storage.operate(|state| {
            let room = state.room();
            let short = if state.short_writes { state.random.usize(1..=bytes.len().max(1)) } else { bytes.len() };
            let node = state.node(self.node, self.generation)?;
            let before_end = (node.cache.len() as u64).saturating_sub(offset);
            let fitting = usize::try_from(room.saturating_add(before_end)).unwrap_or(usize::MAX);
            let (written, _) = bytes.split_at(bytes.len().min(short).min(fitting));
            if written.is_empty() && !bytes.is_empty() {
                return Err(no_space());
            }
            let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            node.change(Change::Write { at, bytes: written.to_vec() });
            Ok(written.len())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.operate(|node| {
            node.change(Change::Length(length));
            Ok(())
        })
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.storage.operate(|state| {
            let room = state.room();
            let node = state.node(self.node, self.generation)?;
            if bytes.saturating_sub(node.cache.len() as u64) > room {
                return Err(no_space());
            }
            node.change(Change::Length(length));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.storage.state();
        let fault = state.next_fault()?;
        let survival = match fault {
            Some(Fault::Error(_)) => Survival::any(&mut state.random),
            Some(Fault::Crash) | None => Survival::Everything,
        };
        let mut random = state.random.fork();
        state.node(self.node, self.generation)?.settle(survival, &mut random);
        match fault {
            None => Ok(()),
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Crash) => {
                state.crashed = true;
                Err(io::Error::other("the process has crashed"))
            }
        }
    }

    fn forget_cached(&self) {
        if let Ok(node) = self.storage.state().node(self.node, self.generation) {
            node.cache = node.disk.clone();
            for change in &node.unsynced {
                change.apply(&mut node.cache, |_| true);
            }
        }
    }
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}
