//! A disk in memory that can lose power, fail, fill up and be tampered with: for tests, here and in other crates.
//!
//! It is as mean as a disk may legally be:
//! - [`Simulated::lose_power`] keeps any subset of the 512-byte sectors written since the file's last sync, any
//!   subset of length changes, and any subset of the directory entries made or removed since the folder's last
//!   sync;
//! - a failed sync keeps any subset of what it should have written, and counts the rest as clean: a repeated sync
//!   succeeds and writes nothing, as on Linux;
//! - reads go on serving what was written, as a page cache does, until it is forgotten.
//!
//! A rename survives as a whole or not at all. All choices come from one seed: a run can be repeated exactly.
//!
//! ```
//! use std::sync::Arc;
//! use belfry_common::{journal::{Journal, Options, Position}, storage::simulated::Simulated};
//!
//! let disk = Simulated::new(7);
//! let options = Options { segment_bytes: 4096, ..Options::default() };
//! let (mut journal, _) = Journal::open_in(Arc::new(disk.clone()), options)?;
//! journal.append(b"confirmed")?;
//! journal.sync()?;
//! disk.lose_power();
//!
//! let (journal, recovery) = Journal::open_in(Arc::new(disk), options)?;
//! assert_eq!(recovery.records, 1);
//! assert_eq!(journal.read(Position::START)?.next_record()?.unwrap().payload, b"confirmed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod unsynced;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::file::SimulatedFile;
use self::unsynced::{EntryChange, Node, Survival, folder_of};
use super::{Access, Entry, Lock, Storage, StorageFile};

/// `EIO`.
pub const EIO: i32 = 5;
/// `EINTR`.
pub const EINTR: i32 = 4;
/// `ENOSPC`.
pub const ENOSPC: i32 = 28;

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing and fails with this `errno`.
    Error(i32),
    /// It is done, but its caller never learns: this operation and all later ones fail, until [`Simulated::kill`] or
    /// [`Simulated::lose_power`].
    Crash,
}

/// A simulated directory. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
}

impl Simulated {
    /// An empty directory.
    pub fn new(seed: u64) -> Self {
        let state = State { random: fastrand::Rng::with_seed(seed), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Operations so far, those on files included.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Lets a fault happen at the `nth` operation from now; the next one is 1.
    pub fn inject(&self, nth: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + nth;
        state.faults.insert(at, fault);
    }

    /// Whether the process has crashed by an injected fault, and was not started again.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Drops the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// From now on, writes transfer a random beginning of what they are given.
    pub fn write_short(&self, short: bool) {
        self.state().short_writes = short;
    }

    /// Bytes that all files together may have; `None` for no limit.
    pub fn limit_bytes(&self, bytes: Option<u64>) {
        self.state().bytes_max = bytes;
    }

    /// Ends the process: its handles and its lock die, all that it wrote stays.
    pub fn kill(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.locked = false;
        state.crashed = false;
    }

    /// Cuts the power: as [`Self::kill`], and what was not synced may be gone.
    pub fn lose_power(&self) {
        self.kill();
        let state = &mut *self.state();
        let survival = Survival::any(&mut state.random);
        for change in std::mem::take(&mut state.unsynced_entries) {
            if survival.of_change(&mut state.random) {
                change.apply(&mut state.durable, &mut state.durable_folders);
            }
        }
        state.folders = state.durable_folders.clone();
        state.durable.retain(|name, _| folder_of(name).is_empty() || state.folders.contains(folder_of(name)));
        state.live = state.durable.clone();
        for node in &mut state.nodes {
            let survival = Survival::any(&mut state.random);
            node.settle(survival, &mut state.random);
            node.cache = node.disk.clone();
        }
    }

    /// Names of all files, in order; with their folder.
    pub fn names(&self) -> Vec<String> {
        self.state().live.keys().cloned().collect()
    }

    /// What a file holds.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let node = state.live.get(name)?;
        state.nodes.get(*node).map(|node| node.cache.clone())
    }

    /// Replaces a file from outside, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let node = state.nodes.len();
        state.nodes.push(Node { cache: bytes.to_vec(), disk: bytes.to_vec(), unsynced: Vec::new() });
        state.live.insert(name.to_owned(), node);
        state.durable.insert(name.to_owned(), node);
    }

    /// Removes a file from outside, durably. False if there is none.
    pub fn delete(&self, name: &str) -> bool {
        let mut state = self.state();
        state.durable.remove(name);
        state.live.remove(name).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, does it, and lets the fault happen that is due.
    fn operate<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        match state.next_fault()? {
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Crash) => {
                let unseen = operation(&mut state);
                state.crashed = true;
                // Before the result, which may be a lock, is dropped: that needs the state, too.
                drop(state);
                drop(unseen);
                Err(io::Error::other("the process has crashed"))
            }
            None => operation(&mut state),
        }
    }

    fn file(&self, node: usize, generation: u64) -> Box<dyn StorageFile> {
        Box::new(SimulatedFile { storage: self.clone(), node, generation })
    }
}

#[derive(Debug, Default)]
struct State {
    random: fastrand::Rng,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    short_writes: bool,
    bytes_max: Option<u64>,
    /// Which process: handles of earlier ones are dead.
    generation: u64,
    locked: bool,
    /// Files, with and without a name.
    nodes: Vec<Node>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    folders: BTreeSet<String>,
    durable_folders: BTreeSet<String>,
    unsynced_entries: Vec<EntryChange>,
}

impl State {
    fn next_fault(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(io::Error::other("the process has crashed"));
        }
        self.operations += 1;
        Ok(self.faults.remove(&self.operations))
    }

    fn change_entry(&mut self, change: EntryChange) {
        change.clone().apply(&mut self.live, &mut self.folders);
        self.unsynced_entries.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.live.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node(&mut self, node: usize, generation: u64) -> io::Result<&mut Node> {
        if generation != self.generation {
            return Err(io::Error::other("the handle belongs to a process that has ended"));
        }
        self.nodes.get_mut(node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Bytes that files may still grow by.
    fn room(&self) -> u64 {
        let used =
            self.live.values().filter_map(|node| self.nodes.get(*node)).map(|node| node.cache.len() as u64).sum();
        self.bytes_max.map_or(u64::MAX, |max| max.saturating_sub(used))
    }
}

impl Storage for Simulated {
    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn lock(&self, _name: &str) -> io::Result<Option<Lock>> {
        self.operate(|state| {
            if state.locked {
                return Ok(None);
            }
            state.locked = true;
            let lock = SimulatedLock { storage: self.clone(), generation: state.generation };
            Ok(Some(Box::new(lock) as Lock))
        })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.operate(|state| {
            let names = state.live.iter().filter(|(name, _)| folder_of(name) == folder);
            let files = names.map(|(name, node)| Entry {
                name: name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name).to_owned(),
                is_file: true,
                bytes: state.nodes.get(*node).map_or(0, |node| node.cache.len() as u64),
            });
            let folders = state.folders.iter().filter(|_| folder.is_empty());
            let folders = folders.map(|name| Entry { name: name.clone(), is_file: false, bytes: 0 });
            Ok(files.chain(folders).collect())
        })
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        self.operate(|state| {
            if !state.folders.contains(folder) {
                state.change_entry(EntryChange::Folder { name: folder.to_owned() });
            }
            Ok(())
        })
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.operate(|state| {
            if state.live.contains_key(name) || state.folders.contains(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let node = state.nodes.len();
            state.nodes.push(Node::default());
            state.change_entry(EntryChange::Create { name: name.to_owned(), node });
            Ok(self.file(node, state.generation))
        })
    }

    fn open(&self, name: &str, _access: Access) -> io::Result<Box<dyn StorageFile>> {
        self.operate(|state| Ok(self.file(state.find(name)?, state.generation)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate(|state| {
            let node = state.find(from)?;
            state.change_entry(EntryChange::Rename { from: from.to_owned(), to: to.to_owned(), node });
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(|state| {
            state.find(name)?;
            state.change_entry(EntryChange::Remove { name: name.to_owned() });
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.operate(|state| {
            let (synced, rest) = std::mem::take(&mut state.unsynced_entries).into_iter().partition(|c| c.is_in(folder));
            state.unsynced_entries = rest;
            let synced: Vec<EntryChange> = synced;
            for change in synced {
                change.apply(&mut state.durable, &mut state.durable_folders);
            }
            Ok(())
        })
    }

    fn salt(&self) -> u32 {
        self.state().random.u32(..)
    }
}

#[derive(Debug)]
struct SimulatedLock {
    storage: Simulated,
    generation: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.storage.state();
        if state.generation == self.generation {
            state.locked = false;
        }
    }
}
