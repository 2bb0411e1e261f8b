//! Gives the spool a thread: a disk that hangs must not hold up what goes over the network.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc as blocking,
    },
    thread,
    time::Duration,
};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    journal::JournalError,
    model::{Batch, Epoch, Gap, Sequence, Timestamp},
    sequences::SequenceSet,
    wire::message::Run,
};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{Cursor, Opened, Reconciled, Spool, SpoolError, Spooled};
use crate::statistics::Statistics;

/// Commands that wait for the disk: a minute of batches. Beyond that batches are not spooled, and counted.
const COMMANDS_MAX: usize = 256;
const STACK_BYTES: usize = 512 * 1024;

/// How the spool is kept.
#[derive(Debug, Clone)]
pub(crate) struct SpoolSettings {
    pub(crate) directory: PathBuf,
    pub(crate) bytes_max: u64,
    pub(crate) sync_interval: Duration,
}

/// What is asked of the spool's thread.
enum Command {
    Append {
        sequence: Sequence,
        time: Timestamp,
        batch: Arc<Batch>,
        /// The session that sends it live, if one does.
        session: Option<u64>,
    },
    Acknowledge(Vec<Run>),
    Reconcile(Vec<Run>),
    Refuse(Sequence),
    Backlog {
        batches_max: usize,
        reply: oneshot::Sender<Backlog>,
    },
    Stop,
}

/// Backlog to send.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) batches: Vec<Spooled>,
    pub(crate) gaps: Vec<Gap>,
}

/// The spool as the rest of the agent uses it. Nothing here waits for the disk.
#[derive(Debug, Clone)]
pub(crate) struct SpoolHandle {
    commands: blocking::SyncSender<Command>,
    epoch: Epoch,
    shared: Arc<Shared>,
}

/// What need not wait in the queue, and must not be lost when that is full.
#[derive(Debug)]
struct Shared {
    /// Counts connections: with a new one everything unacknowledged is backlog again.
    session: AtomicU64,
    /// The last number that may be used.
    ceiling: AtomicU64,
}

/// The spool's thread. Stopping it syncs what there is.
#[derive(Debug)]
pub(crate) struct SpoolThread {
    commands: blocking::SyncSender<Command>,
    thread: thread::JoinHandle<()>,
}

impl SpoolHandle {
    /// Opens the spool and starts its thread; says which number comes next.
    pub(crate) fn start(
        settings: SpoolSettings,
        statistics: Arc<Statistics>,
    ) -> Result<(Self, SpoolThread, Sequence), SpoolError> {
        let (spool, Opened { epoch, next, ceiling }) = Spool::open(&settings.directory, settings.bytes_max)?;
        info!(%epoch, next, waiting = spool.waiting(), "spool opened");
        let (commands, inbox) = blocking::sync_channel(COMMANDS_MAX);
        let shared = Arc::new(Shared { session: AtomicU64::new(0), ceiling: AtomicU64::new(ceiling) });
        let worker = Worker {
            spool: Some(spool),
            shared: Arc::clone(&shared),
            session: 0,
            cursor: None,
            live: SequenceSet::default(),
            settings,
            statistics,
            gaps_told: Vec::new(),
        };
        let builder = thread::Builder::new().name("spool".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || worker.run(&inbox)).map_err(|_| SpoolError::Random)?;
        Ok((Self { commands: commands.clone(), epoch, shared }, SpoolThread { commands, thread }, next))
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last number that may be used. A spool that cannot be written does not raise it.
    pub(crate) fn ceiling(&self) -> Sequence {
        self.shared.ceiling.load(Relaxed)
    }

    /// Hands over a batch, and which session sends it live; false if the disk is so far behind that there is no room to wait.
    pub(crate) fn append(&self, sequence: Sequence, time: Timestamp, batch: Arc<Batch>, session: Option<u64>) -> bool {
        self.commands.try_send(Command::Append { sequence, time, batch, session }).is_ok()
    }

    /// Passes an acknowledgement on. If it is lost here, the collector knows the batch when it comes again.
    pub(crate) fn acknowledge(&self, runs: Vec<Run>) {
        drop(self.commands.try_send(Command::Acknowledge(runs)));
    }

    /// Passes on all that the collector has. If it is lost here, the next connection says it again.
    pub(crate) fn reconcile(&self, durable: Vec<Run>) {
        drop(self.commands.try_send(Command::Reconcile(durable)));
    }

    pub(crate) fn refuse(&self, sequence: Sequence) {
        drop(self.commands.try_send(Command::Refuse(sequence)));
    }

    /// A new connection: everything unacknowledged is backlog again, but for what its session sends live.
    pub(crate) fn begin_session(&self) -> u64 {
        self.shared.session.fetch_add(1, Relaxed) + 1
    }

    /// The next backlog; empty if there is none, or if the disk is too far behind to say.
    pub(crate) async fn backlog(&self, batches_max: usize) -> Backlog {
        let (reply, answer) = oneshot::channel();
        if self.commands.try_send(Command::Backlog { batches_max, reply }).is_err() {
            return Backlog::default();
        }
        answer.await.unwrap_or_default()
    }
}

impl SpoolThread {
    /// Syncs and ends. Blocks for as long as the disk takes.
    pub(crate) fn stop(self) {
        // A full queue means that the disk hangs: there is nothing to wait for.
        if self.commands.try_send(Command::Stop).is_ok() && self.thread.join().is_err() {
            error!("spool thread panicked");
        }
    }
}

struct Worker {
    /// None after a failure: numbers that the disk may or may not have can only be told apart by a restart.
    spool: Option<Spool>,
    shared: Arc<Shared>,
    /// The session that the fields below belong to.
    session: u64,
    cursor: Option<Cursor>,
    /// Handed to the live stream of the present connection: not backlog.
    live: SequenceSet,
    settings: SpoolSettings,
    statistics: Arc<Statistics>,
    /// Gaps that the present connection has been told.
    gaps_told: Vec<Gap>,
}

impl Worker {
    fn run(mut self, inbox: &blocking::Receiver<Command>) {
        let mut sync_at = clock::monotonic() + self.settings.sync_interval;
        self.report();
        loop {
            let wait = sync_at.saturating_duration_since(clock::monotonic());
            match inbox.recv_timeout(wait) {
                Ok(Command::Stop) | Err(blocking::RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.execute(command),
                Err(blocking::RecvTimeoutError::Timeout) => {
                    self.guarded(Spool::sync);
                    sync_at = clock::monotonic() + self.settings.sync_interval;
                }
            }
            self.report();
        }
        self.guarded(Spool::sync);
    }

    fn execute(&mut self, command: Command) {
        self.rewind();
        match command {
            Command::Append { sequence, time, batch, session } => {
                let is_live = session == Some(self.session);
                if is_live && self.live.insert(sequence..=sequence).is_err() {
                    warn!("live batches are too scattered");
                }
                let is_accepted = self.with_room(|spool| spool.append(sequence, time, &batch)).is_some();
                // What cannot be written now waits in memory, and is written with the next one.
                self.with_room(Spool::flush);
                // One that is under way may still arrive.
                let is_lost = !is_accepted && !is_live;
                let given_up = self.spool.as_mut().map_or(0, Spool::take_given_up);
                self.statistics.add(|statistics| &statistics.batches_dropped, given_up + u64::from(is_lost));
            }
            Command::Acknowledge(runs) => {
                if let Some(news) = self.guarded(|spool| spool.acknowledge(&runs)) {
                    self.statistics.add(|statistics| &statistics.batches_acked, news);
                }
            }
            Command::Reconcile(durable) => {
                // A question of the session before may have been answered since it ended.
                (self.cursor, self.gaps_told) = (None, Vec::new());
                let Some(Reconciled { news, again, gone }) = self.guarded(|spool| spool.reconcile(&durable)) else {
                    return;
                };
                self.statistics.add(|statistics| &statistics.batches_acked, news);
                if again + gone > 0 {
                    warn!(
                        again,
                        gone, "the collector does not have what was acknowledged: it was restored, or is another one"
                    );
                }
            }
            Command::Refuse(sequence) => {
                self.guarded(|spool| spool.refuse(sequence));
            }
            Command::Backlog { batches_max, reply } => {
                // Nobody waits any more when the connection is gone.
                drop(reply.send(self.backlog(batches_max)));
            }
            Command::Stop => {}
        }
    }

    /// Begins anew for a connection that has come since the last command.
    fn rewind(&mut self) {
        let session = self.shared.session.load(Relaxed);
        if session != self.session {
            self.session = session;
            self.cursor = None;
            self.live = SequenceSet::default();
            self.gaps_told.clear();
        }
    }

    /// Does this; on a full disk the oldest goes for it, as it does when the spool itself is full.
    fn with_room(&mut self, mut call: impl FnMut(&mut Spool) -> Result<(), SpoolError>) -> Option<()> {
        loop {
            match call(self.spool.as_mut()?) {
                Ok(()) => return Some(()),
                Err(SpoolError::Journal(JournalError::Full(_))) => {
                    if !self.guarded(Spool::give_up_oldest)? {
                        return None;
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    return None;
                }
            }
        }
    }

    fn backlog(&mut self, batches_max: usize) -> Backlog {
        let Some(spool) = &self.spool else { return Backlog::default() };
        let mut read = || {
            let cursor = match &mut self.cursor {
                Some(cursor) => cursor,
                none => none.insert(spool.cursor()?),
            };
            spool.backlog(cursor, &self.live, batches_max)
        };
        match read() {
            Ok(batches) => {
                let gaps: Vec<Gap> = spool.gaps().iter().filter(|gap| !self.gaps_told.contains(gap)).copied().collect();
                self.gaps_told = spool.gaps().to_vec();
                Backlog { batches, gaps }
            }
            Err(error) => {
                self.fail(&error);
                Backlog::default()
            }
        }
    }

    fn guarded<T>(&mut self, call: impl FnOnce(&mut Spool) -> Result<T, SpoolError>) -> Option<T> {
        match call(self.spool.as_mut()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    fn fail(&mut self, error: &SpoolError) {
        error!(error = %ErrorChain(error), "spool failed");
        if matches!(error, SpoolError::Journal(JournalError::Full(_))) {
            return;
        }
        error!("going on without the spool: restart the agent when the disk is sound");
        self.spool = None;
        self.cursor = None;
    }

    fn report(&self) {
        let statistics = &self.statistics;
        statistics.is_spool_usable.store(self.spool.is_some(), Relaxed);
        if let Some(spool) = &self.spool {
            self.shared.ceiling.store(spool.ceiling(), Relaxed);
            statistics.spool_bytes.store(spool.bytes(), Relaxed);
            statistics.spool_batches.store(spool.waiting(), Relaxed);
            statistics.spool_oldest_ms.store(spool.oldest().map_or(0, Timestamp::as_millis), Relaxed);
        }
    }
}
