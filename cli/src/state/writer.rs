//! The thread that owns the writing connection.
//!
//! Writes wait in a bounded queue. The thread takes all that wait, up to a limit, runs each in a savepoint of one
//! transaction and commits them with one fsync (group commit): while one group syncs, the next one gathers. A write that
//! fails undoes itself and not its neighbours; everybody hears of their write only after the commit.
//!
//! ```text
//! commit fails for want of space, or somebody holds the lock → the group fails, the next one tries again
//! commit fails to write or sync, or the file is damaged      → every write fails from here on (fail-stop)
//! ```
//! After a failed fsync nobody knows what is on disk, and asking again may get a false yes; reopening reads what is there.
//!
//! Absent: SQL, timers. A group is never held back to wait for more.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use belfry_common::{error_chain::ErrorChain, storage::FileLock};

use super::{
    error::StateError,
    sqlite::{Connection, Transaction},
};

/// Writes that may wait. Callers beyond wait for room: a few seconds' worth even at one fsync per write.
const WRITES_QUEUED_MAX: usize = 1024;

/// Writes in one transaction: enough to share the fsync among, few enough that the first does not wait long for the last.
const WRITES_PER_GROUP_MAX: usize = 256;

/// How the writer fares.
#[derive(Debug, Clone)]
pub(crate) enum Health {
    /// The last group was committed, or there was none yet.
    Good,
    /// The last group failed for a reason that can pass, such as a full disk.
    Retrying(StateError),
    /// Nothing will be written until the database is opened anew. The process should stop and say so.
    Failed(StateError),
}

/// The callers' end of the queue.
#[derive(Debug)]
pub(super) struct Writer {
    /// Taken when the writer is to stop.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Write>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    health: watch::Receiver<Health>,
}

impl Writer {
    /// Starts the thread, which keeps `lock` for as long as it can write.
    ///
    /// # Errors
    /// The system's error when it has no more threads.
    pub(super) fn start(connection: Connection, lock: Option<FileLock>) -> io::Result<Self> {
        let (sender, queue) = mpsc::channel(WRITES_QUEUED_MAX);
        let (health, receiver) = watch::channel(Health::Good);
        let worker = Worker { connection, queue, waiting: VecDeque::new(), failed: None, health, _lock: lock };
        let thread = thread::Builder::new().name("belfry-state".to_owned()).spawn(move || worker.run())?;
        Ok(Self { queue: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), health: receiver })
    }

    /// Runs `work` in a transaction and answers once it is durable. What is queued happens even if the caller gives up waiting.
    pub(super) async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        let Some(queue) = lock(&self.queue).clone() else { return Err(StateError::Closed.into()) };
        let (reply, answer) = oneshot::channel();
        let write = Pending { work: Some(work), result: None, reply };
        queue.send(Box::new(write)).await.map_err(|_| StateError::Closed)?;
        // The queue's own sender must not outlive the send, or shutting down would wait for this answer.
        drop(queue);
        answer.await.unwrap_or_else(|_| Err(StateError::Closed.into()))
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Takes no more writes, finishes those that wait, closes the connection. Blocks; safe to call again.
    pub(super) fn stop(&self) {
        lock(&self.queue).take();
        let Some(thread) = lock(&self.thread).take() else { return };
        // A write that holds the last handle drops it on the writer's own thread, which cannot wait for itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            error!("state writer panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread's end of the queue.
struct Worker {
    connection: Connection,
    queue: mpsc::Receiver<Box<dyn Write>>,
    /// Taken from the queue, not yet run.
    waiting: VecDeque<Box<dyn Write>>,
    /// Why nothing is written any more.
    failed: Option<Arc<StateError>>,
    health: watch::Sender<Health>,
    /// Last, so that nobody else opens the database before this connection is closed.
    _lock: Option<FileLock>,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            self.waiting.push_back(first);
            while self.waiting.len() < WRITES_PER_GROUP_MAX
                && let Ok(next) = self.queue.try_recv()
            {
                self.waiting.push_back(next);
            }
            while !self.waiting.is_empty() {
                self.handle_group();
            }
        }
        self.close();
    }

    fn handle_group(&mut self) {
        let mut ran = Vec::with_capacity(self.waiting.len());
        let outcome = match &self.failed {
            Some(cause) => Err(StateError::Poisoned { source: Arc::clone(cause) }),
            None => self.commit_group(&mut ran),
        };
        // What failed before its first member would fail for the others too.
        if outcome.is_err() && ran.is_empty() {
            ran.extend(self.waiting.drain(..));
        }
        self.judge(&outcome);
        for write in ran {
            write.answer(&outcome);
        }
        self.tend_wal(&outcome);
    }

    /// Runs what waits, as far as the transaction lives, and commits it.
    fn commit_group(&mut self, ran: &mut Vec<Box<dyn Write>>) -> Result<(), StateError> {
        let group = self.connection.begin()?;
        while let Some(mut write) = self.waiting.pop_front() {
            let result = group.run(|transaction| write.run(transaction));
            ran.push(write);
            result?;
        }
        group.commit()
    }

    /// Keeps the WAL small. Nobody waits for it, but its failures count as the writes' own do.
    fn tend_wal(&mut self, outcome: &Result<(), StateError>) {
        let tended = match outcome {
            Ok(()) => self.connection.relieve(),
            Err(StateError::Full { .. }) => self.connection.reclaim(),
            Err(_) => return,
        };
        if tended.is_err() {
            self.judge(&tended);
        }
    }

    fn judge(&mut self, outcome: &Result<(), StateError>) {
        match outcome {
            Err(StateError::Poisoned { .. }) => {}
            Ok(()) => {
                self.health.send_if_modified(|health| {
                    let recovered = !matches!(health, Health::Good);
                    *health = Health::Good;
                    recovered
                });
            }
            Err(failure) if failure.is_fatal() => {
                error!(error = %ErrorChain(failure), "state database failed, nothing more is written");
                self.failed = Some(Arc::new(failure.clone()));
                self.health.send_replace(Health::Failed(failure.clone()));
            }
            Err(failure) => {
                warn!(error = %ErrorChain(failure), "state database refused a group of writes");
                self.health.send_replace(Health::Retrying(failure.clone()));
            }
        }
    }

    fn close(self) {
        if self.failed.is_none()
            && let Err(failure) = self.connection.empty_wal()
        {
            warn!(error = %ErrorChain(&failure), "state database was closed without a checkpoint");
        }
    }
}

/// A write whose types are its caller's business.
trait Write: Send {
    /// Does it, within the group's transaction. False when its effects are to be undone.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;

    /// Tells the caller, now that the group's fate is known.
    fn answer(self: Box<Self>, group: &Result<(), StateError>);
}

struct Pending<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Write for Pending<T, E, F>
where
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<StateError> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        self.result = self.work.take().map(|work| work(transaction));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, group: &Result<(), StateError>) {
        let result = match (group, self.result) {
            // A refusal may rest on a neighbour's effects, which are gone: everybody gets the group's failure.
            (Err(failure), _) => Err(failure.clone().into()),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StateError::Closed.into()),
        };
        // The caller may have stopped waiting; the write stands all the same.
        let _ = self.reply.send(result);
    }
}

/// No lock here is held over code that can panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
