//! The collector's small durable state: who may do what, which alerts stand, what was said to whom.
//!
//! One SQLite file, `belfry.db` in the data directory: the most trusted store there is, and one that people can open. Each
//! subject is one file here, with its table, its types and its statements. They are functions over a [`Snapshot`] or a
//! [`Transaction`], so that a caller composes what must happen together:
//!
//! ```text
//! state.write(move |transaction| {
//!     let revoked = nodes::revoke(transaction, &name, now)?;
//!     audit::append(transaction, &entry)?;
//!     Ok::<_, nodes::NodeError>(revoked)
//! }).await?;
//! ```
//! `Ok` means durable. Reads see one instant and never wait for a write.
//!
//! Absent: samples (they are the store's), clock reads (`now` is an argument), what an alert or event *is* (its body is the
//! rules' own JSON), silent repair: a damaged or newer database is refused and left as it is.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod certificates;
pub(crate) mod cursors;
pub(crate) mod epochs;
mod error;
pub(crate) mod events;
mod files;
pub(crate) mod gpu_jobs;
mod hex;
pub(crate) mod http_tokens;
mod location;
pub(crate) mod nodes;
mod schema;
#[cfg(test)]
mod scratch;
#[cfg_attr(not(test), expect(dead_code, reason = "for acknowledging and silencing alerts"))]
pub(crate) mod silences;
mod sqlite;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
mod writer;

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use belfry_common::storage::FileLock;
use tokio::sync::{Mutex, watch};

pub(crate) use error::{OpenError, StateError};
pub(crate) use sqlite::{Snapshot, Transaction};
pub(crate) use writer::Health;

use location::Location;
use sqlite::Connection;
use writer::Writer;

/// The database's name in the data directory.
pub(crate) const FILE: &str = "belfry.db";

/// Locked while a collector has the database open. Not the database itself: closing a second handle to that would drop
/// the locks that SQLite holds on it.
pub(crate) const LOCK_FILE: &str = "belfry.db.lock";

/// A handle to the open database. Clones share it; the last one to go closes it, which blocks for what is still queued:
/// [`State::shutdown`] first.
#[derive(Clone)]
pub(crate) struct State {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
}

/// The names of the nodes that a data directory's database knows. Changes nothing; a collector may run on it meanwhile.
///
/// # Errors
/// [`OpenError`] or [`StateError`].
pub(crate) fn node_names(directory: &Path) -> Result<Vec<(nodes::NodeId, String)>, Box<dyn Error + Send + Sync>> {
    let reader = Connection::open_reader(&Location::File(directory.join(FILE)))?;
    let nodes = reader.snapshot::<_, StateError>(nodes::list)?;
    Ok(nodes.into_iter().map(|node| (node.id, node.name.as_str().to_owned())).collect())
}

/// Copies a data directory's database, as it is at one instant, to a path where there is nothing. A collector may run on it meanwhile.
///
/// # Errors
/// [`OpenError`] when it cannot be read, or is not as it should be; what is there of the copy is to be thrown away.
pub(crate) fn back_up(directory: &Path, to: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File { path: to.to_path_buf(), source };
    let file = files::open_private(to).map_err(failed)?;
    // The engine's names are text.
    let name = to.to_str().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
    Connection::copy(&Location::File(directory.join(FILE)), name)?;
    file.sync_all().map_err(failed)?;
    schema::check(&Connection::open_reader(&Location::File(to.to_path_buf()))?, to)
}

impl State {
    /// Where the database of a data directory is.
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    /// Takes possession of a data directory's database, which need not be there, until the result is dropped: no collector starts meanwhile.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if somebody has it.
    pub(crate) fn lock(directory: &Path) -> Result<FileLock, OpenError> {
        files::lock(directory.join(LOCK_FILE), &Self::path(directory))
    }

    /// Opens the database of this data directory, or creates it. Blocks while it is checked.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with which file and what to do about it.
    pub(crate) fn open(directory: &Path) -> Result<Self, OpenError> {
        let lock = Self::lock(directory)?;
        Self::start(&Location::File(Self::path(directory)), Some(lock))
    }

    /// A database that is gone with its last handle.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("/state-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self::start(&Location::Memory(name.into()), None).expect("a new database in memory has nothing to refuse")
    }

    fn start(location: &Location, lock: Option<FileLock>) -> Result<Self, OpenError> {
        let writer = Connection::open_writer(location)?;
        let reader = Connection::open_reader(location)?;
        let writer = Writer::start(writer, lock).map_err(|source| OpenError::Thread { source })?;
        Ok(Self { inner: Arc::new(Inner { writer, reader: Arc::new(Mutex::new(reader)) }) })
    }

    /// Runs `work` in a transaction of its own and answers once its effects are durable.
    ///
    /// When `work` fails, nothing of it remains. Once begun, a write happens even if this future is dropped.
    ///
    /// # Errors
    /// Those of `work`, or [`StateError`] when the database could not make it durable.
    pub(crate) async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        self.inner.writer.write(work).await
    }

    /// Runs reads that all see the last committed state, off the runtime's threads and one after another: a read is short.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        let reader = Arc::clone(&self.inner.reader).lock_owned().await;
        let read = tokio::task::spawn_blocking(move || reader.snapshot(work));
        match read.await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StateError::Closed.into()),
            },
        }
    }

    /// How the writer fares, now and when that changes. A sender that is gone means that the writer has ended.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.inner.writer.health()
    }

    /// Waits until nothing will be written any more, and says why: the process should stop then.
    pub(crate) async fn failed(&self) -> StateError {
        let mut health = self.health();
        loop {
            if let Health::Failed(cause) = &*health.borrow_and_update() {
                return cause.clone();
            }
            if health.changed().await.is_err() {
                return StateError::Closed;
            }
        }
    }

    /// Takes no more writes from any handle, finishes those that wait and closes the writer. Reads still work.
    pub(crate) async fn shutdown(&self) {
        let inner = Arc::clone(&self.inner);
        // It ends early only with the runtime, and then the last handle's drop finishes it.
        let _ = tokio::task::spawn_blocking(move || inner.writer.stop()).await;
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
